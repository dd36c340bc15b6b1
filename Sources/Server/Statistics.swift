import BlockDevice
import CSystem
import Wire

/// What a running server has counted: requests, errors and a latency histogram for each opcode, and the events of its own life.
///
/// Invariant: written by the worker's thread only, in memory allocated once. A latency (from the fetch of a request to its answer, parked time included) falls
/// in one of 256 buckets: four to each power of two of processor cycles, so a reported value is at most 25% above the true one.
@safe struct Statistics: ~Copyable {
    static let buckets = 256
    private static let stride = buckets + 2

    /// For each opcode: count, errors, buckets.
    private let table: UnsafeMutablePointer<UInt64>
    private let violations: UnsafeMutablePointer<UInt64>
    var doorbells: UInt64 = 0
    var clientWakes: UInt64 = 0
    var parked: UInt64 = 0
    var stalls: UInt64 = 0
    var sessionsOpened: UInt64 = 0
    var sessionsRefused: UInt64 = 0
    /// Lines that the device's driver had for the log.
    var deviceNotes: UInt64 = 0
    /// Things that the volume found wrong.
    var problems: UInt64 = 0
    let startedCycles: UInt64
    let startedNanoseconds: UInt64

    init() {
        let count = WireOpcode.count * Statistics.stride
        unsafe table = .allocate(capacity: count)
        unsafe table.initialize(repeating: 0, count: count)
        unsafe violations = .allocate(capacity: Violation.allCases.count)
        unsafe violations.initialize(repeating: 0, count: Violation.allCases.count)
        startedCycles = dashfs_cycles()
        startedNanoseconds = dashfs_clock_monotonic()
    }

    deinit {
        unsafe table.deallocate()
        unsafe violations.deallocate()
    }

    @inline(__always)
    mutating func record(_ opcode: WireOpcode, failed: Bool, cycles: UInt64) {
        let row = unsafe table + Int(opcode.rawValue) &* Statistics.stride
        unsafe row[0] &+= 1
        if failed { unsafe row[1] &+= 1 }
        unsafe row[2 &+ Statistics.bucket(cycles)] &+= 1
    }

    mutating func record(_ violation: Violation) { unsafe violations[violation.rawValue] &+= 1 }

    func count(_ violation: Violation) -> UInt64 { unsafe violations[violation.rawValue] }
    func count(_ opcode: WireOpcode) -> UInt64 { unsafe table[Int(opcode.rawValue) * Statistics.stride] }

    @inline(__always)
    static func bucket(_ cycles: UInt64) -> Int {
        let value = cycles | 4
        let power = 63 &- value.leadingZeroBitCount
        return power &* 4 &+ Int(truncatingIfNeeded: (value &>> UInt64(power &- 2)) & 3)
    }

    /// The largest value that falls in a bucket.
    static func upperEdge(_ bucket: Int) -> UInt64 {
        let power = max(bucket / 4, 2)
        let next = UInt64(bucket % 4 + 5) << UInt64(power - 2)
        return next == 0 ? UInt64.max : next - 1
    }

    /// The latency, in cycles, that `share` of the requests of an opcode stayed within.
    func percentile(_ opcode: WireOpcode, _ share: Double) -> UInt64 {
        let row = unsafe table + Int(opcode.rawValue) * Statistics.stride
        let wanted = max(1, UInt64((Double(unsafe row[0]) * share).rounded(.up)))
        var seen: UInt64 = 0
        for bucket in 0..<Statistics.buckets {
            seen += unsafe row[2 + bucket]
            if seen >= wanted { return Statistics.upperEdge(bucket) }
        }
        return 0
    }

    /// A JSON string.
    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "\u{0}"..."\u{1f}": quoted += " "
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }

    /// One JSON object; times in nanoseconds. `device`: what the driver has asked of the device.
    func json(
        epoch: UInt64, sessions: Int, channels: Int, arenaBytes: Int, rounds: UInt64, sleeps: UInt64, isReadOnly: Bool, readOnlyReason: String?,
        maps: (files: Int, pages: Int), device: DeviceCounters
    ) -> String {
        let nanoseconds = dashfs_clock_monotonic() &- startedNanoseconds
        let cycles = max(1, dashfs_cycles() &- startedCycles)
        let scale = Double(nanoseconds) / Double(cycles)
        var operations: [String] = []
        for opcode in WireOpcode.allCases where count(opcode) > 0 {
            let errors = unsafe table[Int(opcode.rawValue) * Statistics.stride + 1]
            let figures = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)].map { name, share in
                // A clock that was set back between two processors counts as the longest time.
                "\"\(name)\":\(UInt64(min(Double(percentile(opcode, share)) * scale, 1e18)))"
            }
            operations.append(
                "\"\(opcode)\":{\"count\":\(count(opcode)),\"errors\":\(errors),\"nanoseconds\":{\(figures.joined(separator: ","))}}")
        }
        var found: [String] = []
        for violation in Violation.allCases where count(violation) > 0 { found.append("\"\(violation)\":\(count(violation))") }
        return """
            {"epoch":\(epoch),"uptimeNanoseconds":\(nanoseconds),"sessions":\(sessions),"channels":\(channels),\
            "arenaBytes":\(arenaBytes),"mappedFiles":\(maps.files),"mappedPages":\(maps.pages),"readOnly":\(isReadOnly),"readOnlyReason":\(readOnlyReason.map(Statistics.quoted) ?? "null"),"problems":\(problems),\
            "rounds":\(rounds),"sessionsOpened":\(sessionsOpened),"sessionsRefused":\(sessionsRefused),"workerSleeps":\(sleeps),\
            "doorbells":\(doorbells),"clientWakes":\(clientWakes),"parked":\(parked),"stalls":\(stalls),\
            "device":{"reads":\(device.reads),"writes":\(device.writes),"flushes":\(device.flushes),"discards":\(device.discards),"notes":\(deviceNotes),\
            "bytesRead":\(device.bytesRead),"bytesWritten":\(device.bytesWritten)},\
            "violations":{\(found.joined(separator: ","))},"operations":{\(operations.joined(separator: ","))}}
            """
    }
}
