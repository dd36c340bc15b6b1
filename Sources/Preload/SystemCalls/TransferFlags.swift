// preadv2(2) and pwritev2(2): RWF_* flags of one transfer. What asks for more than a file of ours has is EOPNOTSUPP, as on the kernel's file systems without it:
// whether a transfer would wait (RWF_NOWAIT) cannot be told, nor are writes atomic past a power cut (RWF_ATOMIC).

import CSystem

enum TransferFlags {
    /// RWF_HIPRI: how the kernel would wait for a device.
    private static let means: UInt32 = 0x3f & ~0x08
    private static let append: UInt32 = 0x10
    private static let noAppend: UInt32 = 0x20
    /// What a write is sent with: RWF_DSYNC, RWF_SYNC, RWF_APPEND, RWF_NOAPPEND.
    static let ofWrites: UInt32 = 0x36

    /// nil: the flags are fit for a transfer.
    static func problem(_ flags: UInt32) -> Int64? {
        if flags & ~means != 0 { return -ErrorNumber.notSupported }
        return flags & append != 0 && flags & noAppend != 0 ? -ErrorNumber.invalid : nil
    }

    static func transfer(
        _ file: Description, _ vector: UInt64, _ count: Int64, offset: Int64?, flags: UInt32, reading: Bool, _ memory: ProgramMemory
    ) -> Int64 {
        if let problem = problem(flags) { return problem }
        return reading
            ? Transfers.readVector(file, vector, count, offset: offset, memory)
            : Transfers.writeVector(file, vector, count, offset: offset, flags: flags & ofWrites, memory)
    }
}
