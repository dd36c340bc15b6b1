/// A tree node: one block. After the common header, `count` slots of 24 bytes in strictly ascending key order; in leaves of directories the
/// names are in a heap that grows down from the end of the block.
///
///     slot:  0 u64 key   8 u64 value   16 u64 auxiliary
///
///     interior            key = lowest key below (the first one counts as minus infinity), value = child block
///     extent leaf         key = block index in the file, value = device block, auxiliary = length | flags << 32
///     directory leaf      key = name hash, value = inode, auxiliary = name offset | name length << 16 | d_type << 32
///     orphan leaf         key = inode, value = first doomed block index | kind << 60, auxiliary = number of doomed block indexes
@safe package struct Node {
    package static let slotSize = 24
    package static let firstAt = BlockLayout.headerSize
    package static let maximumSlots = (BlockLayout.size - firstAt) / slotSize
    package static let maximumDepth = 8

    package let block: UInt64
    package let bytes: Bytes

    package init(block: UInt64, bytes: Bytes) {
        self.block = block
        self.bytes = bytes
    }

    package var level: Int { Int(bytes.u8(BlockLayout.levelAt)) }
    package var count: Int {
        get { Int(bytes.u16(BlockLayout.countAt)) }
        nonmutating set { bytes.set(BlockLayout.countAt, UInt16(newValue)) }
    }
    package var heap: Int {
        get { Int(bytes.u16(BlockLayout.heapAt)) }
        nonmutating set { bytes.set(BlockLayout.heapAt, UInt16(newValue)) }
    }
    package var owner: UInt64 { bytes.u64(BlockLayout.ownerAt) }

    @inline(__always) func slotAt(_ slot: Int) -> Int { Node.firstAt &+ slot &* Node.slotSize }
    @inline(__always) package func key(_ slot: Int) -> UInt64 { bytes.u64(slotAt(slot)) }
    @inline(__always) package func value(_ slot: Int) -> UInt64 { bytes.u64(slotAt(slot) &+ 8) }
    @inline(__always) package func auxiliary(_ slot: Int) -> UInt64 { bytes.u64(slotAt(slot) &+ 16) }
    package func setSlot(_ slot: Int, key: UInt64, value: UInt64, auxiliary: UInt64) {
        bytes.set(slotAt(slot), key)
        bytes.set(slotAt(slot) + 8, value)
        bytes.set(slotAt(slot) + 16, auxiliary)
    }

    package func initialize(level: Int) {
        bytes.set(BlockLayout.levelAt, UInt8(level))
        count = 0
        heap = BlockLayout.size
    }

    /// The last slot whose key is at most `key`, or -1.
    @inline(__always) package func floor(_ key: UInt64) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low &+ high) >> 1
            if self.key(middle) <= key { low = middle &+ 1 } else { high = middle }
        }
        return low &- 1
    }

    // Names.
    @inline(__always) static func nameOffset(_ auxiliary: UInt64) -> Int { Int(auxiliary & 0xFFFF) }
    @inline(__always) static func nameLength(_ auxiliary: UInt64) -> Int { Int(auxiliary >> 16 & 0xFFFF) }
    @inline(__always) package func name(_ slot: Int) -> Bytes {
        let auxiliary = auxiliary(slot)
        return bytes.slice(Node.nameOffset(auxiliary), Node.nameLength(auxiliary))
    }

    /// What a block that claims to be a node must satisfy before anyone follows it; nil: sound.
    package func problem(kind: UInt8, geometry: Geometry) -> String? {
        let (count, heap, level) = (count, heap, level)
        guard level < Node.maximumDepth else { return "level \(level)" }
        guard heap <= BlockLayout.size, Node.firstAt + count * Node.slotSize <= heap else { return "\(count) slots, heap at \(heap)" }
        guard count > 0 else { return "no slots" }
        let hasNames = level == 0 && kind == BlockLayout.Kind.directory
        guard hasNames || heap == BlockLayout.size else { return "names where none belong" }
        var named = 0
        for slot in 0..<count {
            if slot > 0 && key(slot) <= key(slot - 1) { return "keys out of order at slot \(slot)" }
            if level > 0 {
                if !geometry.isData(value(slot)) { return "child \(value(slot)) outside the data area" }
            } else if kind == BlockLayout.Kind.directory {
                let (offset, length) = (Node.nameOffset(auxiliary(slot)), Node.nameLength(auxiliary(slot)))
                if length == 0 || length > 255 || offset < heap || offset + length > BlockLayout.size { return "name of slot \(slot) outside the heap" }
                if !geometry.isInode(value(slot)) { return "slot \(slot) names an inode that does not exist" }
                // One more than a key is a cookie, and those are positive.
                if key(slot) >= UInt64(Int64.max) { return "the key of slot \(slot) is no hash" }
                // Names do not overlap, or what a split moves might not fit.
                named += length
                if named > BlockLayout.size - heap { return "names overlap" }
            } else if kind == BlockLayout.Kind.orphans {
                if !geometry.isInode(key(slot)) { return "slot \(slot) names an inode that does not exist" }
            } else {
                let extent = Extent(key: key(slot), value: value(slot), auxiliary: auxiliary(slot))
                guard let end = extent.soundEnd(geometry) else { return "extent \(slot) outside the data area" }
                if slot + 1 < count && key(slot + 1) < end { return "extents overlap at slot \(slot)" }
            }
        }
        return nil
    }
}

/// A run of blocks of a file.
package struct Extent: Equatable, Sendable {
    /// Block index in the file, device block, blocks.
    package var index: UInt64
    package var block: UInt64
    package var count: UInt64
    /// Allocated, never written: reads as zeros.
    package var unwritten: Bool

    package static let unwrittenFlag: UInt64 = 1 << 32
    /// Files end below 2^63 bytes.
    package static let maximumIndex: UInt64 = 1 << 51

    package init(index: UInt64, block: UInt64, count: UInt64, unwritten: Bool) {
        self.index = index
        self.block = block
        self.count = count
        self.unwritten = unwritten
    }

    package init(key: UInt64, value: UInt64, auxiliary: UInt64) {
        index = key
        block = value
        count = auxiliary & 0xFFFF_FFFF
        unwritten = auxiliary & Extent.unwrittenFlag != 0
    }

    package var auxiliary: UInt64 { count | (unwritten ? Extent.unwrittenFlag : 0) }
    package var end: UInt64 { index + count }

    /// The end in the file where everything is inside the volume and the file's range, else nil.
    package func soundEnd(_ geometry: Geometry) -> UInt64? {
        guard count >= 1, index < Extent.maximumIndex, geometry.isData(block, count: count) else { return nil }
        return index + count
    }
}
