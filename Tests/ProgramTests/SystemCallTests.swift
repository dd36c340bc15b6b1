// The number of system calls, client and server together, does not grow with the number of requests that hit. Counted by strace(1) around both processes; a
// client that finds its processor taken sleeps on a futex, which is the machine's doing: those calls, and the looks after the server while asleep, are left out.
import Foundation
import Testing

@Suite("System calls", .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/strace")))
struct SystemCallTests {
    /// What a client does and what it took both sides.
    private func calls(_ operations: [(name: String, count: Int)], preloaded: Bool) throws -> [String: Int] {
        try withScratch { scratch in
            let lines = operations.map { "whole \($0.name) \($0.count)" }.joined(separator: "\\n") + "\\n"
            let client =
                preloaded
                ? "run --socket \(scratch.path)/socket -- strace -f -c -U name,calls -o \(scratch.path)/client '\(dashfs.path)' bench-worker --root /dash/r"
                : "bench-worker --library \(scratch.path)/socket --root /r"
            let script = """
                set -e
                cd \(scratch.path)
                mkfifo ready
                strace -f -c -U name,calls -o server '\(dashfs.path)' serve memory:256M --socket socket --cache 128M --wait never >ready &
                read -r line <ready
                printf '\(lines)' | \(preloaded ? "" : "strace -f -c -U name,calls -o client ") '\(dashfs.path)' \(client)
                kill "${line##* }"
                wait
                """
            let outcome = try run("bash", ["-c", script])
            #expect(outcome.status == 0 && !outcome.output.contains("error"), "\(outcome.output)")
            var calls: [String: Int] = [:]
            for side in ["client", "server"] {
                for line in try String(contentsOfFile: scratch.path + "/" + side, encoding: .utf8).split(separator: "\n") {
                    let words = line.split(whereSeparator: \.isWhitespace)
                    if words.count >= 2, let count = Int(words[1]), words[0] != "total" { calls[String(words[0]), default: 0] += count }
                }
            }
            try #require(calls["execve"] ?? 0 > 0, "strace said nothing")
            return calls
        }
    }

    private func compare(_ names: [String], _ few: Int, preloaded: Bool) throws -> Int {
        let (fewCalls, manyCalls) = try (
            calls(names.map { ($0, few) }, preloaded: preloaded), calls(names.map { ($0, few * 4) }, preloaded: preloaded)
        )
        let growth = Set(fewCalls.keys).union(manyCalls.keys).subtracting(["futex", "poll"]).sorted().map {
            ($0, (manyCalls[$0] ?? 0) - (fewCalls[$0] ?? 0))
        }
        print("\(preloaded ? "preload" : "library"), \(few) and \(few * 4) of \(names.joined(separator: ", ")): growth \(growth.filter { $0.1 != 0 })")
        return growth.map(\.1).reduce(0, +)
    }

    /// What the memory allocators of both processes may ask for, well below one call for a hundred requests.
    private let slack = 30

    @Test("through the library do not grow") func library() throws {
        #expect(try compare(["read", "overwrite", "append", "stat", "openClose", "rename", "create"], 250, preloaded: false) <= slack)
    }

    @Test("under preload do not grow, placeholders apart") func preload() throws {
        #expect(try compare(["read", "overwrite", "append", "stat", "rename"], 250, preloaded: true) <= slack)
    }

    @Test("of open and close under preload are one each") func placeholders() throws {
        // 750 opens and closes more, and a sixteenth of that before the time is taken.
        let growth = try compare(["openClose"], 250, preloaded: true)
        #expect(2 * 750...2 * 800 + slack ~= growth, "\(growth)")
    }

    @Test("A confined server's cache is registered with the kernel as requests name it") func registers() throws {
        try withScratch { scratch in
            let script = """
                set -e
                cd \(scratch.path)
                mkfifo ready
                '\(dashfs.path)' format image --size 64M
                strace -f -e trace=io_uring_register -o server '\(dashfs.path)' serve image --socket socket --cache 16M >ready &
                read -r line <ready
                '\(dashfs.path)' run --socket socket -- dd if=/dev/zero of=/dash/file bs=64K count=64 conv=fsync
                kill "${line##* }"
                wait
                """
            let outcome = try run("bash", ["-c", script])
            #expect(outcome.status == 0, "\(outcome.output)")
            let calls = try String(contentsOfFile: scratch.path + "/server", encoding: .utf8).split(separator: "\n").filter { $0.contains("BUFFERS_UPDATE") || $0.contains("0x10,") }
            #expect(!calls.isEmpty && calls.allSatisfy { $0.hasSuffix(" = 1") }, "\(calls)")
        }
    }
}
