/// Many requests under way at once, on a device that answers late and out of order: every request is answered once, and what results is a
/// file system that survives a remount as it was.
import BlockDevice
import TestSupport
import Testing
import Volume

/// A request with memory of its own.
@safe private final class Client {
    let path = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 8)
    let path2 = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 8)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 65_536, alignment: 8)
    var token: UInt64 = 0
    var handle: Int64 = -1
    var opcode = Opcode.null

    deinit {
        unsafe path.deallocate()
        unsafe path2.deallocate()
        unsafe buffer.deallocate()
    }

    func store(_ text: String, in memory: UnsafeMutableRawPointer) -> Int {
        for (at, byte) in text.utf8.enumerated() { unsafe memory.storeBytes(of: byte, toByteOffset: at, as: UInt8.self) }
        return text.utf8.count
    }
}

@Suite struct ConcurrentRequestsTests {
    private func next(_ client: Client, _ random: inout SeededRandom, _ session: SessionID) -> Request {
        func name() -> String { (random.chance(0.4) ? "/d\(random.below(3))" : "") + "/f\(random.below(6))" }
        var request = Request(.null, session: session)
        unsafe request.path = client.path
        unsafe request.path2 = client.path2
        unsafe request.buffer = client.buffer
        switch client.handle < 0 ? random.below(7) : random.below(14) {
        case 0, 1, 2:
            request.opcode = client.handle < 0 ? .open : .null
            request.flags = random.pick([0o102, 0o102, 0o1102, 2])
            request.mode = 0o644
            unsafe request.pathLength = client.store(name(), in: client.path)
        case 3:
            request.opcode = .unlink
            unsafe request.pathLength = client.store(name(), in: client.path)
        case 4:
            request.opcode = .mkdir
            request.mode = 0o755
            unsafe request.pathLength = client.store("/d\(random.below(3))", in: client.path)
        case 5, 6:
            request.opcode = .rename
            unsafe request.pathLength = client.store(name(), in: client.path)
            unsafe request.path2Length = client.store(name(), in: client.path2)
        case 7: request.opcode = .close
        case 8: request.opcode = .fsync
        case 9: request.opcode = .sync
        case 10, 11:
            request.opcode = .read
            request.offset = Int64(random.below(300_000))
            request.length = 65_536
            request.bufferLength = 65_536
        default:
            request.opcode = .write
            request.offset = Int64(random.below(300_000))
            request.bufferLength = random.below(65_536) + 1
            request.length = UInt64(request.bufferLength)
            unsafe client.buffer.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: random.next()), count: request.bufferLength)
        }
        if client.handle >= 0 { request.handle = request.pathLength > 0 ? Request.rootHandle : Int32(client.handle) }
        return request
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64]) func everyRequestIsAnsweredOnce(seed: UInt64) throws {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        let device = RecordingDevice(copying: empty, seed: seed, schedule: .init(shuffled: true, maximumDelay: 6)) {
            if seed % 2 == 0 { $0.atomicWriteUnit = 4096 }
        }
        var configuration = VolumeHarness.smallConfiguration(nonce: seed)
        if seed % 3 == 0 { configuration.treeFanout = 4 }
        let harness = try VolumeHarness(device, configuration: configuration)
        let volume = harness.volume
        var random = SeededRandom(seed: seed)
        let clients = (0..<12).map { _ in Client() }
        var waiting: [UInt64: Client] = [:]
        var token: UInt64 = 1_000_000
        var answered = 0
        func take(_ completion: Completion) {
            guard let client = waiting.removeValue(forKey: completion.token) else {
                Issue.record("seed \(seed): an answer to nobody, or a second one")
                return
            }
            answered += 1
            client.token = 0
            if client.opcode == .open && completion.result >= 0 { client.handle = completion.result }
            if client.opcode == .close { client.handle = -1 }
            let isFine = completion.result >= 0 || [-2, -17, -20, -21, -22, -39, -9, -28, -4].contains(completion.result)
            #expect(isFine, "seed \(seed): \(client.opcode) \(completion.result) \(volume.takeNotes())")
        }
        func poll() {
            harness.monotonic += 20_000_000
            volume.clock = .init(wall: harness.wall, monotonic: harness.monotonic)
            volume.poll()
            while let completion = volume.nextCompletion() { take(completion) }
        }
        for _ in 0..<3000 {
            if let client = clients.first(where: { $0.token == 0 }), random.chance(0.7) {
                var request = next(client, &random, harness.session)
                token += 1
                request.token = token
                client.token = token
                client.opcode = request.opcode
                waiting[token] = client
                if let completion = volume.submit(request) { take(completion) }
                if random.chance(0.02), let victim = waiting.keys.min() { volume.cancel(session: harness.session, token: victim) }
            } else {
                poll()
            }
        }
        var polls = 0
        while !waiting.isEmpty && polls < 100_000 {
            poll()
            polls += 1
        }
        #expect(waiting.isEmpty, "seed \(seed): \(waiting.count) never answered: \(volume.unfinished)")
        guard waiting.isEmpty else { return }
        #expect(answered > 800, "seed \(seed)")
        #expect(device.violations.isEmpty, "seed \(seed): \(device.violations.count) violations")
        for client in clients where client.handle >= 0 { _ = harness.close(client.handle) }
        let (names, files) = harness.tree()
        let contents = files.map { harness.content($0.path, $0.size) }
        harness.unmount()
        let notes = volume.takeNotes()
        #expect(notes.isEmpty, "seed \(seed): \(notes)")
        let again = try VolumeHarness(device, configuration: configuration)
        let (namesAgain, filesAgain) = again.tree()
        #expect(namesAgain == names, "seed \(seed): \(VolumeHarness.firstDifference(namesAgain, names))")
        for (number, file) in filesAgain.enumerated() where number < contents.count {
            let same = file.size == files[number].size && again.content(file.path, file.size) == contents[number]
            #expect(same, "seed \(seed): \(file.path)")
        }
    }

    @Test func longWorkGivesOthersTheirTurn() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 4096
        let harness = try VolumeHarness(device, configuration: configuration)
        let length = 6 << 20
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 8)
        defer { unsafe buffer.deallocate() }
        for at in stride(from: 0, to: length, by: 8) { unsafe buffer.storeBytes(of: UInt64(at), toByteOffset: at, as: UInt64.self) }
        let handle = Int32(harness.open("/long", 0o102))
        func transfer(_ opcode: Opcode) -> Completion? {
            harness.start(opcode) {
                $0.handle = handle
                $0.offset = 0
                unsafe $0.buffer = buffer
                $0.bufferLength = length
            }
        }
        #expect((transfer(.write) ?? harness.wait()).result == Int64(length))
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: length)
        // Everything is in the cache, so nothing but its length keeps the read from being answered at once.
        #expect(transfer(.read) == nil)
        let status = UnsafeMutableRawPointer.allocate(byteCount: 144, alignment: 8)
        defer { unsafe status.deallocate() }
        let between = harness.start(.getattr, "/long") {
            unsafe $0.buffer = status
            $0.bufferLength = 144
        }
        #expect(between?.result == 0)
        #expect(harness.volume.hasPendingWork)
        #expect(harness.wait().result == Int64(length))
        for at in stride(from: 0, to: length, by: 8) where unsafe buffer.load(fromByteOffset: at, as: UInt64.self) != UInt64(at) {
            Issue.record("byte \(at) differs")
            return
        }
    }
}
