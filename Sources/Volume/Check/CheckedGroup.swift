/// What the checker remembers of a group: which of its blocks somebody uses, and of each inode what names and links say.
///
/// Invariant: memory in proportion to the group (1 bit a block, 40 bytes an inode that was ever used), indexes checked against its own counts.
@safe struct CheckedGroup {
    /// Of one inode: what it says, and what the names say.
    struct Record {
        /// Type bits of the mode shifted right by 12; 0: not in use.
        var type: UInt8 = 0
        /// Type that the first name says.
        var namedType: UInt8 = 0
        /// Its block could not be read: nothing is said about it.
        var isUnknown = false
        /// In the orphan table as one without a name.
        var isOrphan = false
        /// For the search for cycles.
        var color: UInt8 = 0
        var links: UInt32 = 0
        var names: UInt32 = 0
        var subdirectories: UInt32 = 0
        /// The directory that the inode says it lies in (directories).
        var ownParent: UInt64 = 0
        /// The directory of the first name found.
        var namedIn: UInt64 = 0
    }

    static let words = (BlockLayout.size - GroupLayout.blockBitmapAt) / 8

    /// Bits in use, the group's own metadata and what lies past its end included.
    let used: UnsafeMutablePointer<UInt64>
    let records: UnsafeMutablePointer<Record>
    let recordCount: Int
    /// What the group block says.
    let freeBlocks: Int
    let freeInodes: Int
    /// The group block could not be read, and so none of its inodes.
    let isUnknown: Bool

    init(blocks: Int, overhead: Int, recordCount: Int, freeBlocks: Int, freeInodes: Int, isUnknown: Bool) {
        unsafe used = .allocate(capacity: CheckedGroup.words)
        unsafe used.initialize(repeating: 0, count: CheckedGroup.words)
        self.recordCount = recordCount
        unsafe records = .allocate(capacity: max(recordCount, 1))
        unsafe records.initialize(repeating: Record(), count: max(recordCount, 1))
        self.freeBlocks = freeBlocks
        self.freeInodes = freeInodes
        self.isUnknown = isUnknown
        _ = claim(0, overhead)
        _ = claim(blocks, CheckedGroup.words * 64 - blocks)
    }

    func free() {
        unsafe used.deallocate()
        unsafe records.deallocate()
    }

    /// Marks blocks [first, first + count) of the group; how many of them were marked already.
    func claim(_ first: Int, _ count: Int) -> Int {
        var position = first
        let end = min(first + count, CheckedGroup.words * 64)
        var before = 0
        while position < end {
            let bit = position & 63
            let run = min(64 - bit, end - position)
            let mask = (run == 64 ? UInt64.max : (1 << UInt64(run)) - 1) << UInt64(bit)
            before += unsafe (used[position >> 6] & mask).nonzeroBitCount
            unsafe used[position >> 6] |= mask
            position += run
        }
        return before
    }

    var usedCount: Int {
        var count = 0
        for word in 0..<CheckedGroup.words { count += unsafe used[word].nonzeroBitCount }
        return count
    }

    /// nil: no such inode was ever used.
    func record(_ index: Int) -> UnsafeMutablePointer<Record>? {
        index >= 0 && index < recordCount ? unsafe records + index : nil
    }
}
