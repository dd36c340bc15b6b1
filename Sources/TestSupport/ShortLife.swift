/// A short workload on a small volume, the same in whatever process it runs: one that is killed at a store, and one that knows what should be there.
import BlockDevice
import Volume

@safe package final class ShortLife {
    package static let operations = 40
    package static let size = (256 + 4 * 512 + 2) * 4096

    package let volume: VolumeHarness
    package private(set) var workload: VolumeWorkload

    package static func atomic(_ seed: UInt64) -> Int { seed % 2 == 0 ? 4096 : 512 }

    package static func configuration(_ seed: UInt64) -> Volume.Configuration {
        var configuration = VolumeHarness.smallConfiguration(nonce: seed)
        if seed > 2 { configuration.treeFanout = 4 }
        return configuration
    }

    /// One transaction for each operation: half an operation is nobody's wish here.
    package static var shape: WorkloadShape {
        var shape = WorkloadShape.crash
        shape.largestWrite = 12_000
        shape.largestFile = 60_000
        return shape
    }

    package init(seed: UInt64, on volume: VolumeHarness) {
        self.volume = volume
        workload = VolumeWorkload(seed: seed, shape: ShortLife.shape)
    }

    /// Mounts a device that has been formatted.
    package convenience init(seed: UInt64, device: MemoryDevice, shared: MappedMemory? = nil) throws {
        self.init(seed: seed, on: try VolumeHarness(device, configuration: ShortLife.configuration(seed), shared: shared))
    }

    /// The next operation. nil: done as it should be.
    package func step() -> String? {
        volume.monotonic += 400_000_000
        return workload.perform(workload.next(), on: volume)
    }
}
