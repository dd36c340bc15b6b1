/// The file device on the real disk: both ways of doing I/O give the same answers, and nothing gets at a file in use.
import BlockDevice
import Glibc
import TestSupport
import Testing

/// Each way a file can be driven.
enum Way: CaseIterable, Sendable {
    case uring, queuedFlush, polled, plain, buffered, bufferedPlain

    var options: FileDevice.Options {
        var options = FileDevice.Options()
        options.lockWaitMilliseconds = 0
        if self == .queuedFlush { options.flush = .queued }
        if self == .polled { options.submissionPollingMilliseconds = 50 }
        options.useUring = self != .plain && self != .bufferedPlain
        options.direct = self != .buffered && self != .bufferedPlain
        return options
    }
}

@Suite struct FileDeviceTests {
    @Test(arguments: Way.allCases)
    func writtenBlocksReadBackInAnyShape(_ way: Way) throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 8 << 20)
        let device = try FileDevice.open(path, options: way.options)
        defer { device.close() }
        #expect(device.capabilities.blockCount == 2048)
        let queue = try device.makeQueue(depth: 16)
        #expect(device.warnings.isEmpty)
        let pool = AlignedBytes(count: 1 << 20)
        unsafe try queue.register(pool.buffer)
        var model = [UInt8](repeating: 0, count: 8 << 20)
        var random = SeededRandom(seed: 17)
        for round in 0..<100 {
            let blocks = 1 + random.below(32)
            let place = random.below(2048 - blocks) * 4096
            switch random.below(5) {
            case 0:  // one piece of registered memory
                let piece = pool[0..<blocks * 4096]
                piece.fill(0..<piece.count, with: UInt8(round))
                #expect(queue.perform(.write, offset: UInt64(place), piece) == 0)
                model.replaceSubrange(place..<place + piece.count, with: piece.array)
            case 1:  // pieces, some of one sector, some neighbours, from registered and other memory
                let other = AlignedBytes(count: blocks * 4096, repeating: UInt8(random.below(256)))
                pool.fill(0..<1 << 17, with: UInt8(random.below(256)))
                let pieces = [pool[0..<512], other[512..<4096]] + (1..<blocks).map { other[$0 * 4096..<($0 + 1) * 4096] }
                #expect(queue.submit(.write, offset: UInt64(place), segments: pieces, tag: 1))
                #expect(queue.drain() == [DeviceCompletion(tag: 1, error: 0)])
                model.replaceSubrange(place..<place + blocks * 4096, with: pieces.flatMap(\.array))
            case 2:
                #expect(queue.perform(.writeZeroes, offset: UInt64(place), length: blocks * 4096) == 0)
                model.replaceSubrange(place..<place + blocks * 4096, with: repeatElement(0, count: blocks * 4096))
            case 3:  // a file's discarded range reads as zeros
                #expect(queue.perform(.discard, offset: UInt64(place), length: blocks * 4096) == 0)
                model.replaceSubrange(place..<place + blocks * 4096, with: repeatElement(0, count: blocks * 4096))
            default:
                let pieces = (0..<blocks).map { pool[(255 - $0) * 4096..<(256 - $0) * 4096] }
                #expect(queue.submit(.read, offset: UInt64(place), segments: pieces, tag: 2))
                #expect(queue.drain() == [DeviceCompletion(tag: 2, error: 0)])
                #expect(pieces.flatMap(\.array) == Array(model[place..<place + blocks * 4096]))
            }
        }
        #expect(queue.perform(.flush) == 0)
        let all = AlignedBytes(count: 1 << 20)
        for part in 0..<8 {
            #expect(queue.perform(.read, offset: UInt64(part) << 20, all) == 0)
            #expect(all.array == Array(model[part << 20..<(part + 1) << 20]))
        }
    }

    @Test(arguments: Way.allCases)
    func manyRequestsInFlightAllCompleteOnceAndAreCounted(_ way: Way) throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 4 << 20)
        let device = try FileDevice.open(path, options: way.options)
        defer { device.close() }
        let queue = try device.makeQueue(depth: 8)
        let bytes = AlignedBytes(count: 8 * 4096, repeating: 3)
        var tags: [UInt64] = []
        var next: UInt64 = 0
        while tags.count < 500 {
            while next < 500, queue.submit(
                next % 10 == 9 ? .flush : .write, offset: next % 1024 * 4096,
                segments: next % 10 == 9 ? [] : [bytes[Int(next % 8) * 4096..<Int(next % 8 + 1) * 4096]], tag: next)
            {
                next += 1
            }
            #expect(queue.room == 0 || next == 500)
            queue.kick()
            let completion = queue.waitForCompletion()
            #expect(completion.error == 0)
            tags.append(completion.tag)
        }
        #expect(tags.sorted() == Array(0..<500))
        #expect(queue.inFlight == 0 && queue.room == 8)
        #expect(queue.counters.writes == 450 && queue.counters.flushes == 50)
        #expect(queue.counters.bytesWritten == 450 * 4096)
    }

    @Test func refusedRequestsAnswerEINVALAndNeverReachTheFile() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        for way in Way.allCases {
            let device = try FileDevice.open(path, options: way.options)
            let queue = try device.makeQueue(depth: 4)
            let bytes = AlignedBytes(count: 4096)
            #expect(queue.perform(.write, offset: 1 << 20, bytes) == EINVAL)
            #expect(queue.perform(.read, offset: 100, bytes) == EINVAL)
            #expect(queue.counters == DeviceCounters())
            device.close()
        }
    }

    @Test(arguments: Way.allCases)
    func aFileCutShortUnderUsGivesEIO(_ way: Way) throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        let device = try FileDevice.open(path, options: way.options)
        defer { device.close() }
        #expect(unsafe truncate(path, 4096) == 0)
        let queue = try device.makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 8192)
        #expect(queue.perform(.read, offset: 0, bytes) == EIO)
        #expect(queue.perform(.read, offset: 0, bytes[0..<4096]) == 0)
    }

    @Test func aReadOnlyDeviceIsSharedAndRefusesWrites() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        var options = Way.uring.options
        options.readOnly = true
        let first = try FileDevice.open(path, options: options)
        let second = try FileDevice.open(path, options: options)
        #expect(first.capabilities.readOnly && !first.capabilities.supportsDiscard)
        #expect(try first.makeQueue(depth: 1).perform(.write, offset: 0, AlignedBytes(count: 4096)) == EROFS)
        #expect(try second.makeQueue(depth: 1).perform(.read, offset: 0, AlignedBytes(count: 4096)) == 0)
        let error = #expect(throws: DeviceError.self) { try FileDevice.open(path, options: Way.uring.options) }
        #expect(error?.errno == EBUSY)
    }

    @Test func whatTheMachineRefusesIsAWarningAndWorksNonetheless() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        var options = Way.uring.options
        options.refuseDirect = true
        options.uringRefusal = EPERM
        let device = try FileDevice.open(path, options: options)
        defer { device.close() }
        let queue = try device.makeQueue(depth: 4)
        #expect(device.warnings.count == 2)
        #expect(device.warnings[0].contains("page cache") && device.warnings[1].contains("io_uring_disabled"))
        let bytes = AlignedBytes(count: 4096, repeating: 9)
        #expect(queue.perform(.write, offset: 0, bytes) == 0)
        #expect(queue.perform(.flush) == 0)
        bytes.fill(0..<4096, with: 0)
        #expect(queue.perform(.read, offset: 0, bytes) == 0)
        #expect(bytes.array[0] == 9)
    }

    @Test func theRingWakesASleeper() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        let device = try FileDevice.open(path, options: Way.queuedFlush.options)
        defer { device.close() }
        let queue = try device.makeQueue(depth: 4)
        var wait = pollfd(fd: queue.wakeupDescriptor, events: Int16(POLLIN), revents: 0)
        #expect(unsafe poll(&wait, 1, 0) == 0, "nothing has completed")
        #expect(queue.submit(.flush, tag: 1))
        queue.kick()
        queue.armWakeup()
        while unsafe poll(&wait, 1, -1) < 0 && errno == EINTR {}
        #expect(queue.nextCompletion() == DeviceCompletion(tag: 1, error: 0))
        queue.disarmWakeup()
        #expect(unsafe poll(&wait, 1, 0) == 0)
    }

    /// It keeps the rights that the ring's maker had, whatever the process gives up later.
    @Test func aSubmissionThreadTakesNothingButInputAndOutputOfTheDevice() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/image"
        try FileDevice.create(path, size: 1 << 20)
        func queue(_ way: Way, _ body: (any DeviceQueue) -> Void) throws {
            let device = try FileDevice.open(path, options: way.options)
            defer { device.close() }
            body(try device.makeQueue(depth: 4))
        }
        // By <linux/io_uring.h>: nop, sendmsg, connect, openat, close, openat2, renameat, unlinkat; and a read of another file than the device.
        try queue(.polled) { ring in
            for number in [0, 9, 16, 18, 19, 28, 35, 36] as [UInt8] { #expect(ring.ringAnswer(toOperation: number) == -EACCES, "\(number)") }
            #expect(ring.ringAnswer(toOperation: 22, onTheDevice: false) == -EACCES)
            #expect(ring.ringAnswer(toOperation: 22) == 0)
        }
        try queue(.uring) { ring in #expect(ring.ringAnswer(toOperation: 0, onTheDevice: false) == 0) }
    }
}
