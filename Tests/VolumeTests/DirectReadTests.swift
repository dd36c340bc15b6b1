/// Reads past the cache (O_DIRECT): the bytes are right, the device writes them where the reader wants them, and nobody gets what is not his.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct DirectReadTests {
    private static let page = 4096
    private static let direct: UInt32 = 0o40000
    private static let create: UInt32 = 0o102

    private func volume(_ configure: (inout Volume.Configuration) -> Void = { _ in }) throws -> (VolumeHarness, RecordingDevice) {
        let device = RecordingDevice(size: Int(VolumeHarness.smallSize), seed: 3)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 256
        configure(&configuration)
        return (try VolumeHarness(device, configuration: configuration), device)
    }

    /// A file whose content is on the device and, mounted again, in no cache.
    private func stored(_ bytes: [UInt8], _ more: (VolumeHarness) -> Void = { _ in }) throws -> (VolumeHarness, RecordingDevice) {
        let (first, device) = try volume()
        let handle = first.open("/f", Self.create)
        #expect(first.write(handle, bytes, at: 0) == bytes.count && first.fsync(handle) == 0)
        more(first)
        first.unmount()
        var configuration = VolumeHarness.smallConfiguration(nonce: 8)
        configuration.cacheFrames = 256
        return (try VolumeHarness(device, configuration: configuration), device)
    }

    @Test func theDeviceWritesIntoTheReadersMemory() throws {
        let content = VolumeWorkload.bytes(33 * Self.page, seed: 1)
        let (volume, device, bytes) = try heldRead(content)
        device.schedule.holdsLongReads = false
        #expect(volume.wait().result == Int64(32 * Self.page) && bytes.array == Array(content[0..<32 * Self.page]))
    }

    @Test func nothingStaysInTheCacheAndWhatIsThereIsUsed() throws {
        let content = VolumeWorkload.bytes(32 * Self.page, seed: 2)
        let (volume, device) = try stored(content)
        let (plain, direct) = (volume.open("/f"), volume.open("/f", Self.direct))
        device.plan(DeviceFault(.error(5), on: [.read], after: .max))
        /// Reads of the device that reading all of the file takes.
        func deviceReads(_ handle: Int64) -> Int {
            let before = device.faultCounts[0]
            #expect(volume.read(handle, content.count, at: 0).bytes == content)
            return device.faultCounts[0] - before
        }
        _ = deviceReads(direct)
        #expect(deviceReads(direct) > 0, "it was not kept")
        _ = deviceReads(plain)
        #expect(deviceReads(direct) == 0, "the cache has it")
    }

    @Test func holesUnwrittenBlocksDirtyPagesAndEndsAreAsInOtherReads() throws {
        let pages = 40
        var content = VolumeWorkload.bytes(pages * Self.page + 1234, seed: 3)
        let (volume, _) = try stored(content) { first in
            let handle = first.open("/f", 2)
            // PUNCH_HOLE and KEEP_SIZE; ZERO_RANGE.
            for (flags, page) in [(3, 5), (0x10, 9)] as [(UInt32, Int)] {
                #expect(first.run(.fallocate) { ($0.handle, $0.flags, $0.offset, $0.length) = (Int32(handle), flags, Int64(page * Self.page), UInt64(2 * Self.page)) }.result == 0)
            }
            #expect(first.fsync(handle) == 0)
        }
        for page in [5, 6, 9, 10] { content.replaceSubrange(page * Self.page..<(page + 1) * Self.page, with: [UInt8](repeating: 0, count: Self.page)) }
        let (writer, direct) = (volume.open("/f", 2), volume.open("/f", Self.direct))
        for page in [0, 7, 20, 40] {
            let bytes = VolumeWorkload.bytes(100, seed: UInt64(page))
            #expect(volume.write(writer, bytes, at: Int64(page * Self.page + 50)) == 100)
            content.replaceSubrange(page * Self.page + 50..<page * Self.page + 150, with: bytes)
        }
        var random = SeededRandom(seed: 4)
        for _ in 0..<300 {
            let offset = random.chance(0.7) ? random.below(pages + 2) * Self.page : random.below(content.count)
            let count = random.chance(0.7) ? (1 + random.below(pages)) * Self.page : random.below(3 * Self.page)
            let want = offset < content.count ? Array(content[offset..<min(content.count, offset + count)]) : []
            #expect(volume.read(direct, count, at: Int64(offset)).bytes == want, "\(count) bytes at \(offset)")
        }
        // By the description's own place.
        #expect(volume.run(.seek) { ($0.handle, $0.offset, $0.flags) = (Int32(direct), 0, 0) }.result == 0)
        var all: [UInt8] = []
        while true {
            let (result, bytes) = volume.read(direct, 3 * Self.page)
            if result <= 0 { break }
            all += bytes
        }
        #expect(all == content)
    }

    /// A read that the device has not answered: handle, memory, and the volume.
    private func heldRead(_ content: [UInt8]) throws -> (volume: VolumeHarness, device: RecordingDevice, bytes: AlignedBytes) {
        let (volume, device) = try stored(content)
        let handle = volume.open("/f", Self.direct)
        // What the read needs to know is in the cache.
        _ = volume.read(handle, Self.page, at: Int64(content.count - Self.page))
        let bytes = AlignedBytes(count: content.count - Self.page, repeating: 0xEE)
        device.schedule.holdsLongReads = true
        #expect(volume.startRead(handle, into: bytes, at: 0) == nil)
        volume.settle()
        // The recording device poisons what it is given to fill.
        #expect(bytes.array.allSatisfy { $0 == 0xA5 }, "all of it is on its way")
        return (volume, device, bytes)
    }

    @Test func blocksThatAreFreedMeanwhileAreNotGivenToOthers() throws {
        let content = VolumeWorkload.bytes(33 * Self.page, seed: 5)
        let (volume, device, bytes) = try heldRead(content)
        let cut = volume.run(.setattr, "/f") {
            $0.attributes.mask = .size
            $0.attributes.size = 0
        }
        #expect(cut.result == 0 && volume.run(.sync).result == 0)
        // Everything that is free is written by somebody else.
        let secret = [UInt8](repeating: 0x53, count: 64 * Self.page)
        let other = volume.open("/secret", Self.create, mode: 0o600)
        var written: Int64 = 0
        while true {
            let count = volume.write(other, secret, at: written)
            if count <= 0 { break }
            written += count
            if written % (1 << 20) == 0 { _ = volume.fsync(other) }
        }
        _ = volume.fsync(other)
        device.schedule.holdsLongReads = false
        let answer = volume.wait()
        #expect(answer.result == 0, "the file is empty now")
        #expect(bytes.array == Array(content[0..<32 * Self.page]), "what another wrote is not seen")
        // The blocks come back afterwards.
        #expect(volume.run(.sync).result == 0 && volume.write(other, secret, at: written) > 0)
    }

    @Test func whatIsWrittenMeanwhileWaitsAndCounts() throws {
        let content = VolumeWorkload.bytes(33 * Self.page, seed: 6)
        let (volume, device, bytes) = try heldRead(content)
        let writer = volume.open("/f", 2)
        let new = [UInt8](repeating: 0x77, count: Self.page)
        let source = AlignedBytes(new)
        #expect(volume.startWrite(writer, source, at: Int64(3 * Self.page)) == nil, "the page is on its way")
        device.schedule.holdsLongReads = false
        let answers = [volume.wait(), volume.wait()].map(\.result).sorted()
        #expect(answers == [Int64(Self.page), Int64(32 * Self.page)])
        #expect(bytes.array == Array(content[0..<32 * Self.page]))
        #expect(volume.read(volume.open("/f", Self.direct), Self.page, at: Int64(3 * Self.page)).bytes == new)
    }

    @Test func aCancelledReadIsAnsweredWhenTheDeviceIsDoneWithItsMemory() throws {
        for closes in [false, true] {
            let content = VolumeWorkload.bytes(33 * Self.page, seed: 7)
            let (volume, device, bytes) = try heldRead(content)
            if closes {
                volume.volume.closeSession(volume.session)
            } else {
                for token in 1...100 as ClosedRange<UInt64> { volume.volume.cancel(session: volume.session, token: token) }
            }
            volume.settle()
            #expect(volume.volume.nextCompletion() == nil && volume.volume.inFlight > 0, "the device still has the memory")
            device.schedule.holdsLongReads = false
            let answer = volume.wait()
            #expect(answer.result == Int64(32 * Self.page) || answer.result == -4)
            let taken = bytes.array
            volume.settle()
            #expect(volume.volume.inFlight == 0 && bytes.array == taken)
        }
    }

    @Test func aReadThatFailsSaysSo() throws {
        let content = VolumeWorkload.bytes(33 * Self.page, seed: 8)
        let (volume, device) = try stored(content)
        let handle = volume.open("/f", Self.direct)
        _ = volume.read(handle, Self.page, at: Int64(content.count - Self.page))
        device.plan(DeviceFault(.error(5), on: [.read]))
        #expect(volume.read(handle, 8 * Self.page, at: 0).result == -5)
        #expect(volume.read(handle, 8 * Self.page, at: 0).bytes == Array(content[0..<8 * Self.page]))
    }

    @Test func aSmallCacheIsEnough() throws {
        let content = VolumeWorkload.bytes(300 * Self.page, seed: 9)
        let (first, device) = try volume()
        let handle = first.open("/f", Self.create)
        #expect(first.write(handle, content, at: 0) == content.count && first.fsync(handle) == 0)
        first.unmount()
        let volume = try VolumeHarness(device, configuration: VolumeHarness.smallConfiguration(nonce: 8))
        #expect(volume.read(volume.open("/f", Self.direct), content.count, at: 0).bytes == content)
    }
}
