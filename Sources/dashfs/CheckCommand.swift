// `dashfs check`: every structure of a volume, read-only. Invariant: the exit status is 0 (clean), 1 (findings) or 2 (could not be checked),
// whatever else happens.
import ArgumentParser
import BlockDevice
import Volume

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Verify every structure of a volume; changes nothing.",
        discussion: """
            Reads superblocks, journal, groups, bitmaps, inodes, trees, directories, links, attributes and every checksum. A
            volume that was not shut down in order is checked as its recovery would leave it. The device must not be served.

            EXAMPLES
              dashfs check disk.img
              dashfs check disk.img --json | jq .findings

            EXIT STATUS
              0 clean, 1 findings, 2 cannot be checked.
            """)

    @Argument(help: "A file or block device.", completion: .file())
    var device: String

    @OptionGroup var driver: DriverArguments

    @Flag(help: "One JSON object.")
    var json = false

    func run() throws {
        let opened: ReadOnlyDevice
        do throws(Failure) {
            opened = try ReadOnlyDevice(device, driver)
        } catch {
            throw cannotRun(error.message)
        }
        defer { opened.close() }
        let checker = VolumeChecker(opened.queue, opened.capabilities)
        var line = ProgressLine("checking \(device)")
        let findings = checker.run { line.update($0) }
        line.end()
        if findings.contains(where: { $0.kind == .noVolume }) { throw cannotRun("\(device): \(findings.map(\.message).joined(separator: "; "))") }
        if json {
            Terminal.output(try JSONText.encode(CheckReport(device: device, findings: findings, summary: checker.summary)))
        } else {
            show(findings, checker.summary)
        }
        if !findings.isEmpty { throw ExitCode(1) }
    }

    private func cannotRun(_ message: String) -> Failure {
        var failure = Failure(.unavailable, message)
        failure.exitCode = 2
        return failure
    }

    private func show(_ findings: [Finding], _ summary: VolumeChecker.Summary) {
        for finding in findings {
            Terminal.output("\(finding)")
            Terminal.output("    to do: \(finding.advice)")
        }
        if summary.untold > 0 { Terminal.output("... and \(summary.untold) more findings") }
        let content = "\(summary.directories) directories, \(summary.files) files, \(summary.others) others; \(summary.usedBlocks) of \(summary.blockCount) blocks hold content"
        if summary.replayedRecords > 0 { Terminal.output("\(device): was not shut down in order; checked with \(summary.replayedRecords) journal records replayed in memory") }
        let total = findings.count + summary.untold
        Terminal.output("\(device): \(total == 0 ? "clean" : "\(total) findings"); \(content)")
    }
}

private struct CheckReport: Encodable {
    struct Entry: Encodable {
        var severity, kind, message, advice: String
        var block, inode: UInt64?
        var path: String?
    }

    var device: String
    var clean: Bool
    var findings: [Entry]
    var untold, files, directories, others, replayedRecords: Int
    var usedBlocks, blockCount: UInt64

    init(device: String, findings: [Finding], summary: VolumeChecker.Summary) {
        self.device = device
        clean = findings.isEmpty
        self.findings = findings.map {
            Entry(
                severity: $0.severity.rawValue, kind: $0.kind.rawValue, message: $0.message, advice: $0.advice, block: $0.block, inode: $0.inode,
                path: $0.path)
        }
        untold = summary.untold
        files = summary.files
        directories = summary.directories
        others = summary.others
        replayedRecords = summary.replayedRecords
        usedBlocks = summary.usedBlocks
        blockCount = summary.blockCount
    }
}
