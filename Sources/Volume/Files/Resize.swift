/// Files that change their size or lose blocks: truncate, punch, and the reclaim of what nobody names any more.
///
/// Blocks beyond what one transaction may free are left to bounded steps: an entry in the orphan table says which range of which inode is
/// doomed, and mount finishes what a crash interrupted. While steps remain, the in-core inode is `shrinking` and everyone else waits.
enum OrphanKind {
    /// No name is left: everything goes, then the inode. While it is open, `from` and `count` may say which range of it is doomed already.
    static let unlinked: UInt64 = 1
    /// A range of block indexes goes.
    static let range: UInt64 = 2
    static let shift: UInt64 = 60
}

struct OrphanEntry {
    var kind: UInt64
    var from: UInt64
    var count: UInt64
    var path: Tree.Path
}

extension Volume {
    // MARK: The orphan table

    private func orphanTree(_ table: Inode) -> Tree {
        var tree = Tree(
            owner: table.number, kind: BlockLayout.Kind.orphans, root: table.root, goal: geometry.location(ofInode: table.number).block)
        tree.mayUseReserve = true
        return tree
    }

    func orphanEntry(_ number: UInt64, _ tx: Transaction) throws(Stop) -> OrphanEntry? {
        let tree = orphanTree(try inode(Superblock.orphanInode, tx))
        var path = Tree.Path()
        guard let leaf = try lowerBound(tree, number, &path, tx), leaf.key(path.slots[0]) == number else { return nil }
        let value = leaf.value(path.slots[0])
        return OrphanEntry(
            kind: value >> OrphanKind.shift, from: value & ((1 << OrphanKind.shift) - 1), count: leaf.auxiliary(path.slots[0]), path: path)
    }

    /// The next inode in the table at or after `number`.
    func nextOrphan(_ number: UInt64, _ tx: Transaction) throws(Stop) -> UInt64? {
        let tree = orphanTree(try inode(Superblock.orphanInode, tx))
        var path = Tree.Path()
        return try lowerBound(tree, number, &path, tx)?.key(path.slots[0])
    }

    /// Enters the inode, or changes its entry: an unlinked inode stays one whatever else is doomed of it.
    func addOrphan(_ number: UInt64, kind: UInt64, from: UInt64, count: UInt64, _ tx: Transaction) throws(Stop) {
        let table = try inodeForWrite(Superblock.orphanInode, tx)
        var tree = orphanTree(table)
        if let entry = try orphanEntry(number, tx) {
            let isUnlinked = entry.kind == OrphanKind.unlinked || kind == OrphanKind.unlinked
            // The last name goes while a range is doomed: the range stays in the entry, for those who have the file open.
            let range = kind == OrphanKind.range ? (from, count) : (entry.from, entry.count)
            try writeNode(tree, entry.path.blocks[0], tx).setSlot(
                entry.path.slots[0], key: number, value: range.0 | (isUnlinked ? OrphanKind.unlinked : kind) << OrphanKind.shift,
                auxiliary: range.1)
            return
        }
        unsafe try insert(&tree, key: number, value: from | kind << OrphanKind.shift, auxiliary: count, tx)
        store(tree, in: table)
        table.entries += 1
    }

    func removeOrphan(_ number: UInt64, _ tx: Transaction) throws(Stop) {
        guard try orphanEntry(number, tx) != nil else { return }
        let table = try inodeForWrite(Superblock.orphanInode, tx)
        var tree = orphanTree(table)
        try remove(&tree, key: number, tx)
        store(tree, in: table)
        table.entries -= min(table.entries, 1)
    }

    // MARK: Sizes

    /// Gives a regular file a new size. The caller has checked type and permission.
    func setSize(_ file: Inode, _ newSize: UInt64, _ tx: Transaction) throws(Stop) {
        guard newSize <= Volume.maximumSize else { throw .errno(Errno.tooBig) }
        try requireUntouched(file.number, tx)
        let size = liveSize(file, tx)
        let inode = try inodeForWrite(file.number, tx)
        if newSize < size {
            try shrink(inode, to: newSize, tx)
        } else if newSize == size {
            // What was allocated beyond the end goes, as ext4 has it.
            try doomBeyond(inode, newSize, tx)
        } else {
            let core = core(file.number, tx)
            // Inline bytes stay where they are: what lies beyond them reads as zeros. The durable size never covers data that waits.
            if !cache.dirtyLists.contains(file.number) { growDurably(inode, to: newSize, tx) }
            if core != nil {
                let writable = try coreForWrite(inode, tx)
                try mirrorSize(writable, to: newSize, tx)
                writable.size = newSize
                if inode.size != newSize { markAttributesDirty(writable, timesOnly: false, tx) }
            }
        }
        inode.modificationTime = now
        inode.changeTime = now
        try syncTimes(inode, tx)
    }

    /// The in-core times follow durable ones that were just set. Not the access time: a read has set it in core, and the inode may not know yet.
    func syncTimes(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        guard core(inode.number, tx) != nil else { return }
        let core = try coreForWrite(inode, tx)
        core.modificationTime = inode.modificationTime
        core.changeTime = inode.changeTime
    }

    private func shrink(_ inode: Inode, to newSize: UInt64, _ tx: Transaction) throws(Stop) {
        let firstGone = (newSize + Volume.pageSize - 1) / Volume.pageSize
        let tail = newSize % Volume.pageSize
        if inode.mapping == InodeLayout.Mapping.inline && UInt64(inode.inlineCount) > newSize {
            inode.inline.zero(Int(newSize), Int(inode.inlineCount) - Int(newSize))
            inode.inlineCount = UInt32(newSize)
        }
        if tail != 0, try zeroPage(inode, newSize / Volume.pageSize, from: tail, to: Volume.pageSize, inRecord: true, tx) {
            // The page may have grown since the durable size was set: with all of it in the record, that covers it.
            inode.size = max(inode.size, newSize)
        }
        try dropPages(inode, from: firstGone, to: .max, tx)
        giveBackKeptPages(inode.number, from: firstGone, tx)
        inode.size = min(inode.size, newSize)
        if core(inode.number, tx) != nil {
            let core = try coreForWrite(inode, tx)
            try mirrorSize(core, to: newSize, tx)
            core.size = newSize
            if newSize == 0 { core.flags |= CoreInode.Flag.flushAtClose }
        }
        try doomBeyond(inode, newSize, tx)
        let isUnmapped = inode.mapping == InodeLayout.Mapping.extents && inode.inlineCount == 0
            || inode.mapping == InodeLayout.Mapping.tree && inode.root == 0
        if newSize == 0 && isUnmapped { inode.mapping = InodeLayout.Mapping.inline }
    }

    /// Frees the blocks beyond the end of a file of this size.
    private func doomBeyond(_ inode: Inode, _ size: UInt64, _ tx: Transaction) throws(Stop) {
        let firstGone = min((size + Volume.pageSize - 1) / Volume.pageSize, Extent.maximumIndex)
        try doom(inode, from: firstGone, count: Extent.maximumIndex - firstGone, tx)
    }

    /// Zeros bytes [from, to) of a page that has content; a hole needs nothing.
    /// - Parameter inRecord: the page that a new size cuts travels with it, so that a file never has bytes beyond its end that would come back
    ///   when it grows.
    /// - Returns: whether it does. It is a page that the durable size covers at least in part, because its block is written.
    @discardableResult
    private func zeroPage(_ inode: Inode, _ page: UInt64, from: UInt64, to: UInt64, inRecord: Bool = false, _ tx: Transaction) throws(Stop) -> Bool {
        mirrorZeros(inode.number, from: page * Volume.pageSize + from, to: page * Volume.pageSize + to, tx)
        let extent = try lookup(inode, page, tx).extent
        let isWritten = extent.map { !$0.unwritten } ?? false
        if try tx.data(inode.number, page) < 0 && !isWritten { return false }
        let core = try coreForWrite(inode, tx)
        // Size `.max`: the whole page counts as content, so that it is read before its middle is replaced.
        try unsafe publishPage(inode, core, page, from: page * Volume.pageSize + from, to: page * Volume.pageSize + to, nil, size: .max, tx)
        markAttributesDirty(core, timesOnly: false, tx)
        guard inRecord, let extent, isWritten, case let publication = tx.publications[tx.publications.count - 1], publication.flags & FrameFlag.reserved == 0 else { return false }
        tx.writebacks.append(Transaction.Writeback(frame: publication.frame, block: extent.block + (page - extent.index), ordered: false))
        return true
    }

    /// The cache forgets pages [from, to), with what was reserved for them.
    private func dropPages(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        // No frame lies beyond the end of the file.
        let size = max(liveSize(inode, tx), inode.size)
        let to = min(to, (size + Volume.pageSize - 1) / Volume.pageSize)
        guard from < to else { return }
        try requireNoDirectWrite(inode.number)
        mirrorZeros(inode.number, from: from * Volume.pageSize, to: to * Volume.pageSize, tx)
        tx.drops.append(Transaction.Drop(owner: inode.number, first: from, last: to - 1))
        let reserved = cache.reservedFrames(inode.number, from: from, to: to - 1)
        if reserved > 0 {
            let core = try coreForWrite(inode, tx)
            core.reserved -= UInt32(reserved)
            tx.reserved -= reserved
            releaseNodeReservation(core, inode, tx)
        }
    }

    /// Frees blocks [from, from + count) of the file: now where one transaction can, else by steps that a crash does not stop.
    private func doom(_ inode: Inode, from: UInt64, count: UInt64, _ tx: Transaction) throws(Stop) {
        if inode.mapping == InodeLayout.Mapping.inline { return }
        if try freeExtents(inode, from: from, to: from + count, tx) { return }
        try addOrphan(inode.number, kind: OrphanKind.range, from: from, count: count, tx)
        try coreForWrite(inode, tx).flags |= CoreInode.Flag.shrinking
        tx.reclaims.append(inode.number)
    }

    /// One step of finishing what the orphan table says of this inode. True: nothing is left.
    func reclaim(_ number: UInt64, _ tx: Transaction) throws(Stop) -> Bool {
        guard let entry = try orphanEntry(number, tx) else { return true }
        let inode = try inodeForWrite(number, tx)
        if entry.kind == OrphanKind.unlinked {
            guard let core = core(number, tx), core.openCount > 0 else { return try destroy(inode, tx) }
            if core.flags & CoreInode.Flag.shrinking == 0 { return true }
        }
        guard try freeExtents(inode, from: entry.from, to: entry.from + min(entry.count, Extent.maximumIndex), tx) else { return false }
        if entry.kind != OrphanKind.unlinked { try removeOrphan(number, tx) }
        if core(number, tx) != nil {
            let core = try coreForWrite(inode, tx)
            core.flags &= ~CoreInode.Flag.shrinking
            dropCoreIfIdle(core, tx)
        }
        return true
    }

    /// Frees everything of an inode that has no name and is not open, as much as one transaction may. True: it is gone.
    func destroy(_ inode: Inode, _ tx: Transaction) throws(Stop) -> Bool {
        if inode.isRegular || inode.isLink {
            try dropPages(inode, from: 0, to: .max, tx)
            if inode.mapping != InodeLayout.Mapping.inline, !(try freeExtents(inode, from: 0, to: Extent.maximumIndex, tx)) { return false }
        }
        try freeAttributes(inode, tx)
        try removeOrphan(inode.number, tx)
        if core(inode.number, tx) != nil {
            let core = try coreForWrite(inode, tx)
            guard !tx.newCores.contains(where: { $0.slot == core.slot }) else { throw damaged("inode \(inode.number) came back") }
            tx.reserved -= Int(core.reserved) + Int(core.reservedNodes)
            tx.givenCores.append(Transaction.CoreSlot(inode: core.inode, slot: core.slot))
            core.cell.zero(0, CoreInode.size)
        }
        try freeInode(inode, tx)
        return true
    }

    /// The last name of an inode is gone: it goes now, or when its last descriptor does.
    func dropLastLink(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        let isOpen = core(inode.number, tx).map { $0.openCount > 0 } ?? false
        let isBusy = engine.writingBack.contains(inode.number) || engine.reclaiming.contains(inode.number)
            || core(inode.number, tx).map { $0.flags & CoreInode.Flag.shrinking != 0 } ?? false
        // Removal of a file of a few extents is one transaction; of a larger one, a first step of many.
        if !isOpen && !isBusy && inode.mapping != InodeLayout.Mapping.tree || inode.isDirectory {
            if try destroy(inode, tx) { return }
        }
        try addOrphan(inode.number, kind: OrphanKind.unlinked, from: 0, count: 0, tx)
        if isOpen {
            try coreForWrite(inode, tx).flags |= CoreInode.Flag.orphan
        } else {
            tx.reclaims.append(inode.number)
        }
    }

    // MARK: fallocate

    static let keepSize: UInt32 = 1
    static let punchHole: UInt32 = 2
    static let zeroRange: UInt32 = 16

    func fallocate(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, progress, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        guard request.offset >= 0, request.length > 0, request.length <= Volume.maximumSize else { throw .errno(Errno.invalid) }
        let keepSize = request.flags & Volume.keepSize != 0
        let mode = request.flags & ~Volume.keepSize
        guard mode == 0 || mode == Volume.zeroRange || mode == Volume.punchHole && keepSize else {
            throw .errno(Errno.operationNotSupported)
        }
        guard description.isWritable else { throw .errno(Errno.badDescriptor) }
        let file = try inode(description.inode, tx)
        guard file.isRegular else { throw .errno(file.isDirectory ? Errno.isDirectory : Errno.noDevice) }
        let start = UInt64(request.offset)
        let (end, overflow) = start.addingReportingOverflow(request.length)
        guard !overflow, end <= Volume.maximumSize else { throw .errno(Errno.tooBig) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        try requireUntouched(file.number, tx)
        let inode = try inodeForWrite(file.number, tx)
        if mode == Volume.punchHole {
            try punch(inode, from: start, to: end, tx)
            try finishAllocation(inode, nil, tx)
            return Outcome(0)
        }
        guard try reserveRange(inode, from: start, to: end, progress, tx) else { return .more }
        if try allocateRange(inode, from: start, to: end, zeroing: mode == Volume.zeroRange, tx) {
            tx.reserved -= tx.nextProgress.reserved
            tx.nextProgress.reserved = 0
            try finishAllocation(inode, keepSize ? nil : end, tx)
            return Outcome(0)
        }
        takeTicket(inode.number, tx)
        return .more
    }

    private func finishAllocation(_ inode: Inode, _ size: UInt64?, _ tx: Transaction) throws(Stop) {
        inode.modificationTime = now
        inode.changeTime = now
        if let size, size > liveSize(inode, tx) { try setSize(inode, size, tx) } else { try syncTimes(inode, tx) }
    }

    private func punch(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        // Inline bytes go even where a page lies over them, or they would be seen again when the page has gone.
        if inode.mapping == InodeLayout.Mapping.inline {
            let end = min(to, UInt64(inode.inlineCount))
            if from < end { inode.inline.zero(Int(from), Int(end - from)) }
            mirrorZeros(inode.number, from: from, to: min(to, UInt64(InodeLayout.inlineSize)), tx)
            if !cache.dirtyLists.contains(inode.number) { return }
        }
        let (firstWhole, endWhole) = ((from + Volume.pageSize - 1) / Volume.pageSize, to / Volume.pageSize)
        try zeroEdges(inode, from: from, to: to, tx)
        if firstWhole < endWhole {
            try dropPages(inode, from: firstWhole, to: endWhole, tx)
            try doom(inode, from: firstWhole, count: endWhole - firstWhole, tx)
            try keepPunchedPages(inode.number, from: firstWhole, to: endWhole, tx)
        }
    }

    /// Zeros the bytes of [from, to) in the pages that it covers in part.
    private func zeroEdges(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        let (first, last) = (from / Volume.pageSize, to / Volume.pageSize)
        let (head, tail) = (from % Volume.pageSize, to % Volume.pageSize)
        if first == last {
            try zeroPage(inode, first, from: head, to: tail, tx)
            return
        }
        if head != 0 { try zeroPage(inode, first, from: head, to: Volume.pageSize, tx) }
        if tail != 0 { try zeroPage(inode, last, from: 0, to: tail, tx) }
    }

    /// A step that has staged so much ends: what it may still add fits into the smallest journal's batch.
    private static let stagedStep = 40 << 10

    /// Lookups that one transaction makes at most while it walks over a file's extents: each may touch a leaf of its own.
    var walkStep: Int { max(4, min(256, cache.count / 16)) }

    /// Reserves blocks for what has none in [from, to), before anything is changed, so that no later step meets a full volume. True: all is
    /// reserved, and this very transaction may begin with the work; phase 1 is the work.
    private func reserveRange(_ inode: Inode, from: UInt64, to: UInt64, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Bool {
        if progress.phase != 0 { return true }
        // What fits into the inode needs no block.
        if inode.mapping == InodeLayout.Mapping.inline && to <= UInt64(InodeLayout.inlineSize) && cache.find(inode.number, 0) < 0 { return true }
        let (first, end) = (from / Volume.pageSize, (to + Volume.pageSize - 1) / Volume.pageSize)
        var index = first + progress.done
        var count: UInt64 = 0
        var looks = 0
        while index < end && looks < walkStep {
            let (extent, next) = try lookup(inode, index, tx)
            if extent == nil { count += min(next, end) - index }
            index = min(extent?.end ?? next, end)
            looks += 1
        }
        let isLast = index == end
        // Nodes as for a write of as much: nobody is refused here what `write` would give.
        let reserved = UInt64(progress.reserved) + count
        guard reserved <= geometry.blockCount else { throw .errno(Errno.noSpace) }
        let nodes = isLast ? Int(nodesFor(UInt32(truncatingIfNeeded: min(reserved, UInt64(UInt32.max) / 8)), inode)) : 0
        if count > 0 { try requireSpace(Int(count) + nodes, tx) }
        tx.reserved += Int(count) + nodes
        tx.nextProgress.reserved += Int(count) + nodes
        tx.nextProgress.done = isLast ? 0 : index - first
        tx.nextProgress.phase = isLast ? 1 : 0
        if !isLast { takeTicket(inode.number, tx) }
        return isLast
    }

    /// One step of making [from, to) allocated, or zeros under unwritten extents. True: nothing is left to do.
    ///
    /// Zeroing turns written blocks into unwritten ones where they are: it takes no space, and each step is whole or not there.
    private func allocateRange(_ inode: Inode, from: UInt64, to: UInt64, zeroing: Bool, _ tx: Transaction) throws(Stop) -> Bool {
        if inode.mapping == InodeLayout.Mapping.inline {
            let hasPage = cache.find(inode.number, 0) >= 0
            if to <= UInt64(InodeLayout.inlineSize) && !hasPage {
                let end = min(to, UInt64(inode.inlineCount))
                if zeroing && from < end { inode.inline.zero(Int(from), Int(end - from)) }
                if zeroing { mirrorZeros(inode.number, from: from, to: to, tx) }
                return true
            }
            // Bytes of the inode, or of a page that has no block yet, reach their block before the mapping can have others.
            if hasPage { throw .writeback(inode.number) }
            if inode.inlineCount > 0 {
                let core = try coreForWrite(inode, tx)
                try unsafe publishPage(inode, core, 0, from: 0, to: 0, nil, size: liveSize(inode, tx), tx)
                markAttributesDirty(core, timesOnly: false, tx)
                tx.flushes.append(inode.number)
                return false
            }
        }
        let (first, end) = (from / Volume.pageSize, (to + Volume.pageSize - 1) / Volume.pageSize)
        // Whole pages are zeroed by what the mapping says, the edges as bytes.
        let (firstWhole, endWhole) = zeroing ? ((from + Volume.pageSize - 1) / Volume.pageSize, to / Volume.pageSize) : (0, 0)
        var index = first + tx.nextProgress.done
        if zeroing && index == first { try zeroEdges(inode, from: from, to: to, tx) }
        let begin = index
        var (looks, changes) = (0, 0)
        var blocks: UInt64 = 0
        while index < end && looks < walkStep && changes < Volume.freeStepExtents && blocks < Volume.freeStepBlocks && tx.stagedSize < Volume.stagedStep {
            let (extent, next) = try lookup(inode, index, tx)
            looks += 1
            if let extent {
                let (zeroFrom, zeroTo) = (max(index, firstWhole), min(extent.end, endWhole))
                if !extent.unwritten && zeroFrom < zeroTo {
                    try changeMapping(inode, zeroFrom, zeroTo - zeroFrom, unwritten: true, tx)
                    tx.retired.append(Transaction.Extent(start: extent.block + (zeroFrom - extent.index), count: zeroTo - zeroFrom))
                    changes += 1
                }
                index = min(extent.end, end)
                continue
            }
            let wanted = Int(min(min(next, end) - index, Volume.freeStepBlocks - blocks))
            var goal = geometry.location(ofInode: inode.number).block
            if index > 0, let before = try lookup(inode, index - 1, tx).extent { goal = before.block + (index - before.index) }
            let run = try allocateRun(goal: goal, wanted: wanted, tx)
            try addExtent(inode, Extent(index: index, block: run.block, count: UInt64(run.count), unwritten: true), tx)
            inode.blocks += UInt64(run.count)
            let own = min(run.count, tx.nextProgress.reserved)
            tx.reserved -= own
            tx.nextProgress.reserved -= own
            index += UInt64(run.count)
            blocks += UInt64(run.count)
            changes += 1
        }
        if zeroing && max(begin, firstWhole) < min(index, endWhole) {
            try dropPages(inode, from: max(begin, firstWhole), to: min(index, endWhole), tx)
        }
        tx.nextProgress.done = index - first
        return index == end
    }

    // MARK: Holes

    /// lseek(2) SEEK_DATA and SEEK_HOLE: the end of the file counts as a hole. nil: there is more to look through, in a further step.
    func seekContent(_ file: Inode, _ offset: UInt64, hole: Bool, _ progress: Progress, _ tx: Transaction) throws(Stop) -> UInt64? {
        let size = liveSize(file, tx)
        guard offset < size else { throw .errno(Errno.noDeviceAddress) }
        var index = max(offset / Volume.pageSize, progress.done)
        var looks = 0
        if file.mapping == InodeLayout.Mapping.inline {
            // Inline bytes are data; what lies beyond them, and is not dirty, is a hole.
            if index == 0 && (file.inlineCount > 0 || size <= UInt64(InodeLayout.inlineSize)) && cache.find(file.number, 0) < 0 {
                if !hole { return offset }
                index = 1
            }
        }
        let lastIndex = (size - 1) / Volume.pageSize
        while index <= lastIndex {
            if looks == walkStep {
                tx.nextProgress.done = index
                return nil
            }
            looks += 1
            let frame = cache.find(file.number, index)
            let isDirty = frame >= 0 && cache.header(frame).flags & FrameFlag.needsWriteback != 0
            let (extent, next) = try lookup(file, index, tx)
            if isDirty {
                if !hole { return max(offset, index * Volume.pageSize) }
                index += 1
                continue
            }
            let isData = extent.map { !$0.unwritten } ?? false
            if isData != hole { return max(offset, index * Volume.pageSize) }
            let end = extent?.end ?? next
            // A dirty page may stand in a hole or an unwritten extent.
            index = min(end, isData ? end : cache.nextDirtyIndex(file.number, from: index + 1) ?? end)
        }
        if hole { return size }
        throw .errno(Errno.noDeviceAddress)
    }
}
