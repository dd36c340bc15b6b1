// Two sides measured in turns in one run, and what their ratio was. Invariant: a ratio is of two neighbouring batches, so that what the machine
// does meanwhile meets both; medians, never means.

/// What the project asks of a ratio (docs/PERFORMANCE.md).
enum Goal: Encodable {
    case atMost(Double)
    case atLeast(Double)

    func isMet(by ratio: Double) -> Bool {
        switch self {
        case .atMost(let limit): ratio <= limit
        case .atLeast(let limit): ratio >= limit
        }
    }

    var text: String {
        switch self {
        case .atMost(let limit): "<= \(Comparison.hundredths(limit))"
        case .atLeast(let limit): ">= \(Comparison.hundredths(limit))"
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}

struct Comparison: Encodable {
    /// What `subject` and `baseline` are in.
    enum Unit: String, Encodable { case nanoseconds, bytesPerSecond }

    /// What was asked of the device for one operation, by the driver's counters, in the timed part only.
    struct DeviceRequests: Encodable { var writes, flushes: Double }

    var operation: String
    /// How programs reach DashFS: "preload", "library", "channel".
    var through: String
    var beside: String
    var unit: Unit
    /// Medians over the rounds: nanoseconds of one operation, or a bandwidth.
    var subject: Double
    var baseline: Double
    /// Subject divided by baseline: median, and the tenth and ninetieth percentile over the rounds.
    var ratio: Double
    var ratioLow: Double
    var ratioHigh: Double
    var rounds: Int
    var goal: Goal?
    var isMet: Bool?
    var deviceRequests: DeviceRequests?
    /// Median of a bare ping-pong of two processes in the same rounds, nanoseconds.
    var handOver: Double?

    /// - Parameter pairs: of each round, what the baseline and the subject measured, in `unit`.
    init(_ operation: String, through: String, beside: String, unit: Unit, pairs: [(baseline: Double, subject: Double)], goal: Goal? = nil) {
        self.operation = operation
        self.through = through
        self.beside = beside
        self.unit = unit
        subject = Comparison.percentile(pairs.map(\.subject), 0.5)
        baseline = Comparison.percentile(pairs.map(\.baseline), 0.5)
        let ratios = pairs.map { $0.subject / max($0.baseline, .leastNonzeroMagnitude) }
        ratio = Comparison.percentile(ratios, 0.5)
        ratioLow = Comparison.percentile(ratios, 0.1)
        ratioHigh = Comparison.percentile(ratios, 0.9)
        rounds = pairs.count
        self.goal = goal
        isMet = goal?.isMet(by: ratio)
    }

    /// Of batches that took so many nanoseconds for `count` operations each.
    init(_ operation: String, through: String, beside: String, batches: [(baseline: UInt64, subject: UInt64)], count: Int, goal: Goal? = nil) {
        let each = Double(max(count, 1))
        self.init(
            operation, through: through, beside: beside, unit: .nanoseconds,
            pairs: batches.map { (Double($0.baseline) / each, Double($0.subject) / each) }, goal: goal)
    }

    /// The value below which a share of them lies, nearest rank.
    static func percentile(_ values: [Double], _ share: Double) -> Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return 0 }
        return sorted[min(sorted.count - 1, Int((Double(sorted.count - 1) * share).rounded()))]
    }

    static func table(_ comparisons: [Comparison]) -> String {
        var rows = [["operation", "through", "DashFS", "beside", "other", "ratio", "10%", "90%", "hand-over", "goal", ""]]
        for comparison in comparisons {
            rows.append([
                comparison.operation, comparison.through, comparison.text(comparison.subject), comparison.beside, comparison.text(comparison.baseline),
                hundredths(comparison.ratio), hundredths(comparison.ratioLow), hundredths(comparison.ratioHigh),
                comparison.handOver.map { Duration.text(UInt64($0)) } ?? "", comparison.goal?.text ?? "", comparison.isMet.map { $0 ? "met" : "missed" } ?? "",
            ])
        }
        return Terminal.table(rows)
    }

    private func text(_ value: Double) -> String {
        switch unit {
        case .nanoseconds: Duration.text(UInt64(value))
        case .bytesPerSecond: "\(Int(value / 1_000_000)) MB/s"
        }
    }

    static func hundredths(_ value: Double) -> String {
        let number = Int((min(value, 1e12) * 100).rounded())
        return "\(number / 100).\(number % 100 < 10 ? "0" : "")\(number % 100)"
    }
}
