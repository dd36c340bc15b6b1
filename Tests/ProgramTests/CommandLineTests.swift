// The command line as a shell sees it: exit codes, what is printed, and that a refusal changes nothing.
import Foundation
import Testing

@Suite struct CommandLineTests {
    private func dash(_ arguments: String..., environment: [String: String] = [:]) throws -> Outcome {
        try run(dashfs.path, arguments, environment: environment)
    }

    private func json(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    @Test(arguments: ["format", "serve", "run", "check", "info", "stats", "bench", "doctor", "explain"])
    func everyCommandHasHelpWithExamples(_ command: String) throws {
        let help = try dash(command, "--help")
        #expect(help.status == 0)
        #expect(help.output.contains("EXAMPLES") && help.output.contains("dashfs \(command)"))
    }

    @Test(arguments: ["bash", "zsh", "fish"])
    func shellsGetCompletions(_ shell: String) throws {
        let script = try dash("--generate-completion-script", shell)
        #expect(script.status == 0)
        #expect(script.output.contains("doctor"))
        #expect(!script.output.contains("bench-worker"))
    }

    @Test func wrongUsageIs64AndMissingInputIs66() throws {
        #expect(try dash("format").status == 64)
        #expect(try dash("serve").status == 64)
        #expect(try dash("run", "ls").status == 64)
        #expect(try dash("run", "--at", "dash", "--", "ls").status == 64)
        #expect(try dash("frobnicate").status == 64)
        #expect(try dash("format", "memory:1G").status == 64)
        try withScratch { scratch in
            let none = scratch.path + "/none"
            let statuses = [
                try dash("format", none).status, try dash("info", none).status, try dash("serve", none, "--socket", scratch.path + "/s").status,
            ]
            #expect(statuses == [66, 66, 66])
        }
    }

    @Test func formatMakesAFileAndRefusesToDestroyOne() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            #expect(try dash("info", image).output.contains("clean"))
            let before = try Data(contentsOf: URL(fileURLWithPath: image))
            let refusal = try dash("format", image)
            #expect(refusal.status == 73)
            #expect(refusal.output.contains("--force") && refusal.output.split(separator: "\n").count == 1)
            let isSame = try Data(contentsOf: URL(fileURLWithPath: image)) == before
            #expect(isSame)
            #expect(try dash("format", image, "--force").status == 0)
            // What cannot be finished is not left behind.
            #expect(try dash("format", scratch.path + "/small", "--size", "64K").status != 0)
            #expect(!FileManager.default.fileExists(atPath: scratch.path + "/small"))
        }
    }

    /// Magic numbers from the other systems' own specifications.
    @Test(arguments: [
        ("ext4", 1080, [0x53, 0xEF]), ("xfs", 0, Array("XFSB".utf8)), ("btrfs", 65600, Array("_BHRfS_M".utf8)), ("ntfs", 3, Array("NTFS    ".utf8)),
        ("vfat", 82, Array("FAT32   ".utf8)), ("swap", 4086, Array("SWAPSPACE2".utf8)), ("luks", 0, [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]),
        ("lvm", 536, Array("LVM2 001".utf8)), ("iso9660", 32769, Array("CD001".utf8)), ("squashfs", 0, Array("hsqs".utf8)),
        ("f2fs", 1024, [0x10, 0x20, 0xF5, 0xF2]), ("gpt", 512, Array("EFI PART".utf8)),
        ("zfs", 132 * 1024, [0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
        ("mbr", 446, [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0] + [UInt8](repeating: 0, count: 48) + [0x55, 0xAA]),
    ] as [(String, Int, [UInt8])])
    func formatKnowsOtherSystems(_ name: String, _ offset: Int, _ magic: [UInt8]) throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            var bytes = Data(count: 8 << 20)
            bytes.replaceSubrange(offset..<offset + magic.count, with: magic)
            try bytes.write(to: URL(fileURLWithPath: image))
            #expect(try dash("format", image).status == 73, "\(name)")
            let isSame = try Data(contentsOf: URL(fileURLWithPath: image)) == bytes
            #expect(isSame)
        }
    }

    @Test func runEndsWithItsCommandsStatusAndKeepsWhatItWrote() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            let temporary = try scratch.directory("tmp")
            let environment = ["TMPDIR": temporary]
            #expect(try dash("format", image, "--size", "64M").status == 0)
            let first = try dash("run", "--image", image, "--", "sh", "-c", "echo kept > /dash/file; exit 7", environment: environment)
            #expect(first.status == 7, "\(first.output)")
            let second = try dash("run", "--image", image, "--at", "/else", "--", "cat", "/else/file", environment: environment)
            #expect(second.status == 0 && second.output == "kept\n", "\(second.output)")
            #expect(try dash("run", "--image", image, "--", "no-such-command", environment: environment).status == 127)
            #expect(try dash("run", "--image", image, "--", "sh", "-c", "kill -9 $$", environment: environment).status == 137)
            #expect(try FileManager.default.contentsOfDirectory(atPath: temporary) == [])
            let check = try dash("check", image)
            #expect(check.status == 0, "\(check.output)")
        }
    }

    @Test("run starts what lies on the volume, or has its libraries there, by whatever says so")
    func runStartsProgramsOfTheVolume() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            func file(_ name: String, _ text: String) throws -> String {
                try Data(text.utf8).write(to: URL(fileURLWithPath: scratch.path + "/" + name))
                return scratch.path + "/" + name
            }
            func compile(_ name: String, _ options: [String]) throws -> String {
                let outcome = try run("cc", options + ["-o", scratch.path + "/" + name])
                try #require(outcome.status == 0, "\(outcome.output)")
                return scratch.path + "/" + name
            }
            let library = try compile("libanswer.so", ["-shared", "-fPIC", try file("answer.c", "int answer(void) { return 42; }")])
            let source = try file("main.c", "#include <stdio.h>\nint answer(void);\nint main(int count, char **arguments) { printf(\"%d %d\\n\", answer(), count); return 3; }")
            let plain = try compile("plain", [source, library, "-Wl,-soname,plain"])
            _ = try run("sh", ["-c", "cd \(scratch.path) && cc main.c -o needs -L. -lanswer -Wl,-rpath,/dash/lib && cc main.c -o none -L. -lanswer && cc main.c -o origin -L. -lanswer '-Wl,-rpath,$ORIGIN/../lib'"])
            let script = try file("script", "#!/dash/bin/origin\n")
            #expect(try run("chmod", ["755", script]).status == 0)
            let copied = try dash(
                "run", "--image", image, "--", "sh", "-c", "mkdir /dash/lib /dash/bin && cd $0 && cp libanswer.so /dash/lib && cp plain needs none origin /dash/bin", scratch.path)
            #expect(copied.status == 0, "\(copied.output)")
            func started(_ command: [String], _ environment: [String: String] = [:]) throws -> Outcome {
                try run(dashfs.path, ["run", "--image", image, "--"] + command, environment: environment)
            }
            for (command, environment) in [
                (["/dash/bin/origin", "x"], [:]), (["\(scratch.path)/needs", "x"], [:]), (["\(scratch.path)/none", "x"], ["LD_LIBRARY_PATH": "/dash/lib"]),
                (["/dash/bin/none", "x"], ["LD_LIBRARY_PATH": "/dash/lib"]), (["origin", "x"], ["PATH": "/dash/bin:/usr/bin:/bin"]), ([script], [:]),
                (["env", "--", "/dash/bin/origin", "x"], [:]), (["sh", "-c", "exec /dash/bin/origin x"], [:]),
            ] as [([String], [String: String])] {
                let outcome = try started(command, environment)
                #expect(outcome.status == 3 && outcome.output == "42 2\n", "\(command): \(outcome.output)")
            }
            #expect(try started([plain]).status == 3)
            let missing = try started(["/dash/bin/none"])
            #expect(missing.status == 127)
            #expect(missing.output == "/dash/bin/none: error while loading shared libraries: libanswer.so: cannot open shared object file: No such file or directory\n")
            let absent = try started(["/dash/bin/absent"])
            #expect(absent.status == 127 && absent.output == "dashfs: /dash/bin/absent: command not found\n", "\(absent.output)")
            let refused = try started(["/dash/lib"])
            #expect(refused.status == 126 && refused.output == "dashfs: /dash/lib: Permission denied\n", "\(refused.output)")
            #expect(try dash("check", image).status == 0)
        }
    }

    @Test func withoutAServerRunAndStatsSayHowToStartOne() throws {
        try withScratch { scratch in
            for outcome in [
                try dash("run", "--socket", scratch.path + "/none", "--", "true"), try dash("stats", "--socket", scratch.path + "/none"),
            ] {
                #expect(outcome.status == 69)
                #expect(outcome.output.contains("dashfs serve"))
            }
        }
    }

    @Test func checkTellsCleanFromDamagedFromImpossible() throws {
        try withScratch { scratch in
            let image = scratch.path + "/disk.img"
            #expect(try dash("format", image, "--size", "64M").status == 0)
            let clean = try dash("check", image, "--json")
            #expect(clean.status == 0)
            #expect(try json(clean.output)["clean"] as? Bool == true)
            let file = try FileHandle(forUpdating: URL(fileURLWithPath: image))
            try file.seek(toOffset: 100)
            try file.write(contentsOf: Data([1]))
            try file.close()
            let damaged = try dash("check", image, "--json")
            #expect(damaged.status == 1)
            let findings = try #require(try json(damaged.output)["findings"] as? [[String: Any]])
            #expect(findings.map { $0["kind"] as? String } == ["superblockCopy"])
            try Data(count: 8 << 20).write(to: URL(fileURLWithPath: image))
            #expect(try dash("check", image).status == 2)
            #expect(try dash("check", scratch.path + "/none").status == 2)
        }
    }

    @Test func aServerSaysWhenItIsReadyAndEndsInOrder() throws {
        try withScratch { scratch in
            let socket = scratch.path + "/socket"
            let serve = Process()
            let output = Pipe()
            serve.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            serve.arguments = ["--default-signal", dashfs.path, "serve", "memory:64M", "--cache", "16M", "--socket", socket]
            serve.standardOutput = output
            try serve.run()
            let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            #expect(line.contains(socket) && line.contains("64M") && line.contains("cache 16M"))
            let stats = try dash("stats", "--socket", socket, "--json")
            #expect(stats.status == 0)
            #expect(try json(stats.output)["uptimeNanoseconds"] != nil)
            #expect(try dash("stats", "--socket", socket).status == 0)
            serve.terminate()
            serve.waitUntilExit()
            #expect(serve.terminationStatus == 0 && serve.terminationReason == .exit)
            #expect(!FileManager.default.fileExists(atPath: socket))
        }
    }

    @Test func theDoctorFindsThisMachineFit() throws {
        try withScratch { scratch in
            let visit = try dash("doctor", "--json", "--directory", scratch.path)
            #expect(visit.status == 0, "\(visit.output)")
            let results = try #require(try json(visit.output)["results"] as? [[String: Any]])
            #expect(results.contains { $0["name"] as? String == "call sites" && $0["state"] as? String == "good" })
            #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == [])
        }
    }

    @Test func benchComparesEveryOperationOnBothWays() throws {
        let bench = try dash("bench", "channel", "micro", "--memory", "--rounds", "1", "--json")
        #expect(bench.status == 0, "\(bench.output)")
        let results = try #require(try json(bench.output)["results"] as? [[String: Any]])
        // The channel's two; nine operations through each way, and create + fsync.
        #expect(results.count == 2 + 2 * 10)
        #expect(results.allSatisfy { ($0["baseline"] as? Double ?? 0) > 0 && ($0["subject"] as? Double ?? 0) > 0 })
        let left = try FileManager.default.contentsOfDirectory(atPath: "/dev/shm").filter { $0.hasPrefix(".dashfs-bench") }
        #expect(left == [])
    }

    @Test func createAndSyncIsOneWriteAndOneFlush() throws {
        try withScratch { scratch in
            let bench = try dash("bench", "micro", "--directory", scratch.path, "--rounds", "2", "--json")
            #expect(bench.status == 0, "\(bench.output)")
            let results = try #require(try json(bench.output)["results"] as? [[String: Any]])
            let durable = results.compactMap { $0["deviceRequests"] as? [String: Double] }
            // Through both ways, beside the kernel's file system and beside the bare loop.
            #expect(durable.count == 4)
            // Now and then a record's blocks go home, and the journal's tail moves: well below one in a hundred.
            #expect(durable.allSatisfy { 0.99...1.05 ~= $0["writes"] ?? 0 && $0["flushes"] ?? 9 <= 1.05 }, "\(durable)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == [])
        }
    }
}
