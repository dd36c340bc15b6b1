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
        } else if newSize > size {
            let core = core(file.number, tx)
            // Inline bytes stay where they are: what lies beyond them reads as zeros. The durable size never covers data that waits.
            if !cache.dirtyLists.contains(file.number) { inode.size = newSize }
            if core != nil {
                let writable = try coreForWrite(inode, tx)
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
        if tail != 0 { try zeroPage(inode, newSize / Volume.pageSize, from: tail, to: Volume.pageSize, tx) }
        try dropPages(inode, from: firstGone, to: .max, tx)
        inode.size = min(inode.size, newSize)
        if core(inode.number, tx) != nil {
            let core = try coreForWrite(inode, tx)
            core.size = newSize
            if newSize == 0 { core.flags |= CoreInode.Flag.flushAtClose }
        }
        try doom(inode, from: firstGone, count: Extent.maximumIndex - min(firstGone, Extent.maximumIndex), tx)
        let isUnmapped = inode.mapping == InodeLayout.Mapping.extents && inode.inlineCount == 0
            || inode.mapping == InodeLayout.Mapping.tree && inode.root == 0
        if newSize == 0 && isUnmapped { inode.mapping = InodeLayout.Mapping.inline }
    }

    /// Zeros bytes [from, to) of a page that has content; a hole needs nothing.
    private func zeroPage(_ inode: Inode, _ page: UInt64, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        if try tx.data(inode.number, page) < 0 {
            if inode.mapping == InodeLayout.Mapping.inline { return }
            guard let extent = try lookup(inode, page, tx).extent, !extent.unwritten else { return }
        }
        let core = try coreForWrite(inode, tx)
        // Size `.max`: the whole page counts as content, so that it is read before its middle is replaced.
        try unsafe publishPage(inode, core, page, from: page * Volume.pageSize + from, to: page * Volume.pageSize + to, nil, size: .max, tx)
        markAttributesDirty(core, timesOnly: false, tx)
    }

    /// The cache forgets pages [from, to), with what was reserved for them.
    private func dropPages(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        // No frame lies beyond the end of the file.
        let size = max(liveSize(inode, tx), inode.size)
        let to = min(to, (size + Volume.pageSize - 1) / Volume.pageSize)
        guard from < to else { return }
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
        let (end, overflow) = UInt64(request.offset).addingReportingOverflow(request.length)
        guard !overflow, end <= Volume.maximumSize else { throw .errno(Errno.tooBig) }
        try requireUntouched(file.number, tx)
        let inode = try inodeForWrite(file.number, tx)
        if mode != 0 && progress.phase == 0 {
            try punch(inode, from: UInt64(request.offset), to: end, tx)
            try finishAllocation(inode, nil, tx)
            if mode == Volume.punchHole { return Outcome(0) }
            takeTicket(inode.number, tx)
            tx.nextProgress.phase = 1
            return .more
        }
        let done = try preallocate(inode, from: UInt64(request.offset) + progress.done, to: end, first: progress.done == 0, tx)
        if UInt64(request.offset) + progress.done + done < end {
            takeTicket(inode.number, tx)
            tx.nextProgress.done = progress.done + done
            return .more
        }
        try finishAllocation(inode, keepSize ? nil : end, tx)
        return Outcome(0)
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
            if !cache.dirtyLists.contains(inode.number) { return }
        }
        let (firstWhole, endWhole) = ((from + Volume.pageSize - 1) / Volume.pageSize, to / Volume.pageSize)
        if firstWhole > endWhole {
            try zeroPage(inode, from / Volume.pageSize, from: from % Volume.pageSize, to: to % Volume.pageSize, tx)
            return
        }
        if from % Volume.pageSize != 0 { try zeroPage(inode, from / Volume.pageSize, from: from % Volume.pageSize, to: Volume.pageSize, tx) }
        if to % Volume.pageSize != 0 { try zeroPage(inode, to / Volume.pageSize, from: 0, to: to % Volume.pageSize, tx) }
        if firstWhole < endWhole {
            try dropPages(inode, from: firstWhole, to: endWhole, tx)
            try doom(inode, from: firstWhole, count: endWhole - firstWhole, tx)
        }
    }

    /// Maps unwritten blocks under what has none. How many bytes this transaction has dealt with.
    private func preallocate(_ inode: Inode, from: UInt64, to: UInt64, first: Bool, _ tx: Transaction) throws(Stop) -> UInt64 {
        if inode.mapping == InodeLayout.Mapping.inline {
            if to <= UInt64(InodeLayout.inlineSize) && cache.find(inode.number, 0) < 0 {
                // The inode has the room already.
                return to - from
            }
            if inode.inlineCount > 0 && cache.find(inode.number, 0) < 0 {
                let core = try coreForWrite(inode, tx)
                try unsafe publishPage(inode, core, 0, from: 0, to: 0, nil, size: liveSize(inode, tx), tx)
                markAttributesDirty(core, timesOnly: false, tx)
            }
            // The inline bytes must reach their block before the mapping can have others.
            if cache.find(inode.number, 0) >= 0 || inode.inlineCount > 0 {
                if tx.publications.isEmpty { throw .writeback(inode.number) }
                tx.flushes.append(inode.number)
                return 0
            }
        }
        let endIndex = (to + Volume.pageSize - 1) / Volume.pageSize
        if first { try requireSpace(try unmappedBlocks(inode, from: from / Volume.pageSize, to: endIndex, tx), tx) }
        var index = from / Volume.pageSize
        var runs = 0
        var blocks: UInt64 = 0
        while index < endIndex && runs < Volume.freeStepExtents && blocks < Volume.freeStepBlocks {
            let (extent, next) = try lookup(inode, index, tx)
            if let extent {
                index = extent.end
                continue
            }
            let wanted = Int(min(min(next, endIndex) - index, Volume.freeStepBlocks - blocks))
            try requireSpace(1, tx)
            var goal = geometry.location(ofInode: inode.number).block
            if index > 0, let before = try lookup(inode, index - 1, tx).extent { goal = before.block + (index - before.index) }
            let run = try allocateRun(goal: goal, wanted: wanted, tx)
            try addExtent(inode, Extent(index: index, block: run.block, count: UInt64(run.count), unwritten: true), tx)
            inode.blocks += UInt64(run.count)
            index += UInt64(run.count)
            blocks += UInt64(run.count)
            runs += 1
        }
        return min(index * Volume.pageSize, to) - from
    }

    private func unmappedBlocks(_ inode: Inode, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) -> Int {
        var index = from
        var count: UInt64 = 0
        while index < to {
            let (extent, next) = try lookup(inode, index, tx)
            if let extent { index = extent.end } else {
                count += min(next, to) - index
                index = min(next, to)
            }
        }
        return Int(min(count, UInt64(Int.max)))
    }

    // MARK: Holes

    /// lseek(2) SEEK_DATA and SEEK_HOLE: the end of the file counts as a hole.
    func seekContent(_ file: Inode, _ offset: UInt64, hole: Bool, _ tx: Transaction) throws(Stop) -> UInt64 {
        let size = liveSize(file, tx)
        guard offset < size else { throw .errno(Errno.noDeviceAddress) }
        var index = offset / Volume.pageSize
        if file.mapping == InodeLayout.Mapping.inline {
            // Inline bytes are data; what lies beyond them, and is not dirty, is a hole.
            if index == 0 && (file.inlineCount > 0 || size <= UInt64(InodeLayout.inlineSize)) && cache.find(file.number, 0) < 0 {
                if !hole { return offset }
                index = 1
            }
        }
        let lastIndex = (size - 1) / Volume.pageSize
        while index <= lastIndex {
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
