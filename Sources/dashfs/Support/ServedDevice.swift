// From a device's name to a mounted volume with its memory. Invariant: the memory outlives the volume and its queue, because
// all three live until the process ends.
import BlockDevice
import CSystem
import Glibc
import Server
import Volume

struct ServedDevice {
    let device: any BlockDevice
    let queue: any DeviceQueue
    let volume: Volume
    let cacheBytes: UInt64

    /// Requests in flight at once.
    static let queueDepth = 256

    init(_ name: DeviceName, cache: UInt64, readOnly: Bool, discard: Bool, options: FileDevice.Options, withoutIOMMU: Bool) throws(Failure) {
        let memory = UInt64(max(0, sysconf(Int32(_SC_PHYS_PAGES)))) * UInt64(blockSize)
        guard cache < memory else {
            throw Failure(.usage, "--cache \(ByteSize.format(cache)): this machine has \(Quantity.text(memory)) of memory; give at most half of that")
        }
        let device = try Failure.catching { () throws(DeviceError) in try name.open(options: options, withoutIOMMU: withoutIOMMU) }
        let queue = try Failure.catching { () throws(DeviceError) in try device.makeQueue(depth: ServedDevice.queueDepth) }
        var random = SystemRandomNumberGenerator()
        var configuration = Volume.Configuration()
        configuration.cacheFrames = max(64, Int(min(cache / UInt64(blockSize), 1 << 28)))
        configuration.readOnly = readOnly
        // Memory has nothing to gain from it, and zeroes what it is told of.
        if case .memory = name { configuration.discard = false } else { configuration.discard = discard }
        configuration.nonce = random.next()
        configuration.fileMemory = { MapMemory() }
        configuration.mappedPages = Int(memory / UInt64(blockSize) / 2)
        configuration.mappedPagesPerUser = configuration.mappedPages / 2
        do throws(VolumeError) {
            if case .memory = name { try Volume.formatFresh(queue, device.capabilities) }
            let size = try Volume.memorySize(queue, device.capabilities, configuration: configuration)
            guard let memory = unsafe ServedDevice.sharedMemory(size) else {
                throw VolumeError(
                    errno: ENOMEM, "no memory for a cache of \(ByteSize.format(cache)): \(errorText(errno)); give a smaller --cache")
            }
            if let error = unsafe ServedDevice.register(memory, size, queue), case .nvme = name {
                // Everything would go through bounce buffers. A file's ring does without, and has said so.
                throw VolumeError(errno: error.errno, error.message)
            }
            var line = ProgressLine("recovering \(name)")
            defer { line.end() }
            volume = unsafe try Volume.mount(
                queue, device.capabilities, memory: memory, configuration: configuration,
                clock: Volume.Clock(wall: dashfs_clock_wall(), monotonic: dashfs_clock_monotonic())
            ) { line.update($0) }
        } catch {
            throw Failure(error, device: name.description)
        }
        self.device = device
        self.queue = queue
        cacheBytes = UInt64(configuration.cacheFrames * blockSize)
    }

    private static func register(_ memory: UnsafeMutableRawPointer, _ size: Int, _ queue: any DeviceQueue) -> DeviceError? {
        do throws(DeviceError) {
            unsafe try queue.register(UnsafeMutableRawBufferPointer(start: memory, count: size))
            return nil
        } catch {
            return error
        }
    }

    /// Zeroed memory of a memfd, which a supervisor could keep while the server is replaced; huge pages where the kernel gives them.
    private static func sharedMemory(_ size: Int) -> UnsafeMutableRawPointer? {
        let length = (size + blockSize - 1) / blockSize * blockSize
        let made = unsafe "dashfs-cache".withCString { unsafe dashfs_sys_memfd($0) }
        guard made >= 0 else {
            errno = Int32(-made)
            return nil
        }
        let descriptor = Int32(made)
        defer { close(descriptor) }
        guard ftruncate(descriptor, length) == 0 else { return nil }
        let mapping = unsafe mmap(nil, length, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { return nil }
        _ = unsafe madvise(mapping, length, MADV_HUGEPAGE)
        return unsafe mapping
    }
}
