/// A file queue on io_uring.
///
/// Invariants:
/// - requests wait in the table until `kick`, which hands all of them to the kernel with one system call (none with SQPOLL while
///   its thread is awake); completions are read from the ring's tail, without one;
/// - a slot's index is the ring's `user_data`;
/// - the ring has as many entries as there are slots, so that neither of its queues can overflow;
/// - the file is registered, so the ring holds the locked description as long as any request is in flight.
/// One thread.
///
/// Measured with `strace -f -c dashfs-device-bench requests FILE N`, submission thread and registered memory, 2 cores: 500,
/// 5,000 and 20,000 reads and writes took 288 system calls each, start-up and end of the program included
/// (`SystemCallTests` repeats it). A 4 KiB write and flush in the same run: bare pwrite and fdatasync 115 us (median), this queue
/// 114 us, with every flush queued 174 us, with a submission thread 103 us.
import CLiburing
import CSystem
import Glibc

@safe final class UringQueue: DeviceQueue {
    struct SetupFailure: Error { var errno: Int32 }

    private let device: FileDevice
    private let ring: UnsafeMutablePointer<io_uring>
    private var table: RequestTable
    /// The kernel has not been given all it should have: it was out of memory, interrupted, or stopped at a bad entry, its
    /// submission thread is behind, or a request came back short. `nextCompletion` tries again.
    private var mustSend = false
    private var hasRegisteredFile = false
    /// A kernel thread takes the submissions.
    private let polled: Bool
    /// Moving average of what a flush in this thread takes, in nanoseconds.
    private var flushAverage: UInt64 = 0
    /// Flushes that go through the ring before one is tried again in this thread.
    private var queuedFlushes = 0
    /// The next flush in this thread tells anew how long they take.
    private var isTrial = false
    /// Above this, the 50 us that waking a kernel worker costs are not worth stopping the caller's thread.
    private static let shortFlushNanoseconds: UInt64 = 400_000
    private static let flushesBetweenTrials = 64
    var mayWait = false
    /// Bytes: what a journal record of a few small operations takes, and a device in about the time of one block.
    private static let smallWrite = 64 << 10
    private var registered: RegisteredMemory?

    static func make(device: FileDevice, depth: Int) -> Result<UringQueue, SetupFailure> {
        let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe ring.initialize(to: io_uring())
        var result: Int32 = -ENOSYS
        if let idle = device.options.submissionPollingMilliseconds {
            var parameters = io_uring_params()
            parameters.flags = UInt32(IORING_SETUP_SQPOLL | IORING_SETUP_R_DISABLED)
            parameters.sq_thread_idle = idle
            result = unsafe io_uring_queue_init_params(UInt32(depth), ring, &parameters)
            if result >= 0 {
                result = unsafe restrict(ring, to: device)
                if result < 0 { unsafe io_uring_queue_exit(ring) }
            }
            if result < 0 {
                device.warn("the kernel gives no submission thread (SQPOLL): \(errorText(-result)); each batch costs a system call")
            }
        }
        if result < 0 {
            var parameters = io_uring_params()
            result = unsafe io_uring_queue_init_params(UInt32(depth), ring, &parameters)
        }
        guard result >= 0 else {
            unsafe ring.deallocate()
            return .failure(SetupFailure(errno: -result))
        }
        return unsafe .success(UringQueue(device: device, depth: depth, ring: ring))
    }

    /// The submission thread keeps the rights that its maker had: so it is told, for good, to do nothing but what `prepare` asks for, with the device alone.
    private static func restrict(_ ring: UnsafeMutablePointer<io_uring>, to device: FileDevice) -> Int32 {
        var file = device.descriptor
        let registered = unsafe io_uring_register_files(ring, &file, 1)
        if registered < 0 { return registered }
        let operations = [
            IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
            IORING_OP_FALLOCATE,
        ]
        var restrictions = operations.map { dashfs_uring_restriction(UInt16(IORING_RESTRICTION_SQE_OP), UInt8($0.rawValue)) }
        restrictions.append(dashfs_uring_restriction(UInt16(IORING_RESTRICTION_SQE_FLAGS_REQUIRED), dashfs_uring_registered_file_flag()))
        for operation in [IORING_REGISTER_BUFFERS2, IORING_REGISTER_BUFFERS_UPDATE] {
            restrictions.append(dashfs_uring_restriction(UInt16(IORING_RESTRICTION_REGISTER_OP), UInt8(operation)))
        }
        // liburing 2.3 keeps its functions for these two to itself.
        let descriptor = Int(unsafe ring.pointee.ring_fd)
        let restricted = unsafe restrictions.withUnsafeBytes {
            dashfs_sys_call(Int(SYS_io_uring_register), descriptor, Int(IORING_REGISTER_RESTRICTIONS), Int(bitPattern: $0.baseAddress), restrictions.count, 0, 0)
        }
        if restricted < 0 { return Int32(restricted) }
        return Int32(dashfs_sys_call(Int(SYS_io_uring_register), descriptor, Int(IORING_REGISTER_ENABLE_RINGS), 0, 0, 0, 0))
    }

    private init(device: FileDevice, depth: Int, ring: UnsafeMutablePointer<io_uring>) {
        self.device = device
        unsafe self.ring = unsafe ring
        table = RequestTable(depth: depth)
        polled = unsafe ring.pointee.flags & UInt32(IORING_SETUP_SQPOLL) != 0
        var file = device.descriptor
        hasRegisteredFile = unsafe polled || io_uring_register_files(ring, &file, 1) == 0
    }

    deinit {
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
    }

    var counters: DeviceCounters { table.counters }
    var inFlight: Int { table.inFlight }
    var room: Int { table.room }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        unsafe table.submit(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess, tag: tag, to: device)
    }

    func kick() {
        table.letOutRefused()
        send()
    }

    /// Fills the submission queue and tells the kernel.
    private func send() {
        guard mustSend || table.waiting.count > 0 else { return }
        var any = mustSend
        mustSend = false
        while let index = table.waiting.first {
            if let error = runHere(index) {
                table.waiting.removeFirst()
                table.finish(index, error: error)
                continue
            }
            guard let entry = unsafe io_uring_get_sqe(ring) else {
                mustSend = true
                break
            }
            table.waiting.removeFirst()
            unsafe prepare(entry, index)
            any = true
        }
        guard any else { return }
        let result = unsafe io_uring_submit(ring)
        let left = unsafe io_uring_sq_ready(ring)
        if result < 0 || (!polled && left > 0) { mustSend = true }
    }

    /// Carries a request out in this thread where the ring has no operation for it or would take longer: 0 or an errno; nil where it
    /// is for the ring.
    private func runHere(_ index: Int) -> Int32? {
        let slot = table.slot(index)
        if slot.operation == .discard && device.isBlockDevice { return device.carryOut(index, of: &table) }
        guard device.options.flush == .adaptive, !polled, table.inFlight == 1 else { return nil }
        if mayWait {
            let isSmall = slot.operation == .write && slot.length <= Self.smallWrite
            return isSmall || slot.operation == .flush ? device.carryOut(index, of: &table) : nil
        }
        guard slot.operation == .flush else { return nil }
        if queuedFlushes > 0 {
            queuedFlushes -= 1
            return nil
        }
        let start = monotonicNanoseconds()
        let error = device.carryOut(index, of: &table)
        // One flush that something else held up says little.
        let taken = min(monotonicNanoseconds() &- start, 2 * Self.shortFlushNanoseconds)
        flushAverage = isTrial ? taken : (flushAverage &* 7 &+ taken) / 8
        isTrial = flushAverage > Self.shortFlushNanoseconds
        if isTrial { queuedFlushes = Self.flushesBetweenTrials }
        return error
    }

    private func prepare(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ index: Int) {
        let slot = table.slot(index)
        let place = slot.offset + UInt64(slot.done)
        let file = device.descriptor
        switch slot.operation {
        case .flush: unsafe io_uring_prep_fsync(entry, file, UInt32(IORING_FSYNC_DATASYNC))
        case .discard: unsafe io_uring_prep_fallocate(entry, file, dashfs_punch_mode(), off_t(slot.offset), off_t(slot.length))
        case .writeZeroes:
            let mode = device.isBlockDevice ? dashfs_zero_mode() : dashfs_punch_mode()
            unsafe io_uring_prep_fallocate(entry, file, mode, off_t(slot.offset), off_t(slot.length))
        case .read, .write:
            let reads = slot.operation == .read
            if let piece = unsafe table.remainingPiece(index) {
                let count = UInt32(piece.count)
                if let buffer = unsafe registeredIndex(of: piece) {
                    unsafe reads
                        ? io_uring_prep_read_fixed(entry, file, piece.baseAddress, count, place, buffer)
                        : io_uring_prep_write_fixed(entry, file, piece.baseAddress, count, place, buffer)
                } else {
                    unsafe reads
                        ? io_uring_prep_read(entry, file, piece.baseAddress, count, place)
                        : io_uring_prep_write(entry, file, piece.baseAddress, count, place)
                }
            } else {
                let rest = unsafe table.remaining(index)
                unsafe reads
                    ? io_uring_prep_readv(entry, file, rest.baseAddress, UInt32(rest.count), place)
                    : io_uring_prep_writev(entry, file, rest.baseAddress, UInt32(rest.count), place)
            }
            if slot.forceUnitAccess { unsafe dashfs_uring_set_durable(entry) }
        }
        if hasRegisteredFile { unsafe dashfs_uring_use_registered_file(entry) }
        unsafe io_uring_sqe_set_data64(entry, UInt64(index))
    }

    func nextCompletion() -> DeviceCompletion? {
        if let completion = table.nextFinished() { return completion }
        var user: UInt64 = 0
        var result: Int32 = 0
        while unsafe dashfs_uring_take(ring, &user, &result) != 0 {
            let index = Int(truncatingIfNeeded: user)
            if let error = table.progress(index, result: Int(result), sectorSize: device.directSectorSize) {
                return table.complete(index, error: error)
            }
            table.waiting.append(index)
            mustSend = true
        }
        if mustSend { send() }
        return nil
    }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {
        guard registered == nil, let pieces = unsafe RegisteredMemory(memory) else {
            throw DeviceError(device: device.path, errno: EINVAL, message: "memory can be registered once, and not none")
        }
        let result = unsafe io_uring_register_buffers_sparse(ring, UInt32(pieces.count))
        if result < 0 { return warnUnregistered(result) }
        registered = pieces
        if let limit = RegisteredMemory.limit(below: memory.count) {
            device.warn("only \(ByteSize.format(limit)) of memory may be locked, which is less than the cache; raise the limit (ulimit -l)")
        }
    }

    private func warnUnregistered(_ result: Int32) {
        let hint = result == -ENOMEM ? "; raise the locked-memory limit (ulimit -l)" : ""
        device.warn("memory cannot be registered with the kernel: \(errorText(-result))\(hint); each request maps its own")
    }

    /// Which registered piece a piece of memory lies in, wholly.
    private func registeredIndex(of memory: UnsafeMutableRawBufferPointer) -> Int32? {
        guard let piece = unsafe registered?.piece(of: memory) else { return nil }
        if registered?[piece] == .unused, var vector = unsafe registered?.vector(piece) {
            let result = unsafe io_uring_register_buffers_update_tag(ring, UInt32(piece), &vector, nil, 1)
            registered?[piece] = result < 0 ? .refused : .ready
            if result < 0 { warnUnregistered(result) }
        }
        return registered?[piece] == .ready ? Int32(piece) : nil
    }

    /// What the ring answers to an operation by its number in <linux/io_uring.h>, all else of it zero. Nothing else may be in flight.
    fileprivate func answer(toOperation number: UInt8, onTheDevice: Bool = true) -> Int32 {
        guard let entry = unsafe io_uring_get_sqe(ring) else { return -EBUSY }
        unsafe io_uring_prep_nop(entry)
        unsafe entry.pointee.opcode = number
        if onTheDevice { unsafe dashfs_uring_use_registered_file(entry) }
        _ = unsafe io_uring_submit(ring)
        var user: UInt64 = 0
        var result: Int32 = 0
        while unsafe dashfs_uring_take(ring, &user, &result) == 0 {}
        return result
    }

    /// The ring itself: it polls readable while there are completions, so there is nothing to arm and no wake-up to lose, and
    /// nothing is signalled while nobody waits. (An eventfd would need a fence on both sides and a read after each sleep.)
    var wakeupDescriptor: Int32 { unsafe ring.pointee.ring_fd }
    func armWakeup() {}
    func disarmWakeup() {}
}

/// For tests.
extension DeviceQueue {
    /// What the queue's ring answers to an operation by its number in <linux/io_uring.h>; nil where it has none.
    package func ringAnswer(toOperation number: UInt8, onTheDevice: Bool = true) -> Int32? {
        (self as? UringQueue)?.answer(toOperation: number, onTheDevice: onTheDevice)
    }
}
