/// Large things: directories, sparse files, names, links, attributes.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct LimitsTests {
    private func volume(blocks: Int = 4 * 2048) throws -> VolumeHarness {
        let device = try MemoryDevice(size: UInt64(256 + blocks + 2) * 4096)
        try VolumeHarness.format(device, blocksPerGroup: blocks / 4, inodes: UInt64(blocks))
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 2048
        return try VolumeHarness(device, configuration: configuration)
    }

    /// Accesses of blocks stand for the cost: they do not depend on the machine.
    @Test func aDirectoryOfAMillionCostsHardlyMoreThanOneOfAThousand() throws {
        let device = try MemoryDevice(size: UInt64(8192 + 34 * 32_256 + 2) * 4096)
        try VolumeHarness.format(device, blocksPerGroup: 32_256, journalBlocks: 8192, inodes: 1_050_000)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 32_768
        let volume = try VolumeHarness(device, configuration: configuration)
        var cost: [Int: (create: Int, lookup: Int)] = [:]
        var made = 0
        for size in [1000, 1_000_000] {
            while made < size {
                let result = volume.run(.mknod, "/n\(made)") { $0.mode = 0o100644 }.result
                guard result == 0 else {
                    Issue.record("entry \(made): \(result)")
                    return
                }
                made += 1
            }
            volume.volume.forceMissAt = Int.max
            var sums = (create: 0, lookup: 0)
            for number in 0..<100 {
                #expect(volume.run(.mknod, "/x\(size)-\(number)") { $0.mode = 0o100644 }.result == 0)
                sums.create += volume.volume.lastAccesses
                #expect(volume.status("/n\(number * (size / 100) + 7)").result == 0)
                sums.lookup += volume.volume.lastAccesses
            }
            volume.volume.forceMissAt = -1
            cost[size] = sums
        }
        if let small = cost[1000], let large = cost[1_000_000] {
            print("accesses per create and lookup: \(Double(small.create) / 100), \(Double(small.lookup) / 100) at 1,000; "
                + "\(Double(large.create) / 100), \(Double(large.lookup) / 100) at 1,000,000")
            #expect(large.create <= small.create * 2)
            #expect(large.lookup <= small.lookup * 2)
        }
        #expect(volume.volume.deepestDirectory >= 3)
        #expect(volume.run(.unlink, "/n500000").result == 0)
        #expect(volume.status("/n500000").result == -2)
        volume.unmount()
        #expect(try VolumeChecker(device).run() == [])
    }

    @Test func aSparseFileOfEightTebibytes() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        let volume = try VolumeHarness(device)
        let handle = volume.open("/sparse", 0o102)
        let end: Int64 = 8 << 40
        let places = [0, end / 3, end - 5]
        for place in places { #expect(volume.write(handle, [1, 2, 3, 4, 5], at: place) == 5) }
        #expect(volume.fsync(handle) == 0)
        #expect(volume.status("/sparse").status.size == end)
        #expect(volume.status("/sparse").status.blocks < 200)
        #expect(volume.read(handle, 7, at: end - 7).bytes == [0, 0, 1, 2, 3, 4, 5])
        #expect(volume.read(handle, 4, at: end / 2).bytes == [0, 0, 0, 0])
        func seek(_ offset: Int64, _ whence: UInt32) -> Int64 {
            volume.run(.seek) {
                $0.handle = Int32(handle)
                $0.offset = offset
                $0.flags = whence
            }.result
        }
        let (data, hole): (UInt32, UInt32) = (3, 4)
        let page = { (place: Int64) in place / 4096 * 4096 }
        #expect(seek(0, data) == 0 && seek(0, hole) == 4096)
        #expect(seek(4096, data) == page(end / 3) && seek(4096, hole) == 4096)
        #expect(seek(end / 3, hole) == page(end / 3) + 4096)
        #expect(seek(end / 3 + 4096, data) == page(end - 5))
        #expect(seek(end - 5, hole) == end && seek(end, data) == -6)
        // Growing, cutting in the middle of a hole, of a block, and to nothing.
        #expect(volume.truncate("/sparse", Int64.max) == 0 && volume.truncate("/sparse", end / 2) == 0)
        #expect(seek(end / 3 + 4096, data) == -6)
        #expect(volume.truncate("/sparse", end / 3 + 2) == 0 && volume.truncate("/sparse", end) == 0)
        #expect(volume.read(handle, 5, at: end / 3).bytes == [1, 2, 0, 0, 0])
        #expect(volume.read(handle, 5, at: end - 5).bytes == [0, 0, 0, 0, 0])
        volume.unmount()
        #expect(try VolumeChecker(device).run() == [])
        let again = try VolumeHarness(device)
        #expect(again.truncate("/sparse", 3) == 0)
        #expect(again.read(again.open("/sparse"), 10, at: 0).bytes == [1, 2, 3])
        #expect(again.status("/sparse").status.blocks == 8)
        again.unmount()
        #expect(try VolumeChecker(device).run() == [])
    }

    @Test func longNamesTargetsAndAttributes() throws {
        let volume = try volume()
        let name = "/" + String(repeating: "n", count: 255)
        #expect(volume.run(.mkdir, name) { $0.mode = 0o755 }.result == 0)
        #expect(volume.run(.mkdir, name + "n") { $0.mode = 0o755 }.result == -36)
        #expect(volume.run(.mknod, name + name) { $0.mode = 0o100644 }.result == 0)
        let target = String(repeating: "t", count: 4095)
        #expect(volume.run(.symlink, "/link", target).result == 0)
        #expect(volume.target("/link") == target)
        #expect(volume.run(.symlink, "/link2", target + "t").result == -36)
        let value = VolumeWorkload.bytes(65_000, seed: 3)
        #expect(volume.setAttribute("/link", "user.a", value) == -36, "the target is one name of 4095 bytes")
        #expect(volume.setAttribute(name, "user.a", value) == 0)
        let same = volume.attribute(name, "user.a") == value
        #expect(same)
        #expect(volume.setAttribute(name, "user.b", value) == -28, "one inode's attributes together are limited")
        #expect(volume.setAttribute(name, "user." + String(repeating: "x", count: 251), [1]) == -34)
        for number in 0..<500 { #expect(volume.run(.link, name + name, "/hard\(number)").result == 0) }
        #expect(volume.status("/hard499").status.links == 501)
        volume.unmount()
    }
}
