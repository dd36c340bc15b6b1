import BlockDevice
import CSystem
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// The listening socket, and one epoll for everything that is not the data path: new connections, their messages, deaths, signals, stop.
///
/// Invariant: identity comes from the kernel only (SO_PEERCRED, SO_PEERGROUPS, a pidfd), taken once when a connection is accepted.
final class ControlSockets {
    let events: Int32
    let listener: Int32
    let stopBell: Int32
    private var signals: Int32 = -1
    /// Given up for a moment where no other descriptor is left, to turn a connection away that would be announced for ever.
    private var reserve = Int32(dashfs_sys_eventfd())
    private let path: String

    init(configuration: ServerConfiguration) throws(ServerError) {
        path = configuration.socketPath
        events = Int32(dashfs_sys_epoll_create())
        stopBell = Int32(dashfs_sys_eventfd())
        listener = try ControlSockets.listen(at: configuration.socketPath, mode: configuration.socketMode)
        _ = dashfs_sys_epoll_add(events, listener, UInt32(dashfs_epoll_in), EventTag.listener)
        _ = dashfs_sys_epoll_add(events, stopBell, UInt32(dashfs_epoll_in), EventTag.stop)
        if configuration.handlesSignals {
            let termination: UInt64 = 1 << UInt64(SIGTERM - 1) | 1 << UInt64(SIGINT - 1)
            signals = Int32(dashfs_sys_signalfd(termination))
            _ = dashfs_sys_epoll_add(events, signals, UInt32(dashfs_epoll_in), EventTag.signal)
        }
    }

    /// Binds the socket; takes over a path that a dead server has left.
    private static func listen(at path: String, mode: UInt32) throws(ServerError) -> Int32 {
        let fd = Int32(dashfs_sys_seqpacket())
        guard fd >= 0 else { throw ServerError(errno: -fd, message: "cannot make a socket") }
        var bound = bind(fd, path)
        if bound == -Int(EADDRINUSE) {
            let probe = Int32(dashfs_sys_seqpacket())
            let answer = unsafe path.withCString { unsafe dashfs_sys_connect_unix(probe, $0, path.utf8.count) }
            _ = dashfs_sys_close(probe)
            guard answer == -Int(ECONNREFUSED) else {
                _ = dashfs_sys_close(fd)
                throw ServerError(
                    errno: EADDRINUSE, message: "\(path) is in use: another server listens there; stop it, or choose another --socket")
            }
            _ = unsafe path.withCString { unsafe dashfs_sys_unlink($0) }
            bound = bind(fd, path)
        }
        if bound == 0 { bound = unsafe path.withCString { unsafe dashfs_sys_chmod($0, mode) } }
        if bound == 0 { bound = dashfs_sys_listen(fd, 256) }
        guard bound == 0 else {
            _ = dashfs_sys_close(fd)
            let hint =
                switch Int32(-bound) {
                case ENAMETOOLONG: "a socket's path has at most 107 bytes; choose a shorter one"
                case ENOENT: "there is no such directory; make it first, or choose another place"
                default: errorText(Int32(-bound)) + "; choose another place"
                }
            throw ServerError(errno: Int32(-bound), message: "cannot listen at \(path): \(hint)")
        }
        return fd
    }

    private static func bind(_ fd: Int32, _ path: String) -> Int {
        unsafe path.withCString { unsafe dashfs_sys_bind_unix(fd, $0, path.utf8.count) }
    }

    /// The next connection, or a negated errno; where no descriptor is left for it, it is closed.
    func accept() -> Int {
        let accepted = dashfs_sys_accept(listener)
        if accepted == -Int(EMFILE) || accepted == -Int(ENFILE), reserve >= 0 {
            _ = dashfs_sys_close(reserve)
            let refused = dashfs_sys_accept(listener)
            if refused >= 0 { _ = dashfs_sys_close(Int32(truncatingIfNeeded: refused)) }
            reserve = Int32(truncatingIfNeeded: dashfs_sys_eventfd())
        }
        return accepted
    }

    /// No new connections from now on; the path disappears.
    func stopListening() {
        _ = dashfs_sys_epoll_remove(events, listener)
        _ = unsafe path.withCString { unsafe dashfs_sys_unlink($0) }
        _ = dashfs_sys_close(listener)
    }

    /// Lets go of the descriptors of a session.
    func forget(_ session: UnsafeMutablePointer<SessionEnd>, events doorbells: Int32) {
        let (socket, pidfd, doorbell) = unsafe (session.pointee.socket, session.pointee.pidfd, session.pointee.doorbell)
        if doorbell >= 0 {
            _ = dashfs_sys_epoll_remove(doorbells, doorbell)
            _ = dashfs_sys_close(doorbell)
        }
        if pidfd >= 0 {
            _ = dashfs_sys_epoll_remove(events, pidfd)
            _ = dashfs_sys_close(pidfd)
        }
        if socket >= 0 {
            _ = dashfs_sys_epoll_remove(events, socket)
            // Others may hold copies of the peer's end; it is over for them as well.
            _ = dashfs_sys_shutdown(socket)
            _ = dashfs_sys_close(socket)
        }
        unsafe session.pointee.socket = -1
        unsafe session.pointee.pidfd = -1
        unsafe session.pointee.doorbell = -1
    }

    deinit {
        _ = dashfs_sys_close(stopBell)
        if signals >= 0 { _ = dashfs_sys_close(signals) }
        if reserve >= 0 { _ = dashfs_sys_close(reserve) }
        _ = dashfs_sys_close(events)
    }
}
