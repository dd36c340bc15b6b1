// An empty volume on an open device: what `format` does to files, and `serve` to memory.
import BlockDevice
import CSystem
import Glibc
import Volume

extension Volume {
    /// Formats the whole device, owned by the caller. The secrets come from the kernel's generator.
    static func formatFresh(
        _ queue: any DeviceQueue, _ capabilities: DeviceCapabilities, progress: (Double) -> Void = { _ in },
        adjust: (inout FormatOptions) -> Void = { _ in }
    ) throws(VolumeError) {
        var random = SystemRandomNumberGenerator()
        var options = FormatOptions(
            uuid: (random.next(), random.next()), hashKey: (random.next(), random.next()), time: dashfs_clock_wall())
        // RFC 9562: version 4, variant 1.
        options.uuid.0 = options.uuid.0 & ~0xF0_0000_0000_0000 | 0x40_0000_0000_0000
        options.uuid.1 = options.uuid.1 & ~0xC0 | 0x80
        options.user = geteuid()
        options.group = getegid()
        adjust(&options)
        try Volume.format(queue, blockCount: capabilities.blockCount, options: options, progress: progress)
    }

    static func uuidText(_ uuid: (UInt64, UInt64)) -> String {
        var bytes: [UInt8] = []
        for half in [uuid.0, uuid.1] { for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: half >> shift)) } }
        var text = ""
        for (index, byte) in bytes.enumerated() {
            if index == 4 || index == 6 || index == 8 || index == 10 { text += "-" }
            text += byte < 16 ? "0" : ""
            text += String(byte, radix: 16)
        }
        return text
    }
}
