// `dashfs doctor`: what of this machine stops DashFS or slows it, and how to mend it. Invariant: it changes nothing; what it makes to try
// something out is gone when it ends.
import ArgumentParser

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what on this machine limits DashFS, and how to mend it.",
        discussion: """
            EXAMPLES
              dashfs doctor
              dashfs doctor --directory /srv/images
              dashfs doctor --intercept          every call site of the C library and how it is covered
              dashfs doctor --intercept git      and of everything else that a program starts with
              dashfs doctor --intercept -- /opt/glibc/ld-linux-x86-64.so.2 --library-path /opt/glibc git

            EXIT STATUS
              0 where DashFS works, however slowly; 69 where something stops it. With --intercept: 1 where a call site is not covered; 66 where
              there is no such program, 65 where it is none.
            """)

    @Option(help: ArgumentHelp("Where images will lie: tries direct I/O there.", valueName: "path"), completion: .directory)
    var directory = "."

    @Flag(help: "List every system call site of the C library and its loader, or of all that PROGRAM starts with, and how it is covered.")
    var intercept = false

    @Argument(help: "With --intercept: a program, by its path or its name in PATH; its own arguments may follow.")
    var program: [String] = []

    @Flag(help: "One JSON object.")
    var json = false

    func run() throws {
        if intercept { return try listCallSites() }
        let results = Examination.all(directory: directory)
        if json {
            Terminal.output(try JSONText.encode(DoctorReport(works: !results.contains { $0.state == .stops }, results: results)))
        } else {
            show(results)
        }
        if results.contains(where: { $0.state == .stops }) { throw ExitCode(Failure.Status.unavailable.rawValue) }
    }

    func validate() throws {
        guard program.isEmpty || intercept else { throw ValidationError("A program goes with --intercept") }
        guard !intercept || !json else { throw ValidationError("--intercept and --json do not go together") }
    }

    private func listCallSites() throws {
        let objects = try CallSites.objects(of: program)
        var (carried, alone, past) = (0, 0, 0)
        for object in objects {
            Terminal.output("\(object.path)\(object.identity.isEmpty ? "" : ", \(object.identity)"): \(object.summary)")
            for site in object.sites { Terminal.output("  \(site)") }
            (carried, alone, past) = (carried + object.carried, alone + object.leftAlone, past + object.past)
        }
        Terminal.output("\(carried) call sites about files are covered, \(alone) are not about files, \(past) go past.")
        if past > 0 { throw ExitCode(1) }
    }

    private func show(_ results: [Examination.Result]) {
        let width = results.map(\.name.count).max() ?? 0
        for result in results {
            let name = result.name + String(repeating: " ", count: width - result.name.count)
            Terminal.output("\(result.state.mark)  \(name)  \(result.text)")
            if let remedy = result.remedy { Terminal.output("       \(String(repeating: " ", count: width))  to mend: \(remedy)") }
        }
        let (stops, slows) = (results.count { $0.state == .stops }, results.count { $0.state == .limits })
        let found = slows == 0 ? "nothing slows it" : "what is marked slow (\(slows)) costs speed, not safety"
        Terminal.output(stops > 0 ? "DashFS does not work here until what is marked STOP is mended." : "DashFS works here; \(found).")
    }
}

private struct DoctorReport: Encodable {
    var works: Bool
    var results: [Examination.Result]
}
