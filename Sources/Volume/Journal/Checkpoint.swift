/// Brings blocks home whose images the journal holds, so that its tail can move.
///
/// One round at a time: the oldest dirty frames whose records are durable are written home in block order and contiguous runs, then
/// one flush; only then the tail passes their images. Frames with content that is in no record yet are logged again first (write-back), and go home
/// with the rest. That takes room in the ring: where someone waits for room, a copy of theirs goes home instead. The image in the ring repairs it
/// if it tears, and an fsync still finds the frame dirty and logs it.
@safe struct Checkpoint {
    enum Phase { case idle, writing, flushing }
    var phase = Phase.idle
    /// Oldest image of the round's frames: the tail stays below it until the flush is done.
    var oldest: UInt64?
    var inFlight = 0
    var queue: [(block: UInt64, frames: [UInt32])] = []
    var rounds: UInt64 = 0
    /// Everything must go home: shutdown.
    var drain = false
}

extension Volume {
    private var checkpointIsDue: Bool {
        cache.checkpointCount > 0
            && (checkpoint.drain || journalStarved || journal.usedBlocks * 2 > journal.ring || cache.checkpointCount * 2 > cache.count
                || framesStarved)
    }

    func advanceCheckpoint() {
        if isReadOnly { return }
        switch checkpoint.phase {
        case .idle: if checkpointIsDue { beginRound() }
        case .writing: pushHomeWrites()
        case .flushing: break
        }
    }

    private func beginRound() {
        var chosen: [(block: UInt64, frame: UInt32)] = []
        var oldest = UInt64.max
        var blockedByCommit = false
        var frame = cache.checkpointHead
        let limit = min(256, max(8, cache.count / 4))
        while frame != Cache.none && chosen.count < limit {
            let header = cache.header(Int(frame))
            let next = cache.nextInCheckpoint(frame)
            if header.lastSequence > journal.durableSequence && journal.bug != .homeBeforeRecord {
                blockedByCommit = true
            } else if header.state == .dirty && header.flags & FrameFlag.needsWriteback != 0 && (!journalStarved || journal.bug == .fullRingWaitsForItself) {
                requestWriteback(header.owner)
            } else if header.state == .dirty && !detachedImages.contains(where: { $0.block == header.block }) {
                if let frame = header.flags & FrameFlag.needsWriteback == 0 ? frame : homeCopy(header, Int(frame)) {
                    chosen.append((header.block, frame))
                    oldest = min(oldest, header.imageSequence)
                }
            }
            frame = next
        }
        if chosen.isEmpty {
            if blockedByCommit { commitSoon() }
            return
        }
        chosen.sort { $0.block < $1.block }
        checkpoint.oldest = oldest
        checkpoint.phase = .writing
        checkpoint.rounds += 1
        checkpoint.queue.removeAll(keepingCapacity: true)
        var run: [UInt32] = []
        var first: UInt64 = 0
        for entry in chosen {
            if !run.isEmpty && (entry.block != first + UInt64(run.count) || run.count == maximumRun) {
                checkpoint.queue.append((first, run))
                run.removeAll()
            }
            if run.isEmpty { first = entry.block }
            run.append(entry.frame)
            unsafe cache.headers[Int(entry.frame)].state = .writing
            // The checksum is a function of the rest of the block; storing it here changes nothing that a record says.
            if cache.header(Int(entry.frame)).owner == 0 { unsafe BlockLayout.seal(cache.pointer(Int(entry.frame))) }
        }
        checkpoint.queue.append((first, run))
        pushHomeWrites()
    }

    /// The records under way, and what is open, are wanted.
    private func commitSoon() { journal.wanted = max(journal.wanted, journal.openLength > 0 ? journal.openSequence : journal.sealedSequence) }

    /// A frame that stands for one that waits for its write-back; nil where there is none yet. The frame keeps its image until the copy is home.
    private func homeCopy(_ original: FrameHeader, _ frame: Int) -> UInt32? {
        guard let size = committedSize(original.owner) else { return nil }
        let start = min(original.index * Volume.pageSize, size)
        guard let copy = cache.allocate(stamp: transaction.stamp) else {
            framesStarved = true
            return nil
        }
        unsafe cache.pointer(copy).copyMemory(from: cache.pointer(frame), byteCount: BlockLayout.size)
        let kept = journal.bug == .unsyncedBytesGoBeyondTheEnd ? BlockLayout.size : Int(min(size - start, Volume.pageSize))
        // What lies beyond the end that the file has without its write-back would come back when it grows.
        unsafe (cache.pointer(copy) + kept).initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size - kept)
        var header = FrameHeader.empty
        (header.owner, header.index, header.block) = (original.owner, original.index, original.block)
        header.state = .writing
        header.flags = FrameFlag.detached
        cache.enterDetached(copy, header)
        detachedImages.append(DetachedImage(frame: copy, block: original.block, sequence: original.imageSequence))
        return UInt32(copy)
    }

    /// The size in the durable inode. nil: its block is not in the cache, and the write-back reads it; or the record of its last change comes first.
    private func committedSize(_ inode: UInt64) -> UInt64? {
        let (block, offset) = geometry.location(ofInode: inode)
        let frame = cache.find(0, block)
        if frame < 0 {
            requestWriteback(inode)
            // It may be waiting for room since it read the block.
            wakeJournalWaiters()
            return nil
        }
        let header = cache.header(frame)
        if header.state == .filling { return nil }
        if header.lastSequence > journal.durableSequence {
            commitSoon()
            return nil
        }
        return unsafe Inode(number: inode, cell: Bytes(cache.pointer(frame) + offset, count: InodeLayout.size, writable: false)).size
    }

    private func pushHomeWrites() {
        while let entry = checkpoint.queue.last {
            guard submitFrames(.write, block: entry.block, frames: entry.frames, purpose: .home) else { return }
            checkpoint.queue.removeLast()
            checkpoint.inFlight += 1
        }
        if checkpoint.inFlight == 0 { finishWrites() }
    }

    func homeWritten(_ io: PendingIO, error: Int32) {
        checkpoint.inFlight -= 1
        if error != 0 { stopWriting("block writes fail (errno \(error))") }
        for frame in io.frames { written(Int(frame)) }
        if checkpoint.inFlight == 0 && checkpoint.queue.isEmpty { finishWrites() }
    }

    private func finishWrites() {
        if isReadOnly { return }
        if capabilities.volatileCache && journal.bug != .checkpointIsNotFlushed {
            checkpoint.phase = .flushing
            if !submitFlush(.checkpointFlush) { retryFlush = true }
        } else {
            checkpointFlushed()
        }
    }

    func checkpointFlushed() {
        checkpoint.phase = .idle
        checkpoint.oldest = nil
        if journal.bug == .newerTailCountsAtOnce { journal.durableTail = Journal.LiveRecord(sequence: currentTail().sequence, position: min(currentTail().position, journal.head)) }
        advanceJournal()
    }
}
