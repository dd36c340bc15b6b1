/// The superblock: block 0, and a copy in the last block. The valid copy with the higher generation counts.
package struct Superblock: Equatable, Sendable {
    package static let version: UInt32 = 1
    /// Feature sets: unknown `incompatible` bits refuse to mount, unknown `readOnlyCompatible` ones to mount for writing.
    package static let knownIncompatible: UInt64 = 0
    package static let knownReadOnlyCompatible: UInt64 = 0

    package var clean = true
    package var generation: UInt64 = 1
    package var uuid: (UInt64, UInt64) = (0, 0)
    package var compatible: UInt64 = 0
    package var readOnlyCompatible: UInt64 = 0
    package var incompatible: UInt64 = 0
    package var blockCount: UInt64 = 0
    package var journalStart: UInt64 = 0
    package var journalBlocks: UInt64 = 0
    package var groupStart: UInt64 = 0
    package var groupCount: UInt64 = 0
    package var blocksPerGroup: UInt32 = 0
    package var inodesPerGroup: UInt32 = 0
    /// Of the present or last mount: records of other epochs, or without its nonce, are not this mount's.
    package var epoch: UInt64 = 0
    package var nonce: UInt64 = 0
    package var firstSequence: UInt64 = 1
    /// Key of the directory hash (SipHash-1-3).
    package var hashKey: (UInt64, UInt64) = (0, 0)
    package var formatTime: Int64 = 0

    package static let orphanInode: UInt64 = 1
    package static let rootInode: UInt64 = 2

    package static func == (a: Superblock, b: Superblock) -> Bool {
        a.generation == b.generation && a.uuid == b.uuid && a.epoch == b.epoch && a.clean == b.clean
    }

    package init() {}

    package func encode(into block: Bytes, address: UInt64) {
        block.zero(0, BlockLayout.size)
        BlockLayout.initialize(block, address: address, kind: BlockLayout.Kind.superblock, owner: 0, volume: uuid.0)
        block.set(64, Superblock.version)
        block.set(68, UInt32(clean ? 1 : 0))
        block.set(72, generation)
        block.set(80, uuid.0)
        block.set(88, uuid.1)
        block.set(96, compatible)
        block.set(104, readOnlyCompatible)
        block.set(112, incompatible)
        block.set(120, blockCount)
        block.set(128, journalStart)
        block.set(136, journalBlocks)
        block.set(144, groupStart)
        block.set(152, groupCount)
        block.set(160, blocksPerGroup)
        block.set(164, inodesPerGroup)
        block.set(168, epoch)
        block.set(176, nonce)
        block.set(184, firstSequence)
        block.set(192, hashKey.0)
        block.set(200, hashKey.1)
        block.set(208, formatTime)
        unsafe BlockLayout.seal(block.pointer)
    }

    /// nil: not a superblock of this address (magic, address, kind or checksum).
    package init?(decoding block: Bytes, address: UInt64) {
        guard block.u32(BlockLayout.magicAt) == BlockLayout.magic, block.u64(BlockLayout.addressAt) == address,
            block.u8(BlockLayout.kindAt) == BlockLayout.Kind.superblock,
            unsafe block.u32(BlockLayout.checksumAt) == BlockLayout.checksum(block.pointer),
            block.u32(64) == Superblock.version
        else { return nil }
        clean = block.u32(68) == 1
        generation = block.u64(72)
        uuid = (block.u64(80), block.u64(88))
        compatible = block.u64(96)
        readOnlyCompatible = block.u64(104)
        incompatible = block.u64(112)
        blockCount = block.u64(120)
        journalStart = block.u64(128)
        journalBlocks = block.u64(136)
        groupStart = block.u64(144)
        groupCount = block.u64(152)
        blocksPerGroup = block.u32(160)
        inodesPerGroup = block.u32(164)
        epoch = block.u64(168)
        nonce = block.u64(176)
        firstSequence = block.u64(184)
        hashKey = (block.u64(192), block.u64(200))
        formatTime = block.i64(208)
    }

    /// What is wrong with the geometry, or nil. Checked before anything is read by it: the image may be hostile.
    package func problem(deviceBlocks: UInt64) -> String? {
        if incompatible & ~Superblock.knownIncompatible != 0 {
            return "uses features this version does not know (incompat \(String(incompatible, radix: 16))); use a newer dashfs"
        }
        if blockCount > deviceBlocks { return "claims \(blockCount) blocks on a device of \(deviceBlocks); was the device truncated?" }
        guard blockCount >= 64, blockCount < 1 << 44 else { return "has an impossible size" }
        guard journalStart == 1, journalBlocks >= Geometry.minimumJournalBlocks, journalBlocks <= Geometry.maximumJournalBlocks, journalBlocks < blockCount else {
            return "has an impossible journal region"
        }
        guard firstSequence >= 1, firstSequence < JournalLayout.lastSequence else { return "has an impossible journal sequence" }
        guard groupStart == journalStart + journalBlocks, groupCount >= 1, groupCount < 1 << 24 else {
            return "has an impossible group region"
        }
        guard blocksPerGroup >= 64, Int(blocksPerGroup) <= Geometry.maximumBlocksPerGroup, inodesPerGroup >= 8, inodesPerGroup % 8 == 0,
            Int(inodesPerGroup) <= Geometry.maximumInodesPerGroup, inodesPerGroup / 8 + 2 < blocksPerGroup
        else { return "has an impossible group size" }
        let (span, overflow) = (groupCount - 1).multipliedReportingOverflow(by: UInt64(blocksPerGroup))
        guard !overflow, groupStart + span + UInt64(inodesPerGroup / 8) + 2 < blockCount else { return "has groups beyond its end" }
        return nil
    }
}
