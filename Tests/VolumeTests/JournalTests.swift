/// The rules that keep a redo journal honest (docs/DURABILITY.md), each by a history that breaks without it.
import BlockDevice
import CSystem
import TestSupport
import Testing
import Volume

@Suite struct JournalTests {
    static let journal = 4096..<257 * 4096

    static func recording(atomic: Int, seed: UInt64 = 1, configure: (inout DeviceCapabilities) -> Void = { _ in }) throws -> RecordingDevice {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        return RecordingDevice(copying: empty, seed: seed) {
            $0.atomicWriteUnit = atomic
            configure(&$0)
        }
    }

    static func mount(_ device: any BlockDevice, _ bug: PlantedBug = .none) throws -> VolumeHarness {
        var configuration = VolumeHarness.smallConfiguration()
        configuration.plantedBug = bug
        return try VolumeHarness(device, configuration: configuration)
    }

    /// A record as it was written: where, how long, and what its header says.
    struct Record {
        var change: Int
        var sequence, position, durable, tail, tailPosition: UInt64
        var blocks: Int
    }

    static func records(_ device: RecordingDevice) -> [Record] {
        let log = device.log
        return log.changes.indices.filter { JournalTests.journal.contains(log.changes[$0].offset) }.map { number in
            let at = log.changes[number].dataStart
            func word(_ offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(log.data[at + offset + $1]) << UInt64(8 * $1) } }
            return Record(
                change: number, sequence: word(32), position: word(40), durable: word(64), tail: word(72), tailPosition: word(80),
                blocks: log.changes[number].length / 4096)
        }
    }

    static func recover(_ device: RecordingDevice, _ bug: PlantedBug = .none) throws -> VolumeHarness {
        let states = CrashStates(device)
        return try mount(states.state(at: states.cutCount, seed: 0).device, bug)
    }

    /// Fills more than half of the ring with records of another file, so that everything logged before goes home.
    static func churn(_ volume: VolumeHarness, rounds: Int = 110) {
        let handle = volume.open("/churn", 0o102)
        for round in 0..<rounds {
            _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: UInt64(round)), at: 0)
            _ = volume.fsync(handle)
        }
        _ = volume.close(handle)
    }

    // MARK: Histories that break without a rule; nil: what should be there is there

    /// A small write in a record, then an overwrite in place: replay must not put the old bytes over the new.
    static func smallWriteThenOverwrite(atomic: Int, rounds: Int, _ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: atomic)
        let volume = try mount(device, bug)
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(40 * 4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: 8192)
        _ = volume.fsync(handle)
        churn(volume, rounds: rounds)
        let last = VolumeWorkload.bytes(40 * 4096, seed: 3)
        guard volume.write(handle, last, at: 0) == 40 * 4096, volume.fsync(handle) == 0 else { return "the overwrite fails" }
        return try recover(device, bug).content("/f", 40 * 4096) == last ? nil : "\(rounds) records between: old bytes came back"
    }

    /// The same, where the small write has come home and the journal's tail is held back by a block that the open batch changes.
    static func smallWriteAtHomeThenOverwrite(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 4096)
        let volume = try mount(device, bug)
        var made = 0
        /// Whenever blocks may go home, the inode table has changes that may not.
        func sync(_ handle: Int64) {
            _ = volume.start(.fsync) { $0.handle = Int32(handle) }
            volume.settle(polls: 1)
            made += 1
            _ = volume.start(.mknod, "/n\(made)") { $0.mode = 0o100644 }
            _ = volume.wait()
        }
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(40 * 4096, seed: 1), at: 0)
        sync(handle)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: 8192)
        sync(handle)
        for number in 0..<3 {
            let other = volume.open("/g\(number)", 0o102)
            _ = volume.write(other, VolumeWorkload.bytes(12 * 4096, seed: 9))
            sync(other)
        }
        volume.settle()
        let last = VolumeWorkload.bytes(40 * 4096, seed: 3)
        guard volume.write(handle, last, at: 0) == 40 * 4096, volume.fsync(handle) == 0 else { return "the overwrite fails" }
        return try recover(device, bug).content("/f", 40 * 4096) == last ? nil : "old bytes came back"
    }

    /// A small write in a record, its block zeroed where it is, then written in place.
    static func smallWriteThenZeroedThenWritten(atomic: Int, _ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: atomic)
        let volume = try mount(device, bug)
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(40 * 4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: 8192)
        _ = volume.fsync(handle)
        guard volume.allocate(handle, 17, 0, 40 * 4096) == 0 else { return "zeroing fails" }
        let last = VolumeWorkload.bytes(40 * 4096, seed: 3)
        guard volume.write(handle, last, at: 0) == 40 * 4096, volume.fsync(handle) == 0 else { return "the write fails" }
        return try recover(device, bug).content("/f", 40 * 4096) == last ? nil : "old bytes came back"
    }

    /// A small write in a record, then another over it that nobody syncs: while the second is in memory only, replay needs the first, wherever its block is.
    static func syncedWriteThenReplaced(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        let volume = try mount(device, bug)
        let handle = try syncedTwice(volume)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 3), at: 0)
        return try judgeReplaced(volume, device, bug)
    }

    /// The same where the server dies at one of the last stores of the second write, and the next one goes on: what was applied of it already keeps what it had.
    static func syncedWriteThenReplacedAndAdopted(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        let volume = try mount(device, bug)
        let handle = try syncedTwice(volume)
        var deaths: [(memory: [UInt8], device: SharedImage)] = []
        volume.volume.abortHook = {
            unsafe deaths.append((Array(volume.memory), SharedImage(copying: UnsafeRawBufferPointer(device.current.bytes))))
            volume.volume.abortAtStep = volume.volume.applySteps + 1
        }
        volume.volume.abortAtStep = volume.volume.applySteps + 1
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 3), at: 0)
        volume.volume.abortHook = nil
        if deaths.count < 4 { return "a write of \(deaths.count) stores is none" }
        var configuration = VolumeHarness.smallConfiguration()
        configuration.plantedBug = bug
        for (number, death) in deaths.enumerated() {
            let left = RecordingDevice(copying: death.device.privateDevice(description: "after a death") { _ in }, seed: 1)
            let adopted = try VolumeHarness(left, configuration: configuration, adopting: (death.memory, volume.session))
            if let problem = try judgeReplaced(adopted, left, bug) { return "dead at store \(number + 1) of \(deaths.count): \(problem)" }
        }
        return nil
    }

    /// A block with one content at home and the next in a record.
    private static func syncedTwice(_ volume: VolumeHarness) throws -> Int64 {
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        churn(volume)
        _ = volume.write(handle, VolumeWorkload.bytes(4096, seed: 2), at: 0)
        _ = volume.fsync(handle)
        return handle
    }

    /// The ring goes round once more, so that the tail passes whatever it may.
    private static func judgeReplaced(_ volume: VolumeHarness, _ device: RecordingDevice, _ bug: PlantedBug) throws -> String? {
        churn(volume, rounds: 250)
        let found = try recover(device, bug).content("/f", 4096)
        return found == VolumeWorkload.bytes(4096, seed: 2) || found == VolumeWorkload.bytes(4096, seed: 3) ? nil : "what was synced is gone"
    }

    /// Blocks on their way home are freed, and the file gets new ones in their place: the old write must not land on what is there now.
    /// - Parameter discards: nor must a discard meet it.
    static func freedUnderAWrite(_ bug: PlantedBug, discards: Bool) throws -> String? {
        let device = try recording(atomic: 512) { $0.supportsDiscard = discards }
        let volume = try mount(device, bug)
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(16 * 4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        device.schedule.heldFrom = journal.upperBound
        churn(volume, rounds: 75)
        let held = device.log.changes.filter { $0.offset >= journal.upperBound && $0.completedAt == .max }.count
        guard held > 0 else { return "nothing is on its way home" }
        guard volume.allocate(handle, 3, 4096, 15 * 4096) == 0, volume.fsync(handle) == 0 else { return "punching fails" }
        volume.monotonic += 10_000_000_000
        _ = volume.run(.null)
        volume.settle()
        // More than an fsync puts into its record: the data goes to its blocks at once.
        let last = VolumeWorkload.bytes(24 * 4096, seed: 3)
        guard volume.startWrite(handle, last, at: 4096) == 24 * 4096 else { return "the write fails" }
        _ = volume.start(.fsync) { $0.handle = Int32(handle) }
        volume.settle()
        device.schedule.heldFrom = .max
        guard volume.wait().result == 0 else { return "the sync fails" }
        volume.settle()
        if let violation = device.violations.first { return "the device saw \(violation)" }
        return try Array(recover(device, bug).content("/f", 25 * 4096).dropFirst(4096)) == last ? nil : "other bytes"
    }

    /// The ring goes round while what goes home is slow.
    static func ringGoesRound(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        device.schedule.slowFrom = 257 * 4096
        device.schedule.slowness = 800
        let volume = try mount(device, bug)
        churn(volume, rounds: 700)
        if volume.unanswered > 0 { return "requests are never answered" }
        if (records(device).last?.position ?? 0) < 3 * 256 { return "the ring did not go round" }
        return JournalAudit.problem(device, journal: 1..<257)
    }

    /// The ring is full, everything comes home, and the next record is a large one: it waits until a record with the newer tail is durable.
    static func largeRecordInAFullRing(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        let volume = try mount(device, bug)
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(40 * 4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        device.schedule.heldFrom = journal.upperBound
        var used: UInt64 = 0
        // Beyond 224 of 256 blocks an operation would wait for room.
        while used < 221 {
            churn(volume, rounds: 1)
            guard let last = records(device).last, last.position - last.tailPosition + UInt64(last.blocks) > used else { return "the ring does not fill" }
            used = last.position - last.tailPosition + UInt64(last.blocks)
        }
        device.schedule.heldFrom = .max
        volume.settle()
        // Overwritten blocks travel in the record, here in one of more than 32 blocks.
        let last = VolumeWorkload.bytes(40 * 4096, seed: 3)
        guard volume.write(handle, last, at: 0) == 40 * 4096, volume.fsync(handle) == 0 else { return "the overwrite fails" }
        guard records(device).contains(where: { $0.blocks > 32 }) else { return "no large record" }
        return JournalAudit.problem(device, journal: 1..<257)
    }

    /// A volume whose ring nobody may use any more; what holds its tail are the blocks of /f, which have changed since and are too many for what is left.
    /// - Returns: the volume, the handle of /f, and what it held when it was synced and holds now.
    private static func fullRingHeldByWhatHasChanged(_ device: RecordingDevice, _ bug: PlantedBug) throws -> (VolumeHarness, Int64, [UInt8], [UInt8]) {
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 1024
        configuration.plantedBug = bug
        let volume = try VolumeHarness(device, configuration: configuration)
        // The last page is to grow.
        let (old, new) = (VolumeWorkload.bytes(47 * 4096 + 1000, seed: 1), VolumeWorkload.bytes(48 * 4096, seed: 2))
        let (handle, other) = (volume.open("/f", 0o102), volume.open("/g", 0o102))
        for (handle, bytes) in [(handle, old), (other, Array(old.prefix(28 * 4096)))] {
            // What an fsync puts into the record at most.
            for start in stride(from: 0, to: bytes.count, by: 65_536) {
                _ = volume.write(handle, Array(bytes[start..<min(start + 65_536, bytes.count)]), at: Int64(start))
                _ = volume.fsync(handle)
            }
        }
        device.schedule.heldFrom = journal.upperBound
        while let last = records(device).last, last.position - last.tailPosition + UInt64(last.blocks) < 221 { churn(volume, rounds: 1) }
        _ = volume.write(other, Array(new.prefix(28 * 4096)), at: 0)
        _ = volume.write(handle, new, at: 0)
        // Write-back by age takes /g first, and with it the rest of the ring.
        volume.monotonic += 10_000_000_000
        _ = volume.run(.null)
        volume.settle()
        device.schedule.heldFrom = .max
        return (volume, handle, old, new)
    }

    static func fullRingMakesRoom(_ bug: PlantedBug, unmounting: Bool = false) throws -> String? {
        let device = try recording(atomic: 512)
        let (volume, handle, _, new) = try fullRingHeldByWhatHasChanged(device, bug)
        volume.patience = 5_000
        if unmounting { volume.unmount() } else { _ = volume.fsync(handle) }
        if volume.unanswered > 0 { return "never answered: \(volume.volume.unfinished)" }
        if try recover(device, bug).content("/f", 48 * 4096) != new { return "what was synced is gone" }
        return JournalAudit.problem(device, journal: 1..<257)
    }

    /// Whenever the power goes while room is made, each block of /f is one or the other, and what is beyond the end stays there.
    static func cutsWhileAFullRingMakesRoom(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        let (volume, _, old, new) = try fullRingHeldByWhatHasChanged(device, bug)
        let first = device.log.events.count
        volume.settle()
        volume.unmount()
        let states = CrashStates(device)
        for cut in first...states.cutCount {
            let after = try mount(states.state(at: cut, seed: UInt64(cut)).device, bug)
            let size = Int(after.status("/f").status.size)
            guard size == old.count || size == new.count else { return "cut \(cut): \(size) bytes" }
            guard after.truncate("/f", Int64(new.count + 4096)) == 0 else { return "cut \(cut): it cannot grow" }
            let found = after.content("/f", new.count + 4096)
            if found.dropFirst(size).contains(where: { $0 != 0 }) { return "cut \(cut): it grows from \(size) bytes and has something there" }
            for block in 0..<48 {
                let range = block * 4096..<min((block + 1) * 4096, size)
                let isOld = range.upperBound <= old.count && found[range] == old[range]
                if !isOld && found[range] != new[range] { return "cut \(cut): block \(block) is neither what was synced nor what came after" }
            }
        }
        return nil
    }

    /// A damaged record below a durable one is no end of the journal: the volume is shown, not written, and says which.
    static func damagedRecord(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        churn(try mount(device), rounds: 8)
        let all = records(device)
        let image = CrashStates(device).state(at: device.log.events.count, seed: 0).device
        let victim = all[all.count - 4]
        image[4096 + Int(victim.position % 256) * 4096 + 2000] ^= 1
        return try tellsOfDamage(image, victim, bug)
    }

    /// A record that another has replaced, with a right checksum, is not the one that its successor followed.
    static func replacedRecord(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        churn(try mount(device), rounds: 8)
        let all = records(device)
        let image = CrashStates(device).state(at: device.log.events.count, seed: 0).device
        let victim = all[all.count - 4]
        let at = 4096 + Int(victim.position % 256) * 4096
        image[at + victim.blocks * 4096 - 1] ^= 1
        seal(image, at, victim.blocks)
        // The one that does not fit is the successor.
        return try tellsOfDamage(image, all[all.count - 3], bug)
    }

    private static func tellsOfDamage(_ image: MemoryDevice, _ record: Record, _ bug: PlantedBug) throws -> String? {
        let after = try mount(image, bug)
        let notes = after.volume.takeNotes()
        guard after.volume.isReadOnly, notes.contains(where: { $0.text.contains("record \(record.sequence)") }) else { return "damage taken for the end: \(notes)" }
        return after.open("/new", 0o102) == -30 ? nil : "a damaged volume is written"
    }

    /// Gives a record its checksum again.
    static func seal(_ image: MemoryDevice, _ at: Int, _ blocks: Int) {
        for place in 60..<64 { image[at + place] = 0 }
        let checksum = unsafe dashfs_crc32c(0, UnsafeRawPointer(image.bytes.baseAddress! + at), blocks * 4096)
        for place in 0..<4 { image[at + 60 + place] = UInt8(truncatingIfNeeded: checksum >> UInt32(8 * place)) }
    }

    /// What looks like a record, by someone who knows or guesses all but the nonce: a mount before this one, or a user whose bytes lie in the ring.
    static func recordOfAnotherMount(_ bug: PlantedBug) throws -> String? {
        let device = try recording(atomic: 512)
        churn(try mount(device), rounds: 8)
        guard let last = records(device).last else { return "no record" }
        for field in [16, 24] {
            let image = CrashStates(device).state(at: device.log.events.count, seed: 0).device
            let (from, at) = (4096 + Int(last.position % 256) * 4096, 4096 + Int((last.position + UInt64(last.blocks)) % 256) * 4096)
            for place in 0..<4096 { image[at + place] = place < 128 ? image[from + place] : 0 }
            func set(_ place: Int, _ value: UInt64, _ count: Int = 8) {
                for byte in 0..<count { image[at + place + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte)) }
            }
            image[at + field] ^= 1
            set(32, 1 << 40)
            set(40, last.position + UInt64(last.blocks))
            set(48, 0, 4)
            set(52, 1, 4)
            set(72, 1 << 40)
            set(80, last.position + UInt64(last.blocks))
            seal(image, at, 1)
            let after = try mount(image, bug)
            if after.content("/churn", 4096) != VolumeWorkload.bytes(4096, seed: 7) { return "a record of another mount was taken for one" }
        }
        return nil
    }

    @Test(arguments: [512, 4096]) func aSmallSyncedWriteThenALargeOverwriteInPlace(atomic: Int) throws {
        for rounds in [0, 20, 60, 110, 125, 140] { #expect(try JournalTests.smallWriteThenOverwrite(atomic: atomic, rounds: rounds, .none) == nil) }
        #expect(try JournalTests.smallWriteThenZeroedThenWritten(atomic: atomic, .none) == nil)
        #expect(try JournalTests.smallWriteAtHomeThenOverwrite(.none) == nil)
    }

    @Test func aSyncedWriteIsKeptUntilItsSuccessorIsInTheJournalOrAtHome() throws {
        #expect(try JournalTests.syncedWriteThenReplaced(.none) == nil)
        #expect(try JournalTests.syncedWriteThenReplacedAndAdopted(.none) == nil)
    }

    @Test(arguments: [false, true]) func freedBlocksAreLeftAloneWhileAWriteToThemIsOnItsWay(discards: Bool) throws {
        #expect(try JournalTests.freedUnderAWrite(.none, discards: discards) == nil)
    }

    @Test func liveRecordsAreNeverWrittenOver() throws {
        #expect(try JournalTests.ringGoesRound(.none) == nil)
        #expect(try JournalTests.largeRecordInAFullRing(.none) == nil)
    }

    @Test func aFullRingMakesRoomForWhatHoldsItsTail() throws {
        #expect(try JournalTests.fullRingMakesRoom(.none) == nil)
        #expect(try JournalTests.fullRingMakesRoom(.none, unmounting: true) == nil)
        #expect(try JournalTests.cutsWhileAFullRingMakesRoom(.none) == nil)
    }

    @Test func aDamagedRecordBelowADurableOneIsCorruptionNotTheEnd() throws {
        #expect(try JournalTests.damagedRecord(.none) == nil)
        #expect(try JournalTests.replacedRecord(.none) == nil)
    }

    @Test func aRecordOfAnotherMountIsNone() throws { #expect(try JournalTests.recordOfAnotherMount(.none) == nil) }

    @Test func aTornLastRecordIsTheEnd() throws {
        let device = try JournalTests.recording(atomic: 512)
        let volume = try VolumeHarness(device)
        JournalTests.churn(volume, rounds: 8)
        let all = JournalTests.records(device)
        guard let last = all.last else { return }
        let image = CrashStates(device).state(at: device.log.changes[last.change].submittedAt, seed: 0).device
        image[4096 + Int(last.position % 256) * 4096 + 1000] ^= 1
        let after = try VolumeHarness(image)
        #expect(!after.volume.isReadOnly)
        let same = after.content("/churn", 4096) == VolumeWorkload.bytes(4096, seed: 6)
        #expect(same)
    }

    /// Or one write that is durable by itself, where the device offers that.
    @Test(arguments: [false, true]) func createWriteSyncIsOneWriteAndOneFlush(isForced: Bool) throws {
        let device = try JournalTests.recording(atomic: 512) { $0.supportsForceUnitAccess = isForced }
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
        #expect(device.log.flushes.count - before.1 == (isForced ? 0 : 10))
        #expect(device.log.changes[before.0...].allSatisfy { $0.forceUnitAccess == isForced })
    }

    /// Appends of 4 KiB travel in the record; of 100 KB they go before it, and have the flush that the record needs.
    @Test(arguments: [(4096, false), (4096, true), (100_000, false), (100_000, true)])
    func requestsOfASyncedAppend(bytes: Int, isForced: Bool) throws {
        let device = try JournalTests.recording(atomic: 512) { $0.supportsForceUnitAccess = isForced }
        let volume = try VolumeHarness(device)
        let handle = volume.open("/f", 0o102)
        func append() { #expect(volume.write(handle, VolumeWorkload.bytes(bytes, seed: 1)) == bytes && volume.fsync(handle) == 0) }
        append()
        let before = (device.log.changes.count, device.log.flushes.count)
        for _ in 0..<8 { append() }
        let changes = device.log.changes[before.0...]
        let records = changes.filter { JournalTests.journal.contains($0.offset) }
        let data = changes.count - records.count
        #expect(records.count == 8 && records.allSatisfy { $0.forceUnitAccess == isForced })
        #expect(bytes > 65_536 ? data >= 8 : data == 0)
        #expect(changes.filter(\.forceUnitAccess).count == (isForced ? 8 : 0))
        #expect(device.log.flushes.count - before.1 == (isForced ? 0 : 8) + (bytes > 65_536 ? 8 : 0))
    }

    /// Data of fresh blocks is durable before the record that makes it reachable is written.
    @Test func recordsFollowTheDataTheyPointAt() throws {
        let device = try JournalTests.recording(atomic: 512)
        let volume = try VolumeHarness(device)
        for number in 0..<20 {
            let handle = volume.open("/f\(number)", 0o102)
            _ = volume.write(handle, VolumeWorkload.bytes(100_000, seed: UInt64(number)))
            #expect(volume.fsync(handle) == 0)
            _ = volume.close(handle)
        }
        let log = device.log
        for record in JournalTests.records(device) {
            let submitted = log.changes[record.change].submittedAt
            for change in log.changes where !JournalTests.journal.contains(change.offset) && change.submittedAt < submitted {
                #expect(change.completedAt < submitted)
                #expect(log.flushes.contains { $0.submittedAt > change.completedAt && $0.completedAt < submitted })
            }
        }
    }
}
