import BlockDevice

/// What a volume says of itself, from superblock and group blocks as they are on the device: nothing is replayed, nothing is written.
public struct VolumeSummary: Sendable {
    public let uuid: (UInt64, UInt64)
    public let version: UInt32
    /// Was shut down in order; else the counters here are older than the journal.
    public let clean: Bool
    public let blockCount, journalBlocks, groupCount, blocksPerGroup, epoch: UInt64
    public let compatibleFeatures, readOnlyCompatibleFeatures, incompatibleFeatures: UInt64
    public let inodeCount: UInt64
    public private(set) var freeBlocks: UInt64 = 0
    public private(set) var freeInodes: UInt64 = 0
    /// The first group block that cannot be read, for people.
    public private(set) var damage: String?

    public init(_ queue: any DeviceQueue, _ capabilities: DeviceCapabilities) throws(VolumeError) {
        let device = BlockingDevice(queue)
        let superblock = try Volume.readSuperblock(device, deviceBlocks: capabilities.blockCount)
        let geometry = Geometry(superblock)
        uuid = superblock.uuid
        version = Superblock.version
        clean = superblock.clean
        blockCount = superblock.blockCount
        journalBlocks = superblock.journalBlocks
        groupCount = superblock.groupCount
        blocksPerGroup = UInt64(superblock.blocksPerGroup)
        epoch = superblock.epoch
        compatibleFeatures = superblock.compatible
        readOnlyCompatibleFeatures = superblock.readOnlyCompatible
        incompatibleFeatures = superblock.incompatible
        inodeCount = geometry.inodeCount
        for group in 0..<geometry.groupCount {
            let address = geometry.start(ofGroup: group)
            let block = try device.read(address)
            if let problem = BlockVerifier.problem(block, address: address, superblock: superblock, geometry: geometry) {
                if damage == nil { damage = "group \(group) at block \(address): \(problem)" }
                continue
            }
            freeBlocks += UInt64(block.u32(GroupLayout.freeBlocksAt))
            freeInodes += UInt64(block.u32(GroupLayout.freeInodesAt))
        }
    }
}
