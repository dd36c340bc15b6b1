// Programs that a command starts: environment, standard streams, waiting. Invariant: a child starts with the signal mask and
// dispositions that this process was started with, and is waited for by its process id.
import CSystem
import Glibc

/// NUL-terminated copies of strings, as exec wants them.
@safe final class StringVector {
    let pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    init(_ strings: [String]) {
        count = strings.count
        unsafe pointers = .allocate(capacity: strings.count + 1)
        for (index, string) in strings.enumerated() { unsafe (pointers + index).initialize(to: strdup(string)) }
        unsafe (pointers + strings.count).initialize(to: nil)
    }

    deinit {
        for index in 0..<count { unsafe free(pointers[index]) }
        unsafe pointers.deallocate()
    }
}

struct ProcessEnvironment {
    private(set) var entries: [String] = []

    /// This process's own.
    init() {
        var entry = unsafe environ
        while let text = unsafe entry.pointee {
            entries.append(unsafe String(cString: text))
            unsafe entry += 1
        }
    }

    subscript(name: String) -> String? {
        get { entries.first { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.utf8.count + 1)) } }
        set {
            entries.removeAll { $0.hasPrefix(name + "=") }
            if let newValue { entries.append("\(name)=\(newValue)") }
        }
    }
}

struct ChildProcess {
    let identifier: pid_t

    /// - Parameters:
    ///   - input, output: descriptors that become standard input and output, or -1.
    ///   - inherited: a descriptor that becomes number 3, or -1.
    ///   - ownGroup: out of reach of what the terminal sends to this process.
    init(
        _ arguments: [String], environment: ProcessEnvironment, input: Int32 = -1, output: Int32 = -1, inherited: Int32 = -1, ownGroup: Bool = false
    ) throws(Failure) {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe _ = posix_spawn_file_actions_destroy(&actions) }
        if input >= 0 { unsafe _ = posix_spawn_file_actions_adddup2(&actions, input, 0) }
        if inherited >= 0 { unsafe _ = posix_spawn_file_actions_adddup2(&actions, inherited, 3) }
        if output >= 0 { unsafe _ = posix_spawn_file_actions_adddup2(&actions, output, 1) }
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe _ = posix_spawnattr_destroy(&attributes) }
        var flags = Int16(POSIX_SPAWN_SETSIGMASK)
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        unsafe posix_spawnattr_setsigmask(&attributes, &mask)
        if ownGroup {
            flags |= Int16(POSIX_SPAWN_SETPGROUP)
            unsafe posix_spawnattr_setpgroup(&attributes, 0)
        }
        unsafe posix_spawnattr_setflags(&attributes, flags)
        let argumentVector = StringVector(arguments)
        let environmentVector = StringVector(environment.entries)
        var child: pid_t = 0
        let result = unsafe posix_spawnp(&child, arguments[0], &actions, &attributes, argumentVector.pointers, environmentVector.pointers)
        guard result == 0 else { throw ChildProcess.cannotRun(arguments[0], result) }
        identifier = child
    }

    /// As a shell tells it: 127 where there is no such command, 126 where it cannot be run.
    static func cannotRun(_ command: String, _ number: Int32) -> Failure {
        var failure = Failure(.unavailable, "\(command): \(number == ENOENT ? "command not found" : errorText(number))")
        failure.exitCode = number == ENOENT ? 127 : 126
        return failure
    }

    /// Becomes the command. Returns only where that fails.
    static func become(_ arguments: [String], environment: ProcessEnvironment) -> Failure {
        let argumentVector = StringVector(arguments)
        let environmentVector = StringVector(environment.entries)
        unsafe _ = dashfs_execute(arguments[0], argumentVector.pointers, environmentVector.pointers)
        return cannotRun(arguments[0], errno)
    }

    /// Waits for its end; its status as a shell tells it.
    func wait() -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(identifier, &status, 0) < 0 { if errno != EINTR { return 255 } }
        return dashfs_exit_status(status)
    }

    func send(_ signal: Int32) { kill(identifier, signal) }

    /// Waits for its end, and meanwhile hands on SIGTERM and SIGHUP; what the terminal sends reaches the child by itself.
    func waitHandingOnSignals() -> Int32 {
        var watched = sigset_t()
        unsafe sigemptyset(&watched)
        for signal in [SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT] { unsafe sigaddset(&watched, signal) }
        while true {
            var status: Int32 = 0
            if unsafe waitpid(identifier, &status, WNOHANG) == identifier { return dashfs_exit_status(status) }
            let signal = unsafe sigwaitinfo(&watched, nil)
            if signal == SIGTERM || signal == SIGHUP { send(signal) }
        }
    }

    /// Before a child that is waited for in that way is started.
    static func blockWatchedSignals() {
        var watched = sigset_t()
        unsafe sigemptyset(&watched)
        for signal in [SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT] { unsafe sigaddset(&watched, signal) }
        unsafe _ = sigprocmask(SIG_BLOCK, &watched, nil)
    }
}
