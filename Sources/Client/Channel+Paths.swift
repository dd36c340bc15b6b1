import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// Raw bytes of a path or a name, without a terminator.
@safe public struct PathBytes {
    public var address: UnsafeRawPointer?
    public var count: Int

    @inlinable @inline(__always)
    public init(_ address: UnsafeRawPointer?, count: Int) {
        unsafe self.address = unsafe address
        self.count = count
    }

    @inlinable public init(_ bytes: UnsafeRawBufferPointer) {
        unsafe address = bytes.baseAddress
        count = bytes.count
    }

    /// A NUL-terminated string; at most one byte past the longest path is looked at.
    @inlinable public init(terminated string: UnsafePointer<CChar>) {
        unsafe address = UnsafeRawPointer(string)
        count = 0
        while count <= Layout.pathLimit, unsafe string[count] != 0 { count += 1 }
    }

    /// No path: the operation is about the handle itself.
    @inlinable public static var none: PathBytes { unsafe PathBytes(nil, count: 0) }
}

/// Where an operation happens: a path from a directory handle (`WireRequest.rootHandle`: the volume's root), or with an empty path the handle itself.
public struct Place {
    public var handle: Int32
    public var path: PathBytes

    @inlinable @inline(__always)
    public init(_ path: PathBytes, from handle: Int32 = WireRequest.rootHandle) {
        self.path = path
        self.handle = handle
    }

    @inlinable public init(handle: Int32) {
        path = .none
        self.handle = handle
    }
}

/// Operations on names. Results: >= 0, a negated errno, or `WireCompletion.escape` (then see `remainder`); each blocks until answered.
/// Paths and flags as in the Linux call of the same name, except that every path is taken from the volume's root or a handle.
extension Channel {
    /// open(2). `result`: a handle. `info0`: inode number, `info1`: st_mode. With `WireRequest.handleItself` in the mode, the place may be a handle. `limits`: RESOLVE_* of openat2(2).
    @inline(__always)
    public func open(_ place: Place, flags: UInt32, mode: UInt32, limits: UInt64 = 0) -> WireCompletion {
        var request = WireRequest(.open)
        request.length = limits
        request.flags = flags
        request.mode = mode
        return call(&request, at: place)
    }

    /// stat(2), lstat(2) (`flags` AT_SYMLINK_NOFOLLOW = 0x100), fstat(2). Writes the 144 bytes of x86-64's struct stat.
    @inline(__always)
    public func status(_ place: Place, flags: UInt32, into status: UnsafeMutableRawPointer) -> WireCompletion {
        var request = WireRequest(.getattr)
        request.flags = flags
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = 144
        let completion = call(&request, at: place)
        if completion.result >= 0 { unsafe dashfs_copy(status, dataArea, 144) }
        return completion
    }

    /// chmod, chown, truncate, utimensat and their f-forms: whatever `attributeMask` names, in one step.
    /// Fill `attributeMask`, `mode`, `attributeOwner`, `attributeGroup`, `length` (the new size) and the times of a `WireRequest(.setattr)`.
    public func setAttributes(_ place: Place, _ request: inout WireRequest) -> WireCompletion {
        request.opcode = WireOpcode.setattr.rawValue
        return call(&request, at: place, secondLine: true)
    }

    public func access(_ place: Place, mode: UInt32, flags: UInt32) -> WireCompletion {
        var request = WireRequest(.access)
        request.mode = mode
        request.flags = flags
        return call(&request, at: place)
    }

    public func mkdir(_ place: Place, mode: UInt32) -> WireCompletion {
        var request = WireRequest(.mkdir)
        request.mode = mode
        return call(&request, at: place)
    }

    /// `mode` with the file type.
    public func mknod(_ place: Place, mode: UInt32, device: UInt64) -> WireCompletion {
        var request = WireRequest(.mknod)
        request.mode = mode
        request.argument = device
        return call(&request, at: place, secondLine: true)
    }

    /// A symbolic link at `place` whose text is `target`. An escape of the place is in the *first* path.
    public func symlink(_ target: PathBytes, at place: Place) -> WireCompletion {
        var request = WireRequest(.symlink)
        return call(&request, at: place, second: target)
    }

    /// readlink(2): bytes written to `buffer`.
    public func readlink(_ place: Place, into buffer: UnsafeMutableRawPointer, capacity: Int) -> WireCompletion {
        var request = WireRequest(.readlink)
        return unsafe fill(&request, at: place, buffer: buffer, capacity: min(capacity, Layout.pathCapacity))
    }

    /// `flags` AT_SYMLINK_FOLLOW (0x400), AT_EMPTY_PATH (0x1000).
    public func link(_ existing: Place, to new: Place, flags: UInt32) -> WireCompletion {
        var request = WireRequest(.link)
        request.flags = flags
        request.handle2 = new.handle
        return call(&request, at: existing, second: new.path)
    }

    public func unlink(_ place: Place) -> WireCompletion {
        var request = WireRequest(.unlink)
        return call(&request, at: place)
    }

    public func rmdir(_ place: Place) -> WireCompletion {
        var request = WireRequest(.rmdir)
        return call(&request, at: place)
    }

    /// `flags` RENAME_NOREPLACE (1), RENAME_EXCHANGE (2).
    public func rename(_ old: Place, to new: Place, flags: UInt32) -> WireCompletion {
        var request = WireRequest(.rename)
        request.flags = flags
        request.handle2 = new.handle
        return call(&request, at: old, second: new.path)
    }

    /// Fills `statistics` with x86-64's struct statfs (120 bytes; `capacity` must be as much).
    public func statfs(_ place: Place, into statistics: UnsafeMutableRawPointer, capacity: Int) -> WireCompletion {
        guard capacity >= 120 else { return WireCompletion(result: -ErrorNumber.invalid) }
        var request = WireRequest(.statfs)
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = 64
        let completion = call(&request, at: place)
        guard completion.result >= 0 else { return completion }
        // The answer: block size, blocks, free, available, inodes, free inodes, longest name, volume id; 64 bits each.
        let answer = unsafe dataArea
        for word in 0..<15 { unsafe dashfs_store64(statistics + word * 8, 0) }
        unsafe dashfs_store64(statistics, 0x4853_4144 /* "DASH" */)
        for word in 0..<6 { unsafe dashfs_store64(statistics + 8 + word * 8, dashfs_load64(answer + word * 8)) }
        unsafe dashfs_store64(statistics + 56, dashfs_load64(answer + 56))
        unsafe dashfs_store64(statistics + 64, dashfs_load64(answer + 48))
        unsafe dashfs_store64(statistics + 72, dashfs_load64(answer))
        return completion
    }

    /// Where an open file is: its path from the volume's root, without a terminator. ERANGE: longer than `capacity`; ENOENT: nowhere that is known.
    public func handlePath(_ handle: Int32, into buffer: UnsafeMutableRawPointer, capacity: Int) -> Int64 {
        var request = WireRequest(.handlePath)
        return unsafe fill(&request, at: Place(handle: handle), buffer: buffer, capacity: min(capacity, Layout.pathCapacity)).result
    }

    // MARK: Extended attributes (`flags` AT_SYMLINK_NOFOLLOW for the l-forms; setxattr: XATTR_CREATE 1, XATTR_REPLACE 2 in `flags`,
    // AT_SYMLINK_NOFOLLOW stays 0x100)

    /// The value's size; with `capacity` 0 nothing else.
    public func getxattr(
        _ place: Place, name: PathBytes, into buffer: UnsafeMutableRawPointer?, capacity: Int, flags: UInt32 = 0
    ) -> WireCompletion {
        var request = WireRequest(.getxattr)
        request.flags = flags
        return unsafe fill(&request, at: place, second: name, buffer: buffer, capacity: capacity)
    }

    public func setxattr(
        _ place: Place, name: PathBytes, value: UnsafeRawPointer?, count: Int, flags: UInt32
    ) -> WireCompletion {
        guard count <= min(dataCapacity, 65536) else { return WireCompletion(result: -7 /* E2BIG */) }
        var request = WireRequest(.setxattr)
        request.flags = flags
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = UInt32(truncatingIfNeeded: max(count, 0))
        if count > 0, let value = unsafe value { unsafe dashfs_copy(dataArea, value, count) }
        return call(&request, at: place, second: name)
    }

    public func listxattr(
        _ place: Place, into buffer: UnsafeMutableRawPointer?, capacity: Int, flags: UInt32 = 0
    ) -> WireCompletion {
        var request = WireRequest(.listxattr)
        request.flags = flags
        return unsafe fill(&request, at: place, buffer: buffer, capacity: capacity)
    }

    public func removexattr(_ place: Place, name: PathBytes, flags: UInt32 = 0) -> WireCompletion {
        var request = WireRequest(.removexattr)
        request.flags = flags
        return call(&request, at: place, second: name)
    }

    // MARK: Putting paths in place

    /// Sends a request about a place, and perhaps a second path, and waits.
    @inline(__always)
    public func call(
        _ request: inout WireRequest, at place: Place, second: PathBytes? = nil, secondLine: Bool = false
    ) -> WireCompletion {
        guard place.path.count <= Layout.pathLimit, second?.count ?? 0 <= Layout.pathLimit else {
            return WireCompletion(result: -ErrorNumber.nameTooLong)
        }
        guard let tag = reserve() else { return WireCompletion(result: refusal) }
        request.tag = tag
        put(place, second: second, into: &request)
        submit(request, secondLine: secondLine)
        announce()
        return wait(tag)
    }

    /// Copies the paths to the arena and names them in the request, whose tag is set. Their lengths have been checked.
    @inline(__always)
    public func put(_ place: Place, second: PathBytes? = nil, into request: inout WireRequest) {
        request.handle = place.handle
        if place.path.count > 0, let path = unsafe place.path.address {
            request.pathOffset = pathOffset(request.tag)
            request.pathLength = UInt16(truncatingIfNeeded: place.path.count)
            unsafe dashfs_copy(pathArea(request.tag), path, place.path.count)
        }
        if let second, second.count > 0, let path = unsafe second.address {
            request.path2Offset = pathOffset(request.tag, second: true)
            request.path2Length = UInt16(truncatingIfNeeded: second.count)
            unsafe dashfs_copy(pathArea(request.tag, second: true), path, second.count)
        }
    }

    /// A request whose answer is bytes: at most `capacity` of them come to `buffer`.
    func fill(
        _ request: inout WireRequest, at place: Place, second: PathBytes? = nil, buffer: UnsafeMutableRawPointer?,
        capacity: Int
    ) -> WireCompletion {
        let room = max(0, min(capacity, dataCapacity))
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = UInt32(truncatingIfNeeded: room)
        let completion = call(&request, at: place, second: second)
        if completion.result > 0, room > 0, let buffer = unsafe buffer {
            unsafe dashfs_copy(buffer, dataArea, min(Int(truncatingIfNeeded: completion.result), room))
        }
        return completion
    }
}
