/// What makes inodes and names: create, mkdir, mknod, symlink, link.
extension Volume {
    static let maximumNodeLinks: UInt32 = 1_000_000_000

    /// A new inode, without a name. The group is the parent's where its set-group-id bit says so, and a directory inherits the bit.
    /// - Parameter mask: permissions that `mode` asks for and the inode does not get (umask).
    func makeInode(in parent: Inode, mode: UInt16, mask: UInt16, credentials: Credentials, _ tx: Transaction) throws(Stop) -> Inode {
        if isReadOnly { throw .errno(Errno.readOnly) }
        let inode = try allocateInode(near: parent.number, isDirectory: mode & Mode.typeMask == Mode.directory, tx)
        var mode = mode
        var group = credentials.group
        if parent.mode & Mode.setGroup != 0 {
            group = parent.group
            if mode & Mode.typeMask == Mode.directory {
                mode |= Mode.setGroup
            } else if mode & Mode.setGroup != 0 && mode & 0o010 != 0 && !credentials.isPrivileged && !credentials.isMember(group) {
                mode &= ~Mode.setGroup
            }
        }
        // The mask comes last, as in Linux: whether a set-group-ID bit stays is decided by what was asked for.
        inode.initialize(mode: mode & ~mask, user: credentials.user, group: group, now: now, generation: inode.generation &+ 1)
        return inode
    }

    /// A new inode with its first name. The parent's permission has been checked.
    func createInode(in parent: Inode, name: Name, mode: UInt16, mask: UInt16 = 0, credentials: Credentials, _ tx: Transaction) throws(Stop) -> Inode {
        let inode = try makeInode(in: parent, mode: mode, mask: mask, credentials: credentials, tx)
        inode.links = mode & Mode.typeMask == Mode.directory ? 2 : 1
        let directory = try inodeForWrite(parent.number, tx)
        try addEntry(name, inode: inode.number, type: mode & Mode.typeMask, to: directory, tx)
        try touch(directory, tx)
        return inode
    }

    /// A directory whose entries have changed.
    func touch(_ directory: Inode, _ tx: Transaction) throws(Stop) {
        directory.modificationTime = now
        directory.changeTime = now
        try syncTimes(directory, tx)
    }

    /// Resolves the path of a new entry: the name must be free and the parent writable. A slash is for directories only, and never follows a link.
    private func resolveNew(_ request: Request, second: Bool = false, directory: Bool, _ tx: Transaction) throws(Stop) -> (Resolution, Inode) {
        let resolution = try resolve(request, second: second, follow: false, slash: .keepsEntry, tx)
        if resolution.file != nil { throw .errno(Errno.exists) }
        if resolution.wantsDirectory && !directory { throw resolution.absence }
        return (resolution, try requireRoom(for: resolution, credentials(request)))
    }

    func makeDirectory(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let (resolution, parent) = try resolveNew(request, directory: true, tx)
        guard parent.links < Volume.maximumNodeLinks else { throw .errno(Errno.tooManyLinks) }
        let inode = try createInode(
            in: parent, name: resolution.name, mode: Mode.directory | UInt16(request.mode & 0o1777), mask: request.modeMask,
            credentials: credentials(request), tx)
        inode.parent = parent.number
        try inodeForWrite(parent.number, tx).links += 1
        return Outcome(0, inode.number)
    }

    func makeNode(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        var type = UInt16(truncatingIfNeeded: request.mode) & Mode.typeMask
        if type == 0 { type = Mode.regular }
        guard type == Mode.regular || type == Mode.fifo || type == Mode.socket || type == Mode.blockDevice || type == Mode.characterDevice else {
            throw .errno(type == Mode.directory ? Errno.perm : Errno.invalid)
        }
        let (resolution, parent) = try resolveNew(request, directory: false, tx)
        let isDevice = type == Mode.blockDevice || type == Mode.characterDevice
        if isDevice && !credentials(request).isPrivileged { throw .errno(Errno.perm) }
        let inode = try createInode(
            in: parent, name: resolution.name, mode: type | UInt16(request.mode & 0o7777), mask: request.modeMask, credentials: credentials(request), tx)
        if isDevice { inode.device = request.argument }
        return Outcome(0, inode.number)
    }

    func makeSymbolicLink(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        guard let target = unsafe request.path2, request.path2Length > 0 else { throw .errno(Errno.noEntry) }
        guard request.path2Length <= Volume.maximumPath else { throw .errno(Errno.nameTooLong) }
        let (resolution, parent) = try resolveNew(request, directory: false, tx)
        let inode = try createInode(in: parent, name: resolution.name, mode: Mode.link | 0o777, credentials: credentials(request), tx)
        let count = request.path2Length
        inode.size = UInt64(count)
        if count <= InodeLayout.inlineSize {
            unsafe inode.inline.copy(0, from: target, count)
            inode.inlineCount = UInt32(count)
            return Outcome(0, inode.number)
        }
        // A long target has a block of its own, which travels in the record: the link is whole or not there.
        try requireSpace(1, tx)
        let run = try allocateRun(goal: geometry.location(ofInode: inode.number).block, wanted: 1, tx)
        try addExtent(inode, Extent(index: 0, block: run.block, count: 1, unwritten: false), tx)
        inode.blocks += 1
        let frame = try tx.newFrame()
        tx.publications.append(Transaction.Publication(frame: frame, owner: inode.number, index: 0, block: run.block, flags: 0))
        let memory = unsafe cache.pointer(frame)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size)
        unsafe memory.copyMemory(from: target, byteCount: count)
        tx.writebacks.append(Transaction.Writeback(frame: frame, block: run.block, ordered: false))
        return Outcome(0, inode.number)
    }

    func readLink(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let file = try resolveExisting(request, follow: false, tx)
        guard file.isLink else { throw .errno(request.pathLength == 0 ? Errno.noEntry : Errno.invalid) }
        guard request.bufferLength > 0, let buffer = unsafe request.buffer else { throw .errno(Errno.invalid) }
        let text = unsafe pathBuffers.memory + 4096
        try unsafe readLink(file, into: text, tx)
        let count = min(Int(min(file.size, UInt64(Volume.maximumPath))), request.bufferLength)
        unsafe buffer.copyMemory(from: text, byteCount: count)
        return Outcome(Int64(count))
    }

    /// The target's text, `size` bytes of it (at most 4095).
    func readLink(_ link: Inode, into buffer: UnsafeMutableRawPointer, _ tx: Transaction) throws(Stop) {
        let count = Int(min(link.size, UInt64(Volume.maximumPath)))
        if link.mapping == InodeLayout.Mapping.inline {
            guard Int(link.inlineCount) == count else { throw damaged("symbolic link \(link.number)") }
            unsafe buffer.copyMemory(from: link.inline.pointer, byteCount: count)
            return
        }
        let frame = try tx.data(link.number, 0)
        if frame >= 0 {
            unsafe buffer.copyMemory(from: cache.pointer(frame), byteCount: count)
            return
        }
        guard let extent = try lookup(link, 0, tx).extent else { throw damaged("symbolic link \(link.number)") }
        tx.miss(link.number, 0, block: extent.block, run: 1)
        throw .missing
    }

    /// link(2); AT_SYMLINK_FOLLOW 0x400, AT_EMPTY_PATH 0x1000.
    func link(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let file = try resolveExisting(request, follow: request.flags & 0x400 != 0, emptyIsHandle: request.flags & 0x1000 != 0, tx)
        let (resolution, parent) = try resolveNew(request, second: true, directory: false, tx)
        if file.isDirectory { throw .errno(Errno.perm) }
        guard file.links < Volume.maximumNodeLinks else { throw .errno(Errno.tooManyLinks) }
        let wasOrphan = file.links == 0
        // Only a file that was made without a name (O_TMPFILE) may get its first one.
        if wasOrphan && request.flags & 0x1400 == 0 { throw .errno(Errno.noEntry) }
        let inode = try inodeForWrite(file.number, tx)
        inode.links += 1
        inode.changeTime = now
        if wasOrphan {
            try removeOrphan(inode.number, tx)
            try coreForWrite(inode, tx).flags &= ~CoreInode.Flag.orphan
        }
        if core(inode.number, tx) != nil { try coreForWrite(inode, tx).changeTime = now }
        let directory = try inodeForWrite(parent.number, tx)
        try addEntry(resolution.name, inode: inode.number, type: inode.type, to: directory, tx)
        try touch(directory, tx)
        return Outcome(0)
    }
}
