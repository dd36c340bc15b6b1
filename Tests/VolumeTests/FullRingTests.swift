/// Many files, synced and changed again at once, on the smallest journal: everything is answered, the end included.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct FullRingTests {
    /// nil: all is answered and the volume comes to its end.
    static func run(_ seed: UInt64, _ bug: PlantedBug = .none) throws -> String? {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        var schedule = RecordingDevice.Schedule(shuffled: true, maximumDelay: 3)
        schedule.slowFrom = 257 * 4096
        schedule.slowness = seed % 2 == 0 ? 300 : 0
        let device = RecordingDevice(copying: empty, seed: seed, schedule: schedule) {
            $0.atomicWriteUnit = seed % 4 < 3 ? 512 : 4096
            $0.maximumTransfer = 512 << 10
        }
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = seed % 3 == 0 ? 64 : 1000
        configuration.plantedBug = bug
        let volume = try VolumeHarness(device, configuration: configuration)
        volume.mayHang = true
        volume.patience = 20_000
        var random = SeededRandom(seed: seed)
        for step in 0..<600 {
            let name = "/f\(random.below(40))"
            if random.chance(0.04) { _ = volume.run(.unlink, name) }
            let handle = volume.open(name, 0o102)
            let pages = random.below(random.chance(0.1) ? 40 : 4)
            let bytes = VolumeWorkload.bytes(pages * 4096 + random.below(5000), seed: seed &* 1000 &+ UInt64(step))
            let at = Int64(random.below(60)) * 4096
            _ = volume.write(handle, bytes, at: at)
            if random.chance(0.5) {
                _ = volume.fsync(handle)
                _ = volume.write(handle, bytes, at: at + Int64(random.below(2)) * 100)
            }
            _ = volume.close(handle)
            if random.chance(0.3) { volume.monotonic += UInt64(random.below(3_000_000_000)) }
            for _ in 0..<random.below(3) { volume.volume.poll() }
            if volume.unanswered > 0 { return "seed \(seed), step \(step): \(volume.unfinished)" }
        }
        volume.unmount()
        if volume.unanswered > 0 { return "seed \(seed), at the end: \(volume.volume.unfinished)" }
        return JournalAudit.problem(device, journal: 1..<257)
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>) func everythingIsAnswered(seed: UInt64) throws { #expect(try FullRingTests.run(seed) == nil) }
}
