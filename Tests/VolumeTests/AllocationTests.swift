/// fallocate(2): what it promises, and what is left when it cannot keep it.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct AllocationTests {
    private func bytes(_ count: Int, _ seed: UInt64 = 1) -> [UInt8] { VolumeWorkload.bytes(count, seed: seed) }

    private func volume(atomic: Int = 512, frames: Int = 64) throws -> VolumeHarness {
        let device = try MemoryDevice(size: VolumeHarness.smallSize) { $0.atomicWriteUnit = atomic }
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = frames
        return try VolumeHarness(device, configuration: configuration)
    }

    /// Free blocks, all of them and those that a user may have.
    private func free(_ volume: VolumeHarness) -> [UInt64] {
        var buffer = [UInt64](repeating: 0, count: 8)
        _ = unsafe buffer.withUnsafeMutableBytes { raw in
            volume.run(.statfs) {
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = 64
            }
        }
        return [buffer[2], buffer[3]]
    }

    private func fill(_ volume: VolumeHarness) {
        let handle = volume.open("/ballast", 0o102)
        for size in [1 << 20, 65_536, 4096] { while volume.write(handle, bytes(size)) > 0 {} }
        #expect(volume.fsync(handle) == 0)
        _ = volume.close(handle)
    }

    /// Free space in pieces of one block: whatever takes it takes many steps.
    private func shatter(_ volume: VolumeHarness, blocks: Int) {
        let (kept, gone) = (volume.open("/kept", 0o102), volume.open("/gone", 0o102))
        for index in 0..<blocks {
            #expect(volume.allocate(gone, 0, Int64(index) * 4096, 4096) == 0)
            #expect(volume.allocate(kept, 0, Int64(index) * 4096, 4096) == 0)
        }
        fill(volume)
        #expect(volume.run(.unlink, "/gone").result == 0 && volume.close(gone) == 0)
        #expect(volume.run(.sync).result == 0)
        volume.settle()
        _ = volume.close(kept)
    }

    @Test(arguments: [512, 4096]) func zeroingWhatAFileHasTakesNoSpace(atomic: Int) throws {
        let volume = try volume(atomic: atomic)
        let handle = volume.open("/f", 0o102)
        let content = bytes(300_000)
        #expect(volume.write(handle, content) == 300_000 && volume.fsync(handle) == 0)
        fill(volume)
        let before = (free(volume), volume.status("/f").status.blocks)
        #expect(volume.allocate(handle, 16, 5000, 200_000) == 0)
        let expected = content.enumerated().map { 5000..<205_000 ~= $0.offset ? 0 : $0.element }
        let same = volume.read(handle, 300_000, at: 0).bytes == expected
        #expect(same)
        #expect(volume.fsync(handle) == 0)
        #expect(free(volume) == before.0 && volume.status("/f").status.blocks == before.1)
        #expect(volume.write(handle, bytes(200_000, 2), at: 5000) == 200_000, "its blocks are still its own")
        volume.unmount()
    }

    @Test(arguments: [0, 1, 16, 17] as [UInt32]) func whereThereIsNoSpaceNothingHasChanged(mode: UInt32) throws {
        let volume = try volume()
        let handle = volume.open("/f", 0o102)
        let content = bytes(100_000)
        #expect(volume.write(handle, content) == 100_000 && volume.fsync(handle) == 0)
        fill(volume)
        let before = (free(volume), volume.status("/f").status)
        #expect(volume.allocate(handle, mode, 50_000, 4 << 20) == -28)
        #expect(volume.allocate(handle, mode, 50_000, 1 << 50) == -28)
        volume.settle()
        #expect(free(volume) == before.0 && volume.status("/f").status == before.1)
        let same = volume.read(handle, 200_000, at: 0).bytes == content
        #expect(same)
        volume.unmount()
    }

    @Test func spaceOfLaterStepsIsTheCallsFromTheStart() throws {
        let volume = try volume(frames: 2048)
        shatter(volume, blocks: 1000)
        let (handle, other) = (volume.open("/f", 0o102), volume.open("/other", 0o102))
        #expect(volume.write(other, bytes(4096)) == 4096 && volume.fsync(other) == 0)
        let parked = volume.start(.fallocate) {
            $0.handle = Int32(handle)
            $0.offset = 0
            $0.length = 700 * 4096
        }
        #expect(parked == nil, "so many pieces are not one step")
        var taken = 0
        while taken < 1000, volume.volume.nextCompletion() == nil {
            let written = volume.startWrite(other, bytes(4096), at: Int64(taken + 1) * 4096)
            if written != 4096 { break }
            taken += 1
        }
        #expect(taken > 100 && taken < 400, "\(taken) blocks for others beside 700 of 1000")
        #expect(volume.wait().result == 0)
        #expect(volume.status("/f").status.size == 700 * 4096)
        #expect(volume.status("/f").status.blocks >= 700 * 8)
        #expect(volume.run(.sync).result == 0)
        volume.unmount()
    }

    @Test func aCancelledCallGivesBackWhatItHasReserved() throws {
        let volume = try volume()
        shatter(volume, blocks: 1000)
        let before = free(volume)
        let handle = volume.open("/f", 0o102)
        #expect(volume.start(.fallocate) {
            $0.handle = Int32(handle)
            $0.offset = 0
            $0.length = 700 * 4096
            $0.token = 77
        } == nil)
        volume.volume.cancel(session: volume.session, token: 77)
        #expect(volume.wait().result == -4)
        #expect(volume.truncate(handle: handle, 0) == 0 && volume.run(.sync).result == 0)
        volume.settle()
        #expect(free(volume) == before)
        #expect(volume.allocate(handle, 0, 0, 700 * 4096) == 0, "nobody holds the file")
        volume.unmount()
    }

    /// What a call has allocated before a power cut stays the file's, beyond its end, as after FALLOC_FL_KEEP_SIZE; cutting the file frees it.
    @Test func blocksBeyondTheEndAfterACutAreTheFilesAndGoWithIt() throws {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        let device = RecordingDevice(copying: empty, seed: 1)
        let volume = try VolumeHarness(device)
        shatter(volume, blocks: 2000)
        let (handle, other) = (volume.open("/f", 0o102), volume.open("/other", 0o102))
        #expect(volume.write(handle, bytes(5000)) == 5000 && volume.fsync(handle) == 0)
        let before = free(volume)
        #expect(volume.start(.fallocate) {
            $0.handle = Int32(handle)
            $0.offset = 0
            $0.length = 1600 * 4096
        } == nil)
        _ = volume.start(.fsync) { $0.handle = Int32(other) }
        volume.settle(polls: 1)
        let states = CrashStates(device)
        var beyond = 0
        for cut in stride(from: states.cutCount, through: 0, by: -1) {
            let state = states.state(at: cut, seed: 1)
            let after = try VolumeHarness(state.device)
            #expect(try VolumeChecker(state.device).run() == [])
            guard after.status("/f").result == 0, after.status("/f").status.size == 5000 else { break }
            if after.status("/f").status.blocks > 16 {
                beyond += 1
                #expect(after.truncate("/f", 5000) == 0 && after.run(.sync).result == 0)
                after.settle()
                #expect(after.status("/f").status.blocks <= 24, "two blocks, and a node of the tree that it was")
                #expect(after.truncate("/f", 0) == 0 && after.run(.sync).result == 0)
                after.settle()
                let all = free(after)[0]
                #expect(all == before[0] + 2, "\(all) free blocks, \(before[0]) before the call")
            }
        }
        #expect(beyond > 0, "no cut lies between the steps and the size")
    }

    /// A file that grows gets zeros, also where a longer version of it had bytes before a cut.
    @Test(arguments: [512, 4096]) func whatATruncationCutsDoesNotComeBack(atomic: Int) throws {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        let device = RecordingDevice(copying: empty, seed: 1) { $0.atomicWriteUnit = atomic }
        let volume = try VolumeHarness(device)
        let (handle, other) = (volume.open("/f", 0o102), volume.open("/other", 0o102))
        #expect(volume.write(handle, bytes(8192)) == 8192 && volume.fsync(handle) == 0)
        #expect(volume.truncate("/f", 100) == 0)
        #expect(volume.write(other, [1]) == 1 && volume.fsync(other) == 0)
        let states = CrashStates(device)
        let after = try VolumeHarness(states.state(at: states.cutCount, seed: 1).device)
        #expect(after.status("/f").status.size == 100)
        #expect(after.truncate("/f", 8192) == 0)
        let same = after.content("/f", 8192) == bytes(8192).prefix(100) + [UInt8](repeating: 0, count: 8092)
        #expect(same)
    }
}
