/// Opening, locking and measuring a file or block device. Invariant: either everything is held (descriptor, lock, known size and
/// alignment), or a `DeviceError` says in one line what is wrong and what to do, and nothing is held.
import CSystem
import Glibc

extension FileDevice {
    /// - Throws: `DeviceError` with ENOENT, EACCES, EISDIR, ENOTBLK (neither file nor block device), EINVAL (too small), EBUSY
    ///   (held by another process, or mounted), or what open(2) says.
    public static func open(_ path: String, options: Options = Options()) throws(DeviceError) -> FileDevice {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw openError(path, errno) }
        let isBlock = try checkKind(path, status)
        var warnings: [String] = []
        var direct = options.direct
        var descriptor = openFile(path, direct: direct, isBlock: isBlock, options)
        if descriptor < 0 && direct && errno == EINVAL {
            direct = false
            descriptor = openFile(path, direct: direct, isBlock: isBlock, options)
        }
        // A killed server's claim on a block device, as its lock, lasts until its last request has landed.
        var waited = 0
        while descriptor < 0 && errno == EBUSY && waited < options.lockWaitMilliseconds && !isMounted(status) {
            pause(&waited)
            descriptor = openFile(path, direct: direct, isBlock: isBlock, options)
        }
        guard descriptor >= 0 else { throw openError(path, errno) }
        var keep = false
        defer { if !keep { _ = Glibc.close(descriptor) } }
        guard unsafe fstat(descriptor, &status) == 0 else { throw openError(path, errno) }
        guard try checkKind(path, status) == isBlock else {
            throw DeviceError(device: path, errno: EBUSY, message: "was replaced while it was being opened; try again")
        }
        try lock(descriptor, path: path, status: status, options: options)

        let alignment = direct ? try directAlignment(descriptor, isBlock: isBlock) : nil
        if let alignment, alignment.offset > blockSize || alignment.memory > blockSize {
            direct = false
            // On the same description, so that the lock stays.
            _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~dashfs_open_direct_flag())
        }
        if options.direct && !direct {
            warnings.append("direct I/O is refused here; going through the page cache, which costs a copy and memory")
        }
        let capabilities = try measure(
            descriptor, path: path, status: status, isBlock: isBlock, alignment: direct ? alignment : nil, options: options)
        keep = true
        return FileDevice(
            path: path, descriptor: descriptor, isBlockDevice: isBlock, capabilities: capabilities,
            directSectorSize: direct ? max(512, alignment?.offset ?? 512) : 1, options: options, warnings: warnings)
    }

    /// Makes a sparse file of `size` bytes, a multiple of the block size, readable and writable by its owner.
    /// - Throws: `DeviceError` with EEXIST where there is one already, EINVAL for the size, ENOSPC, EFBIG and so on.
    public static func create(_ path: String, size: UInt64) throws(DeviceError) {
        guard size >= UInt64(blockSize) else {
            throw DeviceError(device: path, errno: EINVAL, message: "\(size) bytes is too small for a device; give at least \(blockSize)")
        }
        guard size % UInt64(blockSize) == 0, let length = off_t(exactly: size) else {
            throw DeviceError(
                device: path, errno: EINVAL, message: "the size \(size) is not a multiple of the block size \(blockSize)")
        }
        let descriptor = unsafe Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw openError(path, errno) }
        defer { _ = Glibc.close(descriptor) }
        guard ftruncate(descriptor, length) == 0 else {
            let error = errno
            _ = unsafe unlink(path)
            throw DeviceError(
                device: path, errno: error,
                message: "cannot be made \(ByteSize.format(size)) long: \(errorText(error)); choose a smaller size or another file system")
        }
    }

    /// open(2) with what `options` ask for: a descriptor, or -1 and errno.
    private static func openFile(_ path: String, direct: Bool, isBlock: Bool, _ options: Options) -> Int32 {
        if direct && options.refuseDirect {
            errno = EINVAL
            return -1
        }
        var flags = (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC
        if isBlock { flags |= O_EXCL }  // refuses a mounted device
        if direct { flags |= dashfs_open_direct_flag() }
        return unsafe Glibc.open(path, flags)
    }

    private static func pause(_ waited: inout Int) {
        let milliseconds = 10
        _ = usleep(UInt32(milliseconds * 1000))
        waited += milliseconds
    }

    /// Whether a block device is mounted, from /proc/self/mountinfo ("36 35 254:0 / /mnt …").
    private static func isMounted(_ status: stat) -> Bool {
        let number = "\(dashfs_device_major(UInt64(status.st_rdev))):\(dashfs_device_minor(UInt64(status.st_rdev)))"
        let lines = readSmallFile("/proc/self/mountinfo")?.split(separator: "\n") ?? []
        return lines.contains { line in
            let fields = line.split(separator: " ", maxSplits: 3)
            return fields.count > 2 && fields[2] == number
        }
    }

    /// Whether it is a block device; an error where it is neither that nor a regular file.
    private static func checkKind(_ path: String, _ status: stat) throws(DeviceError) -> Bool {
        switch status.st_mode & S_IFMT {
        case S_IFREG: return false
        case S_IFBLK: return true
        case S_IFDIR:
            throw DeviceError(device: path, errno: EISDIR, message: "is a directory; name an image file or a block device")
        default:
            throw DeviceError(
                device: path, errno: ENOTBLK, message: "is neither a file nor a block device; name one of these")
        }
    }

    private static func openError(_ path: String, _ number: Int32) -> DeviceError {
        let message =
            switch number {
            case ENOENT: "there is no such file; `dashfs format \(path) --size 1G` makes one"
            case EACCES, EPERM: "permission denied; run as its owner or as root"
            case EROFS: "is on a read-only file system; open it read-only or move it"
            case EBUSY: "is mounted or used by the kernel; unmount it first"
            case EEXIST: "exists already; choose another name or remove it"
            case ETXTBSY: "is being executed; choose another file"
            default: "cannot be opened: \(errorText(number))"
            }
        return DeviceError(device: path, errno: number, message: message)
    }

    /// flock(2) on the description that will do the I/O: exclusive, or shared among readers.
    private static func lock(
        _ descriptor: Int32, path: String, status: stat, options: Options
    ) throws(DeviceError) {
        let kind = (options.readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB
        var waited = 0
        while flock(descriptor, kind) != 0 {
            let error = errno
            if error == EINTR { continue }
            guard error == EWOULDBLOCK else {
                throw DeviceError(device: path, errno: error, message: "cannot be locked: \(errorText(error))")
            }
            guard waited < options.lockWaitMilliseconds else {
                let holder = lockHolder(of: status).map { "process \($0)" } ?? "another process"
                throw DeviceError(
                    device: path, errno: EBUSY,
                    message: "\(holder) is using it; stop that server (it lets go when its last request has landed) and try again")
            }
            pause(&waited)
        }
    }

    /// Who holds a lock on a file, from /proc/locks ("1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF").
    private static func lockHolder(of status: stat) -> Int? {
        guard let text = readSmallFile("/proc/locks") else { return nil }
        for line in text.split(separator: "\n") where line.contains("FLOCK") && !line.contains("->") {
            let fields = line.split(separator: " ")
            guard fields.count >= 6, let process = Int(fields[4]), process > 0 else { continue }
            let place = fields[5].split(separator: ":")
            guard place.count == 3, UInt32(place[0], radix: 16) == dashfs_device_major(UInt64(status.st_dev)),
                UInt32(place[1], radix: 16) == dashfs_device_minor(UInt64(status.st_dev)),
                UInt64(place[2]) == UInt64(status.st_ino)
            else { continue }
            return process
        }
        return nil
    }

    /// What direct I/O asks for, in bytes.
    private static func directAlignment(
        _ descriptor: Int32, isBlock: Bool
    ) throws(DeviceError) -> (memory: Int, offset: Int)? {
        var memory: UInt32 = 0
        var offset: UInt32 = 0
        if unsafe dashfs_direct_alignment(descriptor, &memory, &offset) == 1, memory > 0, offset > 0 {
            return (Int(memory), Int(offset))
        }
        var sector: Int32 = 512
        if isBlock, unsafe dashfs_block_device_sector(descriptor, &sector) == 0, sector > 0 { return (Int(sector), Int(sector)) }
        // Before Linux 6.1 nobody says; what every sector size divides is safe.
        return (blockSize, blockSize)
    }

    private static func measure(
        _ descriptor: Int32, path: String, status: stat, isBlock: Bool, alignment: (memory: Int, offset: Int)?,
        options: Options
    ) throws(DeviceError) -> DeviceCapabilities {
        var size = UInt64(max(0, status.st_size))
        if isBlock, unsafe dashfs_block_device_size(descriptor, &size) != 0 {
            throw DeviceError(device: path, errno: errno, message: "does not tell its size: \(errorText(errno))")
        }
        guard size >= UInt64(blockSize) else {
            throw DeviceError(
                device: path, errno: EINVAL, message: "\(size) bytes is too small for a device; `dashfs format \(path) --size 1G` makes one")
        }
        var capabilities = DeviceCapabilities(blockCount: size / UInt64(blockSize))
        capabilities.readOnly = options.readOnly
        capabilities.memoryAlignment = max(1, alignment?.memory ?? 1)
        var kind = "file"
        if isBlock {
            kind = "block device"
            var sector: Int32 = 512
            if unsafe dashfs_block_device_sector(descriptor, &sector) == 0, sector == 512 || sector == 4096 {
                capabilities.logicalBlockSize = Int(sector)
            }
            let queue = BlockQueueLimits(device: UInt64(status.st_rdev))
            capabilities.volatileCache = queue.text("write_cache") != "write through"
            capabilities.supportsForceUnitAccess = capabilities.volatileCache && queue.number("fua") == 1
            capabilities.supportsDiscard = (queue.number("discard_max_bytes") ?? 0) > 0
            capabilities.supportsWriteZeroes = true
            // Larger units hold only for writes marked RWF_ATOMIC; a block in one piece needs no mark.
            capabilities.atomicWriteUnit = max(
                capabilities.logicalBlockSize, min(Int(queue.number("atomic_write_unit_max_bytes") ?? 0), blockSize))
        } else {
            // The file system below decides when a file's bytes are on the disk: always ask.
            capabilities.volatileCache = true
            capabilities.logicalBlockSize = alignment?.offset == 4096 ? 4096 : 512
            capabilities.atomicWriteUnit = capabilities.logicalBlockSize
            // Past the end of the file this changes nothing, and says whether it could.
            let punches =
                !options.readOnly
                && dashfs_device_fallocate(descriptor, dashfs_punch_mode(), size, UInt64(blockSize)) == 0
            capabilities.supportsDiscard = punches
            capabilities.supportsWriteZeroes = punches
        }
        if options.readOnly {
            capabilities.supportsDiscard = false
            capabilities.supportsWriteZeroes = false
        }
        let way = alignment == nil ? "through the page cache" : "direct I/O"
        capabilities.description = "\(path): \(kind), \(ByteSize.format(capabilities.byteCount)), \(way)"
        return capabilities
    }
}

/// What sysfs says about a block device's queue; a partition is asked about by its disk.
struct BlockQueueLimits {
    private let folder: String

    init(device: UInt64) {
        let base = "/sys/dev/block/\(dashfs_device_major(device)):\(dashfs_device_minor(device))"
        folder = unsafe access(base + "/partition", F_OK) == 0 ? base + "/../queue/" : base + "/queue/"
    }

    func text(_ name: String) -> String? { readSmallFile(folder + name).map { String($0.prefix { $0 != "\n" }) } }
    func number(_ name: String) -> UInt64? { text(name).flatMap { UInt64($0) } }
}

/// The text of a file of at most 64 KiB, or nil.
func readSmallFile(_ path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { _ = close(descriptor) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    while bytes.count < 65536 {
        let count = unsafe read(descriptor, &piece, piece.count)
        guard count > 0 else { break }
        bytes.append(contentsOf: piece[0..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
}
