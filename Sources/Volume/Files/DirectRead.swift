import BlockDevice

/// Reads of whole blocks that the cache does not hold, by descriptions with O_DIRECT: the device writes into the caller's memory, and nothing is copied.
///
/// Invariants:
/// - frames stand for the blocks meanwhile, in the state `filling`: who wants one waits, and who drops one (a truncation) detaches it, which makes the read void;
/// - blocks that are freed meanwhile are not given out before the read has ended, so nobody sees what another writes there (`releasePinned`);
/// - the request is neither run nor answered, cancelled or not, before the device is done with the caller's memory.
extension Volume {
    /// Blocks of a file on their way into a caller's memory.
    @safe struct DirectRead {
        var inode: UInt64
        /// First page, its block, and how many follow each other.
        var index: UInt64
        var block: UInt64
        var count: Int
        /// Where the whole call began in the file.
        var start: Int64
        var target: UnsafeMutableRawPointer
    }

    /// What one request to the device brings, and for whom.
    struct DirectTransfer {
        var request: UInt64
        var block: UInt64
        var count: UInt64
    }

    /// Blocks that one call reads past the cache at once: each has a frame as long as it is on its way.
    private var longestDirectRead: Int { max(1, min(512, cache.count / 8)) }

    /// The blocks from `page` on that can go to `target`, where page `end` is the first that cannot.
    func directRead(_ file: Inode, _ page: UInt64, end: UInt64, start: Int64, into target: UnsafeMutableRawPointer, _ tx: Transaction) throws(Stop) -> DirectRead? {
        guard page < end, file.mapping != InodeLayout.Mapping.inline, UInt(bitPattern: target) % UInt(capabilities.memoryAlignment) == 0,
            let extent = try lookup(file, page, tx).extent, !extent.unwritten
        else { return nil }
        let count = min(Int(min(extent.end, end) - page), longestDirectRead)
        return unsafe DirectRead(inode: file.number, index: page, block: extent.block + (page - extent.index), count: count, start: start, target: target)
    }

    /// Sends a stopped read to the device, as far as there are frames and room. False: nothing of it could be sent.
    func start(_ read: DirectRead, for parked: Engine.Parked) -> Bool {
        let miss = Transaction.Missing(owner: read.inode, index: read.index, block: read.block, kind: 0, run: read.count)
        var done = 0
        while done < read.count {
            let frames = emptyFrames(miss, from: done)
            if frames.isEmpty { break }
            let transfer = DirectTransfer(request: parked.id, block: read.block + UInt64(done), count: UInt64(frames.count))
            guard unsafe submitDirectRead(transfer, into: read.target + done * BlockLayout.size, frames: frames) else {
                for frame in frames { cache.release(Int(frame)) }
                break
            }
            parked.directTransfers += 1
            done += frames.count
        }
        guard done > 0 else { return false }
        (parked.directBytes, parked.directStart) = (0, read.start)
        parked.reason = .directRead
        return true
    }

    /// The device is done with a piece of a caller's memory.
    func directlyRead(_ io: PendingIO, _ transfer: DirectTransfer, error: Int32) {
        let isVoid = io.frames.contains { cache.header(Int($0)).flags & FrameFlag.detached != 0 }
        for frame in io.frames { cache.release(Int(frame)) }
        releasePinned()
        if let parked = engine.parked.first(where: { $0.id == transfer.request }) {
            parked.directTransfers -= 1
            if error != 0 { parked.failure = error }
            // What is void is read again, all of it.
            parked.directBytes = isVoid || parked.directBytes < 0 ? -1 : parked.directBytes + io.frames.count * BlockLayout.size
            if parked.directTransfers == 0 { take(parked) }
        }
        for frame in io.frames { frameReady(frame, error: 0) }
    }

    /// All pieces have come: the call goes on behind them.
    private func take(_ parked: Engine.Parked) {
        if parked.failure == 0 && parked.directBytes > 0 {
            parked.progress.moved += UInt64(parked.directBytes)
            parked.progress.done = UInt64(parked.directStart)
        }
        wake(parked)
    }

    /// Whether the device may still read blocks [start, start + count) into a caller's memory.
    func isReadDirectly(_ start: UInt64, _ count: UInt64) -> Bool {
        directTransfers.contains { $0.value.block < start + count && start < $0.value.block + $0.value.count }
    }
}
