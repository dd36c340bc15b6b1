/// The one B+tree: extents of files, entries of directories, the orphan table.
///
/// Insertion splits from the leaf up; removal frees a node when it is empty and a root when it has one child left (free at empty: nodes are not
/// merged). Children's levels are checked on the way down, so that a hostile image cannot send a walk in circles.
/// A tree value is a copy of what its inode says; after a change the caller stores `root` and adds `nodes` to the inode's blocks.
struct Tree {
    let owner: UInt64
    let kind: UInt8
    var root: UInt64
    /// Nodes allocated minus freed since this value was made.
    var nodes = 0
    /// Where new nodes should lie.
    var goal: UInt64 = 0
    /// Allocation for work that frees or finishes: may use the system's reserve.
    var mayUseReserve = false

    init(owner: UInt64, kind: UInt8, root: UInt64, goal: UInt64 = 0) {
        self.owner = owner
        self.kind = kind
        self.root = root
        self.goal = goal
    }

    /// Nodes from the root to a leaf with the slot taken in each; level 0 is the leaf.
    struct Path {
        var depth = 0
        var blocks = InlineArray<8, UInt64>(repeating: 0)
        var slots = InlineArray<8, Int>(repeating: 0)
    }
}

extension Volume {
    @inline(__always) func readNode(_ tree: Tree, _ block: UInt64, level: Int?, _ tx: Transaction) throws(Stop) -> Node {
        let node = Node(block: block, bytes: try tx.read(block, kind: tree.kind))
        if node.owner != tree.owner || (level != nil && node.level != level) { throw damaged("tree node \(block) belongs elsewhere") }
        return node
    }

    func writeNode(_ tree: Tree, _ block: UInt64, _ tx: Transaction) throws(Stop) -> Node {
        Node(block: block, bytes: try tx.write(block, kind: tree.kind))
    }

    /// Walks to the leaf that holds, or would hold, `key`. The path's leaf slot is the last one with a key of at most `key`, or -1.
    @inline(__always) func descend(_ tree: Tree, _ key: UInt64, _ path: inout Tree.Path, _ tx: Transaction) throws(Stop) -> Node {
        var node = try readNode(tree, tree.root, level: nil, tx)
        path.depth = node.level + 1
        while true {
            let level = node.level
            path.blocks[level] = node.block
            let slot = node.floor(key)
            if level == 0 {
                path.slots[0] = slot
                return node
            }
            path.slots[level] = max(slot, 0)
            node = try readNode(tree, node.value(max(slot, 0)), level: level - 1, tx)
        }
    }

    /// The leaf that holds, or would hold, `key`, without the way to it.
    @inline(__always) func leaf(_ tree: Tree, _ key: UInt64, _ tx: Transaction) throws(Stop) -> Node {
        var node = try readNode(tree, tree.root, level: nil, tx)
        while node.level > 0 { node = try readNode(tree, node.value(max(node.floor(key), 0)), level: node.level &- 1, tx) }
        return node
    }

    /// Moves the path to the next leaf slot; nil at the end.
    func advance(_ tree: Tree, _ path: inout Tree.Path, _ tx: Transaction) throws(Stop) -> Node? {
        var level = 0
        var last: UInt64?
        while level < path.depth {
            let node = try readNode(tree, path.blocks[level], level: level, tx)
            if level == 0 && path.slots[0] >= 0 { last = node.key(path.slots[0]) }
            path.slots[level] += 1
            if path.slots[level] < node.count {
                var current = node
                var below = level
                while below > 0 {
                    current = try readNode(tree, current.value(path.slots[below]), level: below - 1, tx)
                    below -= 1
                    path.blocks[below] = current.block
                    path.slots[below] = 0
                }
                // On a hostile volume nodes may lead to each other: a walk ends because its keys ascend.
                if let last, current.key(path.slots[0]) <= last { throw damaged("keys of the tree of inode \(tree.owner)") }
                return current
            }
            level += 1
        }
        return nil
    }

    /// Moves a path whose leaf has no key as low as was looked for (slot -1) to the last slot before that leaf; nil: there is none.
    func retreat(_ tree: Tree, _ path: inout Tree.Path, _ tx: Transaction) throws(Stop) -> Node? {
        var level = 1
        while level < path.depth, path.slots[level] == 0 { level += 1 }
        guard level < path.depth else { return nil }
        path.slots[level] -= 1
        var current = try readNode(tree, path.blocks[level], level: level, tx)
        while level > 0 {
            current = try readNode(tree, current.value(path.slots[level]), level: level - 1, tx)
            level -= 1
            path.blocks[level] = current.block
            path.slots[level] = current.count - 1
        }
        return current
    }

    /// The first slot with a key of at least `key`: its leaf, with the path on it; nil: none.
    func lowerBound(_ tree: Tree, _ key: UInt64, _ path: inout Tree.Path, _ tx: Transaction) throws(Stop) -> Node? {
        if tree.root == 0 { return nil }
        let leaf = try descend(tree, key, &path, tx)
        if path.slots[0] >= 0 && leaf.key(path.slots[0]) == key { return leaf }
        let next = try advance(tree, &path, tx)
        // On a hostile volume the leaf behind may hold lower keys: who goes on from key to key would never end.
        if let next, next.key(path.slots[0]) < key { throw damaged("keys of the tree of inode \(tree.owner)") }
        return next
    }

    // MARK: Insertion

    /// Adds a slot. The key must not be there.
    func insert(
        _ tree: inout Tree, key: UInt64, value: UInt64, auxiliary: UInt64, name: UnsafeRawPointer? = nil, nameLength: Int = 0,
        _ tx: Transaction
    ) throws(Stop) {
        if tree.root == 0 {
            let node = try freshNode(&tree, level: 0, tx)
            tree.root = node.block
            unsafe place(node, slot: 0, key: key, value: value, auxiliary: auxiliary, name: name, nameLength: nameLength)
            return
        }
        var path = Tree.Path()
        _ = try descend(tree, key, &path, tx)
        if path.slots[0] < 0 {
            // A key below all others: the separators on the way follow it, or a later split of this leaf would come out of order.
            for level in 1..<max(1, path.depth) where try readNode(tree, path.blocks[level], level: level, tx).key(0) > key {
                let node = try writeNode(tree, path.blocks[level], tx)
                node.setSlot(0, key: key, value: node.value(0), auxiliary: 0)
            }
        }
        try unsafe insert(&tree, &path, level: 0, key: key, value: value, auxiliary: auxiliary, name: name, nameLength: nameLength, tx)
    }

    private func insert(
        _ tree: inout Tree, _ path: inout Tree.Path, level: Int, key: UInt64, value: UInt64, auxiliary: UInt64, name: UnsafeRawPointer?,
        nameLength: Int, _ tx: Transaction
    ) throws(Stop) {
        let node = try writeNode(tree, path.blocks[level], tx)
        let slot = node.floor(key) + 1
        if slot > 0 && node.key(slot - 1) == key { throw damaged("tree node \(node.block) has the new key already") }
        if makeRoom(node, nameLength) {
            unsafe place(node, slot: slot, key: key, value: value, auxiliary: auxiliary, name: name, nameLength: nameLength)
            return
        }
        let right = try freshNode(&tree, level: level, tx)
        // Ascending insertion (appends) leaves full nodes behind; anything else halves.
        let from = slot == node.count ? node.count : splitPoint(node)
        moveTail(of: node, from: from, to: right)
        let target = slot > from || from == node.count && slot == node.count ? right : node
        let position = target.floor(key) + 1
        _ = makeRoom(target, nameLength)
        unsafe place(target, slot: position, key: key, value: value, auxiliary: auxiliary, name: name, nameLength: nameLength)
        let separator = right.key(0)
        if level + 1 == path.depth {
            guard level + 2 <= Node.maximumDepth else { throw .errno(Errno.tooBig) }
            let root = try freshNode(&tree, level: level + 1, tx)
            unsafe place(root, slot: 0, key: node.key(0), value: node.block, auxiliary: 0, name: nil, nameLength: 0)
            unsafe place(root, slot: 1, key: separator, value: right.block, auxiliary: 0, name: nil, nameLength: 0)
            tree.root = root.block
            if tree.kind == BlockLayout.Kind.extents { deepestExtents = max(deepestExtents, level + 2) }
            if tree.kind == BlockLayout.Kind.directory { deepestDirectory = max(deepestDirectory, level + 2) }
        } else {
            try unsafe insert(&tree, &path, level: level + 1, key: separator, value: right.block, auxiliary: 0, name: nil, nameLength: 0, tx)
        }
    }

    private func freshNode(_ tree: inout Tree, level: Int, _ tx: Transaction) throws(Stop) -> Node {
        let block = try allocateMetadataBlock(goal: tree.goal, mayUseReserve: tree.mayUseReserve, tx)
        let node = Node(block: block, bytes: try tx.fresh(block, kind: tree.kind, owner: tree.owner))
        node.initialize(level: level)
        tree.nodes += 1
        return node
    }

    /// True when one more slot with such a name fits; the name heap is compacted where that is what it takes.
    private func makeRoom(_ node: Node, _ nameLength: Int) -> Bool {
        let count = node.count
        if count >= configuration.treeFanout { return false }
        let needed = Node.slotSize + nameLength
        let slotsEnd = node.slotAt(count)
        if slotsEnd + needed <= node.heap { return true }
        if node.level > 0 || node.heap == BlockLayout.size { return false }
        var live = 0
        for slot in 0..<count { live += Node.nameLength(node.auxiliary(slot)) }
        if live == 0 || slotsEnd + needed + live > BlockLayout.size { return false }
        compact(node)
        return true
    }

    /// Rewrites the name heap without its holes.
    private func compact(_ node: Node) {
        unsafe withUnsafeTemporaryAllocation(byteCount: BlockLayout.size, alignment: 8) { copy in
            unsafe copy.baseAddress!.copyMemory(from: node.bytes.pointer, byteCount: BlockLayout.size)
            let old = unsafe Node(block: node.block, bytes: Bytes(copy.baseAddress!, count: BlockLayout.size, writable: false))
            var heap = BlockLayout.size
            for slot in 0..<old.count {
                let auxiliary = old.auxiliary(slot)
                let length = Node.nameLength(auxiliary)
                if length == 0 { continue }
                heap -= length
                node.bytes.copy(heap, from: old.name(slot))
                node.setSlot(slot, key: old.key(slot), value: old.value(slot), auxiliary: auxiliary & ~0xFFFF | UInt64(heap))
            }
            node.heap = heap
        }
    }

    private func place(
        _ node: Node, slot: Int, key: UInt64, value: UInt64, auxiliary: UInt64, name: UnsafeRawPointer?, nameLength: Int
    ) {
        let count = node.count
        node.bytes.move(from: node.slotAt(slot), to: node.slotAt(slot + 1), (count - slot) * Node.slotSize)
        var auxiliary = auxiliary
        if let name = unsafe name, nameLength > 0 {
            let heap = node.heap - nameLength
            unsafe node.bytes.copy(heap, from: name, nameLength)
            node.heap = heap
            auxiliary = auxiliary & ~0xFFFF_FFFF | UInt64(heap) | UInt64(nameLength) << 16
        }
        node.setSlot(slot, key: key, value: value, auxiliary: auxiliary)
        node.count = count + 1
    }

    /// The slot at which the upper half (by bytes) begins; at least 1, at most count - 1.
    private func splitPoint(_ node: Node) -> Int {
        let count = node.count
        if node.heap == BlockLayout.size { return max(1, count / 2) }
        var total = 0
        for slot in 0..<count { total += Node.slotSize + Node.nameLength(node.auxiliary(slot)) }
        var below = 0
        for slot in 0..<count {
            below += Node.slotSize + Node.nameLength(node.auxiliary(slot))
            if below * 2 >= total { return min(max(slot + 1, 1), count - 1) }
        }
        return max(1, count / 2)
    }

    private func moveTail(of node: Node, from: Int, to right: Node) {
        let count = node.count
        for slot in from..<count {
            let auxiliary = node.auxiliary(slot)
            let length = node.level == 0 && node.bytes.u8(BlockLayout.kindAt) == BlockLayout.Kind.directory ? Node.nameLength(auxiliary) : 0
            let name = length > 0 ? node.name(slot) : nil
            unsafe place(right, slot: slot - from, key: node.key(slot), value: node.value(slot), auxiliary: auxiliary, name: name?.pointer, nameLength: length)
        }
        node.count = from
    }

    // MARK: Removal and change

    /// Removes the slot that the path's leaf stands on.
    func remove(_ tree: inout Tree, key: UInt64, _ tx: Transaction) throws(Stop) {
        var path = Tree.Path()
        let leaf = try descend(tree, key, &path, tx)
        guard path.slots[0] >= 0, leaf.key(path.slots[0]) == key else { throw damaged("a tree of inode \(tree.owner) has lost a key") }
        var level = 0
        while true {
            let node = try writeNode(tree, path.blocks[level], tx)
            let (slot, count) = (path.slots[level], node.count)
            node.bytes.move(from: node.slotAt(slot + 1), to: node.slotAt(slot), (count - slot - 1) * Node.slotSize)
            node.count = count - 1
            if count > 1 { break }
            try freeNode(&tree, node.block, tx)
            level += 1
            if level == path.depth {
                tree.root = 0
                return
            }
        }
        // A root with a single child is one level too many.
        while true {
            let root = try readNode(tree, tree.root, level: nil, tx)
            if root.level == 0 || root.count > 1 { return }
            let child = root.value(0)
            try freeNode(&tree, root.block, tx)
            tree.root = child
        }
    }

    private func freeNode(_ tree: inout Tree, _ block: UInt64, _ tx: Transaction) throws(Stop) {
        try release(Extent(index: 0, block: block, count: 1, unwritten: false), isMetadata: true, tx)
        tree.nodes -= 1
    }
}
