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
    @Test func aLargeDirectoryCostsHardlyMoreThanASmallOne() throws {
        let volume = try volume(blocks: 4 * 8192)
        var cost: [Int: (create: Int, lookup: Int)] = [:]
        var made = 0
        for size in [1000, 20_000] {
            while made < size {
                #expect(volume.run(.mknod, "/n\(made)") { $0.mode = 0o100644 }.result == 0)
                made += 1
            }
            volume.volume.forceMissAt = Int.max
            var sums = (create: 0, lookup: 0)
            for number in 0..<50 {
                #expect(volume.run(.mknod, "/x\(size)-\(number)") { $0.mode = 0o100644 }.result == 0)
                sums.create += volume.volume.lastAccesses
                #expect(volume.status("/n\(number * 7 + 13)").result == 0)
                sums.lookup += volume.volume.lastAccesses
            }
            volume.volume.forceMissAt = -1
            cost[size] = sums
        }
        if let small = cost[1000], let large = cost[20_000] {
            #expect(large.create <= small.create * 2, "create: \(large.create) accesses, \(small.create) at 1,000")
            #expect(large.lookup <= small.lookup * 2, "lookup: \(large.lookup) accesses, \(small.lookup) at 1,000")
        }
        #expect(volume.list("/").count == 20_100)
    }

    @Test func aSparseFileOfEightTebibytes() throws {
        let volume = try volume()
        let handle = volume.open("/sparse", 0o102)
        let end: Int64 = 8 << 40
        for place in [0, end / 3, end - 5] { #expect(volume.write(handle, [1, 2, 3, 4, 5], at: place) == 5) }
        #expect(volume.fsync(handle) == 0)
        #expect(volume.status("/sparse").status.size == end)
        #expect(volume.status("/sparse").status.blocks < 200)
        #expect(volume.read(handle, 7, at: end - 7).bytes == [0, 0, 1, 2, 3, 4, 5])
        #expect(volume.read(handle, 4, at: end / 2).bytes == [0, 0, 0, 0])
        let found = volume.run(.seek) {
            $0.handle = Int32(handle)
            $0.offset = 4096
            $0.flags = 3
        }.result
        #expect(found == end / 3 / 4096 * 4096)
        #expect(volume.truncate("/sparse", 3) == 0)
        #expect(volume.read(handle, 10, at: 0).bytes == [1, 2, 3])
        volume.unmount()
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
