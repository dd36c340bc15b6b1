// The programs of PreloadedProgramTests once more, with the C library of Debian 13 (glibc 2.41), whose way to cancel threads is another. `debian-library` fetches it once.

import Foundation
import Interception
import Testing

/// Where the libraries of Debian 13's libc6 are.
let debian13: Result<String, any Error> = Result {
    let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    let place = sources.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(".build/debian").path
    let printed = try Workshop().output([sources.appendingPathComponent("debian-library").path, "trixie", "libc6", place])
    return printed.trimmingCharacters(in: .whitespacesAndNewlines)
}

@Suite struct SecondLibraryTests {
    private func run(_ workshop: Workshop, _ program: String, _ options: [String] = [], _ variables: [String: String] = [:]) throws -> Workshop.Outcome {
        let directory = try debian13.get()
        let loader = "\(directory)/ld-linux-x86-64.so.2"
        // libgcc_s, which unwinds, is this machine's.
        let arguments = ["--library-path", "\(directory):/lib/x86_64-linux-gnu", try workshop.compile(program, options)]
        try workshop.tables().prepare(program: loader, arguments: arguments, libraryPath: nil, find: { _ in nil })
        return try workshop.run([loader] + arguments, workshop.preloaded().merging(variables) { $1 })
    }

    @Test(
        "Programs run as on this machine's own C library",
        arguments: [
            ("registers", [], "0 failures\n"), ("unwinding", [], "results 0 0 -1 1, steps in the library many, lost 0\n"), ("signals", [], "wrong 0, jumps some\n"),
            ("cancellation", [], "cancelled 300, cleaned up 300, of 300\n"), ("cancellation", ["-fexceptions"], "cancelled 300, cleaned up 300, of 300\n"),
            ("processes", [], "0 failures\n"), ("pointers", [], "0 failures\n"), ("namespaces", [], "answered 30 of 30\n"),
        ])
    func programs(_ name: String, _ options: [String], _ text: String) throws {
        let outcome = try run(Workshop(), name, options)
        #expect(outcome.status == 0 && outcome.output == text, "\(outcome.output)\(outcome.errors)")
    }

    @Test("Threads started before main, by another library, and after it")
    func threads() throws {
        let workshop = try Workshop()
        _ = try workshop.output([
            "gcc", "-O1", "-shared", "-fPIC", "-pthread", "\(Workshop.programs)/early.c", "-o", "\(workshop.directory)/libearly.so",
        ])
        let outcome = try run(workshop, "threads", ["-L\(workshop.directory)", "-learly", "-Wl,-rpath,\(workshop.directory)"])
        #expect(outcome.status == 0 && outcome.output == "wrong 0 before, 0 after\n", "\(outcome.output)\(outcome.errors)")
    }

    @Test("It is that library that they ran on, and the check for registers finds the planted bug there, too")
    func isTheOther() throws {
        let own = try Workshop()
        let versions = try [run(own, "version").output, own.run([own.compile("version")]).output]
        #expect(versions[0] == "2.41\n" && versions[1] != versions[0], "\(versions)")
        let found = try run(Workshop(), "registers", [], ["DASHFS_PROBE": "wrong"])
        #expect(found.status == 1 && found.output.contains("register 2 is changed"))
    }

    @Test("The call that cancellation is about stays as it is, its callers are redirected, and all else is rewritten")
    func covers() throws {
        let surveyed = try SurveyedObject(kind: .libc, path: "\(debian13.get())/libc.so.6")
        #expect(surveyed.redirectedCalls.count == 1 && surveyed.uncovered.isEmpty)
        #expect(surveyed.sites.count { $0.coverage.text.contains("cancellation") } == 1)
        let workshop = try Workshop()
        let syscalls = try workshop.disassemble(surveyed.path).filter { $0.text.hasPrefix("syscall") }
        #expect(surveyed.sites.map(\.address) == syscalls.map(\.address))
    }

    @Test("Without a table of it a program does not run")
    func needsATable() throws {
        let workshop = try Workshop()
        let directory = try debian13.get()
        let outcome = try workshop.run(["\(directory)/ld-linux-x86-64.so.2", "--library-path", directory, workshop.compile("version")], workshop.preloaded())
        #expect(outcome.status == 126 && outcome.errors.contains("is not among those"), "\(outcome.errors)")
    }
}
