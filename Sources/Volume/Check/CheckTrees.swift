/// Trees: nodes of the right kind, owner and level, keys where their parents lead to, every node reached once.
extension VolumeChecker {
    /// Walks an inode's tree in the order of its keys. Nodes are claimed and counted; `visit` gets each slot of each leaf.
    func walk(_ inode: Inode, kind: UInt8, _ content: inout Content, _ visit: (Node, Int, inout Content) -> Void) {
        if inode.root == 0 { return }
        guard geometry.isData(inode.root) else {
            content.isWhole = false
            return report(.error, .tree, "the root of the tree lies outside the data area", block: inode.root, inode: inode.number)
        }
        walk(inode.root, inode.number, kind, level: nil, lower: 0, upper: nil, &content, visit)
    }

    /// One node and what is below it. Its keys are in [lower, upper).
    private func walk(
        _ block: UInt64, _ owner: UInt64, _ kind: UInt8, level: Int?, lower: UInt64, upper: UInt64?, _ content: inout Content,
        _ visit: (Node, Int, inout Content) -> Void
    ) {
        guard claim(block, 1, inode: owner), let bytes = readMetadata(block, kind: kind, inode: owner) else {
            content.isWhole = false
            return
        }
        content.blocks += 1
        let found = Node(block: block, bytes: bytes)
        if found.owner != owner {
            content.isWhole = false
            return report(.error, .tree, "the node is inode \(found.owner)'s", block: block, inode: owner)
        }
        if let level, found.level != level {
            content.isWhole = false
            return report(.error, .tree, "the node has level \(found.level) where \(level) belongs", block: block, inode: owner)
        }
        // The reader's buffer is used again below: each level has a copy. `isSound` has bounded the level.
        let copy = unsafe nodes + found.level * BlockLayout.size
        unsafe copy.copyMemory(from: bytes.pointer, byteCount: BlockLayout.size)
        let node = unsafe Node(block: block, bytes: Bytes(copy, count: BlockLayout.size, writable: false))
        let count = node.count
        // Inside a node the keys ascend: the first and the last tell.
        if node.key(0) < lower || upper.map({ node.key(count - 1) >= $0 }) ?? false {
            report(.error, .tree, "the node holds keys that its parent does not lead to", block: block, inode: owner)
        }
        if node.level == 0 {
            for slot in 0..<count { visit(node, slot, &content) }
            return
        }
        if level == nil && count == 1 { report(.warning, .tree, "the root has a single child", block: block, inode: owner) }
        for slot in 0..<count {
            walk(
                node.value(slot), owner, kind, level: node.level - 1, lower: slot == 0 ? lower : node.key(slot),
                upper: slot + 1 < count ? node.key(slot + 1) : upper, &content, visit)
        }
    }

    // MARK: Directories

    func checkDirectory(_ inode: Inode, _ content: inout Content) {
        let number = inode.number
        if inode.mapping != InodeLayout.Mapping.inline || inode.inlineCount != 0 {
            report(.error, .mapping, "a directory has bytes or extents in its inode", inode: number)
        }
        var entries: UInt64 = 0
        var last = SameHash()
        walk(inode, kind: BlockLayout.Kind.directory, &content) { node, slot, _ in
            entries += 1
            checkEntry(node, slot, number, &last)
        }
        if !content.isWhole {
            namesUnknown = true
        } else if entries != inode.entries {
            report(.error, .entryCount, "holds \(entries) entries and says \(inode.entries)", inode: number)
        }
        if inode.size % UInt64(BlockLayout.size) != 0 { report(.error, .size, "a directory of \(inode.size) bytes", inode: number) }
    }

    /// Names whose hash is that of the last one: nearly always one.
    struct SameHash {
        var base: UInt64 = 0
        var names: [[UInt8]] = []
    }

    private func checkEntry(_ node: Node, _ slot: Int, _ directory: UInt64, _ last: inout SameHash) {
        let name = node.name(slot)
        let (key, target) = (node.key(slot), node.value(slot))
        let type = UInt8(truncatingIfNeeded: node.auxiliary(slot) >> 32)
        let base = key & ~NameHash.collisionBits
        if let problem = VolumeChecker.nameProblem(name) {
            report(.error, .entryName, problem, block: node.block, inode: directory)
        } else if unsafe NameHash.firstKey(superblock.hashKey, Name(name.pointer, name.count)) != base {
            report(.error, .entryName, "\(VolumeChecker.quoted(name)) is not under its own hash: it cannot be found", block: node.block, inode: directory)
        } else if base == last.base {
            let bytes = unsafe Array(UnsafeRawBufferPointer(start: name.pointer, count: name.count))
            if last.names.contains(bytes) {
                report(.error, .entryName, "\(VolumeChecker.quoted(name)) is there twice", block: node.block, inode: directory)
            }
            last.names.append(bytes)
        } else {
            last.base = base
            last.names.removeAll(keepingCapacity: true)
            unsafe last.names.append(Array(UnsafeRawBufferPointer(start: name.pointer, count: name.count)))
        }
        if target == Superblock.orphanInode || target == Superblock.rootInode {
            let what = target == Superblock.rootInode ? "the root" : "the orphan table"
            return report(.error, .danglingEntry, "\(VolumeChecker.quoted(name)) names \(what)", block: node.block, inode: directory)
        }
        guard let record = unsafe record(target) else {
            if !groups[geometry.group(ofInode: target)].isUnknown {
                report(.error, .danglingEntry, "\(VolumeChecker.quoted(name)) names inode \(target), which was never used", block: node.block, inode: directory)
            }
            return
        }
        if unsafe record.pointee.names == 0 {
            unsafe record.pointee.namedIn = directory
            unsafe record.pointee.namedType = type
        } else if unsafe record.pointee.namedType != type {
            report(.error, .entryType, "\(VolumeChecker.quoted(name)) has another type than another name of inode \(target)", block: node.block, inode: directory)
        }
        unsafe record.pointee.names &+= 1
    }

    private static func nameProblem(_ name: Bytes) -> String? {
        var dots = 0
        for at in 0..<name.count {
            let byte = name.u8(at)
            if byte == 0 || byte == 0x2F { return "a name holds a \(byte == 0 ? "zero byte" : "slash")" }
            if byte == 0x2E { dots += 1 }
        }
        return dots == name.count && dots <= 2 ? "an entry is called \(dots == 1 ? "." : "..")" : nil
    }

    private static func quoted(_ name: Bytes) -> String {
        unsafe "\"" + String(decoding: UnsafeRawBufferPointer(start: name.pointer, count: name.count), as: UTF8.self) + "\""
    }
}
