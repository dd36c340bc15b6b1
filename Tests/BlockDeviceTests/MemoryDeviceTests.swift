/// The memory device, and what every driver owes its caller in the way of refused requests.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct MemoryDeviceTests {
    @Test func writtenBlocksReadBack() throws {
        let queue = try MemoryDevice(size: 1 << 20).makeQueue(depth: 4)
        var bytes = AlignedBytes(count: 8192, repeating: 0x5A)
        #expect(queue.perform(.write, offset: 4096, bytes) == 0)
        bytes = AlignedBytes(count: 8192)
        #expect(queue.perform(.read, offset: 4096, bytes) == 0)
        #expect(bytes.array == [UInt8](repeating: 0x5A, count: 8192))
        #expect(queue.perform(.read, offset: 0, bytes) == 0)
        #expect(bytes.array == [UInt8](repeating: 0, count: 4096) + [UInt8](repeating: 0x5A, count: 4096))
    }

    @Test func nothingCompletesBeforeKickAndThenInOrder() throws {
        let queue = try MemoryDevice(size: 1 << 20).makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 4096)
        for tag in 0..<4 { #expect(queue.submit(.read, offset: 0, bytes, tag: UInt64(tag))) }
        #expect(queue.room == 0 && queue.inFlight == 4)
        #expect(!queue.submit(.read, offset: 0, bytes, tag: 9), "a full queue takes nothing")
        #expect(queue.nextCompletion() == nil)
        queue.kick()
        for tag in 0..<4 { #expect(queue.nextCompletion() == DeviceCompletion(tag: UInt64(tag), error: 0)) }
        #expect(queue.nextCompletion() == nil)
        #expect(queue.room == 4 && queue.inFlight == 0)
    }

    @Test func countsWhatReachesTheDevice() throws {
        let queue = try MemoryDevice(size: 1 << 20).makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 8192)
        #expect(queue.perform(.write, offset: 0, bytes) == 0)
        #expect(queue.perform(.read, offset: 0, bytes) == 0)
        #expect(queue.perform(.flush) == 0)
        #expect(queue.perform(.discard, offset: 0, length: 4096) == 0)
        #expect(queue.perform(.writeZeroes, offset: 0, length: 4096) == 0)
        #expect(queue.perform(.write, offset: 1, bytes) == EINVAL)
        var expected = DeviceCounters()
        expected.reads = 1
        expected.writes = 1
        expected.flushes = 1
        expected.discards = 1
        expected.writeZeroes = 1
        expected.bytesRead = 8192
        expected.bytesWritten = 8192
        #expect(queue.counters == expected)
    }

    @Test func impossibleRequestsAreRefusedAndNothingTraps() throws {
        let device = try MemoryDevice(size: 16 * 4096) {
            $0.supportsDiscard = false
            $0.supportsForceUnitAccess = false
            $0.memoryAlignment = 512
            $0.maximumTransfer = 8192
        }
        let queue = try device.makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 16384)
        let one = bytes[0..<4096]
        #expect(queue.perform(.read, offset: 15 * 4096, one) == 0)
        #expect(queue.perform(.read, offset: 16 * 4096, one) == EINVAL)
        #expect(queue.perform(.read, offset: 15 * 4096, bytes[0..<8192]) == EINVAL)
        #expect(queue.perform(.read, offset: UInt64.max - 4095, one) == EINVAL)
        #expect(queue.perform(.read, offset: 512, one) == EINVAL)
        #expect(queue.perform(.read, offset: 0, bytes[0..<512]) == EINVAL)
        #expect(queue.perform(.read, offset: 0, bytes[8..<4104]) == EINVAL)
        #expect(queue.perform(.read, offset: 0, bytes[0..<0]) == EINVAL)
        #expect(queue.perform(.read, offset: 0, bytes) == EINVAL, "past the longest transfer")
        #expect(queue.perform(.write, offset: 0, one, forceUnitAccess: true) == EOPNOTSUPP)
        #expect(queue.perform(.discard, offset: 0, length: 4096) == EOPNOTSUPP)
        #expect(queue.perform(.writeZeroes, offset: 0, length: -4096) == EINVAL)
        #expect(queue.perform(.writeZeroes, offset: 0, length: Int.max / 4096 * 4096) == EINVAL)
        let readOnly = try MemoryDevice(size: 4096) { $0.readOnly = true }.makeQueue(depth: 1)
        #expect(readOnly.perform(.write, offset: 0, one) == EROFS)
        #expect(throws: DeviceError.self) { try device.makeQueue(depth: 0) }
        #expect(throws: DeviceError.self) { try MemoryDevice(size: 100) }
        #expect(throws: DeviceError.self) { try MemoryDevice(size: UInt64.max) }
    }

    @Test func segmentsAreScatteredAndGatheredInOrder() throws {
        let queue = try MemoryDevice(size: 1 << 20).makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 8192)
        for i in 0..<16 { bytes.fill(i * 512..<(i + 1) * 512, with: UInt8(i)) }
        #expect(queue.submit(.write, offset: 0, segments: [bytes[512..<1024], bytes[0..<512], bytes[1024..<4096]], tag: 1))
        queue.kick()
        #expect(queue.nextCompletion() == DeviceCompletion(tag: 1, error: 0))
        #expect(queue.perform(.read, offset: 0, bytes[4096..<8192]) == 0)
        #expect(bytes.array[4096] == 1 && bytes.array[4608] == 0 && bytes.array[5120] == 2)
    }
}

@Suite struct ByteSizeTests {
    @Test(arguments: [
        ("0", 0), ("4096", 4096), ("4096b", 4096), ("64K", 65536), ("64k", 65536), ("1M", 1 << 20), ("512MiB", 512 << 20),
        ("1GB", 1 << 30), ("8T", 8 << 40), ("15P", 15 << 50),
    ] as [(String, UInt64)])
    func sizesAreRead(_ text: String, _ bytes: UInt64) { #expect(ByteSize.parse(text) == bytes) }

    @Test(arguments: ["", "G", "-1G", "1.5G", "1X", "1GG", "1 G", "18446744073709551616", "99999999P", "1iB", "٣K"])
    func otherTextIsNoSize(_ text: String) { #expect(ByteSize.parse(text) == nil) }

    @Test(arguments: [0, 1, 4096, 5000, 1 << 20, 3 << 30, 1 << 50, UInt64.max] as [UInt64])
    func whatIsPrintedReadsBack(_ bytes: UInt64) { #expect(ByteSize.parse(ByteSize.format(bytes)) == bytes) }
}
