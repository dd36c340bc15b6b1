import CSystem

/// The exported calls on descriptors and on the connection. What each does is said in `include/dashfs.h`.

@c(dashfs_connect)
public func dashfs_connect(_ socket: UnsafePointer<CChar>?) -> Int32 {
    if let socket = unsafe socket { return returned32(unsafe connected(PathBytes(terminated: socket))) }
    return returned32(
        unsafe withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { buffer in
            guard let path = buffer.baseAddress else { return -ErrorNumber.noMemory }
            let count = unsafe dashfs_find_socket(path.assumingMemoryBound(to: CChar.self), buffer.count)
            return unsafe count > 0 ? connected(PathBytes(path, count: count)) : -ErrorNumber.nameTooLong
        })
}

private func connected(_ path: PathBytes) -> Int64 {
    Connection.mask = dashfs_read_umask()
    return Connection.open(path)
}

@c(dashfs_disconnect)
public func dashfs_disconnect() -> Int32 {
    guard Connection.session != nil else { return returned32(-ErrorNumber.notConnected) }
    Connection.close()
    return 0
}

@c(dashfs_umask)
public func dashfs_umask(_ mask: UInt32) -> UInt32 {
    let old = Connection.mask
    Connection.mask = mask
    return old
}

@c(dashfs_close)
public func dashfs_close(_ fd: Int32) -> Int32 { returned32(withChannel { $0.close(fd) }) }

@c(dashfs_read)
public func dashfs_read(_ fd: Int32, _ buffer: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    guard count >= 0 else { return returned(-ErrorNumber.invalid) }
    guard let buffer = unsafe buffer else { return returned(count == 0 ? 0 : -14) }
    return returned(withChannel { unsafe $0.read(fd, into: buffer, count: count) })
}

@c(dashfs_pread)
public func dashfs_pread(_ fd: Int32, _ buffer: UnsafeMutableRawPointer?, _ count: Int, _ offset: Int64) -> Int {
    guard count >= 0, offset >= 0 else { return returned(-ErrorNumber.invalid) }
    guard let buffer = unsafe buffer else { return returned(count == 0 ? 0 : -14) }
    return returned(withChannel { unsafe $0.read(fd, into: buffer, count: count, offset: offset) })
}

@c(dashfs_write)
public func dashfs_write(_ fd: Int32, _ buffer: UnsafeRawPointer?, _ count: Int) -> Int {
    guard count >= 0 else { return returned(-ErrorNumber.invalid) }
    guard let buffer = unsafe buffer else { return returned(count == 0 ? 0 : -14) }
    return returned(withChannel { unsafe $0.write(fd, from: buffer, count: count) })
}

@c(dashfs_pwrite)
public func dashfs_pwrite(_ fd: Int32, _ buffer: UnsafeRawPointer?, _ count: Int, _ offset: Int64) -> Int {
    guard count >= 0, offset >= 0 else { return returned(-ErrorNumber.invalid) }
    guard let buffer = unsafe buffer else { return returned(count == 0 ? 0 : -14) }
    return returned(withChannel { unsafe $0.write(fd, from: buffer, count: count, offset: offset) })
}

@c(dashfs_lseek)
public func dashfs_lseek(_ fd: Int32, _ offset: Int64, _ whence: Int32) -> Int64 {
    Int64(returned(withChannel { $0.seek(fd, offset: offset, whence: UInt32(bitPattern: whence)) }))
}

@c(dashfs_fsync)
public func dashfs_fsync(_ fd: Int32) -> Int32 { returned32(withChannel { $0.fsync(fd) }) }

@c(dashfs_fdatasync)
public func dashfs_fdatasync(_ fd: Int32) -> Int32 { returned32(withChannel { $0.fsync(fd, dataOnly: true) }) }

@c(dashfs_sync)
public func dashfs_sync() -> Int32 { returned32(withChannel { $0.sync() }) }

@c(dashfs_ftruncate)
public func dashfs_ftruncate(_ fd: Int32, _ size: Int64) -> Int32 {
    guard size >= 0 else { return returned32(-ErrorNumber.invalid) }
    return returned32(withChannel { $0.truncate(fd, size: size) })
}

@c(dashfs_fallocate)
public func dashfs_fallocate(_ fd: Int32, _ mode: Int32, _ offset: Int64, _ length: Int64) -> Int32 {
    guard offset >= 0, length > 0 else { return returned32(-ErrorNumber.invalid) }
    return returned32(withChannel { $0.fallocate(fd, mode: UInt32(bitPattern: mode), offset: offset, length: UInt64(length)) })
}

@c(dashfs_fstat)
public func dashfs_fstat(_ fd: Int32, _ status: UnsafeMutableRawPointer?) -> Int32 {
    guard let status = unsafe status else { return returned32(-14) }
    return returned32(withChannel { unsafe $0.status(Place(handle: fd), flags: 0, into: status).result })
}

@c(dashfs_fstatfs)
public func dashfs_fstatfs(_ fd: Int32, _ statistics: UnsafeMutableRawPointer?) -> Int32 {
    guard let statistics = unsafe statistics else { return returned32(-14) }
    return returned32(withChannel { unsafe min($0.statfs(Place(handle: fd), into: statistics, capacity: 120).result, 0) })
}

@c(dashfs_fchmod)
public func dashfs_fchmod(_ fd: Int32, _ mode: UInt32) -> Int32 {
    var request = WireRequest(.setattr)
    request.attributeMask = 1
    request.mode = mode
    return returned32(withChannel { $0.setAttributes(Place(handle: fd), &request).result })
}

@c(dashfs_fchown)
public func dashfs_fchown(_ fd: Int32, _ owner: UInt32, _ group: UInt32) -> Int32 {
    var request = ownerRequest(owner, group)
    return returned32(withChannel { $0.setAttributes(Place(handle: fd), &request).result })
}

@c(dashfs_futimens)
public func dashfs_futimens(_ fd: Int32, _ times: UnsafePointer<timespec>?) -> Int32 {
    guard var request = unsafe timesRequest(times) else { return returned32(-ErrorNumber.invalid) }
    return returned32(withChannel { $0.setAttributes(Place(handle: fd), &request).result })
}

@c(dashfs_getdents64)
public func dashfs_getdents64(_ fd: Int32, _ buffer: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    guard let buffer = unsafe buffer else { return returned(-14) }
    return returned(withChannel { unsafe $0.readDirectory(fd, into: buffer, capacity: count) })
}

@c(dashfs_flock)
public func dashfs_flock(_ fd: Int32, _ operation: Int32) -> Int32 {
    returned32(withChannel { $0.flock(fd, operation: UInt32(bitPattern: operation)) })
}

/// lockf-like record locks: F_SETLK (6), F_SETLKW (7), F_GETLK (5) on a struct flock, and F_GETFL (3), F_SETFL (4).
@c(dashfs_fcntl)
public func dashfs_fcntl(_ fd: Int32, _ command: Int32, _ argument: UInt) -> Int32 {
    switch command {
    case 3: return returned32(withChannel { $0.statusFlags(fd, set: nil) })
    case 4: return returned32(withChannel { $0.statusFlags(fd, set: UInt32(truncatingIfNeeded: argument)) })
    case 5, 6, 7:
        guard let raw = unsafe UnsafeMutableRawPointer(bitPattern: argument) else { return returned32(-14) }
        return returned32(unsafe recordLock(fd, UInt32(command), raw))
    default: return returned32(-ErrorNumber.invalid)
    }
}

/// struct flock of x86-64: type (Int16) 0, whence (Int16) 2, start 8, length 16, process (Int32) 24.
private func recordLock(_ fd: Int32, _ command: UInt32, _ lock: UnsafeMutableRawPointer) -> Int64 {
    let type = unsafe lock.load(as: Int16.self), whence = unsafe lock.load(fromByteOffset: 2, as: Int16.self)
    var start = unsafe lock.load(fromByteOffset: 8, as: Int64.self), length = unsafe lock.load(fromByteOffset: 16, as: Int64.self)
    guard type >= 0, type <= 2 else { return -ErrorNumber.invalid }
    return withChannel { channel in
        var base: Int64 = 0
        if whence == 1 {
            base = channel.seek(fd, offset: 0, whence: 1)
        } else if whence == 2 {
            var status = (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), Int64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0))
            let result = unsafe withUnsafeMutableBytes(of: &status) { bytes -> Int64 in
                guard let address = bytes.baseAddress else { return -ErrorNumber.invalid }
                return unsafe channel.status(Place(handle: fd), flags: 0, into: address).result
            }
            base = result < 0 ? result : status.6
        } else if whence != 0 {
            return -ErrorNumber.invalid
        }
        if base < 0 { return base }
        let (sum, overflow) = base.addingReportingOverflow(start)
        if overflow { return -75 /* EOVERFLOW */ }
        start = sum
        if length < 0 {
            // A negative length counts back from the start (fcntl(2)).
            let (first, under) = start.addingReportingOverflow(length)
            if under || length == Int64.min { return -ErrorNumber.invalid }
            start = first
            length = 0 - length
        }
        if start < 0 { return -ErrorNumber.invalid }
        let completion = channel.lock(fd, command: command, type: UInt32(type), offset: start, length: UInt64(length))
        if completion.result >= 0, command == 5 {
            unsafe lock.storeBytes(of: Int16(truncatingIfNeeded: completion.info0), as: Int16.self)
            if completion.info0 != 2 {
                unsafe lock.storeBytes(of: 0, toByteOffset: 2, as: Int16.self)
                unsafe lock.storeBytes(of: Int64(bitPattern: completion.info1), toByteOffset: 8, as: Int64.self)
                unsafe lock.storeBytes(of: Int64(bitPattern: completion.info2), toByteOffset: 16, as: Int64.self)
                unsafe lock.storeBytes(of: Int32(truncatingIfNeeded: completion.result), toByteOffset: 24, as: Int32.self)
            }
        }
        return min(completion.result, 0)
    }
}

@c(dashfs_copy_file_range)
public func dashfs_copy_file_range(
    _ source: Int32, _ sourceOffset: UnsafeMutablePointer<Int64>?, _ target: Int32, _ targetOffset: UnsafeMutablePointer<Int64>?,
    _ length: Int, _ flags: UInt32
) -> Int {
    guard flags == 0, length >= 0 else { return returned(-ErrorNumber.invalid) }
    let from = unsafe sourceOffset.map { unsafe $0.pointee } ?? -1, to = unsafe targetOffset.map { unsafe $0.pointee } ?? -1
    if unsafe sourceOffset != nil && from < 0 || targetOffset != nil && to < 0 { return returned(-ErrorNumber.invalid) }
    let result = withChannel { $0.copyRange(from: source, at: from, to: target, at: to, length: UInt64(length)) }
    if result > 0 {
        if let sourceOffset = unsafe sourceOffset { unsafe sourceOffset.pointee = from + result }
        if let targetOffset = unsafe targetOffset { unsafe targetOffset.pointee = to + result }
    }
    return returned(result)
}

func ownerRequest(_ owner: UInt32, _ group: UInt32) -> WireRequest {
    var request = WireRequest(.setattr)
    request.attributeMask = (owner == .max ? 0 : 2) | (group == .max ? 0 : 4)
    request.attributeOwner = owner
    request.attributeGroup = group
    return request
}

/// utimensat(2): nil for both means now; nil where the nanoseconds are out of range.
func timesRequest(_ times: UnsafePointer<timespec>?) -> WireRequest? {
    var request = WireRequest(.setattr)
    guard let times = unsafe times else {
        request.attributeMask = 16 | 32 | 64 | 128
        return request
    }
    let now = (1 << 30) - 1, omit = (1 << 30) - 2
    let (access, modification) = unsafe (times[0], times[1])
    for (time, set, setNow) in [(access, UInt32(16), UInt32(64)), (modification, UInt32(32), UInt32(128))] {
        if time.tv_nsec == omit { continue }
        if time.tv_nsec == now {
            request.attributeMask |= set | setNow
            continue
        }
        guard time.tv_nsec >= 0, time.tv_nsec < 1_000_000_000 else { return nil }
        request.attributeMask |= set
        if set == 16 {
            request.accessSeconds = Int64(time.tv_sec)
            request.accessNanoseconds = UInt32(time.tv_nsec)
        } else {
            request.modificationSeconds = Int64(time.tv_sec)
            request.modificationNanoseconds = UInt32(time.tv_nsec)
        }
    }
    return request
}
