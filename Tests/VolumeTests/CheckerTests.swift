import BlockDevice
import TestSupport
import Testing
import Volume

/// A clean volume with one of everything, to be damaged: trees three high, extents in a tree, links, attributes, an orphan.
private enum Specimen {
    struct Made {
        var bytes: [UInt8]
        var inodes: [String: UInt64]
    }

    static let made: Result<Made, any Error> = Result { try make() }

    private static func make() throws -> Made {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.treeFanout = 6
        let volume = try VolumeHarness(device, configuration: configuration)
        let (create, readWrite): (UInt32, UInt32) = (0o100, 2)
        func need(_ result: Int64, _ what: String) throws {
            if result < 0 { throw VolumeError(errno: Int32(-result), "\(what): \(result), \(volume.volume.takeNotes())") }
        }
        for name in ["/d", "/a", "/a/b", "/a/b/c"] { try need(volume.run(.mkdir, name) { $0.mode = 0o755 }.result, name) }
        for number in 0..<150 {
            let handle = volume.open("/d/file\(number)", create | readWrite)
            try need(handle, "create")
            try need(volume.write(handle, [UInt8](repeating: UInt8(number), count: number * 40)), "write")
            try need(volume.close(handle), "close")
        }
        let holes = volume.open("/holes", create | readWrite)
        for number in 0..<60 {
            try need(volume.write(holes, [1, 2, 3], at: Int64(number) * 8192), "hole")
            try need(volume.fsync(holes), "fsync")
        }
        try need(volume.close(holes), "close")
        let few = volume.open("/few", create | readWrite)
        for number in 0..<3 { try need(volume.write(few, [UInt8](repeating: 7, count: 8192), at: Int64(number) * 16384), "few") }
        try need(volume.fsync(few), "fsync")
        try need(volume.close(few), "close")
        try need(volume.run(.link, "/d/file1", "/a/again").result, "link")
        try need(volume.run(.symlink, "/a/sym", "../d/file1").result, "symlink")
        try need(volume.run(.mknod, "/a/fifo") { $0.mode = 0o010644 }.result, "mknod")
        var value = [UInt8](repeating: 5, count: 6000)
        try need(
            unsafe value.withUnsafeMutableBytes { raw in
                volume.run(.setxattr, "/few", "user.note") {
                    unsafe $0.buffer = raw.baseAddress
                    $0.bufferLength = 6000
                }.result
            }, "setxattr")
        var inodes: [String: UInt64] = [:]
        for name in ["/", "/d", "/a", "/a/b", "/a/b/c", "/holes", "/few", "/d/file1", "/d/file3", "/d/file100", "/d/file101", "/a/sym", "/a/fifo"] {
            let status = volume.status(name, follow: false)
            try need(status.result, name)
            inodes[name] = status.status.inode
        }
        let orphan = volume.open("/orphan", create | readWrite)
        inodes["orphan"] = volume.status("/orphan").status.inode
        try need(volume.run(.unlink, "/orphan").result, "unlink")
        _ = orphan
        volume.unmount()
        return Made(bytes: device.contents, inodes: inodes)
    }
}

/// A copy of the specimen, with its structures at hand.
@safe private final class Patient {
    let device: MemoryDevice
    let superblock: Superblock
    let geometry: Geometry
    let inodes: [String: UInt64]

    init() throws {
        let specimen = try Specimen.made.get()
        device = try MemoryDevice(size: UInt64(specimen.bytes.count))
        unsafe device.bytes.copyBytes(from: specimen.bytes)
        superblock = try Volume.readSuperblock(BlockingDevice(try device.makeQueue(depth: 4)), deviceBlocks: device.capabilities.blockCount)
        geometry = Geometry(superblock)
        inodes = specimen.inodes
    }

    func block(_ address: UInt64) -> Bytes {
        guard let base = unsafe device.bytes.baseAddress else { fatalError("no memory") }
        return unsafe Bytes(base + Int(address) * BlockLayout.size, count: BlockLayout.size, writable: true)
    }

    /// Changes a metadata block and gives it the right checksum again.
    func edit(_ address: UInt64, _ change: (Bytes) -> Void) {
        let bytes = block(address)
        change(bytes)
        unsafe BlockLayout.seal(bytes.pointer)
    }

    func number(_ name: String) throws -> UInt64 { try #require(inodes[name]) }

    func inode(_ name: String) throws -> Inode {
        let number = try number(name)
        let (address, offset) = geometry.location(ofInode: number)
        return Inode(number: number, cell: block(address).slice(offset, InodeLayout.size))
    }

    func edit(inode name: String, _ change: (Inode) -> Void) throws {
        let number = try number(name)
        let (address, offset) = geometry.location(ofInode: number)
        edit(address) { change(Inode(number: number, cell: $0.slice(offset, InodeLayout.size))) }
    }

    /// The leaf and slot of the entry that names the inode.
    func entry(of target: String, in directory: String) throws -> (leaf: UInt64, slot: Int) {
        var pending = [try inode(directory).root]
        while let address = pending.popLast() {
            let node = Node(block: address, bytes: block(address))
            for slot in 0..<node.count {
                if node.level > 0 { pending.append(node.value(slot)) } else if node.value(slot) == (try number(target)) { return (address, slot) }
            }
        }
        throw VolumeError(errno: 2, "no entry of \(target) in \(directory)")
    }

    func editEntry(of target: String, in directory: String, _ change: (Node, Int) -> Void) throws {
        let (leaf, slot) = try entry(of: target, in: directory)
        edit(leaf) { change(Node(block: leaf, bytes: $0), slot) }
    }

    func check() throws -> [Finding] { try VolumeChecker(device).run() }

    /// What kinds of findings there are.
    func kinds() throws -> [Finding.Kind] { try check().map(\.kind).sorted { $0.rawValue < $1.rawValue } }

    /// Every block that is metadata and in use, by its header.
    var metadata: [UInt64] {
        var found: [UInt64] = []
        for group in 0..<geometry.groupCount {
            let start = geometry.start(ofGroup: group)
            let tableEnd = start + 2 + UInt64(block(start).u32(GroupLayout.initializedAt))
            for address in start..<start + UInt64(geometry.blocks(inGroup: group)) {
                let offset = Int(address - start)
                let isUsed = block(start + 1).u8(GroupLayout.blockBitmapAt + offset / 8) >> UInt8(offset % 8) & 1 == 1
                if address < tableEnd || offset >= geometry.groupOverhead && isUsed {
                    let bytes = block(address)
                    if bytes.u32(0) == BlockLayout.magic && bytes.u64(8) == address { found.append(address) }
                }
            }
        }
        return found
    }
}

@Suite struct CheckerTests {
    @Test func aSoundVolumeHasNoFindings() throws {
        let patient = try Patient()
        let findings = try patient.check()
        #expect(findings.isEmpty, "\(findings.map(\.description))")
        // The specimen is worth checking.
        #expect(patient.block(try patient.inode("/d").root).u8(BlockLayout.levelAt) >= 2)
        #expect(try patient.inode("/holes").mapping == InodeLayout.Mapping.tree)
        #expect(patient.block(try patient.inode("/holes").root).u8(BlockLayout.levelAt) >= 1)
        let checker = try VolumeChecker(patient.device)
        let clock = ContinuousClock()
        _ = checker.run()
        #expect(checker.summary.directories == 5)
        #expect(checker.summary.files == 153)
        #expect(checker.summary.others == 2)
        let time = try clock.measure { for _ in 0..<20 { _ = try VolumeChecker(patient.device).run() } }
        print("a check of \(patient.device.capabilities.description) takes \(time / 20)")
    }

    @Test func anEmptyVolumeHasNoFindings() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        #expect(try VolumeChecker(device).run() == [])
    }

    @Test func nothingThatIsAVolumeIsSaidSo() throws {
        let device = try MemoryDevice(size: 8 << 20)
        #expect(try VolumeChecker(device).run().map(\.kind) == [.noVolume])
        #expect(try VolumeChecker(MemoryDevice(size: 4096)).run().map(\.kind) == [.noVolume])
    }

    @Test func superblocksAreCheckedBoth() throws {
        let first = try Patient()
        first.block(0).set(100, UInt8(1))
        #expect(try first.kinds() == [.superblockCopy])
        let second = try Patient()
        second.block(second.superblock.blockCount - 1).set(100, UInt8(1))
        #expect(try second.kinds() == [.superblockCopy])
        second.block(0).set(100, UInt8(1))
        #expect(try second.check().map(\.severity) == [.fatal])
        let unknown = try Patient()
        for address in [0, unknown.superblock.blockCount - 1] { unknown.edit(address) { $0.set(112, UInt64(4)) } }
        #expect(try unknown.kinds() == [.superblock])
    }

    @Test func aWrongChecksumIsTheOnlyFinding() throws {
        for address in try Patient().metadata.filter({ $0 % 3 == 0 }) {
            let patient = try Patient()
            patient.device[Int(address) * 4096 + 4000] ^= 0x10
            let kinds = try patient.kinds()
            #expect(kinds == [.damagedBlock], "block \(address)")
        }
    }

    @Test func countersAndBitmapsAreCompared() throws {
        let counter = try Patient()
        counter.edit(counter.geometry.start(ofGroup: 1)) { $0.set(GroupLayout.freeBlocksAt, $0.u32(GroupLayout.freeBlocksAt) - 1) }
        #expect(try counter.kinds() == [.groupCounter])
        let inodeCounter = try Patient()
        inodeCounter.edit(inodeCounter.geometry.start(ofGroup: 0)) { $0.set(GroupLayout.freeInodesAt, $0.u32(GroupLayout.freeInodesAt) - 1) }
        #expect(try inodeCounter.kinds() == [.groupCounter])
        let leak = try Patient()
        let bitmap = leak.geometry.start(ofGroup: 3) + 1
        leak.edit(bitmap) { $0.set(64 + 200, UInt8(0xFF)) }
        let found = try leak.check()
        #expect(found.map(\.kind) == [.leakedBlocks] && found.first?.block == bitmap - 1 + 1600)
        let unmarked = try Patient()
        let used = try unmarked.inode("/few").inline.u64(8)
        let group = unmarked.geometry.group(ofBlock: used)
        let offset = Int(used - unmarked.geometry.start(ofGroup: group))
        unmarked.edit(unmarked.geometry.start(ofGroup: group) + 1) { $0.set(64 + offset / 8, $0.u8(64 + offset / 8) & ~(1 << UInt8(offset % 8))) }
        #expect(try unmarked.check().map { [$0.kind == .unmarkedBlocks, $0.block == used] } == [[true, true]])
    }

    @Test func theInodeBitmapIsCompared() throws {
        let patient = try Patient()
        let number = try patient.number("/d/file3")
        let group = patient.geometry.group(ofInode: number)
        let index = Int((number - 1) % UInt64(patient.geometry.inodesPerGroup))
        let at = GroupLayout.inodeBitmapAt + index / 8
        patient.edit(patient.geometry.start(ofGroup: group)) { $0.set(at, $0.u8(at) & ~(1 << UInt8(index % 8))) }
        #expect(try patient.check().map { [$0.kind == .inodeBitmap, $0.inode == number, $0.path == "/d/file3"] } == [[true, true, true]])
        let late = try Patient()
        late.edit(late.geometry.start(ofGroup: 3)) { $0.set(GroupLayout.inodeBitmapAt + 40, UInt8(2)) }
        #expect(try late.kinds() == [.inodeBitmap])
    }

    @Test func fieldsOfInodesAreCompared() throws {
        func kinds(_ name: String, _ change: (Inode) -> Void) throws -> [Finding.Kind] {
            let patient = try Patient()
            try patient.edit(inode: name, change)
            return try patient.kinds()
        }
        #expect(try kinds("/d/file3") { $0.links += 1 } == [.linkCount])
        #expect(try kinds("/d/file1") { $0.links -= 1 } == [.linkCount])
        #expect(try kinds("/a") { $0.links += 1 } == [.linkCount])
        #expect(try kinds("/few") { $0.blocks += 1 } == [.blockCount])
        #expect(try kinds("/d") { $0.blocks -= 1 } == [.blockCount])
        #expect(try kinds("/d/file1") { $0.size = 3 } == [.size])
        #expect(try kinds("/a/sym") { $0.size += 1 } == [.size])
        #expect(try kinds("/a/fifo") { $0.size = 1 } == [.size])
        #expect(try kinds("/d") { $0.entries += 1 } == [.entryCount])
        #expect(try kinds("/a/b") { $0.parent = 2 } == [.parent])
        #expect(try kinds("/d/file3") { $0.modificationTime = Timestamp(seconds: 1, nanoseconds: 1_000_000_000) } == [.inode])
        #expect(try kinds("/d/file3") { $0.mode = Mode.fifo | 0o644 } == [.entryType, .size])
        #expect(try kinds("/d/file3") { $0.links = 0 } == [.orphan])
        #expect(try kinds("orphan") { $0.links = 1 } == [.orphan])
        #expect(try kinds("/a/b") { $0.root = 5 } == [.tree, .leakedBlocks].filter { $0 == .tree })
    }

    @Test func entriesAreComparedWithWhatTheyName() throws {
        func kinds(_ target: String, _ directory: String, _ change: (Node, Int) -> Void) throws -> [Finding.Kind] {
            let patient = try Patient()
            try patient.editEntry(of: target, in: directory, change)
            return try patient.kinds()
        }
        let unused = try Patient().geometry.inodeCount
        let target = try Patient().number("/d/file101")
        func name(_ node: Node, _ slot: Int, inode: UInt64) { node.setSlot(slot, key: node.key(slot), value: inode, auxiliary: node.auxiliary(slot)) }
        #expect(try kinds("/d/file100", "/d") { node, slot in node.name(slot).set(0, UInt8(0x78)) } == [.entryName])
        #expect(try kinds("/d/file100", "/d") { node, slot in node.name(slot).set(2, UInt8(0x2F)) } == [.entryName])
        #expect(
            try kinds("/d/file100", "/d") { node, slot in
                node.setSlot(slot, key: node.key(slot), value: node.value(slot), auxiliary: node.auxiliary(slot) & 0xFFFF_FFFF | 4 << 32)
            } == [.entryType])
        #expect(try kinds("/d/file100", "/d") { node, slot in name(node, slot, inode: unused) } == [.danglingEntry, .unreachable])
        #expect(try kinds("/d/file100", "/d") { node, slot in name(node, slot, inode: target) } == [.linkCount, .unreachable])
        #expect(try kinds("/a/b/c", "/a/b") { node, slot in name(node, slot, inode: 2) } == [.danglingEntry, .linkCount, .unreachable])
    }

    @Test func directoriesThatLieInEachOtherAreFound() throws {
        let patient = try Patient()
        let (outer, inner) = (try patient.number("/a"), try patient.number("/a/b/c"))
        let first = try patient.entry(of: "/a", in: "/")
        let second = try patient.entry(of: "/a/b/c", in: "/a/b")
        for (place, value) in [(first, inner), (second, outer)] {
            let (leaf, slot) = place
            patient.edit(leaf) {
                let node = Node(block: leaf, bytes: $0)
                node.setSlot(slot, key: node.key(slot), value: value, auxiliary: node.auxiliary(slot))
            }
        }
        #expect(try patient.kinds() == [.cycle, .parent, .parent])
    }

    @Test func treesAreCheckedAgainstTheirParents() throws {
        let separators = try Patient()
        let root = try separators.inode("/d").root
        separators.edit(root) {
            let node = Node(block: root, bytes: $0)
            node.setSlot(1, key: node.key(1) + 1, value: node.value(1), auxiliary: 0)
        }
        let kinds = Set(try separators.kinds())
        #expect(kinds == [.tree])
        let owner = try Patient()
        let child = Node(block: root, bytes: owner.block(root)).value(0)
        owner.edit(child) { $0.set(BlockLayout.ownerAt, UInt64(77)) }
        #expect(try owner.kinds() == [.tree])
        let circle = try Patient()
        circle.edit(root) {
            let node = Node(block: root, bytes: $0)
            node.setSlot(0, key: node.key(0), value: root, auxiliary: 0)
        }
        #expect(try circle.kinds() == [.sharedBlocks])
    }

    @Test func extentsAreCheckedForOrderAndPlace() throws {
        func kinds(_ slot: Int, _ field: Int, _ value: (Inode) -> UInt64) throws -> [Finding.Kind] {
            let patient = try Patient()
            try patient.edit(inode: "/few") { $0.inline.set(slot * 24 + field, value($0)) }
            return try patient.kinds()
        }
        let sound = try Patient()
        #expect(try sound.inode("/few").inlineCount == 3)
        #expect(try sound.check() == [])
        #expect(try kinds(1, 0) { $0.inline.u64(0) } == [.mapping])
        #expect(try kinds(1, 8) { _ in 3 } == [.mapping])
        #expect(try kinds(1, 8) { _ in .max } == [.mapping])
        #expect(try kinds(1, 8) { $0.inline.u64(8) } == [.leakedBlocks, .sharedBlocks])
    }

    @Test func attributesAreParsed() throws {
        func kinds(_ change: (Bytes) -> Void) throws -> [Finding.Kind] {
            let patient = try Patient()
            patient.edit(try patient.inode("/few").attributeBlock, change)
            return try patient.kinds()
        }
        #expect(try kinds { $0.set(76, UInt16(0)) } == [.attributes])
        #expect(try kinds { $0.set(78, UInt32(60_000)) } == [.attributes])
        #expect(try kinds { $0.set(72, UInt32(100)) } == [.attributes])
        #expect(try kinds { $0.set(72, UInt32.max) } == [.attributes])
        #expect(try kinds { $0.set(BlockLayout.ownerAt, UInt64(3)) } == [.attributes])
        #expect(try kinds { $0.set(64, UInt64(1)) } == [.attributes])
    }

    @Test func aVolumeInUseIsCheckedAsItsRecoveryLeavesItAndNotWritten() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        let volume = try VolumeHarness(device)
        for number in 0..<100 {
            let handle = volume.open("/file\(number)", 0o102)
            #expect(volume.write(handle, [UInt8](repeating: 1, count: 5000)) == 5000)
            #expect(volume.fsync(handle) == 0)
            #expect(volume.close(handle) == 0)
            if number % 3 == 0 { #expect(volume.run(.unlink, "/file\(number)").result == 0) }
        }
        let before = device.contents
        let checker = try VolumeChecker(device)
        #expect(checker.run() == [])
        #expect(checker.summary.replayedRecords > 0)
        let same = device.contents == before
        #expect(same)
    }

    @Test func everyFlippedByteOfMetadataIsFound() throws {
        let seed: UInt64 = 20_261_123
        print("seed \(seed)")
        var random = SeededRandom(seed: seed)
        let patient = try Patient()
        let blocks = patient.metadata + [0, patient.superblock.blockCount - 1]
        for _ in 0..<3000 {
            let at = Int(blocks[Int(random.next() % UInt64(blocks.count))]) * 4096 + Int(random.next() % 4096)
            let flip = UInt8(truncatingIfNeeded: random.next()) | 1
            patient.device[at] ^= flip
            let isFound = try !patient.check().isEmpty
            #expect(isFound, "byte \(at % 4096) of block \(at / 4096) with \(flip)")
            patient.device[at] ^= flip
        }
        #expect(try patient.check() == [])
    }

    @Test func mutationsWithRightChecksumsDoNotTrap() throws {
        let seed: UInt64 = 4711
        print("seed \(seed)")
        var random = SeededRandom(seed: seed)
        let patient = try Patient()
        let blocks = patient.metadata + [0]
        var found = 0
        let interesting: [UInt64] = [0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, .max, 1 << 51, 4096]
        for _ in 0..<5000 {
            var saved: [(UInt64, [UInt8])] = []
            for _ in 0...random.next() % 3 {
                let address = blocks[Int(random.next() % UInt64(blocks.count))]
                saved.append((address, unsafe Array(UnsafeRawBufferPointer(start: patient.block(address).pointer, count: 4096))))
                let value = random.next() % 3 == 0 ? random.next() : interesting[Int(random.next() % UInt64(interesting.count))]
                let width = random.next() % 4
                let at = Int(random.next() % (random.next() % 2 == 0 ? 4096 : 200)) & ~((1 << Int(width)) - 1)
                patient.edit(address) {
                    switch width {
                    case 0: $0.set(at, UInt8(truncatingIfNeeded: value))
                    case 1: $0.set(at, UInt16(truncatingIfNeeded: value))
                    case 2: $0.set(at, UInt32(truncatingIfNeeded: value))
                    default: $0.set(at, value)
                    }
                }
            }
            if try !patient.check().isEmpty { found += 1 }
            for (address, bytes) in saved.reversed() {
                unsafe bytes.withUnsafeBytes { source in
                    if let base = source.baseAddress { unsafe patient.block(address).copy(0, from: base, 4096) }
                }
            }
        }
        #expect(found > 1000)
        #expect(try patient.check() == [])
    }
}
