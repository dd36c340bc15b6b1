/// Something on a volume that is not as FORMAT.md says.
public struct Finding: Sendable, Equatable, CustomStringConvertible {
    public enum Severity: String, Sendable, CaseIterable {
        /// Nothing is lost and nothing goes wrong yet: space that nobody uses, a spare copy that is gone.
        case warning
        /// A structure contradicts another or itself: something is lost, or will be.
        case error
        /// Nothing can be said about the rest of the volume.
        case fatal
    }

    public enum Kind: String, Sendable, CaseIterable {
        /// There is no volume on the device.
        case noVolume
        /// No superblock that can be used.
        case superblock
        /// One of the two superblocks is damaged or old.
        case superblockCopy
        /// The journal of a volume in use cannot be replayed to its end.
        case journal
        /// The device does not give a block.
        case unreadable
        /// A metadata block fails its checksum, or is not what belongs at its address, or contradicts itself.
        case damagedBlock
        /// A group's counter of free blocks or inodes is not what is free.
        case groupCounter
        /// The inode bitmap and the inode disagree.
        case inodeBitmap
        /// Blocks are marked as used, and nothing uses them.
        case leakedBlocks
        /// Blocks are in use, and marked as free.
        case unmarkedBlocks
        /// Blocks have two users.
        case sharedBlocks
        /// A field of an inode has a value that cannot be.
        case inode
        /// Extents lie outside the volume, overlap or are out of order.
        case mapping
        /// The size contradicts the content.
        case size
        /// The inode's block count is not the number of its blocks.
        case blockCount
        /// A tree node is of another tree, another level, or holds keys that its parent does not lead to.
        case tree
        /// A directory entry's name cannot be, is there twice, or has another name's key.
        case entryName
        /// A directory entry has another type than its inode.
        case entryType
        /// A directory entry names an inode that is not in use.
        case danglingEntry
        /// The inode's entry count is not the number of its entries.
        case entryCount
        /// The link count is not the number of names.
        case linkCount
        /// A directory says another parent than the one that names it, or has several names.
        case parent
        /// No name leads to the inode.
        case unreachable
        /// Directories that lie in each other.
        case cycle
        /// The orphan table names what is no orphan, or misses one.
        case orphan
        /// A chain of extended attributes is damaged.
        case attributes
    }

    public var severity: Severity
    public var kind: Kind
    /// What is wrong, in words.
    public var message: String
    /// Where: device block, inode number, path of the inode, as far as they are known.
    public var block: UInt64?
    public var inode: UInt64?
    public var path: String?

    /// What to do about it.
    public var advice: String {
        switch kind {
        case .noVolume: "name another device, or make a volume with: dashfs format"
        case .superblock: "restore the device from a copy; nothing on it can be trusted without its superblock"
        case .superblockCopy: "mount the volume for writing once: both copies are written anew"
        case .journal: "copy the data out of a read-only mount, then format"
        case .unreadable: "look at the device's own health first (kernel log, SMART)"
        case .leakedBlocks, .groupCounter: "harmless for the data; space is lost until the volume is formatted anew"
        case .damagedBlock: "copy what can be read out of a read-only mount, then format"
        default: "copy the data out of a read-only mount, then format and copy it back"
        }
    }

    public var description: String {
        var place: [String] = []
        if let path { place.append(path) }
        if let inode { place.append("inode \(inode)") }
        if let block { place.append("block \(block)") }
        return "\(severity.rawValue): \(kind.rawValue)\(place.isEmpty ? "" : " (\(place.joined(separator: ", ")))"): \(message)"
    }
}
