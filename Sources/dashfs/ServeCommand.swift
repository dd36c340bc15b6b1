// `dashfs serve`: owns a device and answers programs until SIGTERM or SIGINT. Invariant: the line on standard output comes when clients
// can connect, not before; the exit status is 0 only if everything acknowledged is on the device.
import ArgumentParser
import BlockDevice
import CSystem
import Glibc
import Logging
import Server
import Volume

struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a volume to programs.",
        discussion: """
            Prints one line when programs can connect, then serves until SIGTERM or SIGINT, writes everything to the device and
            ends with status 0. A volume that was not shut down in order is recovered first. memory:SIZE is a new volume in
            memory, gone with the server.

            EXAMPLES
              dashfs serve disk.img
              dashfs serve memory:1G --cache 256M
              dashfs serve /dev/nvme0n1p3 --wait never --allow-group db
            """)

    @Argument(help: "A formatted file or block device, or memory:SIZE.", completion: .file())
    var device: String

    @Option(help: ArgumentHelp("Where programs connect.", valueName: "path"), completion: .file())
    var socket: String?

    @Option(help: ArgumentHelp("Memory for cached blocks.", valueName: "size"))
    var cache = Size(bytes: 512 << 20)

    @Option(help: "How the server waits: adaptive (spins while there is load), always (sleeps at once), never (spins on).")
    var wait = WaitMode.adaptive

    @Option(help: ArgumentHelp("Serve this user, and only those named; a name or a number, repeatable.", valueName: "user"))
    var allowUser: [String] = []

    @Option(help: ArgumentHelp("Serve the members of this group, and only those named; repeatable.", valueName: "group"))
    var allowGroup: [String] = []

    @Flag(help: "Change nothing on the device.")
    var readOnly = false

    @Flag(help: "Go through the kernel's page cache instead of direct I/O.")
    var buffered = false

    @Flag(help: "Log more on standard error.")
    var verbose = false

    @Flag(help: .hidden)
    var endWithParent = false

    func run() throws {
        Server.blockSignals()
        if endWithParent { _ = dashfs_end_with_parent() }
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var logger = Logger(label: "dashfs")
        logger.logLevel = verbose ? .debug : .notice

        let path = try socket ?? Places.serverSocket()
        var configuration = ServerConfiguration(socketPath: path)
        configuration.wait = wait
        configuration.handlesSignals = true
        configuration.locksDown = true
        configuration.logger = logger
        for name in allowUser { configuration.allowedUsers.insert(try Identity.user(name)) }
        for name in allowGroup { configuration.allowedGroups.insert(try Identity.group(name)) }

        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(device) }
        var options = FileDevice.Options()
        options.readOnly = readOnly
        options.direct = !buffered
        let served = try ServedDevice(name, cache: cache.bytes, readOnly: readOnly, options: options)
        for warning in served.device.warnings { logger.warning("\(warning)") }
        for note in served.volume.takeNotes() { logger.notice("\(note)") }

        let server: Server
        do throws(ServerError) {
            server = try Server(volume: served.volume, queue: served.queue, configuration: configuration)
        } catch {
            throw Failure(error)
        }
        let size = ByteSize.format(served.device.capabilities.blockCount * UInt64(blockSize))
        Terminal.output("serving \(name) (\(size)) at \(path), cache \(ByteSize.format(served.cacheBytes)), pid \(getpid())")
        server.run()
        let isSafe = !served.volume.isReadOnly || readOnly
        for note in served.volume.takeNotes() { logger.notice("\(note)") }
        served.device.close()
        guard isSafe else {
            throw Failure(.inputOutput, "\(name): not everything could be written (see above); run: dashfs check \(name)")
        }
    }
}

/// User and group names as numbers.
enum Identity {
    static func user(_ name: String) throws(Failure) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = unsafe getpwnam(name) else { throw Failure(.usage, "there is no user \(name)") }
        return unsafe entry.pointee.pw_uid
    }

    static func group(_ name: String) throws(Failure) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = unsafe getgrnam(name) else { throw Failure(.usage, "there is no group \(name)") }
        return unsafe entry.pointee.gr_gid
    }
}
