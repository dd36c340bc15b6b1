import CSystem

/// The process's connection to its server, and the way from a POSIX call to a channel: shared by all exported functions.
///
/// Invariants: results inside are >= 0 or a negated errno; only `returned` turns one into -1 and errno, at the very end of an exported function. Nothing on the way
/// of a call allocates, but for a path that leaves the volume. The module is Embedded Swift: libc is all it needs.

/// What `dashfs_connect` made; nil before it and after `dashfs_disconnect`.
nonisolated(unsafe) private var connection: UnsafeMutableRawPointer? = nil
/// What mkdir and the like take off a mode; read from the process at connect.
nonisolated(unsafe) private var creationMask: UInt32 = 0o022

enum Connection {
    static var session: Session? {
        guard let raw = unsafe connection else { return nil }
        return unsafe Session(state: raw.assumingMemoryBound(to: SessionState.self))
    }

    static var mask: UInt32 {
        get { unsafe creationMask }
        set { unsafe creationMask = newValue & 0o777 }
    }

    static func open(_ path: PathBytes) -> Int64 {
        guard let address = unsafe path.address, path.count > 0 else { return -ErrorNumber.noEntry }
        // A forked child lets go of what it inherited; a second connect in one process replaces the first.
        close()
        do throws(ErrorCode) {
            let prefix: StaticString = "/dash"
            let session = try unsafe Session.connect(
                path: address, length: path.count, prefix: PathBytes(prefix.utf8Start, count: prefix.utf8CodeUnitCount))
            unsafe connection = unsafe UnsafeMutableRawPointer(session.state)
        } catch { return -Int64(error.number) }
        return 0
    }

    static func close() {
        guard let session else { return }
        unsafe connection = nil
        session.disconnect()
    }
}

/// 0 or more as it is; an errno as -1, with errno set.
@inline(__always)
func returned(_ result: Int64) -> Int {
    if result >= 0 { return Int(result) }
    dashfs_set_errno(Int32(truncatingIfNeeded: 0 &- result))
    return -1
}

@inline(__always)
func returned32(_ result: Int64) -> Int32 { Int32(truncatingIfNeeded: returned(result)) }

/// Runs a call on a channel of the calling thread.
@inline(__always)
func withChannel(_ body: (Channel) -> Int64) -> Int64 {
    guard let session = Connection.session, let channel = session.acquire() else { return -ErrorNumber.notConnected }
    let result = body(channel)
    session.release(channel)
    return result
}

/// As `withChannel`, for a call on a path from a directory descriptor (AT_FDCWD: the volume's root). A path that leaves the volume is followed as far as it
/// comes back: above the root is the root.
@inline(__always)
func onPath(_ directory: Int32, _ path: UnsafePointer<CChar>?, emptyPath: Bool = false, _ body: (Channel, Place) -> WireCompletion) -> Int64 {
    guard let path = unsafe path else { return -14 /* EFAULT */ }
    let bytes = unsafe PathBytes(terminated: path)
    if bytes.count == 0 && !emptyPath { return -ErrorNumber.noEntry }
    guard let session = Connection.session, let channel = session.acquire() else { return -ErrorNumber.notConnected }
    var completion = body(channel, Place(bytes, from: directory))
    if completion.result == WireCompletion.escape { completion = follow(channel, completion, body) }
    session.release(channel)
    return completion.result
}

/// As `onPath`, for two paths.
func onPaths(
    _ directory1: Int32, _ path1: UnsafePointer<CChar>?, _ directory2: Int32, _ path2: UnsafePointer<CChar>?, emptyPath: Bool = false,
    _ body: (Channel, Place, Place) -> WireCompletion
) -> Int64 {
    guard let path1 = unsafe path1, let path2 = unsafe path2 else { return -14 }
    var first = unsafe Place(PathBytes(terminated: path1), from: directory1)
    var second = unsafe Place(PathBytes(terminated: path2), from: directory2)
    if first.path.count == 0 && !emptyPath || second.path.count == 0 { return -ErrorNumber.noEntry }
    guard let session = Connection.session, let channel = session.acquire() else { return -ErrorNumber.notConnected }
    defer { session.release(channel) }
    var completion = body(channel, first, second)
    guard completion.result == WireCompletion.escape else { return completion.result }
    // Copies, because a path area is used again by the next request: one for each of the two.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 2 * Layout.pathCapacity, alignment: 8)
    defer { unsafe memory.deallocate() }
    var tries = 40
    while completion.result == WireCompletion.escape, tries > 0 {
        tries -= 1
        let isSecond = completion.info1 == 1
        guard let rest = unsafe inside(channel.remainder(of: completion), memory + (isSecond ? Layout.pathCapacity : 0)) else {
            return -18 /* EXDEV */
        }
        if isSecond { second = Place(rest) } else { first = Place(rest) }
        completion = body(channel, first, second)
    }
    return completion.result == WireCompletion.escape ? -40 /* ELOOP */ : completion.result
}

@inline(never)
private func follow(_ channel: Channel, _ first: WireCompletion, _ body: (Channel, Place) -> WireCompletion) -> WireCompletion {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: Layout.pathCapacity, alignment: 8)
    defer { unsafe memory.deallocate() }
    var completion = first
    var tries = 40
    while completion.result == WireCompletion.escape {
        if tries == 0 { return WireCompletion(result: -40 /* ELOOP */) }
        tries -= 1
        guard let rest = unsafe inside(channel.remainder(of: completion), memory) else { return WireCompletion(result: -18 /* EXDEV */) }
        completion = body(channel, Place(rest))
    }
    return completion
}

/// What remains of a path that left the volume by "..", as a path in it, in `memory`; nil where it left by an absolute link.
private func inside(_ rest: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawPointer) -> PathBytes? {
    let slash = UInt8(ascii: "/"), dot = UInt8(ascii: ".")
    var begin = 0
    let end = rest.count
    if end > 0, unsafe rest[0] == slash { return nil }
    while end - begin >= 2, unsafe rest[begin] == dot, unsafe rest[begin + 1] == dot, end - begin == 2 || (unsafe rest[begin + 2]) == slash {
        begin += 2
        while begin < end, unsafe rest[begin] == slash { begin += 1 }
    }
    if begin == end {
        unsafe memory.storeBytes(of: slash, as: UInt8.self)
        return unsafe PathBytes(memory, count: 1)
    }
    guard let base = rest.baseAddress else { return nil }
    unsafe dashfs_copy(memory, base + begin, end - begin)
    return unsafe PathBytes(memory, count: end - begin)
}
