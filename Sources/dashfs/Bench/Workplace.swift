// Where a benchmark's files lie, and how they go away again. Invariant: everything is in one directory, which is removed in the end, however that comes.
import BlockDevice
import CSystem
import Glibc
import Volume

final class Workplace {
    let base: String
    let path: String
    /// Volumes in memory beside tmpfs, instead of images beside the disk's file system.
    let isMemory: Bool
    /// "ext4".
    let kernelName: String
    private(set) var droppedCaches = true

    init(directory: String, memory: Bool) throws(Failure) {
        base = memory ? "/dev/shm" : Places.absolute(directory)
        isMemory = memory
        kernelName = memory ? "tmpfs" : FileSystemName.of(base)
        path = "\(base)/.dashfs-bench-\(getpid())"
        guard unsafe mkdir(path, 0o700) == 0 else {
            throw Failure(.init(errno: errno, otherwise: .cannotCreate), "\(path): \(errorText(errno)); name a directory that you may write with --directory")
        }
    }

    func remove() { Scratch.remove(path) }

    /// A device with an empty volume for `serve`.
    func volume(_ name: String, size: UInt64) throws(Failure) -> String {
        if isMemory { return "memory:\(ByteSize.format(size))" }
        let image = "\(path)/\(name).img"
        try Failure.catching { () throws(DeviceError) in try FileDevice.create(image, size: size) }
        try format(image)
        return image
    }

    func format(_ image: String) throws(Failure) {
        let device = try Failure.catching { () throws(DeviceError) in try FileDevice.open(image) }
        defer { device.close() }
        let queue = try Failure.catching { () throws(DeviceError) in try device.makeQueue(depth: 8) }
        do throws(VolumeError) { try Volume.formatFresh(queue, device.capabilities) } catch { throw Failure(error, device: image) }
    }

    /// Bytes that an unprivileged user may still write there.
    var freeBytes: UInt64 {
        var status = statvfs()
        return unsafe statvfs(path, &status) == 0 ? UInt64(status.f_bavail) * UInt64(status.f_frsize) : 0
    }

    /// For root only; others are told in the end that nothing was dropped.
    func dropKernelCaches() {
        sync()
        let file = unsafe open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC)
        let written = unsafe file >= 0 ? write(file, "3\n", 2) : -1
        if written != 2 { droppedCaches = false }
        if file >= 0 { close(file) }
    }
}

/// ^C and the like wait for the end of a batch, so that what was made goes away. They reach the children by themselves.
enum Interruption {
    private static var signals: sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in [SIGINT, SIGTERM, SIGHUP] { unsafe sigaddset(&set, signal) }
        return set
    }

    static func postpone() {
        var set = signals
        unsafe _ = sigprocmask(SIG_BLOCK, &set, nil)
    }

    static func check() throws(Failure) {
        var set = signals
        var none = timespec(tv_sec: 0, tv_nsec: 0)
        let signal = unsafe sigtimedwait(&set, nil, &none)
        if signal > 0 { throw Failure.told(exitCode: 128 + signal) }
    }
}
