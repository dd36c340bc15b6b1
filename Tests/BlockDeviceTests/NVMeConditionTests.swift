/// What an NVMe driver notices and tells: health, errors, events while nothing is under way; what passes by itself; what a controller limits.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct NVMeConditionTests {
    // MARK: Health

    @Test func theConditionIsTold() throws {
        let fake = try FakeController()
        (fake.configuration.health.warning, fake.configuration.health.kelvin, fake.configuration.health.mediaErrors) = (0b101, 320, 2)
        fake.configuration.health.errors = [(8, 0x281, 77), (7, 0x80, 5)]
        let rows = Dictionary(uniqueKeysWithValues: try NVMeDevice(fake).condition().filter { $0.name != "error" }.map { ($0.name, $0.text) })
        #expect(rows["health"] == "spare blocks run out, it has become unreliable")
        #expect(rows["wear"] == "7% of its life used, 100% spare (10% is too little), 47 °C")
        #expect(rows["moved"] == "512000000 bytes read, 1024000000 written, in 50 hours")
        #expect(rows["power"] == "5 times on, 3 times off without a shutdown" && rows["errors"] == "2 of the medium, 2 in the log")
        #expect(fake.violations.isEmpty)
    }

    @Test func theErrorLogIsShown() throws {
        let fake = try FakeController()
        fake.configuration.health.errors = [(8, 0x281, 77), (7, 0x80, 5)]
        let errors = try NVMeDevice(fake).condition().filter { $0.name == "error" }.map(\.text)
        #expect(errors == ["number 8: status 0x281, queue 0, logical block 77"], "a log of one entry shows one: \(errors)")
        #expect(try NVMeDevice(FakeController()).condition().allSatisfy { $0.name != "error" })
        #expect(fake.violations.isEmpty)
    }

    @Test func aDeviceThatHasGoneHasNoCondition() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        fake.plan(FakeFault(.removal, on: .admin))
        let began = fake.clock
        #expect(throws: DeviceError.self) { try device.driver.condition() }
        #expect(throws: DeviceError.self) { try device.driver.condition() }
        #expect(fake.clock - began < 60_000_000_000)
        let refusing = try FakeController()
        let refused = try NVMeDevice(refusing)
        refusing.plan(FakeFault(.status(0x109), on: .admin))
        #expect(throws: DeviceError.self) { try refused.condition() }
        #expect(try refused.condition().count == 5)
    }

    @Test func aHealthEventSaysWhatIsWrong() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.configuration.health.warning = 2
        fake.tell(kind: 1, information: 1, log: 2)
        poll(queue, 2000)
        #expect(queue.takeNotes() == ["the device reports on its health: the temperature is out of its range"])
        #expect(queue.takeNotes().isEmpty && !queue.hasNotes && device.notes.count == 1, "told once")
        fake.configuration.health.warning = 0
        fake.tell(kind: 1, information: 1, log: 2)
        poll(queue, 2000)
        #expect(queue.takeNotes() == ["the device reports on its health: 37 °C, 100% spare, 7% of its life used, 0 media errors"])
        #expect(fake.adminFetched[NVMeOpcode.setFeatures] == 2, "the events are asked for, and the queues")
        #expect(fake.violations.isEmpty)
    }

    // MARK: While nothing is under way

    /// As a worker polls that has nothing else to do, and never sleeps.
    private func poll(_ queue: any DeviceQueue, _ times: Int) {
        for _ in 0..<times { _ = queue.nextCompletion() }
    }

    @Test func aDeviceThatGoesIsMissedBeforeTheNextRequest() throws {
        let fake = try FakeController()
        let device = try NVMeDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        poll(queue, 10)
        fake.remove()
        fake.elapse(200_000_000)
        poll(queue, 2000)
        #expect(queue.takeNotes() == ["the device has gone: no request is taken any more"])
        #expect(queue.perform(.flush) == ENODEV)
    }

    @Test func aFatalStatusIsNoticedAndResetWhileNothingIsUnderWay() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.failFatally()
        poll(queue, 2000)
        #expect(device.driver.controller.resets == 1 && fake.starts == 2)
        #expect(queue.perform(.flush) == 0 && fake.violations.isEmpty)
    }

    @Test func aNamespaceThatGrowsIsNoMatter() throws {
        let fake = try FakeController { $0.namespaceBlocks = 1024 }
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 4096)
        fake.namespaceBlocks = 2048
        fake.tell(kind: 2, information: 0, log: 4)
        poll(queue, 2000)
        #expect(queue.perform(.read, offset: 0, bytes) == 0)
        #expect(queue.takeNotes() == ["the controller reports that its namespaces have changed"])
        #expect(fake.adminFetched[NVMeOpcode.identify] == 4, "it was looked at again")
        #expect(device.capabilities.blockCount == 128 && fake.violations.isEmpty)
    }

    // MARK: What passes by itself

    @Test(arguments: [0x06, 0x21, 0x22, 0x82, 0x301, 0x371] as [UInt16]) func whatMayPassIsTriedAgainAfterAWhile(_ status: UInt16) throws {
        let bytes = AlignedBytes(count: 4096, repeating: 5)
        func write(_ faults: [FakeFault], _ configure: (inout FakeConfiguration) -> Void = { _ in }) throws -> (error: Int32, writes: Int?, took: UInt64) {
            let fake = try FakeController(configure)
            let queue = try SteppedDevice(fake).makeQueue(depth: 4)
            for fault in faults { fake.plan(fault) }
            let began = fake.clock
            let error = queue.perform(.write, offset: 0, bytes)
            #expect(fake.violations.isEmpty)
            return (error, fake.commandsFetched[NVMeOpcode.write], fake.clock - began)
        }
        let (error, writes, took) = try write([FakeFault(.status(status))])
        #expect(error == 0 && writes == 2 && took >= 20_000_000 && took < 60_000_000)
        let forNothing = try write([FakeFault(.status(status), forever: true)])
        #expect(forNothing.error == EIO && forNothing.writes == 3)
        let final = try write([FakeFault(.status(status, doNotRetry: true))])
        #expect(final.error == EIO && final.writes == 1, "the controller says that it is of no use")
        // The first of the controller's own delays: bits 11 and 12 of the status.
        let delayed = try write([FakeFault(.status(status | 1 << 11))]) { $0.retryUnits = 7 }
        #expect(delayed.error == 0 && delayed.took >= 700_000_000 && delayed.took < 800_000_000)
    }

    @Test func whatRestsDoesNotHoldUpTheOthersAndEndsWithTheDevice() throws {
        let fake = try FakeController { $0.retryUnits = 50 }
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        let bytes = AlignedBytes(count: 4096)
        fake.plan(FakeFault(.status(0x21 | 1 << 11)))
        for tag in 0..<4 as Range<UInt64> { #expect(queue.submit(.read, offset: tag * 4096, bytes, tag: tag)) }
        queue.kick()
        var done: [UInt64] = []
        for _ in 0..<1000 where done.count < 3 { if let completion = queue.nextCompletion() { done.append(completion.tag) } }
        #expect(Set(done) == [1, 2, 3], "one of four rests")
        fake.remove()
        #expect(queue.drain() == [DeviceCompletion(tag: 0, error: ENODEV)])
        #expect(fake.violations.isEmpty)
    }

    // MARK: Limits

    @Test func aStartMayTakeAsLongAsTheControllerSays() throws {
        let slow = try FakeController { ($0.startDelay, $0.readyUnits) = (4_000_000_000, 10) }
        #expect(try SteppedDevice(slow).makeQueue(depth: 4).perform(.flush) == 0)
        #expect(slow.functionResets == 0 && slow.starts == 1 && slow.violations.isEmpty)
    }

    @Test func queuesWhoseDoorbellsAreOutOfReachAreNotMade() throws {
        let fake = try FakeController { $0.registerBytes = 0x1000 + 3 * 8 }
        let device = try SteppedDevice(fake)
        let queues = try (0..<2).map { _ in try device.makeQueue(depth: 4) }
        #expect(throws: DeviceError.self) { try device.makeQueue(depth: 4) }
        #expect(queues.allSatisfy { $0.perform(.flush) == 0 } && fake.violations.isEmpty)
    }

    @Test(arguments: [0, 1]) func aQueueThatIsRefusedLeavesTheOthersAsTheyAre(_ after: Int) throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let first = try device.makeQueue(depth: 4)
        fake.plan(FakeFault(.status(0x102, doNotRetry: true), on: .admin, after: after))
        #expect(throws: DeviceError.self) { try device.makeQueue(depth: 4) }
        #expect(throws: DeviceError.self, "there are no more") { try device.makeQueue(depth: 4) }
        #expect(first.perform(.flush) == 0 && device.driver.controller.resets == 0 && fake.starts == 1)
        fake.failFatally()
        #expect(first.perform(.flush) == 0 && device.driver.controller.resets == 1 && fake.violations.isEmpty)
    }

    @Test func longZeroesAndDiscardsAreManyCommandsWhereTheControllerWantsThat() throws {
        func commands(_ configure: (inout FakeConfiguration) -> Void) throws -> [Int?] {
            let fake = try FakeController(blocks: 1024, configure)
            let queue = try SteppedDevice(fake).makeQueue(depth: 4)
            #expect(queue.perform(.writeZeroes, offset: 0, length: 1 << 20) == 0 && queue.perform(.discard, offset: 1 << 20, length: 1 << 20) == 0)
            #expect(fake.medium.image.contents[0..<1 << 20].allSatisfy { $0 == 0 } && fake.discardedBlocks == UInt64(1 << 20 / fake.configuration.blockSize))
            #expect(fake.violations.isEmpty)
            return [fake.commandsFetched[NVMeOpcode.writeZeroes], fake.commandsFetched[NVMeOpcode.manageDataset]]
        }
        #expect(try commands { $0.transferShift = 5 } == [8, 1], "the limit of transfers")
        #expect(try commands { $0.transferShift = 0 } == [1, 1])
        #expect(try commands { ($0.transferShift, $0.limits) = (5, (6, 0)) } == [4, 1])
        #expect(try commands { ($0.blockSize, $0.limits) = (4096, (0, 100)) } == [8, 3])
        #expect(try commands { $0.limits = (255, 1) } == [1, 256], "not less than a block of the volume's")
    }

    @Test func withoutAnIOMMUEverythingIsCopied() throws {
        let fake = try FakeController { $0.mapsMemory = false }
        let queue = try SteppedDevice(fake).makeQueue(depth: 32)
        let bytes = AlignedBytes(count: 64 * 4096)
        unsafe try queue.register(bytes.buffer)
        for block in 0..<64 { bytes.fill(block * 4096..<(block + 1) * 4096, with: UInt8(block)) }
        for half in 0..<2 {
            for block in 0..<32 as Range<UInt64> {
                let at = half * 32 + Int(block)
                #expect(queue.submit(.write, offset: UInt64(at) * 4096, bytes[at * 4096..<(at + 1) * 4096], tag: block))
            }
            #expect(queue.drain().allSatisfy { $0.error == 0 })
        }
        bytes.fill(0..<bytes.count, with: 0xFF)
        #expect(queue.perform(.read, offset: 0, bytes[0..<32 * 4096]) == 0 && queue.perform(.read, offset: 32 * 4096, bytes[32 * 4096..<64 * 4096]) == 0)
        #expect((0..<64).allSatisfy { bytes.array[$0 * 4096 + 77] == UInt8($0) } && fake.violations.isEmpty)
    }
}
