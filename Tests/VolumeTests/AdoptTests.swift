/// The end of a server between any two stores of `apply`: the next one adopts the memory, finishes the record and goes on.
///
/// Region and device are copied at the store, which is what a SIGKILL leaves of them (the memory device has nothing in flight).
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct AdoptTests {
    private struct Remains {
        var step: Int
        var region: [UInt8]
        var device: SharedImage
    }

    private static func shape() -> WorkloadShape {
        var shape = WorkloadShape.crash
        // One transaction for each operation: half an operation is nobody's wish here.
        shape.largestWrite = 12_000
        shape.largestFile = 60_000
        return shape
    }

    private static func remains(_ volume: VolumeHarness, _ device: MemoryDevice) -> Remains {
        unsafe Remains(
            step: volume.volume.applySteps, region: Array(volume.memory), device: SharedImage(copying: UnsafeRawBufferPointer(device.bytes)))
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func whateverStoreWasTheLastNothingIsLostOrDoneTwice(seed: UInt64) throws {
        let device = try MemoryDevice(size: (256 + 4 * 512 + 2) * 4096) { $0.atomicWriteUnit = seed % 2 == 0 ? 4096 : 512 }
        try VolumeHarness.format(device, blocksPerGroup: 512)
        var configuration = VolumeHarness.smallConfiguration(nonce: seed)
        if seed > 2 { configuration.treeFanout = 4 }
        let volume = try VolumeHarness(device, configuration: configuration)
        var workload = VolumeWorkload(seed: seed, shape: AdoptTests.shape())
        var random = SeededRandom(seed: seed &+ 1000)
        var list: [Remains] = []
        var stepsSeen = 0
        volume.volume.abortHook = {
            list.append(AdoptTests.remains(volume, device))
            volume.volume.abortAtStep = volume.volume.applySteps + 1 + random.below(8)
        }
        defer { volume.volume.abortHook = nil }
        for number in 0..<250 {
            let before = workload.model
            let operation = workload.next()
            volume.monotonic += UInt64(random.below(900_000_000))
            list.removeAll()
            volume.volume.abortAtStep = number % 2 == 0 ? volume.volume.applySteps + 1 + random.below(12) : -1
            if let problem = workload.perform(operation, on: volume) {
                Issue.record("seed \(seed), operation \(number): \(problem)")
                return
            }
            volume.volume.abortAtStep = -1
            for found in list.prefix(3) {
                stepsSeen += 1
                if let problem = try AdoptTests.judge(found, volume, configuration, before, workload.model) {
                    Issue.record("seed \(seed), operation \(number) \(operation), store \(found.step): \(problem)")
                    return
                }
            }
        }
        #expect(stepsSeen > 40, "seed \(seed): \(stepsSeen) stores")
    }

    /// nil: the adopted volume is the one before the operation or after it, also when it has gone on and been mounted anew.
    private static func judge(
        _ remains: Remains, _ dead: VolumeHarness, _ configuration: Volume.Configuration, _ before: VolumeModel, _ after: VolumeModel
    ) throws -> String? {
        let capabilities = dead.device.capabilities
        let device = remains.device.privateDevice(description: "after a death") { $0 = capabilities }
        let adopted = try VolumeHarness(device, configuration: configuration, adopting: (remains.region, dead.session))
        adopted.wall = dead.wall
        adopted.monotonic = dead.monotonic
        let asAfter = adopted.difference(from: after)
        let asBefore = asAfter == nil ? nil : adopted.difference(from: before)
        if let asAfter, let asBefore { return "neither before (\(asBefore)) nor after (\(asAfter)); \(adopted.volume.takeNotes())" }
        let model = asAfter == nil ? after : before
        for slot in model.handles.keys.prefix(1) {
            // A descriptor of before is still one.
            _ = slot
            if adopted.run(.null).result != 0 { return "the session is gone" }
        }
        _ = adopted.close(adopted.open("/adopted", 0o102))
        guard adopted.run(.unlink, "/adopted").result == 0 else { return "no new file after adoption; \(adopted.volume.takeNotes())" }
        guard adopted.run(.sync).result == 0 else { return "no sync after adoption; \(adopted.volume.takeNotes())" }
        adopted.unmount()
        let notes = adopted.volume.takeNotes()
        if !notes.isEmpty { return "\(notes)" }
        let again = try VolumeHarness(device, configuration: configuration)
        return again.difference(from: model).map { "after a remount: \($0)" }
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
