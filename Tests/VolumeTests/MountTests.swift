/// What a mount tells of itself.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct MountTests {
    /// What a mount tells of its recovery, in order.
    private func progress(_ device: any BlockDevice) throws -> (told: [Double], notes: [Volume.Note]) {
        let queue = try device.makeQueue(depth: 8)
        let configuration = VolumeHarness.smallConfiguration()
        let memory = AlignedBytes(count: try Volume.memorySize(queue, device.capabilities, configuration: configuration))
        guard let base = unsafe memory.buffer.baseAddress else { throw VolumeError(errno: 12, "no memory") }
        var told: [Double] = []
        let volume = unsafe try Volume.mount(
            queue, device.capabilities, memory: base, configuration: configuration, clock: .init(wall: 1, monotonic: 1)
        ) { told.append($0) }
        return (told, volume.takeNotes())
    }

    @Test func aRecoveryTellsHowFarItIs() throws {
        let device = try JournalTests.recording(atomic: 512)
        JournalTests.churn(try JournalTests.mount(device), rounds: 8)
        let cut = CrashStates(device).state(at: device.log.events.count, seed: 0).device
        let (told, notes) = try progress(cut)
        // Every one of the ring's 256 blocks was read, 64 at a time, and some blocks came home.
        #expect(told.prefix(4) == [0.125, 0.25, 0.375, 0.5])
        #expect(told.count > 8 && told.last == 1)
        #expect(zip(told, told.dropFirst()).allSatisfy { $0 < $1 })
        #expect(notes.contains { $0.text.hasPrefix("recovered: ") })
    }

    @Test func whatWasShutDownInOrderIsNotRecovered() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        try JournalTests.mount(device).unmount()
        #expect(try progress(device).told.isEmpty)
    }
}
