/// The operations of a channel. Numbers are fixed: they are never reused for something else.
/// What each means, with its fields, is in `docs/PROTOCOL.md` and, for the file system's part, at `Volume.Opcode`.
public enum WireOpcode: UInt8, Sendable, CaseIterable {
    case null = 0
    case open = 1
    case close = 2
    case read = 3
    case write = 4
    case seek = 5
    case getattr = 6
    case setattr = 7
    case access = 8
    case mkdir = 9
    case mknod = 10
    case symlink = 11
    case readlink = 12
    case link = 13
    case unlink = 14
    case rmdir = 15
    case rename = 16
    case fallocate = 17
    case fsync = 18
    case sync = 19
    case statfs = 20
    case readdir = 21
    case getxattr = 22
    case setxattr = 23
    case listxattr = 24
    case removexattr = 25
    case lock = 26
    case flock = 27
    case setflags = 28
    case copyRange = 29
    /// `argument` = the tag of an earlier request of this channel, which then ends with EINTR unless it has had an effect. Always answers 0.
    case cancel = 30
    case handlePath = 31
    /// The descriptor is then fetched through the control socket.
    case map = 32
    case syncMap = 33

    /// Whether the second cache line of the slot means anything for it. Reads, writes and path operations get by with the first.
    @inlinable public var usesSecondLine: Bool {
        switch self {
        case .close, .setattr, .mknod, .lock, .copyRange, .cancel, .map, .syncMap: true
        default: false
        }
    }

    /// How many numbers there are, for tables by opcode.
    public static let count = 34
}
