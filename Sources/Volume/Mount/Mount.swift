import BlockDevice

/// From a device to a running volume: superblock, recovery, a new epoch, counters, orphans.
extension Volume {
    /// The superblock that counts, or why there is none.
    package static func readSuperblock(_ device: BlockingDevice, deviceBlocks: UInt64) throws(VolumeError) -> Superblock {
        guard deviceBlocks >= minimumBlocks else { throw VolumeError(errno: Errno.invalid, "too small to hold a DashFS volume; format a larger device") }
        var best = Superblock(decoding: try device.read(0), address: 0)
        // The copy is in the volume's last block: where the first says, or at the device's end.
        for address in Set([best.map { $0.blockCount &- 1 } ?? deviceBlocks - 1, deviceBlocks - 1]).sorted() where address > 0 && address < deviceBlocks {
            if let copy = Superblock(decoding: try device.read(address), address: address), copy.generation > best?.generation ?? 0,
                copy.blockCount == address + 1
            {
                best = copy
            }
        }
        guard let superblock = best else { throw VolumeError(errno: Errno.invalid, "holds no DashFS volume; make one with: dashfs format") }
        if let problem = superblock.problem(deviceBlocks: deviceBlocks) { throw VolumeError(errno: Errno.damaged, "its superblock \(problem)") }
        return superblock
    }

    /// How much memory `mount` wants for this device.
    public static func memorySize(_ queue: any DeviceQueue, _ capabilities: DeviceCapabilities, configuration: Configuration) throws(VolumeError) -> Int {
        let superblock = try readSuperblock(BlockingDevice(queue), deviceBlocks: capabilities.blockCount)
        return regionSize(configuration, journalBlocks: superblock.journalBlocks)
    }

    /// A record of the journal is written in one transfer, and one operation has to fit into it.
    static let smallestTransfer = 64 << 10

    static func requireTransfers(_ longest: Int) throws(VolumeError) {
        guard longest < smallestTransfer else { return }
        throw VolumeError(
            errno: Errno.invalid,
            "takes at most \(longest) bytes in a transfer, and the journal needs \(smallestTransfer); use another device, or this one by the kernel's driver")
    }

    /// Mounts: replays the journal, begins a new epoch, and takes the memory (zeroed, `memorySize` bytes, page-aligned) as cache and state.
    /// - Parameter recovering: while the journal is replayed, told how much of that is done: 0...1, growing. Not called where there is nothing to recover.
    public static func mount(
        _ queue: any DeviceQueue, _ capabilities: DeviceCapabilities, memory: UnsafeMutableRawPointer, configuration: Configuration, clock: Clock,
        recovering: (Double) -> Void = { _ in }
    ) throws(VolumeError) -> Volume {
        try requireTransfers(capabilities.maximumTransfer)
        let device = BlockingDevice(queue)
        var superblock = try readSuperblock(device, deviceBlocks: capabilities.blockCount)
        var configuration = configuration
        var notes: [Note] = []
        var readOnlyReason: String?
        if superblock.readOnlyCompatible & ~Superblock.knownReadOnlyCompatible != 0 && !configuration.readOnly {
            configuration.readOnly = true
            readOnlyReason = "the volume uses features this version cannot write"
            notes.append(Note(kind: .event, text: "read-only: the volume uses features this version cannot write"))
        }
        let mayWrite = !configuration.readOnly && !capabilities.readOnly
        let recovery = Recovery(device: device, superblock: superblock, geometry: Geometry(superblock), bug: configuration.plantedBug)
        if !mayWrite && !superblock.clean {
            throw VolumeError(errno: Errno.readOnly, "was not shut down in order and cannot be recovered read-only; mount it for writing once")
        }
        if !superblock.clean {
            let result = try recovery.run(write: true, progress: recovering)
            superblock.firstSequence = result.nextSequence
            notes.append(Note(kind: .event, text: "recovered: \(result.replayed) journal records, \(result.blocksWritten) blocks"))
            if let corruption = result.corruption {
                configuration.readOnly = true
                readOnlyReason = corruption
                notes.append(Note(kind: .end, text: "read-only: \(corruption)"))
            }
        }
        if !configuration.readOnly && mayWrite {
            superblock.epoch &+= 1
            superblock.nonce = configuration.nonce
            superblock.clean = false
            superblock.generation &+= 1
            try write(superblock, device)
        }
        let volume = unsafe Volume(
            superblock: superblock, queue: queue, capabilities: capabilities, memory: memory, configuration: configuration)
        volume.clock = clock
        volume.readOnlyReason = readOnlyReason ?? volume.readOnlyReason
        for note in notes { volume.note(note.text, note.kind) }
        volume.buildFreshState()
        try volume.loadGroups(device)
        if !volume.isReadOnly { volume.startOrphans() }
        return volume
    }

    /// One after the other, each flushed: a cut leaves at least one whole.
    static func write(_ superblock: Superblock, _ device: BlockingDevice) throws(VolumeError) {
        for address in [superblock.blockCount - 1, 0] {
            superblock.encode(into: device.blank(), address: address)
            try device.write(address)
            try device.flush()
        }
    }

    /// At the end of an orderly shutdown, when nothing else is in flight.
    func writeSuperblocks() {
        superblock.generation &+= 1
        superblock.firstSequence = journal.openSequence
        do throws(VolumeError) {
            let device = BlockingDevice(queue)
            try device.flush()
            try Volume.write(superblock, device)
        } catch {
            note("the superblock cannot be written: \(error.message)")
        }
    }

    private func buildFreshState() {
        region.store(.magic, Region.magic)
        region.store(.size, UInt64(region.layout.size))
        region.store(.openSequence, journal.openSequence)
        region.store(.epoch, superblock.epoch)
        cache.rebuild()
        rebuildTables()
    }

    /// Free lists and indexes of the state tables, from their rows.
    func rebuildTables() {
        corePool.removeAll()
        descriptionPool.removeAll()
        lockPool.removeAll()
        coreIndex.removeAll()
        shareIndex.removeAll()
        reservedBlocks = 0
        for slot in (0..<region.layout.inodes).reversed() {
            let row = unsafe CoreInode(slot: slot, cell: Bytes(region.state + slot * CoreInode.size, count: CoreInode.size, writable: false))
            if row.inode == 0 { corePool.give(slot) } else {
                coreIndex.insert(HashIndex.hash(row.inode, 0), slot: slot)
                reservedBlocks += Int(row.reserved) + Int(row.reservedNodes)
            }
        }
        for slot in (0..<region.layout.descriptions).reversed() {
            let row = description(slot, transaction)
            if row.used == 0 { descriptionPool.give(slot) } else { descriptionHighWater = max(descriptionHighWater, slot + 1) }
            if row.used == Description.isShare { shareIndex.insert(Volume.shareHash(Int(row.target), row.session), slot: slot) }
        }
        for slot in (0..<region.layout.locks).reversed() {
            let used = unsafe region.state.load(fromByteOffset: region.layout.locksAt + slot * LockCell.size, as: UInt32.self)
            if used == 0 { lockPool.give(slot) }
        }
    }

    /// Counters of all groups.
    func loadGroups(_ device: BlockingDevice) throws(VolumeError) {
        for group in 0..<geometry.groupCount {
            let address = geometry.start(ofGroup: group)
            let frame = cache.find(0, address)
            let block = frame < 0 ? try device.read(address) : unsafe Bytes(cache.pointer(frame), count: BlockLayout.size, writable: true)
            // What the cache holds is newer than the device, and its checksum is made when it goes home.
            if frame >= 0 { unsafe BlockLayout.seal(block.pointer) }
            if let problem = BlockVerifier.problem(block, address: address, superblock: superblock, geometry: geometry)
                ?? (block.u8(BlockLayout.kindAt) == BlockLayout.Kind.group ? nil : "not a group block")
            {
                throw VolumeError(errno: Errno.damaged, "group \(group) at block \(address): \(problem); run dashfs check")
            }
            unsafe groups[group].freeBlocks = Int(block.u32(GroupLayout.freeBlocksAt))
            unsafe groups[group].freeInodes = Int(block.u32(GroupLayout.freeInodesAt))
            unsafe freeBlocks += groups[group].freeBlocks
            unsafe freeInodes += groups[group].freeInodes
        }
    }
}
