// `bench sequential`: a file of 1 GiB, written and read through a channel in pieces of 1 MiB, beside what fio(1) measures of the same disk without a file
// system of ours. Invariant: both sides go past the kernel's page cache over blocks that their files have had before, and the server's cache holds an
// eighth of the file; a write ends when fsync says so.
import BlockDevice
import CSystem
import Client
import Glibc

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

struct SequentialSuite {
    let rounds: Int
    let place: Workplace

    private static let bytes = 1 << 30
    private static let piece = 1 << 20
    private static let imageBytes: UInt64 = 5 << 29
    static let cache = "128M"

    func run() throws(Failure) -> [Comparison] {
        let raw = place.path + "/raw"
        try fill(raw, UInt64(SequentialSuite.bytes))
        let image = place.path + "/sequential.img"
        try fill(image, SequentialSuite.imageBytes)
        try place.format(image)
        let server = try PrivateServer(device: image, options: ["--cache", SequentialSuite.cache])
        defer { _ = server.stop() }
        let ground = try LibraryGround(socket: server.socket)
        var writes: [(Double, Double)] = []
        var reads: [(Double, Double)] = []
        var line = ProgressLine("1 GiB transfers")
        for round in 0..<rounds {
            try Interruption.check()
            // Who goes first changes from round to round.
            let first = round % 2 == 0
            var other = first ? try fio(raw, "write") : 0
            var own = try write(ground)
            if !first { other = try fio(raw, "write") }
            writes.append((other, own))
            other = first ? try fio(raw, "read") : 0
            own = try read(ground)
            if !first { other = try fio(raw, "read") }
            reads.append((other, own))
            line.update(Double(round + 1) / Double(rounds))
        }
        line.end()
        return [("write of a new 1 GiB file", writes), ("read of a 1 GiB file", reads)].map { name, pairs in
            Comparison(name, through: "library", beside: "fio, O_DIRECT", unit: .bytesPerSecond, pairs: pairs, goal: .atLeast(0.9))
        }
    }

    /// A file of that size with all its blocks, written once.
    private func fill(_ path: String, _ bytes: UInt64) throws(Failure) {
        try Failure.catching { () throws(DeviceError) in
            try FileDevice.create(path, size: bytes)
            let device = try FileDevice.open(path)
            defer { device.close() }
            _ = try DeviceBenchmark.sequential(.write, on: device, range: 0..<bytes)
        }
    }

    // MARK: Through the channel

    private func write(_ ground: LibraryGround) throws(Failure) -> Double {
        _ = unsafe "/file".withCString { unsafe ground.unlink($0) }
        let file = try open(ground, O_CREAT | O_WRONLY)
        _ = ground.channel.sync()
        unsafe ground.channel.dataArea.initializeMemory(as: UInt8.self, repeating: 0x5A, count: SequentialSuite.piece)
        let begun = dashfs_clock_monotonic()
        var short = false
        for place in stride(from: 0, to: SequentialSuite.bytes, by: SequentialSuite.piece) {
            if ground.channel.writeInPlace(file, count: SequentialSuite.piece, offset: Int64(place)) != SequentialSuite.piece { short = true }
        }
        if ground.synchronize(file) != 0 { short = true }
        let taken = dashfs_clock_monotonic() - begun
        _ = ground.close(file)
        return try bandwidth(taken, short)
    }

    private func read(_ ground: LibraryGround) throws(Failure) -> Double {
        let file = try open(ground, O_RDONLY)
        let begun = dashfs_clock_monotonic()
        var short = false
        for place in stride(from: 0, to: SequentialSuite.bytes, by: SequentialSuite.piece) {
            if ground.channel.readInPlace(file, count: SequentialSuite.piece, offset: Int64(place)) != SequentialSuite.piece { short = true }
        }
        let taken = dashfs_clock_monotonic() - begun
        _ = ground.close(file)
        return try bandwidth(taken, short)
    }

    private func open(_ ground: LibraryGround, _ flags: Int32) throws(Failure) -> Int32 {
        let file = unsafe "/file".withCString { unsafe ground.open($0, flags) }
        guard file >= 0 else { throw Failure(.system, "the volume takes no file: \(errorText(Int32(truncatingIfNeeded: -file)))") }
        return Int32(truncatingIfNeeded: file)
    }

    private func bandwidth(_ nanoseconds: UInt64, _ short: Bool) throws(Failure) -> Double {
        guard !short else { throw Failure(.inputOutput, "a transfer of the 1 GiB file failed or came back short") }
        return Double(SequentialSuite.bytes) * 1e9 / Double(max(nanoseconds, 1))
    }

    // MARK: fio

    static var hasFio: Bool {
        (Places.environment("PATH") ?? "/usr/bin").split(separator: ":").contains { unsafe access("\($0)/fio", X_OK) == 0 }
    }

    private struct FioReport: Decodable {
        struct Direction: Decodable { var bw_bytes: Double }
        struct Job: Decodable { var read, write: Direction }
        var jobs: [Job]
    }

    /// Bytes a second.
    private func fio(_ path: String, _ direction: String) throws(Failure) -> Double {
        let output = place.path + "/fio.json"
        let child = try ChildProcess(
            [
                "fio", "--name=raw", "--filename=\(path)", "--rw=\(direction)", "--bs=1M", "--iodepth=8", "--ioengine=io_uring", "--direct=1",
                "--size=1G", "--end_fsync=1", "--output-format=json", "--output=\(output)",
            ], environment: ProcessEnvironment())
        let status = child.wait()
        do {
            let report = try JSONDecoder().decode(FioReport.self, from: Data(SmallFile.text(output)?.utf8 ?? "".utf8))
            let job = report.jobs.first
            if status == 0, let value = (direction == "read" ? job?.read : job?.write)?.bw_bytes, value > 0 { return value }
        } catch {}
        throw Failure(.system, "fio ended with status \(status) and no bandwidth; leave the suite out: dashfs bench channel micro")
    }
}
