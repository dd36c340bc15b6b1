import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// One end of a ring: 64 requests under way at most, and an arena for their paths and data.
///
/// Invariants: used by one holder at a time (`Session.acquire`). A tag is busy from `reserve` to `take`. Because a request is answered at the place
/// of its tag, and tags are as many as slots, a free tag means that the slot of the next request has been read by the server: no head index travels.
/// The server is trusted no further than its answers: a hostile one gives wrong results, not memory faults (every length is bounded here too).
@safe public struct Channel {
    let state: UnsafeMutablePointer<ChannelState>
    let session: UnsafeMutablePointer<SessionState>

    init(state: UnsafeMutablePointer<ChannelState>, session: UnsafeMutablePointer<SessionState>) {
        unsafe self.state = unsafe state
        unsafe self.session = unsafe session
    }

    // MARK: One request at a time

    /// Sends a request and waits for its answer.
    @inline(__always)
    public func call(_ request: inout WireRequest, secondLine: Bool = false) -> WireCompletion {
        guard let tag = reserve() else { return WireCompletion(result: refusal) }
        request.tag = tag
        submit(request, secondLine: secondLine)
        announce()
        return wait(tag)
    }

    /// Why `reserve` has no tag: the session is over (EIO), or 64 requests are under way (EAGAIN).
    public var refusal: Int64 { unsafe state.pointee.dead ? -ErrorNumber.io : -ErrorNumber.again }

    // MARK: Many requests at once

    /// A free tag, or nil where 64 requests are under way. Its path area is the caller's until `take`.
    @inline(__always)
    public func reserve() -> UInt8? {
        var free = unsafe state.pointee.freeTags
        if free == 0 {
            freePosted()
            unsafe free = state.pointee.freeTags
        }
        guard free != 0 else { return nil }
        let tag = UInt8(truncatingIfNeeded: free.trailingZeroBitCount)
        unsafe state.pointee.freeTags = free & (free &- 1)
        return tag
    }

    /// Gives a reserved tag back that was not submitted.
    public func unreserve(_ tag: UInt8) { unsafe state.pointee.freeTags |= 1 << UInt64(tag & 63) }

    /// Puts a request with a reserved tag in the ring, where a server that is awake sees it. `announce` after the last of a batch.
    @inline(__always)
    public func submit(_ request: borrowing WireRequest, secondLine: Bool = false) {
        let sequence = unsafe state.pointee.sequence
        unsafe state.pointee.sequence = sequence &+ 1
        unsafe dashfs_store32(sequenceAddress(request.tag), sequence)
        let slot = unsafe state.pointee.requests + Layout.slots + Int(sequence % Layout.slotCount) * Layout.slotBytes
        unsafe request.publish(slot: slot, sequence: sequence, secondLine: secondLine)
    }

    /// Wakes the server where it sleeps.
    @inline(__always)
    public func announce() {
        // Store of the slot, fence, load of the server's state; the server stores its state, fences, and looks at the slots once more.
        dashfs_full_fence()
        if unsafe dashfs_load32(state.pointee.completions + Layout.stateWord) == ServerState.asleep {
            _ = dashfs_eventfd_ring(unsafe session.pointee.doorbell)
        }
    }

    @inline(__always)
    public func isComplete(_ tag: UInt8) -> Bool {
        // Pairs with the release in `WireCompletion.publish`.
        unsafe dashfs_load32_acquire(line(tag)) == dashfs_load32(sequenceAddress(tag))
    }

    /// The answer of a request that `isComplete`; frees its tag.
    @inline(__always)
    public func take(_ tag: UInt8) -> WireCompletion {
        let completion = unsafe WireCompletion(line: line(tag))
        unreserve(tag)
        unsafe state.pointee.lastTag = tag
        return completion
    }

    /// Waits for the answer of one request and takes it. EIO where the server is gone.
    /// - Parameter interruptible: a signal cancels the request (EINTR unless it has had an effect); for waits without a limit.
    @inline(__always)
    public func wait(_ tag: UInt8, interruptible: Bool = false) -> WireCompletion {
        var tries = 64
        while tries > 0 {
            if isComplete(tag) { return take(tag) }
            dashfs_pause()
            tries &-= 1
        }
        return waitLong(tag, interruptible: interruptible)
    }

    // MARK: Requests whose answer nobody waits for

    /// Few, so that those who wait have tags.
    private static let postedLimit = 8

    /// Sends a request without waiting; its answer is not looked at. The server takes a ring's requests in their order, so it comes before the next
    /// request of this channel. False where it has to be called in the usual way: enough others are on their way.
    @inline(__always)
    func post(_ request: inout WireRequest, secondLine: Bool = false) -> Bool {
        if unsafe state.pointee.postedTags != 0 { collectPosted() }
        guard unsafe state.pointee.postedTags.nonzeroBitCount < Channel.postedLimit, let tag = reserve() else { return false }
        request.tag = tag
        submit(request, secondLine: secondLine)
        announce()
        unsafe state.pointee.postedTags |= 1 << UInt64(tag & 63)
        return true
    }

    /// No tag is free: one at least of those whose answers nobody waits for is to become so.
    @inline(never)
    private func freePosted() {
        collectPosted()
        let posted = unsafe state.pointee.postedTags
        guard posted != 0, unsafe state.pointee.freeTags == 0 else { return }
        let tag = UInt8(truncatingIfNeeded: posted.trailingZeroBitCount)
        unsafe state.pointee.postedTags = posted & (posted &- 1)
        _ = wait(tag)
    }

    /// Frees the tags of those that have been answered.
    private func collectPosted() {
        var left = unsafe state.pointee.postedTags
        while left != 0 {
            let tag = UInt8(truncatingIfNeeded: left.trailingZeroBitCount)
            left &= left &- 1
            guard isComplete(tag) else { continue }
            unsafe state.pointee.postedTags &= ~(1 << UInt64(tag))
            unreserve(tag)
        }
    }

    // MARK: Arena

    /// 4096 bytes for a path of the request with this tag.
    @inline(__always)
    public func pathArea(_ tag: UInt8, second: Bool = false) -> UnsafeMutableRawPointer {
        unsafe state.pointee.arena + Int(pathOffset(tag, second: second))
    }

    @inline(__always)
    public func pathOffset(_ tag: UInt8, second: Bool = false) -> UInt32 {
        UInt32(tag & 63) * UInt32(2 * Layout.pathCapacity) + (second ? UInt32(Layout.pathCapacity) : 0)
    }

    /// Where data goes: `dataCapacity` bytes. One-at-a-time calls use it from the start; a batch divides it as it likes.
    public var dataArea: UnsafeMutableRawPointer { unsafe state.pointee.arena + Layout.pathAreaBytes }
    public var dataCapacity: Int { unsafe state.pointee.arenaBytes - Layout.pathAreaBytes }
    /// Offset of `dataArea` as requests name it.
    public static let dataOffset = UInt32(Layout.pathAreaBytes)

    /// After a call that answered `WireCompletion.escape`: what remains to be resolved outside. Valid until the next request.
    public func remainder(of completion: WireCompletion) -> UnsafeRawBufferPointer {
        let length = min(Int(truncatingIfNeeded: completion.info0 & 0xffff), Layout.pathCapacity)
        return unsafe UnsafeRawBufferPointer(
            start: pathArea(state.pointee.lastTag, second: completion.info1 == 1), count: length)
    }

    /// Requests whose answers somebody wants.
    public var tagsUnderWay: Int { unsafe 64 - (state.pointee.freeTags | state.pointee.postedTags).nonzeroBitCount }
    public var sleeps: UInt64 { unsafe state.pointee.sleeps }
    /// The number that the next request will get: for tests of the ring itself.
    public var nextSequence: UInt32 { unsafe state.pointee.sequence }
    /// The request segment: for tests that write what FS Lib never would.
    public var requestSegment: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: state.pointee.requests, count: Layout.requestSegmentBytes(arena: state.pointee.arenaBytes))
    }
    /// The completion segment, mapped for reading only.
    public var completionSegment: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: state.pointee.completions, count: Layout.completionSegmentBytes)
    }

    @inline(__always)
    func line(_ tag: UInt8) -> UnsafeRawPointer {
        unsafe UnsafeRawPointer(state.pointee.completions + Layout.completions + Int(tag & 63) * Layout.completionBytes)
    }

    @inline(__always)
    func sequenceAddress(_ tag: UInt8) -> UnsafeMutableRawPointer {
        unsafe UnsafeMutableRawPointer(state) - ChannelState.offset + ChannelState.sequences + Int(tag & 63) * 4
    }
}

/// Like the pointers it is made of, a channel may be handed from thread to thread; it has one holder at a time all the same.
extension Channel: @unchecked Sendable {}
