// `dashfs serve` as a process: what it gives up, whom it serves, what stays of dead clients, and how a command that fails says so.
import Foundation
import Testing

@Suite(.serialized) struct ServeTests {
    /// A server that has said that it serves.
    private final class Serving {
        let process = Process()
        let socket: String
        let log: Pipe

        init(_ scratch: Scratch, _ device: String, _ options: String...) throws {
            socket = scratch.path + "/socket-\(UUID().uuidString.prefix(6))"
            let output = Pipe()
            log = Pipe()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["--default-signal", dashfs.path, "serve", device, "--cache", "16M", "--socket", socket] + options
            process.standardOutput = output
            process.standardError = log
            try process.run()
            let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            #expect(line.contains("serving"), "\(String(decoding: log.fileHandleForReading.availableData, as: UTF8.self))")
        }

        /// "CapEff" and the like of /proc/PID/status.
        func status(_ name: String) throws -> [String] {
            let text = try String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)
            let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") } ?? ""
            return line.split(whereSeparator: { $0 == "\t" || $0 == " " }).dropFirst().map(String.init)
        }

        var descriptors: Int { ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process.processIdentifier)/fd")) ?? []).count }

        var threads: [String] {
            let tasks = "/proc/\(process.processIdentifier)/task"
            return ((try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []).compactMap { try? String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8) }
        }

        /// Ends it in order; what it has logged.
        func end() -> String {
            process.terminate()
            let text = String(decoding: log.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0 && process.terminationReason == .exit, "\(text)")
            return text
        }
    }

    private func dash(_ arguments: String..., environment: [String: String] = [:]) throws -> Outcome {
        try run(dashfs.path, arguments, environment: environment)
    }

    @Test(arguments: ["image", "memory", "buffered", "never", "always", "submission thread"])
    func aServingProcessHasGivenUpWhatItDoesNotNeed(_ kind: String) throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            let serving =
                switch kind {
                case "memory": try Serving(scratch, "memory:64M")
                case "buffered": try Serving(scratch, image, "--buffered")
                case "submission thread": try Serving(scratch, image, "--submission-thread", "50")
                case "image": try Serving(scratch, image, "--verbose")
                default: try Serving(scratch, image, "--wait", kind)
                }
            // Every kind of work that a confined server does: sessions and channels that come and go, reads that miss, write-back, syncs, discards, the log.
            let work = "cp -r /usr/include/asm-generic /dash/d && sync /dash/d && diff -r /usr/include/asm-generic /dash/d && rm -r /dash/d && dd if=/dev/zero of=/dash/z bs=1M count=30 conv=fsync && cat /dash/z | wc -c && fallocate -p -o 0 -l 20M /dash/z && rm /dash/z"
            let outcome = try dash("run", "--socket", serving.socket, "--", "sh", "-c", work)
            #expect(outcome.status == 0, "\(outcome.output)")
            #expect(try serving.status("Seccomp") == ["2"])
            #expect(try serving.status("NoNewPrivs") == ["1"])
            #expect(try serving.status("CapEff") == ["0000000000000000"])
            #expect(try serving.status("CapPrm") == ["0000000000000000"])
            // So Linux names the thread of SQPOLL.
            #expect(serving.threads.contains { $0.hasPrefix("iou-sqp-") } == (kind == "submission thread"))
            _ = serving.end()
            #expect(!FileManager.default.fileExists(atPath: serving.socket))
            if kind != "memory" { #expect(try dash("check", image).status == 0) }
        }
    }

    @Test func aServerBecomesTheUserItIsTold() throws {
        try #require(geteuid() == 0)
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            let serving = try Serving(scratch, image, "--user", "nobody")
            let outcome = try dash("run", "--socket", serving.socket, "--", "sh", "-c", "echo kept > /dash/file && sync && cat /dash/file")
            #expect(outcome.status == 0 && outcome.output == "kept\n", "\(outcome.output)")
            let users = try serving.status("Uid")
            #expect(users.count == 4 && Set(users).count == 1 && users.first != "0")
            #expect(try serving.status("Groups") == [])
            _ = serving.end()
            // Its socket may have stayed; the next server takes its place.
            let next = try Serving(scratch, image)
            #expect(try dash("run", "--socket", next.socket, "--", "cat", "/dash/file").output == "kept\n")
            _ = next.end()
        }
    }

    @Test func onlyTheAllowedAreServedBySupplementaryGroupsToo() throws {
        try #require(geteuid() == 0)
        try withScratch { scratch in
            unsafe _ = chmod(scratch.path, 0o755)
            let serving = try Serving(scratch, "memory:64M", "--allow-user", "4711", "--allow-group", "4712")
            func attempt(_ who: String...) throws -> Int32 {
                try run("/usr/bin/setpriv", who + ["--", dashfs.path, "stats", "--socket", serving.socket]).status
            }
            #expect(try attempt("--reuid=4711", "--regid=1", "--clear-groups") == 0)
            #expect(try attempt("--reuid=4999", "--regid=4712", "--clear-groups") == 0)
            #expect(try attempt("--reuid=4999", "--regid=1", "--groups=7,4712,9") == 0)
            #expect(try attempt("--reuid=4999", "--regid=1", "--groups=7,9") == 77)
            #expect(try attempt("--reuid=0", "--regid=0", "--clear-groups") == 0)
            let log = serving.end()
            #expect(log.contains("user 4999 is not among the allowed"))
        }
    }

    @Test func descriptorsOfTheServerAreBackAfterManyClients() throws {
        try withScratch { scratch in
            let serving = try Serving(scratch, "memory:64M")
            // The first client brings what stays (nothing is expected to, but for the allocator).
            #expect(try dash("run", "--socket", serving.socket, "--", "true").status == 0)
            let before = serving.descriptors
            for _ in 0..<20 { #expect(try dash("run", "--socket", serving.socket, "--", "sh", "-c", "exec 5>/dash/f; kill -9 $$").status == 9) }
            // Awaited: a death reaches the server when the kernel says so.
            while serving.descriptors > before {}
            #expect(serving.descriptors == before)
            _ = serving.end()
        }
    }

    /// Each is one line on standard error that begins with the program's name, with a status of sysexits(3).
    @Test func everyFailureIsOneLineWithItsStatus() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img", junk = scratch.path + "/junk", small = scratch.path + "/small"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            try Data(repeating: 0x5A, count: 8 << 20).write(to: URL(fileURLWithPath: junk))
            try Data(count: 65536).write(to: URL(fileURLWithPath: small))
            let serving = try Serving(scratch, image)
            let other = scratch.path + "/other"
            let long = scratch.path + "/" + String(repeating: "x", count: 120)
            let cases: [([String], Int32, String)] = [
                (["format", "/dev/null"], 65, "neither a file nor a block device"),
                (["format", "/tmp"], 65, "is a directory"),
                (["format", small], 73, "too small"),
                (["format", scratch.path + "/none"], 66, "--size"),
                (["format", image, "--size", "64M"], 69, "is using it"),
                (["format", image, "--force"], 69, "is using it"),
                (["format", other, "--size", "-1"], 64, "--size"),
                (["format", other, "--size", "99999T"], 65, "smaller size"),
                (["format", other, "--bogus"], 64, "--bogus"),
                (["format"], 64, "device"),
                (["serve", "/dev/null", "--socket", other], 65, "neither a file nor a block device"),
                (["serve", "/tmp", "--socket", other], 65, "is a directory"),
                (["serve", junk, "--socket", other], 65, "dashfs format"),
                (["serve", image, "--socket", other], 69, "is using it"),
                (["serve", "memory:64M", "--socket", serving.socket], 69, "in use"),
                (["serve", "memory:64K", "--socket", other], 73, "too small"),
                (["serve", "memory:64M", "--socket", long], 64, "107 bytes"),
                (["serve", "memory:64M", "--socket", "/nonexistent/s"], 66, "no such directory"),
                (["serve", "memory:64M", "--cache", "999T", "--socket", other], 64, "of memory"),
                (["serve", "memory:64M", "--user", "nosuchuser", "--socket", other], 64, "nosuchuser"),
                (["serve", "memory:64M", "--allow-group", "nosuchgroup", "--socket", other], 64, "nosuchgroup"),
                (["serve", "memory:64M", "--submission-thread", "0", "--socket", other], 64, "milliseconds"),
                (["serve", "memory:64M", "--wait", "maybe", "--socket", other], 64, "adaptive"),
                (["info", junk], 65, "dashfs format"),
                (["info", "/tmp"], 65, "is a directory"),
                (["info", image], 69, "is using it"),
                (["check", junk], 2, "dashfs format"),
                (["check", image], 2, "is using it"),
                (["stats", "--socket", other], 69, "dashfs serve"),
                (["stats", "--socket", junk], 69, "dashfs serve"),
                (["run", "--socket", other, "--", "true"], 69, "dashfs serve"),
                (["run"], 64, "after --"),
                (["frobnicate"], 64, "frobnicate"),
            ]
            for (arguments, status, says) in cases {
                let outcome = try run(dashfs.path, arguments, environment: [:])
                #expect(outcome.status == status, "\(arguments): \(outcome.status): \(outcome.output)")
                #expect(outcome.output.contains(says), "\(arguments): \(outcome.output)")
                #expect(outcome.output.split(separator: "\n").count == 1 && outcome.output.hasPrefix("dashfs: "), "\(arguments): \(outcome.output)")
            }
            #expect(!FileManager.default.fileExists(atPath: other))
            _ = serving.end()
        }
    }

    @Test func formatGivesTheJournalItsBlocksAndLeavesNothingOnAFullDisk() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "256M", "--journal", "16M").status == 0)
            var status = stat()
            #expect(unsafe stat(image, &status) == 0)
            #expect(status.st_blocks * 512 >= 16 << 20)
            guard geteuid() == 0 else { return }
            let full = try scratch.directory("full")
            #expect(try run("/usr/bin/mount", ["-t", "tmpfs", "-o", "size=1M", "none", full]).status == 0)
            let outcome = try dash("format", full + "/disk.img", "--size", "64M")
            let left = try FileManager.default.contentsOfDirectory(atPath: full)
            #expect(try run("/usr/bin/umount", ["-l", full]).status == 0)
            #expect(outcome.status == 73 && outcome.output.contains("No space left") && outcome.output.contains("smaller --size"), "\(outcome.output)")
            #expect(left == [])
        }
    }

    @Test func anInstalledTreeWorksFromWhereItIs() throws {
        try withScratch { scratch in
            let prefix = scratch.path + "/usr"
            let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
            // `-o build`: what is built already is what is tested.
            let made = try run("/usr/bin/make", ["-C", root, "-o", "build", "install", "PREFIX=\(prefix)"])
            #expect(made.status == 0, "\(made.output)")
            let bin = prefix + "/bin/dashfs"
            let image = scratch.path + "/disk.img"
            #expect(try run(bin, ["format", image, "--size", "64M"]).status == 0)
            let outcome = try run(bin, ["run", "--image", image, "--", "sh", "-c", "echo installed > /dash/f; cat /dash/f"])
            #expect(outcome.status == 0 && outcome.output == "installed\n", "\(outcome.output)")
            // A C program by pkg-config, as anybody would build it.
            let flags = try run("/usr/bin/pkg-config", ["--cflags", "--libs", "dashfs"], environment: ["PKG_CONFIG_PATH": prefix + "/lib/pkgconfig"])
            #expect(flags.status == 0, "\(flags.output)")
            let program = scratch.path + "/copy"
            let words = flags.output.split(whereSeparator: \.isWhitespace).map(String.init)
            let compiled = try run("/usr/bin/gcc", ["-Wall", "-Werror", "-o", program, root + "/Examples/copy.c"] + words)
            #expect(compiled.status == 0, "\(compiled.output)")
            let serving = try Serving(scratch, image)
            let copied = try run(program, [serving.socket, "/etc/passwd", "/passwd"], environment: ["LD_LIBRARY_PATH": prefix + "/lib"])
            #expect(copied.status == 0 && copied.output.contains("copied and compared"), "\(copied.output)")
            _ = serving.end()
            for name in ["share/bash-completion/completions/dashfs", "share/zsh/site-functions/_dashfs", "share/fish/vendor_completions.d/dashfs.fish"] {
                #expect(try String(contentsOfFile: prefix + "/" + name, encoding: .utf8).contains("doctor"))
            }
        }
    }
}
