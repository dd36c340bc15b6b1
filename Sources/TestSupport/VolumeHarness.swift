/// A mounted volume and one session on it, driven request by request until each is answered: what tests of the volume talk to.
///
/// Time stands still unless a test moves it; the device is polled until the answer is there, and a request that never comes back is a
/// failure with a message, not a hang.
import BlockDevice
import Volume

@safe package final class VolumeHarness {
    package let device: any BlockDevice
    package let volume: Volume
    package private(set) var session: SessionID
    /// What outlives a server.
    package let memory: UnsafeMutableRawBufferPointer
    private let ownsMemory: Bool
    private let path: UnsafeMutableRawPointer
    private let path2: UnsafeMutableRawPointer
    private var nextToken: UInt64 = 1
    /// How the last `list` ended; 0: well.
    package private(set) var listError: Int64 = 0
    /// What never comes to its end is counted, and the test goes on: with planted bugs, and on hostile images.
    package var mayHang: Bool
    package private(set) var unanswered = 0
    /// What the volume said of the last of them.
    package private(set) var unfinished = ""
    /// Polls after which a request counts as never answered.
    package var patience = 200_000
    /// What was asked for while misses were being forced.
    package private(set) var forced: Set<Opcode> = []
    package var wall: Int64 = 1_000_000_000_000_000_000
    package var monotonic: UInt64 = 1

    /// Small on purpose: the cache evicts, the journal wraps.
    package static func smallConfiguration(nonce: UInt64 = 7) -> Volume.Configuration {
        var configuration = Volume.Configuration()
        configuration.cacheFrames = 64
        configuration.coreInodes = 256
        configuration.descriptions = 256
        configuration.locks = 256
        configuration.smallestDiscard = 1
        configuration.nonce = nonce
        configuration.fileMemory = PlainFileMemory.make
        return configuration
    }

    /// Four groups of 8 MiB and the smallest journal.
    package static func format(_ device: any BlockDevice, blocksPerGroup: Int = 2048, journalBlocks: UInt64 = 256, inodes: UInt64? = nil) throws {
        let queue = try device.makeQueue(depth: 64)
        var options = FormatOptions(uuid: (0x1122_3344_5566_7788, 42), hashKey: (3, 4), time: 1_000_000_000_000_000_000)
        options.blocksPerGroup = blocksPerGroup
        options.journalBlocks = journalBlocks
        options.inodes = inodes
        try Volume.format(queue, blockCount: device.capabilities.blockCount, options: options)
    }

    package static let smallSize: UInt64 = (256 + 4 * 2048 + 2) * 4096

    /// - Parameters:
    ///   - adopting: memory of a harness that is gone, and its session: goes on with a copy of it instead of mounting.
    ///   - shared: memory to be used, which outlives this object.
    package init(
        _ device: any BlockDevice, configuration: Volume.Configuration = VolumeHarness.smallConfiguration(),
        credentials: Credentials = Credentials(user: 0, group: 0), adopting: (memory: [UInt8], session: SessionID)? = nil,
        shared: MappedMemory? = nil
    ) throws {
        self.device = device
        mayHang = configuration.plantedBug != .none
        let queue = try device.makeQueue(depth: 128)
        let size = try Volume.memorySize(queue, device.capabilities, configuration: configuration)
        ownsMemory = shared == nil
        unsafe memory = shared?.bytes ?? .allocate(byteCount: size, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
        unsafe path = .allocate(byteCount: 4096, alignment: 8)
        unsafe path2 = .allocate(byteCount: 4096, alignment: 8)
        do {
            guard let base = unsafe memory.baseAddress else { throw VolumeError(errno: 12, "no memory") }
            if let adopting {
                unsafe memory.copyBytes(from: adopting.memory)
                unsafe volume = try Volume.adopt(
                    queue, device.capabilities, memory: base, configuration: configuration, clock: .init(wall: wall, monotonic: monotonic))
                volume.restoreSession(adopting.session, credentials)
                session = adopting.session
                return
            }
            unsafe volume = try Volume.mount(
                queue, device.capabilities, memory: base, configuration: configuration, clock: .init(wall: wall, monotonic: monotonic))
        } catch {
            if ownsMemory { unsafe memory.deallocate() }
            unsafe path.deallocate()
            unsafe path2.deallocate()
            throw error
        }
        guard let session = volume.openSession(credentials) else { throw VolumeError(errno: 23, "no session") }
        self.session = session
    }

    deinit {
        if ownsMemory { unsafe memory.deallocate() }
        unsafe path.deallocate()
        unsafe path2.deallocate()
    }

    /// Says what the request would be; `run` answers it.
    package func run(
        _ opcode: Opcode, _ name: String? = nil, _ name2: String? = nil, as other: SessionID? = nil,
        _ change: (inout Request) -> Void = { _ in }
    ) -> Completion {
        guard let completion = start(opcode, name, name2, as: other, change) else { return wait() }
        return completion
    }

    /// nil: parked.
    package func start(
        _ opcode: Opcode, _ name: String? = nil, _ name2: String? = nil, as other: SessionID? = nil, _ change: (inout Request) -> Void = { _ in }
    ) -> Completion? {
        var request = Request(opcode, session: other ?? session)
        if let name { request.pathLength = unsafe VolumeHarness.store(name, in: path) }
        if let name2 { request.path2Length = unsafe VolumeHarness.store(name2, in: path2) }
        unsafe request.path = path
        unsafe request.path2 = path2
        request.token = nextToken
        nextToken += 1
        change(&request)
        if volume.forceMissAt >= 0 { forced.insert(opcode) }
        volume.clock = .init(wall: wall, monotonic: monotonic)
        return volume.submit(request)
    }

    /// Polls until a parked request is answered.
    package func wait() -> Completion {
        for _ in 0..<patience {
            volume.poll()
            if let completion = volume.nextCompletion() { return completion }
        }
        unanswered += 1
        unfinished = volume.unfinished
        if mayHang { return Completion(token: 0, result: -1000) }
        fatalError("a request is never answered: \(volume.unfinished); notes: \(volume.takeNotes())")
    }

    /// Lets the volume work on what it has of its own.
    package func settle(polls: Int = 200) {
        for _ in 0..<polls { volume.poll() }
    }

    package func unmount() {
        for _ in 0..<patience where volume.shutdown() { return }
        unanswered += 1
        if mayHang { return }
        fatalError("the volume does not come to its end: \(volume.unfinished); notes: \(volume.takeNotes())")
    }

    private static func store(_ name: String, in memory: UnsafeMutableRawPointer) -> Int {
        var at = 0
        for byte in name.utf8.prefix(4096) {
            unsafe memory.storeBytes(of: byte, toByteOffset: at, as: UInt8.self)
            at += 1
        }
        return at
    }

    /// mmap of an open file, and its memory as the program's: nil where the answer is an errno.
    package func map(_ handle: Int64, shared: Bool = true, write: Bool = true, offset: Int64 = 0, length: UInt64 = 1 << 30) -> (result: Int64, memory: PlainFileMemory?) {
        let answer = run(.map) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.offset = offset
            $0.length = length
            $0.flags = (shared ? 1 : 0) | (write ? 2 : 0)
        }
        guard answer.result == 0 else { return (answer.result, nil) }
        let memory = volume.takeMap(session, inode: answer.info0)?.memory as? PlainFileMemory
        memory?.isHeldByOthers = true
        return (0, memory)
    }

    // MARK: What most tests say

    package func open(_ name: String, _ flags: UInt32 = 0, mode: UInt32 = 0o644) -> Int64 {
        run(.open, name) {
            $0.flags = flags
            $0.mode = mode
        }.result
    }

    package func close(_ handle: Int64) -> Int64 { run(.close) { $0.handle = Int32(truncatingIfNeeded: handle) }.result }

    package func write(_ handle: Int64, _ bytes: [UInt8], at offset: Int64 = -1) -> Int64 {
        let aligned = AlignedBytes(bytes.isEmpty ? [0] : bytes)
        return (startWrite(handle, aligned, count: bytes.count, at: offset) ?? wait()).result
    }

    /// nil: parked; `bytes` may be read until its answer has come.
    package func startWrite(_ handle: Int64, _ bytes: AlignedBytes, count: Int? = nil, at offset: Int64) -> Completion? {
        startTransfer(.write, handle, bytes, count, offset)
    }

    private func startTransfer(_ opcode: Opcode, _ handle: Int64, _ bytes: AlignedBytes, _ count: Int?, _ offset: Int64) -> Completion? {
        start(opcode) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.offset = offset
            $0.bufferLength = count ?? bytes.count
            $0.length = UInt64($0.bufferLength)
            unsafe $0.buffer = bytes.buffer.baseAddress
        }
    }

    /// The answer of a write that does not park; nil where it does.
    package func startWrite(_ handle: Int64, _ bytes: [UInt8], at offset: Int64) -> Int64? {
        var bytes = bytes
        let count = bytes.count
        return unsafe bytes.withUnsafeMutableBytes { raw in
            start(.write) {
                $0.handle = Int32(truncatingIfNeeded: handle)
                $0.offset = offset
                $0.length = UInt64(count)
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = count
            }?.result
        }
    }

    package func read(_ handle: Int64, _ count: Int, at offset: Int64 = -1) -> (result: Int64, bytes: [UInt8]) {
        let bytes = AlignedBytes(count: max(count, 1), repeating: 0xEE)
        let result = (startRead(handle, into: bytes, count: count, at: offset) ?? wait()).result
        return (result, Array(bytes.array.prefix(Int(max(0, result)))))
    }

    /// nil: parked; `bytes` may be written until its answer has come.
    package func startRead(_ handle: Int64, into bytes: AlignedBytes, count: Int? = nil, at offset: Int64) -> Completion? {
        startTransfer(.read, handle, bytes, count, offset)
    }

    package struct Status: Equatable {
        package var inode: UInt64
        package var links: UInt64
        package var mode: UInt32
        package var user: UInt32
        package var group: UInt32
        package var size: Int64
        package var blocks: Int64
    }

    package func status(_ name: String, follow: Bool = true) -> (result: Int64, status: Status) {
        var buffer = [UInt64](repeating: 0, count: Volume.statusSize / 8)
        let result = unsafe buffer.withUnsafeMutableBytes { raw in
            run(.getattr, name) {
                $0.flags = follow ? 0 : 0x100
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = Volume.statusSize
            }.result
        }
        return (
            result,
            Status(
                inode: buffer[1], links: buffer[2], mode: UInt32(truncatingIfNeeded: buffer[3]), user: UInt32(buffer[3] >> 32),
                group: UInt32(truncatingIfNeeded: buffer[4]), size: Int64(bitPattern: buffer[6]), blocks: Int64(bitPattern: buffer[8]))
        )
    }

    /// Names and inode numbers, without `.` and `..`, sorted by name.
    package func list(_ name: String) -> [(name: String, inode: UInt64)] {
        listError = 0
        let handle = open(name, 0o200000)
        guard handle >= 0 else {
            listError = handle
            return []
        }
        defer { _ = close(handle) }
        var found: [(name: String, inode: UInt64)] = []
        while true {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = unsafe buffer.withUnsafeMutableBytes { raw in
                run(.readdir) {
                    $0.handle = Int32(handle)
                    unsafe $0.buffer = raw.baseAddress
                    $0.bufferLength = 4096
                }.result
            }
            listError = min(count, 0)
            if count <= 0 { break }
            if mayHang && found.count > 100_000 {
                unanswered += 1
                break
            }
            var at = 0
            while at < Int(count) {
                let inode = (0..<8).reduce(UInt64(0)) { $0 | UInt64(buffer[at + $1]) << UInt64(8 * $1) }
                let length = Int(buffer[at + 16]) | Int(buffer[at + 17]) << 8
                let text = buffer[(at + 19)..<(at + length)].prefix { $0 != 0 }
                let entry = String(decoding: text, as: UTF8.self)
                if entry != "." && entry != ".." { found.append((entry, inode)) }
                at += length
            }
        }
        return found.sorted { $0.name < $1.name }
    }

    /// Where an open directory is, or the negated errno as a text.
    package func handlePath(_ handle: Int64, room: Int = 4096) -> String {
        var buffer = [UInt8](repeating: 0xEE, count: room)
        let count = unsafe buffer.withUnsafeMutableBytes { raw in
            run(.handlePath) {
                $0.handle = Int32(truncatingIfNeeded: handle)
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = room
            }.result
        }
        return count < 0 ? "\(count)" : String(decoding: buffer.prefix(Int(count)), as: UTF8.self)
    }

    package func fsync(_ handle: Int64, dataOnly: Bool = false) -> Int64 {
        run(.fsync) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.flags = dataOnly ? 1 : 0
        }.result
    }
}
