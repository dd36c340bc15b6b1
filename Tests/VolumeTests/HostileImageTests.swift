/// Images that someone has made: every structure mutated at random, with right checksums so that the mutation reaches the code, and then used.
/// Every answer is an answer: no trap, no endless loop, and what was there before the mutation is not needed for that.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct HostileImageTests {
    private static let size: UInt64 = (256 + 4 * 256 + 2) * 4096

    private static var configuration: Volume.Configuration {
        var configuration = VolumeHarness.smallConfiguration()
        configuration.treeFanout = 6
        return configuration
    }

    /// A small volume with something of everything. `clean`: shut down in order; else its journal has records.
    private static func specimen(clean: Bool) throws -> (image: SharedImage, metadata: [Int]) {
        let device = try MemoryDevice(size: size) { $0.atomicWriteUnit = 512 }
        try VolumeHarness.format(device, blocksPerGroup: 256)
        let volume = try VolumeHarness(device, configuration: configuration)
        for name in ["/d", "/a", "/a/b"] { _ = volume.run(.mkdir, name) { $0.mode = 0o755 } }
        for number in 0..<50 { _ = volume.close(volume.open("/d/file\(number)", 0o102)) }
        let many = volume.open("/many", 0o102)
        for page in 0..<40 { _ = volume.write(many, VolumeWorkload.bytes(100, seed: 1), at: Int64(page * 8192)) }
        let few = volume.open("/few", 0o102)
        for page in 0..<3 { _ = volume.write(few, VolumeWorkload.bytes(4096, seed: 2), at: Int64(page * 16_384)) }
        _ = volume.allocate(few, 1, 200_000, 50_000)
        _ = volume.run(.sync)
        _ = volume.setAttribute("/few", "user.note", VolumeWorkload.bytes(6000, seed: 3))
        _ = volume.run(.symlink, "/long", String(repeating: "y", count: 3000))
        _ = volume.run(.symlink, "/short", "d/file1")
        _ = volume.open("/orphan", 0o102)
        _ = volume.run(.unlink, "/orphan")
        if clean {
            volume.unmount()
        } else {
            _ = volume.run(.sync)
        }
        let superblock = try Volume.readSuperblock(BlockingDevice(try device.makeQueue(depth: 4)), deviceBlocks: device.capabilities.blockCount)
        let metadata = (257..<Int(superblock.blockCount - 1)).filter { block in
            let at = block * 4096
            let magic = (0..<4).map { device[at + $0] }
            let own = (0..<8).reduce(0) { $0 | Int(device[at + 8 + $1]) << (8 * $1) }
            return magic == [0x44, 0x53, 0x48, 0x46] && own == block
        }
        return (unsafe SharedImage(copying: UnsafeRawBufferPointer(device.bytes)), metadata)
    }

    private static let interesting: [UInt64] = [0, 1, 2, 3, 0x7F, 0xFF, 255, 4096, 0xFFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 51, 1 << 60, 1 << 63, .max, .max - 1]

    private static func mutate(_ device: MemoryDevice, _ random: inout SeededRandom, at base: Int, from: Int, to: Int) {
        let width = 1 << random.below(4)
        let at = base + (from + random.below(to - from)) & ~(width - 1)
        let present = (0..<width).reduce(UInt64(0)) { $0 | UInt64(device[at + $1]) << UInt64(8 * $1) }
        let value: UInt64
        switch random.below(6) {
        case 0: value = random.next()
        case 1: value = present &+ 1
        case 2: value = present &- 1
        case 3: value = present ^ 1 << UInt64(random.below(8 * width))
        default: value = random.pick(interesting)
        }
        for byte in 0..<width { device[at + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte)) }
    }

    /// Does what users do to whatever is there; how many answers there were.
    private static func use(_ volume: VolumeHarness, _ random: inout SeededRandom) -> Int {
        var answers = 0
        func note(_ result: Int64) { answers += result > -1000 ? 1 : 0 }
        var paths = ["/many", "/few", "/long", "/short", "/d/file1", "/d/file\(random.below(50))", "/a/b"]
        for directory in ["/", "/d", "/a"] {
            for entry in volume.list(directory).prefix(8) { paths.append((directory == "/" ? "/" : directory + "/") + entry.name) }
        }
        for path in paths.prefix(24) {
            note(volume.status(path, follow: random.chance(0.5)).result)
            _ = volume.attributes(path)
            _ = volume.target(path)
        }
        for path in [random.pick(paths), "/many", "/few"] {
            let handle = volume.open(path, 2)
            guard handle >= 0 else { continue }
            note(volume.read(handle, 20_000, at: Int64(random.below(300_000))).result)
            note(volume.write(handle, VolumeWorkload.bytes(random.below(9000) + 1, seed: 7), at: Int64(random.below(300_000))))
            for whence in [3, 4] as [UInt32] {
                note(volume.run(.seek) {
                    $0.handle = Int32(handle)
                    $0.offset = Int64(random.below(100_000))
                    $0.flags = whence
                }.result)
            }
            note(volume.allocate(handle, random.pick([0, 1, 3, 16]), Int64(random.below(200_000)), 30_000))
            if random.chance(0.5) { note(volume.fsync(handle)) }
            note(volume.truncate(handle: handle, Int64(random.below(200_000))))
            note(volume.close(handle))
        }
        note(volume.run(.mkdir, "/a/new") { $0.mode = 0o755 }.result)
        note(volume.close(volume.open("/d/created", 0o102)))
        note(volume.run(.link, random.pick(paths), "/linked").result)
        note(volume.run(.rename, random.pick(paths), random.pick(paths)) { $0.flags = random.pick([0, 1, 2]) }.result)
        note(volume.run(.rename, "/a", "/d/a").result)
        note(volume.setAttribute(random.pick(paths), "user.x", VolumeWorkload.bytes(random.below(5000), seed: 1)))
        for _ in 0..<4 { note(volume.run(.unlink, random.pick(paths)).result) }
        note(volume.run(.unlink, "/many").result)
        note(volume.run(.rmdir, "/a/b").result)
        note(volume.run(.sync).result)
        volume.monotonic += 20_000_000_000
        volume.settle(polls: 20)
        return answers
    }

    private static func answer(_ image: SharedImage, _ random: inout SeededRandom, _ change: (MemoryDevice, inout SeededRandom) -> Void) throws -> (mounted: Bool, answers: Int, hung: String?) {
        let device = image.privateDevice(description: "hostile") { $0.atomicWriteUnit = 512 }
        change(device, &random)
        _ = try VolumeChecker(device).run()
        let volume: VolumeHarness
        do {
            volume = try VolumeHarness(device, configuration: configuration)
        } catch { return (false, 0, nil) }
        volume.mayHang = true
        volume.patience = 3000
        let answers = use(volume, &random)
        return (true, answers, volume.unanswered > 0 ? volume.unfinished : nil)
    }

    @Test(arguments: 1...8) func mutatedStructuresAreAnswered(part: Int) throws {
        let seed = UInt64(20_261_125 + part)
        let (image, metadata) = try HostileImageTests.specimen(clean: true)
        var random = SeededRandom(seed: seed)
        var (mounted, answers) = (0, 0)
        for number in 0..<2250 {
            let found = try HostileImageTests.answer(image, &random) { device, random in
                for _ in 0...random.below(4) {
                    let block = random.chance(0.03) ? 0 : random.pick(metadata)
                    // Headers, first slots and inodes matter more than the rest.
                    HostileImageTests.mutate(device, &random, at: block * 4096, from: random.chance(0.3) ? 16 : 64, to: random.pick([136, 700, 4096]))
                    unsafe BlockLayout.seal(device.bytes.baseAddress! + block * 4096)
                }
            }
            mounted += found.mounted ? 1 : 0
            answers += found.answers
            if let hung = found.hung {
                Issue.record("seed \(seed), mutation \(number): never answered: \(hung)")
                return
            }
        }
        print("seed \(seed): 2250 mutations, \(mounted) mounted, \(answers) answers")
        #expect(mounted > 1500 && answers > 30_000)
    }

    @Test func mutatedJournalsAreAnswered() throws {
        let seed: UInt64 = 4712
        let (image, _) = try HostileImageTests.specimen(clean: false)
        var random = SeededRandom(seed: seed)
        var mounted = 0
        for number in 0..<2000 {
            let found = try HostileImageTests.answer(image, &random) { device, random in
                for _ in 0...random.below(3) {
                    // A record: its header, its entries; then its checksum.
                    var records: [Int] = []
                    for block in 1..<257 where device[block * 4096] == 0x44 && device[block * 4096 + 7] == 0x31 { records.append(block) }
                    guard !records.isEmpty else { return }
                    let record = random.pick(records)
                    HostileImageTests.mutate(device, &random, at: record * 4096, from: random.chance(0.3) ? 32 : 128, to: random.pick([92, 200, 700, 4096].filter { $0 > 128 }))
                    let blocks = (0..<4).reduce(0) { $0 | Int(device[record * 4096 + 52 + $1]) << (8 * $1) }
                    if blocks >= 1 && record + blocks <= 257 { JournalTests.seal(device, record * 4096, blocks) }
                }
            }
            mounted += found.mounted ? 1 : 0
            if let hung = found.hung {
                Issue.record("seed \(seed), mutation \(number): never answered: \(hung)")
                return
            }
        }
        print("seed \(seed): 2000 mutated journals, \(mounted) mounted")
        #expect(mounted > 300)
    }
}
