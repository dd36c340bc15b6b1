// What every test here stands on: the repository's C programs and scripts, compiled and run as separate processes in directories that end with the test.
// Nothing of DashFS is linked into these tests: they see it as any program does.
import Foundation
import Testing

/// The repository, from this file's place in it.
let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
let programs = repository.appendingPathComponent("Tests/Programs")

/// The `dashfs` of this build: it lies beside the test bundle.
let dashfs = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("dashfs")

/// Whether a test may act as other users.
let isRoot = getuid() == 0

/// How much a run does; a soak sets it higher.
let factor = ProcessInfo.processInfo.environment["DASHFS_SOAK"].flatMap { Int($0) } ?? 1

struct Outcome {
    var status: Int32
    var output: String
}

/// Runs a program to its end and returns all that it printed, errors included.
func run(_ program: String, _ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    // The threads that tests run on block signals, and a child inherits that: undo it, or nothing below could be ended.
    process.arguments = ["--default-signal", program] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let pipe = Pipe()
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let bytes = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return Outcome(status: process.terminationStatus, output: String(decoding: bytes, as: UTF8.self))
}

/// Gives the body a directory of its own, removed at the end; in memory (tmpfs) when asked for and there is one.
func withScratch<T>(inMemory: Bool = false, _ body: (Scratch) throws -> T) throws -> T {
    let place = inMemory && kind(of: "/dev/shm") == "tmpfs" ? "/dev/shm" : NSTemporaryDirectory()
    let scratch = Scratch(path: URL(fileURLWithPath: place).appendingPathComponent("dashfs-tests-\(UUID().uuidString)").path)
    _ = try scratch.directory("")
    defer { _ = try? run("rm", ["-rf", scratch.path]) }
    return try body(scratch)
}

struct Scratch {
    let path: String

    func directory(_ name: String) throws -> String {
        let made = name.isEmpty ? path : path + "/" + name
        try FileManager.default.createDirectory(atPath: made, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        return made
    }

    /// Compiles C sources of `Tests/Programs` into this directory.
    func compile(_ name: String, _ sources: [String], _ flags: [String] = []) throws -> String {
        let out = try directory("built") + "/" + name
        let outcome = try run("cc", ["-O2", "-g", "-o", out] + sources.map { programs.appendingPathComponent($0).path } + flags)
        try #require(outcome.status == 0, "\(outcome.output)")
        return out
    }

    func oracle() throws -> String {
        try compile("oracle", ["main", "turns", "stream", "observe", "files", "names", "attributes", "locks", "processes", "mapped"].map { "oracle/\($0).c" })
    }
}

/// The type of the file system under a path, as `stat -f` names it.
func kind(of path: String) -> String {
    (try? run("stat", ["-f", "-c", "%T", path]))?.output.trimmingCharacters(in: .whitespacesAndNewlines) ?? ""
}
