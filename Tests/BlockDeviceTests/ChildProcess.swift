/// Another program, for tests of what happens between processes; and a folder on the real disk.
import Glibc

struct SpawnError: Error { var errno: Int32 }

/// A child whose standard output is read by lines. It is killed and reaped at the end of its object.
@safe final class ChildProcess {
    private(set) var process: pid_t = 0
    private let output: UnsafeMutablePointer<FILE>?
    private var reaped = false

    init(_ arguments: [String]) throws {
        var pipes: [Int32] = [0, 0]
        guard unsafe pipe(&pipes) == 0 else { throw SpawnError(errno: errno) }
        _ = fcntl(pipes[0], F_SETFD, FD_CLOEXEC)
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawn_file_actions_adddup2(&actions, pipes[1], 1)
        unsafe posix_spawn_file_actions_addclose(&actions, pipes[1])
        var words = unsafe arguments.map { unsafe strdup($0) } + [nil]
        let result = unsafe posix_spawn(&process, arguments[0], &actions, nil, &words, environ)
        for unsafe word in unsafe words { unsafe free(word) }
        unsafe posix_spawn_file_actions_destroy(&actions)
        close(pipes[1])
        unsafe output = unsafe fdopen(pipes[0], "r")
        guard result == 0 else {
            reaped = true
            throw SpawnError(errno: result)
        }
    }

    deinit {
        if !reaped {
            kill(process, SIGKILL)
            wait()
        }
        if let output = unsafe output { unsafe fclose(output) }
    }

    /// The next line without its end; empty at the end of the output.
    func readLine() -> String {
        var line = ""
        guard let output = unsafe output else { return line }
        while true {
            let byte = unsafe fgetc(output)
            guard byte != EOF, byte != 10 else { return line }
            line.unicodeScalars.append(Unicode.Scalar(UInt8(truncatingIfNeeded: byte)))
        }
    }

    func wait() {
        guard !reaped else { return }
        while waitpid(process, nil, 0) < 0 && errno == EINTR {}
        reaped = true
    }
}

/// `dashfs-device-bench`, which is built beside the tests.
func benchmarkExecutable() throws -> String {
    var name = [CChar](repeating: 0, count: 4096)
    let length = unsafe readlink("/proc/self/exe", &name, name.count)
    guard length > 0 else { throw SpawnError(errno: errno) }
    let tests = String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return tests.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        + "/dashfs-device-bench"
}

/// A folder that goes with its object, below /var/tmp: on a disk, where /tmp may be memory.
final class TemporaryFolder {
    let path: String

    init() throws {
        var name = Array("/var/tmp/dashfs-test-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&name) != nil else { throw SpawnError(errno: errno) }
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { (try? ChildProcess(["/bin/rm", "-rf", path]))?.wait() }
}
