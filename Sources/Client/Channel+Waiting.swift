import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// How a client waits: it looks for as long as such calls have usually taken, then sleeps on a futex of the completion segment.
///
/// No wake-up is lost: the client stores its sleep word, fences, reads the wake word and only then looks for the completion; the server
/// publishes the completion, fences and only then reads the sleep word. One of the two sees the other.
/// No wait is for ever: while asleep the client looks four times a second whether the server's end of the socket is still there.
extension Channel {
    /// About 40 µs at 3 GHz: the price of a sleep and a wake-up.
    static let longestSpin: UInt64 = 120_000
    static let shortestSpin: UInt64 = 4_000
    /// Between two looks of a spinning thread lie well under this many cycles, unless somebody else wants its processor.
    static let preempted: UInt64 = 60_000
    static let napNanoseconds: Int64 = 250_000_000

    @inline(never)
    func waitLong(_ tag: UInt8, interruptible: Bool) -> WireCompletion {
        let begun = dashfs_cycles()
        if spin(tag, from: begun) { return take(tag) }
        unsafe state.pointee.sleeps += 1
        let alive = sleep(tag, interruptible: interruptible)
        let taken = dashfs_cycles() &- begun
        adapt(taken)
        guard alive else { return WireCompletion(result: -ErrorNumber.io) }
        return take(tag)
    }

    /// A call that took little longer than the spin was worth spinning for; one that took much longer was not.
    private func adapt(_ taken: UInt64) {
        let spin = unsafe state.pointee.spinCycles
        guard spin != 0 else { return }
        if taken < Channel.longestSpin * 2 {
            unsafe state.pointee.spinCycles = min(spin * 2, Channel.longestSpin)
        } else {
            unsafe state.pointee.spinCycles = max(spin / 2, Channel.shortestSpin)
        }
    }

    /// True where the completion came in time.
    private func spin(_ tag: UInt8, from begun: UInt64) -> Bool {
        let budget = unsafe state.pointee.spinCycles
        var last = begun
        while true {
            var tries = 16
            while tries > 0 {
                if isComplete(tag) {
                    // A quick answer after a time of slow ones: spinning pays again.
                    if last &- begun > budget / 2 { unsafe state.pointee.spinCycles = min(budget * 2, Channel.longestSpin) }
                    return true
                }
                dashfs_pause()
                tries &-= 1
            }
            let now = dashfs_cycles()
            if now &- begun >= budget || now &- last > Channel.preempted { return false }
            last = now
        }
    }

    /// Sleeps until the completion is there. False: the server is gone, and no completion will come.
    private func sleep(_ tag: UInt8, interruptible: Bool) -> Bool {
        let sleepWord = unsafe state.pointee.requests + Layout.sleepWord
        let completions = unsafe state.pointee.completions
        var alive = true
        var cancelling: UInt8?
        while !isComplete(tag) {
            let announced = unsafe max(state.pointee.sleepCount &+ 1, 1)
            unsafe state.pointee.sleepCount = announced
            unsafe dashfs_store32(sleepWord, announced)
            dashfs_full_fence()
            let wake = unsafe dashfs_load32_acquire(completions + Layout.wakeWord)
            if isComplete(tag) { break }
            if unsafe dashfs_load32(completions + Layout.stateWord) == ServerState.closed {
                alive = isComplete(tag)
                break
            }
            let result = unsafe dashfs_sys_futex_wait(completions + Layout.wakeWord, wake, Channel.napNanoseconds)
            if Int64(result) == -ErrorNumber.interrupted, interruptible, cancelling == nil {
                cancelling = cancel(tag)
            } else if Int64(result) == -ErrorNumber.timedOut {
                let events = dashfs_sys_poll(unsafe session.pointee.socket, 0, 0)
                if events < 0 || events & Int(POLLHUP | POLLERR) != 0, !isComplete(tag) {
                    alive = false
                    break
                }
            }
        }
        unsafe dashfs_store32(sleepWord, 0)
        if let cancelling, alive, isComplete(cancelling) || sleep(cancelling, interruptible: false) { unreserve(cancelling) }
        if !alive {
            // No tag is free any more, so every later call fails at once.
            unsafe state.pointee.dead = true
            unsafe state.pointee.freeTags = 0
        }
        return alive
    }

    /// For users of many tags at once: returns when `ready` says so, after a spin and then asleep. False: the server is gone.
    /// `ready` looks at every request under way; it is asked again after sleep has been announced, so that no wake-up is lost.
    public func waitUntil(_ ready: () -> Bool) -> Bool {
        let begun = dashfs_cycles()
        let budget = unsafe state.pointee.spinCycles
        while dashfs_cycles() &- begun < budget {
            if ready() { return true }
            dashfs_pause()
        }
        return nap(until: ready)
    }

    private func nap(until ready: () -> Bool) -> Bool {
        let sleepWord = unsafe state.pointee.requests + Layout.sleepWord
        let completions = unsafe state.pointee.completions
        defer { unsafe dashfs_store32(sleepWord, 0) }
        while true {
            let announced = unsafe max(state.pointee.sleepCount &+ 1, 1)
            unsafe state.pointee.sleepCount = announced
            unsafe dashfs_store32(sleepWord, announced)
            dashfs_full_fence()
            let wake = unsafe dashfs_load32_acquire(completions + Layout.wakeWord)
            if ready() { return true }
            if unsafe dashfs_load32(completions + Layout.stateWord) == ServerState.closed { return ready() }
            let result = unsafe dashfs_sys_futex_wait(completions + Layout.wakeWord, wake, Channel.napNanoseconds)
            if Int64(result) == -ErrorNumber.timedOut {
                let events = dashfs_sys_poll(unsafe session.pointee.socket, 0, 0)
                if events < 0 || events & Int(POLLHUP | POLLERR) != 0 { return ready() }
            }
        }
    }

    /// Asks the server to end a parked request; the tag of the asking, or nil where no tag is free.
    private func cancel(_ tag: UInt8) -> UInt8? {
        guard let own = reserve() else { return nil }
        var request = WireRequest(.cancel)
        request.tag = own
        request.argument = UInt64(tag)
        submit(request, secondLine: true)
        announce()
        return own
    }
}
