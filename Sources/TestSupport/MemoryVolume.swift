/// A freshly formatted volume on a memory device, for tests of the floors above it.
import BlockDevice
import Volume

@safe package final class MemoryVolume {
    package let device: MemoryDevice
    package let queue: any DeviceQueue
    package let volume: Volume
    private let memory: UnsafeMutableRawBufferPointer

    package init(size: UInt64 = 64 << 20, cacheFrames: Int = 4096, descriptionsPerSession: Int = 4096) throws {
        device = try MemoryDevice(size: size)
        queue = try device.makeQueue(depth: 128)
        try Volume.format(queue, blockCount: device.capabilities.blockCount, options: FormatOptions(uuid: (1, 2), hashKey: (3, 4), time: 0))
        var configuration = Volume.Configuration()
        configuration.cacheFrames = cacheFrames
        configuration.coreInodes = 4096
        configuration.descriptions = 4096
        configuration.locks = 4096
        configuration.descriptionsPerSession = descriptionsPerSession
        let bytes = try Volume.memorySize(queue, device.capabilities, configuration: configuration)
        unsafe memory = .allocate(byteCount: bytes, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
        guard let base = unsafe memory.baseAddress else { throw VolumeError(errno: 12, "no memory") }
        unsafe volume = try Volume.mount(
            queue, device.capabilities, memory: base, configuration: configuration, clock: .init(wall: 1_000_000_000_000_000_000, monotonic: 1))
    }

    deinit { unsafe memory.deallocate() }
}
