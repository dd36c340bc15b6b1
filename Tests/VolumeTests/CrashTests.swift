/// Power cuts at random moments of random workloads: what is recovered keeps the durability contract.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct CrashTests {
    static let seeds: [UInt64] = (1...20).map { UInt64($0) }
    static let statesPerSeed = 250

    static func configuration(_ seed: UInt64, nonce: UInt64) -> Volume.Configuration {
        var configuration = VolumeHarness.smallConfiguration(nonce: nonce)
        if seed % 2 == 0 { configuration.treeFanout = 4 }
        return configuration
    }

    static func run(_ seed: UInt64, operations: Int = 900, bug: PlantedBug = .none) throws -> CrashRun {
        var configuration = configuration(seed, nonce: seed)
        configuration.plantedBug = bug
        return try CrashRun(seed: seed, operations: operations, configuration: configuration, slowHome: seed % 4 == 3 || seed % 4 == 0) {
            if seed % 3 == 1 { $0.atomicWriteUnit = 4096 }
            if seed % 5 == 1 { $0.volatileCache = false }
            if seed % 4 >= 2 { $0.supportsForceUnitAccess = true }
        }
    }

    /// Runs, cuts, recovers, checks, judges; nil: the contract is kept. `look` gets each recovered volume's device. `audits`: the log is looked at, too.
    static func hunt(
        _ seed: UInt64, operations: Int = 900, states count: Int, bug: PlantedBug = .none, audits: Bool = true, look: (Int, MemoryDevice) throws -> Void = { _, _ in }
    ) throws -> String? {
        let run: CrashRun
        do {
            run = try CrashTests.run(seed, operations: operations, bug: bug)
        } catch { return "\(error)" }
        if let violation = run.recording.violations.first { return "seed \(seed): the device saw \(violation)" }
        if audits, let problem = JournalAudit.problem(run.recording, journal: 1..<257) { return "seed \(seed): \(problem)" }
        if run.recording.log.events.count < 200 { return "seed \(seed): too little reaches the device to say anything" }
        let states = CrashStates(run.recording)
        // What a device was writing may be neither old nor new, where it does not promise whole blocks.
        if run.recording.capabilities.atomicWriteUnit < 4096 && seed % 2 == 0 { states.trash = 0.15 }
        var random = SeededRandom(seed: seed)
        let cuts = (0..<count).map { _ in random.below(states.cutCount + 1) }.sorted()
        for (number, cut) in cuts.enumerated() {
            let state = states.state(at: cut, seed: UInt64(number))
            var configuration = CrashTests.configuration(seed, nonce: 1_000_000 + seed)
            configuration.plantedBug = bug
            let place = "seed \(seed), state \(number), \(state)"
            let volume: VolumeHarness
            do {
                volume = try VolumeHarness(state.device, configuration: configuration)
            } catch { return "\(place): \(error)" }
            let findings = try VolumeChecker(state.device).run()
            if let first = findings.first { return "\(place): \(findings.count) findings, the first: \(first)" }
            try look(number, state.device)
            if let problem = run.judge(volume, cut: cut) { return "\(place): \(problem); \(volume.volume.takeNotes())" }
            let notes = volume.volume.takeNotes().filter { $0.kind != .event }
            if !notes.isEmpty || volume.unanswered > 0 { return "\(place): \(notes)" }
        }
        return nil
    }

    @Test(arguments: seeds) func whatWasSyncedSurvivesAndTheRestIsInOrder(seed: UInt64) throws {
        let images = try Images()
        let problem = try CrashTests.hunt(seed, states: CrashTests.statesPerSeed) { number, device in
            // The second reader sees every tenth.
            if number % 10 == 0 { try images.add(device) }
        }
        if let problem { Issue.record("\(problem)") }
        let reading = try images.read()
        #expect(reading.status == 0, "seed \(seed): \(reading.output.split(separator: "\n").filter { $0.hasPrefix("WRONG") }.prefix(5))")
    }

    /// The harness finds a device that loses what was flushed: a green run above means something.
    @Test func aFlushThatCoversNothingIsFound() throws {
        let run = try CrashTests.run(3)
        let states = CrashStates(run.recording)
        states.plantedForgetfulFlush = true
        var found = false
        var random = SeededRandom(seed: 3)
        for number in 0..<200 where !found {
            let cut = random.below(states.cutCount + 1)
            let state = states.state(at: cut, seed: UInt64(number))
            do {
                let volume = try VolumeHarness(state.device, configuration: CrashTests.configuration(3, nonce: 5))
                found = run.judge(volume, cut: cut) != nil
            } catch {
                found = true
            }
        }
        #expect(found)
    }

    /// Cuts within recovery itself, and recovery after them: the same bytes as a recovery that nobody disturbed.
    @Test(arguments: (21...30).map { UInt64($0) }) func recoveringTwiceGivesTheSameBytes(seed: UInt64) throws {
        let run = try CrashTests.run(seed)
        let states = CrashStates(run.recording)
        var random = SeededRandom(seed: seed)
        let cuts = (0..<20).map { _ in random.below(states.cutCount + 1) }.sorted()
        for (number, cut) in cuts.enumerated() {
            let state = states.state(at: cut, seed: UInt64(number))
            let recovery = RecordingDevice(copying: state.device, seed: seed, schedule: .init(shuffled: true, maximumDelay: 2)) {
                $0.atomicWriteUnit = run.recording.capabilities.atomicWriteUnit
                $0.volatileCache = run.recording.capabilities.volatileCache
                $0.supportsForceUnitAccess = run.recording.capabilities.supportsForceUnitAccess
            }
            _ = try VolumeHarness(recovery, configuration: CrashTests.configuration(seed, nonce: 77))
            let undisturbed = CrashTests.groups(recovery.current)
            let again = CrashStates(recovery)
            for second in 0..<50 {
                let secondCut = random.below(again.cutCount + 1)
                let cutAgain = again.state(at: secondCut, seed: UInt64(second))
                let volume = try VolumeHarness(cutAgain.device, configuration: CrashTests.configuration(seed, nonce: 78))
                let same = CrashTests.groups(cutAgain.device) == undisturbed
                #expect(same, "seed \(seed), cut \(cut) state \(number), then \(cutAgain): other bytes")
                if let problem = run.judge(volume, cut: cut) {
                    Issue.record("seed \(seed), cut \(cut) state \(number), then \(cutAgain): \(problem)")
                    return
                }
            }
        }
    }

    /// Everything behind the journal but the last block: what recovery brings home.
    static func groups(_ device: MemoryDevice) -> UInt64 {
        var hash: UInt64 = 14_695_981_039_346_656_037
        var offset = 257 * 4096
        let end = Int(device.capabilities.blockCount - 1) * 4096
        while offset < end {
            let word = unsafe device.bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            hash = (hash ^ word) &* 0x9E37_79B9_7F4A_7C15
            hash ^= hash >> 29
            offset += 8
        }
        return hash
    }
}
