/// The rules that keep a redo journal honest (docs/DURABILITY.md), each by a history that breaks without it.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct JournalTests {
    static let journal = 4096..<257 * 4096

    private func recording(atomic: Int, seed: UInt64 = 1) throws -> RecordingDevice {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        return RecordingDevice(copying: empty, seed: seed) { $0.atomicWriteUnit = atomic }
    }

    /// A record as it was written: where, how long, and what its header says.
    private struct Record {
        var change: Int
        var sequence, position, durable, tail, tailPosition: UInt64
        var blocks: Int
    }

    private func records(_ device: RecordingDevice) -> [Record] {
        let log = device.log
        return log.changes.indices.filter { JournalTests.journal.contains(log.changes[$0].offset) }.map { number in
            let at = log.changes[number].dataStart
            func word(_ offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(log.data[at + offset + $1]) << UInt64(8 * $1) } }
            return Record(
                change: number, sequence: word(32), position: word(40), durable: word(64), tail: word(72), tailPosition: word(80),
                blocks: log.changes[number].length / 4096)
        }
    }

    private func recover(_ device: RecordingDevice, cut: Int? = nil) throws -> VolumeHarness {
        let states = CrashStates(device)
        return try VolumeHarness(states.state(at: cut ?? states.cutCount, seed: 0).device)
    }

    /// Fills more than half of the ring with records of another file, so that everything logged before goes home.
    private func churn(_ volume: VolumeHarness, rounds: Int = 110) {
        let handle = volume.open("/churn", 0o102)
        for round in 0..<rounds {
            _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: UInt64(round)), at: 0)
            _ = volume.fsync(handle)
        }
        _ = volume.close(handle)
    }

    @Test(arguments: [512, 4096]) func aSmallSyncedWriteThenALargeOverwriteInPlace(atomic: Int) throws {
        for rounds in [20, 60, 110, 125, 140] {
            let device = try recording(atomic: atomic)
            let volume = try VolumeHarness(device)
            let handle = volume.open("/f", 0o102)
            #expect(volume.write(handle, VolumeWorkload.bytes(40 * 4096, seed: 1), at: 0) == 40 * 4096)
            #expect(volume.fsync(handle) == 0)
            #expect(volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: 8192) == 4096)
            #expect(volume.fsync(handle) == 0)
            churn(volume, rounds: rounds)
            let last = VolumeWorkload.bytes(40 * 4096, seed: 3)
            #expect(volume.write(handle, last, at: 0) == 40 * 4096)
            #expect(volume.fsync(handle) == 0)
            let after = try recover(device)
            let same = after.content("/f", 40 * 4096) == last
            #expect(same, "\(rounds) records between: old bytes came back")
        }
    }

    @Test func liveRecordsAreNeverWrittenOver() throws {
        let device = try recording(atomic: 512)
        let volume = try VolumeHarness(device)
        churn(volume, rounds: 700)
        let all = records(device)
        #expect((all.last?.position ?? 0) > 3 * 256, "the ring went round")
        for (number, record) in all.enumerated() {
            // What the durable state needs while this one is written: from the tail of the last durable record on.
            guard let known = all[..<number].last(where: { $0.sequence == record.durable }) else { continue }
            let end = record.position + UInt64(record.blocks)
            #expect(end <= known.tailPosition + 256, "record \(record.sequence) at \(record.position) over the live tail at \(known.tailPosition)")
            #expect(record.position >= known.position + UInt64(known.blocks))
        }
    }

    @Test func aDamagedRecordBelowADurableOneIsCorruptionNotTheEnd() throws {
        let device = try recording(atomic: 512)
        let volume = try VolumeHarness(device)
        churn(volume, rounds: 8)
        let all = records(device)
        let image = CrashStates(device).state(at: device.log.events.count, seed: 0).device
        let victim = all[all.count - 4]
        image[4096 + Int(victim.position % 256) * 4096 + 2000] ^= 1
        let after = try VolumeHarness(image)
        #expect(after.volume.isReadOnly)
        let notes = after.volume.takeNotes()
        #expect(notes.contains { $0.text.contains("record \(victim.sequence)") }, "\(notes)")
        #expect(after.open("/new", 0o102) == -30)
    }

    @Test func aTornLastRecordIsTheEnd() throws {
        let device = try recording(atomic: 512)
        let volume = try VolumeHarness(device)
        churn(volume, rounds: 8)
        let all = records(device)
        guard let last = all.last else { return }
        let image = CrashStates(device).state(at: device.log.changes[last.change].submittedAt, seed: 0).device
        image[4096 + Int(last.position % 256) * 4096 + 1000] ^= 1
        let after = try VolumeHarness(image)
        #expect(!after.volume.isReadOnly)
        let same = after.content("/churn", 4096) == VolumeWorkload.bytes(4096, seed: 6)
        #expect(same)
    }

    @Test func createWriteSyncIsOneWriteAndOneFlush() throws {
        let device = try recording(atomic: 512)
        let volume = try VolumeHarness(device)
        func step(_ number: Int) {
            let handle = volume.open("/f\(number)", 0o102)
            _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: UInt64(number)))
            #expect(volume.fsync(handle) == 0)
            _ = volume.close(handle)
        }
        for number in 0..<5 { step(number) }
        let before = (device.log.changes.count, device.log.flushes.count)
        for number in 5..<15 { step(number) }
        #expect(device.log.changes.count - before.0 == 10)
        #expect(device.log.flushes.count - before.1 == 10)
    }

    /// Data of fresh blocks is durable before the record that makes it reachable is written.
    @Test func recordsFollowTheDataTheyPointAt() throws {
        let device = try recording(atomic: 512)
        let volume = try VolumeHarness(device)
        for number in 0..<20 {
            let handle = volume.open("/f\(number)", 0o102)
            _ = volume.write(handle, VolumeWorkload.bytes(100_000, seed: UInt64(number)))
            #expect(volume.fsync(handle) == 0)
            _ = volume.close(handle)
        }
        let log = device.log
        for record in records(device) {
            let submitted = log.changes[record.change].submittedAt
            for change in log.changes where !JournalTests.journal.contains(change.offset) && change.submittedAt < submitted {
                #expect(change.completedAt < submitted)
                #expect(log.flushes.contains { $0.submittedAt > change.completedAt && $0.completedAt < submitted })
            }
        }
    }
}
