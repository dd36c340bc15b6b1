/// The requests that a file queue has accepted, in slots that are allocated once: what its two ways of doing I/O have in common.
///
/// Invariants: a slot is free or in use; its vectors are its own copy of the caller's segments (neighbours in memory
/// merged); `done` counts whole sectors, so that what is left of a direct request stays aligned. A request is in exactly one of
/// `refused` (until the next kick), `waiting`, the kernel, and `finished`; `inFlight` counts them all. One thread.
import CSystem
import Glibc

/// One request in flight.
@safe package struct RequestSlot {
    package var operation = DeviceOperation.flush
    var forceUnitAccess = false
    package var offset: UInt64 = 0
    var length = 0
    var tag: UInt64 = 0
    /// Bytes of it that the device has taken or given.
    package var done = 0
    /// Times it was handed to the kernel again without progress.
    var retries = 0
    var vectorCount = 0
    /// First vector that is not done.
    var firstVector = 0
    /// Aligned memory in place of the caller's, where its pieces are not such that the device can take them.
    var bounce: UnsafeMutableRawPointer?
}

@safe package struct RequestTable: ~Copyable {
    /// Without progress, a request is given to the kernel this many times, and fails then with the kernel's errno.
    static let maximumRetries = 64

    let depth: Int
    private let slots: UnsafeMutablePointer<RequestSlot>
    private let vectors: UnsafeMutablePointer<iovec>
    private var free: [Int32]
    private(set) var counters = DeviceCounters()
    /// Requests whose completion has not been taken.
    private(set) var inFlight = 0
    /// Slots that have not been handed to the kernel.
    var waiting: SlotBacklog
    /// Completions of requests that never reached the device, which nobody may see before the next kick.
    private var refused: CompletionBacklog
    private var finished: CompletionBacklog

    package init(depth: Int) {
        self.depth = depth
        waiting = SlotBacklog(depth: depth)
        refused = CompletionBacklog(depth: depth)
        finished = CompletionBacklog(depth: depth)
        unsafe slots = .allocate(capacity: depth)
        unsafe slots.initialize(repeating: RequestSlot(), count: depth)
        // Touched as it is used: a slot's 4 KiB cost nothing until a request has many segments.
        unsafe vectors = .allocate(capacity: depth * DeviceCapabilities.maximumSegments)
        free = (0..<Int32(depth)).reversed()
    }

    deinit {
        for index in 0..<depth { unsafe slots[index].bounce?.deallocate() }
        unsafe slots.deallocate()
        unsafe vectors.deallocate()
    }

    var room: Int { depth - inFlight }

    /// Checks, counts and takes note of a request: `DeviceQueue.submit`.
    mutating func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64, to device: FileDevice
    ) -> Bool {
        guard inFlight < depth else { return false }
        let error = unsafe device.capabilities.check(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess)
        if error != 0 {
            refused.append(DeviceCompletion(tag: tag, error: error))
        } else if let slot = unsafe take(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess, tag: tag,
            sectorSize: device.directSectorSize)
        {
            counters.count(operation, length: length)
            waiting.append(slot)
        } else {
            return false
        }
        inFlight += 1
        return true
    }

    /// At a kick: what was refused may be seen now.
    mutating func letOutRefused() {
        while let completion = refused.popFirst() { finished.append(completion) }
    }

    /// A slot that the queue carried out itself.
    mutating func finish(_ index: Int, error: Int32) { finished.append(release(index, error: error)) }

    mutating func nextFinished() -> DeviceCompletion? {
        guard let completion = finished.popFirst() else { return nil }
        inFlight -= 1
        return completion
    }

    /// A slot that the kernel has answered.
    mutating func complete(_ index: Int, error: Int32) -> DeviceCompletion {
        inFlight -= 1
        return release(index, error: error)
    }

    /// Takes a free slot for a request that has passed the check; nil where there is none.
    /// - Parameter sectorSize: pieces that are no multiples of it go through memory of our own.
    package mutating func take(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64, sectorSize: Int
    ) -> Int? {
        guard let index = free.popLast().map(Int.init) else { return nil }
        var slot = RequestSlot()
        slot.operation = operation
        slot.forceUnitAccess = forceUnitAccess
        slot.offset = offset
        slot.length = length
        slot.tag = tag
        if operation == .read || operation == .write {
            let mine = unsafe vectors + index * DeviceCapabilities.maximumSegments
            var count = 0
            var aligned = true
            for unsafe segment in unsafe segments {
                if segment.length % sectorSize != 0 { aligned = false }
                if count > 0, unsafe mine[count - 1].iov_base + mine[count - 1].iov_len == segment.address {
                    unsafe mine[count - 1].iov_len += segment.length
                } else {
                    unsafe mine[count] = iovec(iov_base: segment.address, iov_len: segment.length)
                    count += 1
                }
            }
            slot.vectorCount = count
            if !aligned {
                let bounce = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: blockSize)
                unsafe slot.bounce = bounce
                if operation == .write { unsafe Self.copy(mine, count, bounce, toVectors: false) }
            }
        }
        unsafe slots[index] = slot
        return index
    }

    /// Frees a slot that is done and says what its request was.
    package mutating func release(_ index: Int, error: Int32) -> DeviceCompletion {
        let slot = unsafe slots[index]
        if let bounce = unsafe slot.bounce {
            if slot.operation == .read && error == 0 {
                unsafe Self.copy(vectors + index * DeviceCapabilities.maximumSegments, slot.vectorCount, bounce, toVectors: true)
            }
            unsafe bounce.deallocate()
            unsafe slots[index].bounce = nil
        }
        free.append(Int32(index))
        return DeviceCompletion(tag: slot.tag, error: error)
    }

    package func slot(_ index: Int) -> RequestSlot { unsafe slots[index] }

    /// The vectors of what is not done, for a request that `remainingPiece` does not describe.
    package func remaining(_ index: Int) -> UnsafeMutableBufferPointer<iovec> {
        let slot = unsafe slots[index]
        let mine = unsafe vectors + index * DeviceCapabilities.maximumSegments
        return unsafe UnsafeMutableBufferPointer(start: mine + slot.firstVector, count: slot.vectorCount - slot.firstVector)
    }

    /// Where what is not done begins, if it is one piece of memory.
    package func remainingPiece(_ index: Int) -> UnsafeMutableRawBufferPointer? {
        let slot = unsafe slots[index]
        if let bounce = unsafe slot.bounce {
            return unsafe UnsafeMutableRawBufferPointer(start: bounce + slot.done, count: slot.length - slot.done)
        }
        let rest = unsafe remaining(index)
        guard rest.count == 1, let first = unsafe rest.first else { return nil }
        return unsafe UnsafeMutableRawBufferPointer(start: first.iov_base, count: first.iov_len)
    }

    /// Takes note of what the kernel says about a slot.
    /// - Parameter result: bytes, or a negated errno.
    /// - Returns: nil: there is more to do, hand it over again; else the errno (0: success) it ends with.
    package mutating func progress(_ index: Int, result: Int, sectorSize: Int) -> Int32? {
        if result < 0 {
            let error = Int32(truncatingIfNeeded: 0 &- result)
            guard error == EAGAIN || error == EINTR else { return error }
            unsafe slots[index].retries += 1
            return unsafe slots[index].retries > Self.maximumRetries ? EIO : nil
        }
        let slot = unsafe slots[index]
        guard slot.operation == .read || slot.operation == .write else { return 0 }
        let left = slot.length - slot.done
        if result >= left { return 0 }
        let step = result / sectorSize * sectorSize
        if step == 0 {
            unsafe slots[index].retries += 1
            // Nothing, where there should be something: the file has become shorter, or the device is gone.
            return result == 0 || slot.retries >= Self.maximumRetries ? EIO : nil
        }
        unsafe slots[index].done += step
        unsafe slots[index].retries = 0
        if unsafe slot.bounce == nil { skip(index, step) }
        return nil
    }

    private mutating func skip(_ index: Int, _ bytes: Int) {
        let mine = unsafe vectors + index * DeviceCapabilities.maximumSegments
        var left = bytes
        var first = unsafe slots[index].firstVector
        while left > 0, unsafe mine[first].iov_len <= left {
            unsafe left -= mine[first].iov_len
            first += 1
        }
        if left > 0 {
            unsafe mine[first].iov_base += left
            unsafe mine[first].iov_len -= left
        }
        unsafe slots[index].firstVector = first
    }

    private static func copy(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ memory: UnsafeMutableRawPointer, toVectors: Bool
    ) {
        var place = unsafe memory
        for i in 0..<count {
            let vector = unsafe vectors[i]
            if toVectors {
                unsafe vector.iov_base.copyMemory(from: place, byteCount: vector.iov_len)
            } else {
                unsafe place.copyMemory(from: vector.iov_base, byteCount: vector.iov_len)
            }
            unsafe place += vector.iov_len
        }
    }
}

/// Completions that are known but not taken, oldest first; never more than its depth.
struct CompletionBacklog {
    private var ring: [DeviceCompletion]
    private var head = 0
    private(set) var count = 0

    init(depth: Int) { ring = [DeviceCompletion](repeating: DeviceCompletion(tag: 0, error: 0), count: depth) }

    mutating func append(_ completion: DeviceCompletion) {
        ring[(head + count) % ring.count] = completion
        count += 1
    }

    mutating func popFirst() -> DeviceCompletion? {
        guard count > 0 else { return nil }
        defer {
            head = (head + 1) % ring.count
            count -= 1
        }
        return ring[head]
    }
}

/// Slots that wait to be handed to the kernel, oldest first; never more than its depth.
struct SlotBacklog {
    private var ring: [Int32]
    private var head = 0
    private(set) var count = 0

    init(depth: Int) { ring = [Int32](repeating: 0, count: depth) }

    mutating func append(_ slot: Int) {
        ring[(head + count) % ring.count] = Int32(slot)
        count += 1
    }

    var first: Int? { count > 0 ? Int(ring[head]) : nil }

    mutating func removeFirst() {
        head = (head + 1) % ring.count
        count -= 1
    }
}
