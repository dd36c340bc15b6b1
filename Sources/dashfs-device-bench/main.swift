// The drivers alone, for people who ask what the file system adds and for the test that counts system calls.
//
//   dashfs-device-bench write-flush FILE COUNT   4 KiB write + flush: bare system calls, and each way of driving the file
//   dashfs-device-bench sequential FILE BYTES    bandwidth, 1 MiB requests, 8 in flight
//   dashfs-device-bench requests FILE COUNT      COUNT 4 KiB reads and writes, polled, submission thread, registered memory
// FILE is made, and removed at the end.
import BlockDevice
import Glibc

func median(_ times: [UInt64]) -> String {
    let sorted = times.sorted()
    guard !sorted.isEmpty else { return "-" }
    return "median \(sorted[sorted.count / 2] / 1000) us, 90% below \(sorted[sorted.count * 9 / 10] / 1000) us"
}

func ways() -> [(String, FileDevice.Options)] {
    var polled = FileDevice.Options()
    polled.submissionPollingMilliseconds = 1000
    var plain = FileDevice.Options()
    plain.useUring = false
    var queued = FileDevice.Options()
    queued.flush = .queued
    return [
        ("io_uring", FileDevice.Options()), ("io_uring, submission thread", polled), ("io_uring, flushes queued", queued),
        ("plain calls", plain),
    ]
}

func run(_ arguments: [String]) throws {
    guard arguments.count == 4, let amount = ByteSize.parse(arguments[3]), amount > 0, amount < 1 << 40 else {
        print("usage: dashfs-device-bench write-flush|sequential|requests FILE COUNT")
        exit(EX_USAGE)
    }
    let path = arguments[2]
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: blockSize)
    _ = unsafe memory.initializeMemory(as: UInt8.self, repeating: 0x42)
    defer { unsafe memory.deallocate() }
    defer { _ = unsafe unlink(path) }
    switch arguments[1] {
    case "write-flush":
        let raw = try RawWriteFlush(path: path)
        let block = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[0..<blockSize])
        // The bare side has the file: the driver gets one of its own, written once as well.
        let other = path + ".driver"
        defer { _ = unsafe unlink(other) }
        _ = try RawWriteFlush(path: other)
        var bare: [UInt64] = []
        for (name, options) in ways() {
            let device = try FileDevice.open(other, options: options)
            let queue = try device.makeQueue(depth: 8)
            unsafe try queue.register(memory)
            var times: [UInt64] = []
            for _ in 0..<10 {
                bare += try raw.run(Int(amount) / 10)
                unsafe times += try DeviceBenchmark.writeAndFlush(on: queue, memory: block, blocks: 1024, count: Int(amount) / 10)
            }
            print("\(name): \(median(times))")
            device.close()
        }
        print("bare pwrite + fdatasync: \(median(bare))")
    case "sequential":
        let bytes = max(amount >> 20, 1) << 20
        try FileDevice.create(path, size: bytes)
        for (name, options) in ways() {
            let device = try FileDevice.open(path, options: options)
            for (operation, verb) in [(DeviceOperation.write, "written"), (.write, "overwritten"), (.read, "read")] {
                let time = try DeviceBenchmark.sequential(operation, on: device, range: 0..<bytes)
                print("\(name): \(bytes * 1000 / max(time, 1)) MB/s \(verb)")
            }
            device.close()
        }
    case "requests":
        try FileDevice.create(path, size: 1 << 20)
        let device = try FileDevice.open(path, options: ways()[1].1)
        let queue = try device.makeQueue(depth: 64)
        unsafe try queue.register(memory)
        var sent: UInt64 = 0
        var done: UInt64 = 0
        var failed: UInt64 = 0
        while done < amount {
            while sent < amount && queue.room > 0 {
                let place = Int(sent % 64) * blockSize
                var segment = unsafe DeviceSegment(address: memory.baseAddress! + place, length: blockSize)
                _ = unsafe withUnsafePointer(to: &segment) {
                    unsafe queue.submit(
                        sent % 2 == 0 ? .write : .read, offset: UInt64(place), segments: UnsafeBufferPointer(start: $0, count: 1),
                        length: blockSize, forceUnitAccess: false, tag: sent)
                }
                sent += 1
            }
            queue.kick()
            while let completion = queue.nextCompletion() {
                done += 1
                if completion.error != 0 { failed += 1 }
            }
        }
        print("\(done) requests, \(failed) failed")
        for warning in device.warnings { print("warning: \(warning)") }
        device.close()
    default:
        print("usage: dashfs-device-bench write-flush|sequential|requests FILE COUNT")
        exit(EX_USAGE)
    }
}

do {
    try run(CommandLine.arguments)
} catch {
    print("dashfs-device-bench: \(error)")
    exit(EX_IOERR)
}
