import CSystem

/// What is common to all metadata blocks. docs/FORMAT.md is the specification; offsets here are its tables.
///
///      0  u32  magic "DSHF"
///      4  u32  crc32c of the block with this field zero
///      8  u64  the block's own address
///     16  u8   kind
///     17  u8   level        (tree nodes)
///     18  u16  count        (tree nodes: slots)
///     20  u16  heap         (tree nodes: where the name heap begins)
///     22  u16  -
///     24  u64  owner        (tree nodes, xattr blocks: inode number)
///     32  u64  first half of the volume's uuid
///     40  24 bytes zero
///     64  contents
package enum BlockLayout {
    package static let magic: UInt32 = 0x4648_5344
    package static let magicAt = 0
    package static let checksumAt = 4
    package static let addressAt = 8
    package static let kindAt = 16
    package static let levelAt = 17
    package static let countAt = 18
    package static let heapAt = 20
    package static let ownerAt = 24
    package static let volumeAt = 32
    package static let headerSize = 64
    package static let size = 4096

    package enum Kind {
        package static let superblock: UInt8 = 1
        package static let group: UInt8 = 2
        package static let bitmap: UInt8 = 3
        package static let inodes: UInt8 = 4
        /// A tree node whose slots are directory entries, with names in its heap (also its interior nodes).
        package static let directory: UInt8 = 5
        /// A tree node whose slots are extents.
        package static let extents: UInt8 = 6
        package static let attributes: UInt8 = 7
        /// A tree node of the orphan table.
        package static let orphans: UInt8 = 8
    }

    package static func checksum(_ block: UnsafeRawPointer) -> UInt32 {
        var crc = unsafe dashfs_crc32c(0, block, checksumAt)
        var zero: UInt32 = 0
        crc = unsafe withUnsafeBytes(of: &zero) { unsafe dashfs_crc32c(crc, $0.baseAddress!, 4) }
        return unsafe dashfs_crc32c(crc, block + 8, size - 8)
    }

    /// Stores the checksum; the last thing done to a block before it goes to the device.
    package static func seal(_ block: UnsafeMutableRawPointer) {
        let crc = unsafe checksum(block)
        unsafe block.storeBytes(of: crc.littleEndian, toByteOffset: checksumAt, as: UInt32.self)
    }

    /// Fills in the common header of a fresh block.
    package static func initialize(_ block: Bytes, address: UInt64, kind: UInt8, owner: UInt64, volume: UInt64) {
        block.set(magicAt, magic)
        block.set(addressAt, address)
        block.set(kindAt, kind)
        block.set(ownerAt, owner)
        block.set(volumeAt, volume)
    }
}
