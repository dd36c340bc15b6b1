import CSystem

/// What travels on the control socket: packets of 64 bytes, some with descriptors beside them.
///
///     0  UInt32 magic    4  UInt16 version   6  UInt16 kind    8  Int32 status (0, or a negated errno)
///     12 UInt32 session  16 UInt64 epoch    24  UInt32 channel 28  UInt32 arena bytes
///     32 UInt32 payload bytes that follow the 64                36 UInt32 handles (at the payload's end, 4 bytes each; of an answer: what it says below)
///     40 UInt64 × 2 key    56 UInt64 inode (of a bundle's answer: the first handle that was asked for)
public struct ControlMessage: Sendable {
    public enum Kind {
        /// First from the client. Its payload is where the client sees the volume's root ("/dash"), at most 255 bytes, or nothing where the volume is all
        /// it sees: symbolic links and ".." that leave it are then answered with `WireCompletion.escape`. Answered with descriptors: doorbell, request segment, completion segment (of channel 0).
        /// The key, if not zero, is what entitles to inherit the handles listed: those of a bundle are then the new session's as well; of another session, by its key, they become
        /// the new one's in its place, record locks too, and the other one ends. The answer says how many, and carries the new session's own key.
        public static let hello: UInt16 = 1
        /// One more channel for the session. Answered with descriptors: request segment, completion segment.
        public static let addChannel: UInt16 = 2
        /// Counters and histograms; the answer carries JSON as its payload. Allowed before hello.
        public static let statistics: UInt16 = 3
        /// First on a connection that makes no session: keeps the handles listed of the session with this key open until the last copy of this end of the connection is closed, whatever
        /// becomes of the session. The answer's key, given to hello, is what entitles to inherit them; its handles say how many were the session's.
        public static let bundle: UInt16 = 4
        /// The memory of the file with this inode, which the session has just mapped by `WireOpcode.map`. Answered with its descriptor: for reading and
        /// writing, or for reading only, as that map said.
        public static let map: UInt16 = 8
        /// The one handle listed, which the bundle with this key keeps, becomes the session's as well. Answered with -EEXIST if it was already, with -EACCES if there is no such bundle.
        public static let take: UInt16 = 9
        /// What the kernel has behind the socket or pipe with this inode, which the session has just asked about by `WireOpcode.access`: an O_PATH descriptor of it, to be connected to or
        /// opened by way of `/proc/self/fd`. Where one comes with the message it becomes that, and the answer has none: -EEXIST: a pipe has one. Without: -ENOENT: there is none.
        public static let meet: UInt16 = 10
    }

    /// "DASH", little-endian.
    public static let magic: UInt32 = 0x4853_4144
    public static let bytes = 64
    /// The longest packet, payload included.
    public static let packetLimit = 65536

    public var version: UInt16 = Layout.version
    public var kind: UInt16
    public var status: Int32 = 0
    public var session: UInt32 = 0
    public var epoch: UInt64 = 0
    public var channel: UInt32 = 0
    public var arenaBytes: UInt32 = 0
    public var payloadBytes: UInt32 = 0
    public var handles: UInt32 = 0
    public var key: (UInt64, UInt64) = (0, 0)
    public var inode: UInt64 = 0

    public init(_ kind: UInt16) { self.kind = kind }

    /// nil: not a message of this protocol (shorter than 64 bytes, or another magic). The version is for the caller to compare.
    public init?(_ packet: UnsafeRawBufferPointer) {
        guard packet.count >= ControlMessage.bytes, unsafe packet.loadUnaligned(fromByteOffset: 0, as: UInt32.self) == ControlMessage.magic
        else { return nil }
        version = unsafe packet.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
        kind = unsafe packet.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
        status = unsafe packet.loadUnaligned(fromByteOffset: 8, as: Int32.self)
        session = unsafe packet.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
        epoch = unsafe packet.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        channel = unsafe packet.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
        arenaBytes = unsafe packet.loadUnaligned(fromByteOffset: 28, as: UInt32.self)
        payloadBytes = unsafe packet.loadUnaligned(fromByteOffset: 32, as: UInt32.self)
        handles = unsafe packet.loadUnaligned(fromByteOffset: 36, as: UInt32.self)
        key.0 = unsafe packet.loadUnaligned(fromByteOffset: 40, as: UInt64.self)
        key.1 = unsafe packet.loadUnaligned(fromByteOffset: 48, as: UInt64.self)
        inode = unsafe packet.loadUnaligned(fromByteOffset: 56, as: UInt64.self)
    }

    /// - Precondition: `packet` has at least 64 bytes.
    public func store(_ packet: UnsafeMutableRawBufferPointer) {
        guard packet.count >= ControlMessage.bytes else { return }
        for index in 0..<ControlMessage.bytes { unsafe packet[index] = 0 }
        unsafe packet.storeBytes(of: ControlMessage.magic, toByteOffset: 0, as: UInt32.self)
        unsafe packet.storeBytes(of: version, toByteOffset: 4, as: UInt16.self)
        unsafe packet.storeBytes(of: kind, toByteOffset: 6, as: UInt16.self)
        unsafe packet.storeBytes(of: status, toByteOffset: 8, as: Int32.self)
        unsafe packet.storeBytes(of: session, toByteOffset: 12, as: UInt32.self)
        unsafe packet.storeBytes(of: epoch, toByteOffset: 16, as: UInt64.self)
        unsafe packet.storeBytes(of: channel, toByteOffset: 24, as: UInt32.self)
        unsafe packet.storeBytes(of: arenaBytes, toByteOffset: 28, as: UInt32.self)
        unsafe packet.storeBytes(of: payloadBytes, toByteOffset: 32, as: UInt32.self)
        unsafe packet.storeBytes(of: handles, toByteOffset: 36, as: UInt32.self)
        unsafe packet.storeBytes(of: key.0, toByteOffset: 40, as: UInt64.self)
        unsafe packet.storeBytes(of: key.1, toByteOffset: 48, as: UInt64.self)
        unsafe packet.storeBytes(of: inode, toByteOffset: 56, as: UInt64.self)
    }
}
