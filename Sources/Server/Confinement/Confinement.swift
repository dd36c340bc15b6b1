import BlockDevice
import CSystem
import Logging

#if canImport(Glibc)
    import Glibc
#endif

/// What a server gives up once everything it needs is open: its user, its capabilities, the file system, most system calls. For good.
///
/// Invariant: nothing that serving needs comes by name or by privilege afterwards. The device, the socket and the memory are descriptors and mappings; who a client is
/// (SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD, pidfd_open) the kernel tells anyone.
enum Confinement {
    /// Before the server's threads are started: they inherit what holds for a thread.
    /// - Returns: whether no file can be opened any more.
    static func beforeThreads(_ configuration: ServerConfiguration) -> Bool {
        let logger = configuration.logger
        if dashfs_drop_capabilities() < 0 { logger.warning("the server keeps its capabilities: the kernel refuses capset") }
        if dashfs_forbid_new_privileges() < 0 { logger.warning("the server can be traced by others of its user: the kernel refuses prctl") }
        let directory = configuration.socketPath.lastIndex(of: "/").map { String(configuration.socketPath[...$0]) } ?? "."
        let result = unsafe directory.withCString { unsafe dashfs_close_file_system($0) }
        if result < 0 {
            logger.notice("the server is not kept from files by Landlock, so it opens none, and files of the volume cannot be mapped: \(errorText(Int32(-result)))")
        }
        return result >= 0
    }

    /// After they are started, because starting one takes calls that serving does not.
    static func afterThreads(_ configuration: ServerConfiguration, isKeptFromFiles: Bool) {
        let result = SystemCallFilter(SystemCallFilter.serving + (isKeptFromFiles ? [SystemCallFilter.reopening] : [])).install()
        if result < 0 { configuration.logger.warning("the server may make every system call: no seccomp filter: \(errorText(Int32(-result)))") }
    }
}

extension Server {
    /// Becomes an unprivileged user, for good; root only. Call it when the device and the socket are open, before `run`.
    public static func become(user: UInt32, group: UInt32) throws(ServerError) {
        let result = dashfs_become(user, group)
        guard result == 0 else {
            throw ServerError(errno: Int32(-result), message: "cannot become user \(user): \(errorText(Int32(-result))); only root can")
        }
    }
}
