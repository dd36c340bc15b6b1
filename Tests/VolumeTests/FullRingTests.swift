/// Many files, synced and changed again at once, while nothing comes home, on the smallest journal: when it does, everything is answered, the end included.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct FullRingTests {
    /// nil: all is answered, the volume comes to its end, and what was written is there.
    static func run(_ seed: UInt64, _ bug: PlantedBug = .none) throws -> String? {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        let device = RecordingDevice(copying: empty, seed: seed, schedule: RecordingDevice.Schedule(shuffled: true, maximumDelay: 3)) {
            $0.atomicWriteUnit = seed % 4 < 3 ? 512 : 4096
        }
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 1000
        configuration.plantedBug = bug
        let volume = try VolumeHarness(device, configuration: configuration)
        volume.mayHang = true
        volume.patience = 20_000
        var random = SeededRandom(seed: seed)
        var handles = (0..<24).map { volume.open("/f\($0)", 0o102) }
        var model = VolumeModel()
        for file in 0..<24 { _ = model.open("/f\(file)", flags: 0o102, mode: 0o644, as: file) }
        for round in 0..<20 {
            device.schedule.heldFrom = 257 * 4096
            var waiting = 0
            var buffers: [AlignedBytes] = []
            for step in 0..<random.below(90) {
                let file = random.below(24)
                let bytes = VolumeWorkload.bytes(random.below(random.chance(0.2) ? 60_000 : 12_000) + 1, seed: seed &* 1_000_000 &+ UInt64(round * 100 + step))
                let at = random.below(16) * 4096 + random.pick([0, 0, 100])
                buffers.append(AlignedBytes(bytes))
                if volume.startWrite(handles[file], buffers[buffers.count - 1], at: Int64(at)) == nil { waiting += 1 }
                _ = model.write(file, bytes, at: at)
                if waiting < 40 && random.chance(0.5) && volume.start(.fsync, nil, nil, { $0.handle = Int32(handles[file]) }) == nil { waiting += 1 }
                if random.chance(0.05) { volume.monotonic += 3_000_000_000 }
                volume.settle(polls: random.below(3))
            }
            // By age, all that is dirty.
            volume.monotonic += 10_000_000_000
            _ = volume.run(.null)
            volume.settle(polls: 20)
            device.schedule.heldFrom = .max
            for _ in 0..<waiting where volume.wait().result < 0 { return "seed \(seed), round \(round): \(volume.unfinished)" }
            let file = random.below(24)
            guard volume.run(.unlink, "/f\(file)").result == 0, volume.close(handles[file]) == 0 else { return "seed \(seed), round \(round): it cannot be removed" }
            handles[file] = volume.open("/f\(file)", 0o102)
            _ = model.unlink("/f\(file)")
            _ = model.close(file)
            _ = model.open("/f\(file)", flags: 0o102, mode: 0o644, as: file)
        }
        volume.unmount()
        if volume.unanswered > 0 { return "seed \(seed), at the end: \(volume.volume.unfinished)" }
        if let problem = JournalAudit.problem(device, journal: 1..<257) { return "seed \(seed): \(problem)" }
        let states = CrashStates(device)
        let (found, files) = try JournalTests.mount(states.state(at: states.cutCount, seed: 0).device).tree()
        return found == model.signature() && files.count == 24 ? nil : "seed \(seed): \(VolumeHarness.firstDifference(found, model.signature()))"
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>) func everythingIsAnswered(seed: UInt64) throws { #expect(try FullRingTests.run(seed) == nil) }
}
