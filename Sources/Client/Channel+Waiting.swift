import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// How a client waits: it looks for as long as its `SpinBudget` says, then sleeps on a futex of the completion segment.
///
/// No wake-up is lost: the client stores its sleep word, fences, reads the wake word and only then looks for the completion; the server
/// publishes the completion, fences and only then reads the sleep word. One of the two sees the other.
/// No wait is for ever: while asleep the client looks four times a second whether the server's end of the socket is still there.
extension Channel {
    static let napNanoseconds: Int64 = 250_000_000

    @inline(never)
    func waitLong(_ tag: UInt8, interruptible: Bool) -> WireCompletion {
        let begun = dashfs_cycles()
        var alive = true
        if !look(until: { isComplete(tag) }) {
            unsafe state.pointee.sleeps += 1
            alive = sleep(tag, interruptible: interruptible)
        }
        unsafe state.pointee.spin.ended(after: dashfs_cycles() &- begun)
        return alive ? take(tag) : WireCompletion(result: -ErrorNumber.io)
    }

    /// For users of many tags at once: returns when `ready` says so, after looking for a while and then asleep. False: the server is gone.
    /// `ready` looks at every request under way; it is asked again after sleep has been announced, so that no wake-up is lost.
    public func waitUntil(_ ready: () -> Bool) -> Bool {
        let begun = dashfs_cycles()
        let alive = look(until: ready) || nap(until: ready)
        unsafe state.pointee.spin.ended(after: dashfs_cycles() &- begun)
        return alive
    }

    /// True where it came in time.
    @inline(__always)
    private func look(until ready: () -> Bool) -> Bool {
        let begun = dashfs_cycles()
        let budget = unsafe state.pointee.spin.cycles
        var last = begun
        while true {
            var tries = 16
            while tries > 0 {
                if ready() { return true }
                dashfs_pause()
                tries &-= 1
            }
            let now = dashfs_cycles()
            if now &- last > SpinBudget.slice {
                unsafe state.pointee.spin.crowd()
                return false
            }
            if now &- begun >= budget { return false }
            last = now
        }
    }

    /// Sleeps until the completion is there. False: the server is gone, and no completion will come.
    private func sleep(_ tag: UInt8, interruptible: Bool) -> Bool {
        var cancelling: UInt8?
        let alive = nap(
            until: { isComplete(tag) }, restarting: interruptible, interrupted: { if interruptible, cancelling == nil { cancelling = cancel(tag) } })
        if let cancelling, alive, isComplete(cancelling) || sleep(cancelling, interruptible: false) { unreserve(cancelling) }
        if !alive {
            // No tag is free any more, so every later call fails at once.
            unsafe state.pointee.dead = true
            unsafe state.pointee.freeTags = 0
            unsafe state.pointee.postedTags = 0
            unsafe Session(state: session).markOver()
        }
        return alive
    }

    /// - Parameter restarting: a signal whose handler has SA_RESTART does not count as an interruption.
    @inline(__always)
    private func nap(until ready: () -> Bool, restarting: Bool = false, interrupted: () -> Void = {}) -> Bool {
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
            let word = unsafe completions + Layout.wakeWord
            let result = unsafe restarting
                ? dashfs_sys_futex_wait_restarting(word, wake, Channel.napNanoseconds) : dashfs_sys_futex_wait(word, wake, Channel.napNanoseconds)
            if Int64(result) == -ErrorNumber.interrupted {
                interrupted()
            } else if Int64(result) == -ErrorNumber.timedOut {
                // glibc's signal for it has SA_RESTART, or is held by the caller.
                if restarting, dashfs_is_being_cancelled() || dashfs_cancellation_is_pending() { interrupted() }
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
