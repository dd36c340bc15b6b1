import CSystem

/// The exported calls on extended attributes: each by path, by path without following a last symbolic link (l), and by descriptor (f).

private let currentDirectory: Int32 = -100
private let noFollow: UInt32 = 0x100

/// On a path, or on the open file where there is none.
@inline(__always)
private func on(_ path: UnsafePointer<CChar>?, or fd: Int32?, _ body: (Channel, Place) -> WireCompletion) -> Int64 {
    if let fd { return withChannel { body($0, Place(handle: fd)).result } }
    return unsafe onPath(currentDirectory, path, body)
}

private func get(
    _ path: UnsafePointer<CChar>?, or fd: Int32? = nil, _ name: UnsafePointer<CChar>?, _ value: UnsafeMutableRawPointer?, _ size: Int, _ flags: UInt32 = 0
) -> Int {
    guard let name = unsafe name else { return returned(-14) }
    return returned(unsafe on(path, or: fd) { unsafe $0.getxattr($1, name: PathBytes(terminated: name), into: value, capacity: size, flags: flags) })
}

private func set(
    _ path: UnsafePointer<CChar>?, or fd: Int32? = nil, _ name: UnsafePointer<CChar>?, _ value: UnsafeRawPointer?, _ size: Int, _ how: Int32, _ flags: UInt32 = 0
) -> Int32 {
    guard let name = unsafe name, size >= 0 else { return returned32(-14) }
    guard how & ~3 == 0 else { return returned32(-ErrorNumber.invalid) }
    return returned32(
        unsafe on(path, or: fd) {
            unsafe $0.setxattr($1, name: PathBytes(terminated: name), value: value, count: size, flags: UInt32(bitPattern: how) | flags)
        })
}

private func list(_ path: UnsafePointer<CChar>?, or fd: Int32? = nil, _ list: UnsafeMutableRawPointer?, _ size: Int, _ flags: UInt32 = 0) -> Int {
    returned(unsafe on(path, or: fd) { unsafe $0.listxattr($1, into: list, capacity: size, flags: flags) })
}

private func remove(_ path: UnsafePointer<CChar>?, or fd: Int32? = nil, _ name: UnsafePointer<CChar>?, _ flags: UInt32 = 0) -> Int32 {
    guard let name = unsafe name else { return returned32(-14) }
    return returned32(unsafe on(path, or: fd) { unsafe $0.removexattr($1, name: PathBytes(terminated: name), flags: flags) })
}

@c(dashfs_getxattr)
public func dashfs_getxattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?, _ value: UnsafeMutableRawPointer?, _ size: Int) -> Int {
    unsafe get(path, name, value, size)
}

@c(dashfs_setxattr)
public func dashfs_setxattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?, _ value: UnsafeRawPointer?, _ size: Int, _ flags: Int32) -> Int32 {
    unsafe set(path, name, value, size, flags)
}

@c(dashfs_listxattr)
public func dashfs_listxattr(_ path: UnsafePointer<CChar>?, _ names: UnsafeMutableRawPointer?, _ size: Int) -> Int { unsafe list(path, names, size) }

@c(dashfs_removexattr)
public func dashfs_removexattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?) -> Int32 { unsafe remove(path, name) }

@c(dashfs_lgetxattr)
public func dashfs_lgetxattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?, _ value: UnsafeMutableRawPointer?, _ size: Int) -> Int {
    unsafe get(path, name, value, size, noFollow)
}

@c(dashfs_lsetxattr)
public func dashfs_lsetxattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?, _ value: UnsafeRawPointer?, _ size: Int, _ flags: Int32) -> Int32 {
    unsafe set(path, name, value, size, flags, noFollow)
}

@c(dashfs_llistxattr)
public func dashfs_llistxattr(_ path: UnsafePointer<CChar>?, _ names: UnsafeMutableRawPointer?, _ size: Int) -> Int { unsafe list(path, names, size, noFollow) }

@c(dashfs_lremovexattr)
public func dashfs_lremovexattr(_ path: UnsafePointer<CChar>?, _ name: UnsafePointer<CChar>?) -> Int32 { unsafe remove(path, name, noFollow) }

@c(dashfs_fgetxattr)
public func dashfs_fgetxattr(_ fd: Int32, _ name: UnsafePointer<CChar>?, _ value: UnsafeMutableRawPointer?, _ size: Int) -> Int {
    unsafe get(nil, or: fd, name, value, size)
}

@c(dashfs_fsetxattr)
public func dashfs_fsetxattr(_ fd: Int32, _ name: UnsafePointer<CChar>?, _ value: UnsafeRawPointer?, _ size: Int, _ flags: Int32) -> Int32 {
    unsafe set(nil, or: fd, name, value, size, flags)
}

@c(dashfs_flistxattr)
public func dashfs_flistxattr(_ fd: Int32, _ names: UnsafeMutableRawPointer?, _ size: Int) -> Int { unsafe list(nil, or: fd, names, size) }

@c(dashfs_fremovexattr)
public func dashfs_fremovexattr(_ fd: Int32, _ name: UnsafePointer<CChar>?) -> Int32 { unsafe remove(nil, or: fd, name) }
