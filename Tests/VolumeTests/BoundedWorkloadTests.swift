/// Every short workload there is, within bounds: two directories of two files each, one operation or two, each followed by a sync of some kind or none;
/// then a cut at every moment that makes a difference (the bounds of Mohan and others, "Finding Crash-Consistency Bugs with Bounded Black-Box Crash
/// Testing", OSDI 2018).
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct BoundedWorkloadTests {
    private static let size: UInt64 = (256 + 4 * 256 + 2) * 4096

    private struct Base {
        var device: MemoryDevice
        var workload: VolumeWorkload
    }

    /// The directories and files, on the device and in the model.
    private static func base() throws -> Base {
        let device = try MemoryDevice(size: size) { $0.atomicWriteUnit = 512 }
        try VolumeHarness.format(device, blocksPerGroup: 256)
        let volume = try VolumeHarness(device)
        var workload = VolumeWorkload(seed: 1, shape: .crash)
        var setup: [VolumeOperation] = ["/A", "/B"].map { .mkdir(path: $0, mode: 0o755) }
        for (number, path) in ["/A/foo", "/A/bar", "/B/foo", "/B/bar"].enumerated() {
            setup += [
                .open(slot: 0, path: path, flags: 0o102, mode: 0o644), .write(slot: 0, offset: 0, count: 9000, seed: UInt64(number)), .close(slot: 0),
            ]
        }
        for operation in setup { if let problem = workload.perform(operation, on: volume) { throw VolumeError(errno: 5, problem) } }
        volume.unmount()
        return Base(device: device, workload: workload)
    }

    /// An operation, with the file that it is about and that file's directory.
    private struct Action {
        var operations: [VolumeOperation]
        var file: String
        var directory: String
    }

    private static func onFile(_ path: String, flags: UInt32 = 2, _ operation: VolumeOperation) -> Action {
        Action(operations: [.open(slot: 0, path: path, flags: flags, mode: 0o644), operation, .close(slot: 0)], file: path, directory: String(path.prefix(2)))
    }

    private static let actions: [Action] = {
        func path(_ operation: VolumeOperation, _ file: String, _ directory: String) -> Action { Action(operations: [operation], file: file, directory: directory) }
        var all: [Action] = [
            onFile("/A/new", flags: 0o302, .stat(path: "/A/new", follow: false)), onFile("/B/new", flags: 0o102, .write(slot: 0, offset: 0, count: 5000, seed: 9)),
            path(.link(path: "/A/foo", newPath: "/B/new"), "/B/new", "/B"), path(.link(path: "/A/foo", newPath: "/A/new"), "/A/new", "/A"),
            path(.symlink(target: "foo", path: "/A/new"), "/A/new", "/A"), path(.mkdir(path: "/A/new", mode: 0o755), "/A/new", "/A"),
            path(.rmdir(path: "/A/new"), "/A/foo", "/A"),
            path(.rename(path: "/A/foo", newPath: "/A/bar", flags: 0), "/A/bar", "/A"), path(.rename(path: "/A/foo", newPath: "/B/bar", flags: 0), "/B/bar", "/B"),
            path(.rename(path: "/A/foo", newPath: "/B/new", flags: 0), "/B/new", "/B"), path(.rename(path: "/A", newPath: "/B/new", flags: 0), "/B/new/foo", "/B"),
            path(.rename(path: "/A/foo", newPath: "/B/foo", flags: 2), "/B/foo", "/B"),
        ]
        for file in ["/A/foo", "/B/bar"] {
            let directory = String(file.prefix(2))
            all += [
                onFile(file, .write(slot: 0, offset: 16_384, count: 5000, seed: 3)), onFile(file, flags: 0o2002, .write(slot: 0, offset: -1, count: 5000, seed: 4)),
                onFile(file, .write(slot: 0, offset: 1000, count: 6000, seed: 5)), path(.unlink(path: file), file, directory),
                path(.setAttribute(path: file, name: "user.a", count: 100, seed: 6), file, directory),
            ]
            all += [0, 5000, 30_000].map { path(.truncate(path: file, size: $0), file, directory) }
            all += [0, 1, 3, 16, 17].map { onFile(file, .allocate(slot: 0, mode: $0, offset: 2000, count: 20_000)) }
        }
        return all
    }()

    /// None, fsync of the file, of its directory, fdatasync, sync.
    private static let syncs = 5

    private static func script(_ number: Int) -> [VolumeOperation] {
        let action = actions[number / syncs]
        func synced(_ path: String, _ flags: UInt32, dataOnly: Bool) -> [VolumeOperation] {
            [.open(slot: 1, path: path, flags: flags, mode: 0), .fsync(slot: 1, dataOnly: dataOnly), .close(slot: 1)]
        }
        switch number % syncs {
        case 0: return action.operations
        case 1: return action.operations + synced(action.file, 0, dataOnly: false)
        case 2: return action.operations + synced(action.directory, 0, dataOnly: false)
        case 3: return action.operations + synced(action.file, 0, dataOnly: true)
        default: return action.operations + [.sync]
        }
    }

    /// Runs the script; every cut that differs from the one before. How many states there were, or what is wrong.
    private static func explore(_ base: Base, _ script: [VolumeOperation], seed: UInt64) throws -> (states: Int, problem: String?) {
        let recording = RecordingDevice(copying: base.device, seed: seed, schedule: .init(shuffled: true, maximumDelay: 2)) {
            $0.atomicWriteUnit = seed % 2 == 0 ? 4096 : 512
        }
        var left = script[...]
        let run: CrashRun
        do {
            run = try CrashRun(recording, base.workload, configuration: VolumeHarness.smallConfiguration(nonce: seed)) { _ in left.popFirst() }
        } catch { return (0, "\(script): \(error)") }
        if let problem = JournalAudit.problem(recording, journal: 1..<257) { return (0, "\(script): \(problem)") }
        let states = CrashStates(recording)
        var possible: [Int] = [-1]
        var count = 0
        for cut in run.steps[0].answered...states.cutCount {
            let now = states.possibleChanges(at: cut)
            if now == possible { continue }
            possible = now
            count += 1
            let state = states.state(at: cut, seed: seed)
            let volume = try VolumeHarness(state.device, configuration: VolumeHarness.smallConfiguration(nonce: 5))
            if let first = try VolumeChecker(state.device).run().first { return (count, "\(script), \(state): \(first)") }
            if let problem = run.judge(volume, cut: cut) { return (count, "\(script), \(state): \(problem)") }
        }
        return (count, nil)
    }

    @Test func everyOperationWithEverySync() throws {
        let base = try BoundedWorkloadTests.base()
        let count = BoundedWorkloadTests.actions.count * BoundedWorkloadTests.syncs
        var states = 0
        for number in 0..<count {
            let found = try BoundedWorkloadTests.explore(base, BoundedWorkloadTests.script(number), seed: UInt64(number))
            states += found.states
            if let problem = found.problem { Issue.record("\(number): \(problem)") }
        }
        print("\(count) workloads of one operation, \(states) states")
        #expect(count >= 14 * 5 && states > count)
    }

    @Test(arguments: 0..<8) func pairsOfOperations(part: Int) throws {
        let base = try BoundedWorkloadTests.base()
        let count = BoundedWorkloadTests.actions.count * BoundedWorkloadTests.syncs
        var random = SeededRandom(seed: UInt64(part))
        var states = 0
        for number in 0..<270 {
            let (first, second) = (random.below(count), random.below(count))
            let script = BoundedWorkloadTests.script(first) + BoundedWorkloadTests.script(second)
            let found = try BoundedWorkloadTests.explore(base, script, seed: UInt64(part * 1000 + number))
            states += found.states
            if let problem = found.problem {
                Issue.record("part \(part), \(first) and \(second): \(problem)")
                return
            }
        }
        print("part \(part): 270 workloads of two operations, \(states) states")
        #expect(states > 1000)
    }
}
