// `dashfs serve`: owns a device and answers programs until SIGTERM or SIGINT. Invariant: the line on standard output comes when clients
// can connect, not before; the exit status is 0 only if everything acknowledged is on the device.
import ArgumentParser
import BlockDevice
import CSystem
import Glibc
import Logging
import Server
import Volume
import Wire

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
              dashfs serve /dev/nvme0n1p3 --user nobody
              dashfs serve /dev/nvme0n1p3 --submission-thread 100
              dashfs serve nvme:0000:01:00.0       a controller of its own: see dashfs device
            """)

    @Argument(help: "A formatted file or block device, nvme:ADDRESS, or memory:SIZE.", completion: .file())
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

    @Option(help: ArgumentHelp("Become this user once the device and the socket are open; root only.", valueName: "user"))
    var user: String?

    @Option(help: ArgumentHelp("Memory that programs share with the server, in all; one program has a quarter of it at most.", valueName: "size"))
    var clientMemory = Size(bytes: 2 << 30)

    @Flag(help: "Change nothing on the device.")
    var readOnly = false

    @Flag(inversion: .prefixedNo, help: "Tell a device that wants to know which blocks are free again.")
    var discard = true

    @Flag(help: "Go through the kernel's page cache instead of direct I/O.")
    var buffered = false

    @Option(
        help: ArgumentHelp(
            "Let a thread of the kernel take requests to the device, without a system call for each batch; it has a core for itself until there were none for so many milliseconds.",
            valueName: "milliseconds"))
    var submissionThread: UInt32?

    @OptionGroup var driver: DriverArguments

    @Flag(help: "Log more on standard error.")
    var verbose = false

    @Flag(help: .hidden)
    var endWithParent = false

    func validate() throws {
        if submissionThread == 0 { throw ValidationError("--submission-thread 0: give the milliseconds after which the idle thread sleeps, at least 1") }
    }

    func run() throws {
        Server.blockSignals()
        if endWithParent { _ = dashfs_end_with_parent() }
        dashfs_raise_descriptor_limit()
        // The log's clock must not look for a time zone: files are out of reach while it serves.
        unsafe _ = setenv("TZ", "UTC0", 1)
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var logger = Logger(label: "dashfs")
        logger.logLevel = verbose ? .debug : .notice

        let path = try socket ?? Places.serverSocket()
        var configuration = ServerConfiguration(socketPath: path)
        configuration.wait = wait
        configuration.handlesSignals = true
        configuration.locksDown = true
        configuration.logger = logger
        configuration.arenaLimit = Int(clientMemory.bytes)
        configuration.arenaPerSession = max(configuration.arenaLimit / 4, Layout.arenaMaximum)
        for name in allowUser { configuration.allowedUsers.insert(try Identity.user(name).user) }
        for name in allowGroup { configuration.allowedGroups.insert(try Identity.group(name)) }

        let servingUser = try user.map { name throws(Failure) in try Identity.user(name) }
        if servingUser != nil && geteuid() != 0 { throw Failure(.noPermission, "--user: only root can become another user; start the server as that user instead") }

        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(device) }
        if buffered || submissionThread != nil, case .nvme = name {
            throw Failure(.usage, "\(buffered ? "--buffered" : "--submission-thread"): the kernel has no part in what an nvme: device does; leave it away")
        }
        var options = FileDevice.Options()
        options.readOnly = readOnly
        options.direct = !buffered
        options.submissionPollingMilliseconds = submissionThread
        let served = try ServedDevice(
            name, cache: cache.bytes, readOnly: readOnly, discard: discard, options: options, withoutIOMMU: driver.withoutIOMMU)
        for warning in served.device.warnings { logger.warning("\(warning)") }

        let server: Server
        do throws(ServerError) {
            server = try Server(volume: served.volume, queue: served.queue, configuration: configuration)
            if let servingUser { try Server.become(user: servingUser.user, group: servingUser.group) }
        } catch {
            throw Failure(error)
        }
        let size = ByteSize.format(served.device.capabilities.blockCount * UInt64(blockSize))
        Terminal.output("serving \(name) (\(size)) at \(path), cache \(ByteSize.format(served.cacheBytes)), pid \(getpid())")
        server.run()
        let isSafe = !served.volume.isReadOnly || readOnly
        served.device.close()
        guard isSafe else {
            throw Failure(.inputOutput, "\(name): not everything could be written (see above); run: dashfs check \(name)")
        }
    }
}

/// User and group names as numbers.
enum Identity {
    /// With the user's own group; of a number that nobody has, the group of the same number.
    static func user(_ name: String) throws(Failure) -> (user: UInt32, group: UInt32) {
        if let number = UInt32(name) { return (number, unsafe getpwuid(number).map { unsafe $0.pointee.pw_gid } ?? number) }
        guard let entry = unsafe getpwnam(name) else { throw Failure(.usage, "there is no user \(name)") }
        return unsafe (entry.pointee.pw_uid, entry.pointee.pw_gid)
    }

    static func group(_ name: String) throws(Failure) -> UInt32 {
        if let number = UInt32(name) { return number }
        guard let entry = unsafe getgrnam(name) else { throw Failure(.usage, "there is no group \(name)") }
        return unsafe entry.pointee.gr_gid
    }
}
