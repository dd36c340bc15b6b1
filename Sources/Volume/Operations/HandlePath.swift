/// getcwd(2), and what readlink(2) says of /proc/self/fd/N: where an open file is. No permission is asked: the kernel, too, tells a process the way to what it has.
extension Volume {
    /// Names are found from the end of the path upwards, each by looking through the directory that holds it, in steps of bounded length; the text grows
    /// from the end of the buffer. What moves while it is looked for is looked for again. A file other than a directory is looked for where it was opened only: ENOENT if it has gone
    /// from there.
    func handlePath(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        let file: Inode
        if progress.target == 0 { file = try inode(description.inode, tx) } else { file = try directoryIfThere(progress.target, tx) }
        guard let memory = unsafe request.buffer, request.bufferLength > 0 else { throw .errno(Errno.range) }
        let buffer = unsafe Bytes(memory, count: request.bufferLength, writable: true)
        let taken = Int(progress.moved)
        if file.number == Superblock.rootInode {
            if taken > 0 {
                buffer.move(from: buffer.count - taken, to: 0, taken)
            } else {
                buffer.set(0, UInt8(ascii: "/"))
            }
            return Outcome(Int64(max(taken, 1)))
        }
        if file.links == 0 { throw .errno(Errno.noEntry) }
        let wanted = file.number
        let directory = try directoryIfThere(file.isDirectory ? file.parent : description.directory, tx)
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
        let attempts: UInt8 = file.isDirectory ? 8 : 2
        guard tx.nextProgress.phase < attempts else { throw .errno(Errno.noEntry) }
        tx.nextProgress = Progress()
        tx.nextProgress.phase = progress.phase + 1
        return .more
    }

    /// A directory of whose number nothing is certain but that it was one.
    private func directoryIfThere(_ number: UInt64, _ tx: Transaction) throws(Stop) -> Inode {
        guard geometry.isInode(number) else { throw .errno(Errno.noEntry) }
        let (block, offset) = geometry.location(ofInode: number)
        let directory = Inode(number: number, cell: try tx.read(block, kind: BlockLayout.Kind.inodes, offset: offset, length: InodeLayout.size))
        guard directory.isDirectory, directory.links > 0 else { throw .errno(Errno.noEntry) }
        return directory
    }
}
