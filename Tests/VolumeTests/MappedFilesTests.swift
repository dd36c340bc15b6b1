/// Mapped files: volume, memory and programs agree; what was stored lasts as long as the contract says; nothing in the memory does harm.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct MappedFilesTests {
    private func volume(_ change: (inout Volume.Configuration) -> Void = { _ in }) throws -> VolumeHarness {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        change(&configuration)
        return try VolumeHarness(device, configuration: configuration)
    }

    private func pattern(_ count: Int, _ salt: Int = 0) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ salt) } }

    private func again(_ volume: VolumeHarness) throws -> VolumeHarness { try VolumeHarness(volume.device) }

    /// The cut of everything that is not durable: what a mount finds now.
    private func content(_ volume: VolumeHarness, _ name: String, _ count: Int) throws -> [UInt8] {
        let device = try #require(volume.device as? MemoryDevice)
        let copy = try MemoryDevice(size: VolumeHarness.smallSize)
        unsafe copy.bytes.copyMemory(from: UnsafeRawBufferPointer(device.bytes))
        let other = try VolumeHarness(copy)
        return other.read(other.open(name), count, at: 0).bytes
    }

    @Test(arguments: [60, 4096, 100_000]) func storesAreReadAndWritesAreLoaded(size: Int) throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        #expect(volume.write(file, pattern(size), at: 0) == size)
        let memory = try #require(volume.map(file).memory)
        #expect(Array(memory.bytes.prefix(size)) == pattern(size))
        #expect(memory.bytes.count == (size + 4095) / 4096 * 4096)
        memory.store([1, 2, 3], at: size - 5)
        #expect(volume.read(file, 5, at: Int64(size) - 5).bytes == [1, 2, 3] + pattern(size).suffix(2))
        #expect(volume.write(file, [9], at: Int64(size) - 4) == 1)
        #expect(Array(memory.bytes[size - 5..<size]) == [1, 9, 3] + pattern(size).suffix(2))
        #expect(volume.fsync(file) == 0)
        #expect(try content(volume, "/f", size) == pattern(size).dropLast(5) + [1, 9, 3] + pattern(size).suffix(2))
    }

    @Test func aStoreIsDurableAfterEachKindOfSyncAndAfterTheLastHolder() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(20_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        let inode = volume.status("/f").status.inode
        func stored(_ byte: UInt8, _ name: String, _ sync: () -> Int64) throws {
            memory.store([byte], at: 9000)
            #expect(sync() == 0, "\(name)")
            #expect(try content(volume, "/f", 20_000)[9000] == byte, "\(name)")
        }
        try stored(1, "fsync") { volume.fsync(file) }
        try stored(2, "fdatasync") { volume.fsync(file, dataOnly: true) }
        try stored(3, "sync") { volume.run(.sync).result }
        #expect(volume.close(file) == 0)
        func change(_ opcode: Opcode, _ flags: UInt32, _ offset: Int64) -> Int64 {
            volume.run(opcode) {
                $0.argument = inode
                $0.flags = flags
                $0.offset = offset
                $0.length = 4096
            }.result
        }
        try stored(4, "msync without a descriptor") { change(.syncMap, 0, 8192) }
        // A range is what was asked for, and munmap brings it into the volume.
        memory.store([8], at: 20)
        #expect(change(.syncMap, 0, 8192) == 0)
        #expect(try content(volume, "/f", 21)[20] == UInt8(truncatingIfNeeded: 20 * 7))
        let before = volume.status("/f")
        #expect(change(.map, 8, 0) == 0 && volume.status("/f").status == before.status)
        #expect(change(.syncMap, 0, 8192) == 0)
        #expect(try content(volume, "/f", 21)[20] == 8)
        try stored(5, "the commit interval") {
            for _ in 0..<12 {
                volume.monotonic += 500_000_000
                volume.volume.clock = .init(wall: volume.wall, monotonic: volume.monotonic)
                volume.settle()
            }
            return 0
        }
        #expect(volume.volume.mapOccupancy.files == 1)
        try stored(6, "the last holder is gone") {
            memory.isHeldByOthers = false
            for _ in 0..<12 {
                volume.monotonic += 500_000_000
                volume.volume.clock = .init(wall: volume.wall, monotonic: volume.monotonic)
                volume.settle()
            }
            return 0
        }
        #expect(volume.volume.mapOccupancy.files == 0 && volume.volume.occupancy.cores == 0)
    }

    @Test func anOrderlyEndKeepsWhatWasStored() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(20_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        memory.store([1, 2], at: 12_000)
        volume.unmount()
        let after = try again(volume)
        #expect(after.read(after.open("/f"), 2, at: 12_000).bytes == [1, 2])
        #expect(try VolumeChecker(volume.device).run() == [])
    }

    @Test func aStoreBehindTheEndIsNowhere() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(5000), at: 0)
        let memory = try #require(volume.map(file).memory)
        memory.store([7, 7, 7], at: 5001)
        #expect(volume.fsync(file) == 0 && volume.status("/f").status.size == 5000)
        #expect(volume.write(file, [1], at: 6000) == 1)
        #expect(volume.read(file, 1001, at: 5000).bytes == [UInt8](repeating: 0, count: 1000) + [1])
        #expect(Array(memory.bytes[5000...6000]) == [UInt8](repeating: 0, count: 1000) + [1])
    }

    @Test func sizesAndHolesAreTheMemorysToo() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(40_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        memory.store([1, 2], at: 9_999)
        #expect(volume.truncate(handle: file, 10_000) == 0)
        #expect(memory.bytes.count == 12_288 && memory.bytes[9_999] == 1 && !memory.bytes[10_000...].contains { $0 != 0 })
        #expect(volume.truncate(handle: file, 30_000) == 0 && memory.bytes.count == 32_768)
        memory.store([5], at: 25_000)
        #expect(volume.read(file, 1, at: 25_000).bytes == [5])
        #expect(volume.allocate(file, 3, 4000, 200) == 0)
        #expect(!memory.bytes[4000..<4200].contains { $0 != 0 } && memory.bytes[3999] == pattern(4000)[3999] && memory.bytes[4200] == pattern(4201)[4200])
        #expect(volume.allocate(file, 16, 0, 30_000) == 0 && !memory.bytes.contains { $0 != 0 })
        #expect(volume.read(file, 30_000, at: 0).bytes == [UInt8](repeating: 0, count: 30_000))
        #expect(volume.open("/f", 0o1002) >= 0 && memory.bytes.isEmpty)
    }

    @Test func whoMayOnlyReadIsNotGivenWhatCanBeStoredInto() throws {
        let volume = try volume()
        let both = volume.open("/f", 0o102)
        _ = volume.write(both, pattern(5000), at: 0)
        let (reads, writes) = (volume.open("/f"), volume.open("/f", 1))
        #expect(volume.map(reads).result == -13 && volume.map(writes).result == -13 && volume.map(writes, shared: false, write: false).result == -13)
        let inode = volume.status("/f").status.inode
        for (handle, shared, write, isWritable) in [(reads, true, false, false), (both, false, true, false), (reads, false, true, false), (both, true, false, false), (both, true, true, true)] {
            let answer = volume.run(.map) {
                $0.handle = Int32(handle)
                $0.offset = 0
                $0.length = 4096
                $0.flags = (shared ? 1 : 0) | (write ? 2 : 0)
            }
            #expect(answer.result == 0 && answer.info1 == (isWritable ? 1 : 0))
            #expect(volume.volume.takeMap(volume.session, inode: inode)?.isWritable == isWritable)
            #expect(volume.volume.takeMap(volume.session, inode: inode) == nil, "once for each map")
        }
        let folder = volume.open("/", 0o200000)
        #expect(volume.map(folder, write: false).result == -19 && volume.map(folder).result == -13 && volume.map(99).result == -9)
        #expect(volume.map(both, length: 0).result == -22 && volume.map(both, offset: .max, length: 10).result == -75)
    }

    @Test func onlyWhatIsAskedForIsFilled() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(100_000), at: 0)
        let memory = try #require(volume.map(file, offset: 8192, length: 8192).memory)
        #expect(Array(memory.bytes[8192..<16_384]) == Array(pattern(100_000)[8192..<16_384]))
        #expect(!memory.bytes[..<8192].contains { $0 != 0 })
        // A read of the rest comes from the volume; a write there is none of the memory's business.
        #expect(volume.read(file, 100_000, at: 0).bytes == pattern(100_000))
        #expect(volume.write(file, [1], at: 100) == 1 && memory.bytes[100] == 0)
        let inode = volume.status("/f").status.inode
        let more = volume.run(.map) {
            $0.flags = 4
            $0.argument = inode
            $0.offset = 0
            $0.length = 50_000
        }
        #expect(more.result == 0 && memory.bytes[100] == 1 && Array(memory.bytes[101..<50_000]) == Array(pattern(50_000)[101...]))
    }

    @Test func spaceForStoresIntoHolesIsKept() throws {
        let volume = try volume()
        let file = volume.open("/sparse", 0o102)
        let pages = 300
        #expect(volume.truncate(handle: file, Int64(pages * 4096)) == 0)
        let memory = try #require(volume.map(file).memory)
        // Somebody else takes all there is.
        let other = volume.open("/other", 0o102)
        var at: Int64 = 0
        while case let written = volume.write(other, [UInt8](repeating: 1, count: 400_000), at: at), written > 0 { at += written }
        #expect(at > 20 << 20)
        #expect(volume.write(other, [1], at: 40 << 20) == -28)
        for page in 0..<pages { memory.store([UInt8(page % 251 + 1)], at: page * 4096 + page) }
        #expect(volume.fsync(file) == 0)
        let bytes = try content(volume, "/sparse", pages * 4096)
        #expect((0..<pages).allSatisfy { bytes[$0 * 4096 + $0] == UInt8($0 % 251 + 1) })
        // A hole is kept for anew, and what grows finds no room.
        #expect(volume.allocate(file, 3, 0, 40_960) == 0)
        for page in 0..<10 { memory.store([3], at: page * 4096) }
        #expect(volume.fsync(file) == 0)
        #expect(volume.truncate(handle: file, 8 << 20) == -28)
        let second = volume.open("/second", 0o102)
        _ = volume.truncate(handle: second, 4 << 20)
        #expect(volume.map(second).result == -28)
        #expect(volume.map(second, shared: false).result == 0)
        memory.isHeldByOthers = false
        volume.unmount()
        #expect(try VolumeChecker(volume.device).run() == [])
    }

    @Test func whatIsKeptGoesBackWithTheMaps() throws {
        let volume = try volume()
        func free() -> UInt64 {
            var buffer = [UInt64](repeating: 0, count: 8)
            _ = unsafe buffer.withUnsafeMutableBytes { raw in
                volume.run(.statfs) {
                    unsafe $0.buffer = raw.baseAddress
                    $0.bufferLength = 64
                }
            }
            return buffer[2]
        }
        let file = volume.open("/sparse", 0o102)
        _ = volume.truncate(handle: file, 4 << 20)
        let before = free()
        let memory = try #require(volume.map(file).memory)
        #expect(free() < before - 1024)
        #expect(volume.truncate(handle: file, 1 << 20) == 0)
        #expect(free() < before - 256 && free() > before - 400)
        memory.store([1], at: 5000)
        memory.isHeldByOthers = false
        #expect(volume.close(file) == 0)
        for _ in 0..<12 {
            volume.monotonic += 1_000_000_000
            volume.volume.clock = .init(wall: volume.wall, monotonic: volume.monotonic)
            volume.settle()
        }
        #expect(volume.volume.mapOccupancy.files == 0)
        #expect(free() == before - 1)
    }

    @Test func aFileWithoutNamesLivesAsLongAsItsMap() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(50_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        #expect(volume.run(.unlink, "/f").result == 0 && volume.close(file) == 0)
        volume.settle()
        memory.store([1], at: 10)
        #expect(Array(memory.bytes[20..<50_000]) == Array(pattern(50_000)[20...]))
        #expect(volume.run(.sync).result == 0)
        memory.isHeldByOthers = false
        volume.unmount()
        #expect(try VolumeChecker(volume.device).run() == [])
        let after = try again(volume)
        after.settle()
        #expect(after.list("/").isEmpty)
    }

    @Test func memoryThatIsShrunkReadsAsZeros() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(50_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        memory.bytes.removeLast(memory.bytes.count - 5000)
        #expect(volume.read(file, 50_000, at: 0).bytes == pattern(5000) + [UInt8](repeating: 0, count: 45_000))
        #expect(volume.fsync(file) == 0)
        memory.bytes = []
        #expect(volume.write(file, [1, 2], at: 20_000) == 2)
        #expect(volume.truncate(handle: file, 70_000) == 0 && volume.allocate(file, 3, 100, 30_000) == 0)
        memory.bytes = [UInt8](repeating: 5, count: 1 << 20)
        #expect(volume.fsync(file) == 0 && volume.read(file, 100_000, at: 0).bytes == [UInt8](repeating: 5, count: 70_000))
        memory.isHeldByOthers = false
        volume.unmount()
        #expect(try VolumeChecker(volume.device).run() == [])
    }

    @Test func memoryThatCannotFollowIsCutAndTheFileGoesOn() throws {
        let volume = try volume()
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(50_000), at: 0)
        let memory = try #require(volume.map(file).memory)
        memory.refuses = true
        #expect(volume.write(file, [1, 2, 3], at: 30_000) == 3)
        #expect(memory.bytes.isEmpty)
        #expect(volume.read(file, 4, at: 29_999).bytes == [pattern(30_000)[29_999], 1, 2, 3])
        #expect(volume.fsync(file) == 0 && volume.map(file).result == -5)
        #expect(volume.volume.takeNotes().count == 1)
        memory.isHeldByOthers = false
        volume.unmount()
        let after = try again(volume)
        #expect(after.read(after.open("/f"), 4, at: 29_999).bytes == [pattern(30_000)[29_999], 1, 2, 3])
    }

    @Test func limitsAreAnErrnoAndLeaveNothing() throws {
        let volume = try volume {
            $0.mappedPages = 20
            $0.mappedFiles = 2
        }
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, pattern(100_000), at: 0)
        #expect(volume.map(file).result == -12)
        let memory = try #require(volume.map(file, length: 40_000).memory)
        #expect(volume.truncate(handle: file, 0) == 0 && volume.map(file).result == 0)
        // What programs have asked for beforehand, beyond the end.
        #expect(volume.truncate(handle: file, 200_000) == -28 && volume.write(file, [1], at: 1 << 40) == -28)
        #expect(volume.truncate(handle: file, 40_000) == 0)
        let others = (0..<2).map { volume.open("/g\($0)", 0o102) }
        for other in others { _ = volume.write(other, pattern(10), at: 0) }
        #expect(volume.map(others[0]).result == 0 && volume.map(others[1]).result == -23)
        // A session that never fetches what it maps.
        var results: Set<Int64> = []
        for _ in 0..<70 {
            results.insert(volume.run(.map) {
                $0.handle = Int32(others[0])
                $0.offset = 0
                $0.length = 10
                $0.flags = 1
            }.result)
        }
        #expect(results == [0, -12])
        memory.isHeldByOthers = false
        volume.volume.closeSession(volume.session)
        volume.unmount()
        #expect(volume.volume.mapOccupancy.files <= 1 && volume.volume.takeNotes().isEmpty)
    }

    /// One user has what he may have, and others go on; what he asks for beyond the end of a file is his when it comes.
    @Test func aUserCannotTakeWhatAllMayHave() throws {
        let volume = try volume {
            $0.mappedPages = 40
            $0.mappedPagesPerUser = 20
            $0.mappedFilesPerUser = 3
        }
        let sessions = try [1000, 1001, 0].map { try #require(volume.volume.openSession(Credentials(user: $0, group: $0))) }
        func open(_ who: Int, _ name: String) -> Int64 { volume.run(.open, name, as: sessions[who]) { ($0.flags, $0.mode) = (0o102, 0o666) }.result }
        #expect(volume.run(.setattr, "/") { ($0.attributes.mask, $0.attributes.mode) = (.mode, 0o777) }.result == 0)
        func map(_ who: Int, _ handle: Int64, pages: Int, from first: Int = 0) -> (Int64, PlainFileMemory?) {
            let answer = volume.run(.map, as: sessions[who]) {
                ($0.handle, $0.offset, $0.length, $0.flags) = (Int32(handle), Int64(first * 4096), UInt64(pages * 4096), 1)
            }
            let memory = answer.result == 0 ? volume.volume.takeMap(sessions[who], inode: answer.info0)?.memory as? PlainFileMemory : nil
            memory?.isHeldByOthers = true
            return (answer.result, memory)
        }
        func resize(_ who: Int, _ handle: Int64, pages: Int) -> Int64 {
            volume.run(.setattr, as: sessions[who]) { ($0.handle, $0.attributes.mask, $0.attributes.size) = (Int32(handle), .size, Int64(pages * 4096)) }.result
        }
        let (mine, his, roots) = (open(0, "/mine"), open(1, "/his"), open(2, "/roots"))
        #expect(resize(0, mine, pages: 30) == 0 && resize(1, his, pages: 10) == 0 && resize(2, roots, pages: 25) == 0)
        let (result, memory) = map(0, mine, pages: 15)
        #expect(result == 0 && volume.volume.mapOccupancy.pages == 15)
        #expect(map(0, mine, pages: 21).0 == -12 && resize(0, mine, pages: 15) == 0 && volume.volume.mapOccupancy.pages == 15)
        // Beyond its end, another's file: he is not kept from making it longer, and what comes counts for the one who has asked.
        let herViewOfHis = open(0, "/his")
        #expect(map(0, herViewOfHis, pages: 5, from: 10).0 == 0 && resize(1, his, pages: 15) == 0)
        #expect(volume.volume.mapOccupancy.pages == 30 && resize(0, mine, pages: 16) == -28)
        // Her own does not grow into what she may not have.
        let other = open(0, "/other")
        #expect(map(0, other, pages: 100).0 == 0 && resize(0, other, pages: 50) == -28)
        // Others do not feel it, up to the limit of all.
        #expect(map(1, his, pages: 9).0 == 0)
        #expect(map(2, roots, pages: 11).0 == -12 && map(2, roots, pages: 10).0 == 0)
        // So many files, and no more: a third is had, a fourth is not.
        #expect(map(0, open(0, "/third"), pages: 1).0 == -23)
        // What a file loses is given back.
        #expect(resize(0, mine, pages: 2) == 0 && map(0, herViewOfHis, pages: 1, from: 14).0 == 0 && volume.volume.mapOccupancy.pages == 27)
        #expect(map(0, mine, pages: 2).0 == 0 && resize(0, mine, pages: 30) == -28)
        memory?.isHeldByOthers = false
    }

    /// A write of a part of a page takes with it what was stored beside: seen when the memory goes and the volume alone is left.
    static func storeBesideAWrite(_ bug: PlantedBug = .none) throws -> String? {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.plantedBug = bug
        let volume = try VolumeHarness(device, configuration: configuration)
        let file = volume.open("/f", 0o102)
        _ = volume.write(file, [UInt8](repeating: 1, count: 20_000), at: 0)
        guard let memory = volume.map(file).memory else { return "no map" }
        memory.store([2, 2], at: 5000)
        guard volume.write(file, [3], at: 5001) == 1 else { return "no write" }
        memory.refuses = true
        guard volume.write(file, [4], at: 15_000) == 1, memory.bytes.isEmpty else { return "the memory is still there" }
        let bytes = volume.read(file, 4, at: 4999).bytes
        return bytes == [1, 2, 3, 1] ? nil : "the page holds \(bytes)"
    }

    @Test func aWriteTakesWithItWhatWasStoredBeside() throws {
        let problem = try MappedFilesTests.storeBesideAWrite()
        #expect(problem == nil)
    }

    /// What random operations with maps show to be other than in the model; nil: nothing.
    static func mixture(_ seed: UInt64, bug: PlantedBug = .none) throws -> String? {
        let device = try MemoryDevice(size: VolumeHarness.smallSize) { $0.atomicWriteUnit = seed % 4 < 2 ? 512 : 4096 }
        try VolumeHarness.format(device)
        var workload = VolumeWorkload(seed: seed, shape: WorkloadShape().mapped)
        var stores = 0
        for round in 0..<3 {
            var configuration = RandomOperationsTests.configuration(seed &+ UInt64(round) &* 2)
            configuration.plantedBug = bug
            let volume = try VolumeHarness(device, configuration: configuration)
            if let difference = volume.difference(from: workload.model) { return "seed \(seed), after remount \(round): \(difference)" }
            for number in 0..<900 {
                let operation = workload.next()
                if case .store = operation { stores += 1 }
                volume.monotonic += UInt64(workload.random.below(400_000_000))
                volume.wall += 1_000_000
                if let problem = workload.perform(operation, on: volume) {
                    return "seed \(seed), round \(round), operation \(number): \(problem); \(volume.volume.takeNotes())"
                }
                if number % 100 == 99, let difference = volume.difference(from: workload.model) {
                    return "seed \(seed), round \(round), after operation \(number) \(operation): \(difference)"
                }
            }
            let notes = volume.volume.takeNotes()
            if !notes.isEmpty { return "seed \(seed), round \(round): \(notes)" }
            workload.forgetHandles()
            volume.unmount()
            if let finding = try VolumeChecker(device).run().first { return "seed \(seed), round \(round): \(finding)" }
        }
        return stores > 300 ? nil : "seed \(seed): only \(stores) stores"
    }

    /// What cuts show that the contract does not allow; nil: nothing.
    static func cuts(_ seed: UInt64, bug: PlantedBug = .none) throws -> String? {
        var configuration = CrashTests.configuration(seed, nonce: seed)
        configuration.plantedBug = bug
        let run: CrashRun
        do {
            run = try CrashRun(seed: seed, operations: 700, configuration: configuration, shape: WorkloadShape.crash.mapped, slowHome: seed % 4 == 3) {
                if seed % 3 == 1 { $0.atomicWriteUnit = 4096 }
                if seed % 5 == 1 { $0.volatileCache = false }
            }
        } catch { return "\(error)" }
        let states = CrashStates(run.recording)
        var random = SeededRandom(seed: seed)
        for number in 0..<150 {
            let cut = random.below(states.cutCount + 1)
            let state = states.state(at: cut, seed: UInt64(number))
            let volume = try VolumeHarness(state.device, configuration: CrashTests.configuration(seed, nonce: 1_000_000 + seed))
            if let finding = try VolumeChecker(state.device).run().first { return "seed \(seed), state \(number), \(state): \(finding)" }
            if let problem = run.judge(volume, cut: cut) { return "seed \(seed), state \(number), \(state): \(problem)" }
        }
        return nil
    }

    @Test(arguments: (1...8).map { UInt64($0) }) func randomOperationsWithMapsAgreeWithTheModel(seed: UInt64) throws {
        let problem = try MappedFilesTests.mixture(seed)
        #expect(problem == nil)
    }

    @Test(arguments: (1...10).map { UInt64($0) }) func whatWasSyncedSurvivesACutAndTheRestIsWhatTheFileHasBeen(seed: UInt64) throws {
        let problem = try MappedFilesTests.cuts(seed)
        #expect(problem == nil)
    }
}
