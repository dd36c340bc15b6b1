/// The memory that outlives a server: cache frames and their headers, the tables of volatile state, the operation record and
/// the journal batches. One contiguous area handed in by the caller (a memfd in the server, plain memory in tests),
/// addressed by offsets only.
///
///     control block | operation record | two journal batches | state tables | frame headers | frames
///
/// Invariant: everything in here is changed by `apply` alone (Transaction/Apply.swift), after the operation record that
/// describes the change has been published; so a process that dies between any two stores leaves a state that the next one
/// finishes. What is private to the process (hash indexes, lists, counters) is rebuilt from here.
@safe package struct Region {
    package struct Layout: Sendable, Equatable {
        package var frames: Int
        package var inodes: Int
        package var descriptions: Int
        package var locks: Int
        /// Bytes of one journal batch, a multiple of 4096.
        package var batch: Int

        static let control = 4096
        static let record = 512 << 10

        var batchesAt: Int { Layout.control + Layout.record }
        var stateAt: Int { batchesAt + 2 * batch }
        var inodesAt: Int { 0 }
        var descriptionsAt: Int { inodes * CoreInode.size }
        var locksAt: Int { descriptionsAt + descriptions * Description.size }
        var stateSize: Int { (locksAt + locks * LockCell.size + 4095) / 4096 * 4096 }
        var headersAt: Int { stateAt + stateSize }
        var framesAt: Int { (headersAt + frames * MemoryLayout<FrameHeader>.stride + 4095) / 4096 * 4096 }
        package var size: Int { framesAt + frames * BlockLayout.size }
    }

    static let magic: UInt64 = 0x3130_4745_5248_5344  // "DSHREG01"

    package let base: UnsafeMutableRawPointer
    package let layout: Layout

    package init(_ base: UnsafeMutableRawPointer, layout: Layout) {
        unsafe self.base = base
        self.layout = layout
    }

    /// Control words (64-bit) at the start of the region.
    enum Word: Int {
        case magic = 0
        case size = 1
        /// Number of the last operation record published, and of the last one applied: equal, but for a death in between.
        case published = 2
        case applied = 3
        /// Journal record sequence that the open batch will carry; its parity says which of the two buffers is open.
        case openSequence = 4
        /// Applied bytes and entries in each batch buffer.
        case batchLength0 = 6
        case batchLength1 = 7
        case batchEntries0 = 8
        case batchEntries1 = 9
        /// Of the mount that this memory belongs to. Where the journal's head and tail are, the device says.
        case epoch = 10
    }

    func load(_ word: Word) -> UInt64 { unsafe base.load(fromByteOffset: word.rawValue * 8, as: UInt64.self) }
    func store(_ word: Word, _ value: UInt64) { unsafe base.storeBytes(of: value, toByteOffset: word.rawValue * 8, as: UInt64.self) }

    var record: UnsafeMutableRawPointer { unsafe base + Layout.control }
    func batch(_ index: Int) -> UnsafeMutableRawPointer { unsafe base + layout.batchesAt + index * layout.batch }
    var state: UnsafeMutableRawPointer { unsafe base + layout.stateAt }
    var headers: UnsafeMutablePointer<FrameHeader> {
        unsafe (base + layout.headersAt).assumingMemoryBound(to: FrameHeader.self)
    }
    var frames: UnsafeMutableRawPointer { unsafe base + layout.framesAt }
}
