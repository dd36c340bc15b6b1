import BlockDevice
import CSystem
import Client
import Foundation
import Logging
import Server
import TestSupport
import Testing
import Volume
import Wire

/// A server in a private directory: stepped by the test, or run on a thread of its own until `stop`.
final class ServedVolume: @unchecked Sendable {
    let memoryVolume: MemoryVolume
    let server: Server
    let socketPath: String
    private let directory: URL
    private let done = DispatchSemaphore(value: 0)
    private var running = false

    /// - Parameter device: holds a volume, and is the server's from now on; nil: an empty one in memory.
    init(
        running: Bool = true, cacheFrames: Int = 4096, descriptionsPerSession: Int = 4096, device: (any BlockDevice)? = nil,
        configure: (inout ServerConfiguration) -> Void = { _ in }
    ) throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-test-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        socketPath = directory.appendingPathComponent("socket").path
        var configuration = ServerConfiguration(socketPath: socketPath)
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        configure(&configuration)
        memoryVolume = try MemoryVolume(cacheFrames: cacheFrames, descriptionsPerSession: descriptionsPerSession, device: device) { MapMemory() }
        server = try Server(volume: memoryVolume.volume, queue: memoryVolume.queue, configuration: configuration)
        if running { run() }
    }

    func run() {
        running = true
        let server = self.server, done = self.done
        Thread.detachNewThread {
            server.run()
            done.signal()
        }
    }

    /// Ends the server and waits for it; its counters may be read afterwards.
    func stop() {
        if running {
            server.stop()
            done.wait()
            running = false
        } else {
            server.finish()
        }
    }

    func connect() throws -> Session {
        try unsafe socketPath.withCString { try unsafe Session.connect(path: $0, length: socketPath.utf8.count) }
    }

    /// Connects while the test itself steps the server.
    func connectStepping(prefix: String = "") throws -> Session {
        let socket = try unsafe socketPath.withCString { path in
            try unsafe Array(prefix.utf8).withUnsafeBytes { prefix in
                try unsafe Session.beginConnecting(path: path, length: socketPath.utf8.count, prefix: PathBytes(prefix))
            }
        }
        server.step(control: true)
        server.step(control: true)
        return try Session.finishConnecting(socket: socket)
    }

    private struct Counters: Decodable { var sessions, mappedFiles: Int }

    private func counters() -> Counters? {
        var text = [UInt8](repeating: 0, count: 60_000)
        let count = unsafe socketPath.withCString { path in
            unsafe text.withUnsafeMutableBytes { unsafe ServerQuery.statistics(path: path, length: socketPath.utf8.count, into: $0) }
        }
        return count > 0 ? try? JSONDecoder().decode(Counters.self, from: Data(text.prefix(Int(count)))) : nil
    }

    /// How many sessions the running server has, not counting the asking.
    func sessionsAsked() -> Int { counters().map { $0.sessions - 1 } ?? -1 }

    /// Processes that other tests fork hold what was open here until they run a program or end.
    func waitUntilNothingIsMapped() {
        while counters()?.mappedFiles != 0 { Thread.sleep(forTimeInterval: 0.02) }
    }

    /// After `stop`: no session, channel, arena, request, descriptor or lock of any client is left.
    func expectNothingLeft() {
        let left = server.snapshot
        #expect(left.sessions == 0 && left.channels == 0 && left.parked == 0 && left.arenaBytes == 0)
        #expect(left.freeRecords == 4096)
        let held = memoryVolume.volume.occupancy
        #expect(held.sessions == 0 && held.descriptions == 0 && held.locks == 0 && held.cores == 0, "\(held)")
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(at: directory)
    }
}
