/// A journal record: one contiguous write of whole blocks in the ring, starting on a block.
///
///      0  u64 magic "DSHJREC1"   8 u64 volume (first half of the uuid)   16 u64 epoch   24 u64 nonce of the mount
///     32  u64 sequence          40 u64 position: blocks since the ring began; the record lies at position % ring size
///     48  u32 payload bytes     52 u32 blocks of the record            56 u32 crc32c of the record before
///     60  u32 crc32c of this record, with this field zero: header, payload and padding
///     64  u64 sequence known durable when this was written
///     72  u64 tail: oldest sequence that replay needs   80 u64 position of the tail record
///     88  u32 entries           92 u32 -
///     96  32 bytes zero
///    128  payload: entries, each 16 bytes and its content, padded to 8
///
/// An entry: 0 u8 kind, 1 u8 flags, 2 u16 -, 4 u32 length, 8 u64 address.
package enum JournalLayout {
    package static let magic: UInt64 = 0x3143_4552_4A48_5344
    package static let headerSize = 128
    package static let entryHeaderSize = 16
    /// No record is longer, whatever the ring's size.
    package static let maximumBlocks = 256
    /// Sequences stay below: they never overflow.
    package static let lastSequence: UInt64 = 1 << 62

    package enum Kind {
        /// A whole metadata block; address = block, length 4096. Sealed with its checksum when it is replayed.
        package static let image: UInt8 = 1
        /// Bytes of a metadata block: address = block * 4096 + offset. The block's checksum is computed at replay.
        package static let delta: UInt8 = 2
        /// `length` blocks from address on are free: images and deltas of them in this record and before do not count.
        package static let free: UInt8 = 3
        /// A whole block of file data; address = block, length 4096.
        package static let data: UInt8 = 4
    }
    /// Flag of an image: its content differs from the cached block (a fresh block); of a free: the blocks were metadata.
    package static let freshFlag: UInt8 = 1
    package static let metadataFlag: UInt8 = 1
}
