/// What both ends of a channel agree on: where each word lives, how large things are, which version speaks.
///
/// Invariant: nothing here depends on how a compiler lays out a struct. Every shared word is named by its byte offset, is little-endian and
/// naturally aligned, and has exactly one writer. `docs/PROTOCOL.md` has the same tables in prose.
///
/// A channel is two segments, memfds that the server made, sized and sealed:
///
///     request segment (the client writes)            completion segment (the client may only read)
///     0      sleep announcement                       0      magic, version, epoch, session, channel
///     4096   64 request slots of 128 bytes            64     state of the server for this channel
///     16384  arena: paths and data                    128    wake-up word
///                                                     4096   64 completions of 64 bytes
public enum Layout {
    /// "DashChan", little-endian.
    public static let magic: UInt64 = 0x6e61_6843_6873_6144
    /// Both ends must speak the same one; a mismatch is an error at connect.
    public static let version: UInt16 = 2

    // MARK: Ring

    /// Slots of the ring, and tags: the most requests a channel has under way.
    public static let slotCount: UInt32 = 64
    public static let slotBytes = 128
    public static let completionBytes = 64

    // MARK: Request segment

    /// UInt32: not 0 while the client sleeps or is about to; a new value for each sleep. Partner: `Layout.wakeWord`.
    public static let sleepWord = 0
    public static let slots = 4096
    public static let arena = 16384

    // MARK: Completion segment

    public static let completionMagic = 0
    /// UInt32.
    public static let completionVersion = 8
    /// UInt64: a number of the server's life; a new server has another.
    public static let completionEpoch = 16
    /// UInt32 each.
    public static let completionSession = 24
    public static let completionChannel = 28
    /// UInt32: `ServerState`.
    public static let stateWord = 64
    /// UInt32: what the client's futex waits on. It moves only after a completion and only when the client has announced sleep.
    public static let wakeWord = 128
    public static let completions = 4096
    public static let completionSegmentBytes = 8192

    /// The longest prefix that hello may carry.
    public static let prefixLimit = 255
    /// The most handles that a bundle or a hello names.
    public static let handedLimit = 4096

    // MARK: Arena

    /// Every path has this capacity, because the rest of an escaping path is written back in place.
    public static let pathCapacity = 4096
    /// The longest path or name, without a terminator (POSIX PATH_MAX counts it).
    public static let pathLimit = 4095
    /// What FS Lib divides its arena into: two paths for each tag, then data.
    public static let pathAreaBytes = 64 * 2 * 4096
    public static let dataAreaBytes = 1 << 20
    public static let defaultArenaBytes = pathAreaBytes + dataAreaBytes
    public static let arenaMinimum = pathAreaBytes + 65536
    public static let arenaMaximum = 16 << 20

    @inlinable public static func requestSegmentBytes(arena bytes: Int) -> Int { arena + bytes }
}

/// What the server says about itself to one channel, in the completion segment.
public enum ServerState {
    /// It looks at the ring by itself.
    public static let polling: UInt32 = 0
    /// Ring the session's doorbell after submitting.
    public static let asleep: UInt32 = 1
    /// The session is over: nothing will be answered.
    public static let closed: UInt32 = 2
}
