// One side of a comparison: a process that does what its standard input says, batch by batch, and answers with the time each took. Between
// batches it sleeps in read(2), so that the sides take turns. Started by `bench` only.
import ArgumentParser
import CSystem
import Glibc

struct BenchWorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "bench-worker", shouldDisplay: false)

    @Option var root: String?
    /// Through FS Lib at this socket instead of system calls.
    @Option var library: String?
    /// Only the directory for `durable`, with nothing in it.
    @Flag var durable = false
    /// Echoes the words of a shared page at this descriptor.
    @Option var echo: Int32?

    func run() throws {
        if let echo { return try PingPong(descriptor: echo).echoAll() }
        do {
            if let library {
                try serve(Workload(LibraryGround(socket: library), root: root ?? "/bench", onlyDirectory: durable))
            } else {
                try serve(Workload(SystemCallGround(), root: root ?? ".", onlyDirectory: durable))
            }
        } catch let failed as Workload<SystemCallGround>.Failed {
            Terminal.output("error \(failed.what): \(errorText(failed.number))")
        } catch let failed as Workload<LibraryGround>.Failed {
            Terminal.output("error \(failed.what): \(errorText(failed.number))")
        }
    }

    private func serve(_ workload: Workload<some Ground>) throws {
        Terminal.output("ready")
        while let line = readLine() {
            let words = line.split(separator: " ")
            guard words.count == 3, let part = BatchPart(rawValue: String(words[0])), let operation = MicroOperation(rawValue: String(words[1])),
                let count = Int(words[2])
            else { return }
            Terminal.output("\(try workload.run(operation, count: count, part))")
        }
    }
}

/// The parent's end of such a process.
final class BenchWorker {
    private let child: ChildProcess
    private let input: Int32
    private let output: Int32
    let title: String

    /// - Parameter inherited: a descriptor that the child gets as number 3.
    init(_ title: String, _ arguments: [String], environment: ProcessEnvironment, inherited: Int32 = -1) throws(Failure) {
        self.title = title
        var to: [Int32] = [-1, -1]
        var from: [Int32] = [-1, -1]
        guard unsafe dashfs_make_pipe(&to) == 0, unsafe dashfs_make_pipe(&from) == 0 else { throw Failure(.system, "no pipe: \(errorText(EMFILE))") }
        child = try ChildProcess(
            [Places.executable, "bench-worker"] + arguments, environment: environment, input: to[0], output: from[1], inherited: inherited)
        close(to[0])
        close(from[1])
        input = to[1]
        output = from[0]
    }

    /// Waits until it has made its files.
    func waitUntilReady() throws(Failure) { _ = try answer(to: "its preparation") }

    /// Nanoseconds of the timed part.
    func run(_ operation: MicroOperation, _ part: BatchPart = .whole) throws(Failure) -> UInt64 {
        try ask("\(part.rawValue) \(operation.rawValue) \(operation.count)")
    }

    private func ask(_ line: String) throws(Failure) -> UInt64 {
        tell(line)
        let text = try answer(to: line)
        guard let nanoseconds = UInt64(text) else { throw Failure(.system, "\(title): \(line): \(text)") }
        return nanoseconds
    }

    func tell(_ line: String) { Terminal.write(line + "\n", to: input) }

    func answer() throws(Failure) -> String { try answer(to: "a batch") }

    private func answer(to question: String) throws(Failure) -> String {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while true {
            let count = unsafe read(output, &byte, 1)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw Failure(.system, "\(title): the process ended during \(question)") }
            if byte == 0x0A { break }
            bytes.append(byte)
        }
        let text = String(decoding: bytes, as: UTF8.self)
        if text.hasPrefix("error ") { throw Failure(.system, "\(title): \(text.dropFirst(6))") }
        return text
    }

    func end() {
        close(input)
        _ = child.wait()
        close(output)
    }
}
