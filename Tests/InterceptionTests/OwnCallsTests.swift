// System calls that programs and libraries make by themselves, without the C library: `own_calls.c` says how many of four were answered.

import Foundation
import Interception
import Testing

@Suite struct OwnCallsTests {
    private func library(_ workshop: Workshop, _ name: String, _ options: [String] = []) throws -> String {
        let path = "\(workshop.directory)/lib\(name).so"
        _ = try workshop.output(
            ["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-DLIBRARY", "-DNAME=\(name)", "\(Workshop.programs)/own_calls.c", "-o", path] + options)
        return path
    }

    /// Programs lie far from the libraries (position-independent), or at the bottom of the address space (not); and some objects have no build id.
    @Test("A program's own calls, its library's and a loaded library's are answered", arguments: [[], ["-no-pie"], ["-Wl,--build-id=none"]])
    func areAnswered(_ options: [String]) throws {
        let workshop = try Workshop()
        _ = try library(workshop, "linked", options.filter { $0 != "-no-pie" })
        // Without build ids, the same code is the same object.
        let loaded = try library(workshop, "late", options.filter { $0 != "-no-pie" } + ["-O1"])
        let program = try workshop.compile("own_calls", options + ["-O2", "-L\(workshop.directory)", "-Wl,--no-as-needed", "-llinked", "-Wl,-rpath,\(workshop.directory)"])
        let cache = try workshop.tables()
        // Without tables they go past, and nothing else is changed.
        let past = try workshop.run([program, loaded], workshop.preloaded())
        #expect(past.output.hasPrefix("own 0, linked 0, loaded 0, wrong ") && past.status == 0, "\(past.errors)")
        try cache.prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil })
        let partly = try workshop.run([program, loaded], workshop.preloaded())
        #expect(partly.output == "own 4, linked 4, loaded 0, wrong 0\n", "\(partly.errors)")
        #expect(cache.learn([loaded, program, "/none", workshop.directory]).map(\.path).contains(loaded))
        for command in [[program, loaded], ["env", "-u", "DASHFS_PROBE", "env", "DASHFS_PROBE=1", program, loaded]] {
            let outcome = try workshop.run(command, workshop.preloaded())
            #expect(outcome.output == "own 4, linked 4, loaded 4, wrong 0\n", "\(outcome.errors)")
            #expect(outcome.status == 0)
        }
    }

    @Test("Where pages cannot become executable again, too")
    func areAnsweredHardened() throws {
        let workshop = try Workshop()
        let loaded = try library(workshop, "late")
        let program = try workshop.compile("own_calls", ["-O2"])
        let wrapper = try workshop.compile("hardened")
        let cache = try workshop.tables()
        try cache.prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil })
        _ = cache.learn([loaded])
        let outcome = try workshop.run([wrapper, program, loaded], workshop.preloaded())
        #expect(outcome.status == 0 && outcome.output == "own 4, linked -1, loaded 4, wrong 0\n" || outcome.status == 77, "\(outcome.output)\(outcome.errors)")
    }

    /// A table says what the code was; code that is not that is left alone.
    @Test("An object that is not what its table says runs unchanged")
    func otherCodeIsLeftAlone() throws {
        let workshop = try Workshop()
        // Two programs with the same build id, and a table of one of them.
        let identity = "-Wl,--build-id=0x\(String(repeating: "5a", count: 20))"
        let cache = try workshop.tables()
        let program = try workshop.compile("own_calls", ["-O2", identity])
        try cache.prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil })
        #expect(try workshop.run([program], workshop.preloaded()).output.hasPrefix("own 4"))
        let other = try workshop.compile("own_calls", ["-O0", identity])
        let outcome = try workshop.run([other], workshop.preloaded())
        #expect(outcome.output.hasPrefix("own 0") && outcome.status == 0, "\(outcome.output)\(outcome.errors)")
    }

    @Test("From every instruction of a far slot, and behind the hop to it, the stack unwinds to main")
    func unwinds() throws {
        let workshop = try Workshop()
        let program = try workshop.compile("unwinding", ["-DOWN"])
        try workshop.tables().prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil })
        let outcome = try workshop.run([program], workshop.preloaded())
        #expect(outcome.status == 0 && outcome.output.hasSuffix("lost 0\n"), "\(outcome.output)\(outcome.errors)")
    }
}
