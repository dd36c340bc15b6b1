import BlockDevice

/// Requests to the device and what their completions mean. The only file that submits I/O while the volume runs.
struct PendingIO {
    enum Purpose { case fill, direct, directFlush, ordered, home, journalRecord, journalDataFlush, journalFlush, checkpointFlush, discard, none }
    var purpose = Purpose.none
    var frames: [UInt32] = []
    /// Journal sequence whose record waits for an ordered write; the request that a flush is for.
    var sequence: UInt64 = 0
}

struct DetachedImage { var frame: Int, block: UInt64, sequence: UInt64 }

extension Volume {
    private func takeIO(_ purpose: PendingIO.Purpose, frames: [UInt32] = [], sequence: UInt64 = 0) -> Int {
        let slot: Int
        if let free = freeIOs.popLast() { slot = free } else {
            slot = pendingIOs.count
            pendingIOs.append(PendingIO())
        }
        pendingIOs[slot] = PendingIO(purpose: purpose, frames: frames, sequence: sequence)
        return slot
    }

    private func dropIO(_ slot: Int) {
        pendingIOs[slot] = PendingIO()
        freeIOs.append(slot)
    }

    /// One contiguous area of memory to or from consecutive blocks.
    func submitIO(
        _ operation: DeviceOperation, block: UInt64, address: UnsafeMutableRawPointer, length: Int, forceUnitAccess: Bool = false, purpose: PendingIO.Purpose
    ) -> Bool {
        let slot = takeIO(purpose)
        let segment = unsafe DeviceSegment(address: address, length: length)
        let accepted = unsafe withUnsafePointer(to: segment) {
            unsafe queue.submit(
                operation, offset: block * UInt64(BlockLayout.size), segments: UnsafeBufferPointer(start: $0, count: 1), length: length,
                forceUnitAccess: forceUnitAccess, tag: UInt64(slot))
        }
        if !accepted { dropIO(slot) }
        return accepted
    }

    /// - Parameter request: that it is for, where it is for one.
    func submitFlush(_ purpose: PendingIO.Purpose, request: UInt64 = 0) -> Bool {
        submitRange(.flush, block: 0, length: 0, purpose: purpose, sequence: request)
    }

    /// A request without memory.
    func submitRange(_ operation: DeviceOperation, block: UInt64, length: Int, purpose: PendingIO.Purpose, sequence: UInt64 = 0) -> Bool {
        let slot = takeIO(purpose, sequence: sequence)
        let accepted = unsafe queue.submit(
            operation, offset: block * UInt64(BlockLayout.size), segments: UnsafeBufferPointer(start: nil, count: 0), length: length,
            forceUnitAccess: false, tag: UInt64(slot))
        if !accepted { dropIO(slot) }
        return accepted
    }

    /// Frames to or from consecutive blocks; the caller has set their states.
    func submitFrames(_ operation: DeviceOperation, block: UInt64, frames: [UInt32], purpose: PendingIO.Purpose, sequence: UInt64 = 0) -> Bool {
        let slot = takeIO(purpose, frames: frames, sequence: sequence)
        segments.removeAll(keepingCapacity: true)
        for frame in frames { unsafe segments.append(DeviceSegment(address: cache.pointer(Int(frame)), length: BlockLayout.size)) }
        let accepted = unsafe segments.withUnsafeBufferPointer {
            unsafe queue.submit(
                operation, offset: block * UInt64(BlockLayout.size), segments: $0, length: frames.count * BlockLayout.size,
                forceUnitAccess: false, tag: UInt64(slot))
        }
        if !accepted { dropIO(slot) }
        return accepted
    }

    private func takeDirectPiece(_ index: Int) -> DirectPiece {
        directPieces.swapAt(index, directPieces.count - 1)
        return directPieces.removeLast()
    }

    /// Consecutive blocks to or from memory of a caller's, with frames that stand for them.
    func submitDirect(_ piece: DirectPiece, _ memory: UnsafeMutableRawPointer, frames: [UInt32]) -> Bool {
        let slot = takeIO(.direct, frames: frames)
        let length = frames.count * BlockLayout.size
        let segment = unsafe DeviceSegment(address: memory, length: length)
        let accepted = unsafe withUnsafePointer(to: segment) {
            unsafe queue.submit(
                piece.isWrite ? .write : .read, offset: piece.block * UInt64(BlockLayout.size), segments: UnsafeBufferPointer(start: $0, count: 1), length: length,
                forceUnitAccess: piece.isForced, tag: UInt64(slot))
        }
        guard accepted else {
            dropIO(slot)
            return false
        }
        directPieces.append(piece)
        directPieces[directPieces.count - 1].slot = slot
        return true
    }

    var maximumRun: Int { min(capabilities.maximumTransfer / BlockLayout.size, 128) }

    /// Takes what the device has finished. True where there was something.
    func takeCompletions() -> Bool {
        var any = false
        while let completion = queue.nextCompletion() {
            any = true
            let slot = Int(completion.tag)
            guard slot < pendingIOs.count, pendingIOs[slot].purpose != .none else { continue }
            var io = PendingIO()
            swap(&io, &pendingIOs[slot])
            freeIOs.append(slot)
            switch io.purpose {
            case .fill: for frame in io.frames { filled(Int(frame), error: completion.error) }
            case .direct: if let index = directPieces.firstIndex(where: { $0.slot == slot }) { directlyMoved(io, takeDirectPiece(index), error: completion.error) }
            case .directFlush:
                if completion.error != 0 { stopWriting("the device cannot flush (errno \(completion.error))") }
                directlyFlushed(io.sequence, error: completion.error)
            case .ordered: orderedWritten(io, error: completion.error)
            case .home: homeWritten(io, error: completion.error)
            case .journalRecord:
                if completion.error == 0 { journalRecordWritten() } else { stopWriting("the journal cannot be written (errno \(completion.error))") }
            case .journalDataFlush:
                if completion.error == 0 { journalDataFlushed() } else { stopWriting("the device cannot flush (errno \(completion.error))") }
            case .journalFlush:
                if completion.error == 0 { journalRecordDurable() } else { stopWriting("the device cannot flush (errno \(completion.error))") }
            case .checkpointFlush:
                if completion.error == 0 { checkpointFlushed() } else { stopWriting("the device cannot flush (errno \(completion.error))") }
            case .discard: discarded(error: completion.error)
            case .none: break
            }
        }
        return any
    }

    // MARK: Fills

    /// Starts the reads that a stopped operation asked for. The frames it has to wait for; nil where none could be had.
    func startFills(_ missing: borrowing List<Transaction.Missing>) -> [UInt32]? {
        var waitFor: [UInt32] = []
        for number in missing.indices {
            let miss = missing[number]
            let present = cache.find(miss.owner, miss.index)
            if present >= 0 {
                if cache.header(present).state == .filling { waitFor.append(UInt32(present)) }
                continue
            }
            var done = 0
            repeat {
                let run = emptyFrames(miss, from: done)
                if run.isEmpty { break }
                guard submitFrames(.read, block: miss.block + UInt64(done), frames: run, purpose: .fill) else {
                    for frame in run { cache.release(Int(frame)) }
                    break
                }
                // The first is what was asked for; the others are read ahead.
                if done == 0 { waitFor.append(run[0]) }
                done += run.count
                cache.misses += UInt64(run.count)
                // What the cache has already is passed over.
                while done < miss.run, cache.find(miss.owner, miss.index + UInt64(done)) >= 0 { done += 1 }
            } while done < miss.run
            if done == 0 { return waitFor.isEmpty ? nil : waitFor }
        }
        return waitFor
    }

    /// Frames for one request of `miss`, from its `done`th block on: up to where the cache has the content already, or no frames to spare.
    func emptyFrames(_ miss: Transaction.Missing, from done: Int) -> [UInt32] {
        var run: [UInt32] = []
        while done + run.count < max(1, miss.run) && run.count < maximumRun {
            let offset = UInt64(done + run.count)
            if offset > 0 && (cache.find(miss.owner, miss.index + offset) >= 0 || cache.freeFrames == 0 && offset >= cache.count / 8) { break }
            guard let frame = cache.allocate(stamp: transaction.stamp) else { break }
            var header = FrameHeader.empty
            header.owner = miss.owner
            header.index = miss.index + offset
            header.block = miss.block + offset
            header.state = .filling
            cache.enter(frame, header)
            run.append(UInt32(frame))
        }
        return run
    }

    private func filled(_ frame: Int, error: Int32) {
        let header = cache.header(frame)
        var error = error == 0 ? 0 : Errno.io
        if error == 0 && header.owner == 0 && header.flags & FrameFlag.detached == 0 {
            let block = unsafe Bytes(cache.pointer(frame), count: BlockLayout.size, writable: false)
            if let problem = BlockVerifier.problem(block, address: header.block, superblock: superblock, geometry: geometry) {
                note("block \(header.block): \(problem)")
                error = Errno.damaged
            }
        }
        if error != 0 || header.flags & FrameFlag.detached != 0 {
            cache.release(frame)
        } else {
            unsafe cache.headers[frame].state = .clean
        }
        frameReady(UInt32(frame), error: error)
    }

    // MARK: Data in place of fresh allocations

    /// Sends the frames that a write-back has given fresh blocks; their record follows them.
    func issueOrderedWrites(_ tx: Transaction) {
        var run: [UInt32] = []
        var first: UInt64 = 0
        func end() {
            if run.isEmpty { return }
            pendingOrdered.append((first, run, journal.openSequence))
            journal.openOrdered += 1
            journal.openHadOrdered = true
            run.removeAll()
        }
        for number in tx.writebacks.indices where tx.writebacks[number].ordered {
            let writeback = tx.writebacks[number]
            if !run.isEmpty && (writeback.block != first + UInt64(run.count) || run.count == maximumRun) { end() }
            if run.isEmpty { first = writeback.block }
            run.append(UInt32(writeback.frame))
            unsafe cache.headers[writeback.frame].state = .writing
        }
        end()
        pushOrderedWrites()
    }

    /// Hands queued ordered writes to the device as far as its queue has room.
    func pushOrderedWrites() {
        var sent = 0
        while sent < pendingOrdered.count {
            let entry = pendingOrdered[sent]
            guard submitFrames(.write, block: entry.block, frames: entry.frames, purpose: .ordered, sequence: entry.sequence) else { break }
            sent += 1
        }
        if sent > 0 { pendingOrdered.removeFirst(sent) }
    }

    private func orderedWritten(_ io: PendingIO, error: Int32) {
        if error != 0 { stopWriting("file data cannot be written (errno \(error))") }
        for frame in io.frames { written(Int(frame)) }
        if io.sequence == journal.openSequence { journal.openOrdered -= 1 } else if io.sequence == journal.sealedSequence { journal.sealedOrdered -= 1 }
        advanceJournal()
    }

    /// A frame's content is at home.
    func written(_ frame: Int) {
        let header = cache.header(frame)
        if header.flags & FrameFlag.detached != 0 {
            if header.owner != 0, let image = detachedImages.first(where: { $0.frame == frame }) { copyIsHome(header, image.sequence) }
            detachedImages.removeAll { $0.frame == frame }
            cache.release(frame)
            releasePinned()
            return
        }
        unsafe cache.headers[frame].flags &= ~FrameFlag.ordered
        cache.leaveCheckpoint(frame)
        unsafe cache.headers[frame].state = .clean
        wakeFrameWaiters()
    }

    /// Whoever has the place of the frame that was copied, and no newer image, needs that image no more.
    private func copyIsHome(_ header: FrameHeader, _ sequence: UInt64) {
        let present = cache.find(header.owner, header.index)
        if present >= 0 && cache.header(present).imageSequence == sequence { cache.leaveCheckpoint(present) }
    }

    // MARK: Freed blocks

    /// Marks freed blocks as not reusable before the record that frees them is durable.
    func holdFreed(_ start: UInt64, _ count: UInt64, sequence: UInt64) {
        if journal.bug == .freedBlocksAreReusedAtOnce { return }
        let group = geometry.group(ofBlock: start)
        if unsafe groups[group].pinned == nil {
            let words = UnsafeMutablePointer<UInt64>.allocate(capacity: Volume.bitmapWords + 8)
            unsafe words.initialize(repeating: 0, count: Volume.bitmapWords + 8)
            unsafe groups[group].pinned = words
        }
        setPinned(group, start, count, true)
        heldFrees.append((sequence, start, count))
        pinnedBlocks += Int(count)
        if journal.bug == .discardsBeforeDurable { releasePinned() }
    }

    func unpin(_ start: UInt64, _ count: UInt64) {
        setPinned(geometry.group(ofBlock: start), start, count, false)
        pinnedBlocks -= Int(count)
    }

    private func setPinned(_ group: Int, _ start: UInt64, _ count: UInt64, _ value: Bool) {
        guard let words = unsafe groups[group].pinned else { return }
        let first = Int(start - geometry.start(ofGroup: group))
        for bit in first..<first + Int(count) {
            let mask: UInt64 = 1 << UInt64(bit & 63)
            if value { unsafe words[bit >> 6] |= mask } else { unsafe words[bit >> 6] &= ~mask }
        }
    }

    /// Freed blocks whose record is durable, and that no write in flight can still hit, become reusable when the device has been told of them.
    func releasePinned() {
        var kept = 0
        for index in 0..<heldFrees.count {
            let entry = heldFrees[index]
            let busy = entry.sequence > journal.durableSequence && journal.bug != .discardsBeforeDurable
                || !directPieces.isEmpty && isMovedDirectly(entry.start, entry.count)
                || detachedImages.contains { $0.block >= entry.start && $0.block < entry.start + entry.count } && journal.bug != .freedBlocksAreReusedUnderWrites
            if busy {
                heldFrees[kept] = entry
                kept += 1
                continue
            }
            awaitDiscard(entry.start, entry.count)
        }
        heldFrees.removeLast(heldFrees.count - kept)
    }
}
