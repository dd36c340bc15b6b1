/// The one place where a request is held against what the device can do. Invariant: a request that passes lies wholly inside the
/// device, is aligned, and its segments add up to its length, so that no driver does arithmetic on anything unchecked.
/// A request that fails completes with the errno returned here and never reaches the device.
import Glibc

extension DeviceCapabilities {
    /// The most segments a request may carry.
    package static let maximumSegments = 256

    /// The device's usable size in bytes.
    public var byteCount: UInt64 {
        let (bytes, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(blockSize))
        return overflow ? UInt64.max & ~UInt64(blockSize - 1) : bytes
    }

    /// - Returns: 0, or EINVAL (outside, misaligned, malformed), EROFS (a change on a read-only device), EOPNOTSUPP (not offered).
    package func check(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool
    ) -> Int32 {
        switch operation {
        case .flush: return 0
        case .read: break
        case .write:
            if readOnly { return EROFS }
            if forceUnitAccess && !supportsForceUnitAccess { return EOPNOTSUPP }
        case .discard:
            if readOnly { return EROFS }
            if !supportsDiscard { return EOPNOTSUPP }
        case .writeZeroes:
            if readOnly { return EROFS }
            if !supportsWriteZeroes { return EOPNOTSUPP }
        }
        let block = blockSize
        guard length > 0, length % block == 0, offset % UInt64(block) == 0 else { return EINVAL }
        let (end, overflow) = offset.addingReportingOverflow(UInt64(length))
        guard !overflow, end <= byteCount else { return EINVAL }
        guard operation == .read || operation == .write else { return 0 }
        guard length <= maximumTransfer, !segments.isEmpty, segments.count <= Self.maximumSegments else { return EINVAL }
        var sum = 0
        for unsafe segment in unsafe segments {
            guard segment.length > 0, segment.length % 512 == 0, segment.length <= length &- sum,  // sum <= length, by this very test
                unsafe UInt(bitPattern: segment.address) % UInt(memoryAlignment) == 0
            else { return EINVAL }
            sum &+= segment.length
        }
        return sum == length ? 0 : EINVAL
    }
}

extension DeviceCounters {
    /// Counts a request that is really handed to the device.
    package mutating func count(_ operation: DeviceOperation, length: Int) {
        switch operation {
        case .read:
            reads &+= 1
            bytesRead &+= UInt64(length)
        case .write:
            writes &+= 1
            bytesWritten &+= UInt64(length)
        case .flush: flushes &+= 1
        case .discard: discards &+= 1
        case .writeZeroes: writeZeroes &+= 1
        }
    }
}
