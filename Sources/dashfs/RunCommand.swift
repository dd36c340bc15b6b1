// `dashfs run`: a program with the library that sends its system calls below a prefix to a server. Invariant: the command's exit status is
// ours, and with --image its last byte is on the device before we end.
import ArgumentParser
import Glibc
import Interception

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a program with the volume at /dash.",
        discussion: """
            The program runs unmodified; paths below /dash go to the server, all others to the kernel. Programs it starts see
            the volume as well. With --image a server is started for the command and stopped after it.

            EXAMPLES
              dashfs run -- cp -a /usr/share/doc /dash
              dashfs run --image disk.img -- bash
              dashfs run --at /data -- sqlite3 /data/my.db

            The exit status is the command's; 127 where there is none of that name, 126 where it cannot be run.
            """)

    @Option(help: ArgumentHelp("Where the server listens.", valueName: "path"), completion: .file())
    var socket: String?

    @Option(help: ArgumentHelp("Serve this file or device (or memory:SIZE) for the command only.", valueName: "file"), completion: .file())
    var image: String?

    @Option(help: ArgumentHelp("The prefix of the volume's paths.", valueName: "path"))
    var at = "/dash"

    @Option(help: ArgumentHelp("With --image: memory for cached blocks; 64M where it is not given.", valueName: "size"))
    var cache: Size?

    @Option(help: ArgumentHelp("How long calls wait for a server that has gone, in seconds; then they fail with EIO.", valueName: "seconds"))
    var timeout = 30

    @Flag(name: .customLong("no-io-uring"), help: "Make io_uring_setup fail (ENOSYS), so that programs use calls that the volume can answer.")
    var withoutRings = false

    @Option(help: ArgumentHelp(
        "How calls are caught: rewrite (their code, in memory), dispatch (the kernel hands each back by a signal, some 3 us each), auto (the second where the first cannot be; this is usual).",
        valueName: "how"))
    var intercept: InterceptionMechanism?

    @Flag(help: "At the end, say on standard error how many calls DashFS and the kernel answered.")
    var report = false

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        guard !command.isEmpty else { throw ValidationError("Give a command after --, such as: dashfs run -- ls /dash") }
        guard at.hasPrefix("/"), at.utf8.count > 1, !at.hasSuffix("/"), !at.contains("//") else {
            throw ValidationError("--at takes an absolute path such as /dash, without a slash at its end")
        }
        guard timeout >= 0 else { throw ValidationError("--timeout takes a number of seconds") }
        guard socket == nil || image == nil else { throw ValidationError("Give --socket or --image, not both") }
        guard cache == nil || image != nil else { throw ValidationError("--cache goes with --image; a running server has its own") }
    }

    func run() throws {
        var environment = try Preloading.environment(prefix: at, command: command, intercept: intercept)
        environment["DASHFS_TIMEOUT"] = "\(timeout)"
        if withoutRings { environment["DASHFS_NO_IO_URING"] = "1" }
        let counts = report ? try CallReport() : nil
        environment[ReportFormat.environmentName] = counts?.path
        let command = FirstProgram.arguments(command, environment, prefix: at)
        guard let image else {
            environment["DASHFS_SOCKET"] = Places.absolute(socket ?? Places.clientSocket())
            try Preloading.requireServer(environment["DASHFS_SOCKET"] ?? "")
            guard let counts else { throw ChildProcess.become(command, environment: environment) }
            ChildProcess.blockWatchedSignals()
            let status = try ChildProcess(command, environment: environment).waitHandingOnSignals()
            counts.show()
            throw ExitCode(status)
        }
        ChildProcess.blockWatchedSignals()
        // Less than a server that stays: all of it is made ready before the command starts.
        let server = try PrivateServer(device: image, options: ["--cache", "\(cache?.bytes ?? 64 << 20)"])
        environment["DASHFS_SOCKET"] = server.socket
        let status: Int32
        do throws(Failure) {
            status = try ChildProcess(command, environment: environment).waitHandingOnSignals()
        } catch {
            _ = server.stop()
            throw error
        }
        counts?.show()
        let served = server.stop()
        if served != 0 {
            var failure = Failure(.inputOutput, "\(image): the server did not end in order (status \(served)); run: dashfs check \(image)")
            if status != 0 { failure.exitCode = status }
            throw failure
        }
        throw ExitCode(status)
    }
}

/// What a program needs in its environment to reach the volume.
enum Preloading {
    static func environment(
        prefix: String, command: [String] = [], intercept chosen: InterceptionMechanism? = nil
    ) throws(Failure) -> ProcessEnvironment {
        var environment = ProcessEnvironment()
        let library = try Places.preloadLibrary()
        let others = environment["LD_PRELOAD"].map { $0.split { $0 == ":" || $0 == " " }.map(String.init).filter { $0 != library } } ?? []
        environment["LD_PRELOAD"] = ([library] + others).joined(separator: ":")
        environment["DASHFS_PREFIX"] = prefix
        let tables = SiteTableCache(Places.cacheDirectory)
        environment[SiteTableCache.environmentName] = tables.directory
        let name = InterceptionMechanism.environmentName
        let intercept = chosen ?? environment[name].flatMap(InterceptionMechanism.init) ?? .auto
        if chosen != nil { environment[name] = intercept.rawValue }
        if intercept == .dispatch { return environment }
        do throws(InterceptionError) {
            try tables.prepareSystem()
            tables.prepareLibraries()
            if let name = command.first, let program = Places.program(name) {
                try tables.prepare(
                    program: program, arguments: Array(command.dropFirst()), libraryPath: environment["LD_LIBRARY_PATH"], find: Places.program)
            }
        } catch {
            guard intercept == .auto else { throw Failure(error) }
            // The program says at its start that its calls are caught otherwise, or ends.
            Terminal.error("dashfs: \(error.description)")
        }
        return environment
    }

    /// Says early, and in one line, that nobody serves.
    static func requireServer(_ socket: String) throws(Failure) {
        let connection = try ControlConnection(socket)
        connection.close()
    }
}

/// How the preloaded library catches calls (docs/INTERCEPTION.md).
enum InterceptionMechanism: String, ExpressibleByArgument, CaseIterable {
    case auto, rewrite, dispatch

    static let environmentName = "DASHFS_INTERCEPT"
}
