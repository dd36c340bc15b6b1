import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Requests that wait inside the volume: they end by what they wait for, by a signal, or with their client; never by anything else.
@Suite(.serialized) struct ParkedTests {
    private static let path = "/lock"

    private func open(_ channel: Channel) -> Int32 {
        unsafe ParkedTests.path.withCString { path in
            Int32(truncatingIfNeeded: unsafe channel.open(Place(PathBytes(terminated: path)), flags: 0o102, mode: 0o644).result)
        }
    }

    private func submitFlock(_ channel: Channel, _ handle: Int32, _ operation: UInt32) throws -> UInt8 {
        let tag = try #require(channel.reserve())
        var request = WireRequest(.flock)
        request.handle = handle
        request.flags = operation
        request.tag = tag
        channel.submit(request)
        channel.announce()
        return tag
    }

    @Test func aTagThatIsStillBusyEndsTheSessionAndItsParkedRequestWithIt() throws {
        let served = try ServedVolume()
        let (owner, hostile) = (try served.connect(), try served.connect())
        let (first, second) = (try #require(owner.acquire()), try #require(hostile.acquire()))
        let (mine, theirs) = (open(first), open(second))
        #expect(first.flock(mine, operation: 2) == 0)
        let tag = try submitFlock(second, theirs, 2)
        var again = WireRequest(.null)
        again.tag = tag
        second.submit(again)
        second.announce()
        // The session ends; what it had parked is let go; the owner of the lock notices nothing.
        #expect(second.wait(tag).result == -ErrorNumber.io)
        for _ in 0..<100 { #expect(first.null() == 0) }
        #expect(first.flock(mine, operation: 8) == 0)
        owner.release(first)
        owner.disconnect()
        hostile.release(second)
        hostile.disconnect()
        served.stop()
        #expect(served.server.violationCounts.first { $0.name == "busyTag" }?.count == 1)
        #expect(served.server.snapshot.freeRecords == 4096)
    }

    @Test func theLockOfAKilledClientIsReleased() throws {
        let served = try ServedVolume()
        let path = UnsafeMutablePointer<CChar>.allocate(capacity: 200)
        defer { unsafe path.deallocate() }
        unsafe _ = served.socketPath.withCString { unsafe strcpy(path, $0) }
        let length = served.socketPath.utf8.count
        var ends = (Int32(0), Int32(0))
        _ = unsafe withUnsafeMutablePointer(to: &ends) { unsafe $0.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe pipe($0) } }
        for _ in 0..<10 {
            let child = Int32(dashfs_sys_call(57, 0, 0, 0, 0, 0, 0))
            if child == 0 {
                var byte: UInt8 = 0
                let name: StaticString = "/lock"
                if let session = try? unsafe Session.connect(path: path, length: length), let channel = session.acquire() {
                    let place = unsafe Place(PathBytes(name.utf8Start, count: name.utf8CodeUnitCount))
                    let handle = Int32(truncatingIfNeeded: channel.open(place, flags: 0o102, mode: 0o644).result)
                    byte = channel.flock(handle, operation: 2) == 0 && channel.lock(handle, command: 6, type: 1, offset: 0, length: 0).result == 0 ? 1 : 2
                }
                unsafe _ = dashfs_sys_write(ends.1, &byte, 1)
                while true { _ = dashfs_sys_poll(-1, 0, -1) }
            }
            var byte: UInt8 = 0
            unsafe _ = dashfs_sys_read(ends.0, &byte, 1)
            #expect(byte == 1)
            let session = try served.connect()
            let channel = try #require(session.acquire())
            let handle = open(channel)
            #expect(channel.flock(handle, operation: 2 | 4) == -ErrorNumber.again)
            #expect(kill(child, SIGKILL) == 0)
            // Both kinds of lock come free by the death alone.
            #expect(channel.flock(handle, operation: 2) == 0)
            #expect(channel.lock(handle, command: 7, type: 1, offset: 0, length: 0).result == 0)
            var status: Int32 = 0
            unsafe _ = waitpid(child, &status, 0)
            session.release(channel)
            session.disconnect()
        }
        _ = close(ends.0)
        _ = close(ends.1)
    }

    @Test func aSignalEndsAWaitForALock() throws {
        let served = try ServedVolume()
        let (owner, waiter) = (try served.connect(), try served.connect())
        let first = try #require(owner.acquire())
        let mine = open(first)
        #expect(first.flock(mine, operation: 2) == 0)
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        unsafe _ = sigaction(SIGUSR1, &action, nil)
        let asleep = DispatchSemaphore(value: 0), done = DispatchSemaphore(value: 0)
        let thread = ThreadBox()
        Thread.detachNewThread { [self] in
            // Threads of test runners have every signal blocked.
            dashfs_signals_restore(0)
            thread.set(pthread_self())
            if let channel = waiter.acquire() {
                let theirs = open(channel)
                asleep.signal()
                #expect(channel.flock(theirs, operation: 2) == -ErrorNumber.interrupted)
                // The channel is whole, and the cancelled request holds nothing.
                for _ in 0..<100 { #expect(channel.null() == 0) }
                #expect(channel.tagsUnderWay == 0)
                waiter.release(channel)
            }
            done.signal()
        }
        asleep.wait()
        // Until it is over: a signal that comes before the sleep ends nothing.
        while done.wait(timeout: .now()) == .timedOut { _ = pthread_kill(thread.get(), SIGUSR1) }
        #expect(first.flock(mine, operation: 8) == 0)
        owner.release(first)
        owner.disconnect()
        waiter.disconnect()
    }

    @Test func aSessionAtItsLimitOfParkedRequestsWaitsAloneAndIsServedInTheEnd() throws {
        let served = try ServedVolume { $0.parkedPerSession = 4 }
        let (owner, greedy) = (try served.connect(), try served.connect())
        let (first, second) = (try #require(owner.acquire()), try #require(greedy.acquire()))
        let mine = open(first)
        #expect(first.flock(mine, operation: 2) == 0)
        let handles = (0..<10).map { _ in open(second) }
        let tags = try handles.map { try submitFlock(second, $0, 1) }
        for _ in 0..<200 { #expect(first.null() == 0) }
        for tag in tags { #expect(!second.isComplete(tag)) }
        #expect(first.flock(mine, operation: 8) == 0)
        for tag in tags { #expect(second.wait(tag).result == 0) }
        owner.release(first)
        owner.disconnect()
        greedy.release(second)
        greedy.disconnect()
    }
}

/// A thread's name, handed from one to the other.
final class ThreadBox: @unchecked Sendable {
    private let lock = NSLock()
    private var thread = pthread_t()
    func set(_ value: pthread_t) { lock.withLock { thread = value } }
    func get() -> pthread_t { lock.withLock { thread } }
}
