/// A device that is a piece of memory: `memory:SIZE`, and the ground on which tests stand.
///
/// Invariants: data moves in `submit`, but nothing completes before the `kick` and `nextCompletion` that follow; completions
/// come in the order of submission. The memory lives as long as the object, also after `close`, so that it can be mounted again.
/// Several queues may be used by several threads at once, as long as no two touch the same block (as with any device).
import Glibc

@safe public final class MemoryDevice: BlockDevice {
    public let capabilities: DeviceCapabilities
    /// The device's content, while the device lives (see `contents`). Not while requests are in flight.
    package let bytes: UnsafeMutableRawBufferPointer
    /// What else must stay while the mapping does (a crash state's base image).
    private let owner: AnyObject?
    private let mappedLength: Int

    /// - Parameters:
    ///   - size: bytes; at least one block; a tail that is not a whole block is not used. Memory is taken as it is written.
    ///   - configure: changes what the device claims to be; `blockCount` stays what `size` says.
    public convenience init(
        size: UInt64, configure: (inout DeviceCapabilities) -> Void = { _ in }
    ) throws(DeviceError) {
        let name = "memory:\(ByteSize.format(size))"
        guard size >= UInt64(blockSize), let length = Int(exactly: size / UInt64(blockSize) * UInt64(blockSize)) else {
            throw DeviceError(device: name, errno: EINVAL, message: "the size must be at least one block of \(blockSize) bytes")
        }
        let mapping = unsafe mmap(
            nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
            throw DeviceError(
                device: name, errno: errno, message: "no memory for a device of this size (\(errorText(errno))); choose a smaller one")
        }
        // Fewer faults and translations for a device that is used in earnest; tests have many small ones.
        if length >= 256 << 20 { _ = unsafe madvise(mapping, length, MADV_HUGEPAGE) }
        unsafe self.init(
            mapping: UnsafeMutableRawBufferPointer(start: mapping, count: length), owner: nil, description: name,
            configure: configure)
    }

    /// Takes over a mapping of whole blocks, to be unmapped in the end.
    /// - Parameter owner: kept alive as long as the mapping.
    package init(
        mapping: UnsafeMutableRawBufferPointer, owner: AnyObject?, description: String,
        configure: (inout DeviceCapabilities) -> Void
    ) {
        let count = UInt64(mapping.count / blockSize)
        var capabilities = DeviceCapabilities(blockCount: count)
        capabilities.atomicWriteUnit = blockSize
        capabilities.volatileCache = false
        capabilities.supportsForceUnitAccess = true
        capabilities.supportsDiscard = true
        capabilities.supportsWriteZeroes = true
        capabilities.memoryAlignment = 1
        capabilities.description = description
        configure(&capabilities)
        capabilities.blockCount = count
        self.capabilities = capabilities
        unsafe self.bytes = unsafe mapping
        self.mappedLength = mapping.count
        self.owner = owner
    }

    /// A copy of the content.
    package var contents: [UInt8] { unsafe Array(bytes) }

    /// One byte of the content, for tests that look or plant.
    package subscript(offset: Int) -> UInt8 {
        get { unsafe bytes[offset] }
        set { unsafe bytes[offset] = newValue }
    }

    deinit { unsafe munmap(bytes.baseAddress, mappedLength) }

    public func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue {
        try checkQueueDepth(depth, device: capabilities.description)
        return MemoryQueue(device: self, depth: depth)
    }

    public func close() {}
}

/// A ring of requests that are done but not told yet.
@safe final class MemoryQueue: DeviceQueue {
    private let device: MemoryDevice
    private let capabilities: DeviceCapabilities
    private(set) var counters = DeviceCounters()
    private var ring: [DeviceCompletion]
    private var head = 0
    private(set) var inFlight = 0
    /// Of those in flight, how many the device has been shown by `kick`.
    private var kicked = 0

    init(device: MemoryDevice, depth: Int) {
        self.device = device
        self.capabilities = device.capabilities
        self.ring = [DeviceCompletion](repeating: DeviceCompletion(tag: 0, error: 0), count: depth)
    }

    var room: Int { ring.count - inFlight }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        guard inFlight < ring.count else { return false }
        let error = unsafe capabilities.check(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess)
        if error == 0 {
            counters.count(operation, length: length)
            unsafe transfer(operation, offset: Int(truncatingIfNeeded: offset), segments: segments, length: length)
        }
        var tail = head &+ inFlight  // both are below the ring's length
        if tail >= ring.count { tail &-= ring.count }
        ring[tail] = DeviceCompletion(tag: tag, error: error)
        inFlight &+= 1
        return true
    }

    private func transfer(
        _ operation: DeviceOperation, offset: Int, segments: UnsafeBufferPointer<DeviceSegment>, length: Int
    ) {
        guard operation != .flush, let base = unsafe device.bytes.baseAddress else { return }
        var place = unsafe base + offset
        switch operation {
        case .flush: break
        case .read:
            for unsafe segment in unsafe segments {
                unsafe segment.address.copyMemory(from: place, byteCount: segment.length)
                unsafe place += segment.length
            }
        case .write:
            for unsafe segment in unsafe segments {
                unsafe place.copyMemory(from: segment.address, byteCount: segment.length)
                unsafe place += segment.length
            }
        case .discard, .writeZeroes: unsafe memset(place, 0, length)
        }
    }

    func kick() { kicked = inFlight }

    func nextCompletion() -> DeviceCompletion? {
        guard kicked > 0 else { return nil }
        let completion = ring[head]
        head &+= 1
        if head == ring.count { head = 0 }
        inFlight &-= 1
        kicked &-= 1
        return completion
    }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {}

    /// None is needed: whatever is in flight is there at the next look.
    var wakeupDescriptor: Int32 { -1 }
    func armWakeup() {}
    func disarmWakeup() {}
}
