/// Overwrites past the cache (O_DIRECT): one write of the device's, durable when that was asked for, and nothing else is harmed.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct DirectWriteTests {
    private static let page = 4096
    private static let direct: UInt32 = 0o40002
    private static let dataSync: UInt32 = 0o10000

    /// A volume with a file `/f` of `pages` pages of ones, all of them at home and none in the cache.
    private static func stored(
        _ pages: Int, bug: PlantedBug = .none, _ configure: (inout DeviceCapabilities) -> Void = { _ in }
    ) throws -> (VolumeHarness, RecordingDevice) {
        let device = RecordingDevice(size: Int(VolumeHarness.smallSize), seed: 3) {
            $0.atomicWriteUnit = 4096
            configure(&$0)
        }
        try VolumeHarness.format(device)
        let first = try VolumeHarness(device)
        let handle = first.open("/f", 0o102)
        #expect(first.write(handle, [UInt8](repeating: 1, count: pages * page), at: 0) == pages * page)
        first.unmount()
        var configuration = VolumeHarness.smallConfiguration(nonce: 8)
        configuration.cacheFrames = 256
        configuration.plantedBug = bug
        return (try VolumeHarness(device, configuration: configuration), device)
    }

    /// Writes, forced writes and flushes of the device since it had been asked for so many.
    private func requests(_ device: RecordingDevice, since start: (changes: Int, flushes: Int)) -> (writes: Int, forced: Int, flushes: Int, bytes: Int) {
        let changes = device.log.changes[start.changes...]
        return (changes.count, changes.count { $0.forceUnitAccess }, device.log.flushes.count - start.flushes, changes.reduce(0) { $0 + $1.length })
    }
    private func position(_ device: RecordingDevice) -> (changes: Int, flushes: Int) { (device.log.changes.count, device.log.flushes.count) }

    @Test func anOverwriteIsOneWriteWhateverMakesItDurable() throws {
        let cases: [(name: String, configure: (inout DeviceCapabilities) -> Void, forced: Int, flushes: ClosedRange<Int>, writes: ClosedRange<Int>)] = [
            ("forced", { $0.supportsForceUnitAccess = true }, 20, 0...0, 20...20),
            ("no cache", { $0.volatileCache = false }, 0, 0...0, 20...20),
            ("flushed", { _ in }, 0, 20...20, 20...20),
        ]
        for (name, configure, forced, flushes, writes) in cases {
            let (volume, device) = try Self.stored(32, configure)
            let handle = volume.open("/f", Self.direct | Self.dataSync)
            _ = volume.read(handle, 4096, at: 31 * 4096)
            volume.settle()
            let start = position(device)
            for number in 0..<20 {
                #expect(volume.write(handle, [UInt8](repeating: UInt8(number + 2), count: Self.page), at: Int64(number * Self.page)) == Self.page)
            }
            let found = requests(device, since: start)
            #expect(found.forced == forced && flushes.contains(found.flushes) && writes.contains(found.writes), "\(name): \(found)")
            #expect(found.bytes == 20 * Self.page, "\(name)")
            for number in 0..<20 { #expect(volume.read(handle, 1, at: Int64(number * Self.page + 77)).bytes == [UInt8(number + 2)]) }
        }
    }

    @Test func blocksThatADeviceTearsAreLoggedFirst() throws {
        let (volume, device) = try Self.stored(8) { $0.atomicWriteUnit = 512 }
        let handle = volume.open("/f", Self.direct | Self.dataSync)
        let start = position(device)
        #expect(volume.write(handle, [UInt8](repeating: 9, count: Self.page), at: 0) == Self.page)
        #expect(requests(device, since: start).bytes >= 2 * Self.page, "a record with the block in it")
    }

    @Test func whatTheCacheAndTheJournalHaveIsNotWrittenBeside() throws {
        let (volume, device) = try Self.stored(8)
        let (plain, direct) = (volume.open("/f", 2), volume.open("/f", Self.direct))
        func page(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: Self.page) }
        // Dirty in the cache.
        #expect(volume.write(plain, page(2), at: 0) == Self.page)
        #expect(volume.write(direct, page(3), at: 0) == Self.page)
        #expect(volume.read(plain, 1, at: 0).bytes == [3])
        // In a live record: replay would bring it back.
        #expect(volume.write(plain, page(4), at: 4096) == Self.page && volume.fsync(plain) == 0)
        let start = position(device)
        #expect(volume.write(direct, page(5), at: 4096) == Self.page)
        #expect(requests(device, since: start).writes == 0, "it waits in the cache")
        // Clean in the cache.
        #expect(volume.read(plain, 2, at: 2 * 4096).bytes == [1, 1])
        #expect(volume.write(direct, page(6), at: 2 * 4096) == Self.page)
        #expect(volume.read(plain, 2, at: 2 * 4096).bytes == [6, 6])
        // Beyond the end, in a hole, and in part.
        #expect(volume.write(direct, page(7), at: 7 * 4096 + 2048) == Self.page && volume.write(direct, page(8), at: 20 * 4096) == Self.page)
        #expect(volume.write(direct, [UInt8](repeating: 9, count: 8 * Self.page), at: 0) == 8 * Self.page)
        #expect(volume.fsync(direct) == 0)
        volume.unmount()
        let again = try VolumeHarness(device)
        var want = [UInt8](repeating: 0, count: 21 * Self.page)
        want.replaceSubrange(0..<8 * Self.page, with: [UInt8](repeating: 9, count: 8 * Self.page))
        want.replaceSubrange(8 * Self.page..<8 * Self.page + 2048, with: [UInt8](repeating: 7, count: 2048))
        want.replaceSubrange(20 * Self.page..<21 * Self.page, with: page(8))
        #expect(again.content("/f", want.count) == want)
        #expect(try VolumeChecker(device).run().isEmpty)
    }

    @Test func timesMove() throws {
        let (volume, _) = try Self.stored(8)
        let handle = volume.open("/f", Self.direct)
        volume.wall += 5_000_000_000
        #expect(volume.write(handle, [UInt8](repeating: 2, count: Self.page), at: 0) == Self.page)
        var status = [UInt64](repeating: 0, count: Volume.statusSize / 8)
        let result = unsafe status.withUnsafeMutableBytes { raw in
            volume.run(.getattr, "/f") {
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = Volume.statusSize
            }.result
        }
        // st_mtim.tv_sec
        #expect(result == 0 && status[11] == UInt64(volume.wall / 1_000_000_000))
    }

    /// A file is cut while it is being written, and somebody else writes all that is free; what of it is found wrong.
    static func cutUnderAWrite(_ bug: PlantedBug) throws -> String? {
        let (volume, device) = try stored(16, bug: bug)
        let handle = volume.open("/f", direct)
        _ = volume.read(handle, 4096, at: 15 * 4096)
        device.schedule.heldFrom = 0
        let bytes = AlignedBytes(count: 8 * page, repeating: 0x53)
        guard volume.startWrite(handle, bytes, at: 0) == nil else { return "the write does not wait" }
        volume.settle()
        // Its blocks become an unwritten extent, that is written again while the first write is still under way.
        let zeroed = volume.start(.fallocate) { ($0.handle, $0.flags, $0.offset, $0.length) = (Int32(handle), 0x10, 0, UInt64(8 * page)) }
        if zeroed != nil || volume.volume.nextCompletion() != nil {
            device.schedule.heldFrom = .max
            return "the file is cut under a write"
        }
        device.schedule.heldFrom = .max
        let answers = [volume.wait(), volume.wait()].map(\.result).sorted()
        if answers != [0, Int64(8 * page)] { return "answers \(answers)" }
        return volume.content("/f", 16 * page)[0..<8 * page].allSatisfy { $0 == 0 } ? nil : "what was zeroed later is there"
    }

    /// Blocks of a file whose record is still open are overwritten, and that is said to be durable; the power goes.
    static func synchronousBeforeItsFileIsDurable(_ bug: PlantedBug) throws -> String? {
        let (volume, device) = try stored(1, bug: bug) { $0.supportsForceUnitAccess = true }
        let plain = volume.open("/new", 0o102)
        guard volume.run(.sync).result == 0, volume.write(plain, [UInt8](repeating: 2, count: 40 * page), at: 0) == 40 * page else { return "the write fails" }
        // Its data goes to its blocks; the record stays open for as long again.
        volume.monotonic += 3_000_000_000
        _ = volume.status("/new")
        volume.settle()
        let handle = volume.open("/new", direct | dataSync)
        guard volume.write(handle, [UInt8](repeating: 3, count: page), at: 0) == page else { return "the synchronous write fails" }
        let states = CrashStates(device)
        for seed in 0..<8 as Range<UInt64> {
            let after = try VolumeHarness(states.state(at: states.cutCount, seed: seed).device)
            let content = after.content("/new", 40 * page)
            if content.prefix(page) != [UInt8](repeating: 3, count: page)[...] { return "the file has \(content.count) bytes, and not what was synced" }
        }
        return nil
    }

    @Test func aSynchronousWriteWaitsForItsFile() throws {
        #expect(try Self.synchronousBeforeItsFileIsDurable(.none) == nil)
    }

    @Test func whoCutsAFileWaitsForItsWrites() throws {
        #expect(try Self.cutUnderAWrite(.none) == nil)
    }

    /// A write that finds no room in the journal for its times leaves nothing behind that another request could take for its own.
    @Test func aWriteThatWaitsForTheJournalIsNobodyElses() throws {
        let (volume, device) = try Self.stored(8)
        let handle = volume.open("/f", Self.direct)
        _ = volume.read(handle, Self.page, at: 7 * 4096)
        let other = volume.open("/other", 0o102)
        #expect(other >= 0 && volume.fsync(other) == 0)
        device.schedule.heldFrom = 0
        var made = 0
        while made < 5000, volume.start(.mkdir, "/d\(made)", nil, as: nil, { $0.mode = 0o755 }) != nil { made += 1 }
        #expect(made < 5000, "the journal is full")
        volume.wall += 5_000_000_000
        #expect(volume.startWrite(handle, AlignedBytes(count: Self.page, repeating: 9), at: 0) == nil)
        for _ in 0..<20 { #expect(volume.start(.null) != nil, "what needs nothing waits for nothing") }
        device.schedule.heldFrom = .max
        #expect(Set([volume.wait(), volume.wait()].map(\.result)) == [0, Int64(Self.page)])
        #expect(volume.read(handle, 1, at: 5).bytes == [9])
    }

    @Test func aWriteThatFailsSaysSo() throws {
        let (volume, device) = try Self.stored(8)
        let handle = volume.open("/f", Self.direct)
        device.plan(DeviceFault(.error(5), on: [.write]))
        let page = [UInt8](repeating: 2, count: Self.page)
        #expect(volume.write(handle, page, at: 0) == -5)
        #expect(volume.write(handle, page, at: 0) == Self.page && volume.read(handle, 1, at: 0).bytes == [2])
        #expect(!volume.volume.isReadOnly)
    }
}
