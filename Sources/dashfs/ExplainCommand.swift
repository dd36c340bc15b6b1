// `dashfs explain`: what of a program would go past DashFS. Invariant: it reads files and runs nothing.
import ArgumentParser
import CSystem
import Glibc
import Interception

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say whether a program's calls reach DashFS under `dashfs run`, and what goes past.",
        discussion: """
            Looks at the program and the shared objects it starts with: whether it is static or setuid, which interpreter a script has,
            whether the C library is one that is supported, and which objects make system calls of their own that cannot be rewritten
            (`dashfs doctor --intercept` lists all; `dashfs run --intercept=dispatch` catches them too, slower). What a program loads or starts while it runs is not seen: `dashfs run --report` tells.

            EXAMPLES
              dashfs explain git
              dashfs explain ./configure

            EXIT STATUS
              0 where all is carried; 1 where something goes past; 66 where there is no such program, 65 where it is none.
            """)

    @Argument(help: "A program: a path, or a name that is looked for in PATH.", completion: .file())
    var program: String

    func run() throws {
        guard let path = Places.program(program) else {
            throw Failure(.noInput, "\(program): there is no such program in PATH")
        }
        guard unsafe access(path, F_OK) == 0 else { throw Failure(.noInput, "\(path): \(errorText(errno))") }
        let explanation: Explanation
        do throws(InterceptionError) {
            explanation = try Explanation(
                program: path, libraryPath: ProcessEnvironment()["LD_LIBRARY_PATH"], ignoresPreload: ExplainCommand.ignoresPreload, find: Places.program)
        } catch {
            throw Failure(lookingAt: error)
        }
        for finding in explanation.findings {
            Terminal.output(finding.past.map { "past     \(finding.path): \($0)" } ?? "carried  \(finding.path): \(finding.text)")
        }
        let past = explanation.findings.count { $0.past != nil }
        Terminal.output(past == 0 ? "\(program): all is carried." : "\(program): what is marked past (\(past)) does not reach DashFS.")
        if past > 0 { throw ExitCode(1) }
    }

    /// The loader's secure mode (AT_SECURE): the program would get another identity than this user's, or capabilities.
    private static func ignoresPreload(_ path: String) -> String? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        if status.st_mode & S_ISUID != 0, status.st_uid != getuid() { return "setuid" }
        if status.st_mode & S_ISGID != 0, status.st_mode & S_IXGRP != 0, status.st_gid != getgid() { return "setgid" }
        return unsafe getuid() != 0 && dashfs_gives_capabilities(path) ? "given capabilities" : nil
    }
}
