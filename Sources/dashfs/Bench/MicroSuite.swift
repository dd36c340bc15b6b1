// `bench micro`, one operation at a time: through system calls under the preload library and through FS Lib, each beside the same system calls on the
// kernel's file system. Invariant: all three do the same loop on files of the same sizes, in turns; who goes first changes from round to round.
// What two processes need to hand something over is measured in every round: where it is several times what it was, ratios to the kernel's are too.

struct MicroSuite {
    let rounds: Int
    let place: Workplace
    static let cache = "256M"
    /// Of a ping-pong in each round: half a millisecond.
    private static let trips = 2000

    func run() throws(Failure) -> [Comparison] {
        let server = try PrivateServer(device: try place.volume("micro", size: 1 << 30), options: ["--cache", MicroSuite.cache])
        defer { _ = server.stop() }
        var preloaded = try Preloading.environment(prefix: "/dash")
        preloaded["DASHFS_SOCKET"] = server.socket
        let kernel = try BenchWorker(place.kernelName, ["--root", place.path + "/kernel"], environment: ProcessEnvironment())
        defer { kernel.end() }
        let preload = try BenchWorker("preload", ["--root", "/dash/system-calls"], environment: preloaded)
        defer { preload.end() }
        let library = try BenchWorker("library", ["--root", "/library", "--library", server.socket], environment: ProcessEnvironment())
        defer { library.end() }
        for worker in [kernel, preload, library] { try worker.waitUntilReady() }
        let pingPong = try HandOver()
        defer { pingPong.end() }
        var results: [Comparison] = []
        var line = ProgressLine("micro")
        let operations = MicroOperation.allCases.filter { $0 != .durable }
        for (index, operation) in operations.enumerated() {
            for worker in [kernel, preload, library] { _ = try worker.run(operation) }
            var preloadBatches: [(UInt64, UInt64)] = []
            var libraryBatches: [(UInt64, UInt64)] = []
            var handOvers: [Double] = []
            for round in 0..<rounds {
                try Interruption.check()
                let first = round % 2 == 0
                let before = first ? try kernel.run(operation) : 0
                let underPreload = try preload.run(operation)
                let middle = try kernel.run(operation)
                // The server has gone to sleep meanwhile.
                handOvers.append(Double(try pingPong.batch(MicroSuite.trips)) / Double(MicroSuite.trips))
                let throughLibrary = try library.run(operation)
                let after = first ? 0 : try kernel.run(operation)
                preloadBatches.append((first ? before : middle, underPreload))
                libraryBatches.append((first ? middle : after, throughLibrary))
                line.update((Double(index) + Double(round) / Double(rounds)) / Double(operations.count))
            }
            for (worker, batches) in [(preload, preloadBatches), (library, libraryBatches)] {
                var comparison = Comparison(
                    operation.title, through: worker.title, beside: kernel.title, batches: batches, count: operation.count,
                    goal: place.isMemory ? nil : operation.goal(through: worker.title))
                comparison.handOver = Comparison.percentile(handOvers, 0.5)
                results.append(comparison)
            }
        }
        line.end()
        return results
    }
}
