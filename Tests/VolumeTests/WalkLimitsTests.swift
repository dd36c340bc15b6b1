/// RESOLVE_* of openat2(2): what a walk may not pass, seen from a directory handle and from the root, with a prefix and without.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct WalkLimitsTests {
    private static let noLeaving: UInt64 = 1, noMagic: UInt64 = 2, noLinks: UInt64 = 4, beneath: UInt64 = 8, inRoot: UInt64 = 16
    private static let (noEntry, loop, crossDevice, invalid): (Int64, Int64, Int64, Int64) = (-2, -40, -18, -22)
    private let volume: VolumeHarness
    private let prefixed: SessionID

    init() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        volume = try VolumeHarness(device)
        for directory in ["/d", "/d/e"] { #expect(volume.run(.mkdir, directory) { $0.mode = 0o755 }.result == 0) }
        for file in ["/top", "/d/e/inner"] { #expect(volume.close(volume.open(file, 0o102)) == 0) }
        for (link, text) in [("/d/up", "../top"), ("/d/down", "e/inner"), ("/d/absolute", "/dash/top"), ("/d/rooted", "/e/inner"), ("/d/away", "/etc/passwd")] {
            #expect(volume.run(.symlink, link, text).result == 0)
        }
        prefixed = try #require(volume.volume.openSession(Credentials(user: 0, group: 0), prefix: Array("/dash".utf8)))
    }

    /// The inode that an open finds, or a negated errno.
    private func find(_ name: String, _ limits: UInt64, fromRoot: Bool = false, as session: SessionID? = nil) -> Int64 {
        let directory = volume.run(.open, "/d", as: session) { $0.flags = 0o200000 }.result
        let opened = volume.run(.open, name, as: session) {
            $0.length = limits
            if !fromRoot { $0.handle = Int32(directory) }
        }
        for handle in [directory, opened.result] where handle >= 0 { _ = volume.run(.close, as: session) { $0.handle = Int32(handle) } }
        return opened.result < 0 ? opened.result : Int64(opened.info0)
    }

    private func inode(_ name: String) -> Int64 { Int64(volume.status(name).status.inode) }

    @Test func beneath() {
        let limits = Self.beneath
        #expect(find("e/inner", limits, as: prefixed) == inode("/d/e/inner"))
        #expect(find("e/../e/inner", limits, as: prefixed) == inode("/d/e/inner"))
        #expect(find("down", limits, as: prefixed) == inode("/d/e/inner"))
        for name in ["..", "../top", "e/../../top", "up", "/d/e/inner", "absolute", "rooted", "away"] {
            #expect(find(name, limits, as: prefixed) == Self.crossDevice, "\(name)")
            #expect(find(name, limits) == Self.crossDevice, "\(name)")
        }
    }

    @Test func inRoot() {
        let limits = Self.inRoot
        for name in ["e/inner", "/e/inner", "../../e/inner", "rooted", "down", "e/../../e/inner"] {
            #expect(find(name, limits, as: prefixed) == inode("/d/e/inner"), "\(name)")
        }
        #expect(find("..", limits, as: prefixed) == inode("/d"))
        for name in ["up", "absolute", "away", "/top"] { #expect(find(name, limits, as: prefixed) == Self.noEntry, "\(name)") }
        #expect(find("/e/inner", limits | Self.noLeaving, as: prefixed) == inode("/d/e/inner"))
    }

    @Test func noLinks() {
        #expect(find("e/inner", Self.noLinks) == inode("/d/e/inner"))
        for name in ["up", "down", "rooted"] { #expect(find(name, Self.noLinks) == Self.loop, "\(name)") }
        #expect(find("up", Self.noMagic) == inode("/top"))
    }

    @Test func noLeaving() {
        let limits = Self.noLeaving
        #expect(find("up", limits, as: prefixed) == inode("/top"))
        for name in ["absolute", "away", "../../etc", "../.."] { #expect(find(name, limits, as: prefixed) == Self.crossDevice, "\(name)") }
        // Without a prefix there is no outside.
        #expect(find("../../top", limits) == inode("/top"))
    }

    @Test func whatMakesNoSenseIsRefused() {
        #expect(find("e", 64) == Self.invalid)
        #expect(find("e", .max) == Self.invalid)
        #expect(find("e", Self.beneath | Self.inRoot) == Self.invalid)
        #expect(find("/d/e/inner", Self.noLinks, fromRoot: true) == inode("/d/e/inner"))
    }
}
