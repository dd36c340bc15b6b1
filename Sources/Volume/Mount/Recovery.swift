import BlockDevice
import CSystem

/// Replays the journal of a volume that was not shut down in order. Doing it twice, or being cut in the middle of it, changes nothing:
/// the journal is only given up when the next epoch's superblock is written, after everything replayed is flushed.
///
/// 1. Read the whole ring; every block that begins a record of this epoch and nonce, whole and in its place, is a candidate.
/// 2. The candidate with the highest sequence names the tail: replay begins there.
/// 3. Records follow each other by sequence and by the checksum of the one before; the first gap ends the replay. A gap below what a later
///    record knew to be durable is no end but a lost record: corruption.
/// 4. Frees are collected first: nothing that a later record (or the same) frees is replayed.
/// 5. Per block, everything before its last whole image is skipped; then images and deltas in order, checksums, and home.
struct Recovery {
    struct Candidate {
        var sequence: UInt64
        var position: UInt64
        var blocks: Int
        var payload: Int
        var previous: UInt32
        var checksum: UInt32
        var durable: UInt64
        var tail: UInt64
        var tailPosition: UInt64
    }

    struct Result {
        /// The sequence after the last one replayed.
        var nextSequence: UInt64
        var replayed = 0
        var blocksWritten = 0
        /// A lost or damaged record: the volume is shown, not written.
        var corruption: String?
    }

    let device: BlockingDevice
    let superblock: Superblock
    let geometry: Geometry
    var bug = PlantedBug.none

    /// - Parameter progress: is told how much is done, 0...1, after each piece of the ring (the first half) and each block that came home.
    func run(write: Bool, progress: (Double) -> Void = { _ in }) throws(VolumeError) -> Result {
        let ring = try readRing { progress($0 / 2) }
        let candidates = findCandidates(ring)
        guard let newest = candidates.values.max(by: { $0.sequence < $1.sequence }) else {
            return Result(nextSequence: superblock.firstSequence)
        }
        var result = Result(nextSequence: newest.tail)
        let mustHave = candidates.values.map { $0.durable }.max() ?? 0
        var chain: [Candidate] = []
        var sequence = newest.tail
        while let next = candidates[sequence] {
            if let last = chain.last, next.previous != last.checksum && bug != .chainIsNotChecked { break }
            chain.append(next)
            // A hostile record may have the highest number there is.
            sequence &+= 1
        }
        result.nextSequence = sequence
        if sequence <= mustHave && bug != .lostRecordIsTheEnd {
            result.corruption = "journal record \(sequence) is missing or damaged, though record \(newest.sequence) knew it to be durable"
        }
        result.replayed = chain.count
        if write { result.blocksWritten = try replay(ring, chain) { progress(0.5 + $0 / 2) } }
        return result
    }

    /// The records that replay would need, oldest first: where a journal goes on whose process died while its machine did not.
    func liveRecords() throws(VolumeError) -> [Candidate] {
        let candidates = findCandidates(try readRing())
        guard let newest = candidates.values.max(by: { $0.sequence < $1.sequence }) else { return [] }
        var chain: [Candidate] = []
        var sequence = newest.tail
        while let next = candidates[sequence], chain.last.map({ $0.checksum == next.previous }) ?? true {
            chain.append(next)
            sequence &+= 1
        }
        guard chain.last?.sequence == newest.sequence else {
            throw VolumeError(errno: Errno.damaged, "journal record \(sequence) is missing or damaged; run dashfs check")
        }
        return chain
    }

    private func readRing(progress: (Double) -> Void = { _ in }) throws(VolumeError) -> [UInt8] {
        var ring: [UInt8] = []
        ring.reserveCapacity(Int(superblock.journalBlocks) * BlockLayout.size)
        var block: UInt64 = 0
        while block < superblock.journalBlocks {
            let count = min(BlockingDevice.bufferBlocks, Int(superblock.journalBlocks - block))
            let bytes = try device.read(superblock.journalStart + block, count)
            unsafe ring.append(contentsOf: UnsafeRawBufferPointer(start: bytes.pointer, count: bytes.count))
            block += UInt64(count)
            progress(Double(block) / Double(superblock.journalBlocks))
        }
        return ring
    }

    private func findCandidates(_ ring: [UInt8]) -> [UInt64: Candidate] {
        var found: [UInt64: Candidate] = [:]
        let total = Int(superblock.journalBlocks)
        unsafe ring.withUnsafeBytes { raw in
            guard let base = raw.baseAddress else { return }
            for block in 0..<total {
                let record = unsafe Bytes(
                    UnsafeMutableRawPointer(mutating: base + block * BlockLayout.size), count: (total - block) * BlockLayout.size, writable: false)
                guard record.u64(0) == JournalLayout.magic, record.u64(8) == superblock.uuid.0, record.u64(16) == superblock.epoch && record.u64(24) == superblock.nonce || bug == .otherMountsCount
                else { continue }
                let candidate = Candidate(
                    sequence: record.u64(32), position: record.u64(40), blocks: Int(record.u32(52)), payload: Int(record.u32(48)),
                    previous: record.u32(56), checksum: record.u32(60), durable: record.u64(64), tail: record.u64(72),
                    tailPosition: record.u64(80))
                guard candidate.position % superblock.journalBlocks == UInt64(block), candidate.blocks >= 1, candidate.blocks <= min(total - block, JournalLayout.maximumBlocks),
                    Journal.blocks(candidate.payload) == candidate.blocks, candidate.tail >= 1, candidate.tail <= candidate.sequence,
                    candidate.sequence < JournalLayout.lastSequence
                else { continue }
                var checksum = unsafe dashfs_crc32c(0, record.pointer, 60)
                var zero: UInt32 = 0
                checksum = unsafe withUnsafeBytes(of: &zero) { unsafe dashfs_crc32c(checksum, $0.baseAddress!, 4) }
                checksum = unsafe dashfs_crc32c(checksum, record.pointer + 64, candidate.blocks * BlockLayout.size - 64)
                if checksum == candidate.checksum || bug == .checksumIsNotChecked { found[candidate.sequence] = candidate }
            }
        }
        return found
    }

    private struct Entry {
        var kind: UInt8
        var address: UInt64
        var length: Int
        /// Offset of the content in the ring.
        var at: Int
        var sequence: UInt64
        var block: UInt64 { kind == JournalLayout.Kind.delta ? address / UInt64(BlockLayout.size) : address }
    }

    private struct Free { var start, end, sequence: UInt64 }

    /// For each block that has entries, the last record that frees it. The last frees come first, and each block is looked at once: a journal
    /// full of long frees costs no more than its length.
    private func lastFrees(_ frees: [Free], of entries: [Entry]) -> [UInt64: UInt64] {
        let blocks = Set(entries.map(\.block)).sorted()
        // From a place to the next whose block has no answer yet.
        var next = Array(0...blocks.count)
        func open(_ place: Int) -> Int {
            var root = place
            while next[root] != root { root = next[root] }
            var at = place
            while next[at] != root { (at, next[at]) = (next[at], root) }
            return root
        }
        var found: [UInt64: UInt64] = [:]
        for free in frees.reversed() {
            var (low, high) = (0, blocks.count)
            while low < high {
                let middle = (low + high) / 2
                if blocks[middle] < free.start { low = middle + 1 } else { high = middle }
            }
            var place = open(low)
            while place < blocks.count && blocks[place] < free.end {
                found[blocks[place]] = free.sequence
                next[place] = place + 1
                place = open(place)
            }
        }
        return found
    }

    private func replay(_ ring: [UInt8], _ chain: [Candidate], progress: (Double) -> Void) throws(VolumeError) -> Int {
        var entries: [Entry] = []
        var frees: [Free] = []
        for record in chain {
            let start = Int(record.position % superblock.journalBlocks) * BlockLayout.size + JournalLayout.headerSize
            var at = start
            let end = start + record.payload
            while at + JournalLayout.entryHeaderSize <= end {
                let (word, address) = unsafe ring.withUnsafeBytes {
                    unsafe (UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: at, as: UInt64.self)),
                        UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)))
                }
                let (kind, length) = (UInt8(truncatingIfNeeded: word), Int(word >> 32))
                at += JournalLayout.entryHeaderSize
                if kind == JournalLayout.Kind.free {
                    guard geometry.isData(address, count: UInt64(length)) else { throw malformed(record) }
                    if bug != .freesAreNotCollected { frees.append(Free(start: address, end: address + UInt64(length), sequence: record.sequence)) }
                    continue
                }
                let block = kind == JournalLayout.Kind.delta ? address / UInt64(BlockLayout.size) : address
                let offset = kind == JournalLayout.Kind.delta ? Int(address % UInt64(BlockLayout.size)) : 0
                guard kind == JournalLayout.Kind.image || kind == JournalLayout.Kind.delta || kind == JournalLayout.Kind.data, length >= 0,
                    offset + length <= BlockLayout.size, kind == JournalLayout.Kind.delta || length == BlockLayout.size,
                    at + length <= end, block >= superblock.groupStart, block < superblock.blockCount - 1
                else { throw malformed(record) }
                entries.append(Entry(kind: kind, address: address, length: length, at: at, sequence: record.sequence))
                at += (length + 7) & ~7
            }
        }
        let freed = lastFrees(frees, of: entries)
        // Per block: what counts, from its last whole image on.
        var perBlock: [UInt64: [Entry]] = [:]
        for entry in entries {
            let block = entry.block
            if let free = freed[block], entry.sequence <= free { continue }
            if entry.kind == JournalLayout.Kind.delta { perBlock[block, default: []].append(entry) } else { perBlock[block] = [entry] }
        }
        for (done, block) in perBlock.keys.sorted().enumerated() {
            guard let list = perBlock[block], let first = list.first else { continue }
            let bytes = first.kind == JournalLayout.Kind.delta ? try device.read(block) : device.blank()
            for entry in list {
                let offset = entry.kind == JournalLayout.Kind.delta ? Int(entry.address % UInt64(BlockLayout.size)) : 0
                unsafe ring.withUnsafeBytes { unsafe bytes.copy(offset, from: $0.baseAddress! + entry.at, entry.length) }
            }
            if first.kind != JournalLayout.Kind.data { unsafe BlockLayout.seal(bytes.pointer) }
            try device.write(block)
            progress(Double(done + 1) / Double(perBlock.count))
        }
        if !perBlock.isEmpty { try device.flush() }
        return perBlock.count
    }

    private func malformed(_ record: Candidate) -> VolumeError {
        VolumeError(errno: Errno.damaged, "journal record \(record.sequence) has a good checksum and impossible contents; run dashfs check")
    }
}
