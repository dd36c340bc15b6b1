/// A regular file or a block device of the kernel as a device.
///
/// Invariants: the descriptor that does the I/O is the one that is locked (flock(2)), so that requests of a killed server, still
/// in flight in the kernel, keep the next server out until they have landed; nobody else has the file while this
/// object is open. `FileDevice+Open.swift` opens and locks; `UringQueue` and `PlainQueue` do the I/O. Queues of several threads
/// may be in use at once; opening and closing belong to one thread.
import CSystem
import Glibc
import Synchronization

public final class FileDevice: BlockDevice {
    /// The kernel gives every flush of an io_uring to a worker thread, whose waking costs about 50 us on a machine with idle
    /// cores: half of a write with its flush on a fast disk. Where every core is looked from for an answer, that thread, and the
    /// one that ends a direct write, have to wait for one of them as well. A request in the caller's own thread has no such cost, and stops it.
    public enum FlushPolicy: Sendable {
        /// A small write or a flush that is all that is in flight is carried out by the caller's thread in `kick`, where the caller
        /// has said that it may wait; else a flush is, as long as flushes have been short (see `UringQueue`). All others, and
        /// everything with a submission thread, by the ring.
        case adaptive
        /// Always by the ring: the caller's thread never waits.
        case queued
    }

    public struct Options: Sendable {
        /// Shares the file with other readers; writes are refused.
        public var readOnly = false
        /// Past the page cache (O_DIRECT), where the file takes it.
        public var direct = true
        /// A kernel thread looks for submissions, so that `kick` needs no system call; it sleeps after this many milliseconds
        /// without any. Takes a core while it looks: not for machines with few.
        public var submissionPollingMilliseconds: UInt32?
        /// How long to wait for whoever has the file, in milliseconds: a killed server's last requests take a moment to land.
        public var lockWaitMilliseconds = 5000
        /// Who waits for a flush.
        public var flush = FlushPolicy.adaptive
        /// Off: plain system calls, as where the kernel forbids io_uring.
        public var useUring = true
        /// Stands for a file that refuses O_DIRECT, in tests.
        package var refuseDirect = false
        /// Stands for the errno with which the kernel refuses io_uring, in tests.
        package var uringRefusal: Int32 = 0
        public init() {}
    }

    public let path: String
    public let capabilities: DeviceCapabilities
    public var warnings: [String] { noted.withLock { $0 } }
    private let noted: Mutex<[String]>
    public let isBlockDevice: Bool
    let options: Options
    /// -1 after `close`.
    private(set) var descriptor: Int32
    /// What the length of each piece of a direct request must be a multiple of; 1 for buffered I/O.
    let directSectorSize: Int

    init(
        path: String, descriptor: Int32, isBlockDevice: Bool, capabilities: DeviceCapabilities, directSectorSize: Int,
        options: Options, warnings: [String]
    ) {
        self.path = path
        self.descriptor = descriptor
        self.isBlockDevice = isBlockDevice
        self.capabilities = capabilities
        self.directSectorSize = directSectorSize
        self.options = options
        self.noted = Mutex(warnings)
    }

    deinit { close() }

    /// io_uring where the kernel allows it; else plain system calls, and a warning.
    public func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue {
        try checkQueueDepth(depth, device: path)
        guard descriptor >= 0 else { throw DeviceError(device: path, errno: EBADF, message: "the device has been closed") }
        guard options.useUring else { return PlainQueue(device: self, depth: depth) }
        var refusal = options.uringRefusal
        if refusal == 0 {
            switch UringQueue.make(device: self, depth: depth) {
            case .success(let queue): return queue
            case .failure(let failure): refusal = failure.errno
            }
        }
        let hint = refusal == EPERM || refusal == ENOSYS ? " (see sysctl kernel.io_uring_disabled, or the container's seccomp profile)" : ""
        warn("io_uring is not to be had: \(errorText(refusal))\(hint); using plain system calls, which wait for the device")
        return PlainQueue(device: self, depth: depth)
    }

    func warn(_ text: String) {
        noted.withLock { if !$0.contains(text) { $0.append(text) } }
    }

    /// Gives the file up. The lock is dropped by name, because the kernel frees a ring, which holds the file too, some time later.
    public func close() {
        guard descriptor >= 0 else { return }
        _ = flock(descriptor, LOCK_UN)
        _ = Glibc.close(descriptor)
        descriptor = -1
    }
}

/// Requests without a ring: what `PlainQueue` does with all of them, and `UringQueue` where nothing else is to be done meanwhile.
extension FileDevice {
    /// Carries a request out in the caller's thread, which waits for the device: 0 or an errno.
    func carryOut(_ index: Int, of table: inout RequestTable) -> Int32 {
        while true {
            let slot = table.slot(index)
            var result: Int
            switch slot.operation {
            case .flush: result = flushNow()
            case .discard: result = discardNow(offset: slot.offset, length: slot.length)
            case .writeZeroes: result = zeroNow(offset: slot.offset, length: slot.length)
            case .read, .write: result = transfer(index, slot, table)
            }
            if let error = table.progress(index, result: result, sectorSize: directSectorSize) {
                guard error == 0, slot.forceUnitAccess else { return error }
                result = flushNow()
                return result < 0 ? Int32(truncatingIfNeeded: 0 &- result) : 0
            }
        }
    }

    private func transfer(_ index: Int, _ slot: RequestSlot, _ table: borrowing RequestTable) -> Int {
        let place = off_t(slot.offset) + off_t(slot.done)
        let done: Int
        if let piece = unsafe table.remainingPiece(index) {
            done =
                slot.operation == .read
                ? unsafe pread(descriptor, piece.baseAddress, piece.count, place)
                : unsafe pwrite(descriptor, piece.baseAddress, piece.count, place)
        } else {
            let rest = unsafe table.remaining(index)
            done =
                slot.operation == .read
                ? unsafe preadv(descriptor, rest.baseAddress, Int32(rest.count), place)
                : unsafe pwritev(descriptor, rest.baseAddress, Int32(rest.count), place)
        }
        return done < 0 ? -Int(errno) : done
    }
}

/// Single calls. 0, or a negated errno.
extension FileDevice {
    func flushNow() -> Int { fdatasync(descriptor) == 0 ? 0 : -Int(errno) }

    /// What a discarded range reads as is undefined. On a block device the caller waits for it, commonly well under a millisecond.
    func discardNow(offset: UInt64, length: Int) -> Int {
        if isBlockDevice {
            return dashfs_block_device_discard(descriptor, offset, UInt64(length)) == 0 ? 0 : -Int(errno)
        }
        return -Int(dashfs_device_fallocate(descriptor, dashfs_punch_mode(), offset, UInt64(length)))
    }

    func zeroNow(offset: UInt64, length: Int) -> Int {
        if isBlockDevice {
            return dashfs_block_device_zero(descriptor, offset, UInt64(length)) == 0 ? 0 : -Int(errno)
        }
        return -Int(dashfs_device_fallocate(descriptor, dashfs_punch_mode(), offset, UInt64(length)))
    }
}
