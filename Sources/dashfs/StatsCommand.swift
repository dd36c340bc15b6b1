// `dashfs stats`: what a running server has counted. Invariant: asking changes nothing but the count of connections.
import ArgumentParser
import Wire

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show the counters and latencies of a running server.",
        discussion: """
            Latencies are the server's: from taking a request to answering it, waiting for the device included.

            EXAMPLES
              dashfs stats
              dashfs stats --json --socket /run/dashfs/dashfs.sock
            """)

    @Option(help: ArgumentHelp("Where the server listens.", valueName: "path"), completion: .file())
    var socket: String?

    @Flag(help: "One JSON object, times in nanoseconds.")
    var json = false

    func run() throws {
        let connection = try ControlConnection(socket ?? Places.clientSocket())
        defer { connection.close() }
        let bytes = try connection.ask(ControlMessage.Kind.statistics)
        if json { return Terminal.output(String(decoding: bytes, as: UTF8.self)) }
        Terminal.output(try ServerCounters(bytes).text)
    }
}

/// The server's JSON.
struct ServerCounters: Decodable {
    struct Device: Decodable { var reads, writes, flushes, discards, notes, bytesRead, bytesWritten: UInt64 }

    struct Operation: Decodable {
        struct Latency: Decodable { var p50, p90, p99, p999, max: UInt64 }
        var count, errors: UInt64
        var nanoseconds: Latency
    }

    var uptimeNanoseconds, sessionsOpened, sessionsRefused, workerSleeps, rounds, doorbells, clientWakes, parked, stalls, problems: UInt64
    var sessions, channels, mappedFiles, mappedPages: Int
    var arenaBytes: UInt64
    var readOnly: Bool
    var readOnlyReason: String?
    var violations: [String: UInt64]
    var operations: [String: Operation]
    var device: Device

    init(_ bytes: [UInt8]) throws(Failure) {
        guard let counters = try? JSONDecoder().decode(ServerCounters.self, from: Data(bytes)) else {
            throw Failure(.data, "the server's answer is not understood; use the dashfs it was started with, or --json")
        }
        self = counters
    }

    /// Of the server at a socket.
    init(socket: String) throws(Failure) {
        let connection = try ControlConnection(socket)
        defer { connection.close() }
        try self.init(connection.ask(ControlMessage.Kind.statistics))
    }

    var text: String {
        var lines = [
            "up \(Duration.text(uptimeNanoseconds)), \(sessions) sessions (\(sessionsOpened) opened, \(sessionsRefused) refused), \(channels) channels with \(Quantity.text(arenaBytes)) of shared memory",
            "\(parked) requests waited inside, \(stalls) stalls, \(rounds) rounds, \(workerSleeps) sleeps, \(doorbells) doorbells, \(clientWakes) clients woken",
            "device: \(device.reads) reads (\(Quantity.text(device.bytesRead))), \(device.writes) writes (\(Quantity.text(device.bytesWritten))), \(device.flushes) flushes, \(device.discards) discards",
        ]
        if mappedFiles > 0 { lines.append("\(mappedFiles) files are mapped, \(mappedPages) pages of 4 KiB of them in memory") }
        if readOnly { lines.append("the volume is read-only: \(readOnlyReason ?? "the server's log says why")") }
        if device.notes > 0 { lines.append("lines about the device in the server's log: \(device.notes)") }
        if problems > 0 { lines.append("problems found in the volume: \(problems); the server's log names them") }
        for (name, count) in violations.sorted(by: { $0.key < $1.key }) { lines.append("violation \(name): \(count)") }
        if operations.isEmpty { return lines.joined(separator: "\n") }
        var rows = [["operation", "count", "errors", "p50", "p90", "p99", "p99.9", "max"]]
        for (name, operation) in operations.sorted(by: { $0.value.count > $1.value.count }) {
            let latency = operation.nanoseconds
            rows.append(
                [name, "\(operation.count)", "\(operation.errors)"]
                    + [latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map(Duration.text))
        }
        return (lines + ["", Terminal.table(rows)]).joined(separator: "\n")
    }
}

/// Nanoseconds for people.
enum Duration {
    static func text(_ nanoseconds: UInt64) -> String {
        switch nanoseconds {
        case ..<10_000: return "\(nanoseconds) ns"
        case ..<10_000_000: return "\(tenths(nanoseconds, 1_000)) us"
        case ..<10_000_000_000: return "\(tenths(nanoseconds, 1_000_000)) ms"
        default: return "\(tenths(nanoseconds, 1_000_000_000)) s"
        }
    }

    private static func tenths(_ value: UInt64, _ unit: UInt64) -> String {
        let tenths = value / (unit / 10)
        return "\(tenths / 10).\(tenths % 10)"
    }
}
