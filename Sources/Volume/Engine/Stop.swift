/// Why an operation could not finish. An errno is an answer; everything else means: drop the transaction, park, run again.
package enum Stop: Error {
    case errno(Int32)
    /// Blocks that are not in memory; `Transaction.missing` names them.
    case missing
    /// No frame is free; write-back or eviction must make one.
    case frames
    /// The open journal batch has no room.
    case journal
    /// Changes up to this record must be durable first (fsync; freed space not reusable yet).
    case durable(UInt64)
    /// Data of this inode must be written back (allocated) first.
    case writeback(UInt64)
    /// Another request holds the inode's range ticket, or its doomed extents are still being removed.
    case ticket(UInt64)
    /// A lock conflicts.
    case lock(UInt64)
    /// Nothing is lacking, but this has taken its share of steps: others come first.
    case turn
}

/// Errno values of x86-64 and arm64 Linux that operations answer with.
package enum Errno {
    package static let perm: Int32 = 1
    package static let noEntry: Int32 = 2
    package static let interrupted: Int32 = 4
    package static let io: Int32 = 5
    package static let badDescriptor: Int32 = 9
    package static let again: Int32 = 11
    package static let noMemory: Int32 = 12
    package static let access: Int32 = 13
    package static let busy: Int32 = 16
    package static let exists: Int32 = 17
    package static let crossDevice: Int32 = 18
    package static let noDevice: Int32 = 19
    package static let notDirectory: Int32 = 20
    package static let isDirectory: Int32 = 21
    package static let invalid: Int32 = 22
    package static let tableFull: Int32 = 23
    package static let tooManyOpen: Int32 = 24
    package static let tooLong: Int32 = 7
    package static let tooBig: Int32 = 27
    package static let noSpace: Int32 = 28
    package static let readOnly: Int32 = 30
    package static let tooManyLinks: Int32 = 31
    package static let range: Int32 = 34
    package static let deadlock: Int32 = 35
    package static let nameTooLong: Int32 = 36
    package static let noLocks: Int32 = 37
    package static let notSupported: Int32 = 38
    package static let notEmpty: Int32 = 39
    package static let loop: Int32 = 40
    package static let noData: Int32 = 61
    package static let overflow: Int32 = 75
    package static let operationNotSupported: Int32 = 95
    package static let noDeviceAddress: Int32 = 6
    package static let stale: Int32 = 116
    /// EUCLEAN: a structure on the volume is damaged.
    package static let damaged: Int32 = 117
    package static let cancelled: Int32 = 125
}
