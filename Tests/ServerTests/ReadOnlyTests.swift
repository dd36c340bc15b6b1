import BlockDevice
import DashFS
import Foundation
import InMemoryLogging
import Logging
import TestSupport
import Testing

/// A device that fails under a server: who keeps the machine reads in the log and in `dashfs stats` that nothing is written any more, and why.
@Suite struct ReadOnlyTests {
    /// A server on a device of which this fails from the first such request behind the mount on.
    private func serving(_ fault: DeviceFault, _ body: (ServedVolume, InMemoryLogHandler) throws -> Void) throws {
        let log = InMemoryLogHandler()
        let device = RecordingDevice(copying: try MemoryVolume.formatted(), seed: 1)
        device.plan(fault)
        let served = try ServedVolume(device: device) { $0.logger = Logger(label: "test") { _ in log } }
        try body(served, log)
        served.stop()
    }

    private func stats(_ served: ServedVolume, _ options: String...) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("dashfs")
        process.arguments = ["stats", "--socket", served.socketPath] + options
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        return String(decoding: text, as: UTF8.self)
    }

    private func expectReason(_ reason: String, _ served: ServedVolume, _ log: InMemoryLogHandler) throws {
        struct State: Decodable { var readOnly: Bool, readOnlyReason: String?, problems: Int }
        func state() throws -> State { try JSONDecoder().decode(State.self, from: Data(stats(served, "--json").utf8)) }
        // A client may be told of the failure a moment before the log and the statistics are.
        var seen = try state()
        for _ in 0..<200 where seen.problems == 0 || !seen.readOnly {
            usleep(20_000)
            seen = try state()
        }
        #expect(seen.readOnly && seen.readOnlyReason == reason && seen.problems == 1, "\(seen)")
        #expect(try stats(served).contains("the volume is read-only: \(reason)\n"))
        served.stop()
        let told = log.entries.filter { $0.level == .error }.map(\.message.description)
        #expect(told == ["read-only from now on: \(reason); stop the server and run: dashfs check"])
    }

    /// The journal lies at the beginning of the device, behind the superblock.
    @Test func aJournalThatCannotBeWrittenIsToldOnceInTheLogAndInTheStatistics() throws {
        try serving(DeviceFault(.error(5), on: [.write], forever: true, range: 4096..<64 * 4096)) { served, log in
            #expect(try stats(served, "--json").contains("\"readOnly\":false,\"readOnlyReason\":null"))
            let volume = try FileSystem.connect(socket: served.socketPath)
            let file = try volume.open("/file", [.readWrite, .create])
            #expect(throws: FileError.self) { try file.synchronize() }
            for _ in 0..<5 { #expect(throws: FileError.self) { try volume.createDirectory("/directory") } }
            try file.close()
            try expectReason("the journal cannot be written (errno 5)", served, log)
        }
    }

    @Test func aDeviceThatCannotFlushIsToldOnceInTheLogAndInTheStatistics() throws {
        // The superblocks of the mount are flushed one by one.
        try serving(DeviceFault(.error(28), on: [.flush], after: 2, forever: true)) { served, log in
            let volume = try FileSystem.connect(socket: served.socketPath)
            try volume.createDirectory("/directory")
            #expect(throws: FileError.self) { try volume.synchronize() }
            try expectReason("the device cannot flush (errno 28)", served, log)
        }
    }
}
