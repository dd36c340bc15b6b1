import CSystem
import Client
import Foundation
import Logging
import Server
import TestSupport
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

    init(running: Bool = true, configure: (inout ServerConfiguration) -> Void = { _ in }) throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-test-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        socketPath = directory.appendingPathComponent("socket").path
        var configuration = ServerConfiguration(socketPath: socketPath)
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        configure(&configuration)
        memoryVolume = try MemoryVolume()
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
    func connectStepping() throws -> Session {
        let socket = try unsafe socketPath.withCString { try unsafe Session.beginConnecting(path: $0, length: socketPath.utf8.count) }
        server.step(control: true)
        server.step(control: true)
        return try Session.finishConnecting(socket: socket)
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(at: directory)
    }
}
