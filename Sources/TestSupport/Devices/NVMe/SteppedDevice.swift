/// The NVMe driver over a fake controller, whose time moves by a step at each poll that finds nothing: a device for whatever polls.
///
/// Invariant: every request is answered once, under its tag; what else comes is a violation of the fake's list, and so is a request that is not
/// answered within `patience`.
import BlockDevice

@safe package final class SteppedDevice: BlockDevice {
    package let driver: NVMeDevice
    package let fake: FakeController
    package var step: UInt64 = 1_000_000
    /// Nanoseconds of the fake's time within which any request is to be answered, whatever happens.
    package var patience: UInt64 = 600_000_000_000

    package init(_ fake: FakeController, through transport: (any NVMeTransport)? = nil, options: NVMeController.Options = NVMeController.Options()) throws(DeviceError) {
        self.fake = fake
        driver = try NVMeDevice(transport ?? fake, options: options)
    }

    package var capabilities: DeviceCapabilities { driver.capabilities }
    package var warnings: [String] { driver.warnings }
    package var notes: [String] { driver.controller.notes }
    package func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue { SteppedQueue(try driver.makeQueue(depth: depth), self) }
    package func close() { driver.close() }
}

@safe package final class SteppedQueue: DeviceQueue {
    package let driver: any DeviceQueue
    private let device: SteppedDevice
    /// Requests by tag, with the time of the oldest.
    private var open: [UInt64: (count: Int, since: UInt64)] = [:]

    init(_ driver: any DeviceQueue, _ device: SteppedDevice) {
        self.driver = driver
        self.device = device
    }

    package var counters: DeviceCounters { driver.counters }
    package var inFlight: Int { driver.inFlight }
    package var room: Int { driver.room }
    package var maximumTransfer: Int { driver.maximumTransfer }

    package func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int, forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        let room = driver.room
        let accepted = unsafe driver.submit(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess, tag: tag)
        if accepted != (room > 0) { device.fake.violate("room for \(room), and a request is \(accepted ? "taken" : "not taken")") }
        if accepted {
            let entry = open[tag] ?? (0, device.fake.clock)
            open[tag] = (entry.count + 1, entry.since)
        }
        return accepted
    }

    package func kick() { driver.kick() }

    package func nextCompletion() -> DeviceCompletion? {
        device.fake.work()
        if let completion = driver.nextCompletion() {
            if let entry = open[completion.tag] {
                open[completion.tag] = entry.count > 1 ? (entry.count - 1, entry.since) : nil
            } else {
                device.fake.violate("request \(completion.tag) is answered, and is not in flight")
            }
            return completion
        }
        // As a worker that has nothing else to do.
        driver.armWakeup()
        device.fake.elapse(device.step)
        driver.disarmWakeup()
        return nil
    }

    /// A request that has waited longer than anything may take.
    package var overdue: UInt64? { open.first { device.fake.clock - $0.value.since > device.patience }?.key }

    package func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) { unsafe try driver.register(memory) }
    package func map(_ memory: UnsafeMutableRawBufferPointer) { unsafe driver.map(memory) }
    package func unmap(_ memory: UnsafeMutableRawBufferPointer) { unsafe driver.unmap(memory) }
    package var wakeupDescriptor: Int32 { -1 }
    package func armWakeup() { driver.armWakeup() }
    package func disarmWakeup() { driver.disarmWakeup() }
    package var deadline: UInt64? { driver.deadline }
    package var hasNotes: Bool { driver.hasNotes }
    package func takeNotes() -> [String] { driver.takeNotes() }
}
