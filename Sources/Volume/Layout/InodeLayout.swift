/// An inode: 504 bytes, eight in a block after its header.
///
///      0  u16 mode            2  u8 mapping        3  u8 -           4  u32 link count
///      8  u32 user           12  u32 group        16  u64 size      24  u64 blocks (data and tree nodes)
///     32  i64 atime          40  i64 mtime        48  i64 ctime     56  i64 birth time   (seconds)
///     64  u32 x 4            nanoseconds of the same four
///     80  u32 generation     84  u32 -            88  u64 device number
///     96  u64 parent (directories)               104  u64 entries (directories)
///    112  u64 root block of the tree (0: none)   120  u64 first xattr block (0: none)
///    128  u32 inline length in bytes, or number of inline extents
///    132  u32 subdirectories (directories)       136  u64 -
///    144  360 bytes: inline data, or 15 inline extents of 24 bytes
package enum InodeLayout {
    package static let size = 504
    package static let perBlock = 8
    package static let firstAt = 64
    package static let inlineAt = 144
    package static let inlineSize = 360
    package static let inlineExtents = 15

    package enum Mapping {
        /// The bytes are in the inode (files up to 360 bytes, symbolic links).
        package static let inline: UInt8 = 0
        package static let extents: UInt8 = 1
        package static let tree: UInt8 = 2
    }
}

/// st_mode bits (POSIX sys/stat.h, Linux values).
package enum Mode {
    package static let typeMask: UInt16 = 0o170000
    package static let socket: UInt16 = 0o140000
    package static let link: UInt16 = 0o120000
    package static let regular: UInt16 = 0o100000
    package static let blockDevice: UInt16 = 0o060000
    package static let directory: UInt16 = 0o040000
    package static let characterDevice: UInt16 = 0o020000
    package static let fifo: UInt16 = 0o010000
    package static let setUser: UInt16 = 0o4000
    package static let setGroup: UInt16 = 0o2000
    package static let sticky: UInt16 = 0o1000
}

/// A view on an inode's cell.
@safe package struct Inode {
    package let number: UInt64
    package let cell: Bytes

    package init(number: UInt64, cell: Bytes) {
        self.number = number
        self.cell = cell
    }

    package var mode: UInt16 {
        get { cell.u16(0) }
        nonmutating set { cell.set(0, newValue) }
    }
    package var mapping: UInt8 {
        get { cell.u8(2) }
        nonmutating set { cell.set(2, newValue) }
    }
    package var links: UInt32 {
        get { cell.u32(4) }
        nonmutating set { cell.set(4, newValue) }
    }
    package var user: UInt32 {
        get { cell.u32(8) }
        nonmutating set { cell.set(8, newValue) }
    }
    package var group: UInt32 {
        get { cell.u32(12) }
        nonmutating set { cell.set(12, newValue) }
    }
    package var size: UInt64 {
        get { cell.u64(16) }
        nonmutating set { cell.set(16, newValue) }
    }
    package var blocks: UInt64 {
        get { cell.u64(24) }
        nonmutating set { cell.set(24, newValue) }
    }
    package var accessTime: Timestamp {
        get { time(0) }
        nonmutating set { setTime(0, newValue) }
    }
    package var modificationTime: Timestamp {
        get { time(1) }
        nonmutating set { setTime(1, newValue) }
    }
    package var changeTime: Timestamp {
        get { time(2) }
        nonmutating set { setTime(2, newValue) }
    }
    package var birthTime: Timestamp {
        get { time(3) }
        nonmutating set { setTime(3, newValue) }
    }
    package var generation: UInt32 {
        get { cell.u32(80) }
        nonmutating set { cell.set(80, newValue) }
    }
    package var device: UInt64 {
        get { cell.u64(88) }
        nonmutating set { cell.set(88, newValue) }
    }
    package var parent: UInt64 {
        get { cell.u64(96) }
        nonmutating set { cell.set(96, newValue) }
    }
    package var entries: UInt64 {
        get { cell.u64(104) }
        nonmutating set { cell.set(104, newValue) }
    }
    package var root: UInt64 {
        get { cell.u64(112) }
        nonmutating set { cell.set(112, newValue) }
    }
    package var attributeBlock: UInt64 {
        get { cell.u64(120) }
        nonmutating set { cell.set(120, newValue) }
    }
    package var inlineCount: UInt32 {
        get { cell.u32(128) }
        nonmutating set { cell.set(128, newValue) }
    }
    package var inline: Bytes { cell.slice(InodeLayout.inlineAt, InodeLayout.inlineSize) }

    package var type: UInt16 { mode & Mode.typeMask }
    package var isDirectory: Bool { type == Mode.directory }
    package var isRegular: Bool { type == Mode.regular }
    package var isLink: Bool { type == Mode.link }

    private func time(_ index: Int) -> Timestamp {
        Timestamp(seconds: cell.i64(32 + 8 * index), nanoseconds: cell.u32(64 + 4 * index))
    }
    private func setTime(_ index: Int, _ value: Timestamp) {
        cell.set(32 + 8 * index, value.seconds)
        cell.set(64 + 4 * index, value.nanoseconds)
    }

    /// The cell as a new inode: everything zero but what is given.
    package func initialize(mode: UInt16, user: UInt32, group: UInt32, now: Timestamp, generation: UInt32) {
        cell.zero(0, InodeLayout.size)
        self.mode = mode
        self.user = user
        self.group = group
        self.generation = generation
        accessTime = now
        modificationTime = now
        changeTime = now
        birthTime = now
    }

    /// Validates what later code relies on: counts inside their areas. The rest is checked where it is followed.
    package var isSound: Bool {
        switch mapping {
        case InodeLayout.Mapping.inline: inlineCount <= UInt32(InodeLayout.inlineSize)
        case InodeLayout.Mapping.extents: inlineCount <= UInt32(InodeLayout.inlineExtents)
        case InodeLayout.Mapping.tree: true
        default: false
        }
    }
}
