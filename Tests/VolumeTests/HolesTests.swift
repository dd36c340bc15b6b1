/// Files whose pages are zeroed where they are, punched out and written again all the time: every answer is the model's, every cut keeps the
/// contract, and the journal's tail passes only what nobody needs.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct HolesTests {
    /// A workload on a device, with a cache and at a pace that the seed picks; nil: nothing is wrong.
    static func hunt(_ seed: UInt64, operations: Int, states count: Int) throws -> String? {
        var random = SeededRandom(seed: seed &* 977)
        var shape = WorkloadShape.crash.holed
        shape.syncs = random.pick([4, 16, 22])
        shape.data = 74
        if random.chance(0.3) { (shape.largestFile, shape.largestWrite, shape.totalBytes) = (400_000, 60_000, 4_000_000) }
        var configuration = VolumeHarness.smallConfiguration(nonce: seed)
        configuration.cacheFrames = random.pick([64, 200, 1000])
        if random.chance(0.4) { configuration.treeFanout = 4 }
        var schedule = RecordingDevice.Schedule(shuffled: true, maximumDelay: 3)
        schedule.slowness = random.pick([0, 300, 1500, 4000])
        schedule.slowFrom = 257 * 4096
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        let device = RecordingDevice(copying: empty, seed: seed, schedule: schedule) {
            $0.atomicWriteUnit = random.pick([512, 4096])
            $0.volatileCache = random.chance(0.75)
            $0.supportsForceUnitAccess = random.chance(0.5)
            $0.supportsDiscard = random.chance(0.3)
        }
        var left = operations
        let run: CrashRun
        do {
            run = try CrashRun(device, VolumeWorkload(seed: seed, shape: shape), configuration: configuration) {
                left -= 1
                return left < 0 ? nil : $0.next()
            }
        } catch { return "seed \(seed): \(error)" }
        if let hung = run.hung { return "seed \(seed): \(hung)" }
        if let problem = JournalAudit.problem(device, journal: 1..<257) { return "seed \(seed): \(problem)" }
        let states = CrashStates(device)
        configuration.nonce = 1_000_000 + seed
        for (number, cut) in (0..<count).map({ _ in random.below(states.cutCount + 1) }).sorted().enumerated() {
            let state = states.state(at: cut, seed: UInt64(number))
            let volume = try VolumeHarness(state.device, configuration: configuration)
            if let finding = try VolumeChecker(state.device).run().first { return "seed \(seed), \(state): \(finding)" }
            if let problem = run.judge(volume, cut: cut) { return "seed \(seed), \(state): \(problem)" }
        }
        return nil
    }

    @Test(arguments: 1...8 as ClosedRange<UInt64>) func whatIsZeroedAndPunchedOutKeepsTheContract(part: UInt64) throws {
        for seed in part * 20 + 1...part * 20 + 20 { #expect(try HolesTests.hunt(seed, operations: 1000, states: 12) == nil) }
    }

    /// A page that has grown since its file was synced is cut to less than it has grown to: it travels in the record, and so does the size that covers it.
    @Test(arguments: [512, 4096]) func aPageThatIsCutHasNothingBeyondTheDurableEnd(atomic: Int) throws {
        let device = try JournalTests.recording(atomic: atomic)
        let volume = try JournalTests.mount(device)
        let (handle, other) = (volume.open("/f", 0o102), volume.open("/g", 0o102))
        _ = volume.write(handle, VolumeWorkload.bytes(4096 + 1938, seed: 1), at: 0)
        #expect(volume.fsync(handle) == 0)
        let grown = VolumeWorkload.bytes(20_000, seed: 2)
        _ = volume.write(handle, grown, at: 0)
        #expect(volume.truncate("/f", 4096 + 2139) == 0 && volume.fsync(other) == 0)
        let after = try JournalTests.recover(device)
        let size = Int(after.status("/f").status.size)
        #expect([4096 + 1938, 4096 + 2139].contains(size))
        #expect(after.truncate("/f", 8192) == 0)
        #expect(after.content("/f", 8192)[size...].allSatisfy { $0 == 0 }, "\(size)")
    }

    /// A file ends in the middle of a page and grows; that page is written over as a whole, at once. Cut before the record with the new size is durable, it
    /// has nothing beyond its old end.
    static func grownThenOverwritten(direct: Bool, _ bug: PlantedBug) throws -> String? {
        let device = try JournalTests.recording(atomic: 4096)
        let volume = try JournalTests.mount(device, bug)
        let (page, end) = (24, 24 * 4096 + 1938)
        let handle = volume.open("/f", direct ? 0o40102 : 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(end, seed: 1), at: 0)
        guard volume.fsync(handle) == 0 else { return "the sync fails" }
        // All comes home, and no live record holds its data.
        JournalTests.churn(volume, rounds: 250)
        let first = device.log.events.count
        // More than an fsync puts into its record.
        let new = VolumeWorkload.bytes(21 * 4096, seed: 2)
        guard volume.truncate("/f", 40 * 4096) == 0, volume.write(handle, new, at: Int64((page - 20) * 4096)) == new.count, volume.fsync(handle) == 0 else { return "growing fails" }
        let states = CrashStates(device)
        for cut in first...states.cutCount {
            for seed in 0..<4 as Range<UInt64> {
                let after = try JournalTests.mount(states.state(at: cut, seed: seed).device, bug)
                let size = Int(after.status("/f").status.size)
                guard [end, 40 * 4096].contains(size), after.truncate("/f", 41 * 4096) == 0 else { return "cut \(cut): \(size) bytes" }
                let found = after.content("/f", 41 * 4096)
                if found[max(size, (page + 1) * 4096)...].contains(where: { $0 != 0 }) || size == end && found[size...].contains(where: { $0 != 0 }) {
                    return "cut \(cut), seed \(seed): something is beyond the end of \(size) bytes"
                }
            }
        }
        return nil
    }

    @Test(arguments: [false, true]) func whatGrowsIsNotSeenBeforeItsSize(direct: Bool) throws { #expect(try HolesTests.grownThenOverwritten(direct: direct, .none) == nil) }

    /// A copy that begins in the middle of a page, in many steps, cut between them: each block is what it was, or as after the copy.
    @Test func aCopyLeavesWholeBlocks() throws {
        let device = try JournalTests.recording(atomic: 512)
        let volume = try JournalTests.mount(device)
        let (source, target) = (volume.open("/s", 0o102), volume.open("/t", 0o102))
        let (old, new) = (VolumeWorkload.bytes(64 * 4096, seed: 1), VolumeWorkload.bytes(64 * 4096, seed: 2))
        #expect(volume.write(source, new, at: 0) == new.count && volume.write(target, old, at: 0) == old.count)
        #expect(volume.run(.sync).result == 0)
        let first = device.log.events.count
        let (from, to, count) = (1111, 3000, 50 * 4096)
        var after = old
        after.replaceSubrange(to..<to + count, with: new[from..<from + count])
        #expect(volume.run(.copyRange) {
            ($0.handle, $0.handle2) = (Int32(source), Int32(target))
            ($0.offset, $0.offset2, $0.length) = (Int64(from), Int64(to), UInt64(count))
        }.result == Int64(count))
        #expect(volume.fsync(target) == 0)
        let states = CrashStates(device)
        for cut in first...states.cutCount {
            let found = try JournalTests.mount(states.state(at: cut, seed: 1).device).content("/t", old.count)
            for block in stride(from: 0, to: old.count, by: 4096) {
                let bytes = found[block..<block + 4096]
                #expect(bytes == old[block..<block + 4096] || bytes == after[block..<block + 4096], "cut \(cut), block \(block / 4096)")
            }
        }
    }

    /// Synced into a record, then one half zeroed where it is: its old bytes never come home, and the tail may pass them all the same. Not those of the other half.
    private static func zeroedBeforeItCameHome(_ bug: PlantedBug) throws -> String? {
        let device = try JournalTests.recording(atomic: 512)
        let volume = try JournalTests.mount(device, bug)
        let handle = volume.open("/f", 0o102)
        _ = volume.write(handle, VolumeWorkload.bytes(16 * 4096, seed: 1), at: 0)
        _ = volume.fsync(handle)
        #expect(volume.allocate(handle, 17, 0, 8 * 4096) == 0 && volume.fsync(handle) == 0)
        JournalTests.churn(volume, rounds: 250)
        return JournalAudit.problem(device, journal: 1..<257)
    }

    @Test func theTailPassesWhatWasZeroedAndNothingElse() throws {
        #expect(try HolesTests.zeroedBeforeItCameHome(.none) == nil)
        #expect(try HolesTests.zeroedBeforeItCameHome(.tailPassesDirtyBlocks)?.hasSuffix("is not at home") ?? false)
    }
}
