// DashFS as unmodified programs see it, through `dashfs run`: beside the kernel call by call, family by family, and the whole demonstration.
import Foundation
import Testing

@Suite("Unmodified programs on DashFS", .serialized)
struct DashFSTests {
    /// What `make test` compares: a million operations, half of them by processes that come and go, most beside tmpfs, some beside ext4, which can do what tmpfs cannot. Where
    /// files are mapped, their times are not told: in the last of the streams of processes they are not mapped, and they are.
    static let streams: [(String, [String], Int)] = {
        let all: [(String, [String], Int)] = [
            ("tmpfs", ["--mixed"], 200_000), ("tmpfs", ["--as-user", "1000"], 100_000), ("tmpfs", [], 100_000), ("ext4", ["--mixed"], 50_000),
            ("tmpfs", ["--processes", "--mixed"], 250_000), ("tmpfs", ["--processes", "--as-user", "1000"], 100_000), ("tmpfs", ["--processes"], 100_000),
            ("ext4", ["--processes", "--mixed"], 50_000), ("tmpfs", ["--processes", "--mixed", "--without", "maps"], 50_000),
        ]
        let hasExt4 = kind(of: NSTemporaryDirectory()).hasPrefix("ext")
        return all.compactMap { other, who, count in
            if other == "ext4" && !hasExt4 { return nil }
            // Only root can act as others.
            return isRoot ? (other, who, count) : who.contains("--as-user") ? nil : (other, who.filter { $0 != "--mixed" }, count)
        }
    }()

    @Test("DashFS and the kernel's file systems print the same lines", arguments: streams)
    func oracle(_ other: String, _ who: [String], _ count: Int) throws {
        try withScratch(inMemory: other == "tmpfs") { kernel in
            try withScratch { here in
                let oracle = try here.oracle()
                // Paths of a fixed length are filled up by pairs of bytes: both directories' names are odd in length.
                let left = kernel.path + (kernel.path.utf8.count % 2 == 0 ? "/xx" : "/one")
                try FileManager.default.createDirectory(atPath: left, withIntermediateDirectories: true)
                let image = here.path + "/volume.img"
                let outcome = try run(
                    programs.appendingPathComponent("oracle/compare.py").path,
                    [
                        "--oracle", oracle, "--left", "\(other):\(left)", "--right", "dashfs:/dash",
                        // A volume made anew for each stream, served to all three users, and checked after it.
                        "--right-setup", "true",
                        "--right-prefix", "env DASHFS=\(dashfs.path) \(programs.path)/on-dashfs \(image)",
                        "--count", "\(count * factor)", "--per-seed", "10000",
                    ] + who)
                print(outcome.output.split(separator: "\n").last.map { String($0) } ?? "")
                #expect(outcome.status == 0, "\(outcome.output)")
            }
        }
    }

    @Test("What exec hands on and what locks go with is as on the kernel's file systems")
    func handedOn() throws {
        try withScratch(inMemory: true) { here in
            let program = try here.compile("handed_on", ["handed_on.c"])
            let kernel = try run(program, [try here.directory("kernel")])
            #expect(kernel.status == 0, "\(kernel.output)")
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "64M"]).status == 0)
            let outcome = try run(dashfs.path, ["run", "--image", image, "--", program, "/dash"])
            #expect(outcome.status == 0 && outcome.output == kernel.output, "\(outcome.output)")
            #expect(try run(dashfs.path, ["check", image]).status == 0)
        }
    }

    @Test("Every program family passes, and prints what it prints on the kernel's file system, however its calls are caught", arguments: ["rewrite", "dispatch"])
    func families(_ intercept: String) throws {
        try withScratch { here in
            let image = here.path + "/volume.img"
            let outcome = try run(
                programs.appendingPathComponent("run-families").path,
                ["/dash", "--setup", "\(dashfs.path) format \(image) --size 1G", "--", dashfs.path, "run", "--intercept", intercept, "--image", image, "--"])
            #expect(outcome.status == 0, "\(outcome.output)")
            #expect(try run(dashfs.path, ["check", image]).status == 0)
        }
    }

    /// Debian 13's, as `ld.so --library-path DIR program`; the shell around it runs on this machine's.
    @Test("Families pass on another C library, too, and a wait for a lock can be cancelled on both")
    func otherLibrary() throws {
        try withScratch { here in
            let fetched = try run(
                repository.appendingPathComponent("Tests/InterceptionTests/debian-library").path, ["trixie", "libc6", repository.appendingPathComponent(".build/debian").path])
            let directory = fetched.output.trimmingCharacters(in: .whitespacesAndNewlines)
            try #require(fetched.status == 0, "\(fetched.output)")
            let loader = ["\(directory)/ld-linux-x86-64.so.2", "--library-path", "\(directory):/lib/x86_64-linux-gnu"]
            let python = here.path + "/python"
            try "#!/bin/sh\nexec \(loader.joined(separator: " ")) /usr/bin/python3 \"$@\"\n".write(toFile: python, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: python)
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "1G"]).status == 0)
            let cancelled = try here.compile("cancelled_lock", ["cancelled_lock.c"], ["-pthread"])
            for command in [[cancelled], loader + [cancelled]] {
                let outcome = try run(dashfs.path, ["run", "--image", image, "--"] + command + ["/dash/lock"])
                #expect(outcome.status == 0, "\(command): \(outcome.output)")
            }
            // What is started by a script has to be known beforehand.
            #expect(try run(dashfs.path, ["run", "--image", image, "--"] + loader + ["/usr/bin/python3", "-c", "pass"]).status == 0)
            let outcome = try run(
                programs.appendingPathComponent("run-families").path,
                ["/dash", "--only", "surface,locks,python", "--setup", "\(dashfs.path) format --force \(image) --size 1G", "--", dashfs.path, "run", "--image", image, "--"],
                environment: ["PYTHON": python])
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }

    @Test("A program that confines itself by seccomp goes on; one that could never open a file does not get at the volume either", arguments: [("strict", 0), ("late", 0), ("errno", 1)])
    func filtered(_ mode: String, _ status: Int32) throws {
        try withScratch { here in
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "64M"]).status == 0)
            let program = try here.compile("filtered", ["filtered.c"], ["-pthread"])
            let outcome = try run(dashfs.path, ["run", "--image", image, "--", program, mode, "/dash"])
            #expect(outcome.status == status, "\(outcome.output)")
            if status == 0 { #expect(outcome.output == "0 failures\n") } else { #expect(outcome.output.contains("dashfs: /dash is not available"), "\(outcome.output)") }
        }
    }

    @Test("What is not there yet is refused with the documented errno, and never done to another file")
    func limits() throws {
        try withScratch { here in
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "64M"]).status == 0)
            let limits = programs.appendingPathComponent("limits.py").path
            let outcome = try run(dashfs.path, ["run", "--image", image, "--", "python3", limits, "/dash"])
            #expect(outcome.status == 0, "\(outcome.output)")
            #expect(try run(dashfs.path, ["check", image]).status == 0)
        }
    }

    @Test("Sockets and pipes of the volume are reached as their nodes' permissions say", .enabled(if: isRoot))
    func socketUsers() throws {
        try withScratch { here in
            let users = programs.appendingPathComponent("socket_users.py").path
            let outcome = try run("env", ["SIZE=64M", "DASHFS=\(dashfs.path)", "\(programs.path)/on-dashfs", here.path + "/volume.img", "python3", users, "/dash"])
            #expect(outcome.status == 0 && outcome.output.contains("PASS socket_users"), "\(outcome.output)")
            #expect(try run("python3", [users, here.path]).output.contains("PASS socket_users"), "as the kernel's file systems have it")
        }
    }

    @Test("What must hold after any interleaving of processes holds, and the volume is clean after it")
    func storm() throws {
        try withScratch { here in
            let storm = try here.compile("storm", ["storm.c"])
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "256M"]).status == 0)
            let outcome = try run(dashfs.path, ["run", "--image", image, "--", storm, "/dash", "4", "\(400 * factor)"])
            #expect(outcome.status == 0, "\(outcome.output)")
            let check = try run(dashfs.path, ["check", image])
            #expect(check.status == 0, "\(check.output)")
        }
    }

    @Test("Hundreds of threads, signals in their midst, and threads that end in the middle of a call leave nothing behind", arguments: [("rewrite", 1500), ("dispatch", 400)])
    func threads(_ intercept: String, _ rounds: Int) throws {
        try withScratch { here in
            let threads = try here.compile("threads", ["threads.c"])
            let beside = try run(threads, [try here.directory("kernel"), "256", "400"])
            #expect(beside.status == 0, "\(beside.output)")
            let image = here.path + "/volume.img"
            #expect(try run(dashfs.path, ["format", image, "--size", "256M"]).status == 0)
            let outcome = try run(dashfs.path, ["run", "--intercept", intercept, "--image", image, "--", threads, "/dash", "256", "\(rounds * factor)"])
            #expect(outcome.status == 0 && outcome.output.contains("PASS threads"), "\(outcome.output)")
            let check = try run(dashfs.path, ["check", image])
            #expect(check.status == 0, "\(check.output)")
        }
    }

    @Test("A server that returns is found again, and one that does not is an I/O error after the timeout")
    func returning() throws {
        try withScratch { here in
            let outcome = try run(programs.appendingPathComponent("server-returns").path, [dashfs.path, here.path])
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }

    @Test("The demonstration runs to its end")
    func demonstration() throws {
        let outcome = try run(repository.appendingPathComponent("scripts/demo").path, ["--quick"], environment: ["DASHFS": dashfs.path])
        #expect(outcome.status == 0, "\(outcome.output)")
    }
}
