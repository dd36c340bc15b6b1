/// Where a file's blocks are: up to 15 extents in the inode, then a tree.
///
/// All functions take the inode's view; those that change it, a writable one. Extents do not overlap, neighbours that continue each other on the
/// device are merged, and `inode.blocks` counts data blocks and tree nodes.
extension Volume {
    /// The extent that holds `index`, or nil; and where the next one begins when nil (`.max`: nowhere).
    func lookup(_ inode: Inode, _ index: UInt64, _ tx: Transaction) throws(Stop) -> (extent: Extent?, next: UInt64) {
        switch inode.mapping {
        case InodeLayout.Mapping.extents:
            var next = UInt64.max
            for slot in 0..<Int(inode.inlineCount) {
                let extent = try inlineExtent(inode, slot)
                if index < extent.index {
                    next = extent.index
                    break
                }
                if index < extent.end { return (extent, extent.end) }
            }
            return (nil, next)
        case InodeLayout.Mapping.tree:
            if inode.root == 0 { return (nil, .max) }
            let tree = extentTree(inode)
            var path = Tree.Path()
            let leaf = try descend(tree, index, &path, tx)
            if path.slots[0] >= 0 {
                let extent = try treeExtent(leaf, path.slots[0])
                if index < extent.end { return (extent, extent.end) }
            } else {
                // What begins in the leaf before may reach beyond the key by which the two part, where this leaf's first extents have gone.
                var before = path
                if let leaf = try retreat(tree, &before, tx), case let extent = try treeExtent(leaf, before.slots[0]), index < extent.end {
                    guard extent.index <= index else { throw damaged("extents of inode \(inode.number)") }
                    return (extent, extent.end)
                }
            }
            guard let next = try advance(tree, &path, tx) else { return (nil, .max) }
            guard next.key(path.slots[0]) > index else { throw damaged("extents of inode \(inode.number)") }
            return (nil, next.key(path.slots[0]))
        default: return (nil, .max)
        }
    }

    func extentTree(_ inode: Inode) -> Tree {
        Tree(owner: inode.number, kind: BlockLayout.Kind.extents, root: inode.root, goal: geometry.location(ofInode: inode.number).block)
    }

    private func inlineExtent(_ inode: Inode, _ slot: Int) throws(Stop) -> Extent {
        let area = inode.inline
        let at = slot * Node.slotSize
        let extent = Extent(key: area.u64(at), value: area.u64(at + 8), auxiliary: area.u64(at + 16))
        guard extent.soundEnd(geometry) != nil else { throw damaged("extent \(slot) of inode \(inode.number)") }
        return extent
    }

    private func setInlineExtent(_ inode: Inode, _ slot: Int, _ extent: Extent) {
        let area = inode.inline
        let at = slot * Node.slotSize
        area.set(at, extent.index)
        area.set(at + 8, extent.block)
        area.set(at + 16, extent.auxiliary)
    }

    func treeExtent(_ leaf: Node, _ slot: Int) throws(Stop) -> Extent {
        let extent = Extent(key: leaf.key(slot), value: leaf.value(slot), auxiliary: leaf.auxiliary(slot))
        guard leaf.level == 0, extent.soundEnd(geometry) != nil else { throw damaged("extent in node \(leaf.block)") }
        return extent
    }

    private static func continues(_ a: Extent, _ b: Extent) -> Bool {
        a.end == b.index && a.block + a.count == b.block && a.unwritten == b.unwritten && a.count + b.count <= UInt64(UInt32.max)
    }

    /// Adds blocks to the file; no block of the range may be mapped. Does not count them in `inode.blocks`.
    func addExtent(_ inode: Inode, _ extent: Extent, _ tx: Transaction) throws(Stop) {
        if inode.mapping == InodeLayout.Mapping.inline {
            inode.mapping = InodeLayout.Mapping.extents
            inode.inlineCount = 0
            inode.inline.zero(0, InodeLayout.inlineSize)
        }
        if inode.mapping == InodeLayout.Mapping.extents {
            if try addInline(inode, extent) { return }
            try moveToTree(inode, tx)
        }
        var tree = extentTree(inode)
        tree.mayUseReserve = true
        if tree.root != 0 {
            var path = Tree.Path()
            let leaf = try descend(tree, extent.index, &path, tx)
            if path.slots[0] >= 0 {
                var before = try treeExtent(leaf, path.slots[0])
                if Volume.continues(before, extent) {
                    before.count += extent.count
                    let node = try writeNode(tree, leaf.block, tx)
                    node.setSlot(path.slots[0], key: before.index, value: before.block, auxiliary: before.auxiliary)
                    return
                }
            }
        }
        unsafe try insert(&tree, key: extent.index, value: extent.block, auxiliary: extent.auxiliary, tx)
        store(tree, in: inode)
    }

    private func addInline(_ inode: Inode, _ extent: Extent) throws(Stop) -> Bool {
        let count = Int(inode.inlineCount)
        var position = count
        while position > 0, try inlineExtent(inode, position - 1).index > extent.index { position -= 1 }
        if position > 0 {
            var before = try inlineExtent(inode, position - 1)
            if before.end > extent.index { throw damaged("extents of inode \(inode.number) overlap") }
            if Volume.continues(before, extent) {
                before.count += extent.count
                setInlineExtent(inode, position - 1, before)
                return true
            }
        }
        if count == InodeLayout.inlineExtents { return false }
        inode.inline.move(from: position * Node.slotSize, to: (position + 1) * Node.slotSize, (count - position) * Node.slotSize)
        setInlineExtent(inode, position, extent)
        inode.inlineCount = UInt32(count + 1)
        return true
    }

    private func moveToTree(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        var tree = Tree(owner: inode.number, kind: BlockLayout.Kind.extents, root: 0, goal: geometry.location(ofInode: inode.number).block)
        tree.mayUseReserve = true
        for slot in 0..<Int(inode.inlineCount) {
            let extent = try inlineExtent(inode, slot)
            unsafe try insert(&tree, key: extent.index, value: extent.block, auxiliary: extent.auxiliary, tx)
        }
        inode.mapping = InodeLayout.Mapping.tree
        inode.inlineCount = 0
        inode.inline.zero(0, InodeLayout.inlineSize)
        store(tree, in: inode)
    }

    /// Takes the mapping of [from, to) out of the file, at most `limit` extents and `blocks` blocks of it. `body` gets each piece (to free
    /// it, or to map it anew).
    /// - Returns: true where nothing of the range is left.
    func removeExtents(
        _ inode: Inode, from: UInt64, to: UInt64, limit: Int, blocks: UInt64, _ tx: Transaction, _ body: (Extent) throws(Stop) -> Void
    ) throws(Stop) -> Bool {
        var left = limit
        var budget = blocks
        while true {
            guard let (whole, isTree) = try firstExtent(inode, from: from, to: to, tx) else { return true }
            if left == 0 || budget == 0 { return false }
            left -= 1
            let start = max(whole.index, from)
            let end = start + min(min(whole.end, to) - start, budget)
            budget -= end - start
            let piece = Extent(index: start, block: whole.block + (start - whole.index), count: end - start, unwritten: whole.unwritten)
            try takeExtent(inode, whole.index, isTree, tx)
            if whole.index < start {
                try addExtent(inode, Extent(index: whole.index, block: whole.block, count: start - whole.index, unwritten: whole.unwritten), tx)
            }
            if whole.end > end {
                try addExtent(inode, Extent(index: end, block: whole.block + (end - whole.index), count: whole.end - end, unwritten: whole.unwritten), tx)
            }
            try body(piece)
        }
    }

    /// The first extent that has blocks in [from, to).
    private func firstExtent(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) -> (Extent, Bool)? {
        let isTree = inode.mapping == InodeLayout.Mapping.tree
        let (extent, next) = try lookup(inode, from, tx)
        if let extent { return (extent, isTree) }
        guard next < to, let found = try lookup(inode, next, tx).extent else { return nil }
        return (found, isTree)
    }

    private func takeExtent(_ inode: Inode, _ index: UInt64, _ isTree: Bool, _ tx: Transaction) throws(Stop) {
        if isTree {
            var tree = extentTree(inode)
            tree.mayUseReserve = true
            try remove(&tree, key: index, tx)
            store(tree, in: inode)
            return
        }
        let count = Int(inode.inlineCount)
        for slot in 0..<count where try inlineExtent(inode, slot).index == index {
            inode.inline.move(from: (slot + 1) * Node.slotSize, to: slot * Node.slotSize, (count - slot - 1) * Node.slotSize)
            inode.inline.zero((count - 1) * Node.slotSize, Node.slotSize)
            inode.inlineCount = UInt32(count - 1)
            return
        }
    }

    /// What one transaction frees at most: 16 extents, and blocks whose bitmap bits fill 32 cells.
    static let freeStepExtents = 16
    static let freeStepBlocks: UInt64 = 16_384

    /// Frees blocks of [from, to), as many as one transaction may. True where nothing is left.
    func freeExtents(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) -> Bool {
        try removeExtents(inode, from: from, to: to, limit: Volume.freeStepExtents, blocks: Volume.freeStepBlocks, tx) { (piece) throws(Stop) in
            try release(piece, isMetadata: false, tx)
            if inode.blocks < piece.count { throw damaged("block count of inode \(inode.number)") }
            inode.blocks -= piece.count
        }
    }
}
