/// What can be made to go wrong, when and for how long. Invariant: a plan and a seed determine everything.
import BlockDevice

package struct DeviceFault: Sendable {
    package enum Kind: Sendable, Equatable {
        /// The request ends with this errno. A change may have reached the device in part (any sectors, by the seed); after
        /// a failed flush, what it should have covered may be lost however many flushes succeed later.
        case error(Int32)
        /// A read finds one bit of the stored content flipped, for good.
        case bitRot
        /// A write reports success but has gone to another place.
        case misdirectedWrite
        /// A write reports success and goes nowhere.
        case lostWrite
        /// A read gives what each of its blocks held before the last change.
        case staleRead
    }

    package var kind: Kind
    /// Which operations it counts and strikes.
    package var operations: Set<DeviceOperation>
    /// Strikes the Nth such request after it was planned, from 0.
    package var after: Int
    /// And all such requests that follow.
    package var forever: Bool
    /// Only requests that touch these bytes are counted (flushes always are).
    package var range: Range<UInt64>?

    package init(
        _ kind: Kind, on operations: Set<DeviceOperation>? = nil, after: Int = 0, forever: Bool = false,
        range: Range<UInt64>? = nil
    ) {
        self.kind = kind
        switch kind {
        case .error: self.operations = operations ?? [.read, .write, .flush, .discard, .writeZeroes]
        case .bitRot, .staleRead: self.operations = [.read]
        case .misdirectedWrite, .lostWrite: self.operations = [.write]
        }
        self.after = after
        self.forever = forever
        self.range = range
    }
}

/// A planned fault with its count.
struct ArmedFault {
    let fault: DeviceFault
    private(set) var seen = 0

    init(_ fault: DeviceFault) { self.fault = fault }

    /// Counts a request; whether the fault strikes it.
    mutating func strikes(_ operation: DeviceOperation, offset: UInt64, length: Int) -> Bool {
        guard fault.operations.contains(operation) else { return false }
        if let range = fault.range, operation != .flush, !range.overlaps(offset..<offset + UInt64(length)) { return false }
        defer { seen += 1 }
        return fault.forever ? seen >= fault.after : seen == fault.after
    }
}
