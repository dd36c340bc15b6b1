import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Bundles and keys: how open files go from one session to another, and that nobody gets them without being entitled.
@Suite(.serialized) struct InheritanceTests {
    private func open(_ session: Session, _ path: String, flags: UInt32 = 0o102) -> Int32 {
        guard let channel = session.acquire() else { return -1 }
        defer { session.release(channel) }
        return unsafe Array(path.utf8).withUnsafeBytes { bytes in
            unsafe Int32(truncatingIfNeeded: channel.open(Place(PathBytes(bytes)), flags: flags, mode: 0o644).result)
        }
    }

    private func seek(_ session: Session, _ handle: Int32) -> Int64 {
        guard let channel = session.acquire() else { return -1 }
        defer { session.release(channel) }
        return channel.seek(handle, offset: 0, whence: 1)
    }

    private func connect(_ served: ServedVolume, _ key: (UInt64, UInt64) = (0, 0), _ handles: [Int32] = []) throws -> Session {
        try unsafe served.socketPath.withCString { path in
            try unsafe handles.withUnsafeBufferPointer { list in
                try unsafe Session.connect(
                    path: path, length: served.socketPath.utf8.count, inheritance: Inheritance(key: key, handles: list.baseAddress, count: list.count))
            }
        }
    }

    private func bundle(
        _ served: ServedVolume, _ session: Session, _ handles: [Int32], describesItself: Bool = false
    ) throws -> (socket: Int32, key: (UInt64, UInt64)) {
        try unsafe served.socketPath.withCString { path in
            try unsafe handles.withUnsafeBufferPointer { list in
                try unsafe session.makeBundle(
                    of: Inheritance(key: (0, 0), handles: list.baseAddress, count: list.count), path: path, length: served.socketPath.utf8.count,
                    descriptorFloor: 3, describesItself: describesItself)
            }
        }
    }

    @Test func aBundleOutlivesItsSessionAndIsInheritedFromMoreThanOnce() throws {
        let served = try ServedVolume()
        let parent = try served.connect()
        let (given, kept) = (open(parent, "/given"), open(parent, "/kept"))
        let made = try bundle(served, parent, [given, 12_345])
        parent.disconnect()
        while served.sessionsAsked() != 1 {}
        for _ in 0..<3 {
            let child = try connect(served, made.key, [given, kept, -1])
            #expect(child.inherited == 1)
            #expect(seek(child, given) == 0)
            #expect(seek(child, kept) == -ErrorNumber.badDescriptor)
            child.disconnect()
        }
        // With the last copy of its connection the bundle is over.
        _ = dashfs_sys_close(made.socket)
        while served.sessionsAsked() != 0 {}
        let late = try connect(served, made.key, [given])
        #expect(late.inherited == 0 && seek(late, given) == -ErrorNumber.badDescriptor)
        late.disconnect()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aSuccessorTakesWhatItNamesAndEndsTheOther() throws {
        let served = try ServedVolume()
        let (before, other) = (try served.connect(), try served.connect())
        let (kept, cut) = (open(before, "/kept"), open(before, "/cut"))
        let channel = try #require(before.acquire())
        #expect(channel.lock(kept, command: 6, type: 1, offset: 0, length: 10).result == 0)
        #expect(channel.lock(cut, command: 6, type: 1, offset: 0, length: 10).result == 0)
        let after = try connect(served, before.key, [kept])
        #expect(after.inherited == 1)
        #expect(seek(after, kept) == 0 && seek(after, cut) == -ErrorNumber.badDescriptor)
        #expect(channel.null() == -ErrorNumber.io, "the other session is over")
        let mine = try #require(other.acquire())
        let (one, two) = (open(other, "/kept"), open(other, "/cut"))
        #expect(mine.lock(one, command: 6, type: 1, offset: 0, length: 10).result == -ErrorNumber.again, "locks go on")
        #expect(mine.lock(two, command: 6, type: 1, offset: 0, length: 10).result == 0)
        before.release(channel)
        other.release(mine)
        for session in [before, other, after] { session.disconnect() }
        while served.sessionsAsked() != 0 {}
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aFileThatIsPassedIsTakenByWhoeverHasItsConnection() throws {
        let served = try ServedVolume()
        let (giver, taker) = (try served.connect(), try served.connect())
        let (given, kept) = (open(giver, "/given"), open(giver, "/kept"))
        let made = try bundle(served, giver, [given], describesItself: true)
        // As often as anyone looks: what it says stays in it.
        for _ in 0..<3 {
            let described = try #require(Session.describedFile(made.socket))
            #expect(described.key == made.key && described.handle == given)
        }
        #expect(Session.describedFile(giver.socket) == nil && Session.describedFile(0) == nil && Session.describedFile(-1) == nil)
        for (handle, key) in [(given, (1, 2)), (given, (0, 0)), (given, giver.key), (given, taker.key)] as [(Int32, (UInt64, UInt64))] {
            #expect(taker.take(handle, key: key) == -ErrorNumber.access)
        }
        for handle in [kept, -1, .max, .min] { #expect(taker.take(handle, key: made.key) == -ErrorNumber.badDescriptor) }
        #expect(taker.take(given, key: made.key) == 0 && taker.take(given, key: made.key) == -ErrorNumber.exists)
        #expect(giver.take(given, key: made.key) == -ErrorNumber.exists)
        giver.disconnect()
        _ = dashfs_sys_close(made.socket)
        while served.sessionsAsked() != 1 {}
        #expect(seek(taker, given) == 0 && seek(taker, kept) == -ErrorNumber.badDescriptor)
        #expect(taker.take(given, key: made.key) == -ErrorNumber.access, "it is over")
        taker.disconnect()
        while served.sessionsAsked() != 0 {}
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aForkedChildHasNoKey() throws {
        let served = try ServedVolume()
        let session = try served.connect()
        #expect(session.key != (0, 0))
        let child = dashfs_sys_call(57, 0, 0, 0, 0, 0, 0)
        if child == 0 {
            let code = session.key == (0, 0) && !session.isCurrent ? 0 : 1
            while true { _ = dashfs_sys_call(231, code, 0, 0, 0, 0, 0) }
        }
        var status: Int32 = 0
        while unsafe waitpid(Int32(child), &status, 0) < 0 {}
        #expect(status == 0)
        session.disconnect()
    }

    /// Raw packets. What is not of the form ends the connection; what is entitles to nothing without a key.
    @Test func messagesThatLie() throws {
        let served = try ServedVolume()
        let victim = try served.connect()
        let handle = open(victim, "/secret")
        func talk(_ kind: UInt16, key: (UInt64, UInt64) = (0, 0), handles: UInt32, payload: [UInt8], claimed: Int? = nil) -> Int32? {
            let socket = Int32(dashfs_sys_seqpacket())
            defer { _ = dashfs_sys_close(socket) }
            _ = unsafe served.socketPath.withCString { unsafe dashfs_sys_connect_unix(socket, $0, served.socketPath.utf8.count) }
            var message = ControlMessage(kind)
            message.arenaBytes = UInt32(Layout.defaultArenaBytes)
            message.key = key
            message.handles = handles
            message.payloadBytes = UInt32(claimed ?? payload.count)
            var packet = [UInt8](repeating: 0, count: ControlMessage.bytes)
            unsafe packet.withUnsafeMutableBytes { unsafe message.store($0) }
            packet += payload
            _ = unsafe packet.withUnsafeBytes { unsafe dashfs_send_packet(socket, $0.baseAddress!, $0.count, nil, 0, 0) }
            var answer = [UInt8](repeating: 0, count: 512)
            var handed = (Int32(-1), Int32(-1), Int32(-1), Int32(-1))
            var count: Int32 = 0
            let length = unsafe answer.withUnsafeMutableBytes { bytes in
                unsafe withUnsafeMutablePointer(to: &handed) { pointer in
                    unsafe pointer.withMemoryRebound(to: Int32.self, capacity: 4) {
                        unsafe dashfs_receive_packet(socket, bytes.baseAddress!, bytes.count, $0, &count, 0)
                    }
                }
            }
            for descriptor in [handed.0, handed.1, handed.2].prefix(Int(count)) { _ = dashfs_sys_close(descriptor) }
            guard length >= ControlMessage.bytes, let said = unsafe answer.withUnsafeBytes({ unsafe ControlMessage($0) }) else { return nil }
            return said.status < 0 ? said.status : Int32(said.handles)
        }
        let one = [UInt8](unsafe withUnsafeBytes(of: handle) { unsafe Array($0) })
        #expect(talk(4, handles: 1, payload: one) == -13, "no key")
        #expect(talk(4, key: (1, 2), handles: 1, payload: one) == -13, "a wrong key")
        #expect(talk(4, key: (victim.key.0, victim.key.1 ^ 1), handles: 1, payload: one) == -13)
        #expect(talk(1, key: (1, 2), handles: 1, payload: one) == 0)
        #expect(talk(1, handles: 1, payload: one) == 0, "handles without a key")
        #expect(talk(4, key: victim.key, handles: 2, payload: one) == nil, "more handles than bytes")
        #expect(talk(4, key: victim.key, handles: .max, payload: one) == nil)
        #expect(talk(4, key: victim.key, handles: 0x4000_0001, payload: one) == nil, "a count that wraps")
        #expect(talk(4, key: victim.key, handles: 1, payload: one + [0x2f]) == nil, "a bundle has no prefix")
        #expect(talk(4, key: victim.key, handles: 1, payload: one, claimed: 5) == nil)
        #expect(talk(2, key: victim.key, handles: 1, payload: one) == nil, "out of place")
        #expect(talk(1, handles: 1, payload: Array("dash".utf8) + one) == nil, "a prefix that is no path")
        #expect(talk(9, key: victim.key, handles: 1, payload: one) == nil, "nothing is taken without a session")
        let many = [UInt8](repeating: 0xFF, count: 4 * (Layout.handedLimit + 1))
        #expect(talk(4, key: victim.key, handles: UInt32(Layout.handedLimit + 1), payload: many) == nil)
        #expect(talk(4, key: victim.key, handles: UInt32(Layout.handedLimit), payload: Array(many.dropLast(4))) == 0, "handles that are none")
        #expect(talk(4, key: victim.key, handles: 3, payload: one + one + one) == 3)
        #expect(seek(victim, handle) == 0, "the victim has noticed nothing")
        victim.disconnect()
        while served.sessionsAsked() != 0 {}
        served.stop()
        served.expectNothingLeft()
    }

    @Test func childrenThatDieAndBundlesThatAreLeftLeaveNothing() throws {
        let served = try ServedVolume()
        let parent = try served.connect()
        let handles = (0..<50).map { open(parent, "/f\($0)") }
        for round in 0..<30 {
            let made = try bundle(served, parent, handles)
            let child = dashfs_sys_call(57, 0, 0, 0, 0, 0, 0)
            if child == 0 {
                while true { _ = dashfs_sys_call(231, 0, 0, 0, 0, 0, 0) }
            }
            if round % 2 == 0 {
                let taken = try connect(served, made.key, handles)
                #expect(taken.inherited == handles.count)
                taken.disconnect()
            }
            _ = dashfs_sys_close(made.socket)
            var status: Int32 = 0
            while unsafe waitpid(Int32(child), &status, 0) < 0 {}
        }
        for handle in handles { #expect(seek(parent, handle) == 0) }
        parent.disconnect()
        while served.sessionsAsked() != 0 {}
        served.stop()
        served.expectNothingLeft()
    }
}
