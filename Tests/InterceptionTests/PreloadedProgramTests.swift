// Programs under the preloaded library. With the probe on, every file-related call enters the hook, which overwrites all
// registers it may overwrite.

import Foundation
import Interception
import Testing

@Suite struct PreloadedProgramTests {
    private func check(_ program: String, _ options: [String] = [], expecting text: String) throws {
        let workshop = try Workshop()
        let path = try workshop.compile(program, options)
        let outcome = try workshop.run([path], workshop.preloaded())
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.errors)")
        #expect(outcome.output == text)
    }

    @Test("Registers, vector state, red zone, rounding modes are kept, whoever answers")
    func keepsRegisters() throws { try check("registers", expecting: "0 failures\n") }

    @Test("The check for registers finds the bug that the probe can plant")
    func findsPlantedBug() throws {
        let workshop = try Workshop()
        let program = try workshop.compile("registers")
        let outcome = try workshop.run([program], workshop.preloaded().merging(["DASHFS_PROBE": "wrong"]) { $1 })
        #expect(outcome.status == 1)
        #expect(outcome.output.contains("register 2 is changed"))
    }

    @Test("From every instruction of slot, stub and hook the stack unwinds to main")
    func unwinds() throws { try check("unwinding", expecting: "results 0 0 -1 1, steps in the library many, lost 0\n") }

    @Test("Signals arrive anywhere, on a small alternate stack, and may leave by siglongjmp")
    func survivesSignals() throws { try check("signals", expecting: "wrong 0, jumps some\n") }

    @Test("Cancelled threads run their clean-up handlers", arguments: [[], ["-fexceptions"]])
    func cancels(_ options: [String]) throws {
        try check("cancellation", options, expecting: "cancelled 300, cleaned up 300, of 300\n")
    }

    @Test("vfork, fork, posix_spawn, system and popen work, with redirections")
    func startsProcesses() throws { try check("processes", expecting: "0 failures\n") }

    @Test("Further copies of the C library are rewritten when they are loaded")
    func carriesNamespaces() throws { try check("namespaces", expecting: "answered 30 of 30\n") }

    @Test("Bad pointers end in EFAULT, and fresh stack, last bytes of pages and other good ones do not")
    func checksPointers() throws { try check("pointers", expecting: "0 failures\n") }

    @Test("Threads started before main, by another library, and after it")
    func carriesThreads() throws {
        let workshop = try Workshop()
        _ = try workshop.output([
            "gcc", "-O1", "-shared", "-fPIC", "-pthread", "\(Workshop.programs)/early.c", "-o", "\(workshop.directory)/libearly.so",
        ])
        let program = try workshop.compile("threads", ["-L\(workshop.directory)", "-learly", "-Wl,-rpath,\(workshop.directory)"])
        let outcome = try workshop.run([program], workshop.preloaded())
        #expect(outcome.output == "wrong 0 before, 0 after\n", "\(outcome.errors)")
        #expect(outcome.status == 0)
    }

    @Test("Where pages cannot become executable again it writes through /proc/self/mem")
    func worksHardened() throws {
        let workshop = try Workshop()
        let wrapper = try workshop.compile("hardened")
        let program = try workshop.compile("registers")
        let outcome = try workshop.run([wrapper, program], workshop.preloaded())
        #expect(outcome.status == 0 && outcome.output == "0 failures\n" || outcome.status == 77)
    }

    /// Started as with libraries on the volume: two instances of the library, of which the first has ended.
    @Test(
        "What is true of a program is true of one that had an auditor",
        arguments: [
            ("registers", "0 failures\n"), ("unwinding", "results 0 0 -1 1, steps in the library many, lost 0\n"),
            ("cancellation", "cancelled 300, cleaned up 300, of 300\n"), ("signals", "wrong 0, jumps some\n"), ("processes", "0 failures\n"),
        ])
    func followsAuditor(_ program: String, _ text: String) throws {
        let workshop = try Workshop()
        let path = try workshop.compile(program)
        let variables = try workshop.preloaded().merging(["DASHFS_SOCKET": "/nowhere"]) { $1 }
        let outcome = try workshop.run(["env", "LD_AUDIT=\(Workshop.library)", path], variables)
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.errors)")
        #expect(outcome.output == text)
    }

    @Test("Neither the auditor's variable nor a descriptor of it is left, and a program's own auditors stay", arguments: [false, true])
    func hidesAuditor(_ hasOther: Bool) throws {
        let workshop = try Workshop()
        let source = try workshop.write(Array("unsigned la_version(unsigned version) { return version; }".utf8), to: "other.c")
        let other = "\(workshop.directory)/other.so"
        _ = try workshop.output(["gcc", "-shared", "-fPIC", source, "-o", other])
        let variables = try workshop.preloaded(probe: false).merging(["DASHFS_SOCKET": "/nowhere"]) { $1 }
        // Without what tests beside this one have open while it starts.
        let script = "for n in /proc/self/fd/*; do n=${n##*/}; [ $n -lt 3 ] || eval \"exec $n>&-\"; done; exec \"$@\""
        func see(_ auditors: [String]) throws -> Workshop.Outcome {
            try workshop.run(["bash", "-c", script, "bash", "env"] + auditors + ["bash", "-c", "env; ls /proc/self/fd"], variables)
        }
        let before = try see([])
        let after = try see(["LD_AUDIT=\(Workshop.library)\(hasOther ? ":" + other : "")"])
        #expect(before.status == 0 && after.status == 0, "\(after.errors)")
        func lines(_ outcome: Workshop.Outcome) -> [Substring] {
            outcome.output.split(separator: "\n").filter { !$0.hasPrefix("DASHFS_EARLY=") && !$0.hasPrefix("_=") }.sorted()
        }
        #expect(lines(after) == (lines(before) + (hasOther ? ["LD_AUDIT=\(other)"] : [])).sorted())
    }

    @Test("As an auditor it refuses what it refuses else: a damaged table, another C library")
    func refusesAsAuditor() throws {
        let workshop = try Workshop()
        let variables = try workshop.preloaded(probe: false).merging(["LD_AUDIT": Workshop.library]) { $1 }
        let loader = try workshop.systemTables()[1]
        try Data([1, 2, 3]).write(to: URL(fileURLWithPath: loader))
        try expectRefusal(variables, "is damaged", workshop)
        try FileManager.default.removeItem(atPath: loader)
        try expectRefusal(variables, "is not among those", workshop)
    }

    @Test("Without the probe nothing changes for ordinary programs", arguments: [false, true])
    func carriesPrograms(_ probe: Bool) throws {
        let workshop = try Workshop()
        let script = """
            set -e; export LC_ALL=C; mkdir tree; for i in 1 2 3; do echo $i > tree/$i; done
            ls tree | sort -r; cat tree/* | wc -l; tar cf - tree | tar tf - | sort; cp -a tree copy; diff -r tree copy
            find copy -type f | sort | xargs sha256sum; sed -i s/1/one/ copy/1; cat < copy/1; (cd copy; pwd | sed 's/.*\\///')
            perl -e 'open my $f, "<", "copy/2"; print <$f>'
            """
        let plain = try workshop.run(["bash", "-c", script])
        try workshop.run(["rm", "-r", "tree", "copy"])
        let preloaded = try workshop.run(["bash", "-c", script], workshop.preloaded(probe: probe))
        #expect(plain.status == 0 && preloaded.status == 0, "\(preloaded.errors)")
        #expect(preloaded.output == plain.output)
        #expect(preloaded.errors == plain.errors)
    }

    @Test("What it costs (printed, not judged)")
    func costs() throws {
        let workshop = try Workshop()
        let startup = try workshop.compile("startup")
        let started = try workshop.run([startup, Workshop.library, workshop.tables().directory, "100"])
        #expect(started.status == 0)
        print(started.output)
        let calls = try workshop.compile("calls")
        for (name, variables) in [
            ("without", [:]), ("with", try workshop.preloaded(probe: false)), ("probed", try workshop.preloaded()),
        ] {
            let outcome = try workshop.run([calls], variables)
            #expect(outcome.status == 0)
            print("\(name)\n\(outcome.output)")
        }
    }

    // MARK: Refusals: loud, before the program runs

    private func expectRefusal(_ variables: [String: String], _ reason: String, _ workshop: Workshop) throws {
        let refused = try workshop.run(["echo", "ran"], variables)
        // env(1), which starts the command, is refused already.
        #expect(refused.status == 126)
        #expect(refused.output == "")
        #expect(refused.errors.hasPrefix("dashfs: ") && refused.errors.contains(reason), "\(refused.errors)")
        #expect(refused.errors.filter { $0 == "\n" }.count == 1)
        let unpatched = try workshop.run(["echo", "ran"], variables.merging(["DASHFS_UNPATCHED": "1"]) { $1 })
        #expect(unpatched.status == 0 && unpatched.output == "ran\n")
    }

    @Test("No table")
    func refusesWithoutTable() throws {
        let workshop = try Workshop()
        try expectRefusal(["LD_PRELOAD": Workshop.library], "DASHFS_SITES is not set", workshop)
        try expectRefusal(["LD_PRELOAD": Workshop.library, "DASHFS_SITES": "/absent", "DASHFS_INTERCEPT": "rewrite"], "cannot read", workshop)
    }

    @Test("A damaged table, whatever byte is changed or wherever it is cut", arguments: [0, 1])
    func refusesDamage(_ which: Int) throws {
        let workshop = try Workshop()
        let table = try workshop.systemTables()[which]
        let good = Array(try Data(contentsOf: URL(fileURLWithPath: table)))
        let variables = try workshop.preloaded(probe: false)
        for position in [0, 8, 13, 16, 20, 24, 40, 64, 130, 135, good.count - 1] {
            var bad = good
            bad[position] ^= 0x40
            try Data(bad).write(to: URL(fileURLWithPath: table))
            try expectRefusal(variables, "is damaged", workshop)
        }
        for count in [1, 32, 100, good.count - 1] {
            try Data(good[..<count]).write(to: URL(fileURLWithPath: table))
            try expectRefusal(variables, "is damaged", workshop)
        }
    }

    @Test("No table of this C library")
    func refusesOtherLibrary() throws {
        for which in 0...1 {
            let workshop = try Workshop()
            let variables = try workshop.preloaded(probe: false)
            try FileManager.default.removeItem(atPath: workshop.systemTables()[which])
            try expectRefusal(variables, "is not among those", workshop)
        }
    }

    @Test("Threads that are running when it is loaded")
    func refusesLateLoading() throws {
        let workshop = try Workshop()
        let program = try workshop.compile("late")
        let outcome = try workshop.run([program, Workshop.library], ["DASHFS_SITES": try workshop.tables().directory])
        #expect(outcome.status == 126)
        #expect(outcome.errors.contains("threads are running already"))
    }
}
