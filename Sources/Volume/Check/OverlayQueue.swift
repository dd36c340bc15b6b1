import BlockDevice

/// A device queue whose writes stay in memory: what is read is what the device would hold had it been written.
///
/// Invariant: nothing but reads ever reaches the queue below. One request at a time, as `BlockingDevice` makes them.
@safe final class OverlayQueue: DeviceQueue {
    private let below: any DeviceQueue
    private var written: [UInt64: [UInt8]] = [:]
    private var answered: [DeviceCompletion] = []
    /// The read that the device is working on: where it begins and where it goes.
    private var reading: (offset: UInt64, segment: DeviceSegment)?

    init(_ below: any DeviceQueue) { self.below = below }

    var blocksWritten: Int { written.count }
    var counters: DeviceCounters { below.counters }
    var inFlight: Int { answered.count + below.inFlight }
    var maximumTransfer: Int { below.maximumTransfer }
    var room: Int { answered.isEmpty && reading == nil ? 1 : 0 }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int, forceUnitAccess: Bool,
        tag: UInt64
    ) -> Bool {
        guard room > 0 else { return false }
        switch operation {
        case .read:
            guard let segment = unsafe segments.first, segments.count == 1 else { break }
            guard
                unsafe below.submit(.read, offset: offset, segments: segments, length: length, forceUnitAccess: false, tag: tag)
            else { return false }
            reading = (offset, segment)
            return true
        case .write:
            var block = offset / UInt64(BlockLayout.size)
            for unsafe segment in unsafe segments {
                for at in stride(from: 0, to: segment.length, by: BlockLayout.size) {
                    written[block] = unsafe Array(UnsafeRawBufferPointer(start: segment.address + at, count: BlockLayout.size))
                    block &+= 1
                }
            }
            answered.append(DeviceCompletion(tag: tag, error: 0))
            return true
        case .flush:
            answered.append(DeviceCompletion(tag: tag, error: 0))
            return true
        case .discard, .writeZeroes: break
        }
        answered.append(DeviceCompletion(tag: tag, error: Errno.invalid))
        return true
    }

    func kick() { below.kick() }

    func nextCompletion() -> DeviceCompletion? {
        if !answered.isEmpty { return answered.removeFirst() }
        guard let completion = below.nextCompletion() else { return nil }
        if let (offset, segment) = reading, completion.error == 0 {
            for at in stride(from: 0, to: segment.length, by: BlockLayout.size) {
                guard let bytes = written[(offset + UInt64(at)) / UInt64(BlockLayout.size)] else { continue }
                unsafe bytes.withUnsafeBytes { source in
                    guard let base = source.baseAddress else { return }
                    unsafe (segment.address + at).copyMemory(from: base, byteCount: BlockLayout.size)
                }
            }
        }
        reading = nil
        return completion
    }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {}
    var wakeupDescriptor: Int32 { below.wakeupDescriptor }
    func armWakeup() { below.armWakeup() }
    func disarmWakeup() { below.disarmWakeup() }
}
