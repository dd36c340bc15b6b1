/// Sessions, open descriptions and in-core inodes: who has what open.
@safe struct SessionState {
    var used = false
    var generation: UInt16 = 0
    var credentials = Credentials(user: 0, group: 0)
    /// Where the volume's root appears in the client's name space ("" where paths never leave the volume).
    var prefix: [UInt8] = []
    /// Open descriptions and record locks that it holds, for its limits. A session begins with none.
    var descriptions = 0
    var locks = 0
    /// It has mapped a file.
    var hasMapped = false
}

extension Volume {
    /// - Parameter prefix: where the client sees the volume's root ("/dash"); absolute symbolic links and `..` that lead out of it are answered
    ///   with `Completion.escape`. Empty: the root is the client's whole world.
    /// - Returns: nil where 65,536 sessions exist.
    public func openSession(_ credentials: Credentials, prefix: [UInt8] = []) -> SessionID? {
        let index: Int
        if let free = freeSessions.popLast() { index = free } else {
            guard sessions.count < 65_536 else { return nil }
            index = sessions.count
            sessions.append(SessionState())
        }
        sessions[index].used = true
        sessions[index].credentials = credentials
        sessions[index].prefix = prefix
        sessions[index].descriptions = 0
        sessions[index].locks = 0
        sessions[index].hasMapped = false
        return SessionID(rawValue: UInt32(index) | UInt32(sessions[index].generation) << 16)
    }

    /// Closes its descriptors, releases its locks, cancels what it has parked. The caller keeps the memory of parked requests
    /// until their completions (EINTR) have come.
    public func closeSession(_ session: SessionID) {
        guard let index = sessionIndex(session) else { return }
        for parked in engine.parked where parked.task == .request && parked.request.session == session {
            parked.cancelled = true
            cancel(session: session, token: parked.request.token)
        }
        for handle in holdings(session) { closeHandle(handle, session) }
        if sessions[index].hasMapped { forgetGrants(session) }
        meetings[session.rawValue] = nil
        sessions[index].used = false
        sessions[index].generation &+= 1
        freeSessions.append(index)
    }

    /// What is in use of the tables: nothing, when no client is left and everything is written back.
    package var occupancy: (sessions: Int, descriptions: Int, locks: Int, cores: Int) {
        (sessions.count - freeSessions.count, descriptionPool.capacity - descriptionPool.available, lockPool.capacity - lockPool.available, corePool.capacity - corePool.available)
    }

    @inline(__always) func sessionIndex(_ session: SessionID) -> Int? {
        let index = Int(session.rawValue & 0xFFFF)
        guard index < sessions.count, sessions[index].used, sessions[index].generation == UInt16(session.rawValue >> 16) else { return nil }
        return index
    }

    // MARK: Open descriptions

    @inline(__always) func description(_ slot: Int, _ tx: Transaction) -> Description {
        Description(slot: slot, cell: tx.readState(region.layout.descriptionsAt + slot * Description.size, length: Description.size))
    }

    func descriptionForWrite(_ slot: Int, _ tx: Transaction) throws(Stop) -> Description {
        Description(slot: slot, cell: try tx.writeState(region.layout.descriptionsAt + slot * Description.size, length: Description.size))
    }

    /// The session's open description under this handle.
    @inline(__always) func openDescription(_ handle: Int32, _ session: SessionID, _ tx: Transaction) throws(Stop) -> Description {
        guard handle >= 0, Int(handle) < region.layout.descriptions else { throw .errno(Errno.badDescriptor) }
        let row = description(Int(handle), tx)
        guard row.used == 1, row.session == session.rawValue || row.nextShare != 0 && shareRow(row.slot, session) >= 0 else { throw .errno(Errno.badDescriptor) }
        return row
    }

    /// The same for an operation that changes content in steps. Between two steps its client may close the handle and open something else under
    /// its number: what the earlier steps began does not go on in another file.
    @inline(__always) func openDescription(_ handle: Int32, _ session: SessionID, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Description {
        let row = try openDescription(handle, session, tx)
        guard progress.ticketInode == 0 || progress.ticketInode == row.inode else { throw .errno(Errno.badDescriptor) }
        return row
    }

    // MARK: In-core inodes

    @inline(__always) private func coreSlot(_ inode: UInt64) -> Int {
        let state = unsafe region.state
        return coreIndex.find(HashIndex.hash(inode, 0)) { unsafe state.load(fromByteOffset: $0 &* CoreInode.size, as: UInt64.self) == inode }
    }

    /// The in-core inode, or nil where there is none.
    @inline(__always) func core(_ inode: UInt64, _ tx: Transaction) -> CoreInode? {
        for number in tx.newCores.indices where tx.newCores[number].inode == inode {
            let new = tx.newCores[number]
            return CoreInode(slot: new.slot, cell: tx.readState(new.slot * CoreInode.size, length: CoreInode.size))
        }
        let slot = coreSlot(inode)
        if slot < 0 { return nil }
        let row = CoreInode(slot: slot, cell: tx.readState(slot &* CoreInode.size, length: CoreInode.size))
        return row.inode == inode ? row : nil
    }

    /// The in-core inode to be changed; made from the durable one where there is none. ENFILE where the table is full.
    func coreForWrite(_ inode: Inode, _ tx: Transaction) throws(Stop) -> CoreInode {
        if let core = core(inode.number, tx) {
            return CoreInode(slot: core.slot, cell: try tx.writeState(core.slot * CoreInode.size, length: CoreInode.size))
        }
        guard let slot = corePool.candidate(tx.takenCores) else { throw outOfCores(tx) }
        let core = CoreInode(slot: slot, cell: try tx.writeState(slot * CoreInode.size, length: CoreInode.size))
        core.cell.zero(0, CoreInode.size)
        core.inode = inode.number
        core.size = inode.size
        core.modificationTime = inode.modificationTime
        core.changeTime = inode.changeTime
        core.accessTime = inode.accessTime
        core.flags = inode.isDirectory ? CoreInode.Flag.isDirectory : inode.isRegular ? 0 : CoreInode.Flag.isSpecial
        tx.takenCores += 1
        tx.newCores.append(Transaction.CoreSlot(inode: inode.number, slot: slot))
        return core
    }

    /// Rows of closed inodes whose attributes or data still wait for write-back can be had by waiting; where there are none, ENFILE.
    private func outOfCores(_ tx: Transaction) -> Stop {
        var waitFor: UInt64?
        for inode in dirtySince.sortedKeys.reversed() where core(inode, tx)?.openCount == 0 && writebackErrors[inode] == nil {
            requestWriteback(inode)
            waitFor = inode
        }
        return waitFor.map { .writeback($0) } ?? .errno(Errno.tableFull)
    }

    /// Frees the row where nothing needs it any more.
    func dropCoreIfIdle(_ core: CoreInode, _ tx: Transaction) {
        guard core.openCount == 0, core.firstLock == 0, core.flags & ~CoreInode.Flag.kindMask == 0, core.reserved == 0, !cache.dirtyLists.contains(core.inode),
            !tx.newCores.contains(where: { $0.slot == core.slot })
        else { return }
        tx.givenCores.append(Transaction.CoreSlot(inode: core.inode, slot: core.slot))
        core.cell.zero(0, CoreInode.size)
    }

    /// Says that the in-core attributes are newer than the durable ones; write-back follows within the commit interval.
    func markAttributesDirty(_ core: CoreInode, timesOnly: Bool, _ tx: Transaction) {
        if core.flags & CoreInode.Flag.attributesDirty == 0 { tx.dirtied.append(core.inode) }
        core.flags |= CoreInode.Flag.attributesDirty | (timesOnly ? CoreInode.Flag.timesDirty : CoreInode.Flag.sizeDirty)
    }

    /// Size as every reader sees it.
    @inline(__always) func liveSize(_ inode: Inode, _ tx: Transaction) -> UInt64 { core(inode.number, tx)?.size ?? inode.size }

    /// Waits where another request is in the middle of changing the file's content, or its doomed extents are being removed.
    @inline(__always) func requireUntouched(_ inode: UInt64, _ tx: Transaction) throws(Stop) {
        if let core = core(inode, tx), core.flags & CoreInode.Flag.shrinking != 0 { throw shrinkingStop(inode) }
        if !engine.tickets.isEmpty, let holder = engine.tickets[inode], holder != engine.current { throw .ticket(inode) }
    }

    /// Doomed extents are removed in steps, and a volume that writes no more, or cannot, takes none: what they hold must not be read, and nobody
    /// waits.
    func shrinkingStop(_ inode: UInt64) -> Stop { isReadOnly || unreclaimable.contains(inode) ? .errno(Errno.io) : .ticket(inode) }

    /// Holds the inode's content for this request until it ends: more steps follow. Valid when this step has committed.
    func takeTicket(_ inode: UInt64, _ tx: Transaction) {
        tx.nextProgress.ticketInode = inode
    }

    // MARK: Inodes

    @inline(__always) func inode(_ number: UInt64, _ tx: Transaction) throws(Stop) -> Inode {
        guard geometry.isInode(number) else { throw .errno(Errno.damaged) }
        let (block, offset) = geometry.location(ofInode: number)
        let inode = Inode(number: number, cell: try tx.read(block, kind: BlockLayout.Kind.inodes, offset: offset, length: InodeLayout.size))
        if inode.mode == 0 { throw damaged("inode \(number) is named but not in use") }
        return inode
    }

    func inodeForWrite(_ number: UInt64, _ tx: Transaction) throws(Stop) -> Inode {
        guard geometry.isInode(number) else { throw .errno(Errno.damaged) }
        let (block, offset) = geometry.location(ofInode: number)
        return Inode(number: number, cell: try tx.write(block, kind: BlockLayout.Kind.inodes, offset: offset, length: InodeLayout.size))
    }
}
