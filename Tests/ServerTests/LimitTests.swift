import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// What one client may take, and that the others still have theirs.
@Suite(.serialized) struct LimitTests {
    private func open(_ channel: Channel, _ path: String) -> Int64 {
        unsafe path.withCString { unsafe channel.open(Place(PathBytes(terminated: $0)), flags: 0o102, mode: 0o644).result }
    }

    private func request(_ opcode: WireOpcode, _ handle: Int32, _ fill: (inout WireRequest) -> Void = { _ in }) -> WireRequest {
        var request = WireRequest(opcode)
        request.handle = handle
        fill(&request)
        return request
    }

    @discardableResult
    private func submit(_ channel: Channel, _ request: WireRequest) throws -> UInt8 {
        let tag = try #require(channel.reserve())
        var request = request
        request.tag = tag
        channel.submit(request, secondLine: true)
        return tag
    }

    @Test func sessionsEndAtTheirLimitAndComeBackWithAnyThatEnds() throws {
        let served = try ServedVolume { $0.sessionLimit = 4 }
        var sessions = try (0..<4).map { _ in try served.connect() }
        let channels = try sessions.map { try #require($0.acquire()) }
        for _ in 0..<50 { #expect(throws: ErrorCode.self) { try served.connect() } }
        for channel in channels { #expect(channel.null() == 0) }
        sessions[0].release(channels[0])
        sessions[0].disconnect()
        var again: Session?
        while again == nil { again = try? served.connect() }
        sessions[0] = try #require(again)
        #expect(try #require(sessions[0].acquire()).null() == 0)
        for session in sessions { session.disconnect() }
        served.stop()
        served.expectNothingLeft()
    }

    @Test func arenasOfOneSessionAndOfAllHaveABound() throws {
        let served = try ServedVolume {
            $0.arenaPerSession = 2 * Layout.defaultArenaBytes
            $0.arenaLimit = 3 * Layout.defaultArenaBytes
        }
        let (first, second) = (try served.connect(), try served.connect())
        let held = try [#require(first.acquire()), #require(first.acquire())]
        // A third thread gets no third ring, and takes the first one that is given back.
        let got = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            if let channel = first.acquire() {
                #expect(channel.null() == 0)
                first.release(channel)
            }
            got.signal()
        }
        #expect(held[0].null() == 0)
        first.release(held[0])
        got.wait()
        #expect(first.channelCount == 2)
        // Three arenas are all there are: who comes now is refused with an errno, and may come again.
        let refusal = #expect(throws: ErrorCode.self) { try served.connect() }
        #expect(refusal?.number == ENOMEM)
        #expect(try #require(second.acquire()).null() == 0)
        first.release(held[1])
        first.disconnect()
        var third: Session?
        while third == nil { third = try? served.connect() }
        third?.disconnect()
        second.disconnect()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func descriptorsOfOneSessionHaveABound() throws {
        let served = try ServedVolume(descriptionsPerSession: 10)
        let (greedy, other) = (try served.connect(), try served.connect())
        let (first, second) = (try #require(greedy.acquire()), try #require(other.acquire()))
        let handles = (0..<10).map { _ in open(first, "/f") }
        #expect(handles.allSatisfy { $0 >= 0 })
        #expect(open(first, "/f") == -Int64(EMFILE))
        #expect(open(second, "/f") >= 0)
        #expect(first.close(Int32(handles[3])) == 0)
        #expect(open(first, "/f") >= 0)
        #expect(open(first, "/f") == -Int64(EMFILE))
        for session in [greedy, other] { session.disconnect() }
        served.stop()
        served.expectNothingLeft()
    }

    @Test func locksOfOneSessionHaveABoundAndAllGoWithOneClose() throws {
        let served = try ServedVolume()
        let (greedy, other) = (try served.connect(), try served.connect())
        let (first, second) = (try #require(greedy.acquire()), try #require(other.acquire()))
        let (mine, theirs) = (Int32(open(first, "/f")), Int32(open(second, "/f")))
        // Neighbours are of different owners or kinds, so that none are joined: every release changes its neighbour in the list as well.
        for number in 0..<1000 {
            #expect(second.lock(theirs, command: 6, type: 0, offset: Int64(number) * 4, length: 1).result == 0)
            #expect(first.lock(mine, command: 6, type: 0, offset: Int64(number) * 4, length: 1, owner: UInt32(number)).result == 0)
        }
        #expect(first.lock(mine, command: 6, type: 0, offset: 9001, length: 1).result == -Int64(ENOLCK))
        #expect(second.lock(theirs, command: 6, type: 1, offset: 0, length: 0).result == -Int64(EAGAIN))
        #expect(first.close(mine) == 0)
        #expect(second.lock(theirs, command: 6, type: 1, offset: 0, length: 0).result == 0)
        // The same by death: the session ends without a close.
        let again = Int32(open(first, "/g"))
        for number in 0..<1000 { #expect(first.lock(again, command: 6, type: 1, offset: Int64(number) * 2, length: 1, owner: UInt32(number % 7)).result == 0) }
        greedy.disconnect()
        let free = Int32(open(second, "/g"))
        #expect(second.lock(free, command: 7, type: 1, offset: 0, length: 0).result == 0)
        other.disconnect()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aFullRingOfSlowRequestsKeepsNobodyElseWaiting() throws {
        let served = try ServedVolume(running: false)
        let (greedy, other) = (try served.connectStepping(), try served.connectStepping())
        let (first, second) = (try #require(greedy.acquire()), try #require(other.acquire()))
        let opening = try submit(first, WireRequest(.sync))
        while !first.isComplete(opening) { served.server.step() }
        _ = first.take(opening)
        var slow = WireRequest(.open)
        (slow.flags, slow.mode) = (0o102, 0o600)
        let tag = try #require(first.reserve())
        slow.tag = tag
        unsafe Array("/slow".utf8).withUnsafeBytes { unsafe first.put(Place(PathBytes($0)), into: &slow) }
        first.submit(slow)
        while !first.isComplete(tag) { served.server.step() }
        let handle = Int32(first.take(tag).result)
        var answered = 0
        for _ in 0..<50 {
            var tags: [UInt8] = []
            while first.tagsUnderWay < 64 {
                tags.append(
                    try submit(first, request(.write, handle) {
                        ($0.offset, $0.bufferOffset, $0.bufferLength) = (0, Channel.dataOffset, UInt32(first.dataCapacity))
                    }))
            }
            let mine = try submit(second, WireRequest(.null))
            served.server.step()
            // One turn: at most sixteen of theirs, and mine.
            #expect(second.isComplete(mine))
            #expect(tags.filter { first.isComplete($0) }.count <= 16)
            _ = second.take(mine)
            while !tags.allSatisfy({ first.isComplete($0) }) { served.server.step() }
            for tag in tags {
                if first.take(tag).result == Int64(first.dataCapacity) { answered += 1 }
            }
        }
        #expect(answered == 50 * 64)
        for session in [greedy, other] { session.disconnect() }
        served.server.step(control: true)
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aClientThatNeverTakesItsAnswersStopsOnlyItself() throws {
        let served = try ServedVolume(running: false)
        let (deaf, other) = (try served.connectStepping(), try served.connectStepping())
        let (first, second) = (try #require(deaf.acquire()), try #require(other.acquire()))
        for round in 0..<2000 {
            // Uses its tags again without a look at what has come.
            for tag in 0..<64 {
                var request = WireRequest(round % 3 == 0 ? .sync : .null)
                request.tag = UInt8(tag)
                first.submit(request)
            }
            let mine = try submit(second, WireRequest(.null))
            served.server.step()
            #expect(second.isComplete(mine))
            _ = second.take(mine)
            for _ in 0..<8 { served.server.step() }
        }
        #expect(deaf.isOpen)
        for session in [deaf, other] { session.disconnect() }
        served.server.step(control: true)
        served.stop()
        #expect(served.server.snapshot.violations == 0)
        served.expectNothingLeft()
    }

    @Test func aFloodOfControlMessagesEndsItsSessionAndNoOther() throws {
        let served = try ServedVolume()
        let other = try served.connect()
        let channel = try #require(other.acquire())
        let flood = try served.connect()
        var packet = [UInt8](repeating: 0, count: ControlMessage.bytes)
        unsafe packet.withUnsafeMutableBytes { unsafe ControlMessage(ControlMessage.Kind.statistics).store($0) }
        var sent = 0
        // Answers that nobody takes fill the socket, and then the session is over.
        while flood.isOpen {
            let result = unsafe packet.withUnsafeBytes { unsafe dashfs_send_packet(flood.socket, $0.baseAddress!, $0.count, nil, 0, Int32(dashfs_dont_wait)) }
            if result > 0 { sent += 1 }
            #expect(channel.null() == 0)
        }
        #expect(sent > 10)
        #expect(channel.null() == 0)
        flood.disconnect()
        other.disconnect()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aServerOutOfDescriptorsTurnsConnectionsAwayAndGoesToSleep() throws {
        let served = try ServedVolume(running: false)
        let other = try served.connectStepping()
        let channel = try #require(other.acquire())
        // In a child, whose limit of descriptors is its own: the server is stepped there.
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        let length = served.socketPath.utf8.count
        let child = Int32(dashfs_sys_call(57, 0, 0, 0, 0, 0, 0))
        if child == 0 {
            var limit = rlimit()
            limit.rlim_max = 4096
            let attempt = dashfs_sys_seqpacket()
            // Nothing above the descriptor that is to be refused.
            limit.rlim_cur = rlim_t(attempt + 1)
            unsafe _ = setrlimit(__rlimit_resource_t(7), &limit)
            let connected = unsafe dashfs_sys_connect_unix(Int32(attempt), path, length)
            served.server.step(control: true)
            // Taken and closed, so that it is announced no more.
            let events = dashfs_sys_poll(Int32(attempt), 1, 0)
            dashfs_sys_call(231, connected == 0 && events & 0x10 != 0 ? 0 : 1, 0, 0, 0, 0, 0)
        }
        var status: Int32 = 0
        while unsafe waitpid(child, &status, 0) < 0 {}
        #expect(status == 0)
        other.release(channel)
        other.disconnect()
    }
}

/// Operations of several steps whose descriptor changes under them between two steps.
@Suite struct SteppedOperationTests {
    private struct Ground {
        let served: ServedVolume
        let session: Session
        let channel: Channel

        /// So small a cache that a write of 300 KiB waits for frames in its middle.
        init() throws {
            served = try ServedVolume(running: false, cacheFrames: 64)
            session = try served.connectStepping()
            channel = try #require(session.acquire())
        }

        func run(_ request: WireRequest, _ path: String = "") throws -> Int64 {
            let tag = try submit(request, path)
            return finish(tag)
        }

        func submit(_ request: WireRequest, _ path: String = "") throws -> UInt8 {
            let tag = try #require(channel.reserve())
            var request = request
            request.tag = tag
            if !path.isEmpty { unsafe Array(path.utf8).withUnsafeBytes { unsafe channel.put(Place(PathBytes($0)), into: &request) } }
            channel.submit(request, secondLine: true)
            return tag
        }

        func finish(_ tag: UInt8) -> Int64 {
            while !channel.isComplete(tag) { served.server.step() }
            return channel.take(tag).result
        }

        func open(_ path: String, _ flags: UInt32 = 0o102) throws -> Int32 {
            var request = WireRequest(.open)
            (request.flags, request.mode) = (flags, 0o600)
            return Int32(try run(request, path))
        }

        func transfer(_ opcode: WireOpcode, _ handle: Int32, _ count: Int, offset: Int64 = -1) -> WireRequest {
            var request = WireRequest(opcode)
            (request.handle, request.offset, request.bufferOffset, request.bufferLength) = (handle, offset, Channel.dataOffset, UInt32(count))
            return request
        }

        func end() {
            session.disconnect()
            served.server.step(control: true)
            served.stop()
            #expect(served.server.snapshot.violations == 0)
            served.expectNothingLeft()
        }
    }

    @Test(arguments: [Int64(0), .max, 5])
    func aWriteIsNotMovedByASeekInItsMiddle(to offset: Int64) throws {
        let ground = try Ground()
        let handle = try ground.open("/f")
        let write = try ground.submit(ground.transfer(.write, handle, 300_000))
        var seek = WireRequest(.seek)
        (seek.handle, seek.offset) = (handle, offset)
        let other = try ground.submit(seek)
        #expect(ground.finish(write) == 300_000)
        #expect(ground.finish(other) == offset)
        var status = WireRequest(.seek)
        (status.handle, status.offset, status.flags) = (handle, 0, 2)
        #expect(try ground.run(status) == 300_000)
        ground.end()
    }

    @Test func aReadIsNotMovedByASeekInItsMiddle() throws {
        let ground = try Ground()
        let handle = try ground.open("/f")
        #expect(try ground.run(ground.transfer(.write, handle, 300_000, offset: 0)) == 300_000)
        var sync = WireRequest(.fsync)
        sync.handle = handle
        #expect(try ground.run(sync) == 0)
        // What the first step reads is in the cache, so that it has begun when the seek comes.
        #expect(try ground.run(ground.transfer(.read, handle, 20_000, offset: 0)) == 20_000)
        let read = try ground.submit(ground.transfer(.read, handle, 300_000))
        var seek = WireRequest(.seek)
        (seek.handle, seek.offset) = (handle, .max)
        let other = try ground.submit(seek)
        #expect(ground.finish(read) == 300_000)
        _ = ground.finish(other)
        ground.end()
    }

    @Test(arguments: [UInt32(0o102), 0o2102])
    func aWriteEndsWithTheDescriptorThatItBeganOn(flags: UInt32) throws {
        let ground = try Ground()
        let handle = try ground.open("/f", flags)
        let write = try ground.submit(ground.transfer(.write, handle, 300_000))
        var close = WireRequest(.close)
        close.handle = handle
        let closing = try ground.submit(close)
        var open = WireRequest(.open)
        (open.flags, open.mode) = (flags, 0o600)
        let opening = try ground.submit(open, "/other")
        let written = ground.finish(write)
        #expect(ground.finish(closing) == 0)
        let other = Int32(ground.finish(opening))
        #expect(other == handle, "the slot is used again at once: that is what is tested")
        #expect(written > 0 && written < 300_000)
        var end = WireRequest(.seek)
        (end.handle, end.offset, end.flags) = (other, 0, 2)
        #expect(try ground.run(end) == 0)
        // The ticket on the first file went with the write: others get at it.
        let again = try ground.open("/f", 2)
        #expect(try ground.run(ground.transfer(.write, again, 10, offset: 0)) == 10)
        ground.end()
    }
}
