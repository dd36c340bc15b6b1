/// getcwd(2): where an open directory is. No permission is asked: the kernel, too, tells a process the way to where it is.
extension Volume {
    /// Names are found from the end of the path upwards, each by looking through the directory that holds it, in steps of bounded length; the text grows
    /// from the end of the buffer. A directory that moves while it is looked for is looked for again.
    func directoryPath(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        var directory = try inode(progress.target == 0 ? description.inode : progress.target, tx)
        guard directory.isDirectory else { throw .errno(Errno.notDirectory) }
        guard let memory = unsafe request.buffer, request.bufferLength > 0 else { throw .errno(Errno.range) }
        let buffer = unsafe Bytes(memory, count: request.bufferLength, writable: true)
        let taken = Int(progress.moved)
        if directory.number == Superblock.rootInode {
            if taken > 0 {
                buffer.move(from: buffer.count - taken, to: 0, taken)
            } else {
                buffer.set(0, UInt8(ascii: "/"))
            }
            return Outcome(Int64(max(taken, 1)))
        }
        if directory.links == 0 { throw .errno(Errno.noEntry) }
        let wanted = directory.number
        directory = try inode(directory.parent, tx)
        tx.nextProgress.phase = max(progress.phase, 1)
        let tree = directoryTree(directory)
        var path = Tree.Path()
        var leaf = try lowerBound(tree, progress.done, &path, tx)
        var leaves = 0
        while let node = leaf {
            let slot = path.slots[0]
            if node.value(slot) == wanted {
                let name = node.name(slot)
                let length = taken + name.count + 1
                guard length <= buffer.count else { throw .errno(Errno.range) }
                buffer.set(buffer.count - length, UInt8(ascii: "/"))
                buffer.copy(buffer.count - length + 1, from: name)
                tx.nextProgress.moved = UInt64(length)
                tx.nextProgress.target = directory.number
                tx.nextProgress.done = 0
                return .more
            }
            if slot + 1 == node.count {
                leaves += 1
                if leaves >= max(1, cache.count / 16) {
                    tx.nextProgress.done = node.key(slot) + 1
                    return .more
                }
            }
            leaf = try advance(tree, &path, tx)
        }
        let attempts: UInt8 = 8
        guard tx.nextProgress.phase < attempts else { throw .errno(Errno.noEntry) }
        tx.nextProgress = Progress()
        tx.nextProgress.phase = progress.phase + 1
        return .more
    }
}
