/// Inode by inode: fields, mapping, tree, attributes. Claims the blocks of each and counts what its names say.
extension VolumeChecker {
    func checkInodes(ofGroup number: Int) {
        let group = groups[number]
        if group.isUnknown { return }
        let start = geometry.start(ofGroup: number)
        let bitmap = inodeBitmap(ofGroup: number)
        let blocks = group.recordCount / InodeLayout.perBlock
        var first = 0
        while first < blocks {
            let count = min(BlockingDevice.bufferBlocks, blocks - first)
            let run = try? table.read(start + 2 + UInt64(first), count)
            for position in 0..<count {
                let address = start + 2 + UInt64(first + position)
                guard let block = run?.slice(position * BlockLayout.size, BlockLayout.size) ?? readAgain(address) else {
                    forget(number, first + position)
                    continue
                }
                checkInodeBlock(block, address, number, first + position, bitmap)
            }
            first += count
        }
        let beyond = bits(bitmap, from: group.recordCount, to: geometry.inodesPerGroup)
        if beyond > 0 {
            report(.error, .inodeBitmap, "\(beyond) inodes of group \(number) are marked as used, and have never been", block: start)
        }
    }

    /// After a run could not be read: one block of it.
    private func readAgain(_ address: UInt64) -> Bytes? {
        do throws(VolumeError) {
            return try table.read(address)
        } catch {
            report(.error, .unreadable, error.message, block: address)
            return nil
        }
    }

    /// Nothing is known of the inodes of a block.
    private func forget(_ group: Int, _ tableBlock: Int) {
        for slot in 0..<InodeLayout.perBlock {
            unsafe groups[group].record(tableBlock * InodeLayout.perBlock + slot)?.pointee.isUnknown = true
        }
        (blocksUnknown, namesUnknown) = (true, true)
        if group == 0 && tableBlock == 0 { orphansUnknown = true }
    }

    /// A copy of the bits: 64 to a word.
    private func inodeBitmap(ofGroup number: Int) -> [UInt64] {
        guard let block = try? single.read(geometry.start(ofGroup: number)) else { return [] }
        return (0..<(BlockLayout.size - GroupLayout.inodeBitmapAt) / 8).map { block.u64(GroupLayout.inodeBitmapAt + $0 * 8) }
    }

    private func bits(_ bitmap: [UInt64], from: Int, to: Int) -> Int {
        var count = 0
        var position = from
        while position < to && position >> 6 < bitmap.count {
            let run = min(64 - (position & 63), to - position)
            let mask = (run == 64 ? UInt64.max : (1 << UInt64(run)) - 1) << UInt64(position & 63)
            count += (bitmap[position >> 6] & mask).nonzeroBitCount
            position += run
        }
        return count
    }

    private func checkInodeBlock(_ block: Bytes, _ address: UInt64, _ group: Int, _ tableBlock: Int, _ bitmap: [UInt64]) {
        guard isSound(block, address, kind: BlockLayout.Kind.inodes, inode: nil) else { return forget(group, tableBlock) }
        for slot in 0..<InodeLayout.perBlock {
            let index = tableBlock * InodeLayout.perBlock + slot
            let number = UInt64(group) * UInt64(geometry.inodesPerGroup) + UInt64(index) + 1
            let inode = Inode(number: number, cell: block.slice(InodeLayout.firstAt + slot * InodeLayout.size, InodeLayout.size))
            let isMarked = bits(bitmap, from: index, to: index + 1) == 1
            if inode.mode == 0 {
                if isMarked { report(.error, .inodeBitmap, "the inode is marked as used and is empty", block: address, inode: number) }
                continue
            }
            if !isMarked { report(.error, .inodeBitmap, "the inode is in use and marked as free", block: address, inode: number) }
            guard let record = unsafe groups[group].record(index) else { continue }
            unsafe record.pointee.type = UInt8(inode.type >> 12)
            unsafe record.pointee.links = inode.links
            unsafe record.pointee.ownParent = inode.parent
            checkInode(inode)
        }
    }

    // MARK: One inode

    private func checkInode(_ inode: Inode) {
        let number = inode.number
        for (name, time) in [
            ("access", inode.accessTime), ("modification", inode.modificationTime), ("change", inode.changeTime), ("birth", inode.birthTime),
        ] where time.nanoseconds >= 1_000_000_000 {
            report(.error, .inode, "the \(name) time has \(time.nanoseconds) nanoseconds", inode: number)
        }
        var content = Content()
        switch inode.type {
        case _ where number == Superblock.orphanInode: checkOrphanTable(inode, &content)
        case Mode.directory: checkDirectory(inode, &content)
        case Mode.regular, Mode.link: checkMapping(inode, &content)
        case Mode.socket, Mode.fifo, Mode.characterDevice, Mode.blockDevice:
            if inode.mapping != InodeLayout.Mapping.inline || inode.inlineCount != 0 || inode.root != 0 || inode.size != 0 {
                report(.error, .size, "a device node, fifo or socket has content", inode: number)
            }
        default: report(.error, .inode, "there is no type \(String(inode.mode, radix: 8))", inode: number)
        }
        if number == Superblock.rootInode && inode.type != Mode.directory { report(.error, .inode, "the root is no directory", inode: number) }
        if number != Superblock.orphanInode { count(inode.type) }
        checkAttributes(inode, &content)
        if content.isWhole && content.blocks != inode.blocks {
            report(.error, .blockCount, "has \(content.blocks) blocks and says \(inode.blocks)", inode: number)
        }
        if !content.isWhole { blocksUnknown = true }
    }

    /// What the walk over an inode's content has found.
    struct Content {
        var blocks: UInt64 = 0
        /// Everything could be read and belongs to this inode alone.
        var isWhole = true
        /// Where the last extent ends: the next must not begin before.
        var end: UInt64 = 0
        var firstExtent: UInt64?
        /// Where the last written extent ends.
        var writtenEnd: UInt64 = 0
    }

    private func checkMapping(_ inode: Inode, _ content: inout Content) {
        switch inode.mapping {
        case InodeLayout.Mapping.inline:
            let isLink = inode.isLink
            if UInt64(inode.inlineCount) > inode.size || isLink && UInt64(inode.inlineCount) != inode.size {
                report(.error, .size, "\(inode.inlineCount) bytes are in the inode, and the size is \(inode.size)", inode: inode.number)
            }
            if inode.root != 0 { report(.error, .mapping, "the content is in the inode, and there is a tree", inode: inode.number) }
        case InodeLayout.Mapping.extents:
            let area = inode.inline
            for slot in 0..<min(Int(inode.inlineCount), InodeLayout.inlineExtents) {
                let at = slot * Node.slotSize
                checkExtent(Extent(key: area.u64(at), value: area.u64(at + 8), auxiliary: area.u64(at + 16)), inode, &content)
            }
            if inode.root != 0 { report(.error, .mapping, "the extents are in the inode, and there is a tree", inode: inode.number) }
        default:
            walk(inode, kind: BlockLayout.Kind.extents, &content) { node, slot, content in
                checkExtent(Extent(key: node.key(slot), value: node.value(slot), auxiliary: node.auxiliary(slot)), inode, &content)
            }
        }
        if content.writtenEnd > Volume.pages(inode.size) { beyondEnd.append(inode.number) }
        if inode.isLink {
            let isMapped = inode.mapping == InodeLayout.Mapping.inline || content.firstExtent == 0 || !content.isWhole
            if inode.size == 0 || inode.size > UInt64(Volume.maximumPath) || !isMapped {
                report(.error, .size, "the symbolic link has \(inode.size) bytes\(isMapped ? "" : " and no block for them")", inode: inode.number)
            }
        }
    }

    private func checkExtent(_ extent: Extent, _ inode: Inode, _ content: inout Content) {
        guard let end = extent.soundEnd(geometry) else {
            content.isWhole = false
            return report(.error, .mapping, "an extent at index \(extent.index) lies outside the data area", block: extent.block, inode: inode.number)
        }
        if extent.index < content.end {
            report(.error, .mapping, "the extent at index \(extent.index) overlaps the one before it", block: extent.block, inode: inode.number)
        }
        content.end = max(content.end, end)
        if !extent.unwritten {
            content.writtenEnd = max(content.writtenEnd, end)
            let pages = Volume.pages(inode.size)
            if extent.index < pages { foundContent?(extent.block..<extent.block + (min(end, pages) - extent.index)) }
        }
        if content.firstExtent == nil { content.firstExtent = extent.index }
        _ = claim(extent.block, extent.count, inode: inode.number)
        content.blocks += extent.count
    }

    private func checkOrphanTable(_ inode: Inode, _ content: inout Content) {
        guard inode.isRegular, inode.mapping == InodeLayout.Mapping.tree else {
            return report(.error, .inode, "the orphan table is not one", inode: inode.number)
        }
        var entries: UInt64 = 0
        walk(inode, kind: BlockLayout.Kind.orphans, &content) { node, slot, _ in
            entries += 1
            orphans.append((node.key(slot), node.value(slot) >> OrphanKind.shift))
        }
        if content.isWhole && entries != inode.entries {
            report(.error, .entryCount, "holds \(entries) entries and says \(inode.entries)", inode: inode.number)
        }
        if !content.isWhole { orphansUnknown = true }
    }

    // MARK: Attributes

    private func checkAttributes(_ inode: Inode, _ content: inout Content) {
        if inode.attributeBlock == 0 { return }
        var stream: [UInt8] = []
        var total = 4
        var address = inode.attributeBlock
        var blocks = 0
        while address != 0 {
            guard geometry.isData(address), blocks <= Volume.attributeLimit / Volume.attributeBlockBytes else {
                content.isWhole = false
                return report(.error, .attributes, "the chain leaves the data area or has no end", block: address, inode: inode.number)
            }
            guard claim(address, 1, inode: inode.number), let block = readMetadata(address, kind: BlockLayout.Kind.attributes, inode: inode.number) else {
                content.isWhole = false
                return
            }
            content.blocks += 1
            if block.u64(BlockLayout.ownerAt) != inode.number {
                content.isWhole = false
                return report(.error, .attributes, "the block is inode \(block.u64(BlockLayout.ownerAt))'s", block: address, inode: inode.number)
            }
            if blocks == 0 { total = Int(block.u32(72)) }
            let wanted = min(Volume.attributeBlockBytes, max(0, total - stream.count))
            unsafe stream.append(contentsOf: UnsafeRawBufferPointer(start: block.pointer + 72, count: wanted))
            blocks += 1
            address = block.u64(64)
        }
        guard total >= 4, total <= Volume.attributeLimit + 4, stream.count == total,
            blocks == (total + Volume.attributeBlockBytes - 1) / Volume.attributeBlockBytes
        else { return report(.error, .attributes, "\(blocks) blocks hold \(total) bytes of attributes", block: inode.attributeBlock, inode: inode.number) }
        if let problem = VolumeChecker.attributeProblem(stream) {
            report(.error, .attributes, problem, block: inode.attributeBlock, inode: inode.number)
        }
    }

    /// What is wrong with the pairs of a stream, or nil.
    private static func attributeProblem(_ stream: [UInt8]) -> String? {
        var at = 4
        var names: Set<[UInt8]> = []
        while at < stream.count {
            guard at + 6 <= stream.count else { return "the last attribute is cut off" }
            let nameLength = Int(stream[at]) | Int(stream[at + 1]) << 8
            let valueLength = Int(stream[at + 2]) | Int(stream[at + 3]) << 8 | Int(stream[at + 4]) << 16 | Int(stream[at + 5]) << 24
            at += 6
            guard nameLength + valueLength <= stream.count - at else { return "an attribute is longer than all of them" }
            let name = Array(stream[at..<at + nameLength])
            if name.isEmpty || name.count > 255 || name.contains(0) { return "an attribute has an impossible name" }
            if !names.insert(name).inserted { return "the attribute \(String(decoding: name, as: UTF8.self)) is there twice" }
            at += nameLength + valueLength
        }
        return nil
    }
}
