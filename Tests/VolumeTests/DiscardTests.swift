/// What a device is told of freed blocks: which, when, in how many requests; and that nobody who writes meets a discard.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct DiscardTests {
    private static func mount(
        size: UInt64 = VolumeHarness.smallSize, blocksPerGroup: Int = 2048, frames: Int = 64, _ bug: PlantedBug = .none, discard: Bool = true,
        _ configure: @escaping (inout DeviceCapabilities) -> Void = { _ in }
    ) throws -> (device: RecordingDevice, volume: VolumeHarness) {
        let empty = try MemoryDevice(size: size)
        try VolumeHarness.format(empty, blocksPerGroup: blocksPerGroup)
        let device = RecordingDevice(copying: empty, seed: 1, configure: configure)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = frames
        configuration.smallestDiscard = 16
        configuration.discard = discard
        configuration.plantedBug = bug
        return (device, try VolumeHarness(device, configuration: configuration))
    }

    private static func discards(_ device: RecordingDevice) -> [RecordedChange] { device.log.changes.filter { $0.operation == .discard } }

    /// A file of so many blocks, each full of its number's byte.
    private static func make(_ volume: VolumeHarness, _ name: String, blocks: Int, byte: UInt8 = 0x5A) -> Bool {
        let handle = volume.open(name, 0o102)
        for first in stride(from: 0, to: blocks, by: 256) {
            let count = min(256, blocks - first) * 4096
            if volume.write(handle, [UInt8](repeating: byte, count: count)) != count { return false }
        }
        return volume.fsync(handle) == 0 && volume.close(handle) == 0
    }

    /// Blocks behind the journal that are full of a byte.
    private static func blocks(of byte: UInt8, on device: RecordingDevice) -> Int {
        (257..<Int(device.capabilities.blockCount)).filter { block in
            stride(from: 0, to: 4096, by: 512).allSatisfy { device.current[block * 4096 + $0] == byte }
        }.count
    }

    /// No space but that of a file that may go.
    private static func fillButFor(_ volume: VolumeHarness, blocks: Int) -> Bool {
        guard make(volume, "/gone", blocks: blocks) else { return false }
        let ballast = volume.open("/ballast", 0o102)
        for size in [1 << 20, 65_536, 4096] { while volume.write(ballast, [UInt8](repeating: 1, count: size)) > 0 {} }
        return volume.fsync(ballast) == 0 && volume.close(ballast) == 0
    }

    // MARK: Histories; nil: well

    /// All the space that is left is on its way to be discarded: who writes waits until the device has answered, and no longer.
    static func writtenWhileBeingDiscarded(_ bug: PlantedBug) throws -> String? {
        let (device, volume) = try mount(frames: 8192, bug)
        guard fillButFor(volume, blocks: 1200) else { return "the volume is not full" }
        device.schedule.heldFrom = JournalTests.journal.upperBound
        guard volume.run(.unlink, "/gone").result == 0, volume.run(.sync).result == 0 else { return "removing fails" }
        volume.settle()
        guard discards(device).map(\.length).reduce(0, +) >= 1000 * 4096 else { return "nothing is on its way" }
        // More than the system's reserve, which is the space that no discard holds.
        let handle = volume.open("/f", 0o102)
        let bytes = VolumeWorkload.bytes(200 * 4096, seed: 3)
        for part in 0..<5 as Range<Int64> where volume.startWrite(handle, bytes, at: part * 200 * 4096) != 200 * 4096 { return "a write is not taken" }
        _ = volume.start(.sync)
        volume.settle()
        if let violation = device.violations.first { return "the device saw \(violation)" }
        if volume.volume.nextCompletion() != nil { return "the sync does not wait" }
        device.schedule.heldFrom = .max
        guard volume.wait().result == 0 else { return "the sync fails" }
        let states = CrashStates(device)
        let after = try VolumeHarness(states.state(at: states.cutCount, seed: 0).device)
        return after.content("/f", 1000 * 4096) == (0..<5).flatMap { _ in bytes } ? nil : "other bytes"
    }

    @Test func aRemovedFileIsToldInAFewRequestsThatCoverAllOfIt() throws {
        let (device, volume) = try DiscardTests.mount(size: 128 << 20, blocksPerGroup: 16_384)
        #expect(DiscardTests.make(volume, "/f", blocks: 16_384))
        #expect(volume.run(.sync).result == 0)
        #expect(DiscardTests.blocks(of: 0x5A, on: device) > 16_300, "the end may be in the journal only")
        #expect(DiscardTests.discards(device).isEmpty)
        #expect(volume.run(.unlink, "/f").result == 0)
        for _ in 0..<3 {
            volume.settle()
            #expect(volume.run(.sync).result == 0)
        }
        volume.settle()
        let discards = DiscardTests.discards(device)
        print("64 MiB removed: \(discards.count) discards, of \(discards.map { $0.length / 4096 }) blocks")
        #expect((4...16).contains(discards.count))
        #expect(DiscardTests.blocks(of: 0x5A, on: device) == 0)
        #expect(JournalAudit.problem(device, journal: 1..<257) == nil)
        volume.unmount()
    }

    /// Files of a block each, removed one by one and synced each time: neighbours are told together.
    @Test func smallFilesAreToldTogetherOrNotAtAll() throws {
        let (device, volume) = try DiscardTests.mount()
        for number in 0..<60 { #expect(DiscardTests.make(volume, "/f\(number)", blocks: 1)) }
        let directory = volume.open("/", 0o200000)
        for number in 0..<60 where number != 30 {
            #expect(volume.run(.unlink, "/f\(number)").result == 0 && volume.fsync(directory) == 0)
        }
        volume.settle()
        #expect(DiscardTests.discards(device).isEmpty, "time stands still")
        volume.monotonic += 10_000_000_000
        #expect(volume.volume.deadline.map { $0 <= volume.monotonic } ?? false, "the server knows when to look")
        _ = volume.run(.null)
        volume.settle()
        let discards = DiscardTests.discards(device)
        #expect((1...3).contains(discards.count) && discards.allSatisfy { $0.length >= 16 * 4096 }, "\(discards.map(\.length))")
        #expect(volume.run(.unlink, "/f30").result == 0 && volume.run(.sync).result == 0)
        volume.unmount()
        #expect(DiscardTests.discards(device).count == discards.count, "one block is not worth a request")
    }

    @Test(arguments: [false, true]) func aDeviceOrAnOwnerThatDoesNotWantToIsToldNothing(isOffered: Bool) throws {
        let (device, volume) = try DiscardTests.mount(discard: !isOffered) { $0.supportsDiscard = isOffered }
        #expect(DiscardTests.fillButFor(volume, blocks: 1200))
        #expect(volume.run(.unlink, "/gone").result == 0 && volume.run(.sync).result == 0)
        #expect(DiscardTests.make(volume, "/again", blocks: 1000))
        #expect(volume.run(.unlink, "/again").result == 0)
        volume.unmount()
        #expect(DiscardTests.discards(device).isEmpty)
    }

    /// Blocks that wait to be discarded are given out where there are no others, and nobody waits.
    @Test func whereSpaceIsShortBlocksAreUsedWithoutTelling() throws {
        let (device, volume) = try DiscardTests.mount()
        #expect(DiscardTests.fillButFor(volume, blocks: 1200))
        let directory = volume.open("/", 0o200000)
        #expect(volume.run(.unlink, "/gone").result == 0)
        for _ in 0..<3 {
            volume.settle()
            #expect(volume.fsync(directory) == 0)
        }
        #expect(DiscardTests.make(volume, "/again", blocks: 1150))
        #expect(DiscardTests.discards(device).isEmpty)
        #expect(device.violations.isEmpty)
    }

    @Test func whoWritesWaitsForTheDiscardOfItsBlocks() throws {
        let problem = try DiscardTests.writtenWhileBeingDiscarded(.none)
        #expect(problem == nil)
    }

    @Test func aDiscardThatFailsIsTheLastAndNothingElseIsLost() throws {
        let (device, volume) = try DiscardTests.mount()
        device.plan(DeviceFault(.error(95), on: [.discard]))
        #expect(DiscardTests.make(volume, "/a", blocks: 1000) && DiscardTests.make(volume, "/b", blocks: 1000))
        for name in ["/a", "/b"] {
            #expect(volume.run(.unlink, name).result == 0 && volume.run(.sync).result == 0)
            volume.settle()
        }
        #expect(DiscardTests.discards(device).count == 1)
        #expect(volume.volume.takeNotes().map(\.text) == ["a discard failed (errno 95): the device is told of no more freed blocks"])
        #expect(DiscardTests.make(volume, "/c", blocks: 6000), "its blocks can be used")
        volume.unmount()
        #expect(try VolumeChecker(device.current).run() == [])
    }

    /// The server dies while a discard is under way, and the next one has its device when that has landed: all blocks are to be had, none is hit again.
    @Test func theNextServerGivesOutWhatTheDeadOneWasDiscarding() throws {
        let (device, volume) = try DiscardTests.mount()
        #expect(DiscardTests.fillButFor(volume, blocks: 1200))
        device.schedule.heldFrom = JournalTests.journal.upperBound
        #expect(volume.run(.unlink, "/gone").result == 0 && volume.run(.sync).result == 0)
        volume.settle()
        let remains = unsafe Array(volume.memory)
        device.schedule.heldFrom = .max
        let queued = DiscardTests.discards(device)
        #expect(queued.count == 1 && queued.allSatisfy { $0.completedAt == .max })
        // The dead server's own thread would not have come to what follows its last request: the image is taken as that one lands.
        while DiscardTests.discards(device)[0].completedAt == .max { volume.volume.poll() }
        let states = CrashStates(device)
        let image = states.state(at: DiscardTests.discards(device)[0].completedAt + 1, seed: 0).device
        let next = RecordingDevice(copying: image, seed: 2)
        let adopted = try VolumeHarness(next, configuration: VolumeHarness.smallConfiguration(), adopting: (remains, volume.session))
        #expect(DiscardTests.make(adopted, "/again", blocks: 1150, byte: 0x77))
        adopted.unmount()
        #expect(next.violations.isEmpty && adopted.volume.takeNotes().isEmpty)
        #expect(DiscardTests.blocks(of: 0x77, on: next) == 1150)
        #expect(try VolumeChecker(next.current).run() == [])
    }

    /// The shutdown tells what has not been told.
    @Test func nothingIsLeftToTellAtTheEnd() throws {
        let (device, volume) = try DiscardTests.mount()
        #expect(DiscardTests.make(volume, "/f", blocks: 1000))
        #expect(volume.run(.unlink, "/f").result == 0)
        volume.unmount()
        #expect(DiscardTests.blocks(of: 0x5A, on: device) == 0)
    }
}
