/// Blocks and inodes of the allocation groups.
///
/// Invariants: a set bit in a group's block bitmap is a block in use; `Group.pinned` marks blocks whose freeing is not durable yet, that the
/// device may still be writing, or that it is to be told of: free in the bitmap, not given out. Counters in the group block equal the bitmaps.
/// `freeBlocks` (all groups) minus `reservedBlocks` (promised to delayed data) minus the system's reserve is what a user may still take.
@safe struct GroupSummary {
    var freeBlocks: Int
    var freeInodes: Int
    /// One bit per block, allocated with the first pinned block.
    var pinned: UnsafeMutablePointer<UInt64>?
    var pinnedCount = 0
    /// Word of the inode bitmap where the search begins. Cursors move with the commit, so that a rerun finds what the run before found.
    var freeInodeHint = 0
    /// Where in the group the search for blocks begins without a better goal: behind the last run that was given out.
    var freeBlockHint = 0
}

extension Volume {
    static let bitmapWords = (BlockLayout.size - BlockLayout.headerSize) / 8
    /// Bits of one bitmap cell: 64 bytes.
    static let cellBits = 512

    // MARK: Space accounting

    /// Blocks that this transaction may still take for data or metadata.
    func availableBlocks(_ tx: Transaction) -> Int {
        freeBlocks + tx.freeBlocks - reservedBlocks - tx.reserved - systemReserve
    }

    func requireSpace(_ blocks: Int, _ tx: Transaction) throws(Stop) {
        if availableBlocks(tx) < blocks { throw .errno(Errno.noSpace) }
    }

    func allocateMetadataBlock(goal: UInt64, mayUseReserve: Bool, _ tx: Transaction) throws(Stop) -> UInt64 {
        if !mayUseReserve { try requireSpace(1, tx) }
        return try allocateRun(goal: goal, wanted: 1, tx).block
    }

    // MARK: Blocks

    /// A run of 1...`wanted` free blocks near `goal` (a device block, or 0), marked as used.
    func allocateRun(goal: UInt64, wanted: Int, _ tx: Transaction) throws(Stop) -> (block: UInt64, count: Int) {
        let goalGroup = goal >= geometry.groupStart && goal < geometry.blockCount - 1 ? min(geometry.group(ofBlock: goal), geometry.groupCount - 1) : 0
        // Long runs first: a run as long as wanted (up to 64 blocks), then whatever there is.
        var minimum = min(wanted, 64)
        while true {
            for distance in 0..<geometry.groupCount {
                let group = (goalGroup + distance) % geometry.groupCount
                if unsafe groups[group].freeBlocks < minimum { continue }
                let from = distance == 0 && geometry.isData(goal) ? Int(goal - geometry.start(ofGroup: group)) : unsafe groups[group].freeBlockHint
                if let run = try findRun(group, from: from, minimum: minimum, wanted: wanted, tx) {
                    try mark(group, first: run.first, count: run.count, used: true, tx)
                    tx.cursors.append(Transaction.Cursor(group: group, block: min(run.first + run.count, geometry.blocks(inGroup: group) - 1), inodeWord: -1))
                    return (geometry.start(ofGroup: group) + UInt64(run.first), run.count)
                }
            }
            if letGoOfDiscards() { continue }
            if minimum == 1 { break }
            minimum = 1
        }
        // What is free on paper waits for its record to be durable, or is being discarded.
        if !heldFrees.isEmpty { throw .durable(journal.openSequence) }
        if pinnedBlocks > 0 { throw .turn }
        throw .errno(Errno.noSpace)
    }

    /// Word of free-or-not bits (1: not available) of a group.
    private func usedWord(_ group: Int, _ word: Int, _ tx: Transaction) throws(Stop) -> UInt64 {
        let cell = try tx.read(
            geometry.start(ofGroup: group) + 1, kind: BlockLayout.Kind.bitmap, offset: GroupLayout.blockBitmapAt + (word & ~7) * 8, length: 64)
        var used = cell.u64((word & 7) * 8)
        if let pinned = unsafe groups[group].pinned { used |= unsafe pinned[word] }
        // What this very transaction frees belongs to the old record: it is not free before that is durable.
        if !tx.freed.isEmpty {
            let first = geometry.start(ofGroup: group) + UInt64(word) * 64
            for number in tx.freed.indices {
                let freed = tx.freed[number]
                let (from, to) = (max(freed.start, first), min(freed.start + freed.count, first + 64))
                if from < to { used |= (UInt64.max >> (64 - (to - from))) << (from - first) }
            }
        }
        return used
    }

    private func findRun(_ group: Int, from: Int, minimum: Int, wanted: Int, _ tx: Transaction) throws(Stop) -> (first: Int, count: Int)? {
        // From the goal to the end, then from the start to the goal.
        let from = max(from, geometry.groupOverhead)
        if let run = try findRun(group, from, geometry.blocks(inGroup: group), minimum, wanted, tx) { return run }
        return try findRun(group, geometry.groupOverhead, from, minimum, wanted, tx)
    }

    /// The first run that begins in [begin, end); it may go on behind.
    private func findRun(_ group: Int, _ begin: Int, _ end: Int, _ minimum: Int, _ wanted: Int, _ tx: Transaction) throws(Stop) -> (first: Int, count: Int)? {
        let limit = geometry.blocks(inGroup: group)
        var position = begin
        while position < end {
            var word = ~(try usedWord(group, position >> 6, tx)) >> UInt64(position & 63)
            if word == 0 {
                position = (position | 63) + 1
                continue
            }
            position += word.trailingZeroBitCount
            if position >= end { break }
            let first = position
            var count = 0
            while count < wanted && position < limit {
                word = (try usedWord(group, position >> 6, tx)) >> UInt64(position & 63)
                let run = min(word == 0 ? 64 - (position & 63) : word.trailingZeroBitCount, 64 - (position & 63))
                if run == 0 { break }
                let take = min(run, wanted - count, limit - position)
                count += take
                position += take
                if (position & 63) != 0 && take == run { break }
            }
            if count >= minimum { return (first, count) }
            if count == 0 { position += 1 }
        }
        return nil
    }

    /// Sets or clears bits, and the group's counter.
    private func mark(_ group: Int, first: Int, count: Int, used: Bool, _ tx: Transaction) throws(Stop) {
        let start = geometry.start(ofGroup: group)
        var position = first
        let end = first + count
        while position < end {
            let cellIndex = position / Volume.cellBits
            let cell = try tx.write(start + 1, kind: BlockLayout.Kind.bitmap, offset: GroupLayout.blockBitmapAt + cellIndex * 64, length: 64)
            let cellEnd = min(end, (cellIndex + 1) * Volume.cellBits)
            while position < cellEnd {
                let bit = position & 63
                let run = min(64 - bit, cellEnd - position)
                let mask = (run == 64 ? UInt64.max : (1 << UInt64(run)) - 1) << UInt64(bit)
                let at = (position % Volume.cellBits) / 64 * 8
                let word = cell.u64(at)
                // A block that is freed twice, or allocated under someone, is a damaged volume, not a reason to go on.
                if word & mask != (used ? 0 : mask) { throw damaged("bitmap of group \(group) disagrees at block \(position)") }
                cell.set(at, used ? word | mask : word & ~mask)
                position += run
            }
        }
        let counters = try tx.write(start, kind: BlockLayout.Kind.group, offset: GroupLayout.countersAt, length: GroupLayout.countersSize)
        let free = Int(counters.u32(GroupLayout.freeBlocksAt - GroupLayout.countersAt))
        let now = used ? free - count : free + count
        guard now >= 0, now <= geometry.blocks(inGroup: group) else { throw damaged("free-block counter of group \(group)") }
        counters.set(GroupLayout.freeBlocksAt - GroupLayout.countersAt, UInt32(now))
        tx.freeBlocks += used ? -count : count
    }

    /// Gives a run back: reusable when the record of this change is durable.
    func release(_ extent: Extent, isMetadata: Bool, _ tx: Transaction) throws(Stop) {
        guard geometry.isData(extent.block, count: extent.count) else { throw damaged("extent at block \(extent.block)") }
        let group = geometry.group(ofBlock: extent.block)
        try mark(group, first: Int(extent.block - geometry.start(ofGroup: group)), count: Int(extent.count), used: false, tx)
        tx.free(extent.block, extent.count, isMetadata: isMetadata)
    }

    // MARK: Inodes

    /// A free inode near `parent` (directories spread over the groups), marked as used, its cell zeroed but for the generation.
    func allocateInode(near parent: UInt64, isDirectory: Bool, _ tx: Transaction) throws(Stop) -> Inode {
        let home = geometry.group(ofInode: parent)
        var first = home
        if isDirectory {
            var best = -1
            for distance in 0..<min(geometry.groupCount, 64) {
                let group = (home + distance) % geometry.groupCount
                let score = unsafe min(groups[group].freeBlocks, groups[group].freeInodes * 4)
                if score > best { (best, first) = (score, group) }
            }
        }
        for distance in 0..<geometry.groupCount {
            let group = (first + distance) % geometry.groupCount
            if unsafe groups[group].freeInodes == 0 { continue }
            if let inode = try allocateInode(inGroup: group, tx) { return inode }
        }
        throw .errno(Errno.noSpace)
    }

    private func allocateInode(inGroup group: Int, _ tx: Transaction) throws(Stop) -> Inode? {
        let start = geometry.start(ofGroup: group)
        let words = (geometry.inodesPerGroup + 63) / 64
        var word = unsafe groups[group].freeInodeHint
        for _ in 0..<words {
            if word >= words { word = 0 }
            let cellAt = GroupLayout.inodeBitmapAt + (word & ~7) * 8
            let used = try tx.read(start, kind: BlockLayout.Kind.group, offset: cellAt, length: 64).u64((word & 7) * 8)
            let index = word * 64 + (~used).trailingZeroBitCount
            if used != .max && index < geometry.inodesPerGroup {
                try tx.write(start, kind: BlockLayout.Kind.group, offset: cellAt, length: 64).set((word & 7) * 8, used | 1 << UInt64(index & 63))
                let counters = try tx.write(start, kind: BlockLayout.Kind.group, offset: GroupLayout.countersAt, length: GroupLayout.countersSize)
                let free = counters.u32(GroupLayout.freeInodesAt - GroupLayout.countersAt)
                if free == 0 { throw damaged("free-inode counter of group \(group)") }
                counters.set(GroupLayout.freeInodesAt - GroupLayout.countersAt, free - 1)
                tx.freeInodes -= 1
                tx.cursors.append(Transaction.Cursor(group: group, block: -1, inodeWord: word))
                let number = UInt64(group) * UInt64(geometry.inodesPerGroup) + UInt64(index) + 1
                let (block, offset) = geometry.location(ofInode: number)
                let tableIndex = Int(block - start) - 2
                var initialized = Int(counters.u32(GroupLayout.initializedAt - GroupLayout.countersAt))
                while initialized <= tableIndex {
                    _ = try tx.fresh(start + 2 + UInt64(initialized), kind: BlockLayout.Kind.inodes, owner: 0)
                    initialized += 1
                    counters.set(GroupLayout.initializedAt - GroupLayout.countersAt, UInt32(initialized))
                }
                return Inode(number: number, cell: try tx.write(block, kind: BlockLayout.Kind.inodes, offset: offset, length: InodeLayout.size))
            }
            word += 1
        }
        return nil
    }

    /// The inode's slot is free again. Its blocks must be gone.
    func freeInode(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        let number = inode.number
        let group = geometry.group(ofInode: number)
        let index = Int((number - 1) % UInt64(geometry.inodesPerGroup))
        let start = geometry.start(ofGroup: group)
        let cell = try tx.write(start, kind: BlockLayout.Kind.group, offset: GroupLayout.inodeBitmapAt + index / 512 * 64, length: 64)
        let at = index % 512 / 64 * 8
        let bit: UInt64 = 1 << UInt64(index & 63)
        if cell.u64(at) & bit == 0 { throw damaged("inode \(number) is free already") }
        cell.set(at, cell.u64(at) & ~bit)
        let counters = try tx.write(start, kind: BlockLayout.Kind.group, offset: GroupLayout.countersAt, length: GroupLayout.countersSize)
        counters.set(GroupLayout.freeInodesAt - GroupLayout.countersAt, counters.u32(GroupLayout.freeInodesAt - GroupLayout.countersAt) &+ 1)
        tx.cursors.append(Transaction.Cursor(group: group, block: -1, inodeWord: unsafe min(groups[group].freeInodeHint, index / 64)))
        tx.freeInodes += 1
        let generation = inode.generation
        inode.cell.zero(0, InodeLayout.size)
        inode.generation = generation
    }
}
