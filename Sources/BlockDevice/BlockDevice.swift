/// The floor below the file system: a device of bytes that is written and read by asynchronous requests on queues.
///
/// Invariants every driver keeps:
/// - offsets and lengths are multiples of `blockSize` (4096), and a request outside the device fails with EINVAL, never wraps;
/// - completions are **polled**: nothing calls back, nothing completes inside `submit`;
/// - requests in flight at the same time complete in any order; a flush covers the writes *completed* before it was submitted;
/// - a device error is a completion with an errno, never a trap.
///
/// A queue belongs to one thread. Start reading at `MemoryDevice`, the smallest driver.
public protocol BlockDevice: AnyObject {
    var capabilities: DeviceCapabilities { get }

    /// What is slower or less safe than it could be on this machine, a line each, with what to do about it. Grows as queues are
    /// made and memory is registered.
    var warnings: [String] { get }

    /// A submission/completion queue for the calling worker.
    /// - Parameter depth: how many requests may be in flight at once, 1...4096.
    func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue

    /// What the device says of its own condition, for people: name and text of each.
    func condition() throws(DeviceError) -> [(name: String, text: String)]

    /// Ends all use: waits for nothing, requires that no request is in flight.
    func close()
}

extension BlockDevice {
    public var warnings: [String] { [] }
    public func condition() throws(DeviceError) -> [(name: String, text: String)] { [] }
}

/// The unit of addressing, in bytes.
public let blockSize = 4096

/// What a device is and promises; the file system adapts to it (architecture: "the device's gifts are used").
public struct DeviceCapabilities: Sendable, Equatable {
    /// Size in 4 KiB blocks (a tail that is not a whole block is not used).
    public var blockCount: UInt64
    /// What the device calls a sector: 512 or 4096. Torn writes tear at this unit.
    public var logicalBlockSize: Int = 512
    /// A write of at most this many bytes, aligned to its size, is never torn by a power cut.
    public var atomicWriteUnit: Int = 512
    /// Completed writes may be lost by a power cut until a flush completes.
    public var volatileCache = true
    /// `submit` accepts `forceUnitAccess`.
    public var supportsForceUnitAccess = false
    public var supportsDiscard = false
    public var supportsWriteZeroes = false
    public var readOnly = false
    /// Memory of requests must start at a multiple of this, in bytes.
    public var memoryAlignment: Int = 4096
    /// A request carries at most this many bytes.
    public var maximumTransfer: Int = 1 << 20
    /// One line for people: what drives the device, and which way.
    public var description: String = ""

    public init(blockCount: UInt64) { self.blockCount = blockCount }
}

public enum DeviceOperation: UInt8, Sendable {
    case read, write, flush, discard, writeZeroes
}

/// A piece of memory of a request: `length` is a multiple of 512; all segments together are a multiple of 4096.
@safe public struct DeviceSegment {
    public var address: UnsafeMutableRawPointer
    public var length: Int
    public init(address: UnsafeMutableRawPointer, length: Int) {
        unsafe self.address = address
        self.length = length
    }
}

public struct DeviceCompletion: Sendable, Equatable {
    /// The tag given at submission.
    public var tag: UInt64
    /// 0, or the errno of a failed request (EIO, ENOSPC, ENODEV, EINVAL, EROFS).
    public var error: Int32
    public init(tag: UInt64, error: Int32) {
        self.tag = tag
        self.error = error
    }
}

/// What the driver really asked of the device: counted here because the kernel's statistics count an empty flush as a write.
public struct DeviceCounters: Sendable, Equatable {
    public var reads: UInt64 = 0
    public var writes: UInt64 = 0
    public var flushes: UInt64 = 0
    public var discards: UInt64 = 0
    public var writeZeroes: UInt64 = 0
    public var bytesRead: UInt64 = 0
    public var bytesWritten: UInt64 = 0
    public init() {}
}

public protocol DeviceQueue: AnyObject {
    var counters: DeviceCounters { get }
    /// Requests submitted whose completion has not been taken by `nextCompletion`.
    var inFlight: Int { get }
    /// Requests that `submit` would accept now without answering `false`.
    var room: Int { get }
    /// A read or write carries at most so many bytes: the device's `maximumTransfer`, for those who know the queue only.
    var maximumTransfer: Int { get }

    /// Hands over one request. The segments array may be reused at return; the memory it names may not until the completion.
    /// - Parameters:
    ///   - offset: in bytes, a multiple of 4096; ignored for flush.
    ///   - segments: for read and write, what to fill or send, in order; 1...256 of them; empty for the others.
    ///   - length: in bytes, a multiple of 4096: the sum of the segments, or the range to discard or zero; 0 for flush.
    ///   - forceUnitAccess: the write is durable when it completes. Only where the capability says so.
    /// - Returns: false where the queue is full: nothing happened; poll and try again.
    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool

    /// Lets the device see what was submitted since the last call (one doorbell or system call for all of it).
    func kick()

    /// The next completion that is there now, or nil. Never waits.
    func nextCompletion() -> DeviceCompletion?

    /// Set where the caller has nothing else to do until what it submits has completed: `kick` may then wait for it in the caller's thread, where
    /// that is shorter. Drivers to whom that is nothing ignore it.
    var mayWait: Bool { get set }

    /// Registers memory that most requests will use, for drivers that can map it once. At most once, before the first request.
    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError)

    /// Memory that some requests will use from now on, until `unmap`: a driver that has to be told of it can then do without copies. Whole pages; hints:
    /// what cannot be mapped is used all the same.
    func map(_ memory: UnsafeMutableRawBufferPointer)
    /// Requires that no request in flight names it.
    func unmap(_ memory: UnsafeMutableRawBufferPointer)

    /// A descriptor that polls readable when a completion has come since `armWakeup`, or -1 where a driver has none.
    /// Order without lost wake-ups: arm, then look at `nextCompletion` once more, then sleep.
    var wakeupDescriptor: Int32 { get }
    func armWakeup()
    func disarmWakeup()

    /// What people should know of the device since the last time (errors, resets, its health), a line each.
    var hasNotes: Bool { get }
    func takeNotes() -> [String]

    /// The monotonic time, in nanoseconds, at which `nextCompletion` must be called at the latest though nothing may have woken anybody; nil: none.
    var deadline: UInt64? { get }
}

extension DeviceQueue {
    public var maximumTransfer: Int { .max }
    public var mayWait: Bool {
        get { false }
        set {}
    }
    public func map(_ memory: UnsafeMutableRawBufferPointer) {}
    public func unmap(_ memory: UnsafeMutableRawBufferPointer) {}
    public var deadline: UInt64? { nil }
    public var hasNotes: Bool { false }
    public func takeNotes() -> [String] { [] }
}

/// Why a device could not be opened or used: which device, what went wrong, what to do about it; one line.
public struct DeviceError: Error, Sendable, CustomStringConvertible {
    public var device: String
    public var errno: Int32
    public var message: String
    public init(device: String, errno: Int32, message: String) {
        self.device = device
        self.errno = errno
        self.message = message
    }
    public var description: String { "\(device): \(message)" }
}
