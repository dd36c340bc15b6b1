// The command line: one file per subcommand, what they share in Support/. Invariant: a failure is one line on standard error that says
// what to do, and an exit code of sysexits(3); standard output carries nothing but what was asked for.
import ArgumentParser
import Glibc

@main
struct Dashfs: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dashfs",
        abstract: "A file system that runs as an ordinary process and serves programs through shared memory.",
        discussion: """
            EXAMPLES
              dashfs format disk.img --size 1G        make a volume in a file
              dashfs serve disk.img                   serve it
              dashfs run -- ls -lR /dash              run any program on it
              dashfs run --image disk.img -- bash     the same with a server of its own
              dashfs check disk.img                   verify every structure

            EXIT STATUS
              0 success; 64 wrong usage, 65 wrong data, 66 no input, 69 unavailable, 71 system error, 73 cannot create,
              74 input or output error, 77 no permission. `run` ends with its command's status, `check` with 0 (clean),
              1 (findings) or 2 (cannot run).
            """,
        version: "0.1.0",
        subcommands: [
            FormatCommand.self, ServeCommand.self, RunCommand.self, CheckCommand.self, InfoCommand.self, StatsCommand.self, BenchCommand.self,
            DoctorCommand.self, ExplainCommand.self, DeviceCommand.self, BenchWorkerCommand.self, BecomeCommand.self,
        ])

    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let failure as Failure {
            failure.end()
        } catch where exitCode(for: error).isSuccess || error is ExitCode {
            // Help, the version, or a status of the command's own.
            exit(withError: error)
        } catch {
            let message = Dashfs.message(for: error).split(separator: "\n").joined(separator: " ")
            Failure(.usage, "\(message); see: dashfs help").end()
        }
    }
}
