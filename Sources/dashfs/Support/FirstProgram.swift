// How the first program of `dashfs run` is started. Most are by the kernel, at once. What is in the volume, or wants libraries of it before it runs, only the preloaded library can
// start: then this executable is run with that library, and becomes the command (`BecomeCommand`), some 10 ms later. Invariant: the command gets the same arguments, environment and process id
// either way.
import ArgumentParser
import CSystem
import Glibc
import Interception

enum FirstProgram {
    /// What is to be started for the command.
    static func arguments(_ command: [String], _ environment: ProcessEnvironment, prefix: String) -> [String] {
        needsLibrary(command[0], environment, prefix) ? [Places.executable, BecomeCommand.configuration.commandName ?? "", "--"] + command : command
    }

    /// Whether the volume's last name stands anywhere in what says where things are: more often than need be, never less often.
    private static func needsLibrary(_ program: String, _ environment: ProcessEnvironment, _ prefix: String) -> Bool {
        let name = String(prefix[(prefix.lastIndex(of: "/") ?? prefix.startIndex)...].dropFirst())
        if ["LD_LIBRARY_PATH", "PATH"].contains(where: { mentions(environment[$0] ?? "", name) }) { return true }
        let preloads = (environment["LD_PRELOAD"] ?? "").split { $0 == ":" || $0 == " " }.dropFirst()
        if preloads.contains(where: { mentions(String($0), name) }) || mentions(program, name) { return true }
        guard let path = program.contains("/") ? program : inPath(program, environment["PATH"]) else { return false }
        return wants(path, name, scripts: 5)
    }

    private static func mentions(_ text: String, _ name: String) -> Bool {
        text.split { "/:; ".contains($0) }.contains { $0 == name }
    }

    private static func inPath(_ name: String, _ path: String?) -> String? {
        for directory in (path ?? "/bin:/usr/bin").split(separator: ":") where unsafe access("\(directory)/\(name)", X_OK) == 0 { return "\(directory)/\(name)" }
        return nil
    }

    /// Whether a program's file names the volume: as a script's interpreter, or as where its libraries are.
    private static func wants(_ path: String, _ name: String, scripts: Int) -> Bool {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard file >= 0 else { return false }
        defer { close(file) }
        return unsafe withUnsafeTemporaryAllocation(byteCount: DynamicNames.roomBytes, alignment: 16) { room in
            guard let base = room.baseAddress else { return false }
            let head = unsafe pread(file, base, 255, 0)
            if unsafe head > 2 && room[0] == 0x23 && room[1] == 0x21 {
                let line = unsafe String(decoding: room[2..<head].prefix { $0 != 0x0a }, as: UTF8.self)
                guard scripts > 0, let interpreter = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).first.map(String.init) else { return false }
                return mentions(interpreter, name) || wants(interpreter, name, scripts: scripts - 1)
            }
            return unsafe DynamicNames.contains(base, read: { unsafe pread(file, $1, $2, off_t(truncatingIfNeeded: $0)) }) { _, text in
                unsafe mentions(String(decoding: text, as: UTF8.self), name)
            }
        }
    }
}

/// The second half, under the preloaded library.
struct BecomeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "become", abstract: "Become a command. For `run`.", shouldDisplay: false)

    @Argument(parsing: .postTerminator) var command: [String] = []

    func run() throws {
        guard !command.isEmpty else { throw ValidationError("Give a command after --") }
        throw ChildProcess.become(command, environment: ProcessEnvironment())
    }
}
