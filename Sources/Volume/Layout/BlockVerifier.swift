/// What a metadata block must satisfy before any code follows it. Run on every block that comes from the device.
package enum BlockVerifier {
    /// nil: sound. Otherwise what is wrong, for people.
    package static func problem(_ block: Bytes, address: UInt64, superblock: Superblock, geometry: Geometry) -> String? {
        guard block.u32(BlockLayout.magicAt) == BlockLayout.magic else { return "not a metadata block" }
        guard unsafe block.u32(BlockLayout.checksumAt) == BlockLayout.checksum(block.pointer) else { return "wrong checksum" }
        guard block.u64(BlockLayout.addressAt) == address else {
            return "belongs at block \(block.u64(BlockLayout.addressAt)): a misdirected write"
        }
        guard block.u64(BlockLayout.volumeAt) == superblock.uuid.0 else { return "belongs to another volume" }
        let kind = block.u8(BlockLayout.kindAt)
        switch kind {
        case BlockLayout.Kind.group:
            guard address >= geometry.groupStart, geometry.group(ofBlock: address) < geometry.groupCount,
                address == geometry.start(ofGroup: geometry.group(ofBlock: address))
            else { return "a group block at no group's start" }
            let group = geometry.group(ofBlock: address)
            guard Int(block.u32(GroupLayout.freeBlocksAt)) <= geometry.blocks(inGroup: group),
                Int(block.u32(GroupLayout.freeInodesAt)) <= geometry.inodesPerGroup,
                Int(block.u32(GroupLayout.initializedAt)) <= geometry.inodeTableBlocks
            else { return "impossible counters of group \(group)" }
        case BlockLayout.Kind.bitmap, BlockLayout.Kind.attributes: break
        case BlockLayout.Kind.inodes:
            for slot in 0..<InodeLayout.perBlock {
                let inode = Inode(number: 0, cell: block.slice(InodeLayout.firstAt + slot * InodeLayout.size, InodeLayout.size))
                if inode.mode != 0 && !inode.isSound { return "inode \(slot) of the block has an impossible mapping" }
                if inode.mode == 0 { continue }
                if inode.size > UInt64(Int64.max) { return "inode \(slot) of the block has an impossible size" }
                // What is added to them later must not overflow.
                if inode.blocks > geometry.blockCount || inode.links > 1 << 31 || inode.entries > 1 << 48 {
                    return "inode \(slot) of the block has impossible counts"
                }
            }
        case BlockLayout.Kind.directory, BlockLayout.Kind.extents, BlockLayout.Kind.orphans:
            if let problem = Node(block: address, bytes: block).problem(kind: kind, geometry: geometry) { return problem }
        default: return "unknown kind \(kind)"
        }
        return nil
    }
}
