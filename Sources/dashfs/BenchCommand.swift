// `dashfs bench`: what an operation costs, beside the same operation of the kernel's file system, the bare device, or the least two processes need.
// Invariant: the sides of every comparison take turns in one run; everything that was made for it is gone afterwards.
import ArgumentParser
import BlockDevice
import CSystem
import Glibc

struct BenchCommand: ParsableCommand {
    enum Suite: String, ExpressibleByArgument, CaseIterable { case channel, micro, sequential }

    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure DashFS beside the kernel's file system and the bare device.",
        discussion: """
            channel     a request without content, and 4 KiB appends with 64 under way, beside a bare ping-pong of two processes
            micro       reads, writes, names and fsync, through system calls under `dashfs run` (preload) and through the library, each
                        beside the same system calls on the kernel's file system: on the disk that holds --directory, or tmpfs with
                        --memory; create + fsync also beside a bare loop of 4 KiB writes and flushes on the same disk
            sequential  1 GiB written and read through a channel, beside what fio measures of the same disk

            A ratio is DashFS divided by the other (times; bandwidths for the 1 GiB transfers) in neighbouring batches: median, and tenth
            and ninetieth percentile. Two minutes on a quiet machine; --quick shows the same table with three batches of each side.

            EXAMPLES
              dashfs bench
              dashfs bench micro --directory /srv/scratch --rounds 31
              dashfs bench micro --memory --json
            """)

    @Argument(help: "Which suites; all where none is named.")
    var suites: [Suite] = []

    @Option(help: ArgumentHelp("Where the images and the kernel's files are put.", valueName: "path"), completion: .directory)
    var directory = "."

    @Flag(help: "Memory device beside tmpfs instead of an image beside the disk's file system.")
    var memory = false

    @Option(help: "Batches of each side.")
    var rounds = 15

    @Flag(help: "Three batches of each side, one of the 1 GiB transfers.")
    var quick = false

    @Flag(help: "One JSON object, times in nanoseconds.")
    var json = false

    func validate() throws {
        guard rounds > 0, rounds <= 10_000 else { throw ValidationError("--rounds takes 1 to 10000") }
    }

    func run() throws {
        // A worker that has ended is told by its answer that does not come.
        signal(SIGPIPE, SIG_IGN)
        Interruption.postpone()
        let place = try Workplace(directory: directory, memory: memory)
        defer { place.remove() }
        let rounds = quick ? 3 : rounds
        var report = BenchReport(place: place, rounds: rounds)
        for suite in suites.isEmpty ? Suite.allCases : suites {
            switch suite {
            case .channel: report.results += try ChannelSuite(rounds: rounds).run()
            case .micro:
                report.results += try MicroSuite(rounds: rounds, place: place).run()
                report.results += try DurableSuite(rounds: rounds, place: place).run()
            case .sequential:
                if memory {
                    report.notes.append("sequential: there is no bare device beside a memory device; run without --memory")
                } else if !SequentialSuite.hasFio {
                    report.notes.append("sequential: fio is not installed, so the 1 GiB transfers were left out; `make deps` installs it")
                } else if place.freeBytes < 4 << 30 {
                    report.notes.append("sequential: \(place.path) has less than 4G free, so the 1 GiB transfers were left out; choose another --directory")
                } else {
                    report.results += try SequentialSuite(rounds: quick ? 1 : min(rounds, 5), place: place).run()
                }
            }
        }
        report.end(place)
        Terminal.output(json ? try JSONText.encode(report) : report.text)
    }
}

/// Everything a reader has to know to make sense of the numbers.
private struct BenchReport: Encodable {
    var processors = Int(dashfs_processors())
    var kernelFileSystem: String
    var rounds: Int
    /// Threads that wanted a processor before the first batch, on average over a minute.
    var loadBefore: Double
    var notes: [String] = []
    var results: [Comparison] = []

    init(place: Workplace, rounds: Int) {
        kernelFileSystem = place.kernelName
        self.rounds = rounds
        var load = 0.0
        loadBefore = unsafe getloadavg(&load, 1) == 1 ? load : 0
        let device = place.isMemory ? "a memory device" : "an image there, past the page cache"
        notes = [
            "One client, \(processors) processors. Beside: \(place.kernelName) at \(place.base). DashFS: \(device), cache \(MicroSuite.cache) (1 GiB transfers: \(SequentialSuite.cache)).",
            "Medians of \(rounds) batches a side, the sides in turns. Ratio: DashFS divided by the other, of neighbouring batches; median, 10th and 90th percentile. Times: less is better; MB/s: more is.",
            "hand-over: a bare ping-pong of two processes meanwhile. It depends on which cores the host gives them; what it is for one cache line, a 4 KiB transfer pays for its sixty-four.",
            "preload: system calls of an unmodified program under `dashfs run`; library: calls of FS Lib.",
        ]
    }

    mutating func end(_ place: Workplace) {
        var told: Set<String> = []
        for result in results {
            guard let requests = result.deviceRequests, told.insert(result.through).inserted else { continue }
            notes.append(
                "\(result.operation), \(result.through): \(Comparison.hundredths(requests.writes)) device writes and \(Comparison.hundredths(requests.flushes)) flushes each, by the driver's counters")
        }
        if !place.droppedCaches { notes.append("The kernel's caches were not dropped before its batches of create + fsync: that needs root.") }
        if loadBefore > Double(processors) / 2 {
            notes.append("The machine was busy (load \(Comparison.hundredths(loadBefore))): a spread of more than a tenth or two says that these ratios are noise.")
        }
    }

    var text: String { ([Comparison.table(results), ""] + notes).joined(separator: "\n") }
}
