/// The end of a server between any two stores of `apply`: the next one adopts the memory, finishes the record and goes on.
import BlockDevice
import Glibc
import TestSupport
import Testing
import Volume

@Suite struct AdoptTests {
    /// What a death leaves. The memory device has nothing in flight.
    private struct Remains {
        var store: Int
        var region: [UInt8]
        var device: SharedImage
    }

    /// nil: the adopted volume is the one before the operation or after it, also when it has gone on and been mounted anew.
    private static func judge(
        _ remains: Remains, _ life: ShortLife, _ configuration: Volume.Configuration, _ before: VolumeModel, _ after: VolumeModel
    ) throws -> String? {
        let capabilities = life.volume.device.capabilities
        let device = remains.device.privateDevice(description: "after a death") { $0 = capabilities }
        let adopted: VolumeHarness
        do {
            adopted = try VolumeHarness(device, configuration: configuration, adopting: (remains.region, life.volume.session))
        } catch { return "\(error)" }
        adopted.wall = life.volume.wall
        adopted.monotonic = life.volume.monotonic
        let asAfter = adopted.difference(from: after)
        let asBefore = asAfter == nil ? nil : adopted.difference(from: before)
        if let asAfter, let asBefore { return "neither before (\(asBefore)) nor after (\(asAfter)); \(adopted.volume.takeNotes())" }
        let model = asAfter == nil ? after : before
        _ = adopted.close(adopted.open("/adopted", 0o102))
        guard adopted.run(.unlink, "/adopted").result == 0 else { return "no new file after adoption; \(adopted.volume.takeNotes())" }
        guard adopted.run(.sync).result == 0 else { return "no sync after adoption; \(adopted.volume.takeNotes())" }
        adopted.unmount()
        let notes = adopted.volume.takeNotes()
        if !notes.isEmpty || adopted.unanswered > 0 { return "\(notes)" }
        let findings = try VolumeChecker(device).run()
        if let first = findings.first { return "\(findings.count) findings, the first: \(first)" }
        let again = try VolumeHarness(device, configuration: configuration)
        return again.difference(from: model).map { "after a remount: \($0)" }
    }

    private static func formatted(_ seed: UInt64) throws -> SharedImage {
        let device = try MemoryDevice(size: UInt64(ShortLife.size))
        try VolumeHarness.format(device, blocksPerGroup: 512)
        return unsafe SharedImage(copying: UnsafeRawBufferPointer(device.bytes))
    }

    /// Many operations in this process, the memory copied between stores. What was found, and how many deaths were looked at.
    static func hunt(seed: UInt64, operations: Int, bug: PlantedBug = .none) throws -> (problem: String?, deaths: Int) {
        let device = try formatted(seed).privateDevice(description: "alive") { $0.atomicWriteUnit = ShortLife.atomic(seed) }
        var configuration = ShortLife.configuration(seed)
        configuration.plantedBug = bug
        let volume = try VolumeHarness(device, configuration: configuration)
        let life = ShortLife(seed: seed, on: volume)
        var random = SeededRandom(seed: seed &+ 1000)
        var list: [Remains] = []
        var deaths = 0
        volume.volume.abortHook = {
            unsafe list.append(
                Remains(
                    store: volume.volume.applySteps, region: Array(volume.memory), device: SharedImage(copying: UnsafeRawBufferPointer(device.bytes))))
            volume.volume.abortAtStep = volume.volume.applySteps + 1 + random.below(8)
        }
        defer { volume.volume.abortHook = nil }
        for number in 0..<operations {
            let before = life.workload.model
            list.removeAll()
            volume.volume.abortAtStep = number % 2 == 0 ? volume.volume.applySteps + 1 + random.below(12) : -1
            if let problem = life.step() { return ("seed \(seed), operation \(number): \(problem)", deaths) }
            volume.volume.abortAtStep = -1
            for found in list.prefix(3) {
                deaths += 1
                if let problem = try judge(found, life, configuration, before, life.workload.model) {
                    return ("seed \(seed), operation \(number), store \(found.store): \(problem)", deaths)
                }
            }
        }
        return (nil, deaths)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func whateverStoreWasTheLastNothingIsLostOrDoneTwice(seed: UInt64) throws {
        let (problem, deaths) = try AdoptTests.hunt(seed: seed, operations: 250)
        if let problem { Issue.record("\(problem)") }
        #expect(deaths > 40, "seed \(seed): \(deaths) deaths")
    }

    /// The same with real deaths: a process for every store of a short workload, killed by SIGKILL at it.
    @Test(arguments: [1, 2, 3] as [UInt64]) func aProcessIsKilledAtEveryStore(seed: UInt64) throws {
        let clean = try AdoptTests.formatted(seed)
        let device = clean.privateDevice(description: "alive") { $0.atomicWriteUnit = ShortLife.atomic(seed) }
        let life = try ShortLife(seed: seed, device: device)
        var models = [life.workload.model]
        for number in 0..<ShortLife.operations {
            if let problem = life.step() { Issue.record("seed \(seed), operation \(number): \(problem)") }
            models.append(life.workload.model)
        }
        let stores = life.volume.volume.applySteps
        let size = unsafe life.volume.memory.count
        var deaths = 0
        for store in 1...stores {
            let (region, image, progress) = (SharedImage(size: size), clean.clone(), SharedImage(size: 4096))
            let status = try AdoptTests.run([region.path, image.path, progress.path, "\(seed)", "\(store)"])
            guard status == SIGKILL else {
                Issue.record("seed \(seed), store \(store): the victim ended with \(status)")
                return
            }
            deaths += 1
            let operation = Int(unsafe progress.bytes.load(as: UInt64.self))
            let remains = unsafe Remains(store: store, region: Array(region.bytes), device: image)
            if let problem = try AdoptTests.judge(remains, life, ShortLife.configuration(seed), models[operation], models[operation + 1]) {
                Issue.record("seed \(seed), store \(store) in operation \(operation): \(problem)")
                return
            }
        }
        print("seed \(seed): \(deaths) processes killed, one at each store")
        #expect(deaths > 200)
    }

    /// Runs the victim; its status as wait(2) tells it.
    private static func run(_ arguments: [String]) throws -> Int32 {
        var name = [CChar](repeating: 0, count: 4096)
        let length = unsafe readlink("/proc/self/exe", &name, name.count)
        let tests = String(decoding: name.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let victim = tests.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/dashfs-victim"
        var words = unsafe ([victim] + arguments).map { unsafe strdup($0) } + [nil]
        defer { for unsafe word in unsafe words { unsafe free(word) } }
        var process: pid_t = 0
        let error = unsafe posix_spawn(&process, victim, nil, nil, &words, environ)
        guard error == 0 else { throw VolumeError(errno: error, "\(victim) cannot be started") }
        var status: Int32 = 0
        while unsafe waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return status
    }

    @Test func memoryOfAnotherMountIsRefused() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        let first = try VolumeHarness(device)
        let memory = unsafe Array(first.memory)
        let session = first.session
        _ = try VolumeHarness(device)
        #expect(throws: VolumeError.self) { _ = try VolumeHarness(device, adopting: (memory, session)) }
    }
}
