/// A file queue without io_uring: plain system calls, for machines that forbid it. Invariant: a request is carried out in the
/// `kick` that follows its submission, by the caller's own thread, which waits for the device; completions are taken
/// afterwards. No threads.
import CSystem
import Glibc

@safe final class PlainQueue: DeviceQueue {
    private let device: FileDevice
    private var table: RequestTable

    init(device: FileDevice, depth: Int) {
        self.device = device
        table = RequestTable(depth: depth)
    }

    var counters: DeviceCounters { table.counters }
    var inFlight: Int { table.inFlight }
    var room: Int { table.room }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        unsafe table.submit(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess, tag: tag, to: device)
    }

    func kick() {
        table.letOutRefused()
        while let slot = table.waiting.first {
            table.waiting.removeFirst()
            table.finish(slot, error: device.carryOut(slot, of: &table))
        }
    }

    func nextCompletion() -> DeviceCompletion? { table.nextFinished() }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {}

    /// None is needed: after `kick`, everything is there.
    var wakeupDescriptor: Int32 { -1 }
    func armWakeup() {}
    func disarmWakeup() {}
}
