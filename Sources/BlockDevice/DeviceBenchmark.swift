/// What the bare device costs, without a file system: the raw side of `dashfs bench`.
///
/// Invariant: a run leaves the device's content undefined in the range it was given and untouched elsewhere. Times are of the
/// monotonic clock, in nanoseconds. Runs are short pieces that a caller alternates with the side it compares.
import Glibc

public func monotonicNanoseconds() -> UInt64 {
    var now = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
}

/// The least that a durable 4 KiB costs: pwrite(2) past the page cache and fdatasync(2), over blocks that the file has already.
@safe public final class RawWriteFlush {
    private let device: FileDevice
    private let block: UnsafeMutableRawBufferPointer
    private let blocks: Int
    private var next = 0

    /// Makes a file of `blocks` blocks at `path`, all of them written once, and durable.
    public init(path: String, blocks: Int = 1024) throws(DeviceError) {
        try FileDevice.create(path, size: UInt64(blocks) * UInt64(blockSize))
        device = try FileDevice.open(path)
        self.blocks = blocks
        unsafe block = .allocate(byteCount: blockSize, alignment: blockSize)
        _ = unsafe block.initializeMemory(as: UInt8.self, repeating: 0x42)
        for index in 0..<blocks { try write(index) }
        guard device.flushNow() == 0 else { throw DeviceError(device: path, errno: EIO, message: "cannot be flushed") }
    }

    deinit { unsafe block.deallocate() }

    /// - Returns: what each of `count` writes with its flush took.
    public func run(_ count: Int) throws(DeviceError) -> [UInt64] {
        var times: [UInt64] = []
        times.reserveCapacity(count)
        for _ in 0..<count {
            let start = monotonicNanoseconds()
            try write(next)
            let result = device.flushNow()
            times.append(monotonicNanoseconds() - start)
            guard result == 0 else { throw DeviceError(device: device.path, errno: EIO, message: "cannot be flushed") }
            next = (next + 1) % blocks
        }
        return times
    }

    private func write(_ index: Int) throws(DeviceError) {
        let count = unsafe pwrite(device.descriptor, block.baseAddress, blockSize, off_t(index * blockSize))
        guard count == blockSize else {
            throw DeviceError(device: device.path, errno: errno, message: "cannot be written: \(errorText(errno))")
        }
    }
}

public enum DeviceBenchmark {
    /// Reads or writes `range` (bytes, multiples of `transfer`) from its start to its end, `depth` requests at a time.
    /// - Returns: nanoseconds from the first submission to the last completion, and, for writes, a flush.
    public static func sequential(
        _ operation: DeviceOperation, on device: any BlockDevice, range: Range<UInt64>, transfer: Int = 1 << 20, depth: Int = 8
    ) throws(DeviceError) -> UInt64 {
        let queue = try device.makeQueue(depth: depth)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: transfer * depth, alignment: blockSize)
        defer { unsafe memory.deallocate() }
        guard let base = memory.baseAddress else { return 0 }
        unsafe memset(base, 0x42, memory.count)
        unsafe try queue.register(memory)
        let start = monotonicNanoseconds()
        var offset = range.lowerBound
        var free = Array(0..<depth)
        var error: Int32 = 0
        while offset < range.upperBound || queue.inFlight > 0 {
            while offset < range.upperBound, error == 0, let slot = free.popLast() {
                var segment = unsafe DeviceSegment(address: base + slot * transfer, length: transfer)
                _ = unsafe withUnsafePointer(to: &segment) {
                    unsafe queue.submit(
                        operation, offset: offset, segments: UnsafeBufferPointer(start: $0, count: 1), length: transfer,
                        forceUnitAccess: false, tag: UInt64(slot))
                }
                offset += UInt64(transfer)
            }
            queue.kick()
            if queue.inFlight == 0 { break }
            let completion = queue.waitForCompletion()
            if completion.error != 0 { error = completion.error }
            free.append(Int(completion.tag))
        }
        if error == 0 && operation == .write { error = queue.perform(.flush) }
        guard error == 0 else {
            throw DeviceError(
                device: device.capabilities.description, errno: error, message: "failed in the benchmark: \(errorText(error))")
        }
        return monotonicNanoseconds() - start
    }

    /// As `RawWriteFlush.run`, but through a device queue: what the driver adds. Polls, as a worker does.
    public static func writeAndFlush(
        on queue: any DeviceQueue, memory: UnsafeMutableRawBufferPointer, blocks: Int, count: Int
    ) throws(DeviceError) -> [UInt64] {
        var times: [UInt64] = []
        times.reserveCapacity(count)
        for index in 0..<count {
            let start = monotonicNanoseconds()
            var error = unsafe poll(queue, .write, UInt64(index % blocks) * UInt64(blockSize), memory)
            if error == 0 { error = unsafe poll(queue, .flush, 0, UnsafeMutableRawBufferPointer(start: nil, count: 0)) }
            times.append(monotonicNanoseconds() - start)
            guard error == 0 else { throw DeviceError(device: "benchmark", errno: error, message: errorText(error)) }
        }
        return times
    }

    private static func poll(
        _ queue: any DeviceQueue, _ operation: DeviceOperation, _ offset: UInt64, _ memory: UnsafeMutableRawBufferPointer
    ) -> Int32 {
        var segments: [DeviceSegment] = []
        if let start = memory.baseAddress { unsafe segments.append(DeviceSegment(address: start, length: memory.count)) }
        _ = unsafe segments.withUnsafeBufferPointer { segments in
            unsafe queue.submit(
                operation, offset: offset, segments: segments, length: memory.count, forceUnitAccess: false, tag: 0)
        }
        queue.kick()
        while true { if let completion = queue.nextCompletion() { return completion.error } }
    }
}
