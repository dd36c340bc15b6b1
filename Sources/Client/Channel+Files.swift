import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// Operations on open descriptions. Results: >= 0 or a negated errno; each blocks until answered, but for `closeSoon`.
extension Channel {
    /// Nothing: measures the way there and back.
    @inline(__always)
    public func null() -> Int64 {
        var request = WireRequest(.null)
        return call(&request).result
    }

    /// - Parameter owner: POSIX locks of this owner on the file are released, as close(2) does for the closing process.
    @inline(__always)
    /// - Parameter keepsLocks: it is no descriptor of the process's that is closed, so its record locks on the file stay.
    public func close(_ handle: Int32, owner: UInt32 = 0, keepsLocks: Bool = false) -> Int64 {
        var request = WireRequest(.close)
        request.handle = handle
        request.flags = keepsLocks ? WireRequest.keepsLocks : 0
        request.owner = owner
        return call(&request, secondLine: true).result
    }

    /// Closes without waiting for the answer, which says nothing to one who owns the handle: what was written is the server's since the write, and errors
    /// of the device are fsync's to tell. A session that has ever locked a file, or inherited one, waits, because others may be told that the lock is free.
    /// - Returns: 0, or what a close that was waited for answered.
    @inline(__always)
    public func closeSoon(_ handle: Int32, keepsLocks: Bool = false) -> Int64 {
        guard unsafe dashfs_load32(sessionWord(SessionState.hasLocked)) == 0 else { return close(handle, keepsLocks: keepsLocks) }
        var request = WireRequest(.close)
        request.handle = handle
        request.flags = keepsLocks ? WireRequest.keepsLocks : 0
        return post(&request, secondLine: true) ? 0 : close(handle, keepsLocks: keepsLocks)
    }

    /// Closes wait for their answers from here on.
    private func noteLock() { unsafe dashfs_store32_release(sessionWord(SessionState.hasLocked), 1) }

    @inline(__always)
    private func sessionWord(_ offset: Int) -> UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(session) + offset }

    /// pread(2), or read(2) with `offset` -1. Longer transfers than the arena are several requests; a short one ends them.
    @inline(__always)
    public func read(_ handle: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: Int64 = -1) -> Int64 {
        if count <= dataCapacity { return unsafe readOnce(handle, into: buffer, count: count, offset: offset) }
        return unsafe readMany(handle, into: buffer, count: count, offset: offset)
    }

    /// pwrite(2), or write(2) with `offset` -1. Up to `dataCapacity` bytes are one request, and as atomic as the file system makes it.
    @inline(__always)
    public func write(_ handle: Int32, from buffer: UnsafeRawPointer, count: Int, offset: Int64 = -1) -> Int64 {
        if count <= dataCapacity { return unsafe writeOnce(handle, from: buffer, count: count, offset: offset) }
        return unsafe writeMany(handle, from: buffer, count: count, offset: offset)
    }

    /// A read into `dataArea`, without the copy out of it. `count` <= `dataCapacity`.
    @inline(__always)
    public func readInPlace(_ handle: Int32, count: Int, offset: Int64 = -1) -> Int64 { transfer(.read, handle, count, offset) }

    /// A write of what is in `dataArea` already. `flags`: RWF_DSYNC 2, RWF_SYNC 4, RWF_APPEND 16, RWF_NOAPPEND 32 of pwritev2(2).
    @inline(__always)
    public func writeInPlace(_ handle: Int32, count: Int, offset: Int64 = -1, flags: UInt32 = 0) -> Int64 {
        transfer(.write, handle, count, offset, flags)
    }

    @inline(__always)
    private func transfer(_ opcode: WireOpcode, _ handle: Int32, _ count: Int, _ offset: Int64, _ flags: UInt32 = 0) -> Int64 {
        guard count >= 0 else { return -ErrorNumber.invalid }
        var request = WireRequest(opcode)
        request.flags = flags
        request.handle = handle
        request.offset = offset
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = UInt32(truncatingIfNeeded: min(count, dataCapacity))
        return call(&request).result
    }

    @inline(__always)
    func readOnce(_ handle: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: Int64) -> Int64 {
        let result = readInPlace(handle, count: count, offset: offset)
        if result > 0 { unsafe dashfs_copy(buffer, dataArea, min(Int(truncatingIfNeeded: result), count)) }
        return result
    }

    @inline(__always)
    func writeOnce(_ handle: Int32, from buffer: UnsafeRawPointer, count: Int, offset: Int64) -> Int64 {
        guard count >= 0 else { return -ErrorNumber.invalid }
        unsafe dashfs_copy(dataArea, buffer, count)
        return writeInPlace(handle, count: count, offset: offset)
    }

    /// The most that one call transfers, as in Linux.
    static let transferLimit = 0x7fff_f000

    @inline(never)
    func readMany(_ handle: Int32, into buffer: UnsafeMutableRawPointer, count: Int, offset: Int64) -> Int64 {
        let total = min(count, Channel.transferLimit)
        var done = 0
        while done < total {
            let piece = min(total - done, dataCapacity)
            let place = offset < 0 ? offset : offset &+ Int64(done)
            let result = unsafe readOnce(handle, into: buffer + done, count: piece, offset: place)
            if result < 0 { return done > 0 ? Int64(done) : result }
            done += min(Int(truncatingIfNeeded: result), piece)
            if result < piece { break }
        }
        return Int64(done)
    }

    @inline(never)
    func writeMany(_ handle: Int32, from buffer: UnsafeRawPointer, count: Int, offset: Int64) -> Int64 {
        let total = min(count, Channel.transferLimit)
        var done = 0
        while done < total {
            let piece = min(total - done, dataCapacity)
            let place = offset < 0 ? offset : offset &+ Int64(done)
            let result = unsafe writeOnce(handle, from: buffer + done, count: piece, offset: place)
            if result < 0 { return done > 0 ? Int64(done) : result }
            done += min(Int(truncatingIfNeeded: result), piece)
            if result < piece { break }
        }
        return Int64(done)
    }

    /// lseek(2): SEEK_SET 0, SEEK_CUR 1, SEEK_END 2, SEEK_DATA 3, SEEK_HOLE 4.
    public func seek(_ handle: Int32, offset: Int64, whence: UInt32) -> Int64 {
        var request = WireRequest(.seek)
        request.handle = handle
        request.offset = offset
        request.flags = whence
        return call(&request).result
    }

    /// ftruncate(2).
    public func truncate(_ handle: Int32, size: Int64) -> Int64 {
        var request = WireRequest(.setattr)
        request.attributeMask = 8
        request.length = UInt64(bitPattern: size)
        return setAttributes(Place(handle: handle), &request).result
    }

    /// fallocate(2): `mode` FALLOC_FL_*.
    public func fallocate(_ handle: Int32, mode: UInt32, offset: Int64, length: UInt64) -> Int64 {
        var request = WireRequest(.fallocate)
        request.handle = handle
        request.flags = mode
        request.offset = offset
        request.length = length
        return call(&request).result
    }

    /// fsync(2), or fdatasync(2) with `dataOnly`. When it has returned 0, it is durable.
    public func fsync(_ handle: Int32, dataOnly: Bool = false) -> Int64 {
        var request = WireRequest(.fsync)
        request.handle = handle
        request.flags = dataOnly ? 1 : 0
        return call(&request).result
    }

    /// The whole volume.
    public func sync() -> Int64 {
        var request = WireRequest(.sync)
        return call(&request).result
    }

    /// getdents64(2): linux_dirent64 records; 0 at the end.
    public func readDirectory(_ handle: Int32, into buffer: UnsafeMutableRawPointer, capacity: Int) -> Int64 {
        var request = WireRequest(.readdir)
        return unsafe fill(&request, at: Place(handle: handle), buffer: buffer, capacity: capacity).result
    }

    /// fcntl(2) record locks. `command` F_GETLK 5, F_SETLK 6, F_SETLKW 7, with 31 more F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW; `type` F_RDLCK 0, F_WRLCK 1, F_UNLCK 2; the range from the start of the
    /// file, `length` 0 to its end. F_GETLK: info0 type, info1 start, info2 length, result the owner's process or 0.
    /// F_SETLKW ends with EINTR when a signal arrives whose handler was not set with SA_RESTART.
    public func lock(
        _ handle: Int32, command: UInt32, type: UInt32, offset: Int64, length: UInt64, owner: UInt32 = 0
    ) -> WireCompletion {
        var request = WireRequest(.lock)
        request.handle = handle
        request.flags = command
        request.argument = UInt64(type)
        request.offset = offset
        request.length = length
        request.owner = owner
        noteLock()
        return callInterruptibly(&request, secondLine: true)
    }

    /// flock(2): LOCK_SH 1, LOCK_EX 2, LOCK_UN 8, with LOCK_NB 4.
    public func flock(_ handle: Int32, operation: UInt32) -> Int64 {
        var request = WireRequest(.flock)
        request.handle = handle
        request.flags = operation
        noteLock()
        return callInterruptibly(&request, secondLine: false).result
    }

    /// fcntl(2) F_SETFL; with `flags` nil F_GETFL.
    public func statusFlags(_ handle: Int32, set flags: UInt32?) -> Int64 {
        var request = WireRequest(.setflags)
        request.handle = handle
        request.flags = flags ?? ~0
        return call(&request).result
    }

    /// copy_file_range(2): inside the volume, without the data passing through the caller. Offsets -1: the descriptions' own.
    public func copyRange(
        from source: Int32, at sourceOffset: Int64, to target: Int32, at targetOffset: Int64, length: UInt64
    ) -> Int64 {
        var request = WireRequest(.copyRange)
        request.handle = source
        request.offset = sourceOffset
        request.handle2 = target
        request.offset2 = targetOffset
        request.length = length
        return call(&request, secondLine: true).result
    }

    /// The first half of mmap(2): the server makes the file's memory, and `Session.takeMap` fetches it. `flags`: MAP_SHARED 1, PROT_WRITE 2. info0: the inode,
    /// which names it.
    public func map(_ handle: Int32, offset: Int64, length: UInt64, flags: UInt32) -> WireCompletion {
        var request = WireRequest(.map)
        request.handle = handle
        request.offset = offset
        request.length = length
        request.flags = flags
        return call(&request, secondLine: true)
    }

    /// Bytes of a file that is mapped: `more` of it is to be there; or a map that was for writing is gone.
    public func changeMap(inode: UInt64, offset: Int64, length: UInt64, more: Bool) -> Int64 {
        var request = WireRequest(.map)
        request.argument = inode
        request.offset = offset
        request.length = length
        request.flags = more ? 4 : 8
        return call(&request, secondLine: true).result
    }

    /// msync(2): what programs have stored into maps of these bytes of the inode is durable.
    public func syncMap(inode: UInt64, offset: Int64, length: UInt64) -> Int64 {
        var request = WireRequest(.syncMap)
        request.argument = inode
        request.offset = offset
        request.length = length
        return call(&request, secondLine: true).result
    }

    /// A call that may wait without a limit, and that a signal ends.
    private func callInterruptibly(_ request: inout WireRequest, secondLine: Bool) -> WireCompletion {
        guard let tag = reserve() else { return WireCompletion(result: refusal) }
        request.tag = tag
        submit(request, secondLine: secondLine)
        announce()
        return wait(tag, interruptible: true)
    }
}
