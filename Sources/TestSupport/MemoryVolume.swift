/// A mounted volume, on a memory device of its own or on a device that a test has made for it, for tests of the floors above it.
import BlockDevice
import Volume

@safe package final class MemoryVolume {
    package let device: any BlockDevice
    package let queue: any DeviceQueue
    package let volume: Volume
    private let memory: UnsafeMutableRawBufferPointer

    /// An empty volume in memory.
    package static func formatted(size: UInt64 = 64 << 20) throws -> MemoryDevice {
        let device = try MemoryDevice(size: size)
        try format(device)
        return device
    }

    package static func format(_ device: any BlockDevice) throws {
        try Volume.format(
            device.makeQueue(depth: 128), blockCount: device.capabilities.blockCount, options: FormatOptions(uuid: (1, 2), hashKey: (3, 4), time: 0))
    }

    /// - Parameters:
    ///   - device: holds a volume; nil: an empty one in memory.
    ///   - registered: the device is told of the cache, as a server does.
    package init(
        size: UInt64 = 64 << 20, cacheFrames: Int = 4096, descriptionsPerSession: Int = 4096, device: (any BlockDevice)? = nil, registered: Bool = false,
        fileMemory: (@Sendable () -> (any FileMemory)?)? = nil
    ) throws {
        self.device = try device ?? MemoryVolume.formatted(size: size)
        let capabilities = self.device.capabilities
        queue = try self.device.makeQueue(depth: 128)
        var configuration = Volume.Configuration()
        configuration.cacheFrames = cacheFrames
        configuration.coreInodes = 4096
        configuration.descriptions = 4096
        configuration.locks = 4096
        configuration.descriptionsPerSession = descriptionsPerSession
        configuration.fileMemory = fileMemory
        let bytes = try Volume.memorySize(queue, capabilities, configuration: configuration)
        unsafe memory = .allocate(byteCount: bytes, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
        guard let base = unsafe memory.baseAddress else { throw VolumeError(errno: 12, "no memory") }
        if registered { try unsafe queue.register(memory) }
        unsafe volume = try Volume.mount(
            queue, capabilities, memory: base, configuration: configuration, clock: .init(wall: 1_000_000_000_000_000_000, monotonic: 1))
    }

    deinit { unsafe memory.deallocate() }
}
