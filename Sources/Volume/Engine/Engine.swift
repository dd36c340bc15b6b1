/// The life of a request: run, park on what it lacks, run again.
///
/// Invariants: a run either commits one transaction or leaves nothing; a parked request holds pins (so that a rerun gets further) and
/// perhaps a ticket, nothing else; whatever can wake it is named by its reason. Requests that wait for frames hold no pins unless they are
/// the oldest, so that someone can always go on.
struct Engine {
    enum Reason {
        case runnable
        /// Answered; leaves the list when the round is over.
        case finished
        /// Fills under way.
        case blocks
        /// Its own transfer past the cache is under way: nothing else wakes it, because the device reaches the caller's memory.
        case directTransfer
        case frames
        case journal
        case durable(UInt64)
        case writeback(UInt64)
        case ticket(UInt64)
        case lock(UInt64)
        /// The next `poll`.
        case turn
    }

    /// Steps of long work that follow each other without a look at what others want: a transfer of 1 MiB has four.
    static let stepsInARow = 16

    /// A request that is not finished.
    final class Parked {
        var request: Request
        var progress = Progress()
        var task = Task.request
        var id: UInt64 = 0
        var reason = Reason.runnable
        var waitFor: [UInt32] = []
        var pins: [(frame: Int, content: UInt32)] = []
        var cancelled = false
        /// Pieces of its own transfer past the cache that are under way; bytes that were moved, or -1 where they are void; where the call began.
        var directPieces = 0
        var directBytes = 0
        var directStart: UInt64 = 0
        /// Its answer when all of that has been moved.
        var directResult: Int64?
        var directWantsFlush = false
        /// An errno that a fill ended with.
        var failure: Int32 = 0
        /// Write-back tasks that have failed while it was here and as many frames stayed dirty; and how many those were at the last of them.
        var failedWritebacks = 0
        var dirtyAtFailure = 0
        init(_ request: Request) { self.request = request }

        /// As new, with the memory of its lists.
        func renew(_ request: Request) {
            self.request = request
            (progress, task, reason) = (Progress(), .request, .runnable)
            if !waitFor.isEmpty { waitFor.removeAll(keepingCapacity: true) }
            if !pins.isEmpty { pins.removeAll(keepingCapacity: true) }
            (cancelled, failure, failedWritebacks, dirtyAtFailure) = (false, 0, 0, 0)
            (directPieces, directBytes, directStart, directResult, directWantsFlush) = (0, 0, 0, nil, false)
        }
    }

    /// What runs: a caller's request, or work of the volume's own.
    enum Task: Equatable {
        case request
        case writeback(UInt64)
        case reclaim(UInt64)
        /// What programs have stored into a mapped file; the end of its maps.
        case absorb(UInt64)
        case unmap(UInt64)
        /// After mount: starts the reclaim of every inode in the orphan table.
        case orphans
    }

    var parked: [Parked] = []
    /// Finished ones, for others.
    var spare: [Parked] = []
    var completions: [Completion] = []
    /// Those before it have been handed out.
    var nextCompletion = 0
    var nextID: UInt64 = 1
    var runnable = 0
    /// Someone waits for the next `poll` only.
    var hasTurns = false
    /// Inodes with a write-back or reclaim task.
    var writingBack: Set<UInt64> = []
    var reclaiming: Set<UInt64> = []
    var absorbing: Set<UInt64> = []
    var unmapping: Set<UInt64> = []
    /// Tickets: inode → id of the request that is in the middle of changing it.
    var tickets: [UInt64: UInt64] = [:]
    /// Id of the running request.
    var current: UInt64 = 0
    /// Lists of file indexes that write-back passes work through; `Progress.work` names one.
    var workLists: [[UInt64]] = []
    var freeWorkLists: [Int] = []
}

/// What a run of an operation says: its answer, or that there is more to do in a further transaction.
struct Outcome {
    var result: Int64
    var info0: UInt64 = 0
    var info1: UInt64 = 0
    var info2: UInt64 = 0
    var again = false

    @inline(__always) init(_ result: Int64, _ info0: UInt64 = 0, _ info1: UInt64 = 0, _ info2: UInt64 = 0) {
        self.result = result
        self.info0 = info0
        self.info1 = info1
        self.info2 = info2
    }
    static var more: Outcome {
        var outcome = Outcome(0)
        outcome.again = true
        return outcome
    }
}

extension Volume {
    // MARK: The public surface

    /// Runs the request. nil: parked; its completion will come from `nextCompletion`.
    public func submit(_ request: borrowing Request) -> Completion? {
        var progress = Progress()
        engine.current = engine.nextID
        engine.nextID &+= 1
        switch run(request, .request, &progress) {
        case .finished(let completion): return completion
        case .stopped(let stop):
            wait(request, progress, stop)
            return nil
        }
    }

    /// A new request that its first run could not finish.
    @inline(never) private func wait(_ request: borrowing Request, _ progress: Progress, _ stop: Stop) {
        let parked: Engine.Parked
        if let spare = engine.spare.popLast() {
            parked = spare
            parked.renew(copy request)
        } else {
            parked = Engine.Parked(copy request)
        }
        parked.id = engine.current
        parked.progress = progress
        engine.parked.append(parked)
        park(parked, stop)
        queue.kick()
    }

    /// Takes device completions, reruns what they woke, advances write-back, commit and checkpoint.
    /// A device may complete requests inside `kick`, and nothing announces those: they are taken here, before anyone sleeps.
    public func poll() {
        if engine.hasTurns {
            engine.hasTurns = false
            for parked in engine.parked { if case .turn = parked.reason { wake(parked) } }
        }
        var passes = 0
        repeat {
            advance()
            queue.kick()
            passes += 1
            needsPoll = takeCompletions()
        } while needsPoll && passes < 64
    }

    private func advance() {
        var rounds = 0
        while rounds < 64 {
            rounds += 1
            var progress = takeCompletions()
            if !pendingOrdered.isEmpty { pushOrderedWrites() }
            if retryFlush { resubmitFlush() }
            if engine.runnable > 0 {
                runParked()
                progress = true
            }
            startDueWriteback()
            advanceCheckpoint()
            advanceJournal()
            if !progress && engine.runnable == 0 { break }
        }
        if clock.monotonic >= discards.dueAt { advanceDiscards() }
        if !mappedFiles.isEmpty && clock.monotonic >= nextMapCheck { checkMaps() }
        relieveStarvation()
    }

    /// The next finished request that had been parked.
    public func nextCompletion() -> Completion? {
        if engine.nextCompletion == engine.completions.count {
            if engine.nextCompletion > 0 {
                engine.completions.removeAll(keepingCapacity: true)
                engine.nextCompletion = 0
            }
            return nil
        }
        engine.nextCompletion += 1
        return engine.completions[engine.nextCompletion - 1]
    }

    /// A parked request ends with EINTR, soon, unless it has had an effect already. Unknown tokens are ignored.
    public func cancel(session: SessionID, token: UInt64) {
        for parked in engine.parked where parked.task == .request && parked.request.session == session && parked.request.token == token {
            parked.cancelled = true
            wake(parked)
        }
    }

    /// True where `poll` has something to do that no device completion announces.
    public var hasPendingWork: Bool {
        needsPoll || engine.hasTurns || engine.runnable > 0 || engine.nextCompletion < engine.completions.count || retryFlush || queue.inFlight > 0 && queue.wakeupDescriptor < 0
    }

    /// Requests that the device has not answered.
    public var inFlight: Int { queue.inFlight }

    /// What is not finished and why, for messages.
    package var unfinished: String {
        let parked = engine.parked.map { "\($0.task) \($0.request.opcode) waits: \($0.reason)" }.joined(separator: "; ")
        return "\(parked); journal \(journal.phase), \(journal.usedBlocks) of \(journal.ring) blocks, open \(journal.openSequence) with \(journal.openLength) bytes, durable \(journal.durableSequence), starved \(journalStarved); checkpoint \(checkpoint.phase), \(cache.checkpointCount) frames; \(cache.needingWriteback) need write-back, \(cache.freeFrames) free, frames starved \(framesStarved); pinned \(pinnedBlocks); tickets \(engine.tickets)"
    }

    /// The monotonic time at which `poll` must be called at the latest, or nil.
    /// What waits for the device has the driver's, and write-back under way none: their completions call.
    public var deadline: UInt64? {
        var earliest = queue.deadline
        if !mappedFiles.isEmpty { earliest = min(earliest ?? .max, nextMapCheck) }
        if isReadOnly { return earliest }
        if journal.openLength > 0 && journal.phase == .idle { earliest = min(earliest ?? .max, journal.openedAt &+ commitAge) }
        if discards.mayBegin && journal.phase == .idle { earliest = min(earliest ?? .max, discards.dueAt) }
        if engine.writingBack.count < Volume.writebackTasks, let oldest = oldestDirty { earliest = min(earliest ?? .max, oldest &+ commitAge) }
        return earliest
    }

    /// Data waits so long for its write-back and then, at most, as long for its record: together the commit interval.
    var commitAge: UInt64 { configuration.commitIntervalNanoseconds / 2 }

    // MARK: Running

    enum RunResult {
        case finished(Completion)
        case stopped(Stop)
    }

    /// Runs until an answer or a stop. Steps of long work follow each other here; every one is its own transaction.
    @inline(__always) private func run(_ request: borrowing Request, _ task: Engine.Task, _ progress: inout Progress) -> RunResult {
        let tx = transaction
        var steps = 0
        while true {
            tx.begin()
            tx.forcedMiss = forceMissAt
            tx.nextProgress = progress
            tx.isInternal = task != .request
            tx.session = request.session
            do throws(Stop) {
                let outcome = try perform(request, task, progress, tx)
                if !tx.isEmpty { try commit(tx, token: request.token, result: outcome.result) }
                if tx.forcedMiss >= 0 { lastAccesses = tx.accesses }
                // What an operation that was not stopped names as missing is read ahead; nobody waits for it.
                if !tx.missing.isEmpty, startFills(tx.missing) != nil { queue.kick() }
                progress = tx.nextProgress
                if progress.ticketInode != 0 { engine.tickets[progress.ticketInode] = engine.current }
                if progress.mapped != 0 { mappedFiles[progress.mapped]?.users.insert(engine.current) }
                if tx.directTransfer != nil { return .stopped(.missing) }
                if outcome.again {
                    steps &+= 1
                    if steps == Engine.stepsInARow { return .stopped(.turn) }
                    continue
                }
                end(&progress)
                var completion = Completion(token: request.token, result: outcome.result)
                completion.info0 = outcome.info0
                completion.info1 = outcome.info1
                completion.info2 = outcome.info2
                return .finished(completion)
            } catch {
                tx.drop()
                if tx.forcedMiss >= 0 && tx.accesses > tx.forcedMiss { forceMissAt = -1 }
                if case .errno(let errno) = error {
                    // A transfer that has moved bytes says how many; the error, if it lasts, meets the next call.
                    let result = progress.moved > 0 && progress.phase == 0 ? Int64(progress.moved) : -Int64(errno)
                    end(&progress)
                    var completion = Completion(token: request.token, result: result)
                    if errno == Volume.escapeErrno {
                        completion.info0 = UInt64(escapeLength)
                        completion.info1 = escapeSecond ? 1 : 0
                    }
                    return .finished(completion)
                }
                // A write-back pass keeps its plan over reruns.
                progress.work = tx.nextProgress.work
                return .stopped(error)
            }
        }
    }

    /// What a request holds besides memory goes back.
    private func end(_ progress: inout Progress) {
        if progress.ticketInode != 0 {
            engine.tickets[progress.ticketInode] = nil
            wakeTicketWaiters(progress.ticketInode)
            progress.ticketInode = 0
        }
        if progress.mapped != 0 {
            mappedFiles[progress.mapped]?.users.remove(engine.current)
            progress.mapped = 0
        }
        reservedBlocks -= progress.reserved
        progress.reserved = 0
        if progress.work >= 0 {
            engine.freeWorkLists.append(progress.work)
            progress.work = -1
        }
    }

    private func perform(_ request: borrowing Request, _ task: Engine.Task, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        switch task {
        case .request: try dispatch(request, progress, tx)
        case .writeback(let inode): try writeBack(inode, progress, forSync: false, dataOnly: false, tx) ? Outcome(0) : .more
        case .reclaim(let inode): try reclaim(inode, tx) ? Outcome(0) : .more
        case .absorb(let inode): try absorb(inode, progress, tx) ? Outcome(0) : .more
        case .unmap(let inode): try unmap(inode, progress, tx) ? Outcome(0) : .more
        case .orphans: try startNextOrphan(progress, tx) ? Outcome(0) : .more
        }
    }

    private func runParked() {
        var index = 0
        var anyFinished = false
        while index < engine.parked.count {
            let parked = engine.parked[index]
            guard case .runnable = parked.reason else {
                index += 1
                continue
            }
            engine.runnable -= 1
            for pin in parked.pins { cache.unpin(pin.frame, pin.content) }
            // The old pins protect until the rerun has touched the frames again: nothing is evicted in between.
            if !parked.pins.isEmpty { parked.pins.removeAll(keepingCapacity: true) }
            engine.current = parked.id
            var result: RunResult
            if parked.failure != 0 || parked.cancelled {
                let errno = parked.failure != 0 ? parked.failure : Errno.interrupted
                let moved = parked.progress.phase == 0 ? Int64(parked.progress.moved) : 0
                end(&parked.progress)
                result = .finished(Completion(token: parked.request.token, result: moved > 0 ? moved : -Int64(errno)))
            } else {
                result = run(parked.request, parked.task, &parked.progress)
            }
            switch result {
            case .finished(let completion):
                parked.reason = .finished
                anyFinished = true
                finishTask(parked, completion)
            case .stopped(let stop): park(parked, stop)
            }
            index += 1
        }
        guard anyFinished else { return }
        engine.parked.removeAll {
            guard case .finished = $0.reason else { return false }
            setAside($0)
            return true
        }
    }

    private func setAside(_ parked: Engine.Parked) { if engine.spare.count < 64 { engine.spare.append(parked) } }

    /// Answers a request of which nothing but its transfer was missing.
    func finish(_ parked: Engine.Parked, _ result: Int64) {
        end(&parked.progress)
        engine.completions.append(Completion(token: parked.request.token, result: result))
        if engine.parked.last === parked {
            engine.parked.removeLast()
        } else if let index = engine.parked.firstIndex(where: { $0 === parked }) {
            engine.parked.remove(at: index)
        }
        setAside(parked)
    }

    private func finishTask(_ parked: Engine.Parked, _ completion: Completion) {
        switch parked.task {
        case .request: engine.completions.append(completion)
        case .writeback(let inode):
            engine.writingBack.remove(inode)
            if completion.result < 0 {
                writebackFailed(inode, Int32(-completion.result))
                for other in engine.parked {
                    other.failedWritebacks = cache.needingWriteback < other.dirtyAtFailure ? 1 : other.failedWritebacks + 1
                    other.dirtyAtFailure = cache.needingWriteback
                }
            }
            // What has become dirty since, or could not be written, has another time; but an end does not wait for what fails.
            if isShuttingDown && completion.result < 0 { abandoned.insert(inode) } else if dirtySince[inode] != nil { becameDirty(inode) }
            wakeWritebackWaiters(inode, error: completion.result < 0 ? Int32(-completion.result) : 0)
        case .absorb(let inode): mapTaskEnded(inode, error: Int32(max(0, -completion.result)), isLast: false)
        case .unmap(let inode): mapTaskEnded(inode, error: Int32(max(0, -completion.result)), isLast: true)
        case .orphans:
            if completion.result < 0 { note("the orphan table cannot be read (errno \(-completion.result)); `dashfs check` tells more") }
        case .reclaim(let inode):
            engine.reclaiming.remove(inode)
            if completion.result < 0 {
                unreclaimable.insert(inode)
                note("inode \(inode) cannot be reclaimed (errno \(-completion.result)); `dashfs check` tells more")
            }
            wakeTicketWaiters(inode)
        }
    }

    // MARK: Parking

    private func park(_ parked: Engine.Parked, _ stop: Stop) {
        let tx = transaction
        switch stop {
        case .errno: break
        case .missing:
            if let transfer = tx.directTransfer {
                // Each run moves something: it needs no pins to get further.
                if !start(transfer, for: parked) {
                    parked.reason = .frames
                    framesStarved = true
                }
                break
            }
            for number in 0..<tx.touchedCount {
                let frame = tx.touched(number)
                if cache.header(frame).state != .empty { parked.pins.append((frame, cache.pin(frame))) }
            }
            if let waitFor = startFills(tx.missing) {
                parked.waitFor = waitFor
                parked.reason = .blocks
                if waitFor.isEmpty { wake(parked) }
            } else {
                parked.reason = .frames
                framesStarved = true
                unpinUnlessOldest(parked)
            }
        case .frames:
            parked.reason = .frames
            framesStarved = true
        case .journal:
            parked.reason = .journal
            journalStarved = true
        case .durable(let sequence):
            parked.reason = .durable(sequence)
            journal.wanted = max(journal.wanted, sequence)
            if sequence <= journal.durableSequence { wake(parked) }
        case .writeback(let inode):
            parked.reason = .writeback(inode)
            requestWriteback(inode)
        case .ticket(let inode): parked.reason = .ticket(inode)
        case .lock(let inode): parked.reason = .lock(inode)
        case .turn:
            parked.reason = .turn
            engine.hasTurns = true
        }
        if case .frames = parked.reason, parked.task == .request, isStuck(parked) {
            parked.failure = Errno.io
            wake(parked)
        }
        guard isReadOnly else { return }
        switch parked.reason {
        case .journal, .durable, .writeback:
            // A volume that writes no more does nothing that could end the wait.
            parked.failure = Errno.io
            wake(parked)
        default: break
        }
    }

    private func unpinUnlessOldest(_ parked: Engine.Parked) {
        if engine.parked.first === parked { return }
        for pin in parked.pins { cache.unpin(pin.frame, pin.content) }
        parked.pins.removeAll(keepingCapacity: true)
    }

    func wake(_ parked: Engine.Parked) {
        switch parked.reason {
        case .runnable: return
        case .directTransfer where parked.directPieces > 0: return
        default: break
        }
        parked.reason = .runnable
        if !parked.waitFor.isEmpty { parked.waitFor.removeAll(keepingCapacity: true) }
        engine.runnable += 1
    }

    func frameReady(_ frame: UInt32, error: Int32) {
        for parked in engine.parked {
            guard case .blocks = parked.reason, let position = parked.waitFor.firstIndex(of: frame) else { continue }
            parked.waitFor.remove(at: position)
            if error != 0 { parked.failure = error }
            if parked.waitFor.isEmpty || error != 0 { wake(parked) }
        }
        wakeFrameWaiters()
    }

    func wakeFrameWaiters() {
        guard framesStarved else { return }
        framesStarved = false
        for parked in engine.parked { if case .frames = parked.reason { wake(parked) } }
    }

    func wakeJournalWaiters() {
        for parked in engine.parked { if case .journal = parked.reason { wake(parked) } }
    }

    func wakeDurableWaiters() {
        for parked in engine.parked { if case .durable(let sequence) = parked.reason, sequence <= journal.durableSequence { wake(parked) } }
    }

    /// - Parameter error: why the write-back failed: waiting again would be waiting for ever.
    private func wakeWritebackWaiters(_ inode: UInt64, error: Int32) {
        for parked in engine.parked {
            guard case .writeback(inode) = parked.reason else { continue }
            if error != 0 {
                if parked.request.opcode == .sync {
                    // The others still get their turn.
                    (parked.progress.failure, parked.progress.done) = (error, inode)
                } else {
                    parked.failure = error
                }
            }
            wake(parked)
        }
    }

    /// Much is dirty, and all of it has failed to be written back, and again, while the request waited: it would wait for ever.
    private func isStuck(_ parked: Engine.Parked) -> Bool {
        parked.failedWritebacks > 2 * dirtySince.count + 8 && cache.needingWriteback > cache.count / 4
    }

    func wakeTicketWaiters(_ inode: UInt64) {
        for parked in engine.parked { if case .ticket(inode) = parked.reason { wake(parked) } }
    }

    func wakeLockWaiters(_ inode: UInt64) {
        for parked in engine.parked { if case .lock(inode) = parked.reason { wake(parked) } }
    }

    /// The volume has turned read-only: everyone who waits for a write is told.
    func failWriters() {
        for parked in engine.parked {
            switch parked.reason {
            case .journal, .durable, .writeback, .frames, .ticket:
                parked.failure = Errno.io
                wake(parked)
            default: break
            }
        }
    }

    /// Where nothing is under way and requests wait for frames, the pins of the younger ones go. On a volume that writes no more, what is
    /// dirty stays: then there is nothing to wait for.
    private func relieveStarvation() {
        guard framesStarved, engine.runnable == 0, queue.inFlight == 0 else { return }
        if isReadOnly {
            for parked in engine.parked { if case .frames = parked.reason { parked.failure = Errno.io } }
        }
        for parked in engine.parked.dropFirst() {
            for pin in parked.pins { cache.unpin(pin.frame, pin.content) }
            parked.pins.removeAll(keepingCapacity: true)
        }
        wakeFrameWaiters()
    }

    private func resubmitFlush() {
        if journal.phase == .flushing, submitFlush(.journalFlush) {
            retryFlush = checkpoint.phase == .flushing
        } else if checkpoint.phase == .flushing, submitFlush(.checkpointFlush) {
            retryFlush = false
        }
    }

    // MARK: Tasks of the volume's own

    func start(_ task: Engine.Task) {
        let parked = Engine.Parked(Request(.null, session: SessionID(rawValue: 0)))
        parked.id = engine.nextID
        engine.nextID &+= 1
        parked.task = task
        parked.reason = .frames
        engine.parked.append(parked)
        wake(parked)
    }

    func requestWriteback(_ inode: UInt64) {
        if isReadOnly || abandoned.contains(inode) || !engine.writingBack.insert(inode).inserted { return }
        start(.writeback(inode))
    }

    func startOrphans() { start(.orphans) }

    /// One inode of the orphan table after the other. Those with doomed ranges are marked before anyone can use them: they are only found
    /// by requests, which run after this task's first run.
    private func startNextOrphan(_ progress: Progress, _ tx: Transaction) throws(Stop) -> Bool {
        guard let number = try nextOrphan(progress.done + 1, tx) else { return true }
        let file = try inode(number, tx)
        if file.links > 0 { try coreForWrite(file, tx).flags |= CoreInode.Flag.shrinking }
        tx.reclaims.append(number)
        tx.nextProgress.done = number
        if tx.isEmpty { startReclaim(number) }
        return false
    }

    func startReclaim(_ inode: UInt64) {
        if isReadOnly || !engine.reclaiming.insert(inode).inserted { return }
        start(.reclaim(inode))
    }
}
