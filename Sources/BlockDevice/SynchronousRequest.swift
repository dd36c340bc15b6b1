/// One request at a time, for those who have nothing else to do: tools, format, tests. Invariant: the queue is idle before and
/// after. A worker never calls this: it waits.
import Glibc

extension DeviceQueue {
    /// Submits a read or a write of one piece of memory and waits for its completion.
    /// - Returns: 0 or an errno; EBUSY where the queue was not idle.
    public func perform(
        _ operation: DeviceOperation, offset: UInt64, memory: UnsafeMutableRawBufferPointer, forceUnitAccess: Bool = false
    ) -> Int32 {
        guard inFlight == 0 else { return EBUSY }
        guard let start = memory.baseAddress else { return EINVAL }
        var segment = unsafe DeviceSegment(address: start, length: memory.count)
        let length = segment.length
        let submitted = unsafe withUnsafePointer(to: &segment) {
            unsafe submit(
                operation, offset: offset, segments: UnsafeBufferPointer(start: $0, count: 1), length: length,
                forceUnitAccess: forceUnitAccess, tag: 0)
        }
        guard submitted else { return EBUSY }
        kick()
        return waitForCompletion().error
    }

    /// Submits a flush, or a discard or write-zeroes of a range, and waits for its completion.
    /// - Returns: 0 or an errno; EBUSY where the queue was not idle.
    public func perform(_ operation: DeviceOperation, offset: UInt64 = 0, length: Int = 0) -> Int32 {
        guard inFlight == 0 else { return EBUSY }
        let submitted = unsafe submit(
            operation, offset: offset, segments: UnsafeBufferPointer(start: nil, count: 0), length: length,
            forceUnitAccess: false, tag: 0)
        guard submitted else { return EBUSY }
        kick()
        return waitForCompletion().error
    }

    /// The next completion, slept for where the driver has a descriptor to sleep on. Requires that a request is in flight.
    package func waitForCompletion() -> DeviceCompletion {
        while true {
            if let completion = nextCompletion() { return completion }
            guard wakeupDescriptor >= 0 else {
                sched_yield()
                continue
            }
            armWakeup()
            defer { disarmWakeup() }
            if let completion = nextCompletion() { return completion }
            var wait = pollfd(fd: wakeupDescriptor, events: Int16(POLLIN), revents: 0)
            _ = unsafe poll(&wait, 1, -1)
        }
    }
}
