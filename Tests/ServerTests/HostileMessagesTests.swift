import BlockDevice
import CSystem
import Client
import Foundation
import Server
import Synchronization
import Testing
import TestSupport
import Volume
import Wire

/// Millions of requests that no honest client sends, and what must stay true all the while: no trap, every check found something, a bystander reads what it wrote,
/// nothing of the hostile sessions stays, and the volume is sound.
///
/// Client and worker are stepped in one thread. A seed reproduces the first half of a run; in the second half another thread changes the slots and the paths all the time.
@Suite(.serialized) struct HostileMessagesTests {
    /// A run; `DASHFS_HOSTILE_MESSAGES` asks for a longer one.
    static let messages = ProcessInfo.processInfo.environment["DASHFS_HOSTILE_MESSAGES"].flatMap { Int($0) } ?? 5_000_000

    @Test(arguments: [false, true])
    func aMillionImpossibleRequestsHarmNobody(scribbling: Bool) throws {
        let seed: UInt64 = scribbling ? 77 : 20_261_125
        let count = HostileMessagesTests.messages / 2
        let served = try ServedVolume(running: false, cacheFrames: 256)
        var bystander = try Bystander(served)
        var client = HostileClient(seed: seed)
        let scribbler = scribbling ? SlotScribbler(seed: seed) : nil
        while client.messages < count {
            try client.connect(served)
            scribbler?.aim(client.channel)
            while client.messages < count, client.sendSome(served) {
                if client.messages % 1024 < 16 { try bystander.look(served) }
            }
            scribbler?.aim(nil)
            client.disconnect()
            served.server.step(control: true)
        }
        scribbler?.end()
        for _ in 0..<8 { try bystander.look(served) }
        let counts = served.server.violationCounts
        print("seed \(seed), scribbling \(scribbling): \(client.messages) requests in \(client.sessions) sessions, \(client.answers) answered, \(client.errors) with an errno")
        print("violations: \(counts.map { "\($0.name) \($0.count)" }.joined(separator: ", "))")
        print("the bystander waited at most \(bystander.longestWait) rounds")
        for (name, count) in counts { #expect(count > 0, "\(name) was never hit") }
        #expect(client.answers > count / 2)
        #expect(bystander.longestWait < 1000)
        bystander.leave(served)
        served.stop()
        served.expectNothingLeft()
        let memory = served.memoryVolume
        let findings = VolumeChecker(memory.queue, memory.device.capabilities).run()
        #expect(findings.isEmpty, "seed \(seed): \(findings.prefix(5))")
    }
}

/// A client that reads and writes a file of its own, in the same thread as the server.
struct Bystander {
    private let session: Session
    private let channel: Channel
    private let handle: Int32
    private var content = [UInt8](repeating: 0, count: 48 << 10)
    private var generation: UInt8 = 0
    private(set) var longestWait = 0

    init(_ served: ServedVolume) throws {
        session = try served.connectStepping()
        channel = try #require(session.acquire())
        let channel = self.channel
        let tag = try #require(channel.reserve())
        var request = WireRequest(.open)
        request.tag = tag
        (request.flags, request.mode) = (0o102, 0o600)
        unsafe Array("/bystander".utf8).withUnsafeBytes { unsafe channel.put(Place(PathBytes($0)), into: &request) }
        channel.submit(request)
        while !channel.isComplete(tag) { served.server.step() }
        handle = Int32(channel.take(tag).result)
        #expect(handle >= 0)
        try write(served)
    }

    /// Reads everything and compares; now and then writes it anew.
    mutating func look(_ served: ServedVolume) throws {
        let result = try transfer(served, .read)
        #expect(result == Int64(content.count))
        let same = unsafe content.withUnsafeBytes { unsafe memcmp($0.baseAddress!, channel.dataArea, content.count) == 0 }
        #expect(same, "the bystander's file has changed")
        if generation % 4 == 0 { try write(served) } else { generation &+= 1 }
    }

    private mutating func write(_ served: ServedVolume) throws {
        generation &+= 1
        for index in content.indices { content[index] = UInt8(truncatingIfNeeded: index &* 31) &+ generation }
        unsafe content.withUnsafeBytes { unsafe dashfs_copy(channel.dataArea, $0.baseAddress!, $0.count) }
        #expect(try transfer(served, .write) == Int64(content.count))
    }

    private mutating func transfer(_ served: ServedVolume, _ opcode: WireOpcode) throws -> Int64 {
        let tag = try #require(channel.reserve())
        var request = WireRequest(opcode)
        request.tag = tag
        request.handle = handle
        request.offset = 0
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = UInt32(content.count)
        channel.submit(request)
        var rounds = 0
        while !channel.isComplete(tag) {
            served.server.step()
            rounds += 1
        }
        longestWait = max(longestWait, rounds)
        return channel.take(tag).result
    }

    func leave(_ served: ServedVolume) {
        session.release(channel)
        session.disconnect()
        served.server.step(control: true)
    }
}

/// Makes requests that are right in most fields and wrong in some.
struct HostileClient {
    private var random: SplitMix
    private var session: Session?
    private(set) var channel: Channel?
    /// Bit n: the request with tag n has not been answered.
    private var waiting: UInt64 = 0
    private var sequenceOfTag = [UInt32](repeating: 0, count: 64)
    private var isOpen = [Bool](repeating: false, count: 64)
    private var handles: [Int32] = []
    private(set) var messages = 0
    private(set) var sessions = 0
    private(set) var answers = 0
    private(set) var errors = 0

    init(seed: UInt64) { random = SplitMix(state: seed) }

    mutating func connect(_ served: ServedVolume) throws {
        let session = try served.connectStepping(prefix: sessions % 2 == 0 ? "/dash" : "")
        self.session = session
        channel = session.acquire()
        sessions += 1
        waiting = 0
        handles = []
        guard let channel else { throw ErrorCode(number: 1) }
        // Where a path is made longer it goes on with letters, not with a NUL.
        unsafe _ = memset(channel.pathArea(0), Int32(UInt8(ascii: "p")), Layout.pathAreaBytes)
    }

    mutating func disconnect() {
        guard let session, let channel else { return }
        session.release(channel)
        session.disconnect()
        self.session = nil
        self.channel = nil
    }

    /// A few requests at once, one step of the server, and what was answered. False: the server ended the session.
    mutating func sendSome(_ served: ServedVolume) -> Bool {
        guard let channel else { return false }
        for _ in 0...below(8) {
            if waiting == .max { break }
            send(channel)
        }
        served.server.step()
        if below(4) == 0 { served.server.step() }
        if unsafe dashfs_load32(channel.completionSegment.baseAddress! + Layout.stateWord) == ServerState.closed { return false }
        collect(channel)
        // Too much waits for ever (locks): leave it to the end of a session to let it go.
        return waiting.nonzeroBitCount < 56 && below(20_000) != 0
    }

    private mutating func collect(_ channel: Channel) {
        var left = waiting
        while left != 0 {
            let tag = left.trailingZeroBitCount
            left &= left &- 1
            let line = unsafe channel.completionSegment.baseAddress! + Layout.completions + tag * Layout.completionBytes
            guard unsafe dashfs_load32_acquire(line) == sequenceOfTag[tag] else { continue }
            waiting &= ~(1 << UInt64(tag))
            answers += 1
            let result = unsafe WireCompletion(line: line).result
            if result < 0 { errors += 1 }
            if result >= 0, isOpen[tag], handles.count < 64 { handles.append(Int32(result)) }
        }
    }

    // MARK: A request

    private mutating func send(_ channel: Channel) {
        let opcode = WireOpcode.allCases[Int(below(UInt64(WireOpcode.count)))]
        // As no two requests under way may have a tag, unless that is what is tried.
        var tag = UInt8(below(64))
        while waiting & 1 << UInt64(tag) != 0 { tag = (tag + 1) & 63 }
        var request = valid(opcode, tag, channel)
        var secondLine = true
        for _ in 0..<(below(3) == 0 ? 1 + below(3) : 0) { mutate(&request) }
        if below(2000) == 0 { violate(&request, channel) }
        // The tag of one that still waits.
        if waiting != 0, below(2000) == 0 { request.tag = UInt8(waiting.trailingZeroBitCount) }
        if opcode.usesSecondLine, below(64) == 0 { secondLine = false }
        messages += 1
        waiting |= 1 << UInt64(tag)
        sequenceOfTag[Int(tag)] = channel.nextSequence
        isOpen[Int(tag)] = opcode == .open
        let slot = Layout.slots + Int(channel.nextSequence % Layout.slotCount) * Layout.slotBytes
        let base = unsafe channel.requestSegment.baseAddress!
        channel.submit(request, secondLine: secondLine)
        if below(20_000) == 0 {
            let word = unsafe dashfs_load64(base + slot)
            unsafe dashfs_store64(base + slot, below(2) == 0 ? word | 1 << (48 + below(16)) : word &+ 1 + below(60))
        }
    }

    private mutating func valid(_ opcode: WireOpcode, _ tag: UInt8, _ channel: Channel) -> WireRequest {
        var request = WireRequest(opcode)
        request.tag = tag
        request.offset = Int64(below(1 << 16))
        request.offset2 = Int64(below(1 << 16))
        request.length = below(1 << 16)
        request.bufferOffset = Channel.dataOffset &+ UInt32(below(1 << 18))
        request.bufferLength = UInt32(144 + below(below(256) == 0 ? 700_000 : 8192))
        request.handle = handle()
        request.handle2 = handle()
        if below(3) == 0 { request.offset = -1 }
        switch opcode {
        case .open:
            request.flags = [0, 1, 2, 0o102, 0o101, 0o1102, 0o302, 0o2102, 0o200000, 0o20200002, 0o10000000, 0o4010102][Int(below(12))]
            request.mode = UInt32(below(0o10000))
            path(&request, channel)
        case .mkdir, .unlink, .rmdir, .access, .readlink, .mknod, .getattr, .setattr, .statfs:
            request.mode = opcode == .mknod ? UInt32(below(16) << 12 | 0o644) : UInt32(below(8))
            request.attributeMask = UInt32(below(256))
            request.length = below(1 << 20)
            if below(4) != 0 { path(&request, channel) }
        case .symlink, .link, .rename:
            path(&request, channel)
            path2(&request, channel)
            request.flags = [0, 0, 0, 1, 2, 0x400, 0x1000][Int(below(7))]
        case .getxattr, .setxattr, .listxattr, .removexattr:
            if below(4) != 0 { path(&request, channel) }
            name(&request, channel)
            request.bufferLength = UInt32(below(4096))
        case .lock:
            request.flags = UInt32(5 + below(3))
            request.argument = below(3)
            request.owner = UInt32(below(4))
            request.length = below(64)
        case .flock: request.flags = [1, 2, 8, 5, 6][Int(below(5))]
        case .seek: request.flags = UInt32(below(5))
        case .fallocate: request.flags = [0, 1, 3, 16, 17][Int(below(5))]
        case .setflags: request.flags = below(2) == 0 ? .max : UInt32(below(1 << 22))
        case .cancel: request.argument = below(64)
        case .copyRange: request.flags = 0
        case .map:
            request.flags = UInt32(below(5))
            request.argument = below(80)
        case .syncMap: request.argument = below(80)
        case .null, .close, .read, .write, .fsync, .sync, .readdir, .handlePath: break
        }
        // Closing everything all the time would leave nothing to try, and syncing no time.
        if opcode == .close && below(4) != 0 { request.handle = -1 }
        if (opcode == .sync || opcode == .fsync || opcode == .syncMap) && below(8) != 0 { request.opcode = WireOpcode.null.rawValue }
        return request
    }

    private mutating func mutate(_ request: inout WireRequest) {
        switch below(19) {
        case 0: request.handle = Int32(truncatingIfNeeded: wide())
        case 1: request.handle2 = Int32(truncatingIfNeeded: wide())
        case 2: request.flags = UInt32(truncatingIfNeeded: wide())
        case 3: request.offset = wide()
        case 4: request.offset2 = wide()
        case 5: request.length = UInt64(bitPattern: wide())
        case 6: request.bufferLength = UInt32(truncatingIfNeeded: wide()) & 0x7FFFF
        case 7: request.bufferOffset = UInt32(truncatingIfNeeded: wide()) & 0x7FFFF
        case 8: request.pathLength = UInt16(below(4096))
        case 9: request.path2Length = UInt16(below(4096))
        case 10: request.mode = UInt32(truncatingIfNeeded: wide())
        case 11: request.attributeMask = UInt32(below(256))
        case 12: request.argument = UInt64(bitPattern: wide())
        case 13: request.owner = UInt32(truncatingIfNeeded: wide())
        case 14: request.attributeOwner = UInt32(truncatingIfNeeded: wide())
        case 15: request.attributeGroup = UInt32(truncatingIfNeeded: wide())
        case 16: request.accessSeconds = wide()
        case 17: request.modificationSeconds = wide()
        default:
            request.accessNanoseconds = UInt32(truncatingIfNeeded: wide())
            request.modificationNanoseconds = UInt32(truncatingIfNeeded: wide())
        }
    }

    /// What the server answers by ending the session.
    private mutating func violate(_ request: inout WireRequest, _ channel: Channel) {
        let arena = UInt32(Layout.defaultArenaBytes)
        switch below(11) {
        case 0: request.opcode = UInt8(below(UInt64(256 - WireOpcode.count))) + UInt8(WireOpcode.count)
        case 1: request.tag = UInt8(64 + below(192))
        case 2:
            request.pathLength = 9
            request.path2Length = below(2) == 0 ? 9 : 0
            unsafe channel.requestSegment.storeBytes(of: 0, toByteOffset: Layout.arena + Int(below(2) == 0 ? request.pathOffset : request.path2Offset) + 4, as: UInt8.self)
        case 3: (request.pathOffset, request.pathLength) = (arena - UInt32(below(4096)), 1)
        case 4: (request.pathOffset, request.pathLength) = (UInt32.max - UInt32(below(9000)), 9)
        case 5: (request.pathOffset, request.pathLength) = (0, UInt16(4096 + below(61440)))
        case 6: (request.path2Offset, request.path2Length) = (UInt32(truncatingIfNeeded: random.next()) | arena, 8)
        case 7: request.path2Length = UInt16(4096 + below(61440))
        case 8: (request.bufferOffset, request.bufferLength) = (UInt32(truncatingIfNeeded: random.next()), arena - UInt32(below(64)))
        case 9: (request.opcode, request.bufferLength) = (WireOpcode.getattr.rawValue, UInt32(below(144)))
        default: (request.opcode, request.attributeMask) = (WireOpcode.setattr.rawValue, 256 << UInt32(below(24)))
        }
    }

    // MARK: Values

    private mutating func below(_ limit: UInt64) -> UInt64 { random.next() % limit }

    private mutating func handle() -> Int32 {
        if !handles.isEmpty, below(16) != 0 { return handles[Int(below(UInt64(handles.count)))] }
        return below(2) == 0 ? WireRequest.rootHandle : Int32(below(64))
    }

    /// Numbers at which arithmetic goes wrong.
    private mutating func wide() -> Int64 {
        let edges: [Int64] = [
            0, 1, -1, -2, 7, 255, 4095, 4096, 4097, 65535, 1 << 20, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 51, 1 << 62, 1_000_000_000, .max, .max - 1,
            .max - 4095, .max - 4096, .max - 65536, .min, .min + 1, -100,
        ]
        switch below(4) {
        case 0: return Int64(bitPattern: random.next())
        case 1: return Int64(below(1 << 16))
        default: return edges[Int(below(UInt64(edges.count)))] &+ (below(4) == 0 ? Int64(below(3)) - 1 : 0)
        }
    }

    private static let paths: [[UInt8]] =
        [
            "/", "//", ".", "..", "/.", "/..", "/a", "/b", "/c", "/d", "/d/a", "/d/b", "/d/e", "/d/e/f", "/d/../a", "/d/./e/", "/link", "/loop", "/d/link/a", "a", "b/",
            "/away", "/d/e/f/g/../../../b", "...", "/dash/a", "../dash", "/missing/x", "/ ", "\u{7f}",
        ].map { Array($0.utf8) } + [
            [UInt8](repeating: UInt8(ascii: "n"), count: 255), [UInt8](repeating: UInt8(ascii: "n"), count: 256),
            Array(String(repeating: "d/../", count: 819).utf8), [UInt8](repeating: UInt8(ascii: "/"), count: 4095), [0xFF, 0xFE, 0x2F, 0x80],
        ]

    private mutating func put(_ bytes: [UInt8], _ area: UnsafeMutableRawPointer) -> UInt16 {
        unsafe bytes.withUnsafeBytes { unsafe dashfs_copy(area, $0.baseAddress!, $0.count) }
        return UInt16(bytes.count)
    }

    private mutating func path(_ request: inout WireRequest, _ channel: Channel) {
        request.pathOffset = channel.pathOffset(request.tag)
        let bytes = HostileClient.paths[Int(below(UInt64(HostileClient.paths.count)))]
        request.pathLength = unsafe put(bytes, channel.pathArea(request.tag))
    }

    private mutating func path2(_ request: inout WireRequest, _ channel: Channel) {
        request.path2Offset = channel.pathOffset(request.tag, second: true)
        let bytes = HostileClient.paths[Int(below(UInt64(HostileClient.paths.count)))]
        request.path2Length = unsafe put(bytes, channel.pathArea(request.tag, second: true))
    }

    private mutating func name(_ request: inout WireRequest, _ channel: Channel) {
        request.path2Offset = channel.pathOffset(request.tag, second: true)
        let names = ["user.a", "user.b", "user.", "trusted.t", "security.s", "system.x", "", "user." + String(repeating: "x", count: Int(below(300)))]
        let bytes = Array(names[Int(below(8))].utf8)
        request.path2Length = bytes.isEmpty ? 0 : unsafe put(bytes, channel.pathArea(request.tag, second: true))
    }
}

/// A thread that changes slots and paths of a segment for as long as it is aimed at one.
final class SlotScribbler: Sendable {
    @safe private struct Target: @unchecked Sendable { var segment: UnsafeMutableRawPointer }
    private let target = Mutex<Target?>(nil)
    private let ended = Atomic<Bool>(false)
    private let done = DispatchSemaphore(value: 0)

    init(seed: UInt64) {
        Thread.detachNewThread { [self] in
            var random = SplitMix(state: seed ^ 0xABCDEF)
            while !ended.load(ordering: .relaxed) {
                target.withLock { target in
                    guard let target else { return }
                    for _ in 0..<256 { SlotScribbler.scribble(target, &random) }
                }
            }
            done.signal()
        }
    }

    private static func scribble(_ target: Target, _ random: inout SplitMix) {
        if random.next() % 4 == 0 {
            // Paths: a byte that ends, parts or lengthens them.
            let place = Layout.arena + Int(random.next() % 64) * 8192 + Int(random.next() % 40)
            let byte = [UInt8(ascii: "/"), UInt8(ascii: "."), 0, UInt8(ascii: "a")][Int(random.next() % (random.next() % 512 == 0 ? 4 : 2))]
            unsafe target.segment.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
            return
        }
        // Not the words in which nearly every change ends the session; those the client spoils itself.
        let word = [1, 2, 3, 7, 8, 9, 11, 12, 13, 14][Int(random.next() % 10)]
        let place = Layout.slots + Int(random.next() % 64) * Layout.slotBytes + word * 8
        let value = word == 7 ? random.next() & 0xFF_0000_0FFF : random.next() % 3 == 0 ? random.next() : random.next() % 4096
        unsafe dashfs_store64(target.segment + place, value)
    }

    /// nil: at nothing; its memory may go.
    func aim(_ channel: Channel?) {
        let aimed = channel.flatMap { unsafe $0.requestSegment.baseAddress.map { unsafe Target(segment: $0) } }
        target.withLock { $0 = aimed }
    }

    func end() {
        ended.store(true, ordering: .relaxed)
        done.wait()
    }
}
