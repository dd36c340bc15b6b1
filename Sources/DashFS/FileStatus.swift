/// stat(2), read from the 144 bytes that the kernel's x86-64 `struct stat` has.
public struct FileStatus: Sendable, Equatable {
    public enum Kind: UInt32, Sendable {
        case fifo = 0o010000, characterDevice = 0o020000, directory = 0o040000, blockDevice = 0o060000
        case regular = 0o100000, symbolicLink = 0o120000, socket = 0o140000
    }

    public struct Moment: Sendable, Equatable, Comparable {
        /// Since 1970.
        public var seconds: Int64
        /// 0..<1_000_000_000.
        public var nanoseconds: UInt32
        public init(seconds: Int64, nanoseconds: UInt32 = 0) {
            self.seconds = seconds
            self.nanoseconds = nanoseconds
        }
        public static func < (left: Moment, right: Moment) -> Bool {
            (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
        }
    }

    public var device: UInt64
    public var inode: UInt64
    public var linkCount: UInt64
    /// File type and permissions (st_mode).
    public var mode: UInt32
    public var user: UInt32
    public var group: UInt32
    /// For device nodes.
    public var specialDevice: UInt64
    public var size: Int64
    public var preferredBlockSize: Int64
    /// In units of 512 bytes.
    public var allocatedBlocks: Int64
    public var accessed: Moment
    public var modified: Moment
    public var changed: Moment

    /// nil: a type that Linux does not have.
    public var kind: Kind? { Kind(rawValue: mode & 0o170000) }
    public var permissions: UInt32 { mode & 0o7777 }

    static let bytes = 144

    /// - Precondition: at least 144 bytes.
    init(_ raw: borrowing RawSpan) {
        func word(_ offset: Int) -> UInt64 { unsafe raw.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self) }
        func half(_ offset: Int) -> UInt32 { unsafe raw.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self) }
        func moment(_ offset: Int) -> Moment {
            Moment(seconds: Int64(bitPattern: word(offset)), nanoseconds: UInt32(truncatingIfNeeded: word(offset + 8)))
        }
        device = word(0)
        inode = word(8)
        linkCount = word(16)
        mode = half(24)
        user = half(28)
        group = half(32)
        specialDevice = word(40)
        size = Int64(bitPattern: word(48))
        preferredBlockSize = Int64(bitPattern: word(56))
        allocatedBlocks = Int64(bitPattern: word(64))
        accessed = moment(72)
        modified = moment(88)
        changed = moment(104)
    }
}

/// statfs(2).
public struct VolumeStatus: Sendable, Equatable {
    public var blockSize: Int64
    public var blocks: UInt64
    public var freeBlocks: UInt64
    /// To users who are not root.
    public var availableBlocks: UInt64
    public var inodes: UInt64
    public var freeInodes: UInt64
}

/// An entry of a directory.
public struct DirectoryEntry: Sendable, Equatable {
    /// As stored; usually UTF-8.
    public var nameBytes: [UInt8]
    public var inode: UInt64
    /// nil: unknown; ask `status`.
    public var kind: FileStatus.Kind?
    /// `nameBytes` as text, with replacement characters where it is no UTF-8.
    public var name: String { String(decoding: nameBytes, as: UTF8.self) }
}
