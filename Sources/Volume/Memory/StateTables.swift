/// Volatile state that operations change: in-core inodes, open file descriptions, locks. Cells in the region's state tables;
/// staged, recorded and applied like blocks, but never written to the device. Addresses have bit 63 set.
///
/// A table of slots: slot numbers are handed out from a private free list that is rebuilt from the `used` fields.
package enum StateAddress {
    package static let bit: UInt64 = 1 << 63
}

/// What is known of an inode beyond its durable form: 128 bytes. Exists while the inode is open, has data that is not written
/// back, is locked, or is being reclaimed.
///
///      0  u64 inode (0: free slot)   8 u32 open count   12 u32 flags
///     16  u64 size   24 i64 mtime   32 u32 mtime ns   36 u32 ctime ns   40 i64 ctime   48 i64 atime   56 u32 atime ns
///     60  u32 reserved blocks for data   64 u32 dirty frames that need write-back   68 u32 error generation
///     72  u64 record of the last change  80 u64 ticket (token of its holder, 0: none)  88 u32 first lock + 1   92 u32 last error
///     96  u64 record of the last change other than times   104 u32 reserved blocks for tree nodes
///    108  u32 descriptions that hold a shared flock, or 2^32 - 1: one holds an exclusive one
@safe package struct CoreInode {
    package static let size = 128
    package enum Flag {
        /// `size` and the times here are newer than the durable ones.
        static let attributesDirty: UInt32 = 1
        /// Link count is zero: reclaim at the last close.
        static let orphan: UInt32 = 2
        /// Doomed extents are being removed in steps; others wait.
        static let shrinking: UInt32 = 4
        /// Was truncated to nothing: its data is pushed out at close.
        static let flushAtClose: UInt32 = 8
        /// What `attributesDirty` covers: times; size.
        static let timesDirty: UInt32 = 16
        static let sizeDirty: UInt32 = 32
        /// The inode is a directory; is neither that nor a regular file. Fixed when the row is made.
        static let isDirectory: UInt32 = 64
        static let isSpecial: UInt32 = 128
        static let kindMask = isDirectory | isSpecial
        /// Programs have it mapped: its memory follows what changes; may store into it: its memory is what counts.
        static let mapped: UInt32 = 256
        static let sharedMap: UInt32 = 512
    }
    package let slot: Int
    package let cell: Bytes

    package var inode: UInt64 {
        get { cell.u64(0) }
        nonmutating set { cell.set(0, newValue) }
    }
    package var openCount: UInt32 {
        get { cell.u32(8) }
        nonmutating set { cell.set(8, newValue) }
    }
    package var flags: UInt32 {
        get { cell.u32(12) }
        nonmutating set { cell.set(12, newValue) }
    }
    package var size: UInt64 {
        get { cell.u64(16) }
        nonmutating set { cell.set(16, newValue) }
    }
    package var modificationTime: Timestamp {
        get { Timestamp(seconds: cell.i64(24), nanoseconds: cell.u32(32)) }
        nonmutating set {
            cell.set(24, newValue.seconds)
            cell.set(32, newValue.nanoseconds)
        }
    }
    package var changeTime: Timestamp {
        get { Timestamp(seconds: cell.i64(40), nanoseconds: cell.u32(36)) }
        nonmutating set {
            cell.set(40, newValue.seconds)
            cell.set(36, newValue.nanoseconds)
        }
    }
    package var accessTime: Timestamp {
        get { Timestamp(seconds: cell.i64(48), nanoseconds: cell.u32(56)) }
        nonmutating set {
            cell.set(48, newValue.seconds)
            cell.set(56, newValue.nanoseconds)
        }
    }
    package var reserved: UInt32 {
        get { cell.u32(60) }
        nonmutating set { cell.set(60, newValue) }
    }
    package var dirty: UInt32 {
        get { cell.u32(64) }
        nonmutating set { cell.set(64, newValue) }
    }
    package var errorGeneration: UInt32 {
        get { cell.u32(68) }
        nonmutating set { cell.set(68, newValue) }
    }
    package var lastRecord: UInt64 {
        get { cell.u64(72) }
        nonmutating set { cell.set(72, newValue) }
    }
    package var ticket: UInt64 {
        get { cell.u64(80) }
        nonmutating set { cell.set(80, newValue) }
    }
    package var firstLock: UInt32 {
        get { cell.u32(88) }
        nonmutating set { cell.set(88, newValue) }
    }
    package var lastError: UInt32 {
        get { cell.u32(92) }
        nonmutating set { cell.set(92, newValue) }
    }
    package var lastDataRecord: UInt64 {
        get { cell.u64(96) }
        nonmutating set { cell.set(96, newValue) }
    }
    package var reservedNodes: UInt32 {
        get { cell.u32(104) }
        nonmutating set { cell.set(104, newValue) }
    }
    package var flocks: UInt32 {
        get { cell.u32(108) }
        nonmutating set { cell.set(108, newValue) }
    }
    func has(_ flag: UInt32) -> Bool { flags & flag != 0 }
}

/// An open file description: 64 bytes.
///
///      0  u32 used (1)   4 u32 session   8 u64 inode   16 i64 offset   24 u32 status flags (open(2))   28 u32 references (sessions that hold it)
///     32  u32 in-core slot   36 u32 error generation seen   40 u32 flock type (0, 1 shared, 2 exclusive)   44 u32 first share + 1
///     48  u64 inode of the directory that it was found in (0: none)
///
/// A further session that holds one (`Namespace/Sharing.swift`) has a row of its own, a share:
///
///      0  u32 used (2)   4 u32 session   32 u32 slot of the description   44 u32 next share + 1
@safe package struct Description {
    package static let size = 64
    package let slot: Int
    package let cell: Bytes
    package var used: UInt32 {
        get { cell.u32(0) }
        nonmutating set { cell.set(0, newValue) }
    }
    package var session: UInt32 {
        get { cell.u32(4) }
        nonmutating set { cell.set(4, newValue) }
    }
    package var inode: UInt64 {
        get { cell.u64(8) }
        nonmutating set { cell.set(8, newValue) }
    }
    package var offset: Int64 {
        get { cell.i64(16) }
        nonmutating set { cell.set(16, newValue) }
    }
    package var flags: UInt32 {
        get { cell.u32(24) }
        nonmutating set { cell.set(24, newValue) }
    }
    package var references: UInt32 {
        get { cell.u32(28) }
        nonmutating set { cell.set(28, newValue) }
    }
    package var core: UInt32 {
        get { cell.u32(32) }
        nonmutating set { cell.set(32, newValue) }
    }
    package var errorSeen: UInt32 {
        get { cell.u32(36) }
        nonmutating set { cell.set(36, newValue) }
    }
    package var flock: UInt32 {
        get { cell.u32(40) }
        nonmutating set { cell.set(40, newValue) }
    }
    package var directory: UInt64 {
        get { cell.u64(48) }
        nonmutating set { cell.set(48, newValue) }
    }
    /// A share's description.
    package var target: UInt32 {
        get { cell.u32(32) }
        nonmutating set { cell.set(32, newValue) }
    }
    package var nextShare: UInt32 {
        get { cell.u32(44) }
        nonmutating set { cell.set(44, newValue) }
    }
    package static let isShare: UInt32 = 2
    package var isReadable: Bool { flags & 3 == 0 || flags & 3 == 2 }
    package var isWritable: Bool { flags & 3 == 1 || flags & 3 == 2 }
}

/// A record lock: 64 bytes.
///
///      0  u32 used (1)   4 u32 type (0 read, 1 write)   8 u64 owner   16 u64 first byte   24 u64 last byte (inclusive)
///     32  u32 next + 1   36 u32 in-core slot   40 u32 session   44 u32 process (2^32 - 1: the owner is an open description, by its slot)
@safe package struct LockCell {
    package static let size = 64
    package let slot: Int
    package let cell: Bytes
    package var used: UInt32 {
        get { cell.u32(0) }
        nonmutating set { cell.set(0, newValue) }
    }
    package var type: UInt32 {
        get { cell.u32(4) }
        nonmutating set { cell.set(4, newValue) }
    }
    package var owner: UInt64 {
        get { cell.u64(8) }
        nonmutating set { cell.set(8, newValue) }
    }
    package var first: UInt64 {
        get { cell.u64(16) }
        nonmutating set { cell.set(16, newValue) }
    }
    package var last: UInt64 {
        get { cell.u64(24) }
        nonmutating set { cell.set(24, newValue) }
    }
    package var next: UInt32 {
        get { cell.u32(32) }
        nonmutating set { cell.set(32, newValue) }
    }
    package var core: UInt32 {
        get { cell.u32(36) }
        nonmutating set { cell.set(36, newValue) }
    }
    package var session: UInt32 {
        get { cell.u32(40) }
        nonmutating set { cell.set(40, newValue) }
    }
    package var process: UInt32 {
        get { cell.u32(44) }
        nonmutating set { cell.set(44, newValue) }
    }
}

/// A private stack of free slots of one table.
@safe struct SlotPool {
    private let slots: UnsafeMutablePointer<UInt32>
    private(set) var available: Int
    let capacity: Int

    init(capacity: Int) {
        unsafe slots = .allocate(capacity: max(capacity, 1))
        self.capacity = capacity
        available = 0
    }

    /// The slot that the `taken`-th allocation of the running transaction would get (0 for its first), or nil.
    @inline(__always) func candidate(_ taken: Int) -> Int? {
        taken < available ? unsafe Int(slots[available - 1 - taken]) : nil
    }
    @inline(__always) mutating func take(_ count: Int) { available -= count }
    @inline(__always) mutating func give(_ slot: Int) {
        precondition(available < capacity)
        unsafe slots[available] = UInt32(slot)
        available += 1
    }
    mutating func removeAll() { available = 0 }
    func free() { unsafe slots.deallocate() }
}
