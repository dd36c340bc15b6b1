// `dashfs bench`: what an operation costs, beside the same operation of the kernel's file system or the least two processes need. Invariant: the two
// sides of every comparison take turns in one run; everything that was made for it is gone afterwards.
import ArgumentParser
import BlockDevice
import CSystem
import Client
import Glibc
import Volume
import Wire

struct BenchCommand: ParsableCommand {
    enum Suite: String, ExpressibleByArgument, CaseIterable { case channel, micro }

    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure DashFS beside the kernel's file system.",
        discussion: """
            channel  a request without content, and 4 KiB appends with 64 under way, beside a bare ping-pong of two processes
            micro    reads, writes, names and fsync, through system calls under `dashfs run` and through the library, each beside the
                     same system calls on the kernel's file system: on the disk that holds --directory, or in memory with --memory

            A ratio is DashFS's time divided by the other's, of neighbouring batches: median, and tenth and ninetieth percentile.

            EXAMPLES
              dashfs bench
              dashfs bench micro --directory /srv/scratch --rounds 31
              dashfs bench micro --memory --json
            """)

    @Argument(help: "Which suite; all where none is named.")
    var suites: [Suite] = []

    @Option(help: ArgumentHelp("Where the image and the kernel's files are put.", valueName: "path"), completion: .directory)
    var directory = "."

    @Flag(help: "Memory device beside tmpfs instead of an image beside the disk's file system.")
    var memory = false

    @Option(help: "Batches of each side.")
    var rounds = 15

    @Flag(help: "One JSON object, times in nanoseconds.")
    var json = false

    func validate() throws {
        guard rounds > 0, rounds <= 10_000 else { throw ValidationError("--rounds takes 1 to 10000") }
    }

    func run() throws {
        // A worker that has ended is told by its answer that does not come.
        signal(SIGPIPE, SIG_IGN)
        var results: [Comparison] = []
        for suite in suites.isEmpty ? Suite.allCases : suites {
            switch suite {
            case .channel: results += try ChannelSuite(rounds: rounds).run()
            case .micro: results += try MicroSuite(rounds: rounds, directory: directory, memory: memory).run()
            }
        }
        Terminal.output(json ? try JSONText.encode(BenchReport(results: results)) : Comparison.table(results))
    }
}

private struct BenchReport: Encodable { var results: [Comparison] }

struct MicroSuite {
    let rounds: Int
    let directory: String
    let memory: Bool

    func run() throws(Failure) -> [Comparison] {
        let base = memory ? "/dev/shm" : directory
        let image = "\(base)/.dashfs-bench-\(getpid()).img"
        let kernelRoot = "\(base)/.dashfs-bench-\(getpid())"
        if !memory {
            try Failure.catching { () throws(DeviceError) in try FileDevice.create(image, size: 1 << 30) }
            let device = try Failure.catching { () throws(DeviceError) in try FileDevice.open(image) }
            let queue = try Failure.catching { () throws(DeviceError) in try device.makeQueue(depth: 8) }
            do throws(VolumeError) { try Volume.formatFresh(queue, device.capabilities) } catch { throw Failure(error, device: image) }
            device.close()
        }
        defer { if !memory { unsafe _ = unlink(image) } }
        let server = try PrivateServer(device: memory ? "memory:1G" : image, options: ["--cache", "256M"])
        // The server has it open: nothing is left of it whatever happens.
        if !memory { unsafe _ = unlink(image) }
        defer { _ = server.stop() }
        defer { Scratch.remove(kernelRoot) }
        var preloaded = try Preloading.environment(prefix: "/dash")
        preloaded["DASHFS_SOCKET"] = server.socket
        let kernel = try BenchWorker(memory ? "tmpfs" : FileSystemName.of(base), ["--root", kernelRoot], environment: ProcessEnvironment())
        defer { kernel.end() }
        let preload = try BenchWorker("preload", ["--root", "/dash/system-calls"], environment: preloaded)
        defer { preload.end() }
        let library = try BenchWorker("library", ["--root", "/library", "--library", server.socket], environment: ProcessEnvironment())
        defer { library.end() }
        for worker in [kernel, preload, library] { try worker.waitUntilReady() }
        var results: [Comparison] = []
        var line = ProgressLine("measuring")
        for (index, operation) in MicroOperation.allCases.enumerated() {
            for worker in [kernel, preload, library] { _ = try worker.run(operation) }
            let countersBefore = try ServerCounters(socket: server.socket).device
            var pairs: (preload: [(UInt64, UInt64)], library: [(UInt64, UInt64)]) = ([], [])
            for round in 0..<rounds {
                // Who goes first changes from round to round.
                let first = round % 2 == 0
                let before = first ? try kernel.run(operation) : 0
                let underPreload = try preload.run(operation)
                let middle = try kernel.run(operation)
                let throughLibrary = try library.run(operation)
                let after = first ? 0 : try kernel.run(operation)
                pairs.preload.append((first ? before : middle, underPreload))
                pairs.library.append((first ? middle : after, throughLibrary))
                line.update((Double(index) + Double(round) / Double(rounds)) / Double(MicroOperation.allCases.count))
            }
            let countersAfter = try ServerCounters(socket: server.socket).device
            for (worker, batches) in [(preload, pairs.preload), (library, pairs.library)] {
                var comparison = Comparison(
                    operation.title, baseline: kernel.title, subject: worker.title, batches: batches, operationsPerBatch: operation.count)
                if operation == .durable {
                    let each = Double(2 * rounds * operation.count)
                    comparison.deviceWrites = Double(countersAfter.writes - countersBefore.writes) / each
                    comparison.deviceFlushes = Double(countersAfter.flushes - countersBefore.flushes) / each
                }
                results.append(comparison)
            }
        }
        line.end()
        return results
    }
}

struct ChannelSuite {
    let rounds: Int
    private static let trips = 20_000
    private static let appends = 8192

    func run() throws(Failure) -> [Comparison] {
        let page = try PingPong()
        defer { close(page.descriptor) }
        let partner = try BenchWorker("ping-pong", ["--echo", "3"], environment: ProcessEnvironment(), inherited: page.descriptor)
        defer { partner.end() }
        try partner.waitUntilReady()
        let server = try PrivateServer(device: "memory:256M", options: ["--cache", "128M"])
        defer { _ = server.stop() }
        let ground = try LibraryGround(socket: server.socket)
        let opened = unsafe "/log".withCString { unsafe ground.open($0, O_CREAT | O_RDWR | O_APPEND) }
        guard opened >= 0 else { throw Failure(.system, "the volume takes no file: \(errorText(Int32(truncatingIfNeeded: -opened)))") }
        let log = Int32(truncatingIfNeeded: opened)
        var next: UInt64 = 1
        func pingPong(_ count: Int, payload: Bool) throws(Failure) -> UInt64 {
            partner.tell("\(next) \(count) \(payload ? 1 : 0)")
            let taken = page.trips(count, from: next, payload: payload)
            next += UInt64(count)
            _ = try partner.answer()
            return taken
        }
        func nulls(_ count: Int) throws(Failure) -> UInt64 {
            let begun = dashfs_clock_monotonic()
            var worst: Int64 = 0
            for _ in 0..<count { worst = min(worst, ground.channel.null()) }
            let taken = dashfs_clock_monotonic() - begun
            guard worst == 0 else { throw Failure(.system, "the server does not answer: \(errorText(Int32(truncatingIfNeeded: -worst)))") }
            return taken
        }
        _ = try (pingPong(ChannelSuite.trips, payload: false), nulls(ChannelSuite.trips), append(ground, log))
        var null: [(UInt64, UInt64)] = []
        var append: [(UInt64, UInt64)] = []
        for _ in 0..<rounds {
            null.append((try pingPong(ChannelSuite.trips, payload: false), try nulls(ChannelSuite.trips)))
            append.append((try pingPong(ChannelSuite.appends, payload: true), try self.append(ground, log)))
        }
        return [
            Comparison("null request", baseline: "ping-pong", subject: "channel", batches: null, operationsPerBatch: ChannelSuite.trips),
            Comparison("4 KiB append, 64 under way", baseline: "ping-pong", subject: "channel", batches: append, operationsPerBatch: ChannelSuite.appends),
        ]
    }

    /// Appends with the ring full: a new one as soon as the oldest is answered. The file is emptied before, outside the time.
    private func append(_ ground: LibraryGround, _ log: Int32) throws(Failure) -> UInt64 {
        let channel = ground.channel
        var worst = channel.truncate(log, size: 0)
        var tags: [UInt8] = []
        tags.reserveCapacity(64)
        var oldest = 0
        let begun = dashfs_clock_monotonic()
        var submitted = 0
        var answered = 0
        while answered < ChannelSuite.appends {
            while submitted < ChannelSuite.appends, submitted - answered < 64, let tag = channel.reserve() {
                var request = WireRequest(.write)
                request.handle = log
                request.tag = tag
                request.bufferOffset = Channel.dataOffset + UInt32(tag) * 4096
                request.bufferLength = 4096
                unsafe (channel.dataArea + Int(tag) * 4096).initializeMemory(as: UInt8.self, repeating: 0x5A, count: 4096)
                channel.submit(request)
                if tags.count < 64 { tags.append(tag) } else { tags[submitted & 63] = tag }
                submitted += 1
            }
            channel.announce()
            worst = min(worst, channel.wait(tags[oldest & 63]).result)
            oldest += 1
            answered += 1
        }
        let taken = dashfs_clock_monotonic() - begun
        guard worst >= 0 else { throw Failure(.system, "an append failed: \(errorText(Int32(truncatingIfNeeded: -worst)))") }
        return taken
    }
}
