/// The volume against a model of POSIX, operation by operation, on a volume so small that the cache evicts and the journal wraps.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct RandomOperationsTests {
    static let seeds: [UInt64] = (1...8).map { UInt64($0) }

    /// Half of the runs have tree nodes of four slots, so that trees are deep.
    static func configuration(_ seed: UInt64) -> Volume.Configuration {
        var configuration = VolumeHarness.smallConfiguration(nonce: seed)
        if seed % 2 == 0 { configuration.treeFanout = 4 }
        return configuration
    }

    @Test(arguments: seeds) func everyResultAndTheTreeAreTheModels(seed: UInt64) throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize) { $0.atomicWriteUnit = seed % 4 < 2 ? 512 : 4096 }
        try VolumeHarness.format(device)
        var workload = VolumeWorkload(seed: seed)
        var deepest = 0
        for round in 0..<4 {
            let volume = try VolumeHarness(device, configuration: RandomOperationsTests.configuration(seed &+ UInt64(round) &* 2))
            if let difference = volume.difference(from: workload.model) {
                Issue.record("seed \(seed), after remount \(round): \(difference)")
                return
            }
            for number in 0..<700 {
                let operation = workload.next()
                volume.monotonic += UInt64(workload.random.below(400_000_000))
                volume.wall += 1_000_000
                if let problem = workload.perform(operation, on: volume) {
                    Issue.record("seed \(seed), round \(round), operation \(number): \(problem); \(volume.volume.takeNotes())")
                    return
                }
                if number % 100 == 99, let difference = volume.difference(from: workload.model) {
                    Issue.record("seed \(seed), round \(round), after operation \(number) \(operation): \(difference)")
                    return
                }
            }
            let notes = volume.volume.takeNotes()
            #expect(!notes.contains { $0.text.contains("damaged") }, "seed \(seed): \(notes)")
            deepest = max(deepest, volume.volume.deepestTree)
            workload.forgetHandles()
            volume.unmount()
        }
        if seed % 2 == 0 { #expect(deepest >= 3, "seed \(seed): trees of depth \(deepest) only") }
    }
}
