import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// A thousand clients that are killed: each at a chosen point of a request's life, or wherever it happens to be. Nothing of them may stay.
///
/// The children are forked by a bare system call and use nothing but FS Lib, which allocates nothing.
@Suite(.serialized) struct DyingClientsTests {
    /// Where a child ends itself.
    private enum Point: Int, CaseIterable {
        case connected, helloSent, idle, slotHalfWritten, published, announced, ringFull, dataUnsynced, flockHeld, lockHeld, waitsForFlock, waitsForLock, channelsHeld
        case channelAsked, syncUnderWay, longWriteUnderWay, longReadUnderWay, fileUnlinked, fileWithoutName, childKeepsTheSocket
    }

    /// Memory that children read: no Swift object is touched in them.
    @safe private struct Setting: @unchecked Sendable {
        var socketPath: UnsafeMutablePointer<CChar>
        var length: Int
        /// A child that outlives its parent waits for the end of this.
        var pipe: Int32
        var otherEnd: Int32
    }

    @Test func nothingOfAThousandKilledClientsStays() throws {
        let served = try ServedVolume()
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        var ends = [Int32](repeating: -1, count: 2)
        #expect(unsafe pipe(&ends) == 0)
        let place = unsafe Setting(socketPath: path, length: served.socketPath.utf8.count, pipe: ends[0], otherEnd: ends[1])

        // What the waiting ones wait for.
        let holder = try served.connect()
        let channel = try #require(holder.acquire())
        let held = open(channel, "/held", 0o102)
        #expect(channel.flock(held, operation: 2) == 0)
        #expect(channel.lock(held, command: 6, type: 1, offset: 0, length: 0).result == 0)
        for name in ["/data", "/once"] { #expect(channel.close(open(channel, name, 0o102)) == 0) }

        var random = SplitMix(state: 4)
        var deaths = 0
        while deaths < 1000 {
            var children: [(pid: Int32, byItself: Bool)] = []
            for _ in 0..<10 {
                let number = deaths + children.count
                // Every tenth is killed at random, the others at each point in turn.
                let point = number % 10 == 9 ? nil : Point(rawValue: number % Point.allCases.count)
                children.append((fork(place, point), point != nil))
            }
            for child in children {
                if !child.byItself {
                    for _ in 0..<(random.next() % 20) { #expect(channel.null() == 0) }
                    #expect(kill(child.pid, SIGKILL) == 0)
                }
                #expect(ending(child.pid) == -SIGKILL, "client \(deaths)")
                deaths += 1
            }
            #expect(channel.null() == 0)
        }
        // All their sessions end, though one in twenty has left a child that keeps the socket open.
        while served.sessionsAsked() != 1 {}
        // The locks are the holder's alone still, and nobody waits for them any more.
        #expect(channel.flock(held, operation: 8) == 0)
        #expect(channel.flock(held, operation: 2 | 4) == 0)
        #expect(channel.lock(held, command: 6, type: 1, offset: 0, length: 0).result == 0)
        #expect(channel.close(held) == 0)
        // Files without a name are gone with who had them open.
        #expect(names(channel) == [".", "..", "data", "held", "once"])
        #expect(channel.sync() == 0)
        holder.release(channel)
        holder.disconnect()
        _ = close(ends[1])
        _ = close(ends[0])
        served.stop()
        #expect(served.server.snapshot.violations == 0)
        served.expectNothingLeft()
        print("\(deaths) clients died, each tenth at random")
    }

    private func open(_ channel: Channel, _ path: String, _ flags: UInt32) -> Int32 {
        unsafe path.withCString { Int32(truncatingIfNeeded: unsafe channel.open(Place(PathBytes(terminated: $0)), flags: flags, mode: 0o644).result) }
    }

    private func names(_ channel: Channel) -> [String]? {
        let root = open(channel, "/", 0o200000)
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe channel.readDirectory(root, into: $0.baseAddress!, capacity: 4096) }
        guard count >= 0, channel.close(root) == 0 else { return nil }
        var names: [String] = []
        var at = 0
        while at < Int(count) {
            let length = Int(buffer[at + 16]) | Int(buffer[at + 17]) << 8
            names.append(String(decoding: buffer[(at + 19)..<(at + length)].prefix { $0 != 0 }, as: UTF8.self))
            at += length
        }
        return names.sorted()
    }

    private func fork(_ place: Setting, _ point: Point?) -> Int32 {
        let child = dashfs_sys_call(57, 0, 0, 0, 0, 0, 0)
        if child == 0 {
            _ = dashfs_sys_close(place.otherEnd)
            let code = DyingClientsTests.live(place, point)
            while true { _ = dashfs_sys_call(231, Int(code), 0, 0, 0, 0, 0) }
        }
        return Int32(child)
    }

    private func ending(_ child: Int32) -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(child, &status, 0) < 0 {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }

    // MARK: In the child

    private static func die() -> Never {
        while true { _ = dashfs_sys_call(62, dashfs_sys_getpid(), Int(SIGKILL), 0, 0, 0, 0) }
    }

    private static func open(_ channel: Channel, _ path: StaticString, _ flags: UInt32) -> Int32 {
        let place = unsafe Place(PathBytes(path.utf8Start, count: path.utf8CodeUnitCount))
        return Int32(truncatingIfNeeded: channel.open(place, flags: flags, mode: 0o644).result)
    }

    private static func submit(_ channel: Channel, _ request: WireRequest, announce: Bool = true) {
        guard let tag = channel.reserve() else { return }
        var request = request
        request.tag = tag
        channel.submit(request, secondLine: true)
        if announce { channel.announce() }
    }

    private static func live(_ place: Setting, _ point: Point?) -> Int32 {
        if point == .connected {
            let socket = Int32(dashfs_sys_seqpacket())
            unsafe _ = dashfs_sys_connect_unix(socket, place.socketPath, place.length)
            die()
        }
        if point == .helloSent {
            _ = try? unsafe Session.beginConnecting(path: place.socketPath, length: place.length)
            die()
        }
        guard let session = try? unsafe Session.connect(path: place.socketPath, length: place.length) else { return 2 }
        if point == .idle { die() }
        guard let channel = session.acquire() else { return 3 }
        guard let point else {
            let file = open(channel, "/data", 2)
            while true {
                _ = channel.null()
                _ = unsafe channel.write(file, from: channel.dataArea, count: 3000, offset: 0)
                _ = channel.fsync(file)
            }
        }
        switch point {
        case .connected, .helloSent, .idle: die()
        case .slotHalfWritten:
            let slot = Layout.slots + Int(channel.nextSequence % Layout.slotCount) * Layout.slotBytes
            unsafe channel.requestSegment.storeBytes(of: UInt64.max, toByteOffset: slot + 8, as: UInt64.self)
        case .published: submit(channel, WireRequest(.null), announce: false)
        case .announced: submit(channel, WireRequest(.sync))
        case .ringFull: for _ in 0..<64 { submit(channel, WireRequest(.sync), announce: false) }
        case .dataUnsynced:
            let file = open(channel, "/data", 2)
            if unsafe channel.write(file, from: channel.dataArea, count: 100_000, offset: 0) != 100_000 { return 4 }
        case .flockHeld: if channel.flock(open(channel, "/data", 2), operation: 1) != 0 { return 5 }
        case .lockHeld:
            let file = open(channel, "/data", 2)
            for number in 0..<50 where channel.lock(file, command: 6, type: 0, offset: Int64(number) * 10, length: 1).result != 0 { return 6 }
        case .waitsForFlock, .waitsForLock:
            var request = WireRequest(point == .waitsForFlock ? .flock : .lock)
            request.handle = open(channel, "/held", 2)
            request.flags = point == .waitsForFlock ? 2 : 7
            (request.argument, request.offset, request.length) = (1, 0, 0)
            submit(channel, request)
            if channel.null() != 0 { return 7 }
        case .channelsHeld:
            guard let second = session.acquire(), let third = session.acquire() else { return 8 }
            submit(second, WireRequest(.sync))
            submit(third, WireRequest(.null), announce: false)
        case .channelAsked:
            var message = ControlMessage(ControlMessage.Kind.addChannel)
            message.arenaBytes = UInt32(Layout.arenaMaximum)
            unsafe withUnsafeTemporaryAllocation(byteCount: ControlMessage.bytes, alignment: 8) { packet in
                unsafe message.store(packet)
                if let bytes = packet.baseAddress { unsafe _ = dashfs_send_packet(session.socket, bytes, packet.count, nil, 0, 0) }
            }
        case .syncUnderWay:
            let file = open(channel, "/data", 2)
            if unsafe channel.write(file, from: channel.dataArea, count: 20_000, offset: 0) != 20_000 { return 9 }
            var request = WireRequest(.fsync)
            request.handle = file
            submit(channel, request)
        case .longWriteUnderWay, .longReadUnderWay:
            var request = WireRequest(point == .longWriteUnderWay ? .write : .read)
            request.handle = open(channel, "/data", 2)
            request.bufferOffset = Channel.dataOffset
            request.bufferLength = UInt32(channel.dataCapacity)
            submit(channel, request)
        case .fileUnlinked:
            let name: StaticString = "/once"
            let place = unsafe Place(PathBytes(name.utf8Start, count: name.utf8CodeUnitCount))
            let file = open(channel, "/once", 0o102)
            _ = channel.unlink(place)
            if unsafe channel.write(file, from: channel.dataArea, count: 9000, offset: 0) != 9000 { return 10 }
            // For the next one, and for the list of names at the end.
            _ = open(channel, "/once", 0o102)
        case .fileWithoutName:
            let file = open(channel, "/", 0o20200002)
            if unsafe channel.write(file, from: channel.dataArea, count: 9000, offset: 0) != 9000 { return 11 }
        case .childKeepsTheSocket:
            if dashfs_sys_call(57, 0, 0, 0, 0, 0, 0) == 0 {
                var byte: UInt8 = 0
                unsafe _ = dashfs_sys_read(place.pipe, &byte, 1)
                while true { _ = dashfs_sys_call(231, 0, 0, 0, 0, 0, 0) }
            }
        }
        die()
    }
}
