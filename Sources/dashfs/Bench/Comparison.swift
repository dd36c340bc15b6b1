// Two sides measured in turns in one run, and what their ratio was. Invariant: a ratio is of two neighbouring batches, so that what the machine
// does meanwhile meets both; medians, never means.

struct Comparison: Encodable {
    var operation: String
    var baseline: String
    var subject: String
    /// Nanoseconds for one operation, median over the rounds.
    var baselineNanoseconds: Double
    var subjectNanoseconds: Double
    /// Subject's time divided by the baseline's: median, and the tenth and ninetieth percentile over the rounds.
    var ratio: Double
    var ratioLow: Double
    var ratioHigh: Double
    var rounds: Int
    /// Of operations that are about durability: requests to the device for one operation, by the driver's counters, clean-up included.
    var deviceWrites: Double?
    var deviceFlushes: Double?

    /// - Parameter batches: of each round, nanoseconds of the baseline's batch and of the subject's.
    init(_ operation: String, baseline: String, subject: String, batches: [(baseline: UInt64, subject: UInt64)], operationsPerBatch: Int) {
        self.operation = operation
        self.baseline = baseline
        self.subject = subject
        let each = Double(max(operationsPerBatch, 1))
        baselineNanoseconds = Comparison.percentile(batches.map { Double($0.baseline) / each }, 0.5)
        subjectNanoseconds = Comparison.percentile(batches.map { Double($0.subject) / each }, 0.5)
        let ratios = batches.map { Double($0.subject) / Double(max($0.baseline, 1)) }
        ratio = Comparison.percentile(ratios, 0.5)
        ratioLow = Comparison.percentile(ratios, 0.1)
        ratioHigh = Comparison.percentile(ratios, 0.9)
        rounds = batches.count
    }

    /// The value below which a share of them lies, nearest rank.
    static func percentile(_ values: [Double], _ share: Double) -> Double {
        let sorted = values.sorted()
        guard !sorted.isEmpty else { return 0 }
        return sorted[min(sorted.count - 1, Int((Double(sorted.count - 1) * share).rounded()))]
    }

    static func table(_ comparisons: [Comparison]) -> String {
        var rows = [["operation", "beside", "time", "through", "time", "ratio", "10%", "90%"]]
        for comparison in comparisons {
            rows.append([
                comparison.operation, comparison.baseline, Duration.text(UInt64(comparison.baselineNanoseconds)), comparison.subject,
                Duration.text(UInt64(comparison.subjectNanoseconds)), hundredths(comparison.ratio), hundredths(comparison.ratioLow),
                hundredths(comparison.ratioHigh),
            ])
        }
        var text = Terminal.table(rows)
        for comparison in comparisons {
            guard let writes = comparison.deviceWrites, let flushes = comparison.deviceFlushes else { continue }
            text += "\n\(comparison.operation): \(hundredths(writes)) device writes and \(hundredths(flushes)) flushes each (all of DashFS's batches)"
            break
        }
        return text
    }

    private static func hundredths(_ value: Double) -> String {
        let number = Int((value * 100).rounded())
        return "\(number / 100).\(number % 100 < 10 ? "0" : "")\(number % 100)"
    }
}
