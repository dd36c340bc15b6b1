// Another program, in another language, written from docs/FORMAT.md alone, reads what the volume wrote: after an orderly end and after a kill.
import BlockDevice
import Foundation
import TestSupport
import Testing
import Volume

@Suite("A second reader, written from the format's page, reads the volume")
struct SecondReaderTests {
    static let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Programs/second_reader.py").path

    static func read(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", Self.script] + arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let bytes = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: bytes, as: UTF8.self))
    }

    func read(_ arguments: [String]) throws -> (status: Int32, output: String) { try Self.read(arguments) }

    /// A formatted device in memory and a directory, removed at the end, in which `image` writes down what the device holds.
    func withDevice(_ body: (_ directory: String, _ device: MemoryDevice, _ image: () throws -> String) throws -> Void) throws {
        let directory = NSTemporaryDirectory() + "/second-reader-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        try body(directory, device) {
            try Data(device.contents).write(to: URL(fileURLWithPath: directory + "/image"))
            return directory + "/image"
        }
    }

    /// Random changes of few names, with what each file must hold.
    func work(_ volume: VolumeHarness, seed: UInt64, operations: Int) -> [String: [UInt8]] {
        var random = SeededGenerator(seed)
        var expected: [String: [UInt8]] = [:]
        let create: UInt32 = 0o100 | 2
        for directory in ["/d", "/d/e", "/many"] { #expect(volume.run(.mkdir, directory) { $0.mode = 0o755 }.result == 0) }
        for number in 0..<600 {
            let name = "/many/a name of some length, so that leaves fill soon \(number)"
            let handle = volume.open(name, create)
            #expect(handle >= 0 && volume.close(handle) == 0)
            expected[name] = []
        }
        for step in 0..<operations {
            let name = ["", "/d", "/d/e"][random.below(3)] + "/file\(random.below(12))"
            let other = ["", "/d", "/d/e"][random.below(3)] + "/file\(random.below(12))"
            switch random.below(8) {
            case 0...3:
                let handle = volume.open(name, create)
                #expect(handle >= 0)
                let place = [random.below(400), random.below(100_000), 4096 * random.below(60)][random.below(3)]
                let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: step | 1), count: 1 + random.below(random.below(4) == 0 ? 60_000 : 5000))
                #expect(volume.write(handle, bytes, at: Int64(place)) == Int64(bytes.count))
                var content = expected[name] ?? []
                if content.count < place + bytes.count { content += [UInt8](repeating: 0, count: place + bytes.count - content.count) }
                content.replaceSubrange(place..<(place + bytes.count), with: bytes)
                expected[name] = content
                if random.below(3) == 0 { #expect(volume.fsync(handle) == 0) }
                #expect(volume.close(handle) == 0)
            case 4:
                #expect(volume.run(.unlink, name).result == (expected[name] == nil ? -2 : 0))
                expected[name] = nil
            case 5:
                if name == other { continue }
                #expect(volume.run(.rename, name, other).result == (expected[name] == nil ? -2 : 0))
                if let moved = expected.removeValue(forKey: name) { expected[other] = moved }
            case 6:
                guard var content = expected[name] else { continue }
                let size = random.below(80_000)
                #expect(
                    volume.run(.setattr, name) {
                        $0.attributes.mask = .size
                        $0.attributes.size = Int64(size)
                    }.result == 0)
                content = content.count > size ? Array(content.prefix(size)) : content + [UInt8](repeating: 0, count: size - content.count)
                expected[name] = content
            default:
                var value = [UInt8](repeating: UInt8(truncatingIfNeeded: step), count: random.below(2000))
                let count = value.count
                let result = unsafe value.withUnsafeMutableBytes { raw in
                    volume.run(.setxattr, name, "user.note\(random.below(3))") {
                        unsafe $0.buffer = raw.baseAddress
                        $0.bufferLength = count
                    }.result
                }
                #expect(result == (expected[name] == nil ? -2 : 0))
            }
        }
        #expect(volume.run(.symlink, "/link", "d/file1").result == 0)
        #expect(volume.run(.symlink, "/long link", String(repeating: "./", count: 1000) + "d").result == 0)
        #expect(volume.run(.mknod, "/node") { $0.mode = 0o20600; $0.argument = 0x103 }.result == 0)
        return expected
    }

    func expectSame(_ directory: String, _ image: String, _ expected: [String: [UInt8]]) throws {
        let copy = directory + "/copy"
        try? FileManager.default.removeItem(atPath: copy)
        let reading = try read(["--extract", image, copy])
        #expect(reading.status == 0, "\(reading.output.suffix(3000))")
        for (name, bytes) in expected {
            let same = try [UInt8](Data(contentsOf: URL(fileURLWithPath: copy + name))) == bytes
            #expect(same, "\(name)")
        }
        let links = ["/link": "d/file1", "/long link": String(repeating: "./", count: 1000) + "d"]
        for (name, text) in links {
            let listed = reading.output.split(separator: "\n").contains { $0.hasPrefix(name + "\tl 0777") && $0.hasSuffix("-> " + text) }
            #expect(listed, "\(name)")
        }
        let names = reading.output.split(separator: "\n").filter { $0.hasPrefix("/") }.count
        #expect(names == expected.count + 3 + links.count + 1)
    }

    @Test("After an orderly end it finds every file with its bytes, and nothing wrong", arguments: [UInt64(1), 2, 3])
    func afterAnOrderlyEnd(_ seed: UInt64) throws {
        try withDevice { directory, device, image in
            let volume = try VolumeHarness(device)
            let expected = work(volume, seed: seed, operations: 1500)
            volume.unmount()
            try expectSame(directory, image(), expected)
        }
    }

    @Test("After a kill it replays the journal, and finds all that was synced", arguments: [UInt64(4), 5, 6])
    func afterAKill(_ seed: UInt64) throws {
        try withDevice { directory, device, image in
            let volume = try VolumeHarness(device)
            let expected = work(volume, seed: seed, operations: 1500)
            #expect(volume.run(.sync).result == 0)
            try expectSame(directory, image(), expected)
            // What was not synced may be there or not; what is there is sound.
            _ = volume.run(.mkdir, "/later") { $0.mode = 0o755 }
            volume.settle()
            let reading = try read([image()])
            #expect(reading.status == 0, "\(reading.output.suffix(3000))")
        }
    }

    @Test("It finds a wrong byte in each kind of metadata block")
    func wrongBytes() throws {
        try withDevice { directory, device, image in
            let volume = try VolumeHarness(device)
            _ = work(volume, seed: 7, operations: 300)
            volume.unmount()
            let whole = Data(device.contents)
            var kinds: Set<UInt8> = []
            func number(_ at: Int, _ bytes: Int) -> Int { (0..<bytes).reduce(0) { $0 | Int(whole[at + $1]) << (8 * $1) } }
            let (groupStart, blocksPerGroup) = (number(144, 8), number(160, 4))
            // What was freed keeps its old header; nobody reads it.
            func isInUse(_ block: Int) -> Bool {
                guard block >= groupStart, block < whole.count / 4096 - 1 else { return true }
                let (group, bit) = (block - groupStart).quotientAndRemainder(dividingBy: blocksPerGroup)
                return whole[(groupStart + group * blocksPerGroup + 1) * 4096 + 64 + bit / 8] & 1 << UInt8(bit % 8) != 0
            }
            for block in 0..<(whole.count / 4096) where isInUse(block) {
                let kind = whole[block * 4096 + 16]
                let isMetadata = Array(whole[(block * 4096)..<(block * 4096 + 4)]) == [0x44, 0x53, 0x48, 0x46]
                let ownAddress = (0..<8).reduce(0) { $0 | Int(whole[block * 4096 + 8 + $1]) << (8 * $1) }
                guard isMetadata, ownAddress == block, kinds.insert(kind).inserted else { continue }
                var damaged = whole
                damaged[block * 4096 + 200] ^= 0x10
                let other = directory + "/damaged"
                try damaged.write(to: URL(fileURLWithPath: other))
                let reading = try read([other])
                #expect(reading.status == 1 && reading.output.contains("WRONG:"), "kind \(kind) at block \(block): \(reading.status) \(reading.output.suffix(500))")
            }
            #expect(kinds.isSuperset(of: [1, 2, 3, 4, 5, 7]), "\(kinds)")
        }
    }
}

/// Images of other tests, for the second reader: files that go with this object.
final class Images {
    private let directory: String
    private var paths: [String] = []

    init() throws {
        directory = NSTemporaryDirectory() + "/images-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    func add(_ device: MemoryDevice) throws {
        let path = directory + "/\(paths.count)"
        let file = unsafe open(path, O_CREAT | O_WRONLY, 0o600)
        defer { close(file) }
        guard file >= 0, unsafe ftruncate(file, device.bytes.count) == 0 else { throw VolumeError(errno: errno, path) }
        // Blocks of zeros stay holes.
        for offset in unsafe stride(from: 0, to: device.bytes.count, by: 4096) {
            let block = unsafe UnsafeRawBufferPointer(rebasing: device.bytes[offset..<offset + 4096])
            if unsafe !block.contains(where: { $0 != 0 }) { continue }
            guard unsafe pwrite(file, block.baseAddress, 4096, off_t(offset)) == 4096 else { throw VolumeError(errno: errno, path) }
        }
        paths.append(path)
    }

    /// Status 0 where nothing is wrong with any of them.
    func read() throws -> (status: Int32, output: String) { try SecondReaderTests.read(["--all"] + paths) }
}

/// splitmix64: a seed gives the same numbers everywhere.
private struct SeededGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func below(_ limit: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var x = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        x = (x ^ (x >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int(truncatingIfNeeded: (x ^ (x >> 31)) % UInt64(limit))
    }
}
