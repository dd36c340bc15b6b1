/// Requests through the NVMe driver: what they do to a plain array, whatever memory they use; what happens when one is not answered.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct NVMeQueueTests {
    private func content(_ count: Int, seed: UInt64) -> [UInt8] { VolumeWorkload.bytes(count, seed: seed) }

    @Test(arguments: [512, 4096], [0, 1, 2, 5]) func whatIsWrittenIsReadWhateverMemoryItIsIn(_ size: Int, _ shift: UInt8) throws {
        let fake = try FakeController(blocks: 512) {
            $0.blockSize = size
            $0.transferShift = shift
            $0.isShuffled = true
        }
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 16)
        let memory = AlignedBytes(count: 300 * 4096)
        let other = AlignedBytes(count: 300 * 4096)
        unsafe try queue.register(memory.buffer)
        var plain = [UInt8](repeating: 0, count: 512 * 4096)
        var random = SeededRandom(seed: UInt64(size) + UInt64(shift))
        for round in 0..<150 {
            let most = min(256, device.capabilities.maximumTransfer / 4096)
            let count = random.chance(0.2) ? most : 1 + random.below(min(most, 6))
            let block = random.below(512 - count + 1)
            let range = block * 4096..<(block + count) * 4096
            let arena = random.chance(0.6) ? memory : other
            var pieces: [AlignedBytes]
            switch random.below(3) {
            case 0: pieces = [arena[0..<count * 4096]]
            case 1:
                var pages = Array(0..<300)
                random.shuffle(&pages)
                pieces = pages.prefix(count).map { arena[$0 * 4096..<($0 + 1) * 4096] }
            default:
                // Neither piece is whole pages, and half of the second is outside what was registered, or inside.
                let first = 512 * (1 + random.below(7))
                pieces = [arena[0..<first], other[4096..<8192 - first]]
                if count > 1 { pieces.append(memory[16384..<16384 + (count - 1) * 4096]) }
            }
            if random.chance(0.5) {
                let bytes = content(count * 4096, seed: UInt64(round))
                var at = 0
                for piece in pieces {
                    unsafe piece.buffer.copyBytes(from: bytes[at..<at + piece.count])
                    at += piece.count
                }
                #expect(queue.submit(.write, offset: UInt64(range.lowerBound), segments: pieces, tag: 1))
                plain.replaceSubrange(range, with: bytes)
            } else {
                for piece in pieces { piece.fill(0..<piece.count, with: 0xA5) }
                #expect(queue.submit(.read, offset: UInt64(range.lowerBound), segments: pieces, tag: 1))
            }
            #expect(queue.drain() == [DeviceCompletion(tag: 1, error: 0)])
            #expect(pieces.flatMap(\.array).elementsEqual(plain[range]), "round \(round)")
        }
        #expect(fake.medium.image.contents == plain)
        #expect(fake.violations.isEmpty, "\(fake.violations)")
    }

    @Test(arguments: [512, 4096]) func rangesLongerThanOneCommandAreZeroedInSteps(_ size: Int) throws {
        // Of 4 KiB blocks, most are there in name only.
        let fake = try FakeController(blocks: size == 512 ? 17_500 : 256) {
            ($0.blockSize, $0.transferShift) = (size, 0)
            $0.namespaceBlocks = 140_000
        }
        let queue = try SteppedDevice(fake).makeQueue(depth: 2)
        let bytes = AlignedBytes(count: 4096, repeating: 7)
        let last = 140_000 * size - 4096
        let written = size == 512 ? [0, 4096, last - 4096, last] : [0, 4096]
        for offset in written { #expect(queue.perform(.write, offset: UInt64(offset), bytes) == 0) }
        #expect(queue.perform(.writeZeroes, offset: 4096, length: last - 4096) == 0)
        #expect(fake.commandsFetched[NVMeOpcode.writeZeroes] == 3)
        for offset in written { #expect(fake.medium.image[offset] == (offset == 0 || offset == last ? 7 : 0)) }
        #expect(fake.violations.isEmpty)
    }

    @Test func rangesLongerThanOneCommandAreDiscardedInSteps() throws {
        let fake = try FakeController { $0.namespaceBlocks = 1 << 34 }
        let queue = try SteppedDevice(fake).makeQueue(depth: 2)
        #expect(queue.perform(.discard, offset: 4096, length: 5 << 40) == 0)
        #expect(fake.commandsFetched[NVMeOpcode.manageDataset] == 3)
        #expect(fake.discardedBlocks == 5 << 31)
        #expect(fake.violations.isEmpty)
    }

    @Test func forcedWritesAndFlushesOutliveAPowerCut() throws {
        var lost = 0
        for seed in 0..<16 as Range<UInt64> {
            let medium = FakeMedium(try MemoryDevice(size: 64 * 4096), tracksPowerCuts: true)
            let fake = FakeController(medium, seed: seed)
            let queue = try SteppedDevice(fake).makeQueue(depth: 4)
            let (old, new) = (AlignedBytes(count: 4096, repeating: 1), AlignedBytes(count: 4096, repeating: 2))
            for block in 0..<3 { #expect(queue.perform(.write, offset: UInt64(block) * 4096, old) == 0) }
            #expect(queue.perform(.write, offset: 0, new, forceUnitAccess: true) == 0)
            #expect(queue.perform(.write, offset: 3 * 4096, old) == 0)
            if seed % 2 == 0 { #expect(queue.perform(.flush) == 0) }
            #expect(queue.perform(.write, offset: 4096, new) == 0)
            medium.cutPower(seed: seed)
            #expect(medium.image[0] == 2 && medium.image[4095] == 2)
            if seed % 2 == 0 {
                #expect(medium.image[4096] != 0 && medium.image[8192] == 1 && medium.image[3 * 4096] == 1)
            }
            if medium.image[3 * 4096] == 0 { lost += 1 }
            #expect(fake.violations.isEmpty)
        }
        #expect(lost > 0, "what was not flushed may be lost")
    }

    // MARK: Room

    @Test func aFullQueueTakesNothingUntilACompletionIsTaken() throws {
        let fake = try FakeController()
        let queue = try SteppedDevice(fake).makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 4096)
        for tag in 0..<3 { #expect(queue.submit(.read, offset: 0, bytes, tag: UInt64(tag))) }
        #expect(queue.submit(.read, offset: 1, bytes, tag: 3), "what is refused has its place, too")
        #expect(queue.room == 0 && queue.inFlight == 4)
        #expect(!queue.submit(.read, offset: 0, bytes, tag: 9))
        #expect(queue.nextCompletion() == nil, "nothing completes before it is kicked")
        queue.kick()
        var seen: Set<UInt64> = []
        // Places are given back one by one, however much the driver has read of the ring.
        for round in 4..<100 {
            guard let completion = queue.nextCompletion() else { continue }
            #expect(seen.insert(completion.tag).inserted && completion.error == (completion.tag % 7 == 3 ? EINVAL : 0))
            #expect(queue.room == 1)
            let tag = UInt64(round)
            #expect(queue.submit(.read, offset: tag % 7 == 3 ? 1 : 0, bytes, tag: tag))
            #expect(!queue.submit(.read, offset: 0, bytes, tag: 999))
            queue.kick()
        }
        #expect(queue.drain().count == 4 && queue.room == 4)
        #expect(fake.violations.isEmpty, "\(fake.violations)")
    }

    @Test func memoryThatTheDeviceDoesNotReachIsNoReasonToTakeLess() throws {
        let fake = try FakeController { ($0.isShuffled, $0.maximumDelay) = (true, 3_000_000) }
        let queue = try SteppedDevice(fake).makeQueue(depth: 64)
        let pieces = (0..<64).map { AlignedBytes(count: 8192, repeating: UInt8($0)) }
        // Some are aborted and sent again on the way.
        for after in [3, 20, 40] { fake.plan(FakeFault(.stuck(.works), after: after)) }
        for tag in 0..<64 { #expect(queue.submit(.write, offset: UInt64(tag) * 8192, pieces[tag], tag: UInt64(tag))) }
        #expect(queue.drain().allSatisfy { $0.error == 0 })
        for tag in 0..<64 { #expect(fake.medium.image[tag * 8192 + 5000] == UInt8(tag)) }
        #expect(fake.violations.isEmpty, "\(fake.violations)")
    }

    @Test func memoryThatIsMappedForAWhileIsReachedWithoutCopies() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 8)
        let pieces = (0..<9).map { _ in AlignedBytes(count: 16384) }
        for piece in pieces { unsafe queue.map(piece.buffer) }
        let own = fake.allocatedPages
        for (number, piece) in pieces.enumerated() {
            piece.fill(0..<16384, with: UInt8(number + 1))
            #expect(queue.perform(.write, offset: UInt64(number) * 16384, piece) == 0)
            piece.fill(0..<16384, with: 0xEE)
            #expect(queue.perform(.read, offset: UInt64(number) * 16384 + 4096, piece[4096..<12288]) == 0)
            #expect(piece.array == [UInt8](repeating: 0xEE, count: 4096) + [UInt8](repeating: UInt8(number + 1), count: 8192) + [UInt8](repeating: 0xEE, count: 4096))
        }
        #expect(fake.allocatedPages == own, "no bounce buffer")
        for piece in pieces.dropFirst(4) { unsafe queue.unmap(piece.buffer) }
        #expect(fake.unmaps == 5 && queue.perform(.read, offset: 0, pieces[3]) == 0 && fake.allocatedPages == own)
        #expect(queue.perform(.read, offset: 0, pieces[5]) == 0 && pieces[5].array.allSatisfy { $0 == 1 })
        #expect(fake.allocatedPages > own, "by a copy again")
        unsafe queue.unmap(pieces[5].buffer)
        #expect(fake.unmaps == 5 && fake.violations.isEmpty, "what is not mapped is no matter")
    }

    @Test func aFlushIsNoCommandWhereThereIsNoVolatileCache() throws {
        let fake = try FakeController { $0.cacheIsOn = false }
        let queue = try SteppedDevice(fake).makeQueue(depth: 2)
        for _ in 0..<5 { #expect(queue.perform(.flush) == 0) }
        #expect(fake.commandsFetched.isEmpty && queue.counters == DeviceCounters() && fake.violations.isEmpty)
    }

    @Test func impossibleRequestsDoNotReachTheDevice() throws {
        let fake = try FakeController { ($0.hasDeallocate, $0.hasWriteZeroes) = (false, false) }
        let queue = try SteppedDevice(fake).makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 65536 * 4)
        #expect(queue.perform(.read, offset: 256 * 4096, bytes[0..<4096]) == EINVAL)
        #expect(queue.perform(.read, offset: 0, bytes) == EINVAL, "beyond MDTS")
        #expect(queue.perform(.write, offset: 512, bytes[0..<4096]) == EINVAL)
        #expect(queue.perform(.discard, offset: 0, length: 4096) == EOPNOTSUPP)
        #expect(queue.perform(.writeZeroes, offset: 0, length: 4096) == EOPNOTSUPP)
        #expect(fake.commandsFetched.isEmpty && fake.violations.isEmpty && queue.counters == DeviceCounters())
        let protected = try SteppedDevice(try FakeController { $0.isWriteProtected = true }).makeQueue(depth: 4)
        #expect(protected.perform(.write, offset: 0, bytes[0..<4096]) == EROFS)
    }

    // MARK: Deadlines

    private func trouble(_ faults: [FakeFault], seed: UInt64 = 1) throws -> (fake: FakeController, device: SteppedDevice, error: Int32) {
        let fake = try FakeController(seed: seed)
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        for fault in faults { fake.plan(fault) }
        let bytes = AlignedBytes(count: 8192, repeating: 0x77)
        let error = queue.perform(.write, offset: 4096, bytes)
        if error == 0 { #expect(fake.medium.image[4096 + 8191] == 0x77) }
        #expect(fake.violations.isEmpty, "\(faults): \(fake.violations)")
        return (fake, device, error)
    }

    @Test func aRequestThatIsNotAnsweredIsAbortedAndSentAgain() throws {
        let (fake, device, error) = try trouble([FakeFault(.stuck(.works))])
        #expect(error == 0 && device.driver.controller.resets == 0)
        #expect(fake.adminFetched[NVMeOpcode.abort] == 1 && fake.commandsFetched[NVMeOpcode.write] == 2)
    }

    @Test(arguments: [FakeFault.Kind.stuck(.answered), .stuck(.stuck), .lostCompletion, .fatal]) func whereAnAbortDoesNotHelpAResetDoes(_ kind: FakeFault.Kind) throws {
        let (fake, device, error) = try trouble([FakeFault(kind)])
        #expect(error == 0 && device.driver.controller.resets == 1 && fake.starts == 2)
        #expect(fake.commandsFetched[NVMeOpcode.write] == 2)
        #expect(device.notes.contains { $0.contains("reset") })
    }

    @Test(arguments: [FakeFault.Kind.stuck(.works), .stuck(.answered), .stuck(.stuck), .lostCompletion, .status(0x07), .status(0x82)])
    func threeTimesIsEnough(_ kind: FakeFault.Kind) throws {
        let (fake, _, error) = try trouble([FakeFault(kind, forever: true)])
        #expect(error == EIO && fake.commandsFetched[NVMeOpcode.write] == 3)
    }

    @Test func anAbortThatIsNeverAnsweredDoesNotStopLaterOnes() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 4096, repeating: 1)
        // The abort is not even executed; the request ends by itself.
        fake.plan(FakeFault(.stuck(.stuck), on: .admin))
        fake.plan(FakeFault(.late(12_000_000_000)))
        fake.plan(FakeFault(.stuck(.answered), after: 1))
        #expect(queue.perform(.write, offset: 0, bytes) == 0)
        #expect(queue.perform(.write, offset: 0, bytes) == 0)
        #expect(fake.clock < 60_000_000_000 && fake.violations.isEmpty)
    }

    /// A worker sleeps between its looks: what is to be done in time does not wait for a number of looks.
    @Test func aWorkerThatSleepsNoticesADeadlineInTime() throws {
        let fake = try FakeController()
        let device = try NVMeDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.plan(FakeFault(.stuck(.works)))
        #expect(queue.deadline == nil)
        #expect(queue.submit(.flush, tag: 1))
        queue.kick()
        let began = fake.clock
        while queue.nextCompletion() == nil, fake.clock - began < 100_000_000_000 {
            queue.armWakeup()
            let deadline = try #require(queue.deadline)
            if queue.nextCompletion() != nil { break }
            fake.elapse(deadline - fake.clock)
            queue.disarmWakeup()
        }
        #expect(fake.clock - began < 12_000_000_000 && fake.adminFetched[NVMeOpcode.abort] == 1)
        device.close()
    }

    @Test func memoryOfAnAnsweredRequestIsNotTouchedByWhatTheControllerStillDoes() throws {
        for seed in 0..<12 as Range<UInt64> {
            let fake = try FakeController(seed: seed)
            let device = try SteppedDevice(fake)
            let queue = try device.makeQueue(depth: 4)
            let bytes = AlignedBytes(count: 65536)
            unsafe try queue.register(bytes.buffer)
            fake.plan(FakeFault(.stuck(.answered), forever: true))
            #expect(queue.perform(.read, offset: 0, bytes) == EIO)
            bytes.fill(0..<65536, with: 0xEE)
            fake.elapse(10_000_000_000)
            for _ in 0..<10_000 { _ = queue.nextCompletion() }
            #expect(bytes.array.allSatisfy { $0 == 0xEE }, "seed \(seed)")
        }
    }

    @Test func answersToWhatIsNotUnderWayAreNotedAndIgnored() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 1)
        let bytes = AlignedBytes(count: 4096)
        fake.plan(FakeFault(.unknownIdentifier))
        fake.plan(FakeFault(.duplicateCompletion(after: 1), after: 1))
        fake.plan(FakeFault(.stuck(.works), after: 2))
        // The second answer to the second comes while the third is under way, in the same slot.
        for _ in 0..<4 { #expect(queue.perform(.read, offset: 0, bytes) == 0) }
        #expect(fake.adminFetched[NVMeOpcode.abort] == 1, "the third was answered by its own answer only")
        #expect(device.notes.filter { $0.contains("not under way") }.count == 2)
        #expect(fake.violations.isEmpty)
    }

    @Test func anInterruptThatIsPendingWhenItIsArmedIsRaised() throws {
        let fake = try FakeController { $0.hasInterrupt = true }
        let device = try NVMeDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        func isRaised() -> Bool {
            var wait = pollfd(fd: queue.wakeupDescriptor, events: Int16(POLLIN), revents: 0)
            return unsafe poll(&wait, 1, 0) == 1
        }
        queue.armWakeup()
        queue.disarmWakeup()
        #expect(!isRaised())
        #expect(queue.submit(.flush, tag: 1))
        queue.kick()
        #expect(!isRaised())
        queue.armWakeup()
        #expect(isRaised() && queue.nextCompletion() != nil)
        queue.disarmWakeup()
        #expect(!isRaised())
        queue.armWakeup()
        #expect(!isRaised())
        #expect(queue.submit(.flush, tag: 2))
        queue.kick()
        #expect(isRaised() && fake.violations.isEmpty)
        device.close()
    }
}
