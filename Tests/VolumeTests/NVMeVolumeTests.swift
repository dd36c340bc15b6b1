/// A volume on the NVMe driver, on a controller that fails in seeded ways: every call is answered with an errno or with what is right, and what is
/// left can be mounted and passes the checker, with or without a power cut.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct NVMeVolumeTests {
    private static let size: UInt64 = (256 + 4 * 512 + 2) * 4096
    #if DEBUG
        private static let runsEach = 12
    #else
        private static let runsEach = 5_000
    #endif
    /// Most are short: what goes wrong there is soon met, and there are more of them.
    private static func operations(seed: UInt64) -> Int { seed % 10 == 0 ? 150 : 40 }

    private static func formatted() throws -> SharedImage {
        let device = try MemoryDevice(size: size)
        try VolumeHarness.format(device, blocksPerGroup: 512)
        return unsafe SharedImage(copying: UnsafeRawBufferPointer(device.bytes))
    }

    private static func isErrno(_ problem: String) -> Bool {
        // That the device has no room is the answer of a write past the cache.
        ["no space with", "result -28,", "result -5,", "result -19,", "result -22,", "result -30,", "result -117,", "seek: -5", "seek: -19", "seek: -30", "seek: -117"].contains { problem.contains($0) }
    }

    /// What is left is whole: the checker finds nothing before and after the next mount.
    /// - Parameter model: what is there to the byte, where the volume came to its end in order.
    private static func check(_ image: MemoryDevice, _ model: VolumeModel?) throws -> String? {
        let volume = try VolumeHarness(image, configuration: VolumeHarness.smallConfiguration(nonce: 99))
        if let first = try VolumeChecker(image).run().first { return "the checker finds \(first)" }
        let (signature, files) = volume.tree()
        if let model {
            if signature != model.signature() { return "names differ: \(VolumeHarness.firstDifference(signature, model.signature()))" }
            for (file, (path, node)) in zip(files, model.files()) where volume.content(file.path, file.size) != model.nodes[node]?.content.read(0, file.size) {
                return "\(path) differs"
            }
        }
        volume.unmount()
        if let first = try VolumeChecker(image).run().first { return "the checker finds \(first) after the next use" }
        return nil
    }

    private struct Outcome {
        var problem: String?
        var wasFelt = false
        var resets = 0
        var operations = 0
        var planned = ""
    }

    private static func run(_ shared: SharedImage, seed: UInt64, lies: Bool = false) throws -> Outcome {
        var outcome = Outcome()
        var random = SeededRandom(seed: seed)
        let image = shared.privateDevice(description: "run \(seed)") { _ in }
        let medium = FakeMedium(image, tracksPowerCuts: true)
        var configuration = FakeConfiguration()
        configuration.blockSize = random.pick([512, 4096])
        configuration.transferShift = UInt8(random.pick([4, 5, 6, 8]))
        configuration.hasVolatileCache = random.chance(0.8)
        configuration.hasDoorbellBuffers = random.chance(0.4)
        configuration.isShuffled = true
        configuration.maximumDelay = random.pick([0, 3_000_000, 40_000_000])
        configuration.atomicBlocks = random.pick([1, 8])
        configuration.queues = 1
        let fake = FakeController(medium, seed: random.next(), configuration: configuration)
        var options = NVMeController.Options()
        options.commandTimeout = 2_000_000_000
        let device = try SteppedDevice(fake, options: options)
        device.step = 5_000_000
        var volume: VolumeHarness? = try VolumeHarness(device, configuration: VolumeHarness.smallConfiguration(nonce: seed))
        volume?.mayHang = true
        let flushesOfMount = fake.commandsFetched[NVMeOpcode.flush]
        var mayFail = false
        var planned = 0
        for _ in 0..<(lies ? 0 : random.below(4)) {
            let plans: [(FakeFault.Kind, Bool)] = [
                (.status(random.pick([0x06, 0x22, 0x81, 0x182, 0x280, 0x281])), true), (.lostCompletion, false), (.duplicateCompletion(after: 3_000), false),
                (.unknownIdentifier, false), (.late(UInt64(random.below(4)) * 1_000_000_000), false), (.stuck(.works), false), (.stuck(.answered), false),
                (.stuck(.stuck), false), (.fatal, false), (random.chance(0.5) ? .removal : .shrink(blocks: 2048), true),
            ]
            let (kind, isFelt) = random.pick(plans)
            let forever = random.chance(0.1)
            fake.plan(FakeFault(kind, after: random.below(operations(seed: seed) * 2 / 3), forever: forever))
            planned += 1
            // So many may all strike one request, which is then given up.
            if isFelt || forever || planned == 3 { mayFail = true }
            outcome.planned += "\(kind)\(forever ? " for ever" : ""); "
        }
        if lies { fake.plan(FakeFault(.lie, after: 3, forever: true)) }
        var workload = VolumeWorkload(seed: seed, shape: .crash)
        while outcome.operations < operations(seed: seed), let volume, outcome.problem == nil, !outcome.wasFelt {
            outcome.operations += 1
            volume.monotonic += UInt64(workload.random.below(1_500_000_000))
            if let problem = workload.perform(workload.next(), on: volume) {
                if volume.unanswered > 0 {
                    outcome.problem = "never answered: \(volume.unfinished)"
                } else if mayFail && isErrno(problem) {
                    outcome.wasFelt = true
                } else {
                    outcome.problem = problem
                }
            }
        }
        if !configuration.hasVolatileCache && fake.commandsFetched[NVMeOpcode.flush] != flushesOfMount {
            outcome.problem = outcome.problem ?? "a flush where there is no cache"
        }
        var model: VolumeModel?
        if let volume, outcome.problem == nil {
            let isHealthy = !outcome.wasFelt && !volume.volume.isReadOnly
            if isHealthy {
                volume.unmount()
                if volume.unanswered > 0 { outcome.problem = "no end: \(volume.unfinished)" }
                if !volume.volume.isReadOnly { model = workload.model }
            }
        }
        volume = nil
        outcome.resets = device.driver.controller.resets
        if let violation = fake.violations.first { outcome.problem = outcome.problem ?? "violation: \(violation)" }
        if random.chance(0.6) {
            medium.cutPower(seed: random.next())
        } else {
            device.close()
        }
        if outcome.problem == nil { outcome.problem = try check(image, model) }
        return outcome
    }

    @Test(arguments: 0..<4) func everyCallEndsAndWhatIsLeftIsWhole(_ part: Int) throws {
        let shared = try Self.formatted()
        var (felt, resets, operations) = (0, 0, 0)
        for number in 0..<Self.runsEach {
            let seed = UInt64(part * 10_000 + number)
            let outcome = try Self.run(shared, seed: seed)
            if let problem = outcome.problem {
                Issue.record("seed \(seed): \(problem); planned: \(outcome.planned)")
                return
            }
            felt += outcome.wasFelt ? 1 : 0
            resets += outcome.resets
            operations += outcome.operations
        }
        print("part \(part): \(Self.runsEach) volumes, \(operations) calls, \(resets) resets, \(felt) told of an error")
        #expect(resets > 0)
    }

    @Test func aControllerWithSmallerTransfersThanARecordIsRefusedByName() throws {
        let fake = try FakeController(blocks: Int(Self.size / 4096)) { ($0.transferShift, $0.queues) = (3, 1) }
        let device = try SteppedDevice(fake)
        #expect { try VolumeHarness.format(device, blocksPerGroup: 512) } throws: { "\($0)".contains("at most 32768 bytes in a transfer") }
        #expect(fake.violations.isEmpty, "\(fake.violations)")
    }

    @Test func aDeviceThatLiesIsFoundOut() throws {
        let shared = try Self.formatted()
        let found = try (0..<20).filter { try Self.run(shared, seed: UInt64(900 + $0), lies: true).problem != nil }
        #expect(found.count > 2, "writes that go nowhere: \(found.count) of 20 runs")
    }

    /// Format, mount and use with what the controller takes in one transfer: 64 KiB, 128 KiB, anything.
    @Test(arguments: [4, 5, 0] as [UInt8]) func aVolumeLivesWithSmallTransfers(_ shift: UInt8) throws {
        let fake = try FakeController(blocks: Int(Self.size / 4096)) { ($0.transferShift, $0.queues) = (shift, 1) }
        let device = try SteppedDevice(fake)
        try VolumeHarness.format(device, blocksPerGroup: 512)
        var volume: VolumeHarness? = try VolumeHarness(device)
        let bytes = VolumeWorkload.bytes(900_000, seed: 5)
        let handle = volume?.open("/a", 0o102) ?? -1
        #expect(volume?.write(handle, bytes) == 900_000)
        #expect(volume?.fsync(handle) == 0)
        volume?.unmount()
        volume = nil
        volume = try VolumeHarness(device)
        let again = volume?.open("/a") ?? -1
        let isSame = volume?.read(again, 900_000).bytes == bytes
        #expect(isSame)
        volume = nil
        #expect(try VolumeChecker(device).run().isEmpty)
        #expect(fake.violations.isEmpty, "\(fake.violations)")
    }
}
