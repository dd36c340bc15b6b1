/// Where an open file is (getcwd(2), /proc/self/fd): a directory found by its parents, whatever has happened to its names since it was opened; another file where it was opened.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct HandlePathTests {
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
        #expect(volume.handlePath(root) == "/")
        #expect(volume.handlePath(deep) == "/a/b/c")
        #expect(volume.run(.rename, "/a/b", "/x/moved").result == 0)
        #expect(volume.handlePath(deep) == "/x/moved/c")
        #expect(volume.handlePath(deep, room: 10) == "/x/moved/c")
        #expect(volume.handlePath(deep, room: 9) == "-34")
        #expect(volume.run(.rmdir, "/x/moved/c").result == 0)
        #expect(volume.handlePath(deep) == "-2")
    }

    @Test func aFileIsWhereItWasOpenedOrNowhere() throws {
        let volume = try volume()
        for name in ["/a", "/a/b", "/other"] { mkdir(volume, name) }
        let file = volume.open("/a/b/file", 0o102)
        #expect(volume.handlePath(file) == "/a/b/file")
        #expect(volume.run(.rename, "/a/b/file", "/a/b/renamed").result == 0)
        #expect(volume.run(.rename, "/a", "/moved").result == 0)
        #expect(volume.handlePath(file) == "/moved/b/renamed")
        #expect(volume.run(.rename, "/moved/b/renamed", "/other/file").result == 0)
        #expect(volume.handlePath(file) == "-2")
        // The number of the directory is another directory's, or a file's.
        #expect(volume.run(.rmdir, "/moved/b").result == 0)
        #expect(volume.handlePath(file) == "-2")
        for number in 0..<50 {
            mkdir(volume, "/new \(number)")
            _ = volume.close(volume.open("/file \(number)", 0o102))
        }
        #expect(volume.handlePath(file) == "-2")
        #expect(volume.handlePath(volume.open("/other/file", 0o10000000)) == "/other/file")
        let unlinked = volume.open("/gone", 0o102)
        #expect(volume.run(.unlink, "/gone").result == 0)
        #expect(volume.handlePath(unlinked) == "-2")
        #expect(volume.handlePath(volume.open("/other", 0o20200002)) == "-2", "O_TMPFILE")
        #expect(volume.volume.takeNotes().isEmpty)
    }

    /// More leaves than one step looks at, in a cache that holds few of them.
    @Test func aLargeDirectoryIsLookedThroughInSteps() throws {
        let volume = try volume()
        mkdir(volume, "/large")
        for number in 0..<1500 { #expect(volume.run(.mknod, "/large/file with a rather long name \(number)") { $0.mode = 0o100644 }.result == 0) }
        for number in 0..<20 {
            mkdir(volume, "/large/directory \(number)")
            #expect(volume.handlePath(volume.open("/large/directory \(number)")) == "/large/directory \(number)")
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
            let count = volume.run(.handlePath, as: user) {
                $0.handle = Int32(own)
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = raw.count
            }.result
            #expect(count == 10)
            #expect(volume.handlePath(Int64(handle)) == "/closed/in")
            #expect(volume.run(.getattr, "/closed") {
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = Volume.statusSize
            }.result >= 0)
        }
        #expect(buffer[9] == 77)
    }
}
