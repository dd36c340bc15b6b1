import BlockDevice

/// Whole blocks between the device and a caller's memory, for descriptions with O_DIRECT: past the cache, and nothing is copied.
///
/// What the cache holds is read from there. Written so is what a file has already, where a write of a block is whole or not there: a block that is
/// overwritten in place needs no record. Everything else goes the way of other transfers.
///
/// Invariants:
/// - frames stand for the blocks meanwhile, in the state `filling`: who wants one waits; a truncation detaches those that are being read, which makes
///   the read void, and waits for those that are being written;
/// - blocks that are freed meanwhile are not given out before the transfer has ended: nobody sees, or loses, what is not his (`releasePinned`);
/// - a block that the durable size covers in part, or not yet, is not written so: what it gets would be seen when the file grows after a cut;
/// - no live record holds an older version of a block that is written so: replay would bring it back;
/// - what was written is covered by the flush before the next record, or was forced: an fsync that follows is right;
/// - the request is neither run nor answered, cancelled or not, before the device is done with the caller's memory.
extension Volume {
    /// What a stopped operation wants of the device.
    @safe struct DirectTransfer {
        var isWrite: Bool
        /// The write is to be durable when it completes.
        var isForced: Bool
        /// It is to be flushed before the answer; only with `result`.
        var wantsFlush = false
        var inode: UInt64
        /// First page, its block, and how many follow each other.
        var index: UInt64
        var block: UInt64
        var count: Int
        /// Where the whole call began in the file.
        var start: UInt64
        var memory: UnsafeMutableRawPointer
        /// The answer when all of it has been moved; nil: the operation runs again, and goes on behind it.
        var result: Int64?
    }

    /// What is under way in one request to the device, and for whom.
    struct DirectPiece {
        /// Number of the I/O.
        var slot: Int
        var request: UInt64
        var isWrite: Bool
        var isForced: Bool
        var inode: UInt64
        var block: UInt64
        var count: UInt64
    }

    /// Blocks that one call moves past the cache at once: each has a frame as long as it is on its way.
    private var longestDirectTransfer: Int { max(1, min(512, cache.count / 8)) }

    // MARK: What can go that way

    /// The blocks from `page` on that can go to `target`, where page `end` is the first that cannot.
    func directRead(_ file: Inode, _ page: UInt64, end: UInt64, start: UInt64, into target: UnsafeMutableRawPointer, _ tx: Transaction) throws(Stop) -> DirectTransfer? {
        guard page < end, file.mapping != InodeLayout.Mapping.inline, unsafe isAligned(target), let extent = try lookup(file, page, tx).extent, !extent.unwritten
        else { return nil }
        let count = min(Int(min(extent.end, end) - page), longestDirectTransfer)
        return unsafe DirectTransfer(
            isWrite: false, isForced: false, inode: file.number, index: page, block: extent.block + (page - extent.index), count: count, start: start, memory: target, result: nil)
    }

    /// The blocks from `offset` on that can come from `source`; nil: not even the first.
    func directWrite(_ file: Inode, offset: UInt64, count: UInt64, start: UInt64, isForced: Bool, from source: UnsafeMutableRawPointer, _ tx: Transaction) throws(Stop) -> DirectTransfer? {
        let page = offset / Volume.pageSize
        let end = min(offset + count, file.size) / Volume.pageSize
        guard capabilities.atomicWriteUnit >= BlockLayout.size, offset % Volume.pageSize == 0, page < end, file.mapping != InodeLayout.Mapping.inline, unsafe isAligned(source),
            let extent = try lookup(file, page, tx).extent, !extent.unwritten
        else { return nil }
        let most = min(Int(min(extent.end, end) - page), longestDirectTransfer)
        let block = extent.block + (page - extent.index)
        var run = 0
        while run < most, mayWriteDirectly(file.number, page + UInt64(run), block + UInt64(run)) { run += 1 }
        guard run > 0 else { return nil }
        return unsafe DirectTransfer(isWrite: true, isForced: isForced, inode: file.number, index: page, block: block, count: run, start: start, memory: source, result: nil)
    }

    private func isAligned(_ memory: UnsafeMutableRawPointer) -> Bool { UInt(bitPattern: memory) % UInt(capabilities.memoryAlignment) == 0 }

    /// Neither the cache nor a live record has a newer version than the device, and none is on its way home.
    private func mayWriteDirectly(_ inode: UInt64, _ index: UInt64, _ block: UInt64) -> Bool {
        let frame = cache.find(inode, index)
        if frame >= 0 {
            let header = cache.header(frame)
            guard header.state == .clean, header.imageSequence == 0, header.flags == 0 else { return false }
        }
        return !journal.hasLiveData(block) && !journal.mayBeBeyondEnd(inode, index) && !detachedImages.contains { $0.block == block }
    }

    /// Without these bits, which a write by others than root takes away, there is nothing to do for an overwrite but the times.
    static func hasSetID(_ file: Inode) -> Bool { file.mode & (Mode.setUser | Mode.setGroup) != 0 }

    /// No change of the inode waits for its record, nor one of its extents alone: those come by write-back.
    func hasDurableMapping(_ file: Inode, _ tx: Transaction) -> Bool {
        let frame = cache.find(0, geometry.location(ofInode: file.number).block)
        guard frame >= 0 else { return false }
        let newest = max(cache.header(frame).lastSequence, core(file.number, tx)?.lastRecord ?? 0)
        return newest <= journal.durableSequence || journal.bug == .directWritesDoNotWaitForTheirFile
    }

    // MARK: On its way

    /// Sends what an operation has stopped for to the device, as far as there are frames and room. False: nothing of it could be sent.
    func start(_ transfer: DirectTransfer, for parked: Engine.Parked) -> Bool {
        let miss = Transaction.Missing(owner: transfer.inode, index: transfer.index, block: transfer.block, kind: 0, run: transfer.count)
        var done = 0
        if transfer.isWrite {
            // What the cache has of the blocks is old from here on.
            for index in transfer.index..<transfer.index + UInt64(transfer.count) {
                let frame = cache.find(transfer.inode, index)
                if frame >= 0 { cache.release(frame) }
            }
        }
        while done < transfer.count {
            let frames = emptyFrames(miss, from: done)
            if frames.isEmpty { break }
            let piece = DirectPiece(
                slot: 0, request: parked.id, isWrite: transfer.isWrite, isForced: transfer.isForced, inode: transfer.inode, block: transfer.block + UInt64(done),
                count: UInt64(frames.count))
            guard unsafe submitDirect(piece, transfer.memory + done * BlockLayout.size, frames: frames) else {
                for frame in frames { cache.release(Int(frame)) }
                break
            }
            parked.directPieces += 1
            done += frames.count
        }
        guard done > 0 else { return false }
        (parked.directBytes, parked.directStart) = (0, transfer.start)
        parked.directResult = done == transfer.count ? transfer.result : nil
        parked.directWantsFlush = transfer.wantsFlush
        parked.reason = .directTransfer
        return true
    }

    /// The device is done with a piece of a caller's memory.
    func directlyMoved(_ io: PendingIO, _ piece: DirectPiece, error: Int32) {
        let isVoid = io.frames.contains { cache.header(Int($0)).flags & FrameFlag.detached != 0 }
        for frame in io.frames { cache.release(Int(frame)) }
        if !heldFrees.isEmpty { releasePinned() }
        if piece.isWrite && !piece.isForced { mustBeFlushed() }
        if let parked = engine.parked.first(where: { $0.id == piece.request }) {
            parked.directPieces -= 1
            if error != 0 { parked.failure = error }
            // What is void is done again, all of it.
            parked.directBytes = isVoid || parked.directBytes < 0 ? -1 : parked.directBytes + io.frames.count * BlockLayout.size
            if parked.directPieces == 0 { take(parked) }
        }
        for frame in io.frames { frameReady(frame, error: 0) }
        if piece.isWrite { wakeTicketWaiters(piece.inode) }
    }

    /// As data for fresh blocks: the next record is preceded by a flush, and an fsync waits for it.
    private func mustBeFlushed() {
        if capabilities.volatileCache && journal.bug != .directWritesAreNotFlushed { journal.openHadOrdered = true }
    }

    /// The flush behind a write that is to be durable has ended.
    func directlyFlushed(_ request: UInt64, error: Int32) {
        guard let parked = engine.parked.first(where: { $0.id == request }), let result = parked.directResult else { return }
        parked.directPieces = 0
        if error == 0 { return finish(parked, result) }
        parked.failure = error
        wake(parked)
    }

    /// All pieces have ended: the call goes on behind them.
    private func take(_ parked: Engine.Parked) {
        if parked.failure == 0 && parked.directBytes > 0 {
            if let result = parked.directResult {
                guard parked.directWantsFlush else { return finish(parked, result) }
                if submitFlush(.directFlush, request: parked.id) {
                    parked.directPieces = 1
                    return
                }
            }
            parked.progress.moved += UInt64(parked.directBytes)
            parked.progress.done = parked.directStart
        }
        wake(parked)
    }

    /// Whether the device may still move blocks [start, start + count) from or to a caller's memory.
    func isMovedDirectly(_ start: UInt64, _ count: UInt64) -> Bool {
        directPieces.contains { $0.block < start + count && start < $0.block + $0.count }
    }

    /// Whoever takes blocks from a file waits until none of it is being written past the cache.
    func requireNoDirectWrite(_ inode: UInt64) throws(Stop) {
        if !directPieces.isEmpty, journal.bug != .filesAreCutUnderDirectWrites, directPieces.contains(where: { $0.isWrite && $0.inode == inode }) { throw .ticket(inode) }
    }
}
