import BlockDevice

/// Reads every structure of a volume and says what is not as FORMAT.md has it. Writes nothing: a volume that was not shut down in order is looked
/// at as its recovery would leave it.
///
/// Invariants: what cannot be read is said once, and nothing is concluded from its absence; no loop depends on the image for its end (every block
/// is followed once, every tree is at most eight high); arithmetic on what the image says is checked first. One thread.
///
/// Order: superblocks, journal, group blocks (`CheckedGroup` for each), then inode by inode with its tree and attributes (which claims blocks and counts
/// names), then names against inodes (CheckNames.swift), then claims against bitmaps (CheckBitmaps.swift).
@safe public final class VolumeChecker {
    public struct Summary: Sendable {
        public var files = 0
        public var directories = 0
        /// Symbolic links, device nodes, fifos, sockets.
        public var others = 0
        public var usedBlocks: UInt64 = 0
        public var blockCount: UInt64 = 0
        /// Records of the journal that the next mount will replay.
        public var replayedRecords = 0
        /// Findings beyond those that are returned.
        public var untold = 0
    }

    /// No more than this many findings are returned.
    public static let maximumFindings = 10_000

    public private(set) var summary = Summary()
    private(set) var findings: [Finding] = []

    private let below: any DeviceQueue
    private let capabilities: DeviceCapabilities
    /// For runs of the inode table, and for single blocks: two buffers, because trees are walked while inodes are looked at.
    private(set) var table: BlockingDevice
    private(set) var single: BlockingDevice
    private(set) var superblock = Superblock()
    private(set) var geometry = Geometry(Superblock())
    var groups: [CheckedGroup] = []
    /// A node of each level, while a tree is walked.
    let nodes: UnsafeMutableRawPointer

    /// Something with blocks could not be read: blocks without a user may have one.
    var blocksUnknown = false
    /// A directory or inode could not be read: inodes without a name may have one.
    var namesUnknown = false
    /// The orphan table could not be read: inodes without links may be in it.
    var orphansUnknown = false
    /// Inodes with written blocks beyond their size: right only where the orphan table says that they go.
    var beyondEnd: [UInt64] = []
    /// Gets the blocks whose bytes a file has, as they are met: mapped, written, and not beyond its end.
    package var foundContent: ((Range<UInt64>) -> Void)?
    /// Entries of the orphan table.
    var orphans: [(inode: UInt64, kind: UInt64)] = []

    public init(_ queue: any DeviceQueue, _ capabilities: DeviceCapabilities) {
        below = queue
        self.capabilities = capabilities
        table = BlockingDevice(queue)
        single = BlockingDevice(queue)
        unsafe nodes = .allocate(byteCount: (Node.maximumDepth + 1) * BlockLayout.size, alignment: 4096)
    }

    public convenience init(_ device: any BlockDevice) throws(DeviceError) {
        self.init(try device.makeQueue(depth: 4), device.capabilities)
    }

    deinit {
        for group in groups { group.free() }
        unsafe nodes.deallocate()
    }

    /// Checks everything, once.
    /// - Parameter progress: called with the share that is done, 0...1.
    public func run(progress: (Double) -> Void = { _ in }) -> [Finding] {
        guard readSuperblocks(), replayJournal() else { return findings }
        summary.blockCount = superblock.blockCount
        readGroups()
        for group in groups.indices {
            checkInodes(ofGroup: group)
            progress(0.9 * Double(group + 1) / Double(groups.count))
        }
        checkNames()
        for group in groups.indices { checkBitmap(ofGroup: group) }
        progress(1)
        addPaths()
        return findings
    }

    func report(
        _ severity: Finding.Severity, _ kind: Finding.Kind, _ message: @autoclosure () -> String, block: UInt64? = nil, inode: UInt64? = nil
    ) {
        if findings.count == VolumeChecker.maximumFindings {
            summary.untold += 1
            return
        }
        findings.append(Finding(severity: severity, kind: kind, message: message(), block: block, inode: inode))
    }

    func count(_ type: UInt16) {
        switch type {
        case Mode.regular: summary.files += 1
        case Mode.directory: summary.directories += 1
        default: summary.others += 1
        }
    }

    func use(_ blocks: UInt64) { summary.usedBlocks += blocks }

    // MARK: Superblocks and journal

    private func readSuperblocks() -> Bool {
        do throws(VolumeError) {
            superblock = try Volume.readSuperblock(single, deviceBlocks: capabilities.blockCount)
        } catch {
            let isOurs = [0, capabilities.blockCount &- 1].contains { address in
                guard capabilities.blockCount >= Volume.minimumBlocks, let block = try? single.read(address) else { return false }
                return block.u32(BlockLayout.magicAt) == BlockLayout.magic
            }
            report(.fatal, isOurs || error.errno == Errno.damaged ? .superblock : .noVolume, error.message)
            return false
        }
        if superblock.readOnlyCompatible & ~Superblock.knownReadOnlyCompatible != 0 {
            report(
                .fatal, .superblock,
                "uses features this version does not know (ro-compat \(String(superblock.readOnlyCompatible, radix: 16))); use a newer dashfs")
            return false
        }
        geometry = Geometry(superblock)
        for address in [0, superblock.blockCount - 1] {
            guard let block = readBlock(address) else { continue }
            guard let copy = Superblock(decoding: block, address: address) else {
                report(.warning, .superblockCopy, "\(address == 0 ? "the first" : "the second") superblock is damaged", block: address)
                continue
            }
            // An update that was cut leaves one copy a generation behind.
            if copy.uuid != superblock.uuid || copy.generation &+ 1 < superblock.generation {
                report(.warning, .superblockCopy, "\(address == 0 ? "the first" : "the second") superblock is out of date", block: address)
            }
        }
        return true
    }

    private func replayJournal() -> Bool {
        if superblock.clean { return true }
        let overlay = OverlayQueue(below)
        single = BlockingDevice(overlay)
        table = BlockingDevice(overlay)
        do throws(VolumeError) {
            let result = try Recovery(device: single, superblock: superblock, geometry: geometry).run(write: true)
            summary.replayedRecords = result.replayed
            if let corruption = result.corruption { report(.error, .journal, corruption) }
            return true
        } catch {
            report(.error, .journal, error.message)
            return false
        }
    }

    // MARK: Reading

    /// A block as it is, or nil: the device has failed, which is said.
    func readBlock(_ address: UInt64) -> Bytes? {
        do throws(VolumeError) {
            return try single.read(address)
        } catch {
            report(.error, .unreadable, error.message, block: address)
            return nil
        }
    }

    /// A metadata block of that kind, sound in itself, or nil: what is wrong is said.
    func readMetadata(_ address: UInt64, kind: UInt8, inode: UInt64? = nil) -> Bytes? {
        guard let block = readBlock(address) else { return nil }
        return isSound(block, address, kind: kind, inode: inode) ? block : nil
    }

    func isSound(_ block: Bytes, _ address: UInt64, kind: UInt8, inode: UInt64?) -> Bool {
        if let problem = BlockVerifier.problem(block, address: address, superblock: superblock, geometry: geometry) {
            report(.error, .damagedBlock, problem, block: address, inode: inode)
            return false
        }
        if block.u8(BlockLayout.kindAt) != kind {
            report(.error, .damagedBlock, "a block of kind \(block.u8(BlockLayout.kindAt)) where one of kind \(kind) belongs", block: address, inode: inode)
            return false
        }
        return true
    }

    private func readGroups() {
        groups.reserveCapacity(geometry.groupCount)
        for number in 0..<geometry.groupCount {
            let blocks = geometry.blocks(inGroup: number)
            let block = readMetadata(geometry.start(ofGroup: number), kind: BlockLayout.Kind.group)
            if block == nil { (blocksUnknown, namesUnknown, orphansUnknown) = (true, true, true) }
            let records = block.map { Int($0.u32(GroupLayout.initializedAt)) * InodeLayout.perBlock } ?? 0
            let group = CheckedGroup(
                blocks: blocks, overhead: geometry.groupOverhead, recordCount: min(records, geometry.inodesPerGroup),
                freeBlocks: block.map { Int($0.u32(GroupLayout.freeBlocksAt)) } ?? 0,
                freeInodes: block.map { Int($0.u32(GroupLayout.freeInodesAt)) } ?? 0, isUnknown: block == nil)
            groups.append(group)
        }
    }

    /// The record of an inode that `Geometry.isInode` accepts; nil: it was never used, or its group is unknown.
    func record(_ inode: UInt64) -> UnsafeMutablePointer<CheckedGroup.Record>? {
        unsafe groups[geometry.group(ofInode: inode)].record(Int((inode - 1) % UInt64(geometry.inodesPerGroup)))
    }

    /// Marks blocks that `Geometry.isData` accepts as the inode's. False: some have a user already, which is said.
    func claim(_ block: UInt64, _ count: UInt64, inode: UInt64) -> Bool {
        let group = geometry.group(ofBlock: block)
        let before = groups[group].claim(Int(block - geometry.start(ofGroup: group)), Int(count))
        use(count - UInt64(before))
        if before > 0 {
            report(.error, .sharedBlocks, "\(before) of the \(count) blocks from \(block) on are used by something else too", block: block, inode: inode)
        }
        return before == 0
    }

    // MARK: Paths

    /// Findings get the path of their inode, the first of them.
    private func addPaths() {
        for index in findings.indices.prefix(200) {
            if let inode = findings[index].inode { findings[index].path = path(of: inode) }
        }
    }

    private func path(of inode: UInt64) -> String? {
        var names: [String] = []
        var current = inode
        while current != Superblock.rootInode {
            guard names.count < 1000, geometry.isInode(current), let record = unsafe record(current), unsafe record.pointee.names > 0,
                let name = name(of: current, in: unsafe record.pointee.namedIn)
            else { return nil }
            names.append(name)
            unsafe current = record.pointee.namedIn
        }
        return "/" + names.reversed().joined(separator: "/")
    }

    /// The name of an inode in a directory whose tree has been found walkable, or nil.
    private func name(of inode: UInt64, in directory: UInt64) -> String? {
        let (block, offset) = geometry.location(ofInode: directory)
        guard let bytes = try? single.read(block) else { return nil }
        let root = Inode(number: directory, cell: bytes.slice(offset, InodeLayout.size)).root
        var pending = [root]
        var steps = 0
        while let address = pending.popLast() {
            steps += 1
            guard steps < 100_000, geometry.isData(address), let bytes = try? single.read(address),
                BlockVerifier.problem(bytes, address: address, superblock: superblock, geometry: geometry) == nil,
                bytes.u8(BlockLayout.kindAt) == BlockLayout.Kind.directory
            else { continue }
            let node = Node(block: address, bytes: bytes)
            for slot in 0..<node.count {
                if node.level > 0 { pending.append(node.value(slot)) } else if node.value(slot) == inode {
                    let name = node.name(slot)
                    return unsafe String(decoding: UnsafeRawBufferPointer(start: name.pointer, count: name.count), as: UTF8.self)
                }
            }
        }
        return nil
    }
}
