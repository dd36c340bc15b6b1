// What people see: lines on standard output and standard error, tables, and progress while something takes longer than a second.
// Invariant: progress and colours appear only where standard output is a terminal.
import CSystem
import Glibc

enum Terminal {
    static func output(_ text: String) { write(text + "\n", to: 1) }
    static func error(_ text: String) { write(text + "\n", to: 2) }

    static var isInteractive: Bool { isatty(1) == 1 }

    /// All of it, whatever write(2) takes at once; a reader that went away ends the writing.
    static func write(_ text: String, to descriptor: Int32) {
        var bytes = text[...].utf8
        while !bytes.isEmpty {
            let count = unsafe Array(bytes).withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return }
            bytes = bytes.dropFirst(count)
        }
    }

    /// Columns padded to their widest cell; the first column to the left, the others to the right.
    static func table(_ rows: [[String]]) -> String {
        let columns = rows.map(\.count).max() ?? 0
        var widths = [Int](repeating: 0, count: columns)
        for row in rows { for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.count) } }
        return rows.map { row in
            row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                if column == 0 { return row.count == 1 ? cell : cell + space }
                return space + cell
            }.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}

/// A line that says how far something is, from its second second on, on a terminal only.
struct ProgressLine {
    private let what: String
    private let begun = dashfs_clock_monotonic()
    private var shown: UInt64 = 0
    private let isInteractive = Terminal.isInteractive

    init(_ what: String) { self.what = what }

    mutating func update(_ share: Double) {
        guard isInteractive else { return }
        let now = dashfs_clock_monotonic()
        guard now - begun > 1_000_000_000, now - shown > 100_000_000 else { return }
        shown = now
        let percent = Int(min(max(share, 0), 1) * 100)
        Terminal.write("\r\(what): \(percent)%\u{1B}[K", to: 1)
    }

    /// Clears the line.
    mutating func end() {
        if shown > 0 { Terminal.write("\r\u{1B}[K", to: 1) }
        shown = 0
    }
}
