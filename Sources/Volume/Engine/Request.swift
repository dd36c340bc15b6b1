/// What a caller asks of the volume, and what it gets back: flat values that own nothing.
///
/// Contract: every pointer in a request stays valid until its completion is taken. Paths are private copies that nobody changes
/// (and 4096 bytes of capacity, because an escaping symlink is answered in place); `buffer` may be memory that a client is
/// scribbling on: its bytes are copied once and never trusted for control.

/// An operation of the volume. Paths are resolved from `handle` (a directory opened before) or from the root (`Request.rootHandle`).
public enum Opcode: UInt8, Sendable, CaseIterable {
    /// Nothing: measures the way there and back.
    case null
    /// Path, `flags` as Linux open(2), `mode` (bits 16 to 24: the caller's umask, as in mkdir and mknod; bit 31: an empty path means the handle's own file), `length` = RESOLVE_* of openat2(2). Result: a handle. info0: inode number, info1: st_mode.
    case open
    /// `flags` 1: not the close of a process's descriptor, which would release the session's record locks on the file.
    case close
    /// `bufferLength` bytes to `buffer`, `offset` (-1: the description's own, which moves). Result: bytes.
    case read
    /// As `read`; O_APPEND of the description wins over `offset`. `flags`: RWF_DSYNC 2, RWF_SYNC 4, RWF_APPEND 16, RWF_NOAPPEND 32 of pwritev2(2).
    case write
    /// `offset`, `flags` = SEEK_SET/CUR/END/DATA/HOLE. Result: the new offset.
    case seek
    /// Path (or empty path: `handle` itself); `flags` AT_SYMLINK_NOFOLLOW. Fills `buffer` with a `FileStatus` (144 bytes, struct stat of x86-64).
    case getattr
    /// Path or handle; `attributes`.
    case setattr
    /// Path or handle; `mode` = R_OK|W_OK|X_OK; `flags` AT_EACCESS is implied, AT_SYMLINK_NOFOLLOW honoured.
    case access
    case mkdir
    /// Path, `mode` with type bits, `argument` = device number.
    case mknod
    /// `path2` = the target's text, path = the new link.
    case symlink
    /// Path (or empty path: `handle` itself). Fills `buffer`; result: bytes (truncated to the buffer, no NUL).
    case readlink
    /// path/handle = existing, path2/handle2 = new; `flags` AT_SYMLINK_FOLLOW, AT_EMPTY_PATH.
    case link
    case unlink
    case rmdir
    /// path/handle → path2/handle2; `flags` RENAME_NOREPLACE (1), RENAME_EXCHANGE (2).
    case rename
    /// `offset`, `length`, `flags` FALLOC_FL_*.
    case fallocate
    /// `flags` 1: data only (fdatasync). Result when durable.
    case fsync
    /// The whole volume.
    case sync
    /// Fills `buffer` with `VolumeStatistics` (see `FileStatus.swift`).
    case statfs
    /// Fills `buffer` with linux_dirent64 records from the description's offset, which moves. Result: bytes, 0 at the end.
    case readdir
    /// Path or handle; `path2` = attribute name; fills `buffer` (or tells the size where it is empty).
    case getxattr
    /// Path or handle; `path2` = name; `buffer` = value; `flags` XATTR_CREATE/REPLACE.
    case setxattr
    case listxattr
    case removexattr
    /// `flags` = F_GETLK/F_SETLK/F_SETLKW (5, 6, 7), or F_OFD_GETLK/SETLK/SETLKW (36, 37, 38), whose owner is the description; `argument` = type (F_RDLCK 0, F_WRLCK 1, F_UNLCK 2); `offset`, `length` (0: to the end), from the start of the file;
    /// `owner` identifies the lock owner. F_GETLK: info0 = type, info1 = start, info2 = length, result = owner's process id or 0 (2^32 - 1: a description).
    case lock
    /// `flags` = LOCK_SH 1 | LOCK_EX 2 | LOCK_UN 8, | LOCK_NB 4. The description owns it.
    case flock
    /// `flags` = new O_APPEND|O_NONBLOCK|O_DIRECT|O_NOATIME state (F_SETFL). Result 0. `flags` = -1 (all ones): result = the present flags (F_GETFL).
    case setflags
    /// Copies `length` bytes inside the volume: handle at `offset` (-1: own) to handle2 at `offset2` (-1: own). Result: bytes.
    case copyRange
    /// `handle`: an open file. Fills `buffer` with its path from the root, without a terminator. ENOENT: none that is known. Result: bytes.
    case handlePath
    /// `handle`, which the session `argument` holds, becomes this session's as well (`Volume.share`).
    case share
    /// The record lock in row `handle` goes from the session `argument` to this one (`Volume.succeed`).
    case bequeath
    /// mmap: `handle`, `offset`, `length`, `flags` = MAP_SHARED 1, PROT_WRITE 2. info0: inode, info1: 1 where the map may be stored into, info2: size. Then
    /// `Volume.takeMap` gives the memory, once.
    case map
    /// msync: `argument` = an inode, `offset`, `length`. What programs have stored there into its maps is durable; nothing where it has none.
    case syncMap
}

public struct AttributeChange: Sendable {
    public struct Mask: OptionSet, Sendable {
        public let rawValue: UInt32
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let mode = Mask(rawValue: 1)
        public static let owner = Mask(rawValue: 2)
        public static let group = Mask(rawValue: 4)
        public static let size = Mask(rawValue: 8)
        public static let accessTime = Mask(rawValue: 16)
        public static let modificationTime = Mask(rawValue: 32)
        /// With the time bits: use the clock, and ask for write permission only, not ownership (utimensat UTIME_NOW / NULL).
        public static let accessTimeNow = Mask(rawValue: 64)
        public static let modificationTimeNow = Mask(rawValue: 128)
    }
    public var mask: Mask = []
    public var mode: UInt32 = 0
    public var owner: UInt32 = 0
    public var group: UInt32 = 0
    public var size: Int64 = 0
    public var accessTime = Timestamp()
    public var modificationTime = Timestamp()
    @inlinable public init() {}
}

/// A moment: seconds since 1970 (negative before), nanoseconds 0..<1e9.
public struct Timestamp: Sendable, Equatable {
    public var seconds: Int64
    public var nanoseconds: UInt32
    @inlinable public init(seconds: Int64 = 0, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

@safe public struct Request {
    /// `handle` of paths that start at the volume's root.
    public static let rootHandle: Int32 = -100

    public var opcode: Opcode
    /// From `Volume.openSession`.
    public var session: SessionID
    public var handle: Int32 = Request.rootHandle
    public var handle2: Int32 = Request.rootHandle
    public var flags: UInt32 = 0
    public var mode: UInt32 = 0
    public var offset: Int64 = -1
    public var offset2: Int64 = -1
    public var length: UInt64 = 0
    public var argument: UInt64 = 0
    /// Who owns POSIX record locks: the client process as the caller names it.
    public var owner: UInt64 = 0
    public var attributes = AttributeChange()
    /// Private, stable, capacity 4096; `pathLength` bytes of it are the path.
    public var path: UnsafeMutableRawPointer?
    public var pathLength: Int = 0
    public var path2: UnsafeMutableRawPointer?
    public var path2Length: Int = 0
    /// Payload in or out.
    public var buffer: UnsafeMutableRawPointer?
    public var bufferLength: Int = 0
    /// The caller's own; returned in the completion.
    public var token: UInt64 = 0

    var modeMask: UInt16 { UInt16(truncatingIfNeeded: mode >> 16) & 0o777 }

    @inlinable @inline(__always) public init(_ opcode: Opcode, session: SessionID) {
        self.opcode = opcode
        self.session = session
    }
}

public struct Completion: Sendable {
    /// `result` of a path that leaves the volume through an absolute symlink or a `..` at the root: `info0` bytes of `path`
    /// (`info1` = 1: of `path2`) have been replaced by what remains to be resolved. It starts with "/" (an absolute
    /// symlink) or with ".." (above the root).
    public static let escape: Int64 = -4096

    public var token: UInt64
    /// >= 0, or a negated errno, or `escape`.
    public var result: Int64
    public var info0: UInt64 = 0
    public var info1: UInt64 = 0
    public var info2: UInt64 = 0

    public init(token: UInt64, result: Int64) {
        self.token = token
        self.result = result
    }
}

/// Index of a session in the volume's session table, with a generation so that a stale one is refused.
public struct SessionID: Sendable, Equatable, Hashable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// Who a session acts as, proven by the kernel before it gets here.
public struct Credentials: Sendable, Equatable {
    public var user: UInt32
    public var group: UInt32
    /// Supplementary groups.
    public var groups: [UInt32]
    /// For lock conflicts reported to other processes (F_GETLK).
    public var process: Int32
    public init(user: UInt32, group: UInt32, groups: [UInt32] = [], process: Int32 = 0) {
        self.user = user
        self.group = group
        self.groups = groups
        self.process = process
    }
}
