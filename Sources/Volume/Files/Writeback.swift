/// Delayed data becomes durable data: frames get their blocks, and go into the journal record or home.
///
/// - Small synchronous writes, and overwrites on a device that may tear 4 KiB, travel **in** the record.
/// - Data for fresh blocks (nobody can reach them before the record) is written in place; the record waits for it.
/// - On a device with atomic 4 KiB writes, an overwrite whose block has no live image in the journal goes home directly.
/// The durable size never covers data that is not on its way: it grows with the write-back, up to the first frame that still waits. Nor does
/// written data lie beyond it, in blocks of its own or in the last one: bytes there would come back when the file grows.
extension Volume {
    /// Frames that one write-back transaction handles.
    var writebackStep: Int { max(1, min(64, cache.count / 16, journal.batchCapacity / BlockLayout.size / 4)) }
    /// An fsync of at most so many frames puts them into the record.
    static let smallSync = 16

    /// One step of writing back an inode's data and attributes. True: nothing is left of what there was when the pass began.
    /// - Parameter forSync: someone waits; small amounts are logged. `dataOnly`: times alone are no reason (fdatasync).
    func writeBack(_ number: UInt64, _ progress: Progress, forSync: Bool, dataOnly: Bool, _ tx: Transaction) throws(Stop) -> Bool {
        guard let current = core(number, tx) else { return true }
        let hasData = cache.dirtyLists.contains(number)
        let wanted = dataOnly ? CoreInode.Flag.sizeDirty : CoreInode.Flag.attributesDirty
        if !hasData && current.flags & wanted == 0 { return true }
        // An inode that nobody can reach any more needs no write-back: reclaim forgets its data.
        if current.flags & CoreInode.Flag.orphan != 0 && current.openCount == 0 { return true }
        if current.flags & CoreInode.Flag.shrinking != 0 { throw shrinkingStop(number) }

        // Only what this transaction sees staged is used below; the list of indexes is a plan, checked frame by frame.
        var work = progress.work
        if work < 0 {
            if let free = engine.freeWorkLists.popLast() { work = free } else {
                work = engine.workLists.count
                engine.workLists.append([])
            }
            cache.takeDirtyIndexes(number, into: &engine.workLists[work])
        }
        tx.nextProgress.work = work
        var total = engine.workLists[work].count
        let inode = try inodeForWrite(number, tx)
        let core = try coreForWrite(inode, tx)
        let logSmall = forSync && total <= Volume.smallSync
        var position = Int(progress.done)
        var handled = 0
        var handledEnd: UInt64 = 0
        while position < total && handled < writebackStep {
            let index = engine.workLists[work][position]
            if let low = cache.dirtyLists[number]?.lowestNew, low < index, low * Volume.pageSize >= inode.size {
                // A page that became dirty since lies before this one, and the durable size covers neither: it goes first, in a new list.
                if handled > 0 { break }
                cache.takeDirtyIndexes(number, into: &engine.workLists[work])
                (position, total) = (0, engine.workLists[work].count)
                continue
            }
            let frame = cache.find(number, index)
            guard frame >= 0, cache.header(frame).flags & FrameFlag.needsWriteback != 0 else {
                position += 1
                continue
            }
            // The longest run of neighbours that still need it.
            var run = 1
            while position + run < total, handled + run < writebackStep, engine.workLists[work][position + run] == index + UInt64(run) {
                let next = cache.find(number, index + UInt64(run))
                guard next >= 0, cache.header(next).flags & FrameFlag.needsWriteback != 0 else { break }
                run += 1
            }
            let done = try writeRun(inode, core, index, run, log: logSmall, tx)
            position += done
            handled += done
            handledEnd = index + UInt64(done)
        }
        tx.nextProgress.done = UInt64(position)
        let finished = position >= total
        settleAttributes(inode, core, handledEnd: handledEnd, nextIndex: finished ? .max : engine.workLists[work][position], tx)
        core.lastRecord = journal.openSequence
        if finished { dropCoreIfIdleAfterWriteback(core, tx) }
        return finished
    }

    /// Maps and dispatches frames [index, index + count); says how many (at least one).
    private func writeRun(_ inode: Inode, _ core: CoreInode, _ index: UInt64, _ count: Int, log: Bool, _ tx: Transaction) throws(Stop) -> Int {
        let (found, next) = try lookup(inode, index, tx)
        // Written in place, what a write adds to the block that the durable end lies in would be there before the size that covers it.
        let growing = inode.size % Volume.pageSize != 0 && core.size > inode.size ? inode.size / Volume.pageSize : .max
        if let extent = found {
            let run = Int(min(UInt64(count), extent.end - index))
            let block = extent.block + (index - extent.index)
            if extent.unwritten { try changeMapping(inode, index, UInt64(run), unwritten: false, tx) }
            for offset in 0..<run {
                let frame = cache.find(inode.number, index + UInt64(offset))
                let header = cache.header(frame)
                let target = block + UInt64(offset)
                let isGrowing = index + UInt64(offset) == growing
                let mayWriteHome = extent.unwritten && !journal.isRetired(target)
                    || !extent.unwritten && capabilities.atomicWriteUnit >= BlockLayout.size && header.imageSequence == 0 && !log && !isGrowing
                        && !journal.mayBeBeyondEnd(inode.number, index + UInt64(offset))
                        && (header.block == 0 || header.block == target) && !journal.hasLiveData(target)
                let busy = detachedImages.contains { $0.block == target }
                try dispatch(frame, header, inode, core, block: target, ordered: mayWriteHome && !busy && !log, tx)
            }
            return run
        }
        // Not mapped: fresh blocks, as long a run as the free space gives.
        let run = Int(min(UInt64(count), next == .max ? UInt64(count) : next - index))
        var goal = geometry.location(ofInode: inode.number).block
        if index > 0, let before = try lookup(inode, index - 1, tx).extent { goal = before.block + (index - before.index) }
        let (block, got) = try allocateRun(goal: goal, wanted: run, tx)
        try addExtent(inode, Extent(index: index, block: block, count: UInt64(got), unwritten: false), tx)
        inode.blocks += UInt64(got)
        for offset in 0..<got {
            let frame = cache.find(inode.number, index + UInt64(offset))
            try dispatch(frame, cache.header(frame), inode, core, block: block + UInt64(offset), ordered: !log, tx)
        }
        return got
    }

    private func dispatch(_ frame: Int, _ header: FrameHeader, _ inode: Inode, _ core: CoreInode, block: UInt64, ordered: Bool, _ tx: Transaction) throws(Stop) {
        if header.flags & FrameFlag.reserved != 0 {
            core.reserved -= 1
            tx.reserved -= 1
            releaseNodeReservation(core, inode, tx)
        }
        // A frame whose older content the journal holds is logged again: its home write must not tear what replay would restore.
        let inJournal = header.imageSequence != 0
        tx.writebacks.append(Transaction.Writeback(frame: frame, block: block, ordered: ordered && !inJournal))
    }

    /// Makes what is mapped of [index, index + count) written, or unwritten: blocks that read as zeros.
    func changeMapping(_ inode: Inode, _ index: UInt64, _ count: UInt64, unwritten: Bool, _ tx: Transaction) throws(Stop) {
        var pieces: [Extent] = []
        _ = try removeExtents(inode, from: index, to: index + count, limit: .max, blocks: .max, tx) { (piece) throws(Stop) in pieces.append(piece) }
        for var piece in pieces {
            piece.unwritten = unwritten
            try addExtent(inode, piece, tx)
        }
    }

    /// The durable size grows with this transaction's record.
    func growDurably(_ inode: Inode, to size: UInt64, _ tx: Transaction) {
        if inode.size % Volume.pageSize != 0 && inode.mapping != InodeLayout.Mapping.inline && capabilities.atomicWriteUnit >= BlockLayout.size {
            tx.grown.append(Transaction.GrownFile(inode: inode.number, page: inode.size / Volume.pageSize))
        }
        inode.size = size
    }

    /// Durable size and times follow the in-core ones as far as the data does.
    /// - Parameters:
    ///   - handledEnd: the index after the last that this step has mapped.
    ///   - nextIndex: where the pass goes on.
    private func settleAttributes(_ inode: Inode, _ core: CoreInode, handledEnd: UInt64, nextIndex: UInt64, _ tx: Transaction) {
        func bytes(_ index: UInt64) -> UInt64 { index > Extent.maximumIndex ? UInt64.max : index * Volume.pageSize }
        let lowestNew = cache.dirtyLists[inode.number]?.lowestNew ?? .max
        let complete = bytes(min(nextIndex, lowestNew)) >= core.size
        // A page that is dirty again below the durable size is in the file already, and says nothing of those above it.
        let covered = bytes(lowestNew) < inode.size ? bytes(handledEnd) : bytes(min(nextIndex, lowestNew))
        let size = min(core.size, covered)
        if size > inode.size { growDurably(inode, to: size, tx) } else if complete { inode.size = size }
        inode.modificationTime = core.modificationTime
        inode.changeTime = core.changeTime
        inode.accessTime = core.accessTime
        if complete {
            core.flags &= ~(CoreInode.Flag.attributesDirty | CoreInode.Flag.timesDirty | CoreInode.Flag.sizeDirty)
            tx.cleaned.append(inode.number)
        }
    }

    /// After the last step the row may go; the dirty list still names the frames that this very transaction handles.
    private func dropCoreIfIdleAfterWriteback(_ core: CoreInode, _ tx: Transaction) {
        guard core.openCount == 0, core.firstLock == 0, core.flags & ~CoreInode.Flag.kindMask == 0, core.reserved == 0,
            (cache.dirtyLists[core.inode]?.count ?? 0) == tx.writebacks.count
        else { return }
        tx.givenCores.append(Transaction.CoreSlot(inode: core.inode, slot: core.slot))
        core.cell.zero(0, CoreInode.size)
    }

    /// Tree nodes that mapping so many more blocks of the file may need at worst: none while its extents fit into the inode.
    func nodesFor(_ reserved: UInt32, _ inode: Inode) -> UInt32 {
        let extents: UInt32
        switch inode.mapping {
        case InodeLayout.Mapping.inline: extents = 0
        case InodeLayout.Mapping.extents: extents = inode.inlineCount
        default: extents = UInt32(InodeLayout.inlineExtents)
        }
        if reserved == 0 || extents + reserved <= UInt32(InodeLayout.inlineExtents) { return 0 }
        return 8 + reserved * 4 / UInt32(max(2, min(configuration.treeFanout, Node.maximumSlots)))
    }

    /// Brings the node reservation in line with the data reservation.
    func releaseNodeReservation(_ core: CoreInode, _ inode: Inode, _ tx: Transaction) {
        let needed = nodesFor(core.reserved, inode)
        tx.reserved += Int(needed) - Int(core.reservedNodes)
        core.reservedNodes = needed
    }

    // MARK: When

    /// Write-back tasks that age and shortage start at once.
    static let writebackTasks = 64

    /// The inode has something to write back from now on.
    func becameDirty(_ inode: UInt64) {
        dirtySince[inode] = clock.monotonic
        // One goes for each that comes, where it means nothing any more: what is synced at once does not fill the queue.
        if dirtyQueueHead < dirtyQueue.count, dirtySince[dirtyQueue[dirtyQueueHead].inode] != dirtyQueue[dirtyQueueHead].since { dropOldestEntry() }
        dirtyQueue.append((inode, clock.monotonic))
    }

    private func dropOldestEntry() {
        dirtyQueueHead += 1
        if dirtyQueueHead >= 1024 && dirtyQueueHead * 2 > dirtyQueue.count {
            dirtyQueue.removeFirst(dirtyQueueHead)
            dirtyQueueHead = 0
        }
    }

    /// The oldest moment at which an inode became dirty that has no write-back task.
    var oldestDirty: UInt64? { oldestDirtyEntry?.since }

    private var oldestDirtyEntry: (inode: UInt64, since: UInt64)? {
        while dirtyQueueHead < dirtyQueue.count {
            let entry = dirtyQueue[dirtyQueueHead]
            if dirtySince[entry.inode] == entry.since && !engine.writingBack.contains(entry.inode) { return entry }
            dropOldestEntry()
        }
        dirtyQueue.removeAll(keepingCapacity: true)
        dirtyQueueHead = 0
        return nil
    }

    /// Starts write-back of what is due by age, and of the oldest where frames are short or everything must go.
    func startDueWriteback() {
        guard !isReadOnly, dirtyQueueHead < dirtyQueue.count else { return }
        let isShort = framesStarved || cache.needingWriteback > cache.count / 4
        if !isShort && !isShuttingDown && clock.monotonic &- dirtyQueue[dirtyQueueHead].since < commitAge { return }
        while engine.writingBack.count < Volume.writebackTasks, let oldest = oldestDirtyEntry {
            let isDue = isShuttingDown || clock.monotonic &- oldest.since >= commitAge
            guard isDue || isShort && engine.writingBack.count < 8 else { return }
            dropOldestEntry()
            requestWriteback(oldest.inode)
        }
    }

    /// Write-back could not map an inode's data (a damaged tree, no space against all reservations): the next fsync of every descriptor says so.
    func writebackFailed(_ number: UInt64, _ errno: Int32) {
        note("inode \(number): write-back failed (errno \(errno))")
        writebackErrors[number, default: (0, 0)].generation += 1
        writebackErrors[number]?.errno = errno
    }
}
