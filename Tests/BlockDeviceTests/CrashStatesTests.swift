/// The crash-state generator's own properties, and a toy journal whose bug it must find.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct CrashStatesTests {
    private func byte(_ state: CrashState, _ block: Int, sector: Int = 0) -> UInt8 {
        state.device[block * 4096 + sector * 512]
    }

    private func write(_ queue: any DeviceQueue, block: Int, _ value: UInt8, blocks: Int = 1, fua: Bool = false) {
        #expect(
            queue.perform(
                .write, offset: UInt64(block) * 4096, AlignedBytes(count: blocks * 4096, repeating: value),
                forceUnitAccess: fua) == 0)
    }

    @Test func whatCompletedBeforeAFlushIsInEveryState() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        #expect(queue.perform(.flush) == 0)
        write(queue, block: 1, 2)
        let states = CrashStates(device)
        for seed in 0..<200 {
            let state = states.state(at: states.cutCount, seed: UInt64(seed))
            for sector in 0..<8 { #expect(byte(state, 0, sector: sector) == 1) }
        }
        #expect(states.possibleChanges(at: states.cutCount) == [1])
        #expect(states.possibleChanges(at: 2) == [0], "completed, not yet flushed")
        #expect(states.possibleChanges(at: 0).isEmpty)
    }

    @Test func aFlushCoversOnlyWhatCompletedBeforeItWasSubmitted() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        #expect(queue.submit(.write, offset: 0, AlignedBytes(count: 4096, repeating: 1), tag: 1))
        #expect(queue.submit(.flush, tag: 2))
        #expect(queue.drain().count == 2)
        let states = CrashStates(device)
        #expect(states.possibleChanges(at: states.cutCount) == [0])
    }

    @Test func everySubsetIsSeenNotOnlyPrefixes() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        for block in 0..<4 { write(queue, block: block, 1) }
        let states = CrashStates(device)
        states.tearing = false
        var seen: Set<[UInt8]> = []
        for seed in 0..<500 {
            let state = states.state(at: states.cutCount, seed: UInt64(seed))
            seen.insert((0..<4).map { byte(state, $0) })
        }
        #expect(seen.count == 16)
    }

    @Test(arguments: [512, 4096, 16384])
    func writesTearAlongTheAtomicUnitAndNowhereElse(_ unit: Int) throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1) { $0.atomicWriteUnit = unit }
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 4, 1, blocks: 4)
        let states = CrashStates(device)
        var tornAt: Set<Int> = []
        var notAPrefix = false
        for seed in 0..<300 {
            let state = states.state(at: states.cutCount, seed: UInt64(seed))
            let sectors = (0..<32).map { byte(state, 4, sector: $0) }
            for sector in 1..<32 where sectors[sector] != sectors[sector - 1] { tornAt.insert(sector) }
            if let first = sectors.firstIndex(of: 0), sectors[first...].contains(1) { notAPrefix = true }
        }
        switch unit {
        case 512: #expect(tornAt == Set(1..<32) && notAPrefix)
        case 4096: #expect(tornAt == [8, 16, 24] && notAPrefix)
        default: #expect(tornAt.isEmpty)
        }
    }

    @Test func theOrderOfSubmissionAfterCompletionIsKeptAndThatOfConcurrentWritesIsNot() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        write(queue, block: 0, 2)
        var states = CrashStates(device)
        states.tearing = false
        for seed in 0..<200 {
            let state = states.state(at: states.cutCount, seed: UInt64(seed))
            let expected: UInt8 = state.landings.contains { $0.change == 1 } ? 2 : state.landings.isEmpty ? 0 : 1
            #expect(byte(state, 0) == expected)
        }
        let concurrent = RecordingDevice(size: 1 << 20, seed: 1)
        let other = try concurrent.makeQueue(depth: 8)
        #expect(other.submit(.write, offset: 0, AlignedBytes(count: 4096, repeating: 1), tag: 1))
        #expect(other.submit(.write, offset: 0, AlignedBytes(count: 4096, repeating: 2), tag: 2))
        states = CrashStates(concurrent)
        let both = (0..<200).map { states.state(at: states.cutCount, seed: UInt64($0)) }.filter { $0.landings.count == 2 }
        #expect(Set(both.map { byte($0, 0) }) == [1, 2])
        _ = other.drain()
    }

    @Test func anOldUncertainWriteNeverCoversALaterCertainOne() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1) { $0.supportsForceUnitAccess = true }
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1, blocks: 2)
        write(queue, block: 0, 2, fua: true)
        let states = CrashStates(device)
        var second: Set<UInt8> = []
        for seed in 0..<200 {
            let state = states.state(at: states.cutCount, seed: UInt64(seed))
            #expect(byte(state, 0) == 2)
            second.insert(byte(state, 1))
        }
        #expect(second == [0, 1])
        #expect(queue.perform(.flush) == 0)
        #expect(byte(states.state(at: states.cutCount, seed: 1), 0) == 2)
        #expect(byte(states.state(at: states.cutCount, seed: 1), 1) == 1)
    }

    @Test func withoutAVolatileCacheCompletedIsCertain() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1) { $0.volatileCache = false }
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        let states = CrashStates(device)
        #expect(states.possibleChanges(at: states.cutCount).isEmpty)
        #expect(states.possibleChanges(at: 1) == [0])
    }

    @Test func afterAFailedFlushNoLaterFlushSavesWhatItShouldHaveCovered() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        device.plan(DeviceFault(.error(EIO), on: [.flush]))
        write(queue, block: 0, 1)
        #expect(queue.perform(.flush) == EIO)
        write(queue, block: 1, 1)
        #expect(queue.perform(.flush) == 0)
        let states = CrashStates(device)
        #expect(states.possibleChanges(at: states.cutCount) == [0])
        write(queue, block: 0, 1)
        #expect(queue.perform(.flush) == 0)
        #expect((0..<50).allSatisfy { byte(states.state(at: states.cutCount, seed: $0), 0) == 1 })
    }

    @Test func aDiscardedBlockReadsAsAnything() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        #expect(queue.perform(.flush) == 0)
        #expect(queue.perform(.discard, offset: 0, length: 4096) == 0)
        let states = CrashStates(device)
        #expect(Set((0..<100).map { byte(states.state(at: states.cutCount, seed: $0), 0) }) == [1, 0xD1])
    }

    @Test func trashIsNeitherOldNorNewAndOnlyInFlight() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        #expect(queue.submit(.write, offset: 4096, AlignedBytes(count: 4096, repeating: 1), tag: 1))
        let states = CrashStates(device)
        states.trash = 0.5
        let seen = (0..<100).map { states.state(at: states.cutCount, seed: $0) }
        #expect(Set(seen.map { byte($0, 0) }) == [0, 1])
        #expect(Set(seen.map { byte($0, 1) }).count > 10)
        _ = queue.drain()
    }

    @Test func aSeedGivesTheSameBytesAndOlderStatesStayAsTheyWere() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        for block in 0..<8 { write(queue, block: block, UInt8(block + 1)) }
        let states = CrashStates(device)
        let state = states.state(at: 9, seed: 7)
        let before = state.device.contents
        #expect(queue.perform(.flush) == 0)
        write(queue, block: 100, 9)
        let later = states.state(at: states.cutCount, seed: 7)
        #expect((0..<8).allSatisfy { byte(later, $0) == UInt8($0 + 1) })
        #expect(state.device.contents == before, "the base has moved on under a state that lives")
        #expect(states.state(at: 9, seed: 7).device.contents == before, "going back starts over")
        let copy = RecordingDevice(copying: later.device, seed: 1)
        #expect(copy.current.contents == later.device.contents)
    }

    /// A journal of one record: the body in block 0, the commit in block 1, the home in block 2. Recovery copies the body home
    /// where the commit is there. Correct with a flush before the commit; the planted bug leaves it out.
    @Test(arguments: [false, true])
    func aMissingFlushBeforeTheCommitIsFound(planted: Bool) throws {
        let device = RecordingDevice(size: 1 << 20, seed: 11, schedule: .init(shuffled: true, maximumDelay: 3))
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 0x77)
        if !planted { #expect(queue.perform(.flush) == 0) }
        write(queue, block: 1, 1)
        #expect(queue.perform(.flush) == 0)
        let states = CrashStates(device)
        var wrong = 0
        for cut in 0...states.cutCount {
            for seed in 0..<50 {
                let state = states.state(at: cut, seed: UInt64(seed))
                guard byte(state, 1, sector: 7) == 1 else { continue }
                if (0..<8).contains(where: { byte(state, 0, sector: $0) != 0x77 }) { wrong += 1 }
            }
        }
        #expect((wrong > 0) == planted)
    }

    @Test func theGeneratorsOwnPlantedBugShowsAsLostData() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        write(queue, block: 0, 1)
        #expect(queue.perform(.flush) == 0)
        let states = CrashStates(device)
        states.plantedForgetfulFlush = true
        #expect((0..<50).contains { byte(states.state(at: states.cutCount, seed: $0), 0) == 0 })
    }

    @Test func statesOfA32MiBImageAreCheap() throws {
        let device = RecordingDevice(size: 32 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        for block in 0..<400 {
            write(queue, block: block * 13, UInt8(block & 0xFF))
            if block % 20 == 19 { #expect(queue.perform(.flush) == 0) }
        }
        let states = CrashStates(device)
        let clock = ContinuousClock()
        var count = 0
        let time = clock.measure {
            for cut in 0...states.cutCount {
                for seed in 0..<4 {
                    let state = states.state(at: cut, seed: UInt64(seed))
                    count += byte(state, 0) == 0xFE ? 0 : 1
                }
            }
        }
        print("\(count) crash states of 32 MiB in \(time)")
        #expect(count == (states.cutCount + 1) * 4)
    }
}
