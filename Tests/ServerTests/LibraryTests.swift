import Client
import DashFS
import Foundation
import Testing

/// The two libraries as what they are built to: what they export, what they need, what compilers of their callers say, and what programs do with them.
@Suite(.serialized) struct LibraryTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    private static let built = root.appendingPathComponent(".build/release")
    private static let library = built.appendingPathComponent("libdashfs-c.so")
    private static let header = root.appendingPathComponent("include")

    /// A directory of its own, with the library under its name.
    private func inWorkshop(_ body: (URL) throws -> Void) throws {
        let work = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-library-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: work, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: work) }
        try FileManager.default.createSymbolicLink(at: work.appendingPathComponent("libdashfs.so.1"), withDestinationURL: LibraryTests.library)
        try body(work)
    }

    @discardableResult
    private func run(_ program: String, _ arguments: [String], expecting status: Int32 = 0, environment: [String: String] = [:]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == status, "\(program) \(arguments.first ?? ""): \(text)")
        return text
    }

    private func compile(_ source: URL, _ work: URL, _ name: String) throws -> String {
        let program = work.appendingPathComponent(name).path
        try run(
            "/usr/bin/gcc",
            ["-Wall", "-Wextra", "-Werror", "-std=gnu17", "-I", LibraryTests.header.path, "-o", program, source.path, work.appendingPathComponent("libdashfs.so.1").path,
                "-Wl,-rpath," + work.path, "-pthread"])
        return program
    }

    @Test func theExampleInCCopiesAFile() throws {
        try inWorkshop { work in
            let served = try ServedVolume()
            let source = work.appendingPathComponent("source")
            let bytes = (0..<300_001).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
            try Data(bytes).write(to: source)
            let program = try compile(LibraryTests.root.appendingPathComponent("Examples/copy.c"), work, "copy")
            #expect(try run(program, [served.socketPath, source.path, "/copied"]) == "300001 bytes copied and compared\n")
            let volume = try FileSystem.connect(socket: served.socketPath)
            #expect(try volume.open("/copied").read(upTo: 400_000, at: 0) == bytes)
            // Nobody there, by the default that the environment names.
            let refusal = try run(program, [work.path + "/none", source.path, "/x"], expecting: 1)
            #expect(refusal.contains("No such file or directory"))
        }
    }

    @Test func theExampleInSwiftKeepsItsRecords() throws {
        let served = try ServedVolume()
        let program = LibraryTests.built.appendingPathComponent("example-records").path
        #expect(try run(program, [served.socketPath, "/table"]) == "200 records written, synchronized and compared\n")
        let volume = try FileSystem.connect(socket: served.socketPath)
        #expect(try volume.status(of: "/table").size == 200 * 512)
        #expect(try volume.extendedAttribute("user.records", of: "/table") == Array("200".utf8))
    }

    /// Many threads of a C program, each with files of its own, and every call by its errno.
    @Test func cProgramsHaveThreadsAndErrnos() throws {
        try inWorkshop { work in
            let served = try ServedVolume()
            let program = try compile(LibraryTests.root.appendingPathComponent("Tests/Programs/c_library.c"), work, "c_library")
            #expect(try run(program, [], environment: ["DASHFS_SOCKET": served.socketPath]) == "c library: all as expected\n")
        }
    }

    @Test(arguments: [("c", "gcc", "-std=c99"), ("c", "gcc", "-std=gnu2x"), ("cpp", "g++", "-std=c++11"), ("cpp", "g++", "-std=c++20")])
    func theHeaderStandsAlone(_ suffix: String, _ compiler: String, _ standard: String) throws {
        let path = "/usr/bin/" + compiler
        try #require(FileManager.default.isExecutableFile(atPath: path), "\(compiler) is missing: make deps installs it")
        try inWorkshop { work in
            let source = work.appendingPathComponent("use." + suffix)
            try Data("#include <dashfs.h>\nint main() { return dashfs_disconnect() == -1 ? 0 : 1; }\n".utf8).write(to: source)
            let program = work.appendingPathComponent("use").path
            try run(
                path,
                ["-Wall", "-Wextra", "-Werror", "-pedantic", standard, "-D_GNU_SOURCE", "-I", LibraryTests.header.path, "-o", program, source.path,
                    work.appendingPathComponent("libdashfs.so.1").path, "-Wl,-rpath," + work.path])
            try run(program, [])
        }
    }

    @Test func theCLibraryNeedsLibcOnlyAndExportsWhatTheHeaderDeclares() throws {
        let dynamic = try run("/usr/bin/readelf", ["-d", "-W", LibraryTests.library.path])
        let needed = dynamic.split(separator: "\n").filter { $0.contains("(NEEDED)") }
        #expect(needed.allSatisfy { $0.contains("[libc.so.6]") || $0.contains("[ld-linux-x86-64.so.2]") }, "\(needed)")
        #expect(dynamic.contains("[libdashfs.so.1]"))
        var exported: Set<String> = []
        for line in try run("/usr/bin/nm", ["-D", "--defined-only", "--format=posix", LibraryTests.library.path]).split(separator: "\n") {
            let words: [Substring] = line.split(separator: " ")
            if words.count > 1, words[1] == "T" { exported.insert(String(words[0].prefix { $0 != "@" })) }
        }
        let text = try String(contentsOf: LibraryTests.header.appendingPathComponent("dashfs.h"), encoding: .utf8)
        let declared = text.split(separator: "\n").filter { $0.hasSuffix(";") || $0.hasSuffix(",") }
            .compactMap { $0.firstMatch(of: /(dashfs_[a-z0-9_]+)\(/).map { String($0.1) } }
        #expect(declared.count > 60)
        #expect(exported == Set(declared))
    }
}

/// Many requests at once, shown by their number in the ring before the server has looked at any.
@Suite struct ManyAtOnceTests {
    private func served() throws -> (ServedVolume, FileSystem) {
        let served = try ServedVolume(running: false)
        return (served, FileSystem(session: try served.connectStepping()))
    }

    @Test func aBatchHasSixtyFourRequestsUnderWay() throws {
        let (served, volume) = try served()
        var batch = try volume.batch()
        var tickets: [Batch.Ticket] = []
        for number in 0..<64 { tickets.append(try batch.createDirectory("/d\(number)")) }
        #expect(batch.underWay == 64)
        #expect(try #require(throws: FileError.self) { try batch.createDirectory("/one more") }.code == .wouldBlock)
        #expect(try #require(throws: FileError.self) { try batch.result(of: tickets[0]) }.code == .resourceBusy)
        while served.server.step() {}
        batch.run()
        for ticket in tickets { #expect(try batch.result(of: ticket) == 0) }
        let old = tickets[0]
        batch.reset()
        #expect(try #require(throws: FileError.self) { try batch.result(of: old) }.code == .invalidArgument)
        _ = consume batch
    }

    @Test func sixtyFourTasksAndThePiecesOfOneWriteAreUnderWayTogether() async throws {
        let (served, volume) = try served()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<64 { group.addTask { try await volume.createDirectory("/t\(number)") } }
            while volume.requestsUnderWay < 64 { await Task.yield() }
            while served.server.step() {}
            try await group.waitForAll()
        }
        let opening = Task { Shared(try await volume.open("/large", [.readWrite, .create])) }
        while volume.requestsUnderWay < 1 { await Task.yield() }
        while served.server.step() {}
        let file = try await opening.value
        // A MiB in pieces of 16 KiB.
        let bytes = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 4) }
        let done = Task {
            try await file.value.write(bytes, at: 0)
            return try await file.value.read(upTo: 2 << 20, at: 0)
        }
        while volume.requestsUnderWay < 64 { await Task.yield() }
        served.run()
        #expect(try await done.value == bytes)
    }
}

/// A file that a task holds.
private final class Shared: Sendable {
    let value: File
    init(_ value: consuming File) { self.value = value }
}
