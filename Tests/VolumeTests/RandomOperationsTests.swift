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
        var (directory, extents) = (0, 0)
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
            directory = max(directory, volume.volume.deepestDirectory)
            extents = max(extents, volume.volume.deepestExtents)
            workload.forgetHandles()
            volume.unmount()
        }
        if seed % 2 == 0 { #expect(max(extents, directory) >= 3, "seed \(seed): trees of depth \(extents) and \(directory) only") }
    }

    /// On the smallest ring, synced often: it goes round hundreds of times, under trees three high of both kinds.
    @Test func theJournalGoesRoundHundredsOfTimes() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize) { $0.atomicWriteUnit = 512 }
        try VolumeHarness.format(device)
        var shape = WorkloadShape()
        shape.syncs = 40
        shape.names = (0..<40).map { "name\($0)" }
        var workload = VolumeWorkload(seed: 77, shape: shape)
        let volume = try VolumeHarness(device, configuration: RandomOperationsTests.configuration(2))
        var operations = 0
        while volume.volume.journalBlocksWritten < 210 * 256 && operations < 60_000 {
            volume.monotonic += 100_000_000
            operations += 1
            if let problem = workload.perform(workload.next(), on: volume) {
                Issue.record("operation \(operations): \(problem); \(volume.volume.takeNotes())")
                return
            }
            if operations % 4000 == 0, let difference = volume.difference(from: workload.model) {
                Issue.record("after operation \(operations): \(difference)")
                return
            }
        }
        let rounds = volume.volume.journalBlocksWritten / 256
        print("the journal went round \(rounds) times in \(operations) operations")
        #expect(rounds >= 200)
        #expect(volume.volume.deepestExtents >= 3 && volume.volume.deepestDirectory >= 3)
        if let difference = volume.difference(from: workload.model) { Issue.record("at the end: \(difference)") }
        workload.forgetHandles()
        volume.unmount()
        #expect(try VolumeChecker(device).run() == [])
    }
}
