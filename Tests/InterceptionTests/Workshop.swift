// A temporary directory with the means to compile the C programs of Programs/, to run commands, and to run them under the
// preloaded library with this machine's table. Gone when the test is.

import Foundation
import Interception
import Testing

final class Workshop {
    struct Outcome {
        let status: Int32
        let output: String
        let errors: String
    }

    let directory: String

    init() throws {
        let name = FileManager.default.temporaryDirectory.appendingPathComponent("interception-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: name, withIntermediateDirectories: true)
        directory = name.path
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// Where SwiftPM puts what it builds: the directory of the running test bundle.
    static let library: String = {
        let maps = (try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8)) ?? ""
        for line in maps.split(separator: "\n") where line.hasSuffix(".xctest") {
            guard let slash = line.firstIndex(of: "/"), let end = line.lastIndex(of: "/") else { continue }
            return "\(line[slash..<end])/libdashfs-preload.so"
        }
        return ""
    }()

    static let programs = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Programs").path

    func write(_ content: [UInt8], to name: String) throws -> String {
        let path = "\(directory)/\(name)"
        try Data(content).write(to: URL(fileURLWithPath: path))
        return path
    }

    @discardableResult
    func run(_ command: [String], _ variables: [String: String] = [:]) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        // A program that hangs is a failure, not a test run without end.
        process.arguments = ["timeout", "-k", "5", "300"] + command
        process.currentDirectoryURL = URL(fileURLWithPath: directory)
        process.environment = ProcessInfo.processInfo.environment.merging(variables) { $1 }
        let outputPath = try write([], to: "output.\(UUID().uuidString)")
        let errorPath = try write([], to: "errors.\(UUID().uuidString)")
        process.standardOutput = FileHandle(forWritingAtPath: outputPath)
        process.standardError = FileHandle(forWritingAtPath: errorPath)
        try process.run()
        process.waitUntilExit()
        return Outcome(
            status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
            output: String(decoding: try Data(contentsOf: URL(fileURLWithPath: outputPath)), as: UTF8.self),
            errors: String(decoding: try Data(contentsOf: URL(fileURLWithPath: errorPath)), as: UTF8.self))
    }

    /// The output of a tool that has to succeed.
    func output(_ command: [String]) throws -> String {
        let outcome = try run(command)
        try #require(outcome.status == 0, "\(command.joined(separator: " ")): \(outcome.errors)")
        return outcome.output
    }

    func compile(_ name: String, _ options: [String] = []) throws -> String {
        let path = "\(directory)/\(name)"
        _ = try output(["gcc", "-O1", "-g", "-pthread", "\(Self.programs)/\(name).c", "-o", path] + options)
        return path
    }

    func assemble(_ source: String, _ name: String) throws -> ObjectFile {
        let file = try write(Array(source.utf8), to: "\(name).s")
        let path = "\(directory)/\(name)"
        _ = try output(["gcc", "-shared", "-nostdlib", "-Wl,--build-id=sha1", file, "-o", path])
        return try ObjectFile(path: path, bytes: Array(Data(contentsOf: URL(fileURLWithPath: path))))
    }

    /// The cache of tables, with those of this machine's C library and loader in it.
    func tables() throws -> SiteTableCache {
        let cache = SiteTableCache("\(directory)/cache")
        try cache.prepareSystem()
        return cache
    }

    /// The paths of both tables, the C library's first.
    func systemTables() throws -> [String] {
        let cache = try tables()
        return try SiteTableCache.surveySystem().sorted { $0.kind.rawValue < $1.kind.rawValue }.map { cache.path($0.identity) }
    }

    /// What `dashfs run` puts into the environment, and the probe.
    func preloaded(probe: Bool = true, intercept: String = "rewrite") throws -> [String: String] {
        var variables = ["LD_PRELOAD": Self.library, SiteTableCache.environmentName: try tables().directory, "DASHFS_INTERCEPT": intercept]
        if probe { variables["DASHFS_PROBE"] = "1" }
        return variables
    }
}

/// The C library and loader of this machine, and other objects with unusual instructions, where they are installed.
func readObject(_ path: String) throws -> ObjectFile {
    try ObjectFile(path: path, bytes: Array(Data(contentsOf: URL(fileURLWithPath: path))))
}

/// One line of objdump's listing.
struct Listed: Equatable {
    let address: UInt64
    let text: Substring
}

extension Workshop {
    /// Every instruction that objdump sees in the code sections of an object.
    func disassemble(_ path: String) throws -> [Listed] {
        let listing = try output(["objdump", "-d", "-z", "--no-show-raw-insn", path])
        var found: [Listed] = []
        for line in listing.split(separator: "\n") {
            guard line.hasPrefix(" "), let colon = line.firstIndex(of: ":"), line.index(after: colon) < line.endIndex,
                line[line.index(after: colon)] == "\t",
                let address = UInt64(line[..<colon].drop(while: { $0 == " " }), radix: 16)
            else { continue }
            found.append(Listed(address: address, text: line[line.index(colon, offsetBy: 2)...]))
        }
        return found
    }
}
