import BlockDevice
import CSystem
import Logging
import Synchronization
import Volume
import Wire

/// The loop that serves channels: look at the rings of those that are polled, run what is there, hand answers back, let the volume work.
///
/// Invariants: one thread calls it. A slot is fetched once, word by word, into private memory, judged there, and the copy is used. Nothing on the way
/// of a request that hits allocates, retains or calls the kernel. A channel that is not polled costs nothing: its state word says `asleep`, and its client
/// rings the session's doorbell, whose descriptor is in `events`.
@safe final class Worker {
    let volume: Volume
    let queue: (any DeviceQueue)?
    let configuration: ServerConfiguration
    let logger: Logger
    let epoch: UInt64

    /// Doorbells, the device's wake-up and `control.events`, which is an epoll of its own.
    let events: Int32
    let control: ControlSockets
    let attention: AttentionWord

    var slab: RequestSlab
    var statistics = Statistics()
    let sessions: UnsafeMutablePointer<SessionEnd>
    let sessionCapacity: Int
    let channels: UnsafeMutablePointer<ChannelEnd>
    let channelCapacity: Int
    private var freeChannels: [Int32]
    /// Indices of the channels whose rings are looked at in every round.
    let polled: UnsafeMutablePointer<Int32>
    var polledCount = 0 {
        // A client that is alone waits for the device itself, or does nothing.
        didSet { queue?.mayWait = polledCount <= 1 }
    }
    private var polledHasEnded = false
    /// A dormant channel has a request, and there was no place for it among the polled.
    private(set) var hasUnheardDoorbells = false
    /// Open channels that are not polled.
    var dormantCount = 0
    var channelCount: Int { polledCount + dormantCount }
    var sessionCount = 0
    /// Of all arenas that are mapped.
    private(set) var arenaBytes = 0
    /// Requests that the volume has parked.
    var parkedCount = 0
    private(set) var round: UInt64 = 0
    /// Grows when the worker falls asleep and when it wakes up: odd while it sleeps. Any thread may read it.
    let slumber = Atomic<UInt64>(0)
    var sleeps: UInt64 { (slumber.load(ordering: .relaxed) &+ 1) / 2 }
    /// Cycles when the volume's clock was set.
    private var clockTaken: UInt64 = 0
    /// What the device had been asked when the worker last wanted to know.
    var deviceSeen = DeviceCounters()
    /// The last answer to who asked for statistics, and when it was made.
    var lastStatistics: [UInt8] = []
    var meetingPlaces = MeetingPlaces()
    var statisticsTaken: UInt64 = 0
    /// Lines about clients in the log in the present second, and how many were left out.
    var complaintSecond: UInt64 = 0
    var complaints = 0
    var complaintsLeftOut = 0
    /// Cycles at the last look at the doorbells of dormant channels.
    private var lastDoorbellLook: UInt64 = 0

    static let polledLimit = 64
    /// O_DIRECT of an open.
    static let directFlag: UInt32 = 0o40000
    /// A channel keeps its place among the polled for this many cycles of silence where more than a few are polled.
    static let dormantAfter: UInt64 = 30_000_000
    static let doorbellInterval: UInt64 = 150_000
    /// The volume's clock is set this often: well within the tick of the clock it shows.
    static let clockInterval: UInt64 = 100_000

    init(volume: Volume, queue: (any DeviceQueue)?, configuration: ServerConfiguration, epoch: UInt64) throws(ServerError) {
        self.volume = volume
        self.queue = queue
        self.configuration = configuration
        logger = configuration.logger
        self.epoch = epoch
        sessionCapacity = configuration.sessionLimit
        channelCapacity = configuration.channelLimit
        do throws(ErrorCode) {
            slab = try RequestSlab(capacity: configuration.parkedLimit)
        } catch { throw ServerError(errno: error.number, message: "no memory for \(configuration.parkedLimit) request records") }
        unsafe sessions = .allocate(capacity: sessionCapacity)
        for index in 0..<sessionCapacity { unsafe (sessions + index).initialize(to: SessionEnd(index: Int32(index))) }
        unsafe channels = .allocate(capacity: channelCapacity)
        freeChannels = (0..<Int32(channelCapacity)).reversed()
        unsafe polled = .allocate(capacity: Worker.polledLimit + 1)
        events = Int32(dashfs_sys_epoll_create())
        control = try ControlSockets(configuration: configuration)
        attention = AttentionWord()
        _ = dashfs_sys_epoll_add(events, control.events, UInt32(dashfs_epoll_in), EventTag.control)
        if let queue, queue.wakeupDescriptor >= 0 {
            _ = dashfs_sys_epoll_add(
                events, queue.wakeupDescriptor, UInt32(dashfs_epoll_in) | dashfs_epoll_edge(), EventTag.device)
        }
        updateClock()
    }

    deinit {
        meetingPlaces.closeAll()
        _ = dashfs_sys_close(events)
        unsafe sessions.deallocate()
        unsafe channels.deallocate()
        unsafe polled.deallocate()
    }

    // MARK: A round

    /// One look at everything that polls; true where something was done. Never sleeps.
    func runRound() -> Bool {
        round &+= 1
        var served = 0
        var place = 0
        while place < polledCount {
            served &+= unsafe serve(channels + Int(polled[place]))
            place &+= 1
        }
        if polledHasEnded { sweepPolled() }
        // The volume's own work waits at most eight rounds for that of clients.
        var advanced = false
        if served == 0 || round & 7 == 0 {
            if served == 0 && round & 15 == 0 { updateClock() }
            advanced = pollVolume()
        }
        if attention.isSet {
            handleControl()
            advanced = true
        }
        if dormantCount > 0 || polledCount > 16 { tendDormant() }
        return served != 0 || advanced
    }

    /// Lets the volume work. What it and the device have to say is in the log before anybody is answered who could ask for it.
    func pollVolume() -> Bool {
        volume.poll()
        logNotes()
        return parkedCount > 0 && finishParked()
    }

    func updateClock() {
        clockTaken = dashfs_cycles()
        volume.clock = Volume.Clock(wall: dashfs_clock_wall(), monotonic: dashfs_clock_monotonic_coarse())
    }

    /// Runs what is in one ring, at most 16 requests, so that no channel keeps the others waiting.
    @inline(__always)
    func serve(_ end: UnsafeMutablePointer<ChannelEnd>) -> Int {
        var served = 0
        while served < 16 {
            let slot = unsafe end.pointee.slot
            // Pairs with the releasing store in `WireRequest.publish`.
            let first = unsafe dashfs_load64_acquire(slot)
            let sequence = UInt32(truncatingIfNeeded: first)
            guard unsafe sequence == end.pointee.nextSequence else {
                // What stands in a slot that is not published is the request of the round before, or nothing yet.
                if unsafe sequence != end.pointee.nextSequence &- Layout.slotCount, sequence != 0 { unsafe violate(end, .sequence) }
                break
            }
            guard unsafe canTake(end) else {
                statistics.stalls &+= 1
                break
            }
            unsafe end.pointee.nextSequence = sequence &+ 1
            served &+= 1
            if unsafe !execute(end, slot: slot, first: first) { break }
        }
        if served != 0 { unsafe wakeClient(end) }
        return served
    }

    /// Whether one more request of this channel may be under way.
    @inline(__always)
    func canTake(_ end: UnsafeMutablePointer<ChannelEnd>) -> Bool {
        unsafe slab.freeCount != 0 && end.pointee.session.pointee.parked < configuration.parkedPerSession && !end.pointee.ended
    }

    /// Fetches, judges and runs one request. False: it ended the session.
    @inline(__always)
    private func execute(_ end: UnsafeMutablePointer<ChannelEnd>, slot: UnsafeMutableRawPointer, first: UInt64) -> Bool {
        let started = dashfs_cycles()
        unsafe end.pointee.lastActive = started
        if started &- clockTaken > Worker.clockInterval { updateClock() }
        guard let opcode = WireOpcode(rawValue: WireRequest.opcode(first)) else { return unsafe violate(end, .opcode) }
        let wire = unsafe WireRequest(slot: slot, first: first, secondLine: opcode.usesSecondLine)
        guard wire.tag < 64 else { return unsafe violate(end, .tag) }
        let tagBit: UInt64 = 1 &<< UInt64(wire.tag)
        guard unsafe end.pointee.busyTags & tagBit == 0 else { return unsafe violate(end, .busyTag) }
        let sequence = UInt32(truncatingIfNeeded: first)
        guard let volumeOpcode = opcode.volumeOpcode else {
            unsafe cancel(end, tag: wire.argument)
            unsafe answer(end, tag: wire.tag, sequence: sequence, WireCompletion(result: 0))
            statistics.record(opcode, failed: false, cycles: dashfs_cycles() &- started)
            return true
        }

        let index = slab.top
        let record = unsafe slab.records + index
        var request = unsafe Request(volumeOpcode, session: end.pointee.volumeSession)
        let judgement = unsafe translate(
            wire, opcode, into: &request, arena: end.pointee.arena, arenaBytes: end.pointee.arenaBytes, paths: record.pointee.paths)
        switch judgement {
        case .valid: break
        case .refused(let result):
            unsafe answer(end, tag: wire.tag, sequence: sequence, WireCompletion(result: result))
            statistics.record(opcode, failed: true, cycles: dashfs_cycles() &- started)
            return true
        case .violation(let violation): return unsafe violate(end, violation)
        }
        if request.flags & Worker.directFlag != 0, opcode == .open, unsafe !end.pointee.isMapped { unsafe mapArena(end) }
        request.token = unsafe UInt64(record.pointee.generation) << 32 | UInt64(index)
        var submitted = volume.submit(request)
        if opcode == .lock || opcode == .flock, isConflict(submitted, isQuestion: opcode == .lock && (wire.flags == 5 || wire.flags == 36)), endWhoHasDied() {
            guard unsafe !end.pointee.ended else { return false }
            submitted = volume.submit(request)
        }
        if let completion = submitted {
            if completion.result == Completion.escape {
                unsafe copyEscape(completion, record, arena: end.pointee.arena, first: wire.pathOffset, second: wire.path2Offset)
            }
            unsafe answer(end, tag: wire.tag, sequence: sequence, WireCompletion(completion))
            statistics.record(opcode, failed: completion.result < 0, cycles: dashfs_cycles() &- started)
            return true
        }
        unsafe record.pointee.channel = unsafe end
        unsafe record.pointee.sequence = sequence
        unsafe record.pointee.tag = wire.tag
        unsafe record.pointee.opcode = opcode
        unsafe record.pointee.started = started
        unsafe record.pointee.pathOffset = wire.pathOffset
        unsafe record.pointee.path2Offset = wire.path2Offset
        unsafe end.pointee.recordOfTag[Int(wire.tag)] = Int32(truncatingIfNeeded: index)
        unsafe end.pointee.busyTags |= tagBit
        unsafe end.pointee.session.pointee.parked &+= 1
        slab.takeTop()
        parkedCount &+= 1
        statistics.parked &+= 1
        return true
    }

    /// Whether somebody else's lock is in the way; for F_GETLK and F_OFD_GETLK, whether one is named.
    private func isConflict(_ completion: Completion?, isQuestion: Bool) -> Bool {
        guard let completion else { return false }
        let noLock: UInt64 = 2
        let deadlock: Int64 = -35
        if isQuestion { return completion.result >= 0 && completion.info0 != noLock }
        return completion.result == -ErrorNumber.again || completion.result == deadlock
    }

    // MARK: Answers

    @inline(__always)
    private func answer(_ end: UnsafeMutablePointer<ChannelEnd>, tag: UInt8, sequence: UInt32, _ completion: WireCompletion) {
        let line = unsafe end.pointee.completions + Layout.completions + Int(tag) * Layout.completionBytes
        unsafe completion.publish(line: line, sequence: sequence)
    }

    /// Wakes the client where it has announced sleep. Once for each announcement: it makes a new one before it sleeps again.
    @inline(__always)
    func wakeClient(_ end: UnsafeMutablePointer<ChannelEnd>) {
        // Completions stored, fence, sleep word read; the client stores the word, fences, reads the completions.
        dashfs_full_fence()
        let announced = unsafe dashfs_load32(end.pointee.requests + Layout.sleepWord)
        if unsafe announced != 0 && announced != end.pointee.wokenFor { unsafe wakeSleeper(end, announced) }
    }

    @inline(never)
    private func wakeSleeper(_ end: UnsafeMutablePointer<ChannelEnd>, _ announced: UInt32) {
        unsafe end.pointee.wokenFor = announced
        unsafe end.pointee.wakeCount &+= 1
        let word = unsafe end.pointee.completions + Layout.wakeWord
        unsafe dashfs_store32_release(word, end.pointee.wakeCount)
        unsafe _ = dashfs_sys_futex_wake(word, Int32.max)
        statistics.clientWakes &+= 1
    }

    /// Puts what is left of an escaping path where the client had put the path.
    private func copyEscape(
        _ completion: Completion, _ record: UnsafeMutablePointer<RequestRecord>, arena: UnsafeMutableRawPointer, first: UInt32,
        second: UInt32
    ) {
        let count = min(Int(truncatingIfNeeded: completion.info0 & 0xffff), Layout.pathCapacity)
        // The offsets were checked, with the whole capacity behind them, before the request ran.
        if completion.info1 == 1 {
            unsafe dashfs_copy(arena + Int(second), record.pointee.paths + Layout.pathCapacity, count)
        } else {
            unsafe dashfs_copy(arena + Int(first), record.pointee.paths, count)
        }
    }

    /// Hands over what the volume has finished of the parked requests.
    func finishParked() -> Bool {
        var any = false
        while let completion = volume.nextCompletion() {
            any = true
            guard let index = slab.record(token: completion.token), let end = unsafe slab.records[index].channel else { continue }
            let record = unsafe slab.records + index
            let tag = unsafe record.pointee.tag
            unsafe end.pointee.busyTags &= ~(1 &<< UInt64(tag))
            unsafe end.pointee.recordOfTag[Int(tag)] = -1
            unsafe end.pointee.session.pointee.parked &-= 1
            parkedCount &-= 1
            statistics.record(
                unsafe record.pointee.opcode, failed: completion.result < 0, cycles: dashfs_cycles() &- (unsafe record.pointee.started))
            if unsafe end.pointee.ended {
                slab.giveBack(index)
                if unsafe end.pointee.busyTags == 0 { unsafe releaseChannel(end) }
                continue
            }
            if completion.result == Completion.escape {
                unsafe copyEscape(
                    completion, record, arena: end.pointee.arena, first: record.pointee.pathOffset,
                    second: record.pointee.path2Offset)
            }
            unsafe answer(end, tag: tag, sequence: record.pointee.sequence, WireCompletion(completion))
            slab.giveBack(index)
            unsafe wakeClient(end)
        }
        return any
    }

    private func cancel(_ end: UnsafeMutablePointer<ChannelEnd>, tag: UInt64) {
        guard tag < 64 else { return }
        let index = unsafe end.pointee.recordOfTag[Int(tag)]
        guard index >= 0 else { return }
        volume.cancel(
            session: unsafe end.pointee.volumeSession,
            token: unsafe UInt64(slab.records[Int(index)].generation) << 32 | UInt64(index))
    }

    /// Ends the session of a client that wrote what FS Lib never writes.
    @discardableResult @inline(never)
    private func violate(_ end: UnsafeMutablePointer<ChannelEnd>, _ violation: Violation) -> Bool {
        statistics.record(violation)
        unsafe endSession(end.pointee.session, reason: violation.text, hostile: true)
        return false
    }

    // MARK: Polled and dormant channels

    /// A new channel of a session. Its segments' descriptors are still open, for the caller to hand over.
    func addChannel(_ session: UnsafeMutablePointer<SessionEnd>, arenaBytes: Int) throws(ErrorCode) -> (UnsafeMutablePointer<ChannelEnd>, Segment, Segment) {
        guard let index = freeChannels.last, unsafe session.pointee.channelCount < Int32(configuration.channelsPerSession) else {
            throw ErrorCode(result: -ErrorNumber.tooManyFiles)
        }
        guard arenaBytes + self.arenaBytes <= configuration.arenaLimit, unsafe session.pointee.arenaBytes + arenaBytes <= configuration.arenaPerSession else {
            throw ErrorCode(result: -ErrorNumber.noMemory)
        }
        let requests = try Segment(bytes: Layout.requestSegmentBytes(arena: arenaBytes), access: .clientWrites)
        var completions: Segment
        do throws(ErrorCode) {
            completions = try Segment(bytes: Layout.completionSegmentBytes, access: .clientReads)
        } catch {
            var unused = requests
            unused.closeDescriptor()
            unused.unmap()
            throw error
        }
        freeChannels.removeLast()
        let number = unsafe session.pointee.channelCount
        unsafe dashfs_store64(completions.address + Layout.completionEpoch, epoch)
        unsafe dashfs_store32(completions.address + Layout.completionVersion, UInt32(Layout.version))
        unsafe dashfs_store32(completions.address + Layout.completionSession, UInt32(bitPattern: session.pointee.index))
        unsafe dashfs_store32(completions.address + Layout.completionChannel, UInt32(bitPattern: number))
        unsafe dashfs_store64_release(completions.address + Layout.completionMagic, Layout.magic)
        let tags = UnsafeMutablePointer<Int32>.allocate(capacity: 64)
        unsafe tags.initialize(repeating: -1, count: 64)
        let end = unsafe channels + Int(index)
        unsafe end.initialize(
            to: ChannelEnd(
                requests: requests.address, completions: completions.address, arena: requests.address + Layout.arena,
                arenaBytes: arenaBytes, session: session, recordOfTag: tags, volumeSession: session.pointee.volumeSession,
                lastActive: dashfs_cycles(), index: index, nextInSession: session.pointee.firstChannel))
        unsafe session.pointee.firstChannel = index
        unsafe session.pointee.channelCount = number + 1
        unsafe session.pointee.arenaBytes += arenaBytes
        self.arenaBytes += arenaBytes
        dormantCount += 1
        unsafe dashfs_store32(completions.address + Layout.stateWord, ServerState.asleep)
        if polledCount < Worker.polledLimit { unsafe activate(end) }
        return unsafe (end, requests, completions)
    }

    /// Looks at a dormant channel in every round from now on.
    func activate(_ end: UnsafeMutablePointer<ChannelEnd>) {
        guard unsafe !end.pointee.polled, unsafe !end.pointee.ended else { return }
        if polledCount == Worker.polledLimit {
            // The one that has been silent longest makes room, or else any other that has nothing to do.
            var oldest = 0
            for place in 1..<polledCount
            where unsafe channels[Int(polled[place])].lastActive < channels[Int(polled[oldest])].lastActive { oldest = place }
            var place = 0
            while place < Worker.polledLimit, !makeDormant(place: (oldest + place) % Worker.polledLimit) { place += 1 }
            if place == Worker.polledLimit {
                // All are busy. The doorbell has been heard and will not ring again: remember to look.
                hasUnheardDoorbells = true
                return
            }
        }
        unsafe end.pointee.polled = true
        unsafe end.pointee.lastActive = dashfs_cycles()
        unsafe dashfs_store32_release(end.pointee.completions + Layout.stateWord, ServerState.polling)
        unsafe polled[polledCount] = end.pointee.index
        polledCount += 1
        dormantCount -= 1
    }

    /// Announces to one client that its ring is not looked at any more. False: a request came in at the last moment.
    private func makeDormant(place: Int) -> Bool {
        let end = unsafe channels + Int(polled[place])
        unsafe dashfs_store32(end.pointee.completions + Layout.stateWord, ServerState.asleep)
        dashfs_full_fence()
        if unsafe hasRequest(end) {
            unsafe dashfs_store32(end.pointee.completions + Layout.stateWord, ServerState.polling)
            return false
        }
        unsafe end.pointee.polled = false
        polledCount -= 1
        unsafe polled[place] = unsafe polled[polledCount]
        dormantCount += 1
        return true
    }

    @inline(__always)
    func hasRequest(_ end: UnsafeMutablePointer<ChannelEnd>) -> Bool {
        unsafe dashfs_load32_acquire(end.pointee.slot) == end.pointee.nextSequence
    }

    /// Now and then: hear the doorbells of dormant channels, and let silent ones go where many are polled.
    private func tendDormant() {
        let now = dashfs_cycles()
        guard now &- lastDoorbellLook > Worker.doorbellInterval else { return }
        lastDoorbellLook = now
        if hasUnheardDoorbells {
            hasUnheardDoorbells = false
            for index in 0..<sessionCapacity where unsafe sessions[index].phase == .open { unsafe hear(sessions + index) }
        }
        if dormantCount > 0 { takeEvents(milliseconds: 0) }
        guard polledCount > 16 else { return }
        for place in (0..<polledCount).reversed() {
            let end = unsafe channels + Int(polled[place])
            if unsafe now &- end.pointee.lastActive > Worker.dormantAfter { _ = makeDormant(place: place) }
        }
    }

    /// Takes channels of ended sessions out of the polled ones.
    private func sweepPolled() {
        polledHasEnded = false
        var place = 0
        while place < polledCount {
            let end = unsafe channels + Int(polled[place])
            if unsafe end.pointee.ended {
                unsafe end.pointee.polled = false
                polledCount -= 1
                unsafe polled[place] = unsafe polled[polledCount]
                dormantCount += 1
                if unsafe end.pointee.busyTags == 0 { unsafe releaseChannel(end) }
            } else {
                place += 1
            }
        }
    }

    // MARK: Ends

    /// Closes a session, whatever state it is in. Its arenas stay until the volume has let go of every parked request.
    func endSession(_ session: UnsafeMutablePointer<SessionEnd>, reason: String, hostile: Bool = false) {
        let phase = unsafe session.pointee.phase
        guard phase == .open || phase == .holding || phase == .greeting else { return }
        let metadata: Logger.Metadata = unsafe [
            "session": "\(session.pointee.index)", "pid": "\(session.pointee.process)", "uid": "\(session.pointee.user)",
        ]
        if hostile {
            complain("session ended: protocol violation: \(reason)", metadata: metadata)
        } else {
            logger.debug("session ended: \(reason)", metadata: metadata)
        }
        unsafe session.pointee.phase = .ending
        unsafe session.pointee.key = (0, 0)
        unsafe control.forget(session, events: events)
        if phase != .greeting { volume.closeSession(unsafe session.pointee.volumeSession) }
        var index = unsafe session.pointee.firstChannel
        while index >= 0 {
            let end = unsafe channels + Int(index)
            index = unsafe end.pointee.nextInSession
            unsafe end.pointee.ended = true
            unsafe dashfs_store32(end.pointee.completions + Layout.stateWord, ServerState.closed)
            dashfs_full_fence()
            unsafe end.pointee.wakeCount &+= 1
            unsafe dashfs_store32_release(end.pointee.completions + Layout.wakeWord, end.pointee.wakeCount)
            unsafe _ = dashfs_sys_futex_wake(end.pointee.completions + Layout.wakeWord, Int32.max)
            if unsafe end.pointee.polled {
                polledHasEnded = true
            } else if unsafe end.pointee.busyTags == 0 {
                unsafe releaseChannel(end)
            }
        }
        // What the volume has cancelled it answers at a later poll; a session without channels is free at once.
        unsafe freeIfEmpty(session)
    }

    /// What is read past the cache goes from the device to the client: once one of its files is open so, the device is to reach its arena.
    @inline(never) private func mapArena(_ end: UnsafeMutablePointer<ChannelEnd>) {
        unsafe end.pointee.isMapped = true
        unsafe queue?.map(end.pointee.deviceMemory)
    }

    /// Gives back the memory of a channel that has ended, is not polled and has nothing under way.
    private func releaseChannel(_ end: UnsafeMutablePointer<ChannelEnd>) {
        guard unsafe !end.pointee.polled else {
            polledHasEnded = true
            return
        }
        let session = unsafe end.pointee.session
        let index = unsafe end.pointee.index
        // Unchain.
        if unsafe session.pointee.firstChannel == index {
            unsafe session.pointee.firstChannel = unsafe end.pointee.nextInSession
        } else {
            var before = unsafe session.pointee.firstChannel
            while before >= 0, unsafe channels[Int(before)].nextInSession != index { before = unsafe channels[Int(before)].nextInSession }
            if before >= 0 { unsafe channels[Int(before)].nextInSession = unsafe end.pointee.nextInSession }
        }
        if unsafe end.pointee.isMapped { unsafe queue?.unmap(end.pointee.deviceMemory) }
        unsafe _ = dashfs_sys_unmap(end.pointee.requests, Layout.requestSegmentBytes(arena: end.pointee.arenaBytes))
        unsafe _ = dashfs_sys_unmap(end.pointee.completions, Layout.completionSegmentBytes)
        unsafe session.pointee.arenaBytes -= end.pointee.arenaBytes
        unsafe arenaBytes -= end.pointee.arenaBytes
        unsafe end.pointee.recordOfTag.deallocate()
        unsafe end.deinitialize(count: 1)
        freeChannels.append(index)
        dormantCount -= 1
        unsafe freeIfEmpty(session)
    }

    private func freeIfEmpty(_ session: UnsafeMutablePointer<SessionEnd>) {
        guard unsafe session.pointee.phase == .ending, unsafe session.pointee.firstChannel < 0 else { return }
        let index = unsafe session.pointee.index
        let generation = unsafe session.pointee.generation
        unsafe session.pointee = SessionEnd(generation: generation &+ 1, index: index)
        sessionCount -= 1
    }
}

extension WireCompletion {
    @inline(__always)
    init(_ completion: borrowing Completion) {
        self.init(result: completion.result, info0: completion.info0, info1: completion.info1, info2: completion.info2)
    }
}
