import CSystem

/// The exported calls on paths. What each does is said in `include/dashfs.h`.

private let currentDirectory: Int32 = -100
private let noFollow: UInt32 = 0x100
private let createFlag: Int32 = 0o100

/// Declared variadic in C; the third argument arrives in the same register.
@c(dashfs_open)
public func dashfs_open(_ path: UnsafePointer<CChar>?, _ flags: Int32, _ mode: UInt32) -> Int32 {
    unsafe dashfs_openat(currentDirectory, path, flags, mode)
}

@c(dashfs_openat)
public func dashfs_openat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ flags: Int32, _ mode: UInt32) -> Int32 {
    // Without O_CREAT the caller passes no mode, and whatever is in the register means nothing.
    let permissions = flags & createFlag != 0 ? mode & 0o7777 & ~Connection.mask : 0
    return returned32(unsafe onPath(directory, path) { $0.open($1, flags: UInt32(bitPattern: flags), mode: permissions) })
}

@c(dashfs_creat)
public func dashfs_creat(_ path: UnsafePointer<CChar>?, _ mode: UInt32) -> Int32 {
    unsafe dashfs_openat(currentDirectory, path, 0o1101, mode)
}

@c(dashfs_stat)
public func dashfs_stat(_ path: UnsafePointer<CChar>?, _ status: UnsafeMutableRawPointer?) -> Int32 {
    unsafe dashfs_fstatat(currentDirectory, path, status, 0)
}

@c(dashfs_lstat)
public func dashfs_lstat(_ path: UnsafePointer<CChar>?, _ status: UnsafeMutableRawPointer?) -> Int32 {
    unsafe dashfs_fstatat(currentDirectory, path, status, Int32(noFollow))
}

@c(dashfs_fstatat)
public func dashfs_fstatat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ status: UnsafeMutableRawPointer?, _ flags: Int32) -> Int32 {
    guard let status = unsafe status else { return returned32(-14) }
    let empty = flags & 0x1000 != 0
    return returned32(
        unsafe onPath(directory, path, emptyPath: empty) { unsafe $0.status($1, flags: UInt32(bitPattern: flags) & noFollow, into: status) })
}

@c(dashfs_access)
public func dashfs_access(_ path: UnsafePointer<CChar>?, _ mode: Int32) -> Int32 { unsafe dashfs_faccessat(currentDirectory, path, mode, 0) }

@c(dashfs_faccessat)
public func dashfs_faccessat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ mode: Int32, _ flags: Int32) -> Int32 {
    returned32(unsafe onPath(directory, path) { $0.access($1, mode: UInt32(bitPattern: mode), flags: UInt32(bitPattern: flags) & noFollow) })
}

@c(dashfs_mkdir)
public func dashfs_mkdir(_ path: UnsafePointer<CChar>?, _ mode: UInt32) -> Int32 { unsafe dashfs_mkdirat(currentDirectory, path, mode) }

@c(dashfs_mkdirat)
public func dashfs_mkdirat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ mode: UInt32) -> Int32 {
    returned32(unsafe onPath(directory, path) { $0.mkdir($1, mode: mode & 0o7777 & ~Connection.mask) })
}

@c(dashfs_mknod)
public func dashfs_mknod(_ path: UnsafePointer<CChar>?, _ mode: UInt32, _ device: UInt64) -> Int32 {
    returned32(unsafe onPath(currentDirectory, path) { $0.mknod($1, mode: mode & ~Connection.mask, device: device) })
}

@c(dashfs_rmdir)
public func dashfs_rmdir(_ path: UnsafePointer<CChar>?) -> Int32 { returned32(unsafe onPath(currentDirectory, path) { $0.rmdir($1) }) }

@c(dashfs_unlink)
public func dashfs_unlink(_ path: UnsafePointer<CChar>?) -> Int32 { returned32(unsafe onPath(currentDirectory, path) { $0.unlink($1) }) }

@c(dashfs_unlinkat)
public func dashfs_unlinkat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ flags: Int32) -> Int32 {
    returned32(unsafe onPath(directory, path) { flags & 0x200 != 0 ? $0.rmdir($1) : $0.unlink($1) })
}

@c(dashfs_rename)
public func dashfs_rename(_ old: UnsafePointer<CChar>?, _ new: UnsafePointer<CChar>?) -> Int32 {
    unsafe dashfs_renameat2(currentDirectory, old, currentDirectory, new, 0)
}

@c(dashfs_renameat2)
public func dashfs_renameat2(
    _ oldDirectory: Int32, _ old: UnsafePointer<CChar>?, _ newDirectory: Int32, _ new: UnsafePointer<CChar>?, _ flags: UInt32
) -> Int32 {
    returned32(unsafe onPaths(oldDirectory, old, newDirectory, new) { $0.rename($1, to: $2, flags: flags) })
}

@c(dashfs_link)
public func dashfs_link(_ old: UnsafePointer<CChar>?, _ new: UnsafePointer<CChar>?) -> Int32 {
    unsafe dashfs_linkat(currentDirectory, old, currentDirectory, new, 0)
}

@c(dashfs_linkat)
public func dashfs_linkat(
    _ oldDirectory: Int32, _ old: UnsafePointer<CChar>?, _ newDirectory: Int32, _ new: UnsafePointer<CChar>?, _ flags: Int32
) -> Int32 {
    returned32(
        unsafe onPaths(oldDirectory, old, newDirectory, new, emptyPath: flags & 0x1000 != 0) {
            $0.link($1, to: $2, flags: UInt32(bitPattern: flags))
        })
}

@c(dashfs_symlink)
public func dashfs_symlink(_ target: UnsafePointer<CChar>?, _ path: UnsafePointer<CChar>?) -> Int32 {
    guard let target = unsafe target else { return returned32(-14) }
    let text = unsafe PathBytes(terminated: target)
    if text.count == 0 { return returned32(-ErrorNumber.noEntry) }
    return returned32(unsafe onPath(currentDirectory, path) { $0.symlink(text, at: $1) })
}

@c(dashfs_readlink)
public func dashfs_readlink(_ path: UnsafePointer<CChar>?, _ buffer: UnsafeMutableRawPointer?, _ size: Int) -> Int {
    guard let buffer = unsafe buffer else { return returned(-14) }
    guard size > 0 else { return returned(-ErrorNumber.invalid) }
    return returned(unsafe onPath(currentDirectory, path) { unsafe $0.readlink($1, into: buffer, capacity: size) })
}

@c(dashfs_chmod)
public func dashfs_chmod(_ path: UnsafePointer<CChar>?, _ mode: UInt32) -> Int32 {
    var request = WireRequest(.setattr)
    request.attributeMask = 1
    request.mode = mode
    return unsafe setAttributes(currentDirectory, path, &request)
}

@c(dashfs_chown)
public func dashfs_chown(_ path: UnsafePointer<CChar>?, _ owner: UInt32, _ group: UInt32) -> Int32 {
    var request = ownerRequest(owner, group)
    return unsafe setAttributes(currentDirectory, path, &request)
}

@c(dashfs_lchown)
public func dashfs_lchown(_ path: UnsafePointer<CChar>?, _ owner: UInt32, _ group: UInt32) -> Int32 {
    var request = ownerRequest(owner, group)
    request.flags = noFollow
    return unsafe setAttributes(currentDirectory, path, &request)
}

@c(dashfs_truncate)
public func dashfs_truncate(_ path: UnsafePointer<CChar>?, _ size: Int64) -> Int32 {
    guard size >= 0 else { return returned32(-ErrorNumber.invalid) }
    var request = WireRequest(.setattr)
    request.attributeMask = 8
    request.length = UInt64(size)
    return unsafe setAttributes(currentDirectory, path, &request)
}

@c(dashfs_utimensat)
public func dashfs_utimensat(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ times: UnsafePointer<timespec>?, _ flags: Int32) -> Int32 {
    guard var request = unsafe timesRequest(times) else { return returned32(-ErrorNumber.invalid) }
    request.flags = UInt32(bitPattern: flags) & noFollow
    return unsafe setAttributes(directory, path, &request)
}

private func setAttributes(_ directory: Int32, _ path: UnsafePointer<CChar>?, _ request: inout WireRequest) -> Int32 {
    returned32(unsafe onPath(directory, path) { $0.setAttributes($1, &request) })
}

@c(dashfs_statfs)
public func dashfs_statfs(_ path: UnsafePointer<CChar>?, _ statistics: UnsafeMutableRawPointer?) -> Int32 {
    guard let statistics = unsafe statistics else { return returned32(-14) }
    let result = unsafe onPath(currentDirectory, path) { unsafe $0.statfs($1, into: statistics, capacity: 120) }
    return returned32(min(result, 0))
}
