// Programs whose calls the kernel hands back by a signal, because their code is not, or cannot be, rewritten.

import Foundation
import Interception
import Testing

@Suite struct DispatchTests {
    /// A handler that is interrupted after it has let its signal in again, and makes a call, wants three frames of the kernel's: up to 10 KiB.
    static let programs: [(String, [String], String)] = [
        ("dispatch", [], "0 failures\n"), ("registers", [], "0 failures\n"), ("signals", ["-DSTACK=16384"], "wrong 0, jumps some\n"), ("processes", [], "0 failures\n"),
        ("cancellation", [], "cancelled 300, cleaned up 300, of 300\n"), ("cancellation", ["-fexceptions"], "cancelled 300, cleaned up 300, of 300\n"),
        ("pointers", [], "0 failures\n"), ("namespaces", [], "answered 30 of 30\n"),
    ]

    @Test("Programs run as where their code is rewritten", arguments: programs)
    func runs(_ program: String, _ options: [String], _ text: String) throws {
        let workshop = try Workshop()
        let path = try workshop.compile(program, options)
        let outcome = try workshop.run([path], workshop.preloaded(intercept: "dispatch"))
        #expect(outcome.status == 0 && outcome.output == text && outcome.errors == "", "\(outcome.output)\(outcome.errors)")
    }

    @Test("And so on another C library, without a table of it", arguments: programs)
    func runsElsewhere(_ program: String, _ options: [String], _ text: String) throws {
        let (workshop, directory) = (try Workshop(), try debian13.get())
        let command = ["\(directory)/ld-linux-x86-64.so.2", "--library-path", "\(directory):/lib/x86_64-linux-gnu", try workshop.compile(program, options)]
        let outcome = try workshop.run(command, ["LD_PRELOAD": Workshop.library, "DASHFS_PROBE": "1", "DASHFS_INTERCEPT": "dispatch"])
        #expect(outcome.status == 0 && outcome.output == text && outcome.errors == "", "\(outcome.output)\(outcome.errors)")
    }

    @Test("It catches what rewriting does not: calls of code that no table knows")
    func catchesMore() throws {
        let workshop = try Workshop()
        let program = try workshop.compile("dispatch")
        let outcome = try workshop.run([program], workshop.preloaded(intercept: "rewrite"))
        #expect(outcome.status == 1 && outcome.output.contains("wrong: main\n"), "\(outcome.output)")
    }

    @Test("Also with an instance that has ended before it, as an auditor", arguments: ["registers", "processes", "dispatch"])
    func followsAuditor(_ program: String) throws {
        let workshop = try Workshop()
        let path = try workshop.compile(program)
        let variables = try workshop.preloaded(intercept: "dispatch").merging(["DASHFS_SOCKET": "/nowhere"]) { $1 }
        let outcome = try workshop.run(["env", "LD_AUDIT=\(Workshop.library)", path], variables)
        #expect(outcome.status == 0 && outcome.output == "0 failures\n", "\(outcome.output)\(outcome.errors)")
    }

    // MARK: Which mechanism

    @Test("Where code cannot be rewritten it is the other, with one line that says so, unless one of them was asked for")
    func fallsBack() throws {
        let workshop = try Workshop()
        let program = try workshop.compile("dispatch")
        try FileManager.default.removeItem(atPath: workshop.systemTables()[0])
        func run(_ intercept: String?) throws -> Workshop.Outcome {
            var variables = try workshop.preloaded(intercept: "auto")
            variables["DASHFS_INTERCEPT"] = intercept
            // The tables were made again.
            try FileManager.default.removeItem(atPath: workshop.systemTables()[0])
            // Not through env(1), which would be a program of its own.
            return try workshop.run(["bash", "-c", "exec \(program)"], variables)
        }
        for choice in ["auto", nil] {
            let outcome = try run(choice)
            #expect(outcome.status == 0 && outcome.output == "0 failures\n", "\(outcome.output)\(outcome.errors)")
            let lines = Set(outcome.errors.split(separator: "\n"))
            #expect(lines.count == 1 && lines.first?.contains("is not among those") == true && lines.first?.contains("caught by signals instead") == true, "\(lines)")
        }
        #expect(try run("dispatch").errors == "")
        #expect(try run("rewrite").status == 126)
        let unknown = try run("symbols")
        #expect(unknown.status == 126 && unknown.errors.contains("rewrite, dispatch or auto, not symbols"))
    }

    @Test("Where the kernel has no such thing the program ends with one line")
    func refuses() throws {
        let workshop = try Workshop()
        let wrapper = try workshop.compile("refused")
        let plain = try workshop.run([wrapper, "env"] + ["LD_PRELOAD=\(Workshop.library)", "DASHFS_INTERCEPT=dispatch", "echo", "ran"])
        #expect(plain.status == 126 && plain.output == "" && plain.errors.contains("no syscall user dispatch"), "\(plain.errors)")
        #expect(plain.errors.filter { $0 == "\n" }.count == 1)
        // And with a reason of its own where there is one.
        let other = try workshop.run([wrapper, "env"] + ["LD_PRELOAD=\(Workshop.library)", "DASHFS_SITES=/absent", "echo", "ran"])
        #expect(other.status == 126 && other.errors.contains("cannot read the call-site table"), "\(other.errors)")
    }
}
