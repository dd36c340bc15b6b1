/// Directories: trees of (name hash → inode), names in the leaves. `.` and `..` are not stored: the inode says its parent.
///
/// A key is 55 bits of SipHash-1-3 (key: the superblock's) over the name, then 8 bits that tell names of equal hash apart. Keys are the
/// `readdir` cookies: an entry keeps its place as long as it exists, whatever happens around it.
enum NameHash {
    static let collisionBits: UInt64 = 0xFF

    @inline(__always) private static func round(_ v0: inout UInt64, _ v1: inout UInt64, _ v2: inout UInt64, _ v3: inout UInt64) {
        v0 = v0 &+ v1
        v1 = (v1 &<< 13 | v1 &>> 51) ^ v0
        v0 = v0 &<< 32 | v0 &>> 32
        v2 = v2 &+ v3
        v3 = (v3 &<< 16 | v3 &>> 48) ^ v2
        v0 = v0 &+ v3
        v3 = (v3 &<< 21 | v3 &>> 43) ^ v0
        v2 = v2 &+ v1
        v1 = (v1 &<< 17 | v1 &>> 47) ^ v2
        v2 = v2 &<< 32 | v2 &>> 32
    }

    /// SipHash-1-3 (Aumasson and Bernstein; one compression round, three finalization rounds).
    static func sipHash(_ key: (UInt64, UInt64), _ bytes: UnsafeRawPointer, _ count: Int) -> UInt64 {
        var v0 = key.0 ^ 0x736f_6d65_7073_6575
        var v1 = key.1 ^ 0x646f_7261_6e64_6f6d
        var v2 = key.0 ^ 0x6c79_6765_6e65_7261
        var v3 = key.1 ^ 0x7465_6462_7974_6573
        var at = 0
        while at &+ 8 <= count {
            let word = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            v3 ^= word
            round(&v0, &v1, &v2, &v3)
            v0 ^= word
            at &+= 8
        }
        var last = UInt64(truncatingIfNeeded: count) << 56
        let rest = count &- at
        if rest >= 4 {
            // Two overlapping words hold the four to seven bytes that are left.
            let low = unsafe UInt64(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
            let high = unsafe UInt64(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self)))
            last |= low | high &<< UInt64(truncatingIfNeeded: (rest &- 4) &* 8)
        } else {
            var shift: UInt64 = 0
            while at < count {
                last |= UInt64(unsafe bytes.load(fromByteOffset: at, as: UInt8.self)) &<< shift
                shift &+= 8
                at &+= 1
            }
        }
        v3 ^= last
        round(&v0, &v1, &v2, &v3)
        v0 ^= last
        v2 ^= 0xFF
        round(&v0, &v1, &v2, &v3)
        round(&v0, &v1, &v2, &v3)
        round(&v0, &v1, &v2, &v3)
        return v0 ^ v1 ^ v2 ^ v3
    }

    /// The lowest key of names with this hash. Never 0: cookies 0 and 1 are `.` and `..`.
    @inline(__always) static func firstKey(_ key: (UInt64, UInt64), _ name: Name) -> UInt64 {
        let hash = unsafe sipHash(key, name.bytes, name.count) >> 9
        return max(hash, 1) << 8
    }
}

/// A file name: 1...255 bytes without `/` and NUL. The bytes belong to the request or to the resolver's buffer.
@safe package struct Name {
    let bytes: UnsafeRawPointer
    let count: Int
    @inline(__always) init(_ bytes: UnsafeRawPointer, _ count: Int) {
        unsafe self.bytes = bytes
        self.count = count
    }
}

struct DirectoryEntry {
    var inode: UInt64
    var key: UInt64
}

extension Volume {
    @inline(__always) func directoryTree(_ directory: Inode) -> Tree {
        Tree(owner: directory.number, kind: BlockLayout.Kind.directory, root: directory.root, goal: geometry.location(ofInode: directory.number).block)
    }

    /// The entry of that name, or nil.
    @inline(__always) func find(_ name: Name, in directory: Inode, _ tx: Transaction) throws(Stop) -> DirectoryEntry? {
        // While misses are forced, every look-up reads its blocks.
        if tx.forcedMiss < 0, let known = names.find(name, in: directory.number) { return known }
        return try findInTree(name, in: directory, tx)
    }

    private func findInTree(_ name: Name, in directory: Inode, _ tx: Transaction) throws(Stop) -> DirectoryEntry? {
        if directory.root == 0 { return nil }
        let tree = Tree(owner: directory.number, kind: BlockLayout.Kind.directory, root: directory.root)
        let first = NameHash.firstKey(superblock.hashKey, name)
        let leaf = try leaf(tree, first, tx)
        var slot = leaf.floor(first &- 1) &+ 1
        while slot < leaf.count {
            switch match(name, leaf, slot, first) {
            case .found(let entry):
                if tx.cellCount == 0 { names.enter(name, in: directory.number, entry) }
                return entry
            case .passed: return nil
            case .other: slot &+= 1
            }
        }
        return try findBehind(leaf, name, tree, first, tx)
    }

    private enum Match {
        case found(DirectoryEntry)
        /// A name of equal hash.
        case other
        /// Behind all names of this hash.
        case passed
    }

    @inline(__always) private func match(_ name: Name, _ leaf: Node, _ slot: Int, _ first: UInt64) -> Match {
        let key = leaf.key(slot)
        if key > first | NameHash.collisionBits { return .passed }
        let auxiliary = leaf.auxiliary(slot)
        guard Node.nameLength(auxiliary) == name.count, unsafe leaf.bytes.equals(Node.nameOffset(auxiliary), name.bytes, name.count) else { return .other }
        return .found(DirectoryEntry(inode: leaf.value(slot), key: key))
    }

    /// Names of equal hash may go on in the leaves that follow.
    @inline(never) private func findBehind(_ leaf: Node, _ name: Name, _ tree: Tree, _ first: UInt64, _ tx: Transaction) throws(Stop) -> DirectoryEntry? {
        if leaf.block == tree.root { return nil }
        var path = Tree.Path()
        var next = try lowerBound(tree, first, &path, tx)
        while let node = next {
            switch match(name, node, path.slots[0], first) {
            case .found(let entry): return entry
            case .passed: return nil
            case .other: next = try advance(tree, &path, tx)
            }
        }
        return nil
    }

    /// Adds an entry; the name must not be there. `directory` is a writable view.
    func addEntry(_ name: Name, inode: UInt64, type: UInt16, to directory: Inode, _ tx: Transaction) throws(Stop) {
        var tree = directoryTree(directory)
        let first = NameHash.firstKey(superblock.hashKey, name)
        var key = first
        if tree.root != 0 {
            var path = Tree.Path()
            var leaf = try lowerBound(tree, first, &path, tx)
            while let node = leaf, node.key(path.slots[0]) == key {
                if key == first | NameHash.collisionBits { throw .errno(Errno.noSpace) }
                key += 1
                leaf = try advance(tree, &path, tx)
            }
        }
        unsafe try insert(&tree, key: key, value: inode, auxiliary: UInt64(type >> 12) << 32, name: name.bytes, nameLength: name.count, tx)
        store(tree, in: directory)
        directory.entries += 1
    }

    func removeEntry(_ entry: DirectoryEntry, _ name: Name, from directory: Inode, _ tx: Transaction) throws(Stop) {
        names.forget(name, in: directory.number)
        var tree = directoryTree(directory)
        tree.mayUseReserve = true
        try remove(&tree, key: entry.key, tx)
        store(tree, in: directory)
        if directory.entries == 0 { throw damaged("entry count of directory \(directory.number)") }
        directory.entries -= 1
    }

    /// The entry names another inode from now on.
    func changeEntry(_ entry: DirectoryEntry, _ name: Name, inode: UInt64, type: UInt16, in directory: Inode, _ tx: Transaction) throws(Stop) {
        names.forget(name, in: directory.number)
        let tree = directoryTree(directory)
        var path = Tree.Path()
        let node = try writeNode(tree, try descend(tree, entry.key, &path, tx).block, tx)
        let slot = path.slots[0]
        guard slot >= 0, node.key(slot) == entry.key else { throw damaged("directory \(directory.number)") }
        node.setSlot(slot, key: node.key(slot), value: inode, auxiliary: node.auxiliary(slot) & 0xFFFF_FFFF | UInt64(type >> 12) << 32)
    }

    /// Root and node count of a changed tree go into the inode; a directory's size is its nodes'.
    func store(_ tree: Tree, in inode: Inode) {
        inode.root = tree.root
        // A hostile count must not fall below zero.
        inode.blocks = UInt64(max(0, Int(inode.blocks) + tree.nodes))
        if inode.isDirectory { inode.size = inode.blocks * UInt64(BlockLayout.size) }
    }
}
