import CSystem
import Synchronization
import Wire

/// When the worker sleeps, and how it is woken.
///
/// No wake-up is lost: it stores `asleep` in the state word of every polled channel, fences, and then looks at every ring, the device and the
/// attention word once more; a client stores its request, fences and then reads the state word. One of the two sees the other.
/// An idle worker looks at rings and device for as long as its `SpinBudget` says, and then sleeps: so a client that comes back soon, and an fsync whose
/// device answers soon, find it awake, and one that is used rarely spins hardly at all.
extension Worker {
    /// Serves until `until` says so; it is asked after every round.
    func run(until finished: () -> Bool) {
        var spin = SpinBudget(processors: dashfs_processors())
        var idleSince: UInt64 = 0
        var lastLook: UInt64 = 0
        while true {
            let busy = runRound()
            if finished() { return }
            if busy {
                if idleSince != 0 { spin.ended(after: dashfs_cycles() &- idleSince) }
                idleSince = 0
                continue
            }
            let now = dashfs_cycles()
            if idleSince == 0 {
                idleSince = now
                lastLook = now
            }
            let crowded = now &- lastLook > SpinBudget.slice && !hasUsedDevice()
            lastLook = now
            if crowded { spin.crowd() }
            let mayWait =
                switch configuration.wait {
                case .never: false
                case .always: true
                case .adaptive: crowded || now &- idleSince >= spin.cycles
                }
            guard mayWait, !volume.hasPendingWork else {
                dashfs_pause()
                continue
            }
            if sleep() {
                spin.ended(after: dashfs_cycles() &- idleSince)
                idleSince = 0
            }
            lastLook = dashfs_cycles()
        }
    }

    /// Whether a round may have been long because of the device (a flush is waited for), since it was last asked.
    private func hasUsedDevice() -> Bool {
        guard let counters = queue?.counters else { return false }
        defer { deviceSeen = counters }
        return counters != deviceSeen
    }

    /// Announces sleep, looks once more, sleeps, and takes what woke it. True where that was somebody's answer; a request is left for the next round.
    func sleep() -> Bool {
        for place in 0..<polledCount { setState(place, ServerState.asleep) }
        dashfs_full_fence()
        queue?.armWakeup()
        defer {
            queue?.disarmWakeup()
            for place in 0..<polledCount { setState(place, ServerState.polling) }
        }
        for place in 0..<polledCount {
            let end = unsafe channels + Int(polled[place])
            if unsafe hasRequest(end), unsafe canTake(end) { return false }
        }
        updateClock()
        if pollVolume() { return true }
        if volume.hasPendingWork || attention.isSet || hasUnheardDoorbells { return false }
        var milliseconds: Int32 = -1
        if let deadline = volume.deadline {
            let now = dashfs_clock_monotonic()
            // Rounded up, so that the deadline has passed when the sleep ends.
            milliseconds = deadline <= now ? 0 : Int32(min((deadline - now) / 1_000_000 + 1, 60_000))
        }
        slumber.add(1, ordering: .relaxed)
        takeEvents(milliseconds: milliseconds)
        slumber.add(1, ordering: .relaxed)
        updateClock()
        return pollVolume()
    }

    private func setState(_ place: Int, _ state: UInt32) {
        let end = unsafe channels + Int(polled[place])
        if unsafe !end.pointee.ended { unsafe dashfs_store32_release(end.pointee.completions + Layout.stateWord, state) }
    }

    /// Waits for events at most so long, and takes them: doorbells of dormant channels, the control sockets.
    func takeEvents(milliseconds: Int32) {
        unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 32) { list in
            guard let first = list.baseAddress else { return }
            let count = unsafe dashfs_sys_epoll_wait(events, first, 32, milliseconds)
            guard count > 0 else { return }
            for position in 0..<count {
                let data = unsafe dashfs_epoll_data(first + position)
                switch EventTag.kind(data) {
                case EventTag.doorbell:
                    statistics.doorbells &+= 1
                    if let session = unsafe session(data) { unsafe hear(session) }
                case EventTag.control: handleControl()
                default: break
                }
            }
        }
    }

    /// A doorbell rang: those of the session's dormant channels that have a request are looked at from now on.
    func hear(_ session: UnsafeMutablePointer<SessionEnd>) {
        var index = unsafe session.pointee.firstChannel
        while index >= 0 {
            let end = unsafe channels + Int(index)
            index = unsafe end.pointee.nextInSession
            if unsafe !end.pointee.polled, unsafe hasRequest(end) { unsafe activate(end) }
        }
    }

    /// The session that an event names, unless its place has another user by now.
    func session(_ data: UInt64) -> UnsafeMutablePointer<SessionEnd>? {
        let index = Int(data & 0xffffff)
        guard index < sessionCapacity else { return nil }
        let session = unsafe sessions + index
        guard unsafe session.pointee.generation & 0xffff_ffff == EventTag.generation(data) else { return nil }
        return unsafe session
    }
}

/// What an epoll event is about: kind in the top byte, generation of the session (32 bits), index of the session (24 bits).
enum EventTag {
    static let control: UInt64 = 0
    static let device: UInt64 = 1 << 56
    static let doorbell: UInt64 = 2 << 56
    static let listener: UInt64 = 3 << 56
    static let socket: UInt64 = 4 << 56
    static let death: UInt64 = 5 << 56
    static let signal: UInt64 = 6 << 56
    static let stop: UInt64 = 7 << 56

    static func kind(_ data: UInt64) -> UInt64 { data & (0xff << 56) }
    static func generation(_ data: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: data >> 24) }
    static func make(_ kind: UInt64, _ session: SessionEnd) -> UInt64 {
        kind | UInt64(session.generation) << 24 | UInt64(UInt32(bitPattern: session.index))
    }
}
