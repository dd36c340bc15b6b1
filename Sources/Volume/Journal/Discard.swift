/// Tells the device of freed blocks, so that it can use them: spare room of a flash, free space of the file system that an image lies on.
///
/// - Only blocks come here whose freeing is durable and that no write in flight can hit (`releasePinned`), and they stay pinned until the device
///   has answered: a discard that lands late must not meet the next owner's bytes.
/// - Nobody waits for it. Blocks are gathered, so that neighbours become one request; there is one request at a time, between commits where that can
///   be; and who finds no space otherwise takes the blocks that are not on their way (`letGoOfDiscards`).
/// - All of it is private. A discard that is not made is a hint lost: nothing is owed after a cut, and who adopts the memory of a dead server has
///   waited until the last of its requests has landed.
@safe struct Discards {
    /// So many blocks go without waiting for more: 8 MiB.
    static let batch = 2048
    /// A request has at most so many: 16 MiB. What is under way cannot be given out, and a kernel's block device makes the caller wait.
    static let largestRequest = 4096

    /// The device does not want to know, or has failed at it.
    var isOff: Bool
    /// In the order in which they were freed.
    var waiting: [(start: UInt64, count: UInt64)] = []
    var waitingBlocks = 0
    /// The monotonic time from which on there is something to do: those that wait go then, be they few. `max`: there are none.
    var dueAt = UInt64.max
    /// The batch that is being sent, last run first.
    var runs: [(start: UInt64, count: UInt64)] = []
    var inFlight: (start: UInt64, count: UInt64)?

    var isEmpty: Bool { waiting.isEmpty && runs.isEmpty && inFlight == nil }
    /// Nothing but the time is missing.
    var mayBegin: Bool { !waiting.isEmpty && runs.isEmpty && inFlight == nil }
}

extension Volume {
    /// Blocks that nothing but the discard keeps from being reused.
    func awaitDiscard(_ start: UInt64, _ count: UInt64) {
        if discards.isOff { return unpin(start, count) }
        discards.waitingBlocks += Int(count)
        discards.dueAt = discards.waitingBlocks >= Discards.batch ? 0 : min(discards.dueAt, clock.monotonic &+ commitAge)
        if let last = discards.waiting.last, last.start + last.count == start {
            discards.waiting[discards.waiting.count - 1].count += count
        } else {
            discards.waiting.append((start, count))
        }
    }

    func advanceDiscards() {
        guard discards.inFlight == nil, !isReadOnly else { return }
        if discards.runs.isEmpty { takeDiscardBatch() }
        // Where commits follow each other without a pause, one goes beside them for each batch that has gathered.
        guard let run = discards.runs.last, journal.phase == .idle || discards.waitingBlocks >= Discards.batch || isShuttingDown else { return }
        let count = min(run.count, UInt64(Discards.largestRequest))
        guard submitRange(.discard, block: run.start, length: Int(count) * BlockLayout.size, purpose: .discard) else { return }
        discards.inFlight = (run.start, count)
        discards.runs.removeLast()
        if count < run.count { discards.runs.append((run.start + count, run.count - count)) }
        if discards.runs.isEmpty { discards.dueAt = discards.waitingBlocks >= Discards.batch ? 0 : discards.waiting.isEmpty ? .max : clock.monotonic &+ commitAge }
        if journal.bug == .discardedBlocksAreReusedAtOnce {
            unpin(run.start, count)
            discards.inFlight?.count = 0
        }
    }

    /// What waits, as runs of neighbours. Those that are not worth a request are free.
    private func takeDiscardBatch() {
        discards.waiting.sort { $0.start < $1.start }
        for entry in discards.waiting {
            if let last = discards.runs.last, last.start + last.count == entry.start {
                discards.runs[discards.runs.count - 1].count += entry.count
            } else {
                discards.runs.append(entry)
            }
        }
        discards.runs.removeAll {
            if $0.count >= configuration.smallestDiscard { return false }
            unpin($0.start, $0.count)
            return true
        }
        discards.waiting.removeAll(keepingCapacity: true)
        discards.waitingBlocks = 0
        discards.dueAt = discards.runs.isEmpty ? .max : 0
    }

    func discarded(error: Int32) {
        guard let run = discards.inFlight else { return }
        discards.inFlight = nil
        unpin(run.start, run.count)
        if error == 0 { return }
        note("a discard failed (errno \(error)): the device is told of no more freed blocks")
        discards.isOff = true
        _ = letGoOfDiscards()
    }

    /// Space is short, so blocks of which the device is not told yet are given out again. False where there are none.
    func letGoOfDiscards() -> Bool {
        if discards.waiting.isEmpty && discards.runs.isEmpty { return false }
        for run in discards.waiting + discards.runs { unpin(run.start, run.count) }
        discards.runs.removeAll()
        discards.waiting.removeAll()
        discards.waitingBlocks = 0
        discards.dueAt = .max
        return true
    }
}
