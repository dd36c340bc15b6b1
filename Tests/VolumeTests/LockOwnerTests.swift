/// Record locks of processes and of open descriptions (F_OFD_SETLK): who conflicts with whom, and with what a lock goes. fcntl(2), "Open file description locks".
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct LockOwnerTests {
    private let volume: VolumeHarness
    private let other: SessionID

    init() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        volume = try VolumeHarness(device)
        let file = volume.open("/f", 0o102)
        #expect(volume.close(file) == 0)
        other = try #require(volume.volume.openSession(Credentials(user: 0, group: 0, process: 77)))
    }

    private enum Command: UInt32 {
        case processAsks = 5, process = 6, processWaits = 7, asks = 36, sets = 37, waits = 38
    }

    private func fill(_ request: inout Request, _ handle: Int64, _ command: Command, _ type: UInt64, _ offset: Int64) {
        request.handle = Int32(handle)
        request.flags = command.rawValue
        request.argument = type
        request.offset = offset
        request.length = 1
        request.owner = 5
    }

    /// Whether it waits.
    private func waits(_ handle: Int64, _ command: Command, at offset: Int64) -> Bool {
        volume.start(.lock) { fill(&$0, handle, command, 1, offset) } == nil
    }

    private func lock(_ handle: Int64, _ command: Command, _ type: UInt64 = 1, at offset: Int64 = 0, as session: SessionID? = nil) -> Completion {
        volume.run(.lock, as: session) { fill(&$0, handle, command, type, offset) }
    }

    private func open(as session: SessionID? = nil) -> Int64 { volume.run(.open, "/f", as: session) { $0.flags = 2 }.result }

    @Test func descriptionsOfOneProcessConflict() {
        let (a, b) = (open(), open())
        #expect(lock(a, .sets).result == 0)
        #expect(lock(a, .sets, 0).result == 0, "a lock of one's own can be changed")
        #expect(lock(b, .sets, 0).result == 0)
        #expect(lock(b, .sets).result == -11)
        #expect(lock(a, .process).result == -11, "and with the process's own")
        #expect(lock(a, .sets, 2).result == 0)
        #expect(lock(b, .sets).result == 0)
        #expect(lock(a, .process, at: 9).result == 0)
        #expect(lock(b, .sets, at: 9).result == -11)
    }

    @Test func whoHoldsItIsNoProcess() {
        let (a, b) = (open(), open())
        #expect(lock(a, .sets, at: 3).result == 0)
        for command in [Command.asks, .processAsks] {
            let held = lock(b, command, at: 3)
            #expect(held.result == Int64(UInt32.max) && held.info0 == 1 && held.info1 == 3 && held.info2 == 1)
        }
        #expect(lock(a, .asks, at: 3).info0 == 2, "free for its owner")
        #expect(lock(a, .asks, 2, at: 3).info0 == 1, "F_UNLCK asks for one's own")
        #expect(lock(b, .asks, 2, at: 3).info0 == 2)
        #expect(lock(b, .processAsks, 2, at: 3).result == -22)
    }

    @Test func itGoesWithItsDescriptionAndWithNothingElse() {
        let (a, b, c) = (open(), open(), open())
        #expect(lock(a, .sets).result == 0)
        #expect(lock(a, .process, at: 9).result == 0)
        #expect(volume.close(c) == 0)
        #expect(lock(b, .sets).result == -11, "a close of the process leaves it")
        #expect(lock(b, .sets, at: 9).result == 0, "but not the process's own")
        #expect(volume.close(a) == 0)
        #expect(lock(b, .sets).result == 0)
        // The next description may have the slot of the one that went.
        let d = open()
        #expect(lock(d, .sets).result == -11)
        #expect(volume.close(b) == 0)
        #expect(lock(d, .sets).result == 0)
        #expect(volume.close(d) == 0)
        #expect(volume.volume.occupancy.locks == 0)
    }

    @Test func itGoesWithItsSession() {
        let theirs = open(as: other)
        #expect(lock(theirs, .sets, as: other).result == 0)
        let mine = open()
        #expect(waits(mine, .waits, at: 0), "it waits")
        volume.volume.closeSession(other)
        #expect(volume.wait().result == 0)
        #expect(lock(mine, .sets, 2).result == 0)
        #expect(volume.close(mine) == 0)
        #expect(volume.volume.occupancy.locks == 0)
    }

    /// Linux looks for deadlocks among processes only.
    @Test func noDeadlockIsFoundAmongDescriptions() {
        let (a, b) = (open(), open())
        #expect(lock(a, .sets, at: 0).result == 0)
        #expect(lock(b, .sets, at: 1).result == 0)
        #expect(waits(a, .waits, at: 1))
        #expect(waits(b, .waits, at: 0), "it waits, for ever")
        #expect(waits(b, .processWaits, at: 0), "and so does a process behind a description")
        #expect(lock(b, .sets, 2, at: 1).result == 0)
        #expect(volume.wait().result == 0)
    }

    @Test func whatIsNotOpenForItIsRefused() {
        let reading = volume.run(.open, "/f") { $0.flags = 0 }.result
        #expect(lock(reading, .sets).result == -9)
        #expect(lock(reading, .sets, 0).result == 0)
        #expect(volume.run(.lock) { $0.handle = Int32(reading); $0.flags = 39; $0.offset = 0 }.result == -22)
        #expect(volume.run(.lock) { $0.handle = Int32(reading); $0.flags = 8; $0.offset = 0 }.result == -22)
    }
}
