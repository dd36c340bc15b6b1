/// The NVMe driver on a controller that fails in seeded ways: every request ends, with an errno or with the right data (`NVMeRun`).
import BlockDevice
import TestSupport
import Testing

@Suite struct NVMeFaultTests {
    #if DEBUG
        private static let runsEach = 250
    #else
        private static let runsEach = 2_750
    #endif

    @Test(arguments: 0..<8) func everyRequestEndsWithAnErrnoOrRightData(_ part: Int) throws {
        let life = try NVMeRun()
        var (requests, errors, resets, refused, cut, longest) = (0, 0, 0, 0, 0, UInt64(0))
        for number in 0..<Self.runsEach {
            let seed = UInt64(part * 1_000_000 + number)
            let result = try life.run(seed: seed)
            if let problem = result.problem {
                Issue.record("seed \(seed): \(problem); planned: \(result.faults)")
                return
            }
            requests += result.requests
            errors += result.errors
            resets += result.resets
            refused += result.wasRefused ? 1 : 0
            cut += result.wasCut ? 1 : 0
            longest = max(longest, result.nanoseconds)
        }
        print(
            "part \(part): \(Self.runsEach) runs, \(requests) requests, \(errors) errors, \(resets) resets, \(refused) devices refused, \(cut) power cuts, longest \(longest / 1_000_000_000) s of the controller's time"
        )
        #expect(requests > 10 * Self.runsEach && errors > 0 && resets > 0 && cut > 0)
    }

    /// The harness is worth something: a driver with a bug, and a device that lies, are found within a few runs.
    @Test(arguments: MisbehavingTransport.Bug.allCases) func plantedBugsAreFound(_ bug: MisbehavingTransport.Bug) throws {
        let life = try NVMeRun()
        life.bug = bug
        let problems = try (0..<30).compactMap { try life.run(seed: $0).problem }
        print("\(bug): \(problems.count) of 30 runs: \(problems.first ?? "")")
        #expect(problems.count > 5)
    }

    @Test func writesThatGoNowhereAreFound() throws {
        let life = try NVMeRun()
        life.lies = true
        let problems = try (0..<30).compactMap { try life.run(seed: $0).problem }
        #expect(problems.count > 10 && problems.contains { $0.contains("may hold") })
    }

    @Test func aSeedSaysEverything() throws {
        let life = try NVMeRun()
        for seed in [3, 14, 159] as [UInt64] {
            let first = try life.run(seed: seed)
            let again = try NVMeRun().run(seed: seed)
            #expect(first.nanoseconds == again.nanoseconds && first.requests == again.requests && first.errors == again.errors)
        }
    }
}
