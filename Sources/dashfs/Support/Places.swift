// Where things are: the server's socket, the library for programs, the cache of site tables. Invariant: server and clients find the same
// default without being told, and no default lies where another user could have put something first.
import Glibc

enum Places {
    static func environment(_ name: String) -> String? {
        guard let value = unsafe getenv(name) else { return nil }
        let text = unsafe String(cString: value)
        return text.isEmpty ? nil : text
    }

    private static let systemDirectory = "/run/dashfs"
    private static var systemSocket: String { systemDirectory + "/dashfs.sock" }

    /// Where a server listens: root's in /run/dashfs, anyone else's in the runtime directory of the session.
    static func serverSocket() throws(Failure) -> String {
        if geteuid() == 0 {
            if unsafe mkdir(systemDirectory, 0o755) != 0 && errno != EEXIST {
                throw Failure(.cannotCreate, "\(systemDirectory) cannot be made: \(errorText(errno)); choose a place with --socket")
            }
            return systemSocket
        }
        guard let directory = environment("XDG_RUNTIME_DIR") else {
            throw Failure(.usage, "XDG_RUNTIME_DIR is not set, so there is no default place for the socket; choose one with --socket")
        }
        return directory + "/dashfs.sock"
    }

    /// Where clients look: DASHFS_SOCKET, the user's own server, the system's.
    static func clientSocket() -> String {
        if let path = environment("DASHFS_SOCKET") { return path }
        if geteuid() != 0, let directory = environment("XDG_RUNTIME_DIR") {
            let path = directory + "/dashfs.sock"
            if exists(path) { return path }
        }
        return systemSocket
    }

    static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    /// The path of this program's file.
    static var executable: String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = unsafe readlink("/proc/self/exe", &buffer, buffer.count - 1)
        guard count > 0 else { return "dashfs" }
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static var executableDirectory: String {
        let path = executable
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return String(path[..<slash])
    }

    /// libdashfs-preload.so: beside the executable (a build directory), or in the lib directory of the same prefix.
    static func preloadLibrary() throws(Failure) -> String {
        let name = "libdashfs-preload.so"
        let directory = executableDirectory
        let candidates = [environment("DASHFS_PRELOAD"), "\(directory)/\(name)", "\(directory)/../lib/\(name)", "\(directory)/../lib/dashfs/\(name)"]
        for case let candidate? in candidates where exists(candidate) { return absolute(candidate) }
        throw Failure(
            .unavailable, "\(name) is neither beside \(executable) nor in ../lib; install both with `make install`, or name it in DASHFS_PRELOAD")
    }

    /// The file of a command: a name without a slash is looked for in PATH.
    static func program(_ name: String) -> String? {
        if name.contains("/") { return name }
        for directory in (ProcessEnvironment()["PATH"] ?? "/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(name)"
            var status = stat()
            if unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, (unsafe access(path, X_OK)) == 0 { return path }
        }
        return nil
    }

    /// Where tables of call sites are kept.
    static var cacheDirectory: String {
        if let directory = environment("XDG_CACHE_HOME") { return directory + "/dashfs" }
        if geteuid() == 0 { return "/var/cache/dashfs" }
        if let home = environment("HOME") { return home + "/.cache/dashfs" }
        return "/var/cache/dashfs"
    }

    /// The path with no symbolic link and no `..` in it, or itself where it does not exist.
    static func absolute(_ path: String) -> String {
        guard let resolved = unsafe realpath(path, nil) else { return path }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }
}

/// A directory of one's own below TMPDIR, with what is put there, removed when asked.
struct PrivateDirectory {
    let path: String

    init() throws(Failure) {
        let base = Places.environment("TMPDIR") ?? "/tmp"
        var template = Array("\(base)/dashfs-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else {
            throw Failure(.cannotCreate, "no private directory in \(base): \(errorText(errno)); set TMPDIR to a directory that you may write")
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func remove(_ names: [String]) {
        for name in names { unsafe _ = unlink("\(path)/\(name)") }
        unsafe _ = rmdir(path)
    }
}

/// "No such file or directory" for ENOENT.
func errorText(_ number: Int32) -> String {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
        guard let start = buffer.baseAddress, unsafe strerror_r(number, start, buffer.count) == 0 else { return "error \(number)" }
        return unsafe String(cString: start)
    }
}
