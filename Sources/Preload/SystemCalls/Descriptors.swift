// The table of descriptors that are DashFS files: descriptor → description, several descriptors to one description after dup.
//
// Always true: the number of a file is that of a real descriptor, the placeholder, which the kernel gave out; so lowest-number
// rule, limits and close-on-exec are the kernel's. An entry is 0 (not ours), `own` (the library's: the program cannot see it), or a
// description's index + 1. A description lives from 1 reference to 0; each entry and each call under way is one, so a file closed
// by one thread stays the same file until the call of another has ended. No locks: signal handlers may come at any point.
// Whether a description is of any use here is decided by its generation: after fork or exec it belongs to another process's session,
// and every call on it ends with EBADF.

import CPreload
import CSystem

enum Descriptors {
    private static let own: UInt32 = .max
    static let directoryEntry = UInt32(DASHFS_DIRECTORY_ENTRY)
    nonisolated(unsafe) private static var nextDescription: UInt32 = 0
    /// No descriptor of ours has been at or above it.
    nonisolated(unsafe) private static var highWater: UInt32 = 0

    static var end: UInt32 { unsafe highWater }

    @inline(__always)
    private static func entry(_ descriptor: Int64) -> UInt32 {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard number < UInt32(DASHFS_DESCRIPTOR_LIMIT) else { return 0 }
        return unsafe dashfs_load32_acquire(dashfs_entry(number))
    }

    /// True for files and for what inheritance has left of files, false for the library's own descriptors.
    @inline(__always)
    static func isFile(_ descriptor: Int64) -> Bool {
        let entry = entry(descriptor)
        return entry != 0 && entry != own
    }

    @inline(__always)
    static func isOwn(_ descriptor: Int64) -> Bool { entry(descriptor) == own }

    /// The library's own: the program's calls on it see EBADF.
    static func reserve(_ descriptor: Int32) {
        guard descriptor >= 0, descriptor < Int32(DASHFS_DESCRIPTOR_LIMIT) else { return }
        dashfs_set_descriptor_hint(UInt32(descriptor), 1)
        unsafe dashfs_store32_release(dashfs_entry(UInt32(descriptor)), own)
    }

    static func unreserve(_ descriptor: Int32) {
        guard isOwn(Int64(descriptor)) else { return }
        unsafe dashfs_store32_release(dashfs_entry(UInt32(descriptor)), 0)
    }

    /// Keeps the description of a descriptor of ours alive until `release`. nil: it is not ours.
    @inline(__always)
    static func pin(_ descriptor: Int64) -> Description? {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard number < UInt32(DASHFS_DESCRIPTOR_LIMIT) else { return nil }
        return pin(entry: number)
    }

    static func pin(entry number: UInt32) -> Description? {
        while true {
            let value = unsafe dashfs_load32_acquire(dashfs_entry(number))
            if value == 0 || value == own { return nil }
            let description = Description(index: value &- 1)
            if description.retain() {
                if unsafe dashfs_load32_acquire(dashfs_entry(number)) == value { return description }
                description.release()
            }
        }
    }

    /// A description with one reference, the caller's. nil: the table is full.
    static func make(handle: Int32, mode: UInt32, inode: UInt64, session: Session?, generation: UInt32) -> Description? {
        var index = unsafe nextDescription
        for _ in 0..<UInt32(DASHFS_DESCRIPTION_LIMIT) {
            index = index &+ 1
            let description = Description(index: index % UInt32(DASHFS_DESCRIPTION_LIMIT))
            if description.claim(handle: handle, mode: mode, inode: inode, session: session, generation: generation) {
                unsafe nextDescription = index
                return description
            }
        }
        return nil
    }

    /// The descriptor, which the kernel has just made, is this file. Takes over the caller's reference.
    static func install(_ description: Description, at descriptor: Int64) {
        let number = UInt32(truncatingIfNeeded: descriptor)
        if unsafe number >= highWater { unsafe highWater = number + 1 }
        dashfs_set_descriptor_hint(number, 1)
        replace(number, with: description.index &+ 1)
    }

    /// The descriptor is not ours any more.
    @inline(__always)
    static func remove(_ descriptor: Int64) {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard number < UInt32(DASHFS_DESCRIPTOR_LIMIT), entry(descriptor) != 0 else { return }
        replace(number, with: 0)
    }

    static func setDirectory(_ description: Description?) {
        let value = description.map { $0.index &+ 1 } ?? 0
        replace(directoryEntry, with: value)
    }

    private static func replace(_ number: UInt32, with value: UInt32) {
        let old = unsafe dashfs_exchange32(dashfs_entry(number), value)
        if old != 0, old != own { Description(index: old &- 1).release(closing: true) }
    }
}

/// A reference to a row of the table of descriptions.
@safe struct Description {
    let index: UInt32
    private var row: UnsafeMutablePointer<dashfs_description> { unsafe dashfs_description_at(index) }

    init(index: UInt32) { self.index = index }

    // Constant from `claim` to the last `release`.
    var handle: Int32 { unsafe row.pointee.handle }
    var mode: UInt32 { unsafe row.pointee.mode }
    var inode: UInt64 { unsafe row.pointee.inode }
    var generation: UInt32 { unsafe row.pointee.generation }
    /// Opened with O_PATH.
    var isPathOnly: Bool { mode & Description.pathOnlyBit != 0 }
    static let pathOnlyBit: UInt32 = 1 << 31
    var isDirectory: Bool { mode & 0o170000 == 0o040000 }
    var isRegular: Bool { mode & 0o170000 == 0o100000 }

    /// The session that `handle` belongs to; nil: another process's.
    @inline(__always)
    var session: Session? {
        guard unsafe row.pointee.generation == Connection.generation,
            let state = unsafe UnsafeMutablePointer<SessionState>(bitPattern: UInt(row.pointee.session))
        else { return nil }
        let session = unsafe Session(state: state)
        if session.isCurrent { return session }
        Connection.noticeFork()
        return nil
    }

    fileprivate func claim(handle: Int32, mode: UInt32, inode: UInt64, session: Session?, generation: UInt32) -> Bool {
        guard unsafe dashfs_load32(row) == 0, unsafe dashfs_swap32_if(row, 0, 1) else { return false }
        unsafe row.pointee.handle = handle
        unsafe row.pointee.mode = mode
        unsafe row.pointee.inode = inode
        unsafe row.pointee.generation = generation
        unsafe row.pointee.session = session.map { unsafe UInt64(UInt(bitPattern: $0.state)) } ?? 0
        return true
    }

    /// False: it has just gone.
    @inline(__always)
    func retain() -> Bool {
        while true {
            let count = unsafe dashfs_load32(row)
            if count == 0 { return false }
            if unsafe dashfs_swap32_if(row, count, count &+ 1) { return true }
        }
    }

    /// - Parameter closing: a descriptor has been closed; POSIX then releases the process's record locks on the file.
    @inline(__always)
    func release(closing: Bool = false) {
        if closing, RecordLocks.used, unsafe dashfs_load32(row) > 1, let session { RecordLocks.releaseAll(session, handle) }
        let (handle, generation) = (self.handle, self.generation)
        let state = unsafe row.pointee.session
        let old = unsafe dashfs_fetch_subtract32(UnsafeMutableRawPointer(row).assumingMemoryBound(to: UInt32.self), 1)
        if old == 1 { closeHandle(handle, generation, state) }
    }

    private func closeHandle(_ handle: Int32, _ generation: UInt32, _ state: UInt64) {
        guard generation == Connection.generation, let state = unsafe UnsafeMutablePointer<SessionState>(bitPattern: UInt(state)) else { return }
        let session = unsafe Session(state: state)
        guard let channel = session.acquire() else { return }
        defer { session.release(channel) }
        _ = channel.closeSoon(handle)
    }
}
