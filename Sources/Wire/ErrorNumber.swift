/// The errnos that this floor produces itself, as Linux numbers them on x86-64. Results carry them negated.
public enum ErrorNumber {
    public static let noEntry: Int64 = 2
    public static let interrupted: Int64 = 4
    public static let io: Int64 = 5
    public static let badDescriptor: Int64 = 9
    public static let again: Int64 = 11
    public static let noMemory: Int64 = 12
    public static let access: Int64 = 13
    public static let exists: Int64 = 17
    public static let invalid: Int64 = 22
    public static let tooManyFiles: Int64 = 24
    public static let fileTooBig: Int64 = 27
    public static let nameTooLong: Int64 = 36
    public static let range: Int64 = 34
    public static let notSupported: Int64 = 95
    public static let protocolMismatch: Int64 = 71
    public static let notConnected: Int64 = 107
    public static let timedOut: Int64 = 110
    public static let canceled: Int64 = 125
}

/// An errno as an error.
public struct ErrorCode: Error, Sendable, Equatable {
    /// Positive, as in <errno.h>.
    public var number: Int32
    @inlinable public init(number: Int32) { self.number = number }
    /// From a negated errno, as results carry it.
    @inlinable public init(result: Int64) { number = Int32(truncatingIfNeeded: 0 &- result) }
}
