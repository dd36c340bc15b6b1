import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Clients that are processes of their own. The children are forked by a bare system call and use nothing but FS Lib, which allocates nothing.
@Suite(.serialized) struct ProcessTests {
    /// Runs `body` in a forked child, which exits with its result.
    private func fork(_ body: () -> Int32) -> Int32 {
        let child = dashfs_sys_call(57, 0, 0, 0, 0, 0, 0)
        if child == 0 {
            let code = body()
            while true { _ = dashfs_sys_call(231, Int(code), 0, 0, 0, 0, 0) }
        }
        return Int32(child)
    }

    private func exitCode(_ child: Int32) -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(child, &status, 0) < 0 {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }

    @Test func twoProcessesPassNullRequests() throws {
        let served = try ServedVolume()
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        let length = served.socketPath.utf8.count
        let child = fork {
            guard let session = try? unsafe Session.connect(path: path, length: length) else { return 2 }
            guard let channel = session.acquire() else { return 3 }
            for _ in 0..<20_000 where channel.null() != 0 { return 4 }
            return 0
        }
        let session = try served.connect()
        let channel = try #require(session.acquire())
        for _ in 0..<20_000 where channel.null() != 0 { Issue.record("a null request failed") }
        #expect(exitCode(child) == 0)
        session.release(channel)
        session.disconnect()
    }

    @Test func aKilledClientLeavesNothingBehind() throws {
        let served = try ServedVolume()
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        let length = served.socketPath.utf8.count
        var random = SplitMix(state: 99)
        for round in 0..<40 {
            let child = fork {
                guard let session = try? unsafe Session.connect(path: path, length: length) else { return 2 }
                guard let channel = session.acquire(), let other = session.acquire() else { return 3 }
                while true {
                    _ = channel.null()
                    _ = other.sync()
                }
            }
            // Killed at some point of connecting or calling: as far as it gets while the parent does so many requests.
            for _ in 0..<(random.next() % 40) { _ = served.sessionsAsked() }
            #expect(kill(child, SIGKILL) == 0)
            #expect(exitCode(child) == -SIGKILL, "round \(round)")
        }
        while served.sessionsAsked() != 0 {}
        served.stop()
        #expect(served.server.snapshot.sessions == 0)
        #expect(served.server.snapshot.channels == 0)
        #expect(served.server.snapshot.freeRecords == 4096)
        #expect(served.server.snapshot.violations == 0)
    }

    @Test func aForkedChildHasNoChannelAndDisturbsNoneOfItsParents() throws {
        let served = try ServedVolume()
        let session = try served.connect()
        let channel = try #require(session.acquire())
        #expect(channel.null() == 0)
        let child = fork {
            // Its copy of the session says so, and the segments are not mapped here.
            if session.isCurrent { return 2 }
            if session.acquire() != nil { return 3 }
            session.disconnect()
            return 0
        }
        #expect(exitCode(child) == 0)
        #expect(session.isOpen)
        for _ in 0..<100 { #expect(channel.null() == 0) }
        session.release(channel)
        session.disconnect()
    }

    @Test func aServerThatDiesFailsItsClientsCallsInsteadOfHangingThem() throws {
        let served = try ServedVolume()
        let session = try served.connect()
        let channel = try #require(session.acquire())
        #expect(channel.null() == 0)
        served.stop()
        #expect(channel.null() == -ErrorNumber.io)
        #expect(channel.null() == -ErrorNumber.io)
        #expect(!session.isOpen)
        session.release(channel)
        session.disconnect()
        #expect(throws: ErrorCode.self) { try served.connect() }
    }

    @Test func aSilentlyKilledServerIsNoticedByASleepingClient() throws {
        let pipe = Pipe()
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-test-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        // A server that says hello, hands out segments of its own, and dies by SIGKILL without a word.
        let path = directory.appendingPathComponent("s").path
        let listener = Int32(dashfs_sys_seqpacket())
        #expect(unsafe path.withCString { unsafe dashfs_sys_bind_unix(listener, $0, path.utf8.count) } == 0)
        #expect(dashfs_sys_listen(listener, 5) == 0)
        let child = fork { HollowServer.serveOne(listener) }
        _ = dashfs_sys_close(listener)
        let session = try unsafe path.withCString { try unsafe Session.connect(path: $0, length: path.utf8.count) }
        let channel = try #require(session.acquire())
        #expect(kill(child, SIGKILL) == 0)
        #expect(exitCode(child) == -SIGKILL)
        #expect(channel.null() == -ErrorNumber.io)
        session.release(channel)
        session.disconnect()
        _ = pipe
    }

    @Test func whatClientsOnlyReadCannotBeWrittenByAnyWay() throws {
        let served = try ServedVolume()
        let (answer, descriptors) = try rawHello(served)
        #expect(answer.status == 0)
        let completions = descriptors.2
        let seals = dashfs_sys_get_seals(completions)
        #expect(seals & Int(DASHFS_SEAL_FUTURE_WRITE) != 0)
        #expect(seals & Int(DASHFS_SEAL_SHRINK | DASHFS_SEAL_GROW | DASHFS_SEAL_SEAL) == Int(DASHFS_SEAL_SHRINK | DASHFS_SEAL_GROW | DASHFS_SEAL_SEAL))
        let both = Int32(dashfs_protection_read | dashfs_protection_write), shared = Int32(dashfs_map_shared)
        // Even root: by the descriptor, by one reopened for writing, by a write, by making a read-only map writable, by resizing.
        #expect(dashfs_sys_map(completions, 8192, both, shared) == -Int(EPERM))
        let reopened = unsafe "/proc/self/fd/\(completions)".withCString { unsafe dashfs_sys_open($0, O_RDWR, 0) }
        if reopened >= 0 {
            #expect(dashfs_sys_map(Int32(reopened), 8192, both, shared) == -Int(EPERM))
            var byte: UInt8 = 1
            #expect(unsafe dashfs_sys_write(Int32(reopened), &byte, 1) == -Int(EPERM))
            _ = dashfs_sys_close(Int32(reopened))
        }
        let mapped = dashfs_sys_map(completions, 8192, Int32(dashfs_protection_read), shared)
        #expect(mapped > 0)
        #expect(dashfs_sys_call(10, mapped, 8192, Int(both), 0, 0, 0) == -Int(EACCES))
        #expect(dashfs_sys_ftruncate(completions, 0) == -Int(EPERM))
        #expect(dashfs_sys_ftruncate(descriptors.1, 0) == -Int(EPERM))
        var status = stat()
        #expect(unsafe fstat(completions, &status) == 0 && status.st_mode & 0o777 == 0o400)
        #expect(unsafe fstat(descriptors.1, &status) == 0 && status.st_mode & 0o777 == 0o600)
        // Another user, who inherits the descriptors: cannot reopen either of them.
        let first = completions, second = descriptors.1
        let names = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe names.deallocate() }
        unsafe _ = "/proc/self/fd/\(first)".withCString { unsafe strcpy(names, $0) }
        unsafe _ = "/proc/self/fd/\(second)".withCString { unsafe strcpy(names + 100, $0) }
        let child = fork {
            guard dashfs_sys_call(117, 65534, 65534, 65534, 0, 0, 0) == 0 else { return 9 }
            if unsafe dashfs_sys_open(names, O_RDWR, 0) >= 0 { return 2 }
            if unsafe dashfs_sys_open(names + 100, O_RDWR, 0) >= 0 { return 3 }
            return 0
        }
        if geteuid() == 0 { #expect(exitCode(child) == 0) } else { _ = exitCode(child) }
        for descriptor in [descriptors.0, descriptors.1, descriptors.2, descriptors.3] { _ = dashfs_sys_close(descriptor) }
    }

    @Test func anotherVersionIsAClearErrorAtConnect() throws {
        let served = try ServedVolume()
        var hello = ControlMessage(ControlMessage.Kind.hello)
        hello.version = Layout.version + 1
        hello.arenaBytes = UInt32(Layout.defaultArenaBytes)
        let (answer, descriptors) = try rawHello(served, hello)
        #expect(answer.status == -Int32(ErrorNumber.protocolMismatch))
        #expect(answer.version == Layout.version)
        _ = dashfs_sys_close(descriptors.3)
    }

    @Test func usersWhoAreNotAllowedAreRefused() throws {
        try #require(geteuid() == 0)
        let served = try ServedVolume { $0.allowedUsers = [4711] }
        _ = unsafe chmod((served.socketPath as NSString).deletingLastPathComponent, 0o755)
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        let length = served.socketPath.utf8.count
        func attempt(_ user: Int) -> Int32 {
            exitCode(
                fork {
                    guard dashfs_sys_call(117, user, user, user, 0, 0, 0) == 0 else { return 99 }
                    do throws(ErrorCode) {
                        let session = try unsafe Session.connect(path: path, length: length)
                        return session.acquire()?.null() == 0 ? 0 : 98
                    } catch { return error.number }
                })
        }
        #expect(attempt(4711) == 0)
        #expect(attempt(4712) == EACCES)
        #expect(attempt(0) == 0)
    }

    /// Says hello by hand: the answer; doorbell, request segment, completion segment, and the socket.
    private func rawHello(
        _ served: ServedVolume, _ message: ControlMessage? = nil
    ) throws -> (ControlMessage, (Int32, Int32, Int32, Int32)) {
        let socket = Int32(dashfs_sys_seqpacket())
        #expect(unsafe served.socketPath.withCString { unsafe dashfs_sys_connect_unix(socket, $0, served.socketPath.utf8.count) } == 0)
        var hello = ControlMessage(ControlMessage.Kind.hello)
        hello.arenaBytes = UInt32(Layout.defaultArenaBytes)
        var packet = [UInt8](repeating: 0, count: 64)
        unsafe packet.withUnsafeMutableBytes { unsafe (message ?? hello).store($0) }
        var list = [Int32](repeating: -1, count: 4)
        var count: Int32 = 0
        let answer = unsafe packet.withUnsafeMutableBytes { bytes -> ControlMessage? in
            guard let base = bytes.baseAddress else { return nil }
            guard unsafe dashfs_send_packet(socket, base, 64, nil, 0, 0) == 64 else { return nil }
            guard unsafe dashfs_receive_packet(socket, base, 64, &list, &count, 0) == 64 else { return nil }
            return unsafe ControlMessage(UnsafeRawBufferPointer(bytes))
        }
        return (try #require(answer), (list[0], list[1], list[2], socket))
    }
}

/// Just enough of a server to connect to, written with system calls only so that a forked child can run it; it never answers a request.
enum HollowServer {
    static func serveOne(_ listener: Int32) -> Int32 {
        var socket = -1
        while socket < 0 { socket = dashfs_sys_call(288, Int(listener), 0, 0, 0, 0, 0) }
        var packet = (0 as UInt64, 0 as UInt64, 0 as UInt64, 0 as UInt64, 0 as UInt64, 0 as UInt64, 0 as UInt64, 0 as UInt64)
        return unsafe withUnsafeMutableBytes(of: &packet) { bytes -> Int32 in
            guard let base = bytes.baseAddress else { return 2 }
            var list = (Int32(0), Int32(0), Int32(0), Int32(0))
            var count: Int32 = 0
            return unsafe withUnsafeMutableBytes(of: &list) { raw -> Int32 in
                let descriptors = unsafe raw.bindMemory(to: Int32.self)
                guard let first = descriptors.baseAddress else { return 3 }
                unsafe _ = dashfs_receive_packet(Int32(socket), base, 64, first, &count, 0)
                let requests = dashfs_sys_call(319, Int(bitPattern: base), 0, 0, 0, 0, 0)
                let completions = dashfs_sys_call(319, Int(bitPattern: base), 0, 0, 0, 0, 0)
                _ = dashfs_sys_ftruncate(Int32(requests), Int64(Layout.requestSegmentBytes(arena: Layout.defaultArenaBytes)))
                _ = dashfs_sys_ftruncate(Int32(completions), Int64(Layout.completionSegmentBytes))
                let map = dashfs_sys_map(Int32(completions), 8192, 3, 1)
                guard let segment = unsafe UnsafeMutableRawPointer(bitPattern: map) else { return 4 }
                unsafe dashfs_store64(segment, Layout.magic)
                unsafe dashfs_store32(segment + Layout.completionVersion, UInt32(Layout.version))
                var answer = ControlMessage(ControlMessage.Kind.hello)
                answer.arenaBytes = UInt32(Layout.defaultArenaBytes)
                unsafe answer.store(bytes)
                unsafe descriptors[0] = Int32(dashfs_sys_eventfd())
                unsafe descriptors[1] = Int32(requests)
                unsafe descriptors[2] = Int32(completions)
                unsafe _ = dashfs_send_packet(Int32(socket), base, 64, first, 3, 0)
                while true { _ = dashfs_sys_poll(-1, 0, -1) }
            }
        }
    }
}
