// This process's connection to the server: made at the first use of a path below the prefix or of an inherited file, made anew in a forked child and after a
// change of identity.
//
// Always true: a child never uses what its parent connected (`Session.isCurrent`). Open files go on with the next session where there is a `Legacy`; where there is none the
// generation grows, and descriptions of older ones answer EBADF. Making a session happens under a lock that is held with all signals
// blocked and that names its owner, so neither a handler nor a fresh child can wait for somebody who will never let go.

import CPreload
import CSystem

enum Connection {
    nonisolated(unsafe) private static var state: UInt = 0
    nonisolated(unsafe) private static var process: Int64 = 0
    /// A page of one word: 1, and zeroed by the kernel in a forked child but not in a vfork child, which has the parent's memory.
    nonisolated(unsafe) private static var ownWord: UInt = 0
    /// Whether a child may ever have run in this memory: only then is it asked whose the call is.
    nonisolated(unsafe) private static var hasLent = false
    nonisolated(unsafe) private static var latest: UInt32 = 1
    /// The process has another identity than its session.
    nonisolated(unsafe) private static var isStale = false
    /// Whether this process has ever been served, so that a server that is not there has gone.
    nonisolated(unsafe) private static var wasServed = false
    nonisolated(unsafe) private static var serverHasGone = false
    /// Descriptions of generations before this one went with a server.
    nonisolated(unsafe) private static var lostWithServer: UInt32 = 0
    nonisolated(unsafe) private static var lock: UInt32 = 0
    nonisolated(unsafe) private static var pathOnly: Int32 = -1
    nonisolated(unsafe) private static var complained = false

    /// Of the descriptions that are of any use.
    @inline(__always) static var generation: UInt32 { unsafe latest }
    static func wasLostWithServer(_ generation: UInt32) -> Bool { unsafe generation < lostWithServer }
    /// An O_PATH descriptor, high up, of which all placeholders are duplicates; -1 before the first connection.
    static var placeholder: Int32 { unsafe pathOnly }

    @inline(__always)
    private static var present: Session? {
        guard let state = unsafe UnsafeMutablePointer<SessionState>(bitPattern: state) else { return nil }
        let session = unsafe Session(state: state)
        return session.isCurrent ? session : nil
    }

    /// The session for what names files and asks who it is, connecting if need be; or a negated errno.
    @inline(__always)
    static func session() -> (session: Session?, error: Int64) {
        if let session = present, unsafe !isStale { return (session, 0) }
        return connect()
    }

    /// The session for what is open already: its identity does not count.
    @inline(__always)
    static func sessionOfFiles() -> Session? { present ?? connect().session }

    /// A session that a vfork child made for one call, because the parent has none: not to be kept.
    @inline(__always)
    static func isTemporary(_ session: Session) -> Bool { unsafe UInt(bitPattern: session.state) != state && session.isTemporary }

    /// The session, connecting if there is a server; nobody is told where there is none.
    static func sessionIfServed() -> Session? { present ?? (isBorrowed ? connectForOneCall() : connectOnce()).session }

    /// The server has gone since the last call.
    static var isOver: Bool { unsafe UnsafeMutablePointer<SessionState>(bitPattern: state).map { unsafe Session(state: $0).isOver } ?? false }

    /// The session, if this process has one.
    static var existing: Session? { present }

    /// Once, at the start of the program.
    static func start() {
        let protection = Int32(dashfs_protection_read | dashfs_protection_write)
        let page = dashfs_sys_map(-1, 4096, protection, Int32(dashfs_map_private | dashfs_map_anonymous))
        guard page > 0, let word = unsafe UnsafeMutableRawPointer(bitPattern: page) else { return }
        unsafe _ = dashfs_sys_advise(word, 4096, Int32(dashfs_advice_wipeonfork))
        unsafe dashfs_store32(word, 1)
        unsafe ownWord = UInt(bitPattern: page)
        unsafe process = Int64(dashfs_sys_getpid())
    }

    /// Whether the caller is a vfork child: its memory is the parent's, and must stay as it is; its descriptors are its own.
    @inline(__always) static var isBorrowed: Bool { unsafe hasLent && isAnothers() }

    /// A process that runs in this memory is about to be made (vfork, posix_spawn). Once memory has been lent, every call asks whose it is, because threads go on
    /// beside the child.
    static func willLendMemory() {
        // In a forked child of one that has lent its memory: `process` is its own before there is another process, or thread, to tell it from.
        _ = isAnothers()
        unsafe hasLent = true
    }

    /// Whether this memory is a forked child's copy that nothing has been done about.
    static var isCopied: Bool { unsafe UnsafeMutableRawPointer(bitPattern: ownWord).map { unsafe dashfs_load32($0) == 0 } ?? false }

    @inline(never) private static func isAnothers() -> Bool {
        let own = Int64(dashfs_sys_getpid())
        if unsafe process == own { return false }
        guard let word = unsafe UnsafeMutableRawPointer(bitPattern: ownWord) else { return false }
        if unsafe dashfs_load32(word) == 1 { return true }
        unsafe process = own
        unsafe dashfs_store32(word, 1)
        return false
    }

    /// The next call makes a session with the new identity, which takes over what is open.
    static func identityHasChanged() { unsafe isStale = true }

    /// In a forked child, before anything else of it runs: what its parent connected is not to be had from here.
    static func becomeChild() {
        let mask = dashfs_signals_block()
        takeLock()
        _ = isAnothers()
        forgetFormer()
        dropLock()
        dashfs_signals_restore(mask)
    }

    private static func takeLock() {
        let own = UInt32(truncatingIfNeeded: dashfs_sys_getpid())
        while true {
            let owner = unsafe dashfs_load32(&lock)
            // Another process's number: it was held while this one was forked off.
            if owner == 0 || owner != own, unsafe dashfs_swap32_if(&lock, owner, own) { return }
            dashfs_yield()
        }
    }

    private static func dropLock() { unsafe dashfs_store32_release(&lock, 0) }

    /// Lets go of a session that is of no use any more: a parent's (not in a vfork child, for which it is current), or one whose server has gone.
    private static func forgetFormer() {
        guard let old = unsafe UnsafeMutablePointer<SessionState>(bitPattern: state) else { return }
        let session = unsafe Session(state: old)
        guard !session.isCurrent else { return }
        if session.isOver {
            unsafe serverHasGone = true
            retire(session)
        } else {
            Descriptors.unreserve(session.socket)
            Descriptors.unreserve(session.doorbell)
            session.disconnect()
        }
        unsafe state = 0
        unsafe isStale = false
    }

    /// A server that was there and has gone is waited for, with signals let in.
    @inline(never)
    private static func connect() -> (session: Session?, error: Int64) {
        var waited: UInt64 = 0
        while true {
            let (session, error) = isBorrowed ? connectForOneCall() : connectOnce()
            if let session { return (session, 0) }
            guard isAbsence(error) else { return (nil, told(error)) }
            guard unsafe wasServed || Legacy.isThere else { return (nil, told(error)) }
            guard waited < Configuration.timeoutMilliseconds else {
                _ = told(error)
                return (nil, -ErrorNumber.io)
            }
            var pause: (Int64, Int64) = (0, 50_000_000)
            _ = unsafe withUnsafeMutablePointer(to: &pause) { dashfs_raw_syscall3(35 /* nanosleep */, Int64(Int(bitPattern: $0)), 0, 0) }
            waited += 50
        }
    }

    /// Nobody listens there.
    private static func isAbsence(_ error: Int64) -> Bool { error == -ErrorNumber.noEntry || error == -111 /* ECONNREFUSED */ || error == -20 /* ENOTDIR */ }

    private static func connectOnce() -> (session: Session?, error: Int64) {
        let mask = dashfs_signals_block()
        takeLock()
        defer {
            dropLock()
            dashfs_signals_restore(mask)
        }
        let old = present
        if let old, unsafe !isStale { return (old, 0) }
        forgetFormer()
        guard let path = unsafe Configuration.socket.address, let scratch = Scratch() else { return (nil, -ErrorNumber.notConnected) }
        // What is open goes over to the new session: from the old one, or from what a fork or exec has left.
        var files = Descriptors.files(in: scratch)
        let count = files.count
        files.key = old?.key ?? Legacy.key
        if files.key == (0, 0) { files.count = 0 }
        do throws(ErrorCode) {
            let session = try unsafe Session.connect(
                path: path, length: Configuration.socket.count, prefix: Configuration.prefix,
                inheritance: files, descriptorFloor: descriptorFloor())
            Legacy.spend()
            Descriptors.reserve(session.socket)
            Descriptors.reserve(session.doorbell)
            let problem = makePlaceholder(session.socket, descriptorFloor())
            if problem < 0 {
                session.disconnect()
                return (nil, problem)
            }
            if session.inherited < count {
                unsafe latest &+= 1
                if unsafe serverHasGone { unsafe lostWithServer = latest }
            }
            if let old { retire(old) }
            unsafe wasServed = true
            unsafe serverHasGone = false
            unsafe state = UInt(bitPattern: session.state)
            unsafe isStale = false
            return (session, 0)
        } catch {
            return (nil, -Int64(error.number))
        }
    }

    /// There has been one a moment ago: if there is none it has gone, and is waited for.
    static func expectServer() { unsafe wasServed = true }

    /// Lets go of everything, for good: another instance of the library goes on in this process (`EarlyInstance`).
    static func end() {
        if let session = present { session.disconnect() }
        unsafe state = 0
        if placeholder >= 0 { _ = dashfs_sys_close(placeholder) }
        unsafe pathOnly = -1
        if let word = unsafe UnsafeMutableRawPointer(bitPattern: ownWord) { _ = unsafe dashfs_sys_unmap(word, 4096) }
        unsafe ownWord = 0
    }

    /// A bundle of open files of this session's; nil: there is none to be had (the server is gone, no descriptor is left).
    static func makeBundle(of files: Inheritance, _ session: Session, describesItself: Bool = false) -> (socket: Int32, key: (UInt64, UInt64))? {
        guard let path = unsafe Configuration.socket.address else { return nil }
        do throws(ErrorCode) {
            return try unsafe session.makeBundle(
                of: files, path: path, length: Configuration.socket.count, descriptorFloor: descriptorFloor(), describesItself: describesItself)
        } catch { return nil }
    }

    /// Other threads may be looking at it: they find it ended.
    private static func retire(_ session: Session) {
        Descriptors.unreserve(session.socket)
        Descriptors.unreserve(session.doorbell)
        session.retire()
    }

    /// A vfork child of a process without a session has one for each call: to keep it would be in its parent's memory.
    private static func connectForOneCall() -> (session: Session?, error: Int64) {
        if let session = present { return (session, 0) }
        guard let path = unsafe Configuration.socket.address else { return (nil, -ErrorNumber.notConnected) }
        do throws(ErrorCode) {
            let session = try unsafe Session.connect(
                path: path, length: Configuration.socket.count, prefix: Configuration.prefix, descriptorFloor: descriptorFloor())
            session.markTemporary()
            return (session, 0)
        } catch {
            return (nil, -Int64(error.number))
        }
    }

    /// Says once why there is no server. "No such file" would be taken for an answer about the program's path.
    private static func told(_ error: Int64) -> Int64 {
        complain(-error)
        return isAbsence(error) ? -ErrorNumber.notConnected : error
    }

    /// Opens, without any access, the inode of the control socket, which is this connection's alone: reading and writing fail with EBADF, opening it
    /// through /proc/self/fd with ENXIO, and what chmod or chown do to it through there touches nobody. Without /proc: the server's socket.
    private static func makePlaceholder(_ socket: Int32, _ floor: Int32) -> Int64 {
        if placeholder >= 0 { return 0 }
        let pathOnlyCloseOnExec: Int32 = 0o12000000
        let opened = unsafe withUnsafeTemporaryAllocation(byteCount: DescriptorLinks.capacity, alignment: 8) { text -> Int in
            guard let base = text.baseAddress else { return -1 }
            unsafe DescriptorLinks.write(Int64(socket), to: base)
            return unsafe dashfs_sys_open(base.assumingMemoryBound(to: CChar.self), pathOnlyCloseOnExec, 0)
        }
        var low = opened
        if low < 0 {
            low = unsafe dashfs_sys_open(UnsafeRawPointer(dashfs_socket_text()).assumingMemoryBound(to: CChar.self), pathOnlyCloseOnExec, 0)
        }
        guard low >= 0 else { return Int64(low) }
        let high = dashfs_duplicate_above(Int32(truncatingIfNeeded: low), floor)
        if high >= 0 { _ = dashfs_sys_close(Int32(truncatingIfNeeded: low)) }
        unsafe pathOnly = Int32(truncatingIfNeeded: high >= 0 ? high : low)
        Descriptors.reserve(placeholder)
        return 0
    }

    /// High enough to be out of the program's way, low enough not to make the kernel's table of descriptors large.
    static func descriptorFloor() -> Int32 {
        var limits: (UInt64, UInt64) = (1024, 1024)
        let prlimit: Int64 = 302
        let descriptors: Int64 = 7
        unsafe withUnsafeMutablePointer(to: &limits) { limits in
            _ = dashfs_raw_syscall6(prlimit, 0, descriptors, 0, Int64(Int(bitPattern: limits)), 0, 0)
        }
        return Int32(truncatingIfNeeded: max(3, Int64(min(limits.0, 1024)) - 24))
    }

    private static func complain(_ errno: Int64) {
        if unsafe complained { return }
        unsafe complained = true
        guard var line = LongLine() else { return }
        line.append("dashfs: ")
        line.append(Configuration.prefix)
        line.append(" is not available: ")
        switch errno {
        case 2, 20, 111:
            line.append("no server listens at ")
            line.append(Configuration.socket)
            line.append("; start one with `dashfs serve`")
        case 13:
            line.append("the server at ")
            line.append(Configuration.socket)
            line.append(" does not admit this user (`dashfs serve --allow-user`)")
        case 71:
            line.append("the server at ")
            line.append(Configuration.socket)
            line.append(" speaks another version; install server and library from the same release")
        default:
            line.append("connecting to ")
            line.append(Configuration.socket)
            line.append(" failed with error ")
            line.append(number: errno)
        }
        line.append("\n")
        line.write()
    }
}

extension Session {
    /// A word of the session's memory that `SessionState` leaves alone.
    private var temporaryWord: UnsafeMutableRawPointer { unsafe base + 3072 }
    fileprivate func markTemporary() { unsafe dashfs_store32(temporaryWord, 1) }
    fileprivate var isTemporary: Bool { unsafe dashfs_load32(temporaryWord) == 1 }
}

/// A line under construction in scratch memory: this may run on a small stack.
private struct LongLine: ~Copyable {
    private let scratch: Scratch
    private var count = 0

    init?() {
        guard let scratch = Scratch() else { return nil }
        self.scratch = scratch
    }

    mutating func append(_ text: PathBytes) {
        guard let start = unsafe text.address else { return }
        let room = min(text.count, Scratch.bytes - count)
        unsafe dashfs_copy(scratch.base + count, start, room)
        count += room
    }
    mutating func append(_ text: StaticString) { unsafe append(PathBytes(text.utf8Start, count: text.utf8CodeUnitCount)) }
    mutating func append(number: Int64) {
        guard count + 20 <= Scratch.bytes else { return }
        unsafe count += Text.write(number: number.magnitude, to: scratch.base + count)
    }
    func write() { _ = unsafe dashfs_sys_write(2, scratch.base, count) }
}
