// What `dashfs run` and `dashfs explain` say of a program's calls: how many were answered by whom, and what goes past. The calls themselves are compared with the kernel's by
// families/surface.sh.
import Foundation
import Testing

@Suite("What goes past") struct SurfaceTests {
    private func explain(_ program: String, environment: [String: String] = [:]) throws -> Outcome {
        try run(dashfs.path, ["explain", program], environment: environment)
    }

    private func compile(_ scratch: Scratch, _ name: String, _ source: String, _ flags: [String] = []) throws -> String {
        let file = scratch.path + "/\(name).c"
        try source.write(toFile: file, atomically: true, encoding: .utf8)
        let outcome = try run("cc", ["-o", scratch.path + "/" + name, file] + flags)
        try #require(outcome.status == 0, "\(outcome.output)")
        return scratch.path + "/" + name
    }

    private let plain = "int main(void) { return 0; }\n"
    /// A function with a system call of its own.
    private func caller(_ number: Int) -> String {
        "long own(void) { long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(\(number)L), \"D\"(0L) : \"rcx\", \"r11\", \"memory\"); return r; }\n"
    }

    @Test func ordinaryProgramsAreCarried() throws {
        try withScratch { scratch in
            for flags in [[], ["-no-pie"]] {
                let outcome = try explain(compile(scratch, "plain", plain, flags))
                #expect(outcome.status == 0 && outcome.output.contains("all is carried"), "\(outcome.output)")
                #expect(outcome.output.contains("libc.so.6") && outcome.output.contains("ld-linux"))
            }
            #expect(try explain("sh").status == 0)
        }
    }

    @Test func staticProgramsGoPast() throws {
        try withScratch { scratch in
            for flags in [["-static"], ["-static-pie"]] {
                let outcome = try explain(compile(scratch, "alone", plain, flags))
                #expect(outcome.status == 1 && outcome.output.contains("static"), "\(outcome.output)")
            }
        }
    }

    @Test func callsOfALibrarysOwnAreCarriedWhereTheyCanBeRewritten() throws {
        try withScratch { scratch in
            // write(2), getpid(2), a number that nobody can tell; and one between a jump and its target, where there is no room.
            let unknown = "long own(long n) { long r; __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n) : \"rcx\", \"r11\", \"memory\"); return r; }\n"
            let narrow = "long own(void); __asm__(\".text\\n.globl own\\n.type own,@function\\nown: mov $1,%eax\\ntest %rdi,%rdi\\nje 1f\\nnop\\n1: syscall\\nret\\n.size own,.-own\\n\");\n"
            let cases = [
                ("one", caller(1), false, "1 system calls of its own, carried"), ("two", caller(39), false, "not about files|no system calls of its own"),
                ("three", unknown, false, "1 system calls of its own, carried"), ("four", narrow, true, "write at own+0xb"),
            ]
            for (name, source, isPast, text) in cases {
                _ = try compile(scratch, "lib\(name).so", source, ["-shared", "-fPIC", "-O1"])
                let program = try compile(
                    scratch, name, "long own(); int main(void) { return own() < 0; }\n", ["-L\(scratch.path)", "-l\(name)", "-Wl,-rpath,$ORIGIN"])
                for command in [["explain"], ["doctor", "--intercept"]] {
                    let outcome = try run(dashfs.path, command + [program])
                    #expect(outcome.status == (isPast ? 1 : 0), "\(outcome.output)")
                    let line = outcome.output.split(separator: "\n").first { $0.contains("lib\(name).so") }
                    #expect(line != nil, "\(outcome.output)")
                    guard command == ["explain"], let line else { continue }
                    #expect(line.hasPrefix(isPast ? "past" : "carried") && text.split(separator: "|").contains { line.contains($0) }, "\(line)")
                }
            }
        }
    }

    @Test func everySiteIsListed() throws {
        let system = try run(dashfs.path, ["doctor", "--intercept"])
        #expect(system.status == 0 && system.output.contains("/libc.so.6") && system.output.contains(", 0 go past."), "\(system.output.suffix(200))")
        try withScratch { scratch in
            let program = try compile(scratch, "program", caller(0) + "int main(void) { return own() < 0; }\n", ["-O1", "-rdynamic", "-fno-inline"])
            let own = try run(dashfs.path, ["doctor", "--intercept", program])
            #expect(own.status == 0 && own.output.contains(" own+0x") && own.output.contains(": read: rewritten, "), "\(own.output.prefix(400))")
            // All of the C library's lines, and the program's.
            #expect(own.output.split(separator: "\n").count > system.output.split(separator: "\n").count)
            let alone = try run(dashfs.path, ["doctor", "--intercept", compile(scratch, "alone", plain, ["-static"])])
            #expect(alone.status == 1 && alone.output.contains("static") && alone.output.contains(", 1 go past."), "\(alone.output)")
            #expect(try run(dashfs.path, ["doctor", "--intercept", "no-such-program"]).status == 66)
            #expect(try run(dashfs.path, ["doctor", "ls"]).status == 64)
        }
    }

    /// Hand-written code has tables between its functions that no decoder reads.
    @Test func tablesBetweenFunctionsHideNoCall() throws {
        try withScratch { scratch in
            let table = "__asm__(\".text\\n.byte 0x06, 0x0e, 0x16, 0x0f, 0x05, 0x1e, 0xd4\\n\");\n"
            let program = try compile(scratch, "tables", table + plain)
            #expect(try explain(program).status == 0, "two bytes in a table are no call")
            let hidden = try explain(compile(scratch, "hidden", table + caller(0) + "int main(void) { return own() < 0; }\n", ["-O1"]))
            #expect(hidden.status == 1 && hidden.output.contains("read"), "\(hidden.output)")
        }
    }

    @Test func scriptsAreTheirInterpreters() throws {
        try withScratch { scratch in
            let alone = try compile(scratch, "alone", plain, ["-static"])
            func script(_ name: String, _ line: String) throws -> String {
                let path = scratch.path + "/" + name
                try (line + "\nexit 0\n").write(toFile: path, atomically: true, encoding: .utf8)
                try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
                return path
            }
            let direct = try explain(script("direct", "#!/bin/sh -e"))
            #expect(direct.status == 0 && direct.output.contains("a script of /bin/sh -e"), "\(direct.output)")
            #expect(try explain(script("static", "#! \(alone)")).status == 1)
            let byName = try explain(script("env", "#!/usr/bin/env alone"), environment: ["PATH": "\(scratch.path):/usr/bin:/bin"])
            #expect(byName.status == 1 && byName.output.contains("static"), "\(byName.output)")
            #expect(try explain(script("loop", "#!\(scratch.path)/loop")).status == 65)
            #expect(try explain(script("nothing", "#!")).status == 65)
        }
    }

    @Test("The loader loads nothing into a program with another identity", .enabled(if: isRoot)) func setuid() throws {
        try withScratch { scratch in
            let program = try compile(scratch, "program", plain)
            #expect(try run("chown", ["1000:0", program]).status == 0 && run("chmod", ["u+s", program]).status == 0)
            let outcome = try explain(program)
            #expect(outcome.status == 1 && outcome.output.contains("setuid"), "\(outcome.output)")
            // Its owner becomes nobody else by it.
            #expect(try run("chown", ["0:0", program]).status == 0 && run("chmod", ["u+s", program]).status == 0)
            #expect(try explain(program).status == 0)
        }
    }

    @Test func whatCannotBeExplainedIsOneLine() throws {
        try withScratch { scratch in
            let junk = scratch.path + "/junk"
            try "neither\n".write(toFile: junk, atomically: true, encoding: .utf8)
            let torn = scratch.path + "/torn"
            let whole = try Data(contentsOf: URL(fileURLWithPath: compile(scratch, "whole", plain)))
            try whole.prefix(5000).write(to: URL(fileURLWithPath: torn))
            for (program, status) in [(junk, 65), (torn, 65), (scratch.path + "/none", 66), ("no-such-program", 66), (scratch.path, 66)] {
                let outcome = try explain(program)
                #expect(outcome.status == Int32(status) && outcome.output.hasPrefix("dashfs: ") && outcome.output.split(separator: "\n").count == 1, "\(outcome.output)")
            }
            let needy = try compile(scratch, "needy", "long own(); int main(void) { return own() < 0; }\n", {
                _ = try compile(scratch, "libgone.so", caller(39), ["-shared", "-fPIC"])
                return ["-L\(scratch.path)", "-lgone"]
            }())
            let outcome = try explain(needy)
            #expect(outcome.status == 1 && outcome.output.contains("libgone.so is not found"), "\(outcome.output)")
        }
    }

    // MARK: run

    private func report(_ scratch: Scratch, _ options: [String], _ command: [String]) throws -> (outcome: Outcome, counts: [String: (ours: Int, kernels: Int)]) {
        let image = scratch.path + "/disk.img"
        #expect(try run(dashfs.path, ["format", "--force", image, "--size", "64M"]).status == 0)
        let outcome = try run(dashfs.path, ["run", "--image", image] + options + ["--"] + command)
        var counts: [String: (ours: Int, kernels: Int)] = [:]
        for line in outcome.output.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 5, words[2] == "DashFS", words[4] == "kernel", let ours = Int(words[1]), let kernels = Int(words[3]) { counts[String(words[0])] = (ours, kernels) }
        }
        return (outcome, counts)
    }

    @Test func aReportCountsWhoAnsweredWhat() throws {
        try withScratch { scratch in
            let program = try compile(scratch, "program", """
                #include <fcntl.h>
                #include <stdlib.h>
                #include <sys/stat.h>
                #include <sys/wait.h>
                #include <unistd.h>
                int main(int count, char **names) {
                    int ours = open("/dash/file", O_RDWR | O_CREAT, 0644), null = open("/dev/null", O_WRONLY);
                    for (int i = 0; i < 100; i++) if (pwrite(ours, "x", 1, i) != 1) return 1;
                    for (int i = 0; i < 70; i++) if (pwrite(null, "x", 1, i) != 1) return 1;
                    for (int i = 0; i < 30; i++) mkdir("/dash/none/none", 0777);
                    umask(022); chdir("/"); chdir("/dash");
                    // A child without the library, one with it, and execs that fail.
                    for (int i = 1; i < count; i++) { if (fork() == 0) { execl("/none/none", "none", (char *)0); execl(names[i], names[i], (char *)0); _exit(9); } int s; wait(&s); if (s) return 2; }
                    return 7;
                }

                """)
            let alone = try compile(scratch, "alone", plain, ["-static"])
            let (outcome, counts) = try report(scratch, ["--report"], [program, "/bin/true", alone])
            #expect(outcome.status == 7, "\(outcome.output)")
            #expect(counts["pwrite64"].map { $0 == (100, 70) } ?? false, "\(outcome.output)")
            #expect(counts["mkdir"]?.ours == 30 && counts["umask"].map { $0 == (0, 1) } ?? false, "\(outcome.output)")
            #expect(counts["chdir"].map { $0 == (1, 1) } ?? false, "\(outcome.output)")
            #expect(outcome.output.contains("in 2 programs") && outcome.output.contains("past DashFS: 1 programs"), "\(outcome.output)")
            let without = try report(scratch, [], [program])
            #expect(without.outcome.status == 7 && without.outcome.output.isEmpty, "\(without.outcome.output)")
        }
    }

    @Test func aCommandWithoutTheLibraryIsReported() throws {
        try withScratch { scratch in
            let alone = try compile(scratch, "alone", plain, ["-static"])
            let (outcome, _) = try report(scratch, ["--report"], [alone])
            #expect(outcome.status == 0 && outcome.output.contains("past DashFS: 1 programs"), "\(outcome.output)")
        }
    }

    /// Loaded from a place that nobody knows beforehand.
    @Test func aLibraryThatWasMetIsCarriedFromThenOn() throws {
        try withScratch { scratch in
            let source = """
                long own(void) {
                    long r;
                    __asm__ volatile("syscall" : "=a"(r) : "a"(83L), "D"("/dash/made"), "S"(0777L) : "rcx", "r11", "memory");
                    return r;
                }

                """
            let library = try compile(scratch, "plugin.so", source, ["-shared", "-fPIC", "-O1"])
            let program = try compile(scratch, "program", """
                #include <dlfcn.h>
                int main(int count, char **names) { long (*own)(void) = (long (*)(void))dlsym(dlopen(names[1], RTLD_NOW), "own"); return -own(); }

                """)
            let cache = ["XDG_CACHE_HOME": try scratch.directory("cache")]
            let image = scratch.path + "/disk.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "64M"]).status == 0)
            func attempt(_ options: [String]) throws -> Outcome {
                try run(dashfs.path, ["run", "--image", image] + options + ["--", program, library], environment: cache)
            }
            // ENOENT: there is no /dash for the kernel.
            #expect(try attempt([]).status == 2)
            let met = try attempt(["--report"])
            #expect(met.status == 2 && met.output.contains("past DashFS: system calls that \(library) makes by itself; from the next run on"), "\(met.output)")
            let carried = try attempt(["--report"])
            #expect(carried.status == 0 && !carried.output.contains(library), "\(carried.output)")
        }
    }

    @Test func ringsCanBeRefused() throws {
        try withScratch { scratch in
            // io_uring_setup(2) without its argument: EFAULT where it is the kernel's.
            let program = try compile(scratch, "rings", """
                #define _GNU_SOURCE
                #include <errno.h>
                #include <unistd.h>
                int main(void) { syscall(425, 8, 0); return errno == ENOSYS ? 38 : 1; }

                """)
            let (refused, _) = try report(scratch, ["--no-io-uring"], [program])
            #expect(refused.status == 38)
            // liburing makes its calls by itself.
            let own = try compile(scratch, "own", "#include <liburing.h>\nint main(void) { struct io_uring r; return -io_uring_queue_init(8, &r, 0); }\n", ["-luring"])
            #expect(try report(scratch, ["--no-io-uring"], [own]).outcome.status == 38)
            let (allowed, counts) = try report(scratch, ["--report"], [program])
            #expect(allowed.status != 38 && counts["io_uring_setup"]?.kernels == 1 && allowed.output.contains("rings"), "\(allowed.output)")
        }
    }
}
