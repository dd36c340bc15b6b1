/// stat(2), chmod(2), chown(2), truncate(2), utimensat(2), access(2), statvfs(3).
extension Volume {
    /// AT_SYMLINK_NOFOLLOW.
    static let noFollow: UInt32 = 0x100
    /// AT_EMPTY_PATH.
    static let emptyPath: UInt32 = 0x1000

    /// Layout of the answer: struct stat of x86-64 Linux, 144 bytes.
    ///
    ///      0 u64 st_dev     8 u64 st_ino    16 u64 st_nlink   24 u32 st_mode   28 u32 st_uid   32 u32 st_gid   36 u32 0
    ///     40 u64 st_rdev   48 i64 st_size   56 i64 st_blksize 64 i64 st_blocks (512-byte units)
    ///     72 atime, 88 mtime, 104 ctime: i64 seconds, i64 nanoseconds       120 birth time (where struct stat has spare words)
    public static let statusSize = 144

    func getAttributes(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let file: Inode
        if request.pathLength == 0 && request.handle != Request.rootHandle {
            file = try inode(try openDescription(request.handle, request.session, tx).inode, tx)
        } else {
            file = try resolveExisting(request, follow: request.flags & Volume.noFollow == 0, tx)
        }
        guard let buffer = unsafe request.buffer, request.bufferLength >= Volume.statusSize else { throw .errno(Errno.invalid) }
        let status = unsafe Bytes(buffer, count: Volume.statusSize, writable: true)
        let core = core(file.number, tx)
        let size = core?.size ?? file.size
        // Programs take it apart as Linux's 32-bit dev_t.
        status.set(0, (superblock.uuid.0 ^ superblock.uuid.0 >> 32) & 0x7FFF_FFFF)
        status.set(8, file.number)
        status.set(16, UInt64(file.links))
        status.set(24, UInt32(file.mode))
        status.set(28, file.user)
        status.set(32, file.group)
        status.set(36, UInt32(0))
        status.set(40, file.device)
        status.set(48, size)
        status.set(56, UInt64(BlockLayout.size))
        status.set(64, (file.blocks + UInt64(core?.reserved ?? 0)) * 8)
        for (at, time) in [
            (72, core?.accessTime ?? file.accessTime), (88, core?.modificationTime ?? file.modificationTime),
            (104, core?.changeTime ?? file.changeTime), (120, file.birthTime),
        ] {
            status.set(at, time.seconds)
            status.set(at + 8, UInt64(time.nanoseconds))
        }
        status.set(136, UInt64(0))
        return Outcome(0, file.number, UInt64(file.mode), size)
    }

    func setAttributes(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let change = request.attributes
        let file: Inode
        if let description = try meantDescription(request, tx) {
            file = try inode(description.inode, tx)
            if change.mask.contains(.size) { guard description.isWritable else { throw .errno(Errno.invalid) } }
        } else {
            file = try resolveExisting(request, follow: request.flags & Volume.noFollow == 0, tx)
            if change.mask.contains(.size) {
                if file.isDirectory { throw .errno(Errno.isDirectory) }
                guard file.isRegular else { throw .errno(Errno.invalid) }
                guard credentials(request).may(Access.write, file) else { throw .errno(Errno.access) }
            }
        }
        let who = credentials(request)
        if isReadOnly { throw .errno(Errno.readOnly) }
        if change.mask.contains(.size) {
            guard file.isRegular else { throw .errno(Errno.invalid) }
            guard change.size >= 0 else { throw .errno(Errno.invalid) }
            try setSize(file, UInt64(change.size), tx)
            if file.mode & (Mode.setUser | Mode.setGroup) != 0 && !who.isPrivileged {
                try inodeForWrite(file.number, tx).mode = who.withoutSetID(file)
            }
        }
        if change.mask.contains(.mode) {
            guard who.owns(file) else { throw .errno(Errno.perm) }
            if file.isLink { throw .errno(Errno.operationNotSupported) }
            var mode = file.mode & Mode.typeMask | UInt16(change.mode & 0o7777)
            if mode & Mode.setGroup != 0 && !who.isPrivileged && !who.isMember(file.group) { mode &= ~Mode.setGroup }
            let inode = try inodeForWrite(file.number, tx)
            inode.mode = mode
            try touchChangeTime(inode, tx)
        }
        if change.mask.contains(.owner) || change.mask.contains(.group) { try setOwner(file, change, who, tx) }
        if !change.mask.isDisjoint(with: [.accessTime, .modificationTime, .accessTimeNow, .modificationTimeNow]) {
            try setTimes(file, change, who, tx)
        }
        return Outcome(0)
    }

    /// The open file that a request without a path is about. nil: the file is named, by a path or by an empty one (AT_EMPTY_PATH), which asks less of a descriptor.
    func meantDescription(_ request: Request, _ tx: Transaction) throws(Stop) -> Description? {
        guard request.pathLength == 0, request.handle != Request.rootHandle, request.flags & Volume.emptyPath == 0 else { return nil }
        let description = try openDescription(request.handle, request.session, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        return description
    }

    private func touchChangeTime(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        inode.changeTime = now
        if core(inode.number, tx) != nil { try coreForWrite(inode, tx).changeTime = now }
    }

    private func setOwner(_ file: Inode, _ change: AttributeChange, _ who: Credentials, _ tx: Transaction) throws(Stop) {
        // -1 leaves an id as it is.
        let user = change.mask.contains(.owner) && change.owner != .max ? change.owner : file.user
        let group = change.mask.contains(.group) && change.group != .max ? change.group : file.group
        if !who.isPrivileged {
            guard user == file.user else { throw .errno(Errno.perm) }
            let ownsGroupChange = file.user == who.user && (group == file.group || who.isMember(group))
            let changesNothing = (!change.mask.contains(.owner) || change.owner == .max) && (!change.mask.contains(.group) || change.group == .max)
            // A call that leaves both ids as they are still takes the set-id bits away, and that is the owner's to do.
            let keepsMode = who.withoutSetID(file) == file.mode
            guard ownsGroupChange || changesNothing && (keepsMode || who.owns(file)) else { throw .errno(Errno.perm) }
        }
        let inode = try inodeForWrite(file.number, tx)
        inode.user = user
        inode.group = group
        // chown(2): set-id bits of anything but a directory go, root's own calls included.
        inode.mode = who.withoutSetID(inode)
        try touchChangeTime(inode, tx)
    }

    private func setTimes(_ file: Inode, _ change: AttributeChange, _ who: Credentials, _ tx: Transaction) throws(Stop) {
        let explicit = !change.mask.isDisjoint(with: [.accessTime, .modificationTime])
        let both = change.mask.contains(.accessTimeNow) && change.mask.contains(.modificationTimeNow)
        if !who.owns(file) {
            // Setting both to now takes write permission only (utimensat(2)).
            guard both, !explicit else { throw .errno(Errno.perm) }
            guard who.may(Access.write, file) else { throw .errno(Errno.access) }
        }
        let inode = try inodeForWrite(file.number, tx)
        if let core = core(file.number, tx) {
            // What write-back has not brought into the inode yet must not be lost to it.
            inode.accessTime = core.accessTime
            inode.modificationTime = core.modificationTime
        }
        if change.mask.contains(.accessTime) { inode.accessTime = change.accessTime }
        if change.mask.contains(.accessTimeNow) { inode.accessTime = now }
        if change.mask.contains(.modificationTime) { inode.modificationTime = change.modificationTime }
        if change.mask.contains(.modificationTimeNow) { inode.modificationTime = now }
        inode.changeTime = now
        try syncTimes(inode, tx)
        if core(inode.number, tx) != nil { try coreForWrite(inode, tx).accessTime = inode.accessTime }
    }

    /// access(2): R_OK 4, W_OK 2, X_OK 1.
    func access(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        guard request.mode & ~7 == 0 else { throw .errno(Errno.invalid) }
        let file = try resolveExisting(request, follow: request.flags & Volume.noFollow == 0, tx)
        let who = credentials(request)
        guard who.may(request.mode, file) else { throw .errno(Errno.access) }
        if isReadOnly && request.mode & Access.write != 0 && (file.isRegular || file.isDirectory || file.isLink) { throw .errno(Errno.readOnly) }
        noteMeeting(file, request, who)
        return Outcome(0, file.number, UInt64(file.mode))
    }

    /// Layout of the answer, 64 bytes: u64 block size, blocks, free, available, inodes, free inodes, name length, volume id.
    public static let statisticsSize = 64

    func statistics(_ request: Request) throws(Stop) -> Outcome {
        guard let buffer = unsafe request.buffer, request.bufferLength >= Volume.statisticsSize else { throw .errno(Errno.invalid) }
        let answer = unsafe Bytes(buffer, count: Volume.statisticsSize, writable: true)
        let dataBlocks = geometry.blockCount - geometry.groupStart - 1 - UInt64(geometry.groupCount * geometry.groupOverhead)
        let free = max(0, freeBlocks - reservedBlocks)
        answer.set(0, UInt64(BlockLayout.size))
        answer.set(8, dataBlocks)
        answer.set(16, UInt64(free))
        answer.set(24, UInt64(max(0, free - systemReserve)))
        answer.set(32, geometry.inodeCount)
        answer.set(40, UInt64(freeInodes))
        answer.set(48, UInt64(255))
        answer.set(56, superblock.uuid.0)
        return Outcome(0)
    }
}
