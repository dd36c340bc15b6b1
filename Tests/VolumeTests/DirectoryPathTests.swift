/// Where a directory is (getcwd(2)): found by its parents, whatever has happened to its names since it was opened.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct DirectoryPathTests {
    private func volume() throws -> VolumeHarness {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        return try VolumeHarness(device)
    }

    private func mkdir(_ volume: VolumeHarness, _ name: String, _ mode: UInt32 = 0o755) {
        #expect(volume.run(.mkdir, name) { $0.mode = mode }.result == 0)
    }

    @Test func itFollowsRenamesAndEndsWithTheDirectory() throws {
        let volume = try volume()
        for name in ["/a", "/a/b", "/a/b/c", "/x"] { mkdir(volume, name) }
        let root = volume.open("/"), deep = volume.open("/a/b/c")
        #expect(volume.directoryPath(root) == "/")
        #expect(volume.directoryPath(deep) == "/a/b/c")
        #expect(volume.run(.rename, "/a/b", "/x/moved").result == 0)
        #expect(volume.directoryPath(deep) == "/x/moved/c")
        #expect(volume.directoryPath(deep, room: 10) == "/x/moved/c")
        #expect(volume.directoryPath(deep, room: 9) == "-34")
        #expect(volume.run(.rmdir, "/x/moved/c").result == 0)
        #expect(volume.directoryPath(deep) == "-2")
        #expect(volume.directoryPath(volume.open("/file", 0o102)) == "-20")
    }

    /// More leaves than one step looks at, in a cache that holds few of them.
    @Test func aLargeDirectoryIsLookedThroughInSteps() throws {
        let volume = try volume()
        mkdir(volume, "/large")
        for number in 0..<1500 { #expect(volume.run(.mknod, "/large/file with a rather long name \(number)") { $0.mode = 0o100644 }.result == 0) }
        for number in 0..<20 {
            mkdir(volume, "/large/directory \(number)")
            #expect(volume.directoryPath(volume.open("/large/directory \(number)")) == "/large/directory \(number)")
        }
    }

    /// As in the kernel, where a process may always ask where it is; and no time moves.
    @Test func nobodyNeedsPermissionAndNoAccessTimeMoves() throws {
        let volume = try volume()
        for name in ["/closed", "/closed/in"] { mkdir(volume, name) }
        let handle = try #require(Int32(exactly: volume.open("/closed/in")))
        let user = try #require(volume.volume.openSession(Credentials(user: 1000, group: 1000)))
        let own = volume.run(.open, "/closed/in", as: user).result
        #expect(own >= 0)
        #expect(volume.run(.setattr, "/closed") {
            $0.attributes.mask = [.mode, .accessTime]
            $0.attributes.mode = 0
            $0.attributes.accessTime = Timestamp(seconds: 77)
        }.result == 0)
        var buffer = [UInt64](repeating: 0, count: 64)
        unsafe buffer.withUnsafeMutableBytes { raw in
            let count = volume.run(.directoryPath, as: user) {
                $0.handle = Int32(own)
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = raw.count
            }.result
            #expect(count == 10)
            #expect(volume.directoryPath(Int64(handle)) == "/closed/in")
            #expect(volume.run(.getattr, "/closed") {
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = Volume.statusSize
            }.result >= 0)
        }
        #expect(buffer[9] == 77)
    }
}
