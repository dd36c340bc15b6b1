import BlockDevice

/// Goes on with the memory of a server that died while the machine lived: cache, open descriptions, locks and the operation record are in
/// the region, the journal's place is on the device, everything else is rebuilt from the two.
///
/// The caller has made sure that no request of the dead process is in flight (the device's lock says so). Order:
/// 1. lists and indexes from the frame headers, leaving alone the frames that an unapplied record names;
/// 2. that record is applied (again): its operation has happened, and `lastRecorded` says with what result;
/// 3. lists again, tables, counters; blocks whose freeing is not durable are held back;
/// 4. data that was on its way to fresh blocks is sent again, and the sealed record, if it did not reach the device, follows it.
extension Volume {
    public static func adopt(
        _ queue: any DeviceQueue, _ capabilities: DeviceCapabilities, memory: UnsafeMutableRawPointer, configuration: Configuration, clock: Clock
    ) throws(VolumeError) -> Volume {
        let device = BlockingDevice(queue)
        let superblock = try readSuperblock(device, deviceBlocks: capabilities.blockCount)
        let volume = unsafe Volume(superblock: superblock, queue: queue, capabilities: capabilities, memory: memory, configuration: configuration)
        volume.clock = clock
        guard volume.region.load(.magic) == Region.magic, volume.region.load(.size) == UInt64(volume.region.layout.size),
            volume.region.load(.epoch) == superblock.epoch, !superblock.clean
        else { throw VolumeError(errno: Errno.stale, "the memory is not that of this volume's last mount; mount it instead") }
        try volume.adopt(device)
        return volume
    }

    /// Token and result of the last operation that took effect: its answer may not have reached the client.
    public var lastRecorded: (token: UInt64, result: Int64)? {
        if region.load(.published) == 0 { return nil }
        let head = unsafe Bytes(region.record, count: Region.Layout.record, writable: false)
        return (head.u64(RecordLayout.tokenAt), head.i64(RecordLayout.resultAt))
    }

    /// A session of the dead server under its old name, so that its open descriptions are its own again.
    public func restoreSession(_ session: SessionID, _ credentials: Credentials, prefix: [UInt8] = []) {
        let index = Int(session.rawValue & 0xFFFF)
        while sessions.count <= index {
            if sessions.count < index { freeSessions.append(sessions.count) }
            sessions.append(SessionState())
        }
        freeSessions.removeAll { $0 == index }
        sessions[index].used = true
        sessions[index].generation = UInt16(session.rawValue >> 16)
        sessions[index].credentials = credentials
        sessions[index].prefix = prefix
    }

    private func adopt(_ device: BlockingDevice) throws(VolumeError) {
        try adoptJournal(device)
        if region.load(.published) != region.load(.applied) && journal.bug != .adoptionSkipsTheRecord {
            cache.rebuild(keeping: framesOfUnappliedRecord())
            applyPublished()
            detachedImages.removeAll()
        }
        cache.rebuild()
        let open = journal.openIndex
        journal.openLength = Int(region.load(open == 0 ? .batchLength0 : .batchLength1))
        journal.openEntries = journal.openLength == 0 ? 0 : Int(region.load(open == 0 ? .batchEntries0 : .batchEntries1))
        journal.openedAt = clock.monotonic
        rebuildTables()
        try loadGroups(device)
        for slot in 0..<region.layout.inodes {
            let row = unsafe CoreInode(slot: slot, cell: Bytes(region.state + slot * CoreInode.size, count: CoreInode.size, writable: false))
            if row.inode != 0 && (row.has(CoreInode.Flag.attributesDirty) || cache.dirtyLists.contains(row.inode)) {
                becameDirty(row.inode)
            }
            // Its memory is gone with the dead process.
            if row.inode != 0 && row.has(CoreInode.Flag.mapped) { startMapTask(.unmap(row.inode)) }
        }
        if journal.phase != .idle { holdFrees(in: journal.sealedIndex, length: journal.sealedLength, sequence: journal.sealedSequence) }
        holdFrees(in: open, length: journal.openLength, sequence: journal.openSequence)
        resendOrderedWrites()
        if journal.phase != .idle {
            let tail = currentTail()
            journal.sealedTail = tail.sequence < journal.sealedSequence && tail.position != .max
                ? tail : Journal.LiveRecord(sequence: journal.sealedSequence, position: journal.sealedPosition)
        }
        if !isReadOnly { startOrphans() }
    }

    /// Where the journal goes on: behind the newest record on the device. The batch that was sealed after it, if any, is written first.
    private func adoptJournal(_ device: BlockingDevice) throws(VolumeError) {
        // What the dead process wrote is durable from here on.
        if !isReadOnly { try device.flush() }
        let live = try Recovery(device: device, superblock: superblock, geometry: geometry).liveRecords()
        journal.openSequence = region.load(.openSequence)
        journal.openIndex = Int(journal.openSequence & 1)
        journal.unknownBefore = journal.openSequence
        if let newest = live.last {
            journal.durableSequence = newest.sequence
            journal.durableTail = Journal.LiveRecord(sequence: newest.tail, position: newest.tailPosition)
            journal.head = newest.position + UInt64(newest.blocks)
            journal.previousChecksum = newest.checksum
            journal.live = live.map { Journal.LiveRecord(sequence: $0.sequence, position: $0.position) }
        }
        let sealed = journal.openSequence &- 1
        guard sealed > journal.durableSequence else { return }
        guard sealed == journal.durableSequence + 1 else {
            throw VolumeError(errno: Errno.damaged, "the journal ends at record \(journal.durableSequence), the memory goes on at \(sealed)")
        }
        journal.sealedSequence = sealed
        journal.sealedIndex = Int(sealed & 1)
        journal.sealedLength = Int(region.load(journal.sealedIndex == 0 ? .batchLength0 : .batchLength1))
        journal.sealedEntries = journal.sealedLength == 0 ? 0 : Int(region.load(journal.sealedIndex == 0 ? .batchEntries0 : .batchEntries1))
        journal.sealedBlocks = Journal.blocks(journal.sealedLength)
        journal.sealedPosition = journal.place(journal.sealedBlocks, from: journal.head)
        journal.phase = .waitingForData
    }

    private func framesOfUnappliedRecord() -> Set<Int> {
        let head = unsafe Bytes(region.record, count: Region.Layout.record, writable: false)
        var frames: Set<Int> = []
        var at = RecordLayout.actionsAt
        let end = at + Int(head.u64(RecordLayout.lengthAt))
        while at < end {
            let kind = head.u32(at)
            if kind == RecordLayout.Action.publish || kind == RecordLayout.Action.metadataFrame { frames.insert(Int(head.u64(at + 8))) }
            at += Int(head.u32(at + 4))
        }
        return frames
    }

    private func holdFrees(in batch: Int, length: Int, sequence: UInt64) {
        let base = unsafe region.batch(batch) + JournalLayout.headerSize
        var at = 0
        while at < length {
            let word = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            let address = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self))
            let kind = UInt8(truncatingIfNeeded: word)
            at += JournalLayout.entryHeaderSize
            if kind == JournalLayout.Kind.free { holdFreed(address, word >> 32, sequence: sequence) } else { at += (Int(word >> 32) + 7) & ~7 }
        }
    }

    /// Frames with data for fresh blocks, replaced ones included: their records wait for them.
    private func resendOrderedWrites() {
        for frame in 0..<cache.count {
            let header = cache.header(frame)
            guard header.state != .empty, header.flags & FrameFlag.ordered != 0 else { continue }
            unsafe cache.headers[frame].state = .writing
            if header.flags & FrameFlag.detached != 0 {
                detachedImages.append(DetachedImage(frame: frame, block: header.block, sequence: .max))
            }
            let isSealed = journal.phase != .idle && header.lastSequence <= journal.sealedSequence
            pendingOrdered.append((header.block, [UInt32(frame)], isSealed ? journal.sealedSequence : journal.openSequence))
            if isSealed {
                journal.sealedOrdered += 1
                journal.sealedHadOrdered = true
            } else {
                journal.openOrdered += 1
                journal.openHadOrdered = true
            }
        }
    }
}
