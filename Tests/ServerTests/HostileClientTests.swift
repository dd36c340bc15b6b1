import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

/// What a client writes that FS Lib never writes: it ends that session, it is counted under its own name, and nobody else notices.
@Suite struct HostileClientTests {
    /// One wrong request for each check, made from a right one.
    static let wrong: [(check: String, spoil: @Sendable (inout WireRequest) -> Void)] = [
        ("opcode", { $0.opcode = UInt8(WireOpcode.count) }),
        ("opcode", { $0.opcode = 255 }),
        ("tag", { $0.tag = 64 }),
        ("tag", { $0.tag = 255 }),
        ("pathOffset", { $0.pathOffset = UInt32(Layout.defaultArenaBytes - Layout.pathCapacity + 1); $0.pathLength = 1 }),
        ("pathOffset", { $0.pathOffset = .max; $0.pathLength = 4095 }),
        ("pathLength", { $0.pathLength = 4096 }),
        ("pathLength", { $0.pathLength = .max }),
        ("pathByte", { $0.pathLength = 2000 }),
        ("path2Offset", { $0.path2Offset = UInt32(Layout.defaultArenaBytes); $0.path2Length = 1 }),
        ("path2Length", { $0.path2Length = 4096 }),
        ("path2Byte", { $0.path2Length = 5 }),
        ("bufferRange", { $0.bufferOffset = .max; $0.bufferLength = .max }),
        ("bufferRange", { $0.bufferOffset = UInt32(Layout.defaultArenaBytes); $0.bufferLength = 1 }),
        ("bufferRange", { $0.bufferOffset = 1; $0.bufferLength = UInt32(Layout.defaultArenaBytes) }),
        ("bufferTooSmall", { $0.opcode = WireOpcode.getattr.rawValue; $0.bufferLength = 143 }),
        ("attributeMask", { $0.opcode = WireOpcode.setattr.rawValue; $0.attributeMask = 256 }),
    ]

    @Test func eachCheckIsHitByARequestThatOnlyItCatches() throws {
        let served = try ServedVolume(running: false)
        let bystander = try served.connectStepping()
        let quiet = try #require(bystander.acquire())
        var hits: [String: UInt64] = [:]
        for (check, spoil) in HostileClientTests.wrong {
            let session = try served.connectStepping()
            let channel = try #require(session.acquire())
            let tag = try #require(channel.reserve())
            var request = WireRequest(.write)
            request.tag = tag
            request.offset = 0
            spoil(&request)
            channel.submit(request, secondLine: true)
            while served.server.step() {}
            hits[check, default: 0] += 1
            let counts = Dictionary(uniqueKeysWithValues: served.server.violationCounts.map { ($0.name, $0.count) })
            #expect(counts[check] == hits[check], "\(check)")
            #expect(counts.values.reduce(0, +) == hits.values.reduce(0, +), "only \(check)")
            #expect(!session.isOpen, "\(check)")
            session.release(channel)
            session.disconnect()
            #expect(step(served, quiet) == 0)
        }
        // Two more that no field of a request expresses: reserved bits, and a slot numbered neither old nor next.
        for check in ["reserved", "sequence"] {
            let session = try served.connectStepping()
            let channel = try #require(session.acquire())
            let place = Layout.slots + Int(channel.nextSequence % Layout.slotCount) * Layout.slotBytes
            let word = check == "reserved" ? UInt64(channel.nextSequence) | 1 << 63 : UInt64(channel.nextSequence &+ 2)
            unsafe channel.requestSegment.storeBytes(of: word, toByteOffset: place, as: UInt64.self)
            while served.server.step() {}
            let counts = Dictionary(uniqueKeysWithValues: served.server.violationCounts.map { ($0.name, $0.count) })
            #expect(counts[check] == 1, "\(check)")
            session.release(channel)
            session.disconnect()
        }
        #expect(step(served, quiet) == 0)
        bystander.release(quiet)
        bystander.disconnect()
    }

    private func step(_ served: ServedVolume, _ channel: Channel) -> Int64 {
        guard let tag = channel.reserve() else { return -1 }
        var request = WireRequest(.null)
        request.tag = tag
        channel.submit(request)
        while !channel.isComplete(tag) { served.server.step(control: true) }
        return channel.take(tag).result
    }

    @Test(arguments: [UInt64(1), 20_261_123])
    func randomSlotsUnderAScribblingThreadHarmNobodyElse(seed: UInt64) throws {
        print("seed \(seed)")
        let served = try ServedVolume { $0.sessionLimit = 8 }
        let bystander = try served.connect()
        let quiet = try #require(bystander.acquire())
        var random = SplitMix(state: seed)
        var sessions = 0
        for _ in 0..<60 {
            let session = try connectPatiently(served)
            sessions += 1
            let channel = try #require(session.acquire())
            let segment = unsafe channel.requestSegment
            let scribbling = unsafe Scribbler(segment: segment, seed: random.next())
            for _ in 0..<2000 {
                guard let tag = channel.reserve() else { break }
                var request = WireRequest(.null)
                request.opcode = UInt8(truncatingIfNeeded: random.next() % UInt64(WireOpcode.count))
                request.tag = tag
                request.handle = Int32(truncatingIfNeeded: random.next() % 8)
                request.pathOffset = UInt32(truncatingIfNeeded: random.next() % 1_000_000)
                request.pathLength = UInt16(truncatingIfNeeded: random.next() % 64)
                request.bufferLength = UInt32(truncatingIfNeeded: 144 + random.next() % 4096)
                if random.next() % 64 == 0 { request.bufferOffset = UInt32(truncatingIfNeeded: random.next()) }
                channel.submit(request, secondLine: true)
                channel.announce()
                channel.unreserve(tag)
                if random.next() % 16 == 0 { #expect(quiet.null() == 0) }
                if !session.isOpen { break }
            }
            scribbling.stop()
            session.release(channel)
            session.disconnect()
        }
        for _ in 0..<100 { #expect(quiet.null() == 0) }
        bystander.release(quiet)
        bystander.disconnect()
        served.stop()
        print("\(sessions) hostile sessions, \(served.server.snapshot.violations) ended for a violation")
        #expect(served.server.snapshot.violations > 0)
        #expect(served.server.snapshot.freeRecords == 4096)
    }

    /// The places of ended sessions come back when the server gets to it.
    private func connectPatiently(_ served: ServedVolume) throws -> Session {
        var last: (any Error)?
        for _ in 0..<1000 {
            do { return try served.connect() } catch { last = error }
        }
        throw try #require(last)
    }

    @Test func controlPacketsThatAreNoMessagesEndOnlyTheirConnection() throws {
        let served = try ServedVolume()
        let bystander = try served.connect()
        let quiet = try #require(bystander.acquire())
        var random = SplitMix(state: 7)
        for round in 0..<300 {
            let socket = Int32(dashfs_sys_seqpacket())
            let connected = unsafe served.socketPath.withCString { unsafe dashfs_sys_connect_unix(socket, $0, served.socketPath.utf8.count) }
            #expect(connected == 0)
            var packet = [UInt8](repeating: 0, count: 64)
            let message = ControlMessage(UInt16(round % 5))
            unsafe packet.withUnsafeMutableBytes { unsafe message.store($0) }
            let spoilt = Int(random.next() % 40)
            packet[spoilt] ^= UInt8(truncatingIfNeeded: random.next() | 1)
            let length = round % 7 == 0 ? Int(random.next() % 64) : 64
            // A descriptor nobody asked for, sometimes.
            let extra = [Int32(0)]
            unsafe packet.withUnsafeBytes { bytes in
                unsafe extra.withUnsafeBufferPointer { list in
                    guard let base = bytes.baseAddress else { return }
                    unsafe _ = dashfs_send_packet(socket, base, length, list.baseAddress, round % 3 == 0 ? 1 : 0, 0)
                }
            }
            #expect(quiet.null() == 0)
            _ = dashfs_sys_close(socket)
        }
        bystander.release(quiet)
        bystander.disconnect()
    }
}

/// A seeded generator: the same seed, the same numbers.
struct SplitMix {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// A thread that changes words of a request segment all the time.
@safe final class Scribbler: @unchecked Sendable {
    private let words: UnsafeMutableRawPointer
    private let bytes: Int
    private var seed: UInt64
    private let stopWord = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
    private let ended = DispatchSemaphore(value: 0)

    init(segment: UnsafeMutableRawBufferPointer, seed: UInt64) {
        unsafe words = segment.baseAddress ?? UnsafeMutableRawPointer(stopWord)
        bytes = segment.count
        self.seed = seed
        unsafe stopWord.initialize(to: 0)
        Thread.detachNewThread { [self] in
            var random = SplitMix(state: self.seed)
            while unsafe dashfs_load32(stopWord) == 0 {
                // Slots mostly (not their word 0 half of the time, so that requests get through), the arena sometimes.
                let slot = Layout.slots + Int(random.next() % 64) * Layout.slotBytes
                let word = random.next() % 8 == 0 ? 0 : Int(random.next() % 15) + 1
                let place = random.next() % 4 == 0 ? Layout.arena + Int(random.next() % UInt64(bytes - Layout.arena - 8)) & ~7 : slot + word * 8
                let value = random.next() % 3 == 0 ? random.next() : random.next() % 8192
                unsafe dashfs_store64(words + place, word == 0 && random.next() % 64 != 0 ? dashfs_load64(words + place) : value)
            }
            ended.signal()
        }
    }

    func stop() {
        unsafe dashfs_store32(stopWord, 1)
        ended.wait()
    }

    deinit { unsafe stopWord.deallocate() }
}
