import CSystem
import Volume
import Wire

/// From what a client wrote to what the volume is asked: the one place where a fetched request is judged.
///
/// Invariant: the input is a private copy (`WireRequest`, fetched word by word, once). After `translate` has said `.valid`, every pointer of the request is
/// private memory or lies, with its length, inside the channel's arena; paths are private copies of 0...4095 bytes without NUL, in areas of 4096.
/// What only the volume can judge (handles, flags, modes, names, permissions) is the volume's.

/// What FS Lib never writes. One of these ends the session that did.
enum Violation: Int, CaseIterable {
    case opcode, tag, busyTag, sequence, reserved, pathOffset, pathLength, pathByte, path2Offset, path2Length, path2Byte, bufferRange
    case bufferTooSmall, attributeMask

    var text: String {
        switch self {
        case .opcode: "unknown opcode"
        case .tag: "tag out of range"
        case .busyTag: "tag of a request that is not answered yet"
        case .sequence: "slot with a sequence number that is neither old nor next"
        case .reserved: "reserved bits set"
        case .pathOffset: "path outside the arena"
        case .pathLength: "path longer than 4095 bytes"
        case .pathByte: "NUL inside a path"
        case .path2Offset: "second path outside the arena"
        case .path2Length: "second path longer than 4095 bytes"
        case .path2Byte: "NUL inside the second path"
        case .bufferRange: "buffer outside the arena"
        case .bufferTooSmall: "buffer smaller than the answer"
        case .attributeMask: "unknown attribute bits"
        }
    }
}

enum Judgement {
    case valid
    /// Well formed, but no such operation is possible: answered with this errno without asking the volume.
    case refused(Int64)
    case violation(Violation)
}

extension WireOpcode {
    /// The volume's name of the operation; nil for what the channel does itself.
    @inline(__always)
    var volumeOpcode: Opcode? {
        switch self {
        case .null: .null
        case .open: .open
        case .close: .close
        case .read: .read
        case .write: .write
        case .seek: .seek
        case .getattr: .getattr
        case .setattr: .setattr
        case .access: .access
        case .mkdir: .mkdir
        case .mknod: .mknod
        case .symlink: .symlink
        case .readlink: .readlink
        case .link: .link
        case .unlink: .unlink
        case .rmdir: .rmdir
        case .rename: .rename
        case .fallocate: .fallocate
        case .fsync: .fsync
        case .sync: .sync
        case .statfs: .statfs
        case .readdir: .readdir
        case .getxattr: .getxattr
        case .setxattr: .setxattr
        case .listxattr: .listxattr
        case .removexattr: .removexattr
        case .lock: .lock
        case .flock: .flock
        case .setflags: .setflags
        case .copyRange: .copyRange
        case .handlePath: .handlePath
        case .map: .map
        case .syncMap: .syncMap
        case .cancel: nil
        }
    }
}

/// All bits of `AttributeChange.Mask`.
private let attributeBits: UInt32 = 255
private let statusBytes: UInt32 = 144

/// Judges a fetched request and fills `request` (fresh, of the right opcode and session) from it.
@inline(__always)
func translate(
    _ wire: borrowing WireRequest, _ opcode: WireOpcode, into request: inout Request, arena: UnsafeMutableRawPointer,
    arenaBytes: Int, paths: UnsafeMutableRawPointer
) -> Judgement {
    if wire.reserved != 0 { return .violation(.reserved) }
    request.handle = wire.handle
    request.flags = wire.flags
    request.mode = wire.mode
    request.length = wire.length
    if wire.offset < -1, opcode != .seek { return .refused(-ErrorNumber.invalid) }
    request.offset = wire.offset

    let length = Int(wire.bufferLength)
    if length > 0 {
        let begin = Int(wire.bufferOffset)
        if begin &+ length > arenaBytes { return .violation(.bufferRange) }
        if wire.offset > Int64.max &- Int64(length) { return .refused(-ErrorNumber.fileTooBig) }
        unsafe request.buffer = arena + begin
        request.bufferLength = length
    }
    // A transfer is as long as its buffer.
    if opcode == .read || opcode == .write { request.length = UInt64(length) }
    if opcode == .getattr, wire.bufferLength < statusBytes { return .violation(.bufferTooSmall) }

    unsafe request.path = paths
    unsafe request.path2 = paths + Layout.pathCapacity
    if wire.pathLength > 0 {
        let begin = Int(wire.pathOffset), count = Int(wire.pathLength)
        if count > Layout.pathLimit { return .violation(.pathLength) }
        if begin &+ Layout.pathCapacity > arenaBytes { return .violation(.pathOffset) }
        unsafe dashfs_copy(paths, arena + begin, count)
        if unsafe dashfs_has_nul(paths, count) { return .violation(.pathByte) }
        request.pathLength = count
    }
    if wire.path2Length > 0 {
        let begin = Int(wire.path2Offset), count = Int(wire.path2Length)
        if count > Layout.pathLimit { return .violation(.path2Length) }
        if begin &+ Layout.pathCapacity > arenaBytes { return .violation(.path2Offset) }
        unsafe dashfs_copy(paths + Layout.pathCapacity, arena + begin, count)
        if unsafe dashfs_has_nul(paths + Layout.pathCapacity, count) { return .violation(.path2Byte) }
        request.path2Length = count
    }
    request.handle2 = wire.handle2
    if !isHandle(wire.handle) { return .refused(-ErrorNumber.badDescriptor) }
    if !isHandle(wire.handle2) { return .refused(-ErrorNumber.badDescriptor) }
    if opcode.usesSecondLine { return translateSecondLine(wire, opcode, into: &request) }
    return .valid
}

@inline(__always)
private func isHandle(_ handle: Int32) -> Bool { handle >= 0 || handle == Request.rootHandle }

private func translateSecondLine(_ wire: borrowing WireRequest, _ opcode: WireOpcode, into request: inout Request) -> Judgement {
    request.argument = wire.argument
    // A name within the session: no client can speak for another's.
    request.owner = UInt64(wire.owner)
    if opcode == .copyRange {
        if wire.offset2 < -1 { return .refused(-ErrorNumber.invalid) }
        request.offset2 = wire.offset2
    }
    if opcode == .setattr {
        if wire.attributeMask & ~attributeBits != 0 { return .violation(.attributeMask) }
        if max(wire.accessNanoseconds, wire.modificationNanoseconds) >= 1_000_000_000 { return .refused(-ErrorNumber.invalid) }
        var change = AttributeChange()
        change.mask = AttributeChange.Mask(rawValue: wire.attributeMask)
        change.mode = wire.mode
        change.owner = wire.attributeOwner
        change.group = wire.attributeGroup
        change.size = Int64(bitPattern: wire.length)
        change.accessTime = Timestamp(seconds: wire.accessSeconds, nanoseconds: wire.accessNanoseconds)
        change.modificationTime = Timestamp(seconds: wire.modificationSeconds, nanoseconds: wire.modificationNanoseconds)
        if change.mask.contains(.size), change.size < 0 { return .refused(-ErrorNumber.invalid) }
        request.attributes = change
    }
    return .valid
}
