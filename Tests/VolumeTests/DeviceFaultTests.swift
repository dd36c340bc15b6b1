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
    /// Before the fault is planned, in order and shut down; and with it.
    private static let operations = (before: 150, after: 150)
    private static let seedsPerCase: UInt64 = 5
    private static let size: UInt64 = (256 + 4 * 512 + 2) * 4096
    private static let journal: Range<UInt64> = 4096..<257 * 4096
    private static let home: Range<UInt64> = 257 * 4096..<size

    /// A volume with something on it, and what that is: so that a mount has everything to read.
    private struct Start {
        let device: MemoryDevice
        var workload: VolumeWorkload

        init(seed: UInt64) throws {
            device = try MemoryDevice(size: size)
            try VolumeHarness.format(device, blocksPerGroup: 512)
            let volume = try VolumeHarness(device)
            workload = VolumeWorkload(seed: seed, shape: .crash)
            for _ in 0..<operations.before {
                let operation = workload.next()
                if let problem = workload.perform(operation, on: volume) { throw VolumeError(errno: 5, problem) }
            }
            volume.unmount()
            workload.forgetHandles()
        }
    }

    /// An errno, or fewer bytes than asked for: the next call for the rest says why.
    private static func isTold(_ problem: String) -> Bool {
        if ["result -5,", "result -30,", "result -117,", "seek: -5", "seek: -117", "seek: -30"].contains(where: { problem.contains($0) }) { return true }
        if problem.hasPrefix("read(") { return problem.hasSuffix("first difference at the end") }
        guard problem.hasPrefix("write(") || problem.hasPrefix("copy("), let found = problem.firstRange(of: ": result ") else { return false }
        let counts = problem[found.upperBound...].split(separator: ", expected ").map { Int($0) ?? -1 }
        return counts.count == 2 && counts[0] > 0 && counts[0] < counts[1]
    }

    /// A short workload on a device with a fault, planned after the mount.
    private static func run(_ start: Start, seed: UInt64, _ fault: DeviceFault, _ mismatch: CrashRun.Mismatch) throws -> CrashRun {
        let device = RecordingDevice(copying: start.device, seed: seed, schedule: .init(shuffled: true, maximumDelay: 2))
        var left = operations.after
        return try CrashRun(
            device, start.workload, configuration: VolumeHarness.smallConfiguration(nonce: seed), mismatch: mismatch,
            mounted: { device.plan(fault) }
        ) {
            left -= 1
            return left < 0 ? nil : $0.next()
        }
    }

    /// How many requests of a kind a run without faults makes.
    private static func requests(_ start: Start, seed: UInt64, _ operation: DeviceOperation, _ range: Range<UInt64>? = nil) throws -> Int {
        try run(start, seed: seed, DeviceFault(.error(5), on: [operation], after: .max, range: range), .throwing).recording.faultCounts[0]
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

    /// Five workloads of a case.
    private static func seeds(_ number: UInt64) -> ClosedRange<UInt64> { number * seedsPerCase + 1...number * seedsPerCase + seedsPerCase }

    @Test(arguments: 0..<8 as Range<UInt64>) func errorsAreToldAndWhatIsToldIsThere(number: UInt64) throws {
        var (faults, felt) = (0, 0)
        for seed in DeviceFaultTests.seeds(number) {
            let start = try Start(seed: seed)
            for kind in [DeviceOperation.read, .write, .flush] {
                let count = try DeviceFaultTests.requests(start, seed: seed, kind)
                #expect(count > 0, "seed \(seed): no \(kind)")
                for request in 0..<count {
                    for forever in [false, true] {
                        let run = try DeviceFaultTests.run(
                            start, seed: seed, DeviceFault(.error(5), on: [kind], after: request, forever: forever), .stopping)
                        faults += 1
                        if run.problem != nil { felt += 1 }
                        let wrong = run.problem.flatMap { DeviceFaultTests.isTold($0) ? nil : $0 }
                        if let problem = try wrong ?? DeviceFaultTests.judge(run, states: 1) {
                            Issue.record("seed \(seed), \(kind) \(request), \(forever): \(problem)")
                            return
                        }
                    }
                }
            }
        }
        print("seeds \(DeviceFaultTests.seeds(number)): \(faults) failing requests, \(felt) felt by a call")
        #expect(faults > 500 && felt > 100)
    }

    @Test(arguments: 8..<16 as Range<UInt64>) func metadataIsNeverSilentlyWrong(number: UInt64) throws {
        let plans: [(DeviceFault.Kind, DeviceOperation, Range<UInt64>, Bool)] = [
            (.bitRot, .read, DeviceFaultTests.home, true), (.lostWrite, .write, DeviceFaultTests.journal, true),
            (.misdirectedWrite, .write, DeviceFaultTests.journal, false), (.lostWrite, .write, DeviceFaultTests.home, false),
            (.misdirectedWrite, .write, DeviceFaultTests.home, false), (.staleRead, .read, DeviceFaultTests.home, false),
        ]
        var (faults, felt) = (0, 0)
        for seed in DeviceFaultTests.seeds(number) {
            let start = try Start(seed: seed)
            for (kind, operation, range, isTold) in plans {
                for request in 0..<(try DeviceFaultTests.requests(start, seed: seed, operation, range)) {
                    let run = try DeviceFaultTests.run(start, seed: seed, DeviceFault(kind, after: request, range: range), .goingOn)
                    faults += 1
                    if run.problem != nil { felt += 1 }
                    if let hung = run.hung {
                        Issue.record("seed \(seed), \(kind) \(request): never answered: \(hung)")
                        return
                    }
                    // The bytes of files have no checksums.
                    if isTold, kind == .bitRot, let problem = run.problem, !DeviceFaultTests.isTold(problem), !problem.hasPrefix("read("), !problem.hasPrefix("copy(") {
                        Issue.record("seed \(seed), \(kind) \(request): \(problem)")
                        return
                    }
                    if isTold, kind == .lostWrite, let problem = DeviceFaultTests.judgeLostRecord(run) {
                        Issue.record("seed \(seed), \(kind) \(request): \(problem)")
                        return
                    }
                }
            }
        }
        print("seeds \(DeviceFaultTests.seeds(number)): \(faults) faults without an error, \(felt) felt by a call")
        #expect(faults > 300 && felt > 10)
    }

    // MARK: Write-back that fails

    /// A file with data that waits for its blocks, on a volume whose bitmaps are not in memory.
    private func waitingForBlocks() throws -> (device: RecordingDevice, volume: VolumeHarness, handle: Int64) {
        let empty = try MemoryDevice(size: DeviceFaultTests.size)
        try VolumeHarness.format(empty, blocksPerGroup: 512)
        let first = try VolumeHarness(empty)
        _ = first.close(first.open("/f", 0o102))
        first.unmount()
        let device = RecordingDevice(copying: empty, seed: 1)
        let volume = try VolumeHarness(device)
        let handle = volume.open("/f", 2)
        #expect(volume.write(handle, VolumeWorkload.bytes(20_000, seed: 1), at: 0) == 20_000)
        return (device, volume, handle)
    }

    @Test func aSyncTellsOfAFileThatCannotBeWrittenBackAndTheNextOneTriesAgain() throws {
        let (device, volume, handle) = try waitingForBlocks()
        device.plan(DeviceFault(.error(5), on: [.read], forever: true))
        // By its age.
        volume.monotonic += 10_000_000_000
        _ = volume.run(.null)
        volume.settle()
        #expect(device.faultCounts[0] > 0)
        #expect(volume.run(.sync).result == -5)
        #expect(volume.run(.sync).result == -5)
        device.clearFaults()
        #expect(volume.run(.sync).result == 0)
        #expect(volume.fsync(handle) == -5, "every descriptor is told once")
        #expect(volume.fsync(handle) == 0)
        let states = CrashStates(device)
        let after = try VolumeHarness(states.state(at: states.cutCount, seed: 0).device)
        let same = after.content("/f", 20_000) == VolumeWorkload.bytes(20_000, seed: 1)
        #expect(same)
    }

    @Test func whoWaitsForMemoryThatCannotBeFreedIsTold() throws {
        let (device, volume, handle) = try waitingForBlocks()
        device.plan(DeviceFault(.error(5), on: [.read], forever: true))
        // More than half of the cache's 64 frames.
        var results: Set<Int64> = []
        for page in 5..<64 as Range<Int64> { results.insert(volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: page * 4096)) }
        #expect(results == [4096, -5])
        device.clearFaults()
        #expect(volume.write(handle, VolumeWorkload.bytes(4096, seed: 3), at: 0) == 4096)
        #expect(volume.run(.sync).result == 0)
    }
}
