/// Flags of a single write, as pwritev2(2) has them: RWF_DSYNC 2, RWF_SYNC 4, RWF_APPEND 16, RWF_NOAPPEND 32.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct OneWriteTests {
    private func write(_ volume: VolumeHarness, _ handle: Int64, _ text: String, at offset: Int64, _ flags: UInt32) -> Int64 {
        var bytes = Array(text.utf8)
        return unsafe bytes.withUnsafeMutableBytes { memory in
            let (buffer, count) = (memory.baseAddress, memory.count)
            return volume.run(.write) {
                $0.handle = Int32(handle)
                $0.flags = flags
                $0.offset = offset
                $0.length = UInt64(count)
                unsafe $0.buffer = buffer
                $0.bufferLength = count
            }.result
        }
    }

    private func content(_ volume: VolumeHarness, _ handle: Int64) -> String { String(decoding: volume.read(handle, 100, at: 0).bytes, as: UTF8.self) }

    @Test func appendingIsForTheWriteAlone() throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device)
        let volume = try VolumeHarness(device)
        let handle = volume.open("/f", 0o102)
        #expect(write(volume, handle, "0123456789", at: 0, 0) == 10)
        #expect(write(volume, handle, "ab", at: 3, 16) == 2)
        #expect(content(volume, handle) == "0123456789ab")
        #expect(volume.run(.seek) { $0.handle = Int32(handle); $0.offset = 0; $0.flags = 1 }.result == 0, "the offset stays")
        #expect(write(volume, handle, "cd", at: -1, 16) == 2)
        #expect(volume.run(.seek) { $0.handle = Int32(handle); $0.offset = 0; $0.flags = 1 }.result == 14, "its own offset follows")
        #expect(write(volume, handle, "XY", at: 0, 0) == 2)
        #expect(content(volume, handle) == "XY23456789abcd")
        let appending = volume.open("/f", 0o2002)
        #expect(write(volume, appending, "ef", at: 0, 0) == 2)
        #expect(write(volume, appending, "--", at: 0, 32) == 2)
        #expect(content(volume, handle) == "--23456789abcdef")
    }

    /// What is durable is behind a flush of a device whose cache forgets.
    @Test(arguments: [(UInt32(0), false), (2, true), (4, true)])
    func synchronousIsDurableAndForTheWriteAlone(_ flags: UInt32, _ isDurable: Bool) throws {
        let device = RecordingDevice(size: Int(VolumeHarness.smallSize), seed: 3) { $0.volatileCache = true }
        try VolumeHarness.format(device)
        let volume = try VolumeHarness(device)
        let handle = volume.open("/f", 0o102)
        #expect(volume.fsync(handle) == 0)
        let before = device.log.flushes.count
        #expect(write(volume, handle, "durable", at: 0, flags) == 7)
        #expect((device.log.flushes.count > before) == isDurable)
        let after = device.log.flushes.count
        #expect(write(volume, handle, "not so!", at: 0, 0) == 7)
        #expect(device.log.flushes.count == after)
    }
}
