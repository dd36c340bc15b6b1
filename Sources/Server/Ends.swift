import CSystem
import Volume
import Wire

/// The server's private knowledge of sessions, channels and requests: plain records in slabs that are allocated once.
///
/// Invariant: only the worker's thread touches them. Nothing in here is ever in memory that a client can see. They are reached by pointer and index, so
/// that the path of a request retains nothing.

/// A client process.
@safe struct SessionEnd {
    enum Phase {
        case free
        /// Accepted, hello not yet seen.
        case greeting
        case open
        /// A bundle: keeps handles of another session open until its connection ends, whoever made it.
        case holding
        /// Over; waits for parked requests whose buffers are in its arenas.
        case ending
    }
    var phase = Phase.free
    /// Makes stale events of an earlier user of this place recognisable.
    var generation: UInt32 = 0
    var index: Int32
    var socket: Int32 = -1
    var pidfd: Int32 = -1
    var doorbell: Int32 = -1
    var process: Int32 = 0
    var user: UInt32 = 0
    var refused = false
    /// Names a session to those who may speak for it, a bundle to those who may inherit from it; unguessable, zero before there is one.
    var key: (UInt64, UInt64) = (0, 0)
    var volumeSession = SessionID(rawValue: 0)
    /// First of its channels, chained by `ChannelEnd.nextInSession`; -1: none.
    var firstChannel: Int32 = -1
    var channelCount: Int32 = 0
    var arenaBytes = 0
    var parked = 0
}

/// The server's end of a ring.
@safe struct ChannelEnd {
    var requests: UnsafeMutableRawPointer
    var completions: UnsafeMutableRawPointer
    var arena: UnsafeMutableRawPointer
    var arenaBytes: Int
    var session: UnsafeMutablePointer<SessionEnd>
    /// For each tag the record of its parked request, or -1.
    var recordOfTag: UnsafeMutablePointer<Int32>
    var volumeSession: SessionID
    /// The number that the next request must have.
    var nextSequence: UInt32 = 1
    /// The client's sleep announcement that has been answered by a wake-up.
    var wokenFor: UInt32 = 0
    var wakeCount: UInt32 = 0
    /// Bit n: tag n belongs to a request that is not answered yet.
    var busyTags: UInt64 = 0
    /// Cycles at the last request.
    var lastActive: UInt64 = 0
    var index: Int32
    var nextInSession: Int32 = -1
    var polled = false
    var ended = false
    /// The device reaches the arena.
    var isMapped = false

    var outstanding: Int { busyTags.nonzeroBitCount }

    /// The arena's whole pages.
    var deviceMemory: UnsafeMutableRawBufferPointer { unsafe UnsafeMutableRawBufferPointer(start: arena, count: arenaBytes & ~4095) }

    @inline(__always)
    var slot: UnsafeMutableRawPointer {
        unsafe requests + Layout.slots + Int(nextSequence % Layout.slotCount) * Layout.slotBytes
    }
}

/// A request between its fetch and its answer, with private copies of its paths.
@safe struct RequestRecord {
    /// The two paths, `Layout.pathCapacity` bytes each.
    var paths: UnsafeMutableRawPointer
    var channel: UnsafeMutablePointer<ChannelEnd>?
    var generation: UInt32 = 0
    var sequence: UInt32 = 0
    /// Where in the arena the rest of an escaping path goes.
    var pathOffset: UInt32 = 0
    var path2Offset: UInt32 = 0
    var started: UInt64 = 0
    var tag: UInt8 = 0
    var opcode = WireOpcode.null

    init(paths: UnsafeMutableRawPointer) { unsafe self.paths = unsafe paths }
}

/// All request records; the free ones on a stack, so that the next one used is the one still in the processor's cache.
@safe struct RequestSlab: ~Copyable {
    let records: UnsafeMutablePointer<RequestRecord>
    let capacity: Int
    private let free: UnsafeMutablePointer<Int32>
    private let paths: UnsafeMutableRawPointer
    private(set) var freeCount: Int

    init(capacity: Int) throws(ErrorCode) {
        let bytes = capacity * 2 * Layout.pathCapacity
        // Address space only: a page becomes memory when a path is first copied to it.
        let mapped = dashfs_sys_map(
            -1, bytes, Int32(dashfs_protection_read | dashfs_protection_write),
            Int32(dashfs_map_private | dashfs_map_anonymous | dashfs_map_noreserve))
        guard mapped > 0, let pointer = unsafe UnsafeMutableRawPointer(bitPattern: mapped) else {
            throw ErrorCode(result: Int64(mapped))
        }
        unsafe paths = pointer
        self.capacity = capacity
        unsafe records = .allocate(capacity: capacity)
        unsafe free = .allocate(capacity: capacity)
        for index in 0..<capacity {
            unsafe (records + index).initialize(to: RequestRecord(paths: pointer + index * 2 * Layout.pathCapacity))
            unsafe (free + index).initialize(to: Int32(capacity - 1 - index))
        }
        freeCount = capacity
    }

    /// The record that the next request uses, without taking it. `freeCount` must not be 0.
    @inline(__always)
    var top: Int { Int(unsafe free[freeCount &- 1]) }

    @inline(__always)
    mutating func takeTop() { freeCount &-= 1 }

    mutating func giveBack(_ index: Int) {
        unsafe records[index].channel = nil
        unsafe records[index].generation &+= 1
        unsafe free[freeCount] = Int32(truncatingIfNeeded: index)
        freeCount &+= 1
    }

    /// The record that a token names, or nil where it is not in use (any more).
    func record(token: UInt64) -> Int? {
        let index = Int(token & 0xffff_ffff)
        guard index < capacity, unsafe records[index].generation == UInt32(truncatingIfNeeded: token >> 32),
            unsafe records[index].channel != nil
        else { return nil }
        return index
    }

    deinit {
        unsafe _ = dashfs_sys_unmap(paths, capacity * 2 * Layout.pathCapacity)
        unsafe records.deallocate()
        unsafe free.deallocate()
    }
}
