/// getdents64(2). The description's offset is a cookie: 0 `.`, 1 `..`, else one more than the key of the last entry returned.
extension Volume {
    func readDirectory(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        let directory = try inode(description.inode, tx)
        guard directory.isDirectory else { throw .errno(Errno.notDirectory) }
        guard let memory = unsafe request.buffer else { throw .errno(Errno.invalid) }
        if directory.links == 0 { throw .errno(Errno.noEntry) }
        let buffer = unsafe Bytes(memory, count: request.bufferLength, writable: true)
        var cookie = UInt64(max(0, description.offset))
        var at = 0
        while cookie < 2 {
            let name: StaticString = cookie == 0 ? "." : ".."
            let inode = cookie == 0 ? directory.number : directory.number == Superblock.rootInode ? directory.number : directory.parent
            guard unsafe emit(buffer, &at, inode: inode, next: cookie + 1, type: 4, name: UnsafeRawPointer(name.utf8Start), length: Int(cookie) + 1) else { break }
            cookie += 1
        }
        if cookie >= 2 && directory.root != 0 {
            let tree = directoryTree(directory)
            var path = Tree.Path()
            var leaf = try lowerBound(tree, cookie, &path, tx)
            // What one call returns is bounded by the buffer; what one attempt reads, by the cache.
            var leaves = 0
            while let node = leaf {
                let slot = path.slots[0]
                let auxiliary = node.auxiliary(slot)
                let name = node.name(slot)
                guard unsafe emit(
                    buffer, &at, inode: node.value(slot), next: node.key(slot) &+ 1, type: UInt8(truncatingIfNeeded: auxiliary >> 32),
                    name: name.pointer, length: name.count)
                else { break }
                cookie = node.key(slot) &+ 1
                if slot + 1 == node.count {
                    leaves += 1
                    if leaves >= max(1, cache.count / 16) { break }
                }
                leaf = try advance(tree, &path, tx)
            }
            if at == 0 && leaf != nil { throw .errno(Errno.invalid) }
        } else if at == 0 && cookie < 2 {
            throw .errno(Errno.invalid)
        }
        let place = Int64(clamping: cookie)
        if place != description.offset { try descriptionForWrite(description.slot, tx).offset = place }
        if at > 0 { try touchAccessTime(Int(description.core), tx) }
        return Outcome(Int64(at))
    }

    /// Appends a linux_dirent64: u64 inode, i64 next cookie, u16 length, u8 type, name, NUL, padding to 8. False: no room.
    private func emit(
        _ buffer: Bytes, _ at: inout Int, inode: UInt64, next: UInt64, type: UInt8, name: UnsafeRawPointer, length: Int
    ) -> Bool {
        let size = (19 + length + 1 + 7) & ~7
        guard at + size <= buffer.count else { return false }
        buffer.set(at, inode)
        buffer.set(at + 8, next)
        buffer.set(at + 16, UInt16(size))
        buffer.set(at + 18, type)
        buffer.zero(at + 19 + length, size - 19 - length)
        unsafe buffer.copy(at + 19, from: name, length)
        at += size
        return true
    }
}
