/// A device that fails at each of its requests in turn, in each way that devices do.
///
/// - An error, once or for ever: the call that meets it says so; what was told to be durable before and after it is there.
/// - Bit rot: a block of metadata that was changed is an error, never an answer.
/// - A record of the journal that was lost, went elsewhere or rotted: told at the next mount, if a later one shows it.
/// - Lost, misdirected and stale blocks of the rest: an answer, no trap, no endless wait. (A block that was current once is not told from the one
///   that should be there: parents do not record their children's generation.)
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct DeviceFaultTests {
    private static let operations = 250
    private static let size: UInt64 = (256 + 4 * 512 + 2) * 4096
    private static let journal: Range<UInt64> = 4096..<257 * 4096
    private static let home: Range<UInt64> = 257 * 4096..<size

    private static func formatted() throws -> MemoryDevice {
        let device = try MemoryDevice(size: size)
        try VolumeHarness.format(device, blocksPerGroup: 512)
        return device
    }

    private static func isErrno(_ problem: String) -> Bool {
        ["result -5,", "result -30,", "result -117,", "seek: -5", "seek: -117", "seek: -30"].contains { problem.contains($0) }
    }

    /// A short workload on a device with a fault, planned after the mount.
    private static func run(_ base: MemoryDevice, seed: UInt64, _ fault: DeviceFault, _ mismatch: CrashRun.Mismatch) throws -> CrashRun {
        let device = RecordingDevice(copying: base, seed: seed, schedule: .init(shuffled: true, maximumDelay: 2))
        var left = operations
        return try CrashRun(
            device, VolumeWorkload(seed: seed, shape: .crash), configuration: VolumeHarness.smallConfiguration(nonce: seed), mismatch: mismatch,
            mounted: { device.plan(fault) }
        ) {
            left -= 1
            return left < 0 ? nil : $0.next()
        }
    }

    /// How many requests of a kind a run without faults makes.
    private static func requests(_ base: MemoryDevice, seed: UInt64, _ operation: DeviceOperation, _ range: Range<UInt64>? = nil) throws -> Int {
        try run(base, seed: seed, DeviceFault(.error(5), on: [operation], after: .max, range: range), .throwing).recording.faultCounts[0]
    }

    /// nil: what a machine finds that goes down now, with a device that works again, keeps the contract.
    private static func judge(_ run: CrashRun, states count: Int) throws -> String? {
        let states = CrashStates(run.recording)
        for number in 0..<count {
            let state = states.state(at: states.cutCount, seed: UInt64(number))
            let volume = try VolumeHarness(state.device, configuration: VolumeHarness.smallConfiguration(nonce: 99))
            if let first = try VolumeChecker(state.device).run().first { return "\(state): \(first)" }
            if let problem = run.judge(volume, cut: states.cutCount) { return "\(state): \(problem); \(volume.volume.takeNotes())" }
        }
        return nil
    }

    /// nil: a lost record of the journal is told, or nobody needs it. One that no later record follows cannot be missed.
    private static func judgeLostRecord(_ run: CrashRun) -> String? {
        let log = run.recording.log
        guard let lost = log.changes.firstIndex(where: { $0.reachedSectors?.contains(true) == false }) else { return nil }
        guard log.changes[(lost + 1)...].contains(where: { journal.contains(UInt64($0.offset)) && $0.completedAt != .max }) else { return nil }
        guard let volume = try? VolumeHarness(run.recording.current, configuration: VolumeHarness.smallConfiguration(nonce: 99)) else { return nil }
        return volume.volume.isReadOnly ? nil : run.judge(volume, cut: log.events.count)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func errorsAreToldAndWhatIsToldIsThere(seed: UInt64) throws {
        let base = try DeviceFaultTests.formatted()
        var (faults, felt) = (0, 0)
        for kind in [DeviceOperation.read, .write, .flush] {
            let count = try DeviceFaultTests.requests(base, seed: seed, kind)
            for number in 0..<count {
                for forever in [false, true] {
                    let run = try DeviceFaultTests.run(base, seed: seed, DeviceFault(.error(5), on: [kind], after: number, forever: forever), .stopping)
                    faults += 1
                    if let problem = run.problem {
                        felt += 1
                        if !DeviceFaultTests.isErrno(problem) {
                            Issue.record("seed \(seed), \(kind) \(number), \(forever): \(problem)")
                            return
                        }
                    }
                    if let problem = try DeviceFaultTests.judge(run, states: 2) {
                        Issue.record("seed \(seed), \(kind) \(number), \(forever): \(problem)")
                        return
                    }
                }
            }
        }
        print("seed \(seed): \(faults) failing requests, \(felt) felt by a call")
        #expect(faults > 200 && felt > 20)
    }

    @Test(arguments: [5, 6, 7, 8] as [UInt64]) func metadataIsNeverSilentlyWrong(seed: UInt64) throws {
        let base = try DeviceFaultTests.formatted()
        var (faults, felt) = (0, 0)
        let plans: [(DeviceFault.Kind, DeviceOperation, Range<UInt64>, Bool)] = [
            (.bitRot, .read, DeviceFaultTests.home, true), (.lostWrite, .write, DeviceFaultTests.journal, true),
            (.misdirectedWrite, .write, DeviceFaultTests.journal, false), (.lostWrite, .write, DeviceFaultTests.home, false),
            (.misdirectedWrite, .write, DeviceFaultTests.home, false), (.staleRead, .read, DeviceFaultTests.home, false),
        ]
        for (kind, operation, range, isTold) in plans {
            let count = try DeviceFaultTests.requests(base, seed: seed, operation, range)
            for number in 0..<count {
                let run = try DeviceFaultTests.run(base, seed: seed, DeviceFault(kind, after: number, range: range), .goingOn)
                faults += 1
                if run.problem != nil { felt += 1 }
                if let hung = run.hung {
                    Issue.record("seed \(seed), \(kind) \(number): never answered: \(hung)")
                    return
                }
                // The bytes of files have no checksums.
                if isTold, kind == .bitRot, let problem = run.problem, !DeviceFaultTests.isErrno(problem), !problem.hasPrefix("read("), !problem.hasPrefix("copy(") {
                    Issue.record("seed \(seed), \(kind) \(number): \(problem)")
                    return
                }
                if isTold, kind == .lostWrite, let problem = DeviceFaultTests.judgeLostRecord(run) {
                    Issue.record("seed \(seed), \(kind) \(number): \(problem)")
                    return
                }
            }
        }
        print("seed \(seed): \(faults) faults without an error, \(felt) felt by a call")
        #expect(faults > 100)
    }
}
