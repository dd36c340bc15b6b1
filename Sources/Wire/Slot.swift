import CSystem

/// A request as a value, and how it travels through a slot of the ring: sixteen 64-bit words, two cache lines.
///
///     word  bits 0..31          32..39   40..47  48..63
///     0     sequence            opcode   tag     0          published last, by one release store
///     1     handle              flags (32)
///     2     offset
///     3     length
///     4     buffer offset       buffer length (32)          within the arena
///     5     path offset         path length (16), path2 length (16)
///     6     path2 offset        mode (32)
///     7     handle2             attribute mask (32)
///     8     offset2
///     9     argument
///     10    owner               0
///     11    attributes.owner    attributes.group (32)
///     12    atime seconds
///     13    mtime seconds
///     14    atime nanoseconds   mtime nanoseconds (32)
///     15    0
///
/// Words 8...15 are written and read only where `WireOpcode.usesSecondLine`.
public struct WireRequest: Sendable {
    /// A `WireOpcode`, unchecked.
    public var opcode: UInt8
    /// Where word 0 has its opcode.
    @inlinable @inline(__always) public static func opcode(_ first: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: first >> 32) }
    /// 0..<64, chosen by the client: names the completion that answers this request, and is busy until then.
    public var tag: UInt8 = 0
    public var handle: Int32 = WireRequest.rootHandle
    public var flags: UInt32 = 0
    public var offset: Int64 = -1
    public var length: UInt64 = 0
    public var bufferOffset: UInt32 = 0
    public var bufferLength: UInt32 = 0
    public var pathOffset: UInt32 = 0
    public var pathLength: UInt16 = 0
    public var path2Length: UInt16 = 0
    public var path2Offset: UInt32 = 0
    public var mode: UInt32 = 0
    public var handle2: Int32 = WireRequest.rootHandle
    public var attributeMask: UInt32 = 0
    /// Bits of word 0 and 10 that must be zero, as fetched.
    public var reserved: UInt32 = 0

    public var offset2: Int64 = -1
    public var argument: UInt64 = 0
    public var owner: UInt32 = 0
    public var attributeOwner: UInt32 = 0
    public var attributeGroup: UInt32 = 0
    public var accessSeconds: Int64 = 0
    public var modificationSeconds: Int64 = 0
    public var accessNanoseconds: UInt32 = 0
    public var modificationNanoseconds: UInt32 = 0

    /// Paths that start at the volume's root name it as their directory.
    public static let rootHandle: Int32 = -100
    /// In the flags of a close: the session's record locks on the file stay.
    public static let keepsLocks: UInt32 = 1
    /// In the mode of an open: an empty path means the handle's own file, opened anew.
    public static let handleItself: UInt32 = 1 << 31

    @inlinable @inline(__always) public init(_ opcode: WireOpcode) { self.opcode = opcode.rawValue }

    /// Fetches each word of a slot once. `first` is word 0, whose acquiring load showed the slot to be published; `secondLine`: all sixteen.
    @inlinable @inline(__always)
    public init(slot: UnsafeRawPointer, first: UInt64, secondLine: Bool) {
        opcode = UInt8(truncatingIfNeeded: first >> 32)
        tag = UInt8(truncatingIfNeeded: first >> 40)
        reserved = UInt32(truncatingIfNeeded: first >> 48)
        var word = unsafe dashfs_load64(slot + 8)
        handle = Int32(truncatingIfNeeded: word)
        flags = UInt32(truncatingIfNeeded: word >> 32)
        offset = Int64(bitPattern: unsafe dashfs_load64(slot + 16))
        length = unsafe dashfs_load64(slot + 24)
        word = unsafe dashfs_load64(slot + 32)
        bufferOffset = UInt32(truncatingIfNeeded: word)
        bufferLength = UInt32(truncatingIfNeeded: word >> 32)
        word = unsafe dashfs_load64(slot + 40)
        pathOffset = UInt32(truncatingIfNeeded: word)
        pathLength = UInt16(truncatingIfNeeded: word >> 32)
        path2Length = UInt16(truncatingIfNeeded: word >> 48)
        word = unsafe dashfs_load64(slot + 48)
        path2Offset = UInt32(truncatingIfNeeded: word)
        mode = UInt32(truncatingIfNeeded: word >> 32)
        word = unsafe dashfs_load64(slot + 56)
        handle2 = Int32(truncatingIfNeeded: word)
        attributeMask = UInt32(truncatingIfNeeded: word >> 32)
        if secondLine { unsafe loadSecondLine(slot: slot) }
    }

    @inlinable
    mutating func loadSecondLine(slot: UnsafeRawPointer) {
        offset2 = Int64(bitPattern: unsafe dashfs_load64(slot + 64))
        argument = unsafe dashfs_load64(slot + 72)
        var word = unsafe dashfs_load64(slot + 80)
        owner = UInt32(truncatingIfNeeded: word)
        reserved |= UInt32(truncatingIfNeeded: word >> 32)
        word = unsafe dashfs_load64(slot + 88)
        attributeOwner = UInt32(truncatingIfNeeded: word)
        attributeGroup = UInt32(truncatingIfNeeded: word >> 32)
        accessSeconds = Int64(bitPattern: unsafe dashfs_load64(slot + 96))
        modificationSeconds = Int64(bitPattern: unsafe dashfs_load64(slot + 104))
        word = unsafe dashfs_load64(slot + 112)
        accessNanoseconds = UInt32(truncatingIfNeeded: word)
        modificationNanoseconds = UInt32(truncatingIfNeeded: word >> 32)
    }

    /// Writes the request into a slot and publishes it as number `sequence` of its channel.
    @inlinable @inline(__always)
    public func publish(slot: UnsafeMutableRawPointer, sequence: UInt32, secondLine: Bool) {
        unsafe dashfs_store64(slot + 8, UInt64(UInt32(bitPattern: handle)) | UInt64(flags) << 32)
        unsafe dashfs_store64(slot + 16, UInt64(bitPattern: offset))
        unsafe dashfs_store64(slot + 24, length)
        unsafe dashfs_store64(slot + 32, UInt64(bufferOffset) | UInt64(bufferLength) << 32)
        unsafe dashfs_store64(slot + 40, UInt64(pathOffset) | UInt64(pathLength) << 32 | UInt64(path2Length) << 48)
        unsafe dashfs_store64(slot + 48, UInt64(path2Offset) | UInt64(mode) << 32)
        unsafe dashfs_store64(slot + 56, UInt64(UInt32(bitPattern: handle2)) | UInt64(attributeMask) << 32)
        if secondLine { unsafe storeSecondLine(slot: slot) }
        let first = UInt64(sequence) | UInt64(opcode) << 32 | UInt64(tag) << 40
        // Pairs with the acquiring load in `ChannelEnd.next` of the server.
        unsafe dashfs_store64_release(slot, first)
    }

    @inlinable
    func storeSecondLine(slot: UnsafeMutableRawPointer) {
        unsafe dashfs_store64(slot + 64, UInt64(bitPattern: offset2))
        unsafe dashfs_store64(slot + 72, argument)
        unsafe dashfs_store64(slot + 80, UInt64(owner))
        unsafe dashfs_store64(slot + 88, UInt64(attributeOwner) | UInt64(attributeGroup) << 32)
        unsafe dashfs_store64(slot + 96, UInt64(bitPattern: accessSeconds))
        unsafe dashfs_store64(slot + 104, UInt64(bitPattern: modificationSeconds))
        unsafe dashfs_store64(slot + 112, UInt64(accessNanoseconds) | UInt64(modificationNanoseconds) << 32)
        unsafe dashfs_store64(slot + 120, 0)
    }
}

/// The answer to a request, eight words, one cache line:
///
///     0  sequence (32), 0     published last, by one release store
///     1  result               >= 0, a negated errno, or `escape`
///     2  info0    3  info1    4  info2    5...7  0
public struct WireCompletion: Sendable {
    public var result: Int64
    public var info0: UInt64 = 0
    public var info1: UInt64 = 0
    public var info2: UInt64 = 0

    /// `result` of a path that leaves the volume: `info0` bytes at the place of the path (`info1` = 1: of path2) are what remains to be
    /// resolved outside; they start with "/" (an absolute symlink) or ".." (above the root).
    public static let escape: Int64 = -4096

    @inlinable @inline(__always)
    public init(result: Int64, info0: UInt64 = 0, info1: UInt64 = 0, info2: UInt64 = 0) {
        self.result = result
        self.info0 = info0
        self.info1 = info1
        self.info2 = info2
    }

    @inlinable @inline(__always)
    public init(line: UnsafeRawPointer) {
        result = Int64(bitPattern: unsafe dashfs_load64(line + 8))
        info0 = unsafe dashfs_load64(line + 16)
        info1 = unsafe dashfs_load64(line + 24)
        info2 = unsafe dashfs_load64(line + 32)
    }

    @inlinable @inline(__always)
    public func publish(line: UnsafeMutableRawPointer, sequence: UInt32) {
        unsafe dashfs_store64(line + 8, UInt64(bitPattern: result))
        unsafe dashfs_store64(line + 16, info0)
        unsafe dashfs_store64(line + 24, info1)
        unsafe dashfs_store64(line + 32, info2)
        // Pairs with the acquiring load in `Channel.isComplete`.
        unsafe dashfs_store32_release(line, sequence)
    }
}
