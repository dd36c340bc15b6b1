import BlockDevice
import TestSupport
import Testing
import Volume

private let create: UInt32 = 0o100
private let readWrite: UInt32 = 2

@Suite struct FirstStepsTests {
    func makeVolume() throws -> VolumeHarness {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        return try VolumeHarness(device)
    }

    @Test func emptyRootHasNoEntries() throws {
        let volume = try makeVolume()
        #expect(volume.list("/").isEmpty)
        let root = volume.status("/")
        #expect(root.result == 0 && root.status.mode == 0o40755 && root.status.links == 2)
    }

    @Test func writtenBytesAreReadBack() throws {
        let volume = try makeVolume()
        let handle = volume.open("/file", create | readWrite)
        #expect(handle >= 0)
        for count in [1, 300, 5000, 100_000, 1_000_000] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ count) }
            #expect(volume.write(handle, bytes, at: 0) == Int64(count))
            let back = volume.read(handle, count, at: 0)
            let same = back.bytes == bytes
            #expect(back.result == Int64(count) && same)
        }
        #expect(volume.status("/file").status.size == 1_000_000)
        #expect(volume.fsync(handle) == 0)
        #expect(volume.close(handle) == 0)
    }

    @Test func contentSurvivesARemount() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        var expected: [String: [UInt8]] = [:]
        do {
            let volume = try VolumeHarness(device)
            #expect(volume.run(.mkdir, "/d") { $0.mode = 0o755 }.result == 0)
            for number in 0..<200 {
                let name = "/d/file\(number)"
                let handle = volume.open(name, create | readWrite)
                #expect(handle >= 0)
                let bytes = [UInt8](repeating: UInt8(number), count: number * 97)
                #expect(volume.write(handle, bytes) == Int64(bytes.count))
                #expect(volume.close(handle) == 0)
                expected[name] = bytes
            }
            for number in stride(from: 0, to: 200, by: 3) {
                #expect(volume.run(.unlink, "/d/file\(number)").result == 0)
                expected["/d/file\(number)"] = nil
            }
            volume.unmount()
        }
        let volume = try VolumeHarness(device)
        #expect(volume.list("/d").map { "/d/" + $0.name } == expected.keys.sorted())
        for (name, bytes) in expected {
            let handle = volume.open(name)
            let same = volume.read(handle, 100_000).bytes == bytes
            #expect(same, "\(name)")
            #expect(volume.close(handle) == 0)
        }
    }

    @Test func aKilledServerLosesNothingThatWasSynced() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        do {
            let volume = try VolumeHarness(device)
            for number in 0..<300 {
                let handle = volume.open("/file\(number)", create | readWrite)
                #expect(volume.write(handle, [UInt8](repeating: UInt8(number % 251), count: 4096)) == 4096)
                #expect(volume.fsync(handle) == 0)
                #expect(volume.close(handle) == 0)
            }
        }
        let volume = try VolumeHarness(device)
        #expect(volume.list("/").count == 300)
        for number in 0..<300 {
            let handle = volume.open("/file\(number)")
            #expect(handle >= 0, "\(volume.volume.takeNotes())")
            let same = volume.read(handle, 5000).bytes == [UInt8](repeating: UInt8(number % 251), count: 4096)
            #expect(same, "file \(number)")
            #expect(volume.close(handle) == 0)
        }
    }

    @Test func removedFilesGiveTheirSpaceBack() throws {
        let volume = try makeVolume()
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
        let before = free()
        for round in 0..<10 {
            let handle = volume.open("/big", create | readWrite)
            let bytes = [UInt8](repeating: UInt8(round), count: 1 << 20)
            for _ in 0..<10 { #expect(volume.write(handle, bytes) == 1 << 20) }
            #expect(volume.close(handle) == 0)
            #expect(volume.run(.unlink, "/big").result == 0, "\(volume.volume.takeNotes())")
            _ = volume.run(.sync)
            volume.settle()
        }
        #expect(free() == before)
    }
}
