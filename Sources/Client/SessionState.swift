import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// Private memory of a session and its channels: one anonymous mapping, so that nothing here needs an allocator.
///
/// Invariant: everything but the atomic words (`busy`, `addLock`, `channelCount`, `isFull`, `hasLocked`) is written by the thread that holds the channel, or under
/// `addLock`. The mapping is copied by fork like any private memory; the shared segments are not (MADV_DONTFORK), and the word at `aliveWord`,
/// which the kernel zeroes in a child, tells the two apart.
///
///     0      SessionState
///     4096   channels: 256 × 1024 bytes: busy word (0), ChannelState (64), sequence of each tag (512)
@safe struct SessionState {
    var socket: Int32
    var doorbell: Int32
    var descriptorFloor: Int32
    var session: UInt32
    var epoch: UInt64
    /// A page: 1 in the process that connected, 0 in its forked children, which so do not get the key either (two words at `key`).
    var aliveWord: UnsafeMutableRawPointer
    /// Handles that the server says came with the key that this session was made with.
    var inherited: UInt32

    static let key = 64

    static let addLock = 2048
    static let channelCount = 2112
    /// 1: the server has refused a further channel.
    static let isFull = 2176
    /// 1: some lock of files has been asked for, or may come with what was inherited, which a close may release.
    static let hasLocked = 2240
    static let channels = 4096
    static let channelBytes = 1024
    static let channelLimit: UInt32 = 256
    static let bytes = channels + Int(channelLimit) * channelBytes
}

/// What the holder of a channel knows about it.
@safe struct ChannelState {
    static let offset = 64
    static let sequences = 512

    var requests: UnsafeMutableRawPointer
    var completions: UnsafeMutableRawPointer
    var arena: UnsafeMutableRawPointer
    var arenaBytes: Int
    /// The number of the next request; the first is 1.
    var sequence: UInt32 = 1
    var sleepCount: UInt32 = 0
    /// Bit n: tag n is free.
    var freeTags: UInt64 = ~0
    /// Bit n: the answer of the request with tag n is not waited for.
    var postedTags: UInt64 = 0
    /// How long to look for an answer before sleeping. Follows what calls have taken.
    var spin: SpinBudget
    /// The tag of the last completion taken, whose path area may hold the rest of an escaping path.
    var lastTag: UInt8 = 0
    /// Set when the session turned out to be over: everything fails with EIO from then on.
    var dead = false
    /// Requests whose answer was awaited asleep, for statistics and tests.
    var sleeps: UInt64 = 0
}
