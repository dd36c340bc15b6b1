/// Where everything is: derived from the superblock, fixed for the life of a mount.
/// The wrapping operators wrap nothing: `Superblock.problem` has bounded every field so that no address of the volume overflows.
///
///     block 0        superblock
///     1 ...          journal ring
///     groupStart ... groups, each: group block | block bitmap | inode table | data
///     last block     second superblock (inside no group)
package struct Geometry: Sendable {
    package static let minimumJournalBlocks: UInt64 = 256
    /// 1 GiB: recovery reads all of it into memory.
    package static let maximumJournalBlocks: UInt64 = 1 << 18
    /// Bits that one bitmap block holds.
    package static let maximumBlocksPerGroup = (BlockLayout.size - BlockLayout.headerSize) * 8
    package static let maximumInodesPerGroup = (BlockLayout.size - GroupLayout.inodeBitmapAt) * 8

    package let blockCount: UInt64
    package let journalStart: UInt64
    package let journalBlocks: UInt64
    package let groupStart: UInt64
    package let groupCount: Int
    package let blocksPerGroup: Int
    package let inodesPerGroup: Int
    package let inodeCount: UInt64

    package init(_ superblock: Superblock) {
        blockCount = superblock.blockCount
        journalStart = superblock.journalStart
        journalBlocks = superblock.journalBlocks
        groupStart = superblock.groupStart
        groupCount = Int(superblock.groupCount)
        blocksPerGroup = Int(superblock.blocksPerGroup)
        inodesPerGroup = Int(superblock.inodesPerGroup)
        inodeCount = superblock.groupCount &* UInt64(superblock.inodesPerGroup)
    }

    package var inodeTableBlocks: Int { inodesPerGroup / InodeLayout.perBlock }
    /// Blocks of a group before its data area.
    package var groupOverhead: Int { 2 + inodeTableBlocks }

    @inline(__always) package func start(ofGroup group: Int) -> UInt64 {
        groupStart &+ UInt64(truncatingIfNeeded: group) &* UInt64(truncatingIfNeeded: blocksPerGroup)
    }

    /// Blocks in the group; the last one may be shorter.
    @inline(__always) package func blocks(inGroup group: Int) -> Int {
        let start = start(ofGroup: group)
        return Int(min(UInt64(blocksPerGroup), blockCount - 1 - start))
    }

    @inline(__always) package func group(ofBlock block: UInt64) -> Int { Int((block - groupStart) / UInt64(blocksPerGroup)) }
    @inline(__always) package func group(ofInode inode: UInt64) -> Int { Int((inode - 1) / UInt64(inodesPerGroup)) }

    @inline(__always) package func isInode(_ inode: UInt64) -> Bool { inode >= 1 && inode <= inodeCount }

    /// True for blocks that extents and tree pointers may name: inside a group, past its own metadata.
    @inline(__always) package func isData(_ block: UInt64, count: UInt64 = 1) -> Bool {
        guard block >= groupStart, block < blockCount - 1, count >= 1, count <= UInt64(blocksPerGroup) else { return false }
        let group = group(ofBlock: block)
        let offset = Int(block - start(ofGroup: group))
        return group < groupCount && offset >= groupOverhead && offset + Int(count) <= blocks(inGroup: group)
    }

    /// Block and byte offset of an inode that `isInode` accepts.
    @inline(__always) package func location(ofInode inode: UInt64) -> (block: UInt64, offset: Int) {
        let (group, index) = (inode &- 1).quotientAndRemainder(dividingBy: UInt64(truncatingIfNeeded: inodesPerGroup))
        let place = Int(truncatingIfNeeded: index)
        return (
            start(ofGroup: Int(truncatingIfNeeded: group)) &+ 2 &+ UInt64(truncatingIfNeeded: place / InodeLayout.perBlock),
            InodeLayout.firstAt &+ (place % InodeLayout.perBlock) &* InodeLayout.size
        )
    }
}

/// The group block: counters and the inode bitmap. The block bitmap is the block after it, bits from offset 64.
package enum GroupLayout {
    package static let freeBlocksAt = 64
    package static let freeInodesAt = 68
    /// Inode-table blocks that have been written since format; the ones after have undefined contents.
    package static let initializedAt = 72
    package static let countersAt = 64
    package static let countersSize = 64
    package static let inodeBitmapAt = 128
    package static let blockBitmapAt = 64
}
