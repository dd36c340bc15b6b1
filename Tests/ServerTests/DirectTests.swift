import DashFS
import Foundation
import TestSupport
import Testing

/// O_DIRECT through a server, on an NVMe controller: the device reaches a client's arena from its first such open until the client has gone.
@Suite struct DirectTests {
    @Test func aClientsMemoryIsTheDevicesForAsLongAsItStays() throws {
        let fake = try FakeController(blocks: 8192) { ($0.atomicBlocks, $0.queues, $0.transferShift) = (8, 2, 7) }
        let device = try SteppedDevice(fake)
        device.step = 1000
        try MemoryVolume.format(device)
        let served = try ServedVolume(device: device)
        let bytes = (0..<600_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 12) }
        do {
            let volume = try FileSystem.connect(socket: served.socketPath)
            let plain = try volume.open("/f", [.readWrite, .create])
            try plain.write(bytes, at: 0)
            try plain.synchronize()
            // Over blocks that the file has, past the cache; the end goes another way.
            let file = try volume.open("/f", [.readWrite, .direct, .dataSync])
            let other = [UInt8](repeating: 7, count: 8192)
            try file.write(other, at: 40960)
            var want = bytes
            want.replaceSubrange(40960..<49152, with: other)
            #expect(try file.read(upTo: 700_000, at: 0) == want)
            #expect(try plain.read(upTo: 700_000, at: 0) == want)
            let again = try volume.open("/f", [.direct])
            #expect(try again.read(upTo: 4096, at: 40960) == [UInt8](repeating: 7, count: 4096))
        }
        for _ in 0..<500 where served.sessionsAsked() > 0 { Thread.sleep(forTimeInterval: 0.01) }
        served.stop()
        #expect(fake.maps == 1 && fake.unmaps == 1, "once for a channel, however many files; and back at its end")
        #expect(fake.violations.isEmpty, "\(fake.violations)")
        served.expectNothingLeft()
    }
}
