// Argument types that are shared: sizes, how to wait. Invariant: what is parsed here is in range; commands do not check again.
import ArgumentParser
import BlockDevice
import Server

/// "512M", "1G": bytes.
struct Size: ExpressibleByArgument {
    let bytes: UInt64

    init(bytes: UInt64) { self.bytes = bytes }
    init?(argument: String) {
        guard let bytes = ByteSize.parse(argument), bytes > 0, bytes < 1 << 62 else { return nil }
        self.bytes = bytes
    }
    var defaultValueDescription: String { ByteSize.format(bytes) }
}

/// For every command that opens a device.
struct DriverArguments: ParsableArguments {
    @Flag(name: .customLong("no-iommu"), help: "Drive an nvme: device even where no IOMMU keeps it to its memory: a fault of it may destroy anything.")
    var withoutIOMMU = false
}

extension WaitMode: ExpressibleByArgument {}
