/// Bringing an NVMe controller up, refusing what cannot be used, resetting it, and the orderly end.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct NVMeControllerTests {
    private func refusal(_ fake: FakeController, sourceLocation: SourceLocation = #_sourceLocation) -> DeviceError? {
        do throws(DeviceError) {
            _ = try NVMeDevice(fake)
            return nil
        } catch {
            #expect(!error.message.contains("\n"), "one line")
            #expect(fake.violations.isEmpty, sourceLocation: sourceLocation)
            return error
        }
    }

    @Test func aControllerIsBroughtUpAndSaysWhatItIs() throws {
        let fake = try FakeController {
            $0.atomicBlocks = 8
            $0.transferShift = 5
        }
        let device = try NVMeDevice(fake)
        let capabilities = device.capabilities
        #expect(capabilities.blockCount == 256 && capabilities.logicalBlockSize == 512 && capabilities.atomicWriteUnit == 4096)
        #expect(capabilities.volatileCache && capabilities.supportsForceUnitAccess && capabilities.supportsDiscard && capabilities.supportsWriteZeroes)
        #expect(capabilities.maximumTransfer == 131072 && !capabilities.readOnly)
        #expect(capabilities.description.contains("Fake Controller") && capabilities.description.contains("FAKE-0001"))
        #expect(device.warnings.isEmpty && fake.violations.isEmpty && fake.starts == 1)
        #expect(!(try NVMeDevice(FakeController { $0.cacheIsOn = false }).capabilities.volatileCache))
        #expect(!(try NVMeDevice(FakeController { $0.hasVolatileCache = false }).capabilities.volatileCache))
        #expect(try NVMeDevice(FakeController { $0.isWriteProtected = true }).capabilities.readOnly)
        #expect(try NVMeDevice(FakeController { $0.transferShift = 0 }).capabilities.maximumTransfer == 1 << 20)
        #expect(try NVMeDevice(FakeController { $0.blockSize = 4096 }).capabilities.blockCount == 256)
    }

    @Test func whatCannotBeUsedIsRefusedWithAReason() throws {
        let refusals: [(String, (inout FakeConfiguration) -> Void)] = [
            ("queues have one entry", { $0.maximumEntries = 1 }),
            ("registers end before its doorbells", { $0.registerBytes = 0x1008 }),
            ("no NVM command set", { $0.hasNVMCommandSet = false }),
            ("smallest page is 8192", { $0.pageShift = 1 }),
            ("8 bytes of metadata", { $0.metadataBytes = 8 }),
            ("blocks of 2^10 bytes", { $0.blockShift = 10 }),
            ("not active", { $0.namespaceBlocks = 0 }),
            ("queue entries have sizes", { $0.submissionEntrySizes = 0x77 }),
            ("queue entries have sizes", { $0.completionEntrySizes = 0x55 }),
            ("smaller than one block", { $0.namespaceBlocks = 7 }),
            ("does not start within the 1000 ms", {
                ($0.deafStarts, $0.canResetFunction) = (100, false)
            }),
            ("resets do not help", { $0.deafStarts = 100 }),
        ]
        for (message, configure) in refusals {
            let error = refusal(try FakeController(configure))
            #expect(error?.message.contains(message) == true, "\(message): \(error.map(String.init(describing:)) ?? "taken")")
        }
    }

    @Test func aDeviceThatHasGoneIsNotWaitedFor() throws {
        let fake = try FakeController()
        fake.remove()
        #expect(refusal(fake)?.message.contains("does not answer") == true)
        for after in 0..<6 {
            let fake = try FakeController()
            fake.plan(FakeFault(.removal, on: .admin, after: after))
            let began = fake.clock
            #expect((try? SteppedDevice(fake).makeQueue(depth: 4)) == nil)
            #expect(fake.clock - began < 30_000_000_000 && fake.violations.isEmpty)
        }
    }

    @Test func aStepThatFailsOrIsNotAnsweredIsTriedAgainOrTold() throws {
        for kind in [FakeFault.Kind.lostCompletion, .fatal, .status(0x06), .duplicateCompletion(after: 500)] {
            for after in 0..<10 {
                let fake = try FakeController { $0.hasDoorbellBuffers = true }
                fake.plan(FakeFault(kind, on: .admin, after: after))
                let queue = try SteppedDevice(fake).makeQueue(depth: 4)
                let bytes = AlignedBytes(count: 8192, repeating: 3)
                #expect(queue.perform(.write, offset: 0, bytes) == 0)
                #expect(fake.violations.isEmpty, "\(kind) of admin command \(after)")
            }
        }
    }

    @Test func aControllerThatAnotherLeftRunningIsTakenOver() throws {
        let fake = try FakeController()
        let first = try NVMeDevice(fake)
        let queue = try first.makeQueue(depth: 4)
        fake.configuration.deafStops = 1
        let second = try SteppedDevice(fake)
        #expect(fake.functionResets == 1, "it does not stop by itself")
        #expect(try second.makeQueue(depth: 4).perform(.flush) == 0)
        #expect(fake.violations.isEmpty)
        withExtendedLifetime(queue) {}
    }

    @Test func theEndIsAnOrderlyShutdownThatIsWaitedFor() throws {
        for (promise, takes, isAwaited) in [(0, 4, true), (20, 15, true), (0, 1_000_000, false)] as [(UInt32, UInt64, Bool)] {
            let fake = try FakeController {
                $0.shutdownMicroseconds = promise * 1_000_000
                $0.shutdownDelay = takes * 1_000_000_000
            }
            let device = try NVMeDevice(fake)
            device.close()
            device.close()
            #expect(fake.shutdownsAsked == 1 && fake.isClosed && fake.wasShutDownAtClose == isAwaited)
            #expect(fake.violations.isEmpty)
        }
        let fake = try FakeController()
        let device = try NVMeDevice(fake)
        fake.remove()
        let began = fake.clock
        device.close()
        #expect(fake.clock - began < 1_000_000_000, "a device that has gone is not waited for")
    }

    @Test func aDeviceThatIsClosedInTheMiddleOfAResetIsShutDownAllTheSame() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.plan(FakeFault(.fatal))
        let bytes = AlignedBytes(count: 4096, repeating: 1)
        #expect(queue.submit(.write, offset: 0, bytes, tag: 1))
        queue.kick()
        while device.driver.controller.resets == 0 { _ = queue.nextCompletion() }
        device.close()
        #expect(fake.shutdownsAsked == 1 && fake.wasShutDownAtClose && fake.violations.isEmpty)
    }

    // MARK: Rings

    @Test func aRingIsUsedAgainWhenItsQueueIsGone() throws {
        let fake = try FakeController { $0.queues = 1 }
        let device = try SteppedDevice(fake)
        let bytes = AlignedBytes(count: 4096, repeating: 9)
        for round in 0..<5 {
            let queue = try device.makeQueue(depth: 8 - round % 2)
            for _ in 0..<11 { #expect(queue.perform(.write, offset: 4096, bytes) == 0) }
            #expect(throws: DeviceError.self, "the only queue is in use") { try device.makeQueue(depth: 1) }
        }
        #expect(fake.adminFetched[NVMeOpcode.createSubmissionQueue] == 1)
        let longer = try device.makeQueue(depth: 64)
        #expect(longer.room == 64 && longer.perform(.write, offset: 8192, bytes) == 0)
        #expect(fake.adminFetched[NVMeOpcode.deleteSubmissionQueue] == 1 && fake.adminFetched[NVMeOpcode.createSubmissionQueue] == 2)
        #expect(fake.violations.isEmpty)
    }

    @Test func queuesAreSeparateAndComeBackAfterAReset() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queues = try (0..<3).map { try device.makeQueue(depth: 2 + $0) }
        let bytes = AlignedBytes(count: 4096, repeating: 9)
        for round in 0..<4 {
            if round == 2 { fake.failFatally() }
            for queue in queues { #expect(queue.perform(.write, offset: 0, bytes) == 0) }
        }
        #expect(device.driver.controller.resets == 1 && fake.starts == 2 && fake.violations.isEmpty)
    }

    @Test func theShortestQueuesAreEnough() throws {
        let fake = try FakeController { $0.maximumEntries = 2 }
        let queue = try SteppedDevice(fake).makeQueue(depth: 128)
        #expect(queue.room == 1)
        let bytes = AlignedBytes(count: 4096, repeating: 9)
        for _ in 0..<5 { #expect(queue.perform(.write, offset: 0, bytes) == 0) }
        #expect(fake.violations.isEmpty)
    }

    /// Doorbells of a workload that keeps the controller busy.
    private func doorbells(_ configure: (inout FakeConfiguration) -> Void) throws -> Int {
        let fake = try FakeController(seed: 5) {
            ($0.isShuffled, $0.maximumDelay) = (true, 2_000_000)
            configure(&$0)
        }
        let device = try SteppedDevice(fake)
        device.step = 100_000
        let queue = try device.makeQueue(depth: 32)
        let before = fake.doorbellStores
        let bytes = AlignedBytes(count: 4096, repeating: 9)
        var (submitted, done) = (0, 0)
        while done < 600 {
            if submitted < 600, queue.room > 0, queue.submit(.read, offset: UInt64(submitted % 256) * 4096, bytes, tag: UInt64(submitted)) { submitted += 1 }
            queue.kick()
            if let completion = queue.nextCompletion() {
                #expect(completion.error == 0)
                done += 1
            }
        }
        #expect(fake.violations.isEmpty)
        return fake.doorbellStores - before
    }

    @Test func shadowDoorbellsSaveDoorbells() throws {
        let plain = try doorbells { _ in }
        let shadowed = try doorbells { $0.hasDoorbellBuffers = true }
        print("doorbells of 600 requests: \(plain), with shadows \(shadowed)")
        #expect(shadowed * 4 < plain)
        #expect(try doorbells { ($0.hasDoorbellBuffers, $0.strideShift) = (true, 2) } * 4 < plain)
        #expect(try doorbells { ($0.hasDoorbellBuffers, $0.strideShift) = (true, 8) } > shadowed, "doorbells too far apart for a page have no shadows")
    }

    // MARK: Trouble

    @Test func eventsAreNotedOneAfterTheOther() throws {
        let fake = try FakeController { $0.eventLimit = 0 }
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.plan(FakeFault(.event(kind: 1, information: 2, log: 2)))
        fake.plan(FakeFault(.event(kind: 1, information: 1, log: 2), after: 1))
        fake.plan(FakeFault(.event(kind: 0, information: 3, log: 1), after: 2))
        fake.plan(FakeFault(.shrink(blocks: 1024), after: 3))
        let bytes = AlignedBytes(count: 4096)
        for offset in 0..<4 { #expect(queue.perform(.read, offset: UInt64(offset) * 4096, bytes) == 0) }
        for _ in 0..<20 {
            fake.elapse(200_000_000)
            device.driver.controller.tend()
        }
        #expect(device.notes.filter { $0.contains("health") }.count == 2, "\(device.notes)")
        #expect(device.notes.contains { $0.contains("error of its own") } && device.notes.contains { $0.contains("change") })
        #expect(device.notes.contains { $0.contains("changed its size or format") }, "the namespace is looked at again")
        #expect(queue.perform(.read, offset: 0, bytes) == ENODEV && fake.violations.isEmpty)
    }

    @Test func whatChangesForTheWorseAtAResetEndsAllUse() throws {
        let changes: [(String, (inout FakeConfiguration) -> Void)] = [
            ("another device", { $0.serial = "OTHER" }),
            ("offers less", { $0.transferShift = 2 }),
            ("offers less", { $0.hasDeallocate = false }),
            ("offers less", { $0.hasWriteZeroes = false }),
            ("tears", { $0.atomicBlocks = 1 }),
            ("size or format", { $0.namespaceBlocks = 16 }),
            ("size or format", { $0.blockSize = 4096 }),
            ("volatile cache", { $0.cacheIsOn = true }),
            ("not active", { $0.namespaceBlocks = 0 }),
        ]
        for (message, change) in changes {
            let fake = try FakeController {
                ($0.cacheIsOn, $0.atomicBlocks) = (false, 8)
            }
            let device = try SteppedDevice(fake)
            let queue = try device.makeQueue(depth: 4)
            let bytes = AlignedBytes(count: 4096)
            #expect(queue.perform(.read, offset: 0, bytes) == 0)
            fake.changeAtReset = change
            fake.failFatally()
            #expect(queue.perform(.read, offset: 0, bytes) == ENODEV, "\(message)")
            #expect(queue.perform(.flush) == ENODEV)
            #expect(device.notes.contains { $0.contains(message) }, "\(message): \(device.notes)")
            #expect(fake.violations.isEmpty)
        }
        let fake = try FakeController { $0.cacheIsOn = false }
        let queue = try SteppedDevice(fake).makeQueue(depth: 4)
        fake.changeAtReset = { ($0.transferShift, $0.atomicBlocks, $0.hasVolatileCache) = (7, 16, false) }
        fake.failFatally()
        #expect(queue.perform(.flush) == 0, "what changes for the better is no matter")
    }

    @Test func aControllerThatFailsAgainAndAgainIsGivenUp() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 4)
        fake.plan(FakeFault(.fatal, forever: true))
        #expect((0..<4).map { _ in queue.perform(.flush) } == [EIO, EIO, EIO, EIO])
        #expect(device.driver.controller.resets == 5, "four in a row, and the one that is not done")
        #expect(device.notes.contains { $0.contains("resets do not help") })
        #expect(throws: DeviceError.self) { try device.makeQueue(depth: 4) }
        device.close()
        #expect(fake.violations.isEmpty)
    }

    @Test func aControllerThatGoesEndsEveryRequestWithENODEV() throws {
        let fake = try FakeController()
        let device = try SteppedDevice(fake)
        let queue = try device.makeQueue(depth: 8)
        let bytes = AlignedBytes(count: 4096)
        fake.plan(FakeFault(.removal, after: 2))
        for tag in 0..<8 { #expect(queue.submit(.read, offset: UInt64(tag) * 4096, bytes, tag: UInt64(tag))) }
        let errors = queue.drain().sorted { $0.tag < $1.tag }.map(\.error)
        #expect(errors.suffix(6).allSatisfy { $0 == ENODEV })
        #expect(queue.perform(.flush) == ENODEV && fake.violations.isEmpty)
    }
}
