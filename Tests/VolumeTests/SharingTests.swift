/// Open descriptions that several sessions hold: what each may do with them, and when they end. Beside a model that counts on its fingers.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct SharingTests {
    private func made(_ change: (inout Volume.Configuration) -> Void = { _ in }) throws -> VolumeHarness {
        let device = try MemoryDevice(size: 16 << 20)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        change(&configuration)
        return try VolumeHarness(device, configuration: configuration)
    }

    private func session(_ volume: VolumeHarness) throws -> SessionID { try #require(volume.volume.openSession(Credentials(user: 0, group: 0))) }

    private func seek(_ volume: VolumeHarness, _ handle: Int64, _ session: SessionID, _ offset: Int64 = 0, whence: UInt32 = 1) -> Int64 {
        volume.run(.seek, as: session) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.offset = offset
            $0.flags = whence
        }.result
    }

    private func close(_ volume: VolumeHarness, _ handle: Int64, _ session: SessionID) -> Int64 {
        volume.run(.close, as: session) { $0.handle = Int32(truncatingIfNeeded: handle) }.result
    }

    @Test func holdersShareTheOffsetAndNobodyElseHasTheFile() throws {
        let volume = try made()
        let (child, stranger) = (try session(volume), try session(volume))
        let handle = volume.open("/f", 0o102)
        #expect(volume.write(handle, [1, 2, 3]) == 3)
        #expect(seek(volume, handle, child) == -9)
        #expect(volume.volume.share([Int32(handle)], of: volume.session, with: child) == 1)
        #expect(seek(volume, handle, child) == 3)
        #expect(seek(volume, handle, child, 1, whence: 0) == 1)
        #expect(seek(volume, handle, volume.session) == 1)
        #expect(seek(volume, handle, stranger) == -9)
        #expect(volume.volume.share([Int32(handle)], of: stranger, with: stranger) == 0, "nobody shares what it does not hold")
        let later = volume.open("/f", 2)
        #expect(seek(volume, later, child) == -9, "what is opened later is not the child's")
    }

    @Test func theFirstHolderMayGoFirstAndTheLastOneEndsTheFile() throws {
        let volume = try made()
        let sessions = try (0..<5).map { _ in try session(volume) }
        for order in 0..<6 {
            let handle = volume.open("/f", 0o102)
            #expect(volume.run(.unlink, "/f").result == 0)
            for other in sessions { #expect(volume.volume.share([Int32(handle)], of: volume.session, with: other) == 1) }
            var holders = [volume.session] + sessions
            holders.rotateLeft(order)
            for (number, holder) in holders.enumerated() {
                #expect(seek(volume, handle, holder) == 0)
                #expect(close(volume, handle, holder) == 0)
                #expect(seek(volume, handle, holder) == -9)
                for other in holders[(number + 1)...] { #expect(seek(volume, handle, other) == 0) }
            }
            volume.settle()
        }
        let held = volume.volume.occupancy
        #expect(held.descriptions == 0 && held.cores == 0, "\(held)")
    }

    @Test func aSharedFlockLastsAsLongAsItsDescription() throws {
        let volume = try made()
        let (child, stranger) = (try session(volume), try session(volume))
        let handle = volume.open("/f", 0o102)
        func flock(_ handle: Int64, _ session: SessionID) -> Int64 {
            volume.run(.flock, as: session) {
                $0.handle = Int32(truncatingIfNeeded: handle)
                $0.flags = 2 | 4
            }.result
        }
        #expect(flock(handle, volume.session) == 0)
        #expect(volume.volume.share(nil, of: volume.session, with: child) == 1)
        let other = volume.run(.open, "/f", as: stranger) { $0.flags = 2 }.result
        #expect(close(volume, handle, volume.session) == 0)
        #expect(flock(other, stranger) == -11)
        volume.volume.closeSession(child)
        #expect(flock(other, stranger) == 0)
    }

    /// As flock(2) says of Linux: the shared lock goes before the exclusive one is asked for, so of two who want that one gets it.
    @Test func aSharedFlockIsLostInBecomingExclusive() throws {
        let volume = try made()
        let stranger = try session(volume)
        let own = volume.open("/f", 0o102), other = volume.run(.open, "/f", as: stranger) { $0.flags = 2 }.result
        func flock(_ handle: Int64, _ session: SessionID, _ operation: UInt32) -> Int64 {
            volume.run(.flock, as: session) {
                $0.handle = Int32(truncatingIfNeeded: handle)
                $0.flags = operation | 4
            }.result
        }
        #expect(flock(own, volume.session, 1) == 0)
        #expect(flock(other, stranger, 1) == 0)
        #expect(flock(own, volume.session, 2) == -11)
        #expect(flock(other, stranger, 2) == 0)
        #expect(flock(own, volume.session, 1) == -11)
        #expect(flock(other, stranger, 8) == 0)
        #expect(flock(own, volume.session, 2) == 0)
        #expect(close(volume, own, volume.session) == 0)
        #expect(close(volume, other, stranger) == 0)
        volume.settle()
        #expect(volume.volume.occupancy.descriptions == 0)
    }

    @Test func aSuccessorHasTheLocksAndWhatWasKept() throws {
        let volume = try made()
        let (heir, stranger) = (try session(volume), try session(volume))
        let kept = volume.open("/kept", 0o102), cut = volume.open("/cut", 0o102)
        func lock(_ handle: Int64, _ session: SessionID, _ first: Int64, _ type: UInt64 = 1) -> Int64 {
            volume.run(.lock, as: session) {
                $0.handle = Int32(truncatingIfNeeded: handle)
                $0.flags = 6
                $0.argument = type
                $0.offset = first
                $0.length = 10
            }.result
        }
        for first in stride(from: Int64(0), to: 200, by: 20) { #expect(lock(kept, volume.session, first) == 0) }
        #expect(lock(cut, volume.session, 0) == 0)
        #expect(volume.volume.succeed(volume.session, by: heir, keeping: [Int32(kept)]) == 1)
        volume.volume.closeSession(volume.session)
        let (one, two) = (
            volume.run(.open, "/kept", as: stranger) { $0.flags = 2 }.result, volume.run(.open, "/cut", as: stranger) { $0.flags = 2 }.result
        )
        #expect(lock(one, stranger, 0) == -11 && lock(one, stranger, 180) == -11, "the heir has them")
        #expect(lock(two, stranger, 0) == 0, "a file that was not kept has been closed")
        #expect(seek(volume, kept, heir) == 0 && seek(volume, cut, heir) == -9)
        #expect(lock(kept, heir, 0, 2) == 0)
        #expect(lock(one, stranger, 0) == 0)
        volume.volume.closeSession(heir)
        #expect(lock(one, stranger, 180) == 0)
        volume.volume.closeSession(stranger)
        let held = volume.volume.occupancy
        #expect(held.sessions == 0 && held.descriptions == 0 && held.locks == 0, "\(held)")
    }

    @Test func limitsCountWhatIsShared() throws {
        let volume = try made { $0.descriptionsPerSession = 4 }
        let child = try session(volume)
        let handles = (0..<4).map { _ in Int32(volume.open("/f", 0o102)) }
        let own = (0..<2).map { _ in volume.run(.open, "/f", as: child) { $0.flags = 2 }.result }
        #expect(own.allSatisfy { $0 >= 0 })
        #expect(volume.volume.share(handles, of: volume.session, with: child) == 2)
        #expect(volume.run(.open, "/f", as: child) { $0.flags = 2 }.result == -24)
        #expect(close(volume, Int64(handles[0]), child) == 0)
        #expect(volume.run(.open, "/f", as: child) { $0.flags = 2 }.result >= 0)
    }

    /// Sessions come, share, close and go at random; who holds what is kept beside it, and so is the server's death now and then.
    @Test(arguments: 1...12) func randomSharing(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let device = try MemoryDevice(size: 16 << 20)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.descriptions = 128
        var volume = try VolumeHarness(device, configuration: configuration)
        var held: [SessionID: Set<Int64>] = [volume.session: []]
        var adoptions = 0
        for step in 0..<600 {
            let holder = held.keys.sorted { $0.rawValue < $1.rawValue }[random.below(held.count)]
            let all = Set(held.values.joined())
            switch random.below(12) {
            case 0, 1, 2:
                let handle = volume.run(.open, "/f\(random.below(3))", as: holder) { $0.flags = 0o102 }.result
                guard handle >= 0 else { break }
                #expect(!all.contains(handle), "seed \(seed), step \(step): the number of an open file is given out")
                held[holder]?.insert(handle)
            case 3, 4, 5:
                guard held.count < 12, let child = volume.volume.openSession(Credentials(user: 0, group: 0)) else { break }
                let mine = held[holder, default: []]
                let chosen = mine.filter { _ in random.chance(0.7) }
                let count = volume.volume.share(chosen.map { Int32($0) }.sorted(), of: holder, with: child)
                let got = Set(chosen.filter { seek(volume, $0, child) >= 0 })
                #expect(got.count == count, "seed \(seed), step \(step)")
                held[child] = got
            case 6, 7, 8:
                guard let handle = held[holder]?.min() else { break }
                #expect(close(volume, handle, holder) == 0, "seed \(seed), step \(step)")
                held[holder]?.remove(handle)
            case 9:
                guard holder != volume.session else { break }
                volume.volume.closeSession(holder)
                held[holder] = nil
            case 10 where holder != volume.session:
                guard let heir = volume.volume.openSession(Credentials(user: 0, group: 0)) else { break }
                let kept = held[holder, default: []].filter { _ in random.chance(0.5) }
                volume.volume.succeed(holder, by: heir, keeping: kept.map { Int32($0) })
                volume.volume.closeSession(holder)
                held[holder] = nil
                held[heir] = Set(kept.filter { seek(volume, $0, heir) >= 0 })
            default:
                guard random.chance(0.1) else { break }
                // The server dies; the next one goes on with its memory.
                let next = try VolumeHarness(device, configuration: configuration, adopting: (unsafe Array(volume.memory), volume.session))
                for session in held.keys where session != volume.session { next.volume.restoreSession(session, Credentials(user: 0, group: 0)) }
                volume = next
                adoptions += 1
            }
            for (session, mine) in held {
                for handle in Set(held.values.joined()) {
                    let expected: Bool = mine.contains(handle)
                    let found = seek(volume, handle, session) >= 0
                    if expected != found { Issue.record("seed \(seed), step \(step): session \(session.rawValue), handle \(handle): \(found), expected \(expected)") }
                }
            }
        }
        for session in held.keys { volume.volume.closeSession(session) }
        volume.settle()
        #expect(volume.volume.occupancy.descriptions == 0, "seed \(seed)")
        #expect(adoptions > 0)
    }
}

extension Array {
    fileprivate mutating func rotateLeft(_ count: Int) {
        self = Array(self[count...] + self[..<count])
    }
}
