import CSystem

/// From a finished transaction to changed memory: reserve, record, publish, apply.
struct NewMetadataFrame { var frame: Int, block: UInt64 }

extension Volume {
    /// Makes everything staged true, at once, or throws without having changed anything.
    ///
    /// Order: frames and journal room are found first; the durable changes are appended to the open batch and everything is described in the
    /// operation record, both not yet valid; one store publishes; `apply` changes the shared memory; then what is private to
    /// this process follows.
    func commit(_ tx: Transaction, token: UInt64, result: Int64) throws(Stop) {
        if tx.isEmpty { return }
        let durable = try reserve(tx)
        let batch = unsafe region.batch(journal.openIndex)
        let from = journal.openLength
        var to = from
        var entries = journal.openEntries
        let number = region.load(.published) + 1
        var record = unsafe RecordWriter(region.record)

        // Frames for blocks that are new or are being written right now.
        for number in newMetadataFrames.indices {
            let entry = newMetadataFrames[number]
            record.words(RecordLayout.Action.metadataFrame, UInt64(entry.frame), entry.block)
        }
        var imaged = 0
        for cellNumber in 0..<tx.cellCount {
            let cell = tx.staged(cellNumber)
            if cell.frame == Transaction.stateFrame {
                unsafe record.state(Int(cell.address & ~StateAddress.bit), tx.stagedPointer(cellNumber), Int(cell.length))
                continue
            }
            let block = cell.address / UInt64(BlockLayout.size)
            if cell.frame == Transaction.freshFrame {
                unsafe appendEntry(batch, &to, &entries, JournalLayout.Kind.image, JournalLayout.freshFlag, block, tx.stagedPointer(cellNumber), BlockLayout.size)
                continue
            }
            let frame = Int(cell.frame)
            let original = unsafe cache.pointer(frame) + Int(cell.address % UInt64(BlockLayout.size))
            let header = cache.header(frame)
            if (header.imageSequence == 0 || header.state == .writing) && imageStamp[frame] != tx.stamp {
                imageStamp[frame] = tx.stamp
                imaged += 1
                if capabilities.atomicWriteUnit < BlockLayout.size && journal.bug != .imagesAreNotLogged {
                    unsafe appendEntry(batch, &to, &entries, JournalLayout.Kind.image, 0, block, cache.pointer(frame), BlockLayout.size)
                }
            }
            unsafe appendDifference(batch, &to, &entries, cell.address, original, tx.stagedPointer(cellNumber), Int(cell.length))
        }
        for number in tx.freed.indices {
            let freed = tx.freed[number]
            unsafe appendHeader(
                batch, &to, &entries, JournalLayout.Kind.free, freed.isMetadata ? JournalLayout.metadataFlag : 0, freed.start, Int(freed.count))
        }
        for number in tx.drops.indices {
            let drop = tx.drops[number]
            record.words(RecordLayout.Action.drop, drop.owner, drop.first, drop.last)
        }
        for number in tx.publications.indices {
            let publication = tx.publications[number]
            record.words(
                RecordLayout.Action.publish, UInt64(publication.frame), publication.owner, publication.index, publication.block,
                UInt64(publication.flags))
        }
        // After the publications: a frame may be published and recorded at once.
        for number in tx.writebacks.indices {
            let writeback = tx.writebacks[number]
            if !writeback.ordered {
                unsafe appendEntry(batch, &to, &entries, JournalLayout.Kind.data, 0, writeback.block, cache.pointer(writeback.frame), BlockLayout.size)
            }
            record.words(RecordLayout.Action.writeback, UInt64(writeback.frame), writeback.block, writeback.ordered ? 1 : 0)
        }
        precondition(to - from <= durable && record.at <= Region.Layout.record)

        let head = record.record
        head.set(RecordLayout.numberAt, number)
        head.set(RecordLayout.batchAt, UInt32(journal.openIndex))
        head.set(RecordLayout.fromAt, UInt64(from))
        head.set(RecordLayout.toAt, UInt64(to))
        head.set(RecordLayout.entriesAt, UInt64(entries))
        head.set(RecordLayout.sequenceAt, journal.openSequence)
        head.set(RecordLayout.tokenAt, token)
        head.set(RecordLayout.resultAt, result)
        head.set(RecordLayout.lengthAt, UInt64(record.at - RecordLayout.actionsAt))
        dashfs_release_fence()
        if journal.bug == .appliesBeforePublishing { applyPublished() }
        region.store(.published, number)
        applyPublished()

        // Private: what is derived from the shared memory.
        if from == 0 && to > 0 { journal.openedAt = clock.monotonic }
        journal.openLength = to
        journal.openEntries = entries
        settle(tx)
    }

    /// Finds the frames and the journal room that applying will need; returns the upper bound of batch bytes.
    private func reserve(_ tx: Transaction) throws(Stop) -> Int {
        newMetadataFrames.removeAll()
        var bytes = 0
        var needsFrames = tx.freshCount > 0
        for number in 0..<tx.cellCount {
            let cell = tx.staged(number)
            if cell.frame == Transaction.stateFrame { continue }
            // Worst case of alternating changed words, and an image.
            bytes += Int(cell.length) * 2 + 64
            if cell.frame >= 0 {
                let header = cache.header(Int(cell.frame))
                if header.imageSequence == 0 || header.state == .writing { bytes += BlockLayout.size + JournalLayout.entryHeaderSize }
                if header.state == .writing { needsFrames = true }
            }
        }
        for number in tx.writebacks.indices where !tx.writebacks[number].ordered { bytes += BlockLayout.size + JournalLayout.entryHeaderSize }
        bytes += tx.freed.count * JournalLayout.entryHeaderSize
        if bytes > 0 {
            if isReadOnly { throw .errno(Errno.readOnly) }
            // The bounds of operations keep them below this; a volume with strange trees gets an errno, not an endless wait.
            if bytes > journal.batchCapacity - JournalLayout.headerSize { throw damaged("a change of \(bytes) bytes, too large for the journal") }
            if !journal.hasRoom(bytes, mayUseReserve: tx.isInternal) { throw .journal }
        }
        for number in 0..<(needsFrames ? tx.cellCount : 0) {
            let cell = tx.staged(number)
            let block = cell.address / UInt64(BlockLayout.size)
            guard cell.frame == Transaction.freshFrame
                || cell.frame >= 0 && cache.header(Int(cell.frame)).state == .writing && journal.bug != .framesChangeUnderWrites
                    && !newMetadataFrames.contains(where: { $0.block == block })
            else { continue }
            guard let frame = cache.allocate(stamp: tx.stamp) else {
                for number in newMetadataFrames.indices { cache.release(newMetadataFrames[number].frame) }
                throw .frames
            }
            newMetadataFrames.append(NewMetadataFrame(frame: frame, block: block))
        }
        return bytes
    }

    private func appendHeader(
        _ batch: UnsafeMutableRawPointer, _ to: inout Int, _ entries: inout Int, _ kind: UInt8, _ flags: UInt8, _ address: UInt64, _ length: Int
    ) {
        let at = unsafe batch + JournalLayout.headerSize + to
        unsafe at.storeBytes(of: (UInt64(length) << 32 | UInt64(flags) << 8 | UInt64(kind)).littleEndian, as: UInt64.self)
        unsafe at.storeBytes(of: address.littleEndian, toByteOffset: 8, as: UInt64.self)
        to += JournalLayout.entryHeaderSize
        entries += 1
    }

    private func appendEntry(
        _ batch: UnsafeMutableRawPointer, _ to: inout Int, _ entries: inout Int, _ kind: UInt8, _ flags: UInt8, _ address: UInt64,
        _ bytes: UnsafeRawPointer, _ length: Int
    ) {
        unsafe appendHeader(batch, &to, &entries, kind, flags, address, length)
        unsafe (batch + JournalLayout.headerSize + to).copyMemory(from: bytes, byteCount: length)
        to += (length + 7) & ~7
    }

    /// Deltas for the words in which the staged cell differs from the frame: what was changed cannot be forgotten, because it is found here.
    private func appendDifference(
        _ batch: UnsafeMutableRawPointer, _ to: inout Int, _ entries: inout Int, _ address: UInt64, _ old: UnsafeRawPointer,
        _ new: UnsafeRawPointer, _ length: Int
    ) {
        var at = 0
        while true {
            at = unsafe dashfs_difference(old, new, at, length)
            if at >= length { return }
            let end = unsafe dashfs_difference_end(old, new, at, length)
            unsafe appendEntry(batch, &to, &entries, JournalLayout.Kind.delta, 0, address &+ UInt64(at), new + at, end &- at)
            at = end
        }
    }

    /// Counters, slot pools, indexes and I/O that follow from a committed transaction.
    private func settle(_ tx: Transaction) {
        freeBlocks += tx.freeBlocks
        freeInodes += tx.freeInodes
        reservedBlocks += tx.reserved
        for number in tx.cursors.indices {
            let cursor = tx.cursors[number]
            if cursor.block >= 0 { unsafe groups[cursor.group].freeBlockHint = cursor.block }
            if cursor.inodeWord >= 0 { unsafe groups[cursor.group].freeInodeHint = cursor.inodeWord }
        }
        corePool.take(tx.takenCores)
        descriptionPool.take(tx.takenDescriptions)
        lockPool.take(tx.takenLocks)
        for number in tx.newCores.indices { coreIndex.insert(HashIndex.hash(tx.newCores[number].inode, 0), slot: tx.newCores[number].slot) }
        for number in tx.givenCores.indices {
            let core = tx.givenCores[number]
            coreIndex.remove(HashIndex.hash(core.inode, 0), slot: core.slot) { slot in
                // Rows freed together are zero already.
                let inode = unsafe region.state.load(fromByteOffset: slot * CoreInode.size, as: UInt64.self)
                return HashIndex.hash(inode != 0 ? inode : tx.givenCoreInode(slot: slot), 0)
            }
            corePool.give(core.slot)
            dirtySince[core.inode] = nil
        }
        for number in tx.dirtied.indices where !dirtySince.contains(tx.dirtied[number]) { becameDirty(tx.dirtied[number]) }
        for number in tx.cleaned.indices { dirtySince[tx.cleaned[number]] = nil }
        for number in tx.givenDescriptions.indices { descriptionPool.give(tx.givenDescriptions[number]) }
        if tx.shared >= 0 || tx.unshared.slot >= 0 { indexShares(tx) }
        if tx.takenLocks != 0 { sessions[tx.holder].locks += tx.takenLocks }
        for number in tx.givenLocks.indices {
            lockPool.give(tx.givenLocks[number].slot)
            // A description's locks may count for another of its holders than the one that releases them.
            if tx.givenLocks[number].session >= 0 { sessions[tx.givenLocks[number].session].locks -= 1 }
        }
        if tx.takenDescriptions != tx.givenDescriptions.count { sessions[tx.holder].descriptions += tx.takenDescriptions - tx.givenDescriptions.count }
        if tx.freeBlocks != 0 || tx.freeInodes != 0 || !tx.freed.isEmpty { refreshGroups(tx) }
        for number in tx.freed.indices { holdFreed(tx.freed[number].start, tx.freed[number].count, sequence: journal.openSequence) }
        for number in tx.grown.indices { journal.grew(tx.grown[number].inode, fromPage: tx.grown[number].page) }
        for number in tx.retired.indices { journal.retire(tx.retired[number].start, tx.retired[number].count) }
        tx.publications.removeAll()
        if !tx.writebacks.isEmpty {
            if capabilities.atomicWriteUnit >= BlockLayout.size {
                for number in tx.writebacks.indices where !tx.writebacks[number].ordered { journal.logged(tx.writebacks[number].block) }
            }
            issueOrderedWrites(tx)
        }
        if !mappedFiles.isEmpty { settleMaps(tx) }
        if tx.unlockedInode != 0 { wakeLockWaiters(tx.unlockedInode) }
        for number in tx.reclaims.indices { startReclaim(tx.reclaims[number]) }
        for number in tx.flushes.indices { requestWriteback(tx.flushes[number]) }
    }

    /// Group summaries from the group blocks that the transaction changed.
    private func refreshGroups(_ tx: Transaction) {
        for number in 0..<tx.cellCount {
            let cell = tx.staged(number)
            guard cell.frame != Transaction.stateFrame, Int(cell.address % UInt64(BlockLayout.size)) == GroupLayout.countersAt,
                Int(cell.length) == GroupLayout.countersSize
            else { continue }
            let group = geometry.group(ofBlock: cell.address / UInt64(BlockLayout.size))
            let counters = unsafe Bytes(tx.stagedPointer(number), count: GroupLayout.countersSize, writable: false)
            // A bitmap cell has the same place and size in its block, but lies one block further.
            guard cell.address / UInt64(BlockLayout.size) == geometry.start(ofGroup: group) else { continue }
            unsafe groups[group].freeBlocks = Int(counters.u32(GroupLayout.freeBlocksAt - GroupLayout.countersAt))
            unsafe groups[group].freeInodes = Int(counters.u32(GroupLayout.freeInodesAt - GroupLayout.countersAt))
        }
    }
}
