/// open(2), close(2), lseek(2), fcntl(F_GETFL, F_SETFL).
extension Volume {
    func open(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let flags = request.flags
        if flags & OpenFlag.temporary == OpenFlag.temporary { return try openTemporary(request, tx) }
        let pathOnly = flags & OpenFlag.pathOnly != 0
        let creating = flags & OpenFlag.create != 0 && !pathOnly
        let exclusive = creating && flags & OpenFlag.exclusive != 0
        // open(2): O_CREAT with O_DIRECTORY is refused.
        if creating && flags & OpenFlag.directory != 0 { throw .errno(Errno.invalid) }
        if request.pathLength == 0 && request.mode & OpenFlag.handleItself != 0 && request.handle != Request.rootHandle {
            // As by /proc/self/fd: whatever way led to the file, it need not be one any more.
            let description = try openDescription(request.handle, request.session, tx)
            if exclusive { throw .errno(Errno.exists) }
            return try open(try inode(description.inode, tx), in: description.directory, request, tx)
        }
        let follow = flags & OpenFlag.noFollow == 0 && !exclusive
        let resolution = try resolve(request, follow: follow, slash: creating ? .refused : .asksForDirectory, tx)
        let who = credentials(request)
        guard let file = resolution.file else {
            guard creating else { throw resolution.absence }
            let parent = try requireRoom(for: resolution, who)
            let file = try createInode(
                in: parent, name: resolution.name, mode: Mode.regular | UInt16(request.mode & 0o7777), mask: request.modeMask, credentials: who, tx)
            // A file that this call created may be opened for anything, whatever its mode says.
            return try install(request, file, in: resolution.parent, tx)
        }
        if exclusive { throw .errno(Errno.exists) }
        if creating && file.isDirectory { throw .errno(Errno.isDirectory) }
        if creating, !file.isRegular, isSomebodysBait(file, in: resolution.directory, who) { throw .errno(Errno.access) }
        if resolution.wantsDirectory && !file.isDirectory { throw .errno(Errno.notDirectory) }
        return try open(file, in: resolution.parent, request, tx)
    }

    /// A file that is there.
    private func open(_ file: Inode, in directory: UInt64, _ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let flags = request.flags
        let who = credentials(request)
        if flags & OpenFlag.directory != 0 && !file.isDirectory { throw .errno(Errno.notDirectory) }
        if flags & OpenFlag.pathOnly != 0 { return try install(request, file, in: directory, tx) }
        if file.isLink { throw .errno(Errno.loop) }
        let access = flags & OpenFlag.accessMode
        let truncating = flags & OpenFlag.truncate != 0
        if file.isDirectory && (access != 0 || truncating) { throw .errno(Errno.isDirectory) }
        var wanted: UInt32 = access == 0 ? Access.read : access == 1 ? Access.write : Access.read | Access.write
        if truncating { wanted |= Access.write }
        guard who.may(wanted, file) else { throw .errno(Errno.access) }
        if isReadOnly && wanted & Access.write != 0 && file.isRegular { throw .errno(Errno.readOnly) }
        if flags & OpenFlag.noAccessTime != 0 && !who.owns(file) { throw .errno(Errno.perm) }
        if file.type == Mode.socket { throw .errno(Errno.noDeviceAddress) }
        if truncating && file.isRegular {
            try setSize(file, 0, tx)
            if file.mode & (Mode.setUser | Mode.setGroup) != 0 && !who.isPrivileged {
                try inodeForWrite(file.number, tx).mode = who.withoutSetID(file)
            }
            return try install(request, try inode(file.number, tx), in: directory, tx)
        }
        return try install(request, file, in: directory, tx)
    }

    /// Where all may make files and only owners remove them (/tmp), O_CREAT opens no link, socket or device that somebody put there to be opened (Linux 4.19).
    private func isSomebodysBait(_ file: Inode, in directory: Inode, _ who: Credentials) -> Bool {
        directory.mode & Mode.sticky != 0 && directory.mode & 0o002 != 0 && file.type != Mode.fifo && file.user != directory.user
            && file.user != who.user
    }

    /// O_TMPFILE: a file without a name, in the orphan table from the start.
    private func openTemporary(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        if request.flags & OpenFlag.accessMode == 0 { throw .errno(Errno.invalid) }
        let resolution = try resolve(request, follow: request.flags & OpenFlag.noFollow == 0, tx)
        guard let parent = resolution.file else { throw resolution.absence }
        guard parent.isDirectory else { throw .errno(Errno.notDirectory) }
        let who = credentials(request)
        guard who.may(Access.write | Access.execute, parent) else { throw .errno(Errno.access) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        let file = try makeInode(in: parent, mode: Mode.regular | UInt16(request.mode & 0o7777), mask: request.modeMask, credentials: who, tx)
        try addOrphan(file.number, kind: OrphanKind.unlinked, from: 0, count: 0, tx)
        let outcome = try install(request, file, in: 0, tx)
        try coreForWrite(file, tx).flags |= CoreInode.Flag.orphan
        return outcome
    }

    /// A new open description of the inode.
    private func install(_ request: Request, _ file: Inode, in directory: UInt64, _ tx: Transaction) throws(Stop) -> Outcome {
        guard let holder = sessionIndex(request.session), sessions[holder].descriptions < configuration.descriptionsPerSession else {
            throw .errno(Errno.tooManyOpen)
        }
        guard let slot = descriptionPool.candidate(tx.takenDescriptions) else { throw .errno(Errno.tableFull) }
        tx.holder = holder
        let core = try coreForWrite(file, tx)
        core.openCount += 1
        let row = try descriptionForWrite(slot, tx)
        tx.takenDescriptions += 1
        row.cell.zero(0, Description.size)
        row.used = 1
        row.session = request.session.rawValue
        row.inode = file.number
        row.flags = request.flags & ~(OpenFlag.create | OpenFlag.exclusive | OpenFlag.truncate)
        row.references = 1
        row.directory = directory
        row.core = UInt32(core.slot)
        row.errorSeen = core.errorGeneration
        descriptionHighWater = max(descriptionHighWater, slot + 1)
        return Outcome(Int64(slot), file.number, UInt64(file.mode), core.size)
    }

    func close(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let present = try openDescription(request.handle, request.session, tx)
        let row = try descriptionForWrite(present.slot, tx)
        let core = CoreInode(slot: Int(row.core), cell: try tx.writeState(Int(row.core) * CoreInode.size, length: CoreInode.size))
        let keepsLocks = request.flags & 1 != 0 || row.flags & OpenFlag.pathOnly != 0
        try releaseLocks(core, session: keepsLocks ? nil : request.session, ending: row.references == 1 ? row.slot : nil, tx)
        if let holder = sessionIndex(request.session) { tx.holder = holder }
        if row.references > 1 {
            try leave(row, request.session, tx)
            return Outcome(0)
        }
        if row.flock != 0 {
            core.flocks = core.flocks == .max ? 0 : core.flocks - 1
            tx.unlockedInode = row.inode
        }
        unsafe readAhead[row.slot] = ReadAhead()
        row.cell.zero(0, Description.size)
        tx.givenDescriptions.append(row.slot)
        letGo(core, tx)
        return Outcome(0)
    }

    /// One who has had the file open, or mapped, has not any more.
    func letGo(_ core: CoreInode, _ tx: Transaction) {
        core.openCount -= 1
        if core.openCount == 0 {
            if core.flags & CoreInode.Flag.orphan != 0 {
                tx.reclaims.append(core.inode)
            } else if core.flags & CoreInode.Flag.flushAtClose != 0 {
                // People truncate and rewrite: the new bytes follow the truncation out, not seconds later.
                core.flags &= ~CoreInode.Flag.flushAtClose
                tx.flushes.append(core.inode)
            }
            dropCoreIfIdle(core, tx)
        }
    }

    func seek(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        let base: Int64
        switch request.flags {
        case 0: base = 0
        case 1: base = description.offset
        case 2:
            let file = try inode(description.inode, tx)
            base = file.isDirectory ? Int64.max : Int64(truncatingIfNeeded: liveSize(file, tx))
            if file.isDirectory { throw .errno(Errno.invalid) }
        case 3, 4:
            guard request.offset >= 0 else { throw .errno(Errno.noDeviceAddress) }
            let file = try inode(description.inode, tx)
            guard file.isRegular else { throw .errno(Errno.invalid) }
            try requireUntouched(file.number, tx)
            if progress.absorbed != .max, let core = core(file.number, tx), core.flags & CoreInode.Flag.sharedMap != 0 {
                _ = try absorb(file.number, progress, tx)
                return .more
            }
            guard let found = try seekContent(file, UInt64(request.offset), hole: request.flags == 4, progress, tx) else { return .more }
            base = Int64(found) - request.offset
        default: throw .errno(Errno.invalid)
        }
        let (target, overflow) = base.addingReportingOverflow(request.offset)
        guard !overflow else { throw .errno(request.offset > 0 ? Errno.overflow : Errno.invalid) }
        guard target >= 0 else { throw .errno(Errno.invalid) }
        if target != description.offset { try descriptionForWrite(description.slot, tx).offset = target }
        return Outcome(target)
    }

    func setStatusFlags(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        if request.flags == .max { return Outcome(Int64(description.flags)) }
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        let file = try inode(description.inode, tx)
        if request.flags & OpenFlag.noAccessTime & ~description.flags != 0 && !credentials(request).owns(file) { throw .errno(Errno.perm) }
        try descriptionForWrite(description.slot, tx).flags = description.flags & ~OpenFlag.settable | request.flags & OpenFlag.settable
        return Outcome(0)
    }
}
