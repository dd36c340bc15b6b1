// The part of `bench micro` that is about the device: create, write 4 KiB, fsync, close, a thousand times in an empty directory. Beside it the same on the
// kernel's file system, and the least that a durable 4 KiB costs there: pwrite(2) past the page cache and fdatasync(2), over blocks that the file has.
// Invariant: no batch finds anything cached. DashFS has a new server for each, the kernel's caches are dropped; making and removing files, and what a server does
// when it starts and stops, is neither timed nor counted.
import CSystem
import Glibc
import BlockDevice

struct DurableSuite {
    let rounds: Int
    let place: Workplace

    private enum Side: CaseIterable { case bare, kernel, preload, library }
    private typealias Requests = (writes: UInt64, flushes: UInt64)

    func run() throws(Failure) -> [Comparison] {
        let operation = MicroOperation.durable
        let image = try place.volume("durable", size: 1 << 30)
        let bare = place.isMemory ? nil : try Failure.catching { () throws(DeviceError) in try RawWriteFlush(path: place.path + "/bare") }
        let sides = Side.allCases.filter { $0 != .bare || bare != nil }
        var times: [Side: [UInt64]] = [:]
        var requests: [Side: Requests] = [.preload: (0, 0), .library: (0, 0)]
        var line = ProgressLine("create + fsync")
        for round in 0..<rounds {
            for number in sides.indices {
                try Interruption.check()
                let side = sides[(number + round) % sides.count]
                // What the last batch left behind is not this one's to write.
                sync()
                switch side {
                case .bare:
                    guard let bare else { continue }
                    let taken = try Failure.catching { () throws(DeviceError) in try bare.run(operation.count).reduce(0, +) }
                    times[side, default: []].append(taken)
                case .kernel:
                    let root = "\(place.path)/durable-\(round)"
                    let worker = try BenchWorker(place.kernelName, ["--durable", "--root", root], environment: ProcessEnvironment())
                    defer { worker.end() }
                    try worker.waitUntilReady()
                    place.dropKernelCaches()
                    times[side, default: []].append(try worker.run(operation))
                case .preload, .library:
                    let server = try PrivateServer(device: image, options: ["--cache", MicroSuite.cache])
                    defer { _ = server.stop() }
                    let worker = try worker(side, round, server)
                    defer { worker.end() }
                    try worker.waitUntilReady()
                    let before = try ServerCounters(socket: server.socket).device
                    times[side, default: []].append(try worker.run(operation, .timed))
                    let after = try ServerCounters(socket: server.socket).device
                    requests[side]?.writes += after.writes - before.writes
                    requests[side]?.flushes += after.flushes - before.flushes
                    _ = try worker.run(operation, .finish)
                }
                line.update((Double(round) + Double(number) / Double(sides.count)) / Double(rounds))
            }
        }
        line.end()
        var results: [Comparison] = []
        for (side, name) in [(Side.preload, "preload"), (.library, "library")] {
            for (other, beside, limit) in [(Side.kernel, place.kernelName, 0.7), (.bare, "bare write + flush", 1.2)] where sides.contains(other) {
                let batches = zip(times[other] ?? [], times[side] ?? []).map { (baseline: $0, subject: $1) }
                var comparison = Comparison(
                    operation.title, through: name, beside: beside, batches: batches, count: operation.count,
                    goal: side == .preload && !place.isMemory ? .atMost(limit) : nil)
                let each = Double(rounds * operation.count)
                comparison.deviceRequests = requests[side].map { .init(writes: Double($0.writes) / each, flushes: Double($0.flushes) / each) }
                results.append(comparison)
            }
        }
        return results
    }

    private func worker(_ side: Side, _ round: Int, _ server: PrivateServer) throws(Failure) -> BenchWorker {
        if side == .library {
            return try BenchWorker(
                "library", ["--durable", "--root", "/library-\(round)", "--library", server.socket], environment: ProcessEnvironment())
        }
        var preloaded = try Preloading.environment(prefix: "/dash")
        preloaded["DASHFS_SOCKET"] = server.socket
        return try BenchWorker("preload", ["--durable", "--root", "/dash/preload-\(round)"], environment: preloaded)
    }
}
