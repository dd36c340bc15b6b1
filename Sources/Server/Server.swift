import BlockDevice
import CSystem
import Logging
import Synchronization
import Volume
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// How the worker waits for requests.
public enum WaitMode: String, Sendable, CaseIterable {
    /// Spins for a while that follows the load, then sleeps.
    case adaptive
    /// Sleeps whenever there is nothing to do.
    case always
    /// Never sleeps: the shortest latency, and a processor for itself.
    case never
}

public struct ServerConfiguration: Sendable {
    /// Where clients connect; at most 107 bytes.
    public var socketPath: String
    /// Who may open the socket at all; the allow lists decide who is served.
    public var socketMode: UInt32 = 0o666
    public var wait = WaitMode.adaptive
    /// Where one of the two is not empty, only root, the server's own user, these users and members of these groups are served.
    public var allowedUsers: Set<UInt32> = []
    public var allowedGroups: Set<UInt32> = []
    /// Who may connect in any case, beside root: the user that started the server.
    private let owner = geteuid()
    public var sessionLimit = 1024
    public var channelLimit = 4096
    public var channelsPerSession = 256
    /// Memory of all arenas, and of one session's (at most; FS Lib's arenas have 1.5 MiB).
    public var arenaLimit = 2 << 30
    public var arenaPerSession = 512 << 20
    /// Requests that wait inside the volume, in all and for one session.
    public var parkedLimit = 4096
    public var parkedPerSession = 1024
    /// SIGTERM and SIGINT end `run` in order. They must be blocked in every thread of the process (see `Server.blockSignals`).
    public var handlesSignals = false
    /// `run` gives up what serving does not need, for the whole process and for good (`Confinement`).
    public var locksDown = false
    public var logger = Logger(label: "dashfs.server")

    public init(socketPath: String) { self.socketPath = socketPath }

    func admits(user: UInt32, groups: [UInt32]) -> Bool {
        if allowedUsers.isEmpty && allowedGroups.isEmpty { return true }
        return user == 0 || user == owner || allowedUsers.contains(user) || groups.contains { allowedGroups.contains($0) }
    }
}

/// Why a server could not start; one line that says what to do.
public struct ServerError: Error, Sendable, CustomStringConvertible {
    public var errno: Int32
    public var message: String
    public var description: String { message }
}

/// A volume, served: listens at a socket and answers the channels of its clients.
///
/// `run` serves on the calling thread until SIGTERM or `stop`, and returns when everything has reached the device. Harnesses that step client and server
/// in one thread call `step` instead. Nothing else may touch the volume meanwhile.
public final class Server: @unchecked Sendable {
    let worker: Worker
    private let configuration: ServerConfiguration
    private var finished = false

    /// Binds the socket; clients may connect from now on, and are answered once `run` is called.
    /// - Parameter queue: the device queue of the volume, so that its completions end the worker's sleep.
    public init(volume: Volume, queue: (any DeviceQueue)?, configuration: ServerConfiguration) throws(ServerError) {
        self.configuration = configuration
        // Sent to who holds a lease that another breaks (`MapMemory`), which root can do.
        _ = signal(SIGIO, SIG_IGN)
        var generator = SystemRandomNumberGenerator()
        worker = try Worker(volume: volume, queue: queue, configuration: configuration, epoch: generator.next() | 1)
    }

    /// Call it first thing in the program, before any thread is started: SIGTERM and SIGINT then arrive at the server only.
    public static func blockSignals() {
        _ = dashfs_sys_close(Int32(dashfs_sys_signalfd(1 << UInt64(SIGTERM - 1) | 1 << UInt64(SIGINT - 1))))
    }

    /// Serves until `stop` or a signal, then ends in order.
    public func run() {
        let isKeptFromFiles = configuration.locksDown && Confinement.beforeThreads(configuration)
        let watcher = Watcher(worker.attention, events: worker.control.events)
        if configuration.locksDown { Confinement.afterThreads(configuration, isKeptFromFiles: isKeptFromFiles) }
        configuration.logger.info("serving", metadata: ["socket": "\(configuration.socketPath)", "wait": "\(configuration.wait.rawValue)"])
        worker.logNotes()
        let attention = worker.attention
        worker.run { attention.isStopping }
        watcher.end()
        finish()
    }

    /// Ends `run`, from any thread.
    public func stop() { _ = dashfs_eventfd_ring(worker.control.stopBell) }

    /// One round without sleeping: true where something was done. Connections are looked at only if `control` says so (it costs a system call).
    @discardableResult
    public func step(control: Bool = false) -> Bool {
        if control { worker.handleControl() }
        return worker.runRound()
    }

    /// The orderly end: no new connections, sessions closed, parked requests let go, everything on the device. For users of `step`.
    public func finish() {
        guard !finished else { return }
        finished = true
        worker.control.stopListening()
        worker.endAllSessions()
        while worker.sessionCount > 0 || worker.parkedCount > 0 || !worker.volume.shutdown() {
            worker.updateClock()
            _ = worker.pollVolume()
            _ = worker.runRound()
        }
        worker.logNotes()
        configuration.logger.info("stopped")
    }

    public struct Snapshot: Sendable {
        public var sessions: Int
        public var channels: Int
        public var parked: Int
        public var freeRecords: Int
        public var arenaBytes: Int
        public var sleeps: UInt64
        public var violations: UInt64
        public var json: String
    }

    /// Counters; on the worker's thread, or while nobody runs it.
    public var snapshot: Snapshot {
        Snapshot(
            sessions: worker.sessionCount, channels: worker.channelCount, parked: worker.parkedCount, freeRecords: worker.slab.freeCount,
            arenaBytes: worker.arenaBytes,
            sleeps: worker.sleeps, violations: Violation.allCases.reduce(0) { $0 + worker.statistics.count($1) },
            json: worker.statisticsText)
    }

    /// Grows when the worker falls asleep and when it wakes up: odd while it sleeps. For any thread.
    package var slumber: UInt64 { worker.slumber.load(ordering: .relaxed) }

    /// The names of everything that a request is checked for, and how often each was found.
    package var violationCounts: [(name: String, count: UInt64)] {
        Violation.allCases.map { ("\($0)", worker.statistics.count($0)) }
    }
}

extension Worker {
    func endAllSessions() {
        for index in 0..<sessionCapacity { unsafe endSession(sessions + index, reason: "the server stops") }
    }
}

/// A word between the watcher and the worker: 1 when something on the control sockets wants to be looked at.
@safe final class AttentionWord: @unchecked Sendable {
    private let word: UnsafeMutablePointer<UInt32>
    private let stopping = Atomic<Bool>(false)

    init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: 0)
    }

    deinit { unsafe word.deallocate() }

    @inline(__always) var isSet: Bool { unsafe dashfs_load32(word) != 0 }
    var isStopping: Bool { stopping.load(ordering: .relaxed) }
    func stop() { stopping.store(true, ordering: .relaxed) }

    func set() { unsafe dashfs_store32_release(word, 1) }

    /// After the sockets have been looked at: the watcher looks again.
    func clear() {
        if unsafe dashfs_swap32_if(word, 1, 0) { unsafe _ = dashfs_sys_futex_wake(word, 1) }
    }

    /// Waits for `clear`, at most a tenth of a second.
    func waitForClear() { unsafe _ = dashfs_sys_futex_wait(word, 1, 100_000_000) }
}

/// A thread that waits for the control sockets, so that the worker need not ask the kernel about them while it is busy.
private final class Watcher: @unchecked Sendable {
    private let attention: AttentionWord
    private let events: Int32
    private let ending = Atomic<Bool>(false)
    private let wake = Int32(dashfs_sys_eventfd())
    private var thread = pthread_t()

    init(_ attention: AttentionWord, events: Int32) {
        self.attention = attention
        self.events = events
        let own = unsafe Unmanaged.passRetained(self).toOpaque()
        unsafe _ = pthread_create(
            &thread, nil,
            { context in
                guard let context = unsafe context else { return nil }
                unsafe Unmanaged<Watcher>.fromOpaque(context).takeRetainedValue().watch()
                return nil
            }, own)
        // What a thread's start needs of the kernel is behind it when this returns: the filter that comes next does not let it through.
        while wake >= 0, dashfs_sys_poll(wake, Int16(POLLIN), -1) <= 0 {}
        _ = dashfs_eventfd_take(wake)
        _ = dashfs_sys_epoll_add(events, wake, UInt32(dashfs_epoll_in), EventTag.control)
    }

    private func watch() {
        _ = dashfs_eventfd_ring(wake)
        while !ending.load(ordering: .acquiring) {
            let ready = dashfs_sys_poll(events, Int16(POLLIN), -1)
            if ending.load(ordering: .acquiring) { break }
            if ready > 0 {
                attention.set()
                // Nobody clears it any more once the worker has ended.
                while attention.isSet, !ending.load(ordering: .acquiring) { attention.waitForClear() }
            }
        }
    }

    func end() {
        ending.store(true, ordering: .releasing)
        _ = dashfs_eventfd_ring(wake)
        attention.clear()
        _ = pthread_join(thread, nil)
        _ = dashfs_sys_epoll_remove(events, wake)
        _ = dashfs_sys_close(wake)
    }
}
