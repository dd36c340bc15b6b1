/// The journal as the device saw it: does each record lie where nothing is needed any more, and may its tail be where it says?
///
/// Invariant: judged from the log alone, from what the format says of records. A crash state would have to be lucky to show such a mistake; here it
/// shows whenever it is made. One thing the log does not say by itself: that data is no file's content any more though its blocks are not free (zeroed where
/// they are by FALLOC_FL_ZERO_RANGE, or doomed and freed step by step). So before data is missed, a volume is recovered that has nothing but what
/// the device was sure to hold, and the checker says whether a file has the block.
import BlockDevice
import Volume

package enum JournalAudit {
    private struct Record {
        var sequence, position, tail, tailPosition: UInt64
        var blocks: UInt64
        /// Index of its change in the log, and the event of its submission.
        var change, submitted: Int
        /// From this event on it is durable.
        var durable: Int
        /// Blocks that it has as a whole, and those of them that are file data.
        var images: Set<Int> = []
        var data: Set<Int> = []
        var changed: Set<Int> = []
        var freed: [Range<Int>] = []
    }

    /// - Parameter journal: the ring, as blocks of the device. The recording holds one mount.
    package static func problem(_ device: RecordingDevice, journal: Range<Int>) -> String? {
        let log = device.log
        let flushes = log.flushes.filter { $0.error == 0 && $0.completedAt != .max }.sorted { $0.submittedAt < $1.submittedAt }
        /// The event after which the change is certain.
        func certain(_ change: RecordedChange) -> Int {
            guard change.error == 0, change.completedAt != .max else { return .max }
            if !device.capabilities.volatileCache || change.forceUnitAccess { return change.completedAt }
            // Flushes are in the order of submission; the first behind the completion that has ended is the earliest or nearly so.
            var (low, high) = (0, flushes.count)
            while low < high {
                let middle = (low + high) / 2
                if flushes[middle].submittedAt > change.completedAt { high = middle } else { low = middle + 1 }
            }
            return flushes[low...].prefix(4).map(\.completedAt).min() ?? .max
        }
        var records: [Record] = []
        var home: [Int: [RecordedChange]] = [:]
        for (number, change) in log.changes.enumerated() {
            if journal.contains(change.blocks.lowerBound) {
                if let record = parse(log, number, certain(change)) { records.append(record) }
            } else if change.operation != .discard {
                for block in change.blocks { home[block, default: []].append(change) }
            }
        }
        if let problem = problem(log, records) { return problem }
        guard let first = records.first else { return nil }
        let ring = UInt64(journal.count)
        let states = CrashStates(device)
        for (number, record) in records.enumerated() {
            guard record.sequence == first.sequence + UInt64(number) else { return "record \(record.sequence) is written out of turn, or twice" }
            if let known = records[..<number].last(where: { $0.durable < record.submitted }) {
                if record.position + record.blocks > known.tailPosition + ring { return "record \(record.sequence) lies over record \(known.tail), which replay needs" }
                if record.position < known.position + known.blocks { return "record \(record.sequence) lies over the one before it" }
            }
            let before = number == 0 ? first.tail : records[number - 1].tail
            guard record.tail >= before else { return "the tail of record \(record.sequence) goes back" }
            // What the tail passes is at home, or in a later record as a whole, or free.
            let index = { (sequence: UInt64) in Int(sequence - first.sequence) }
            guard before >= first.sequence, record.tail > before else { continue }
            var content: Set<Int>?
            for passed in records[index(before)..<min(index(record.tail), records.count)] {
                for block in passed.changed {
                    let later = records[(index(passed.sequence) + 1)...number]
                    if later.contains(where: { $0.sequence < record.tail && $0.changed.contains(block) }) { continue }
                    if later.contains(where: { $0.sequence >= record.tail && $0.images.contains(block) }) { continue }
                    if records[index(passed.sequence)...number].contains(where: { $0.freed.contains { $0.contains(block) } }) { continue }
                    if (home[block] ?? []).contains(where: { $0.submittedAt > passed.durable && certain($0) < record.submitted }) { continue }
                    if passed.data.contains(block) {
                        do {
                            let known = try content ?? JournalAudit.content(states.state(at: record.submitted + 1, having: record.change))
                            content = known
                            if !known.contains(block) { continue }
                        } catch { return "the tail of record \(record.sequence) passes record \(passed.sequence), and then: \(error)" }
                    }
                    return "the tail of record \(record.sequence) passes record \(passed.sequence), whose block \(block) is not at home"
                }
            }
        }
        return nil
    }

    /// The blocks that files have when the device's volume has been recovered and what was doomed has gone.
    private static func content(_ device: MemoryDevice) throws -> Set<Int> {
        let volume = try VolumeHarness(device)
        volume.mayHang = true
        volume.settle()
        volume.unmount()
        let checker = try VolumeChecker(device)
        var blocks: Set<Int> = []
        checker.foundContent = { for block in $0 { blocks.insert(Int(block)) } }
        if let finding = checker.run().first { throw VolumeError(errno: 5, "\(finding)") }
        return blocks
    }

    /// The device is told of blocks that a durable record has freed, the last that did so before.
    private static func problem(_ log: DeviceLog, _ records: [Record]) -> String? {
        var freed: [Int: Record] = [:]
        var next = 0
        for discard in log.changes where discard.operation == .discard {
            while next < records.count, records[next].submitted < discard.submittedAt {
                for range in records[next].freed { for block in range { freed[block] = records[next] } }
                next += 1
            }
            for block in discard.blocks where freed[block].map({ $0.durable > discard.submittedAt }) ?? true {
                return "block \(block) is discarded, and no durable record has freed it"
            }
        }
        return nil
    }

    private static func parse(_ log: DeviceLog, _ number: Int, _ durable: Int) -> Record? {
        let change = log.changes[number]
        func word(_ at: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(log.data[change.dataStart + at + $1]) << UInt64(8 * $1) } }
        guard change.operation == .write, change.length >= 4096, word(0) == 0x3143_4552_4A48_5344 else { return nil }
        var record = Record(
            sequence: word(32), position: word(40), tail: word(72), tailPosition: word(80), blocks: UInt64(change.length / 4096),
            change: number, submitted: change.submittedAt, durable: durable)
        var at = 128
        let end = 128 + Int(word(48) & 0xFFFF_FFFF)
        while at + 16 <= end {
            let (head, address) = (word(at), Int(word(at + 8)))
            let (kind, length) = (head & 0xFF, Int(head >> 32))
            at += 16
            switch kind {
            case 3: record.freed.append(address..<address + length)
            case 2:
                record.changed.insert(address / 4096)
                at += (length + 7) & ~7
            default:
                record.changed.insert(address)
                record.images.insert(address)
                if kind == 4 { record.data.insert(address) }
                at += 4096
            }
        }
        return record
    }
}
