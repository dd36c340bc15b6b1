import BlockDevice
import CSystem

/// The redo journal: batches of committed operations on their way to the ring.
///
/// Two batch buffers in the region: operations append to the open one; the sealed one is being written. One record is in flight at a time,
/// and everyone who waits for durability waits for the same write (group commit).
///
/// Invariants, each with a test that fails without it (Tests/VolumeTests/JournalTests.swift):
/// - a record is written once, as one request, after the ordered data of its operations is durable;
/// - the tail in a record is computed when the record is sealed: the oldest image that a dirty or in-flight block still needs;
/// - ring space is reused only when a record that carries the newer tail is durable;
/// - there is always room for one empty record, so that a moved tail can be made durable.
@safe struct Journal: ~Copyable {
    enum Phase { case idle, waitingForData, flushingData, writing, flushing }
    struct LiveRecord { var sequence: UInt64, position: UInt64 }

    let ring: UInt64
    let batchCapacity: Int
    /// Sequence that the open batch will carry: positions of operations in time.
    var openSequence: UInt64
    /// Which buffer: the sequence's parity, so that one store of the sequence says both.
    var openIndex: Int
    var openLength = 0
    var openEntries = 0
    var openedAt: UInt64 = 0
    /// Ordered data writes that the open batch's record must follow, not finished yet; and whether there were any.
    var openOrdered = 0
    var openHadOrdered = false

    var phase = Phase.idle
    var sealedSequence: UInt64 = 0
    var sealedIndex = 0
    var sealedLength = 0
    var sealedEntries = 0
    var sealedOrdered = 0
    var sealedHadOrdered = false
    var sealedBlocks = 0
    var sealedPosition: UInt64 = 0
    var sealedTail: LiveRecord

    var head: UInt64
    var previousChecksum: UInt32 = 0
    var durableSequence: UInt64
    /// Ring space from here on is in use.
    var durableTail: LiveRecord
    /// Records in the ring, oldest first, from the durable tail on.
    var live: [LiveRecord] = []
    /// File data in live records: block → the last record that holds it, and both in the order of the records. Such a block is not written
    /// in place of being logged again before the tail has passed: replay would put the old bytes over the new.
    private var loggedData = NumberTable<UInt64>()
    private var loggedOrder: [(sequence: UInt64, block: UInt64)] = []
    private var loggedHead = 0
    /// Blocks that became unwritten extents while records may hold their old bytes: written in place, replay would put those over what
    /// the file gets next.
    private var retired: [(sequence: UInt64, start: UInt64, count: UInt64)] = []
    /// Files whose durable size grows with the open batch and with the sealed one, and in which page the old size lies: what is written from there on in place would be
    /// there before the size that covers it. Nothing is known of them after adoption, and every block counts as logged.
    private var grownOpen = NumberTable<UInt64>()
    private var grownSealed = NumberTable<UInt64>()
    /// After adoption: what older records hold is not known, so every block counts as logged until the tail has passed this one.
    var unknownBefore: UInt64 = 0
    /// Someone waits for records up to this one.
    var wanted: UInt64 = 0
    var bug = PlantedBug.none

    init(ring: UInt64, batchCapacity: Int, firstSequence: UInt64) {
        self.ring = ring
        self.batchCapacity = batchCapacity
        openSequence = firstSequence
        openIndex = Int(firstSequence & 1)
        head = 0
        durableSequence = firstSequence - 1
        durableTail = LiveRecord(sequence: firstSequence, position: 0)
        sealedTail = durableTail
        live.reserveCapacity(1024)
    }

    mutating func logged(_ block: UInt64) {
        loggedData[block] = openSequence
        loggedOrder.append((openSequence, block))
    }

    func hasLiveData(_ block: UInt64) -> Bool {
        if bug == .loggedDataIsOverwrittenInPlace { return false }
        return isRetired(block) || loggedData.contains(block)
    }

    mutating func retire(_ start: UInt64, _ count: UInt64) {
        if bug == .retiredBlocksAreForgotten { return }
        if retired.count == 256 {
            // Too many to look through for each block: all count as retired until the tail has passed.
            retired.removeAll()
            unknownBefore = openSequence + 1
        }
        retired.append((openSequence, start, count))
    }

    func isRetired(_ block: UInt64) -> Bool {
        durableTail.sequence < unknownBefore || !retired.isEmpty && retired.contains { block >= $0.start && block - $0.start < $0.count }
    }

    mutating func grew(_ inode: UInt64, fromPage page: UInt64) {
        if bug != .grownPagesAreWrittenInPlace { grownOpen[inode] = min(grownOpen[inode] ?? .max, page) }
    }

    /// Whether the page may lie beyond the size that the file has if the power goes now.
    func mayBeBeyondEnd(_ inode: UInt64, _ page: UInt64) -> Bool {
        if grownOpen.isEmpty && grownSealed.isEmpty { return false }
        return page >= min(grownOpen[inode] ?? .max, grownSealed[inode] ?? .max)
    }

    /// The open batch has been sealed; the one before it is durable.
    mutating func sealGrown() {
        if grownOpen.isEmpty && grownSealed.isEmpty { return }
        grownSealed.removeAll()
        swap(&grownOpen, &grownSealed)
    }

    mutating func sealedIsDurable() {
        durableSequence = sealedSequence
        if !grownSealed.isEmpty { grownSealed.removeAll() }
    }

    /// After the durable tail has moved.
    mutating func forgetPassedData() {
        while loggedHead < loggedOrder.count, loggedOrder[loggedHead].sequence < durableTail.sequence {
            let entry = loggedOrder[loggedHead]
            if loggedData[entry.block] == entry.sequence { loggedData[entry.block] = nil }
            loggedHead += 1
        }
        if !retired.isEmpty { retired.removeAll { $0.sequence < durableTail.sequence } }
        if loggedHead > 256 && loggedHead * 2 > loggedOrder.count {
            loggedOrder.removeFirst(loggedHead)
            loggedHead = 0
        }
    }

    var usedBlocks: UInt64 { head - durableTail.position }

    /// Where a record of so many blocks goes: never across the ring's end.
    @inline(__always) func place(_ blocks: Int, from head: UInt64) -> UInt64 {
        let offset = head % ring
        return offset + UInt64(blocks) > ring ? head - offset + ring : head
    }

    static func blocks(_ payload: Int) -> Int { (JournalLayout.headerSize + payload + BlockLayout.size - 1) / BlockLayout.size }

    /// Blocks that stay free for work that makes room: write-back may use half of them, one is for an empty record.
    var reserve: UInt64 { ring / 8 }

    /// True where the open batch may grow by `bytes`.
    func hasRoom(_ bytes: Int, mayUseReserve: Bool) -> Bool {
        guard openLength + bytes <= batchCapacity - JournalLayout.headerSize else { return false }
        let blocks = Journal.blocks(openLength + bytes)
        // The sealed record, if it has no place yet, comes first.
        let start = phase == .waitingForData || phase == .flushingData ? sealedPosition + UInt64(sealedBlocks) : head
        let end = place(blocks, from: start) + UInt64(blocks)
        return end + (mayUseReserve ? 2 : reserve) <= durableTail.position + ring || bug == .liveRecordsAreOverwritten
    }
}

extension Volume {
    /// The oldest record that replay still needs if the open batch were sealed now.
    func currentTail() -> Journal.LiveRecord {
        var sequence = journal.openSequence
        if cache.checkpointHead != Cache.none && journal.bug != .tailPassesDirtyBlocks { sequence = min(sequence, unsafe cache.headers[Int(cache.checkpointHead)].imageSequence) }
        if let oldest = checkpoint.oldest, journal.bug != .tailPassesUnflushedWrites { sequence = min(sequence, oldest) }
        for detached in detachedImages where detached.sequence < sequence { sequence = detached.sequence }
        // Records follow each other without a gap.
        if let first = journal.live.first, sequence < first.sequence + UInt64(journal.live.count) {
            return journal.live[sequence > first.sequence ? Int(sequence - first.sequence) : 0]
        }
        return Journal.LiveRecord(sequence: sequence, position: UInt64.max)
    }

    /// Takes the journal one step further where it can go.
    func advanceJournal() {
        if isReadOnly { return }
        switch journal.phase {
        case .idle:
            let age = clock.monotonic &- journal.openedAt
            let due = journal.openLength > 0 && age >= commitAge
            let large = journal.openLength > journal.batchCapacity / 2
            if journal.wanted >= journal.openSequence || due || large || tailNeedsPublishing { seal() }
        case .waitingForData:
            if journal.sealedOrdered == 0 || journal.bug == .recordDoesNotWaitForData {
                if journal.sealedHadOrdered && capabilities.volatileCache && journal.bug != .dataIsNotFlushed {
                    if submitFlush(.journalDataFlush) { journal.phase = .flushingData }
                } else {
                    writeRecord()
                }
            }
        case .flushingData, .writing, .flushing: break
        }
    }

    /// A moved tail that is not durable keeps ring space from being used.
    private var tailNeedsPublishing: Bool {
        guard journal.usedBlocks + journal.reserve * 3 > journal.ring || journalStarved else { return false }
        return currentTail().sequence > journal.durableTail.sequence
    }

    /// The open batch becomes the record to write; a new batch opens.
    private func seal() {
        journalStarved = false
        journal.sealedSequence = journal.openSequence
        journal.sealedIndex = journal.openIndex
        journal.sealedLength = journal.openLength
        journal.sealedEntries = journal.openEntries
        journal.sealedOrdered = journal.openOrdered
        journal.sealedHadOrdered = journal.openHadOrdered
        journal.sealedBlocks = Journal.blocks(journal.sealedLength)
        journal.sealedPosition = journal.place(journal.sealedBlocks, from: journal.head)
        let tail = currentTail()
        journal.sealedTail =
            tail.position == .max ? Journal.LiveRecord(sequence: journal.sealedSequence, position: journal.sealedPosition) : tail
        journal.sealGrown()
        journal.openSequence += 1
        journal.openIndex = Int(journal.openSequence & 1)
        journal.openLength = 0
        journal.openEntries = 0
        journal.openOrdered = 0
        journal.openHadOrdered = false
        journal.openedAt = clock.monotonic
        region.store(journal.openIndex == 0 ? .batchLength0 : .batchLength1, 0)
        dashfs_release_fence()
        region.store(.openSequence, journal.openSequence)
        journal.phase = .waitingForData
        wakeJournalWaiters()
        advanceJournal()
    }

    private func writeRecord() {
        let buffer = unsafe region.batch(journal.sealedIndex)
        let size = journal.sealedBlocks * BlockLayout.size
        let record = unsafe Bytes(buffer, count: size, writable: true)
        record.zero(0, JournalLayout.headerSize)
        let end = JournalLayout.headerSize + journal.sealedLength
        record.zero(end, size - end)
        record.set(0, JournalLayout.magic)
        record.set(8, superblock.uuid.0)
        record.set(16, superblock.epoch)
        record.set(24, superblock.nonce)
        record.set(32, journal.sealedSequence)
        record.set(40, journal.sealedPosition)
        record.set(48, UInt32(journal.sealedLength))
        record.set(52, UInt32(journal.sealedBlocks))
        record.set(56, journal.previousChecksum)
        record.set(64, journal.durableSequence)
        record.set(72, journal.sealedTail.sequence)
        record.set(80, journal.sealedTail.position)
        record.set(88, UInt32(journal.sealedEntries))
        let checksum = unsafe dashfs_crc32c(0, buffer, size)
        record.set(60, checksum)
        let block = superblock.journalStart + journal.sealedPosition % journal.ring
        let force = recordsAreForced && journal.bug != .recordsAreNotForced
        guard unsafe submitIO(.write, block: block, address: buffer, length: size, forceUnitAccess: force, purpose: .journalRecord) else { return }
        journal.phase = .writing
        journal.previousChecksum = checksum
        journal.head = journal.sealedPosition + UInt64(journal.sealedBlocks)
        journal.live.append(Journal.LiveRecord(sequence: journal.sealedSequence, position: journal.sealedPosition))
    }

    func journalDataFlushed() {
        // Where the device has no room for the record now, it is tried again from here.
        journal.sealedHadOrdered = false
        journal.phase = .waitingForData
        writeRecord()
    }

    /// Durable when it is written, where the device can do that: no flush follows. A flush here would have nothing else to cover: the data that
    /// the record points at is flushed before it, and home writes have a flush of their own before the tail passes them.
    private var recordsAreForced: Bool { capabilities.volatileCache && capabilities.supportsForceUnitAccess }

    func journalRecordWritten() {
        if capabilities.volatileCache && !recordsAreForced {
            journal.phase = .flushing
            if !submitFlush(.journalFlush) { retryFlush = true }
        } else {
            journalRecordDurable()
        }
    }

    func journalRecordDurable() {
        journal.sealedIsDurable()
        journal.durableTail = journal.sealedTail
        journal.forgetPassedData()
        if let first = journal.live.firstIndex(where: { $0.sequence >= journal.durableTail.sequence }), first > 0 {
            journal.live.removeFirst(first)
        }
        journal.phase = .idle
        releasePinned()
        wakeDurableWaiters()
        wakeJournalWaiters()
        advanceJournal()
    }
}
