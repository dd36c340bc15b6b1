import BlockDevice

/// Makes an empty volume.
public struct FormatOptions: Sendable {
    /// Blocks of the journal ring; nil: 1/64 of the volume, between 1 MiB and 128 MiB.
    public var journalBlocks: UInt64?
    public var blocksPerGroup: Int?
    /// Inodes of the whole volume; nil: one per 16 KiB.
    public var inodes: UInt64?
    public var uuid: (UInt64, UInt64)
    /// Key of the directory hash: from a good generator, so that nobody can make names collide.
    public var hashKey: (UInt64, UInt64)
    /// Nanoseconds since 1970.
    public var time: Int64
    /// Owner of the root directory.
    public var user: UInt32 = 0
    public var group: UInt32 = 0
    public init(uuid: (UInt64, UInt64), hashKey: (UInt64, UInt64), time: Int64) {
        self.uuid = uuid
        self.hashKey = hashKey
        self.time = time
    }
}

extension Volume {
    public static let minimumBlocks: UInt64 = 1024

    /// Writes an empty volume over whatever the device holds. Order: everything, flush, then the superblocks.
    /// - Parameter progress: called with the share that is done, 0...1.
    public static func format(
        _ queue: any DeviceQueue, blockCount: UInt64, options: FormatOptions, progress: (Double) -> Void = { _ in }
    ) throws(VolumeError) {
        try requireTransfers(queue.maximumTransfer)
        guard blockCount >= minimumBlocks else {
            throw VolumeError(errno: Errno.noSpace, "too small: a volume needs at least \(minimumBlocks * 4 / 1024) MiB, this device has \(blockCount * 4) KiB")
        }
        var superblock = Superblock()
        superblock.uuid = options.uuid
        superblock.hashKey = options.hashKey
        superblock.formatTime = options.time
        superblock.blockCount = blockCount
        superblock.journalStart = 1
        superblock.journalBlocks = options.journalBlocks ?? min(max(blockCount / 64, Geometry.minimumJournalBlocks), 32_768)
        guard superblock.journalBlocks >= Geometry.minimumJournalBlocks, superblock.journalBlocks <= Geometry.maximumJournalBlocks else {
            throw VolumeError(errno: Errno.invalid, "a journal has \(Geometry.minimumJournalBlocks) to \(Geometry.maximumJournalBlocks) blocks")
        }
        superblock.groupStart = 1 + superblock.journalBlocks
        let perGroup = min(options.blocksPerGroup ?? Geometry.maximumBlocksPerGroup, Geometry.maximumBlocksPerGroup)
        superblock.blocksPerGroup = UInt32(perGroup)
        guard superblock.groupStart + 80 < blockCount else { throw VolumeError(errno: Errno.noSpace, "the journal leaves no room; ask for a smaller one") }
        let space = blockCount - 1 - superblock.groupStart
        var groups = max(1, space / UInt64(perGroup))
        let rest = space > UInt64(perGroup) ? space % UInt64(perGroup) : 0
        let inodes = options.inodes ?? max(64, blockCount / 4)
        let perGroupInodes = (inodes + groups - 1) / groups
        superblock.inodesPerGroup = UInt32(min(max((perGroupInodes + 7) / 8 * 8, 8), UInt64(min(Geometry.maximumInodesPerGroup, perGroup / 4 * 8 / 8 * 8)), 31_744))
        superblock.inodesPerGroup = superblock.inodesPerGroup / 8 * 8
        // A last group that would hold little but its own metadata is left out.
        if rest > UInt64(superblock.inodesPerGroup / 8) + 2 + 64 { groups += 1 }
        superblock.groupCount = groups
        if let problem = superblock.problem(deviceBlocks: blockCount) { throw VolumeError(errno: Errno.invalid, "cannot be laid out: it \(problem)") }

        let geometry = Geometry(superblock)
        let device = BlockingDevice(queue)
        // An old superblock must not survive next to new groups.
        _ = device.blank()
        try device.write(0)
        try device.write(blockCount - 1)
        // The journal region is written, so that a file below has its blocks.
        var block = superblock.journalStart
        while block < superblock.groupStart {
            let count = min(BlockingDevice.bufferBlocks, Int(superblock.groupStart - block))
            _ = device.blank(count)
            try device.write(block, count)
            block += UInt64(count)
            progress(0.8 * Double(block) / Double(superblock.groupStart))
        }
        for group in 0..<geometry.groupCount {
            try writeGroup(device, group, geometry, superblock)
            progress(0.8 + 0.2 * Double(group + 1) / Double(geometry.groupCount))
        }
        try writeFirstInodes(device, geometry, superblock, options)
        try device.flush()
        for address in [blockCount - 1, 0] {
            superblock.encode(into: device.blank(), address: address)
            try device.write(address)
        }
        try device.flush()
    }

    private static func writeGroup(_ device: BlockingDevice, _ group: Int, _ geometry: Geometry, _ superblock: Superblock) throws(VolumeError) {
        let start = geometry.start(ofGroup: group)
        let count = geometry.blocks(inGroup: group)
        let reservedInodes = group == 0 ? 2 : 0
        let both = device.blank(2)
        let header = both.slice(0, BlockLayout.size)
        BlockLayout.initialize(header, address: start, kind: BlockLayout.Kind.group, owner: 0, volume: superblock.uuid.0)
        header.set(GroupLayout.freeBlocksAt, UInt32(count - geometry.groupOverhead))
        header.set(GroupLayout.freeInodesAt, UInt32(geometry.inodesPerGroup - reservedInodes))
        header.set(GroupLayout.initializedAt, UInt32(group == 0 ? 1 : 0))
        if group == 0 { header.set(GroupLayout.inodeBitmapAt, UInt8(3)) }
        let bitmap = both.slice(BlockLayout.size, BlockLayout.size)
        BlockLayout.initialize(bitmap, address: start + 1, kind: BlockLayout.Kind.bitmap, owner: 0, volume: superblock.uuid.0)
        for bit in 0..<Geometry.maximumBlocksPerGroup where bit < geometry.groupOverhead || bit >= count {
            let at = GroupLayout.blockBitmapAt + bit / 8
            bitmap.set(at, bitmap.u8(at) | 1 << UInt8(bit % 8))
        }
        unsafe BlockLayout.seal(header.pointer)
        unsafe BlockLayout.seal(bitmap.pointer)
        try device.write(start, 2)
    }

    /// Inode 1 is the orphan table, inode 2 the root directory.
    private static func writeFirstInodes(_ device: BlockingDevice, _ geometry: Geometry, _ superblock: Superblock, _ options: FormatOptions) throws(VolumeError) {
        let (block, _) = geometry.location(ofInode: Superblock.orphanInode)
        let bytes = device.blank()
        BlockLayout.initialize(bytes, address: block, kind: BlockLayout.Kind.inodes, owner: 0, volume: superblock.uuid.0)
        let (seconds, nanoseconds) = options.time.quotientAndRemainder(dividingBy: 1_000_000_000)
        let now = Timestamp(seconds: seconds, nanoseconds: UInt32(max(0, nanoseconds)))
        let orphans = Inode(number: 1, cell: bytes.slice(InodeLayout.firstAt, InodeLayout.size))
        orphans.initialize(mode: Mode.regular, user: 0, group: 0, now: now, generation: 1)
        orphans.mapping = InodeLayout.Mapping.tree
        orphans.links = 1
        let root = Inode(number: 2, cell: bytes.slice(InodeLayout.firstAt + InodeLayout.size, InodeLayout.size))
        root.initialize(mode: Mode.directory | 0o755, user: options.user, group: options.group, now: now, generation: 1)
        root.links = 2
        root.parent = Superblock.rootInode
        unsafe BlockLayout.seal(bytes.pointer)
        try device.write(block)
    }
}
