// The table of descriptors that are DashFS files: descriptor → description, several descriptors to one description after dup.
//
// Always true: the number of a file is that of a real descriptor, the placeholder, which the kernel gave out; so lowest-number
// rule, limits and close-on-exec are the kernel's. An entry is 0 (not ours), `own` (the library's: the program cannot see it), or a
// description's index + 1. A description lives from 1 reference to 0; each entry and each call under way is one, so a file closed
// by one thread stays the same file until the call of another has ended. No locks: signal handlers may come at any point.
// A vfork child that changes something does so in a copy (`ThreadBlock`): the table is its parent's.
// Whether a description is of any use is decided by its generation: where a fork could not hand it on it is of an older one, and every call on it ends with EBADF.

import CPreload
import CSystem

enum Descriptors {
    private static let own: UInt32 = .max
    static let directoryEntry = UInt32(DASHFS_DIRECTORY_ENTRY)
    nonisolated(unsafe) private static var nextDescription: UInt32 = 0
    /// No descriptor of ours has been at or above it.
    nonisolated(unsafe) private static var highWater: UInt32 = 0

    static var end: UInt32 {
        if unsafe dashfs_borrowed_block() != nil, let end = ThreadBlock.tableEnd { return end }
        return unsafe highWater
    }

    @inline(__always)
    private static func entry(_ descriptor: Int64) -> UInt32 {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard number < UInt32(DASHFS_DESCRIPTOR_LIMIT) else { return 0 }
        return unsafe dashfs_load32_acquire(word(number))
    }

    /// The entry's place: in the table, or in the calling vfork child's own.
    @inline(__always)
    private static func word(_ number: UInt32) -> UnsafeMutablePointer<UInt32> {
        if unsafe dashfs_borrowed_block() != nil, let own = unsafe ThreadBlock.table(number) { return unsafe own }
        return unsafe dashfs_entry(number)
    }

    /// True for files and for what inheritance has left of files, false for the library's own descriptors.
    @inline(__always)
    static func isFile(_ descriptor: Int64) -> Bool {
        let entry = entry(descriptor)
        return entry != 0 && entry != own
    }

    static func isFile(_ descriptor: Int64, of description: Description) -> Bool { entry(descriptor) == description.index &+ 1 }

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

    static func closeOwn(_ descriptor: Int32) {
        unreserve(descriptor)
        _ = dashfs_sys_close(descriptor)
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
            let value = unsafe dashfs_load32_acquire(word(number))
            if value == 0 || value == own { return nil }
            let description = Description(index: value &- 1)
            if description.retain() {
                if unsafe dashfs_load32_acquire(word(number)) == value { return description }
                description.release()
            }
        }
    }

    /// A description with one reference, the caller's. nil: the table is full.
    static func make(handle: Int32, mode: UInt32, inode: UInt64, generation: UInt32 = Connection.generation) -> Description? {
        var index = unsafe nextDescription
        for _ in 0..<UInt32(DASHFS_DESCRIPTION_LIMIT) {
            index = index &+ 1
            let description = Description(index: index % UInt32(DASHFS_DESCRIPTION_LIMIT))
            if description.claim(handle: handle, mode: mode, inode: inode, generation: generation) {
                unsafe nextDescription = index
                return description
            }
        }
        return nil
    }

    /// The description that a descriptor or a map has already for what the server has open under this handle, with a reference for the caller.
    static func find(handle: Int32) -> Description? {
        for number in 0..<end {
            guard let description = pin(entry: number) else { continue }
            if description.handle == handle, description.generation == Connection.generation { return description }
            description.release()
        }
        return Maps.find(handle: handle)
    }

    /// The descriptor, which the kernel has just made, is this file. Takes over the caller's reference.
    static func install(_ description: Description, at descriptor: Int64) {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard prepare(through: number) else { return description.release() }
        dashfs_set_descriptor_hint(number, 1)
        replace(number, with: description.index &+ 1)
    }

    /// Makes room for a change of the entry; false in a vfork child that has no memory for one.
    private static func prepare(through number: UInt32) -> Bool {
        if Connection.isBorrowed { return ThreadBlock.makeTable(through: number) }
        if unsafe number >= highWater { unsafe highWater = number + 1 }
        return true
    }

    /// The parent's entries, each with a reference of its own, for a vfork child's table.
    static func copy(into block: UnsafeMutablePointer<dashfs_thread_block>) -> UInt32 {
        for number in 0..<(unsafe highWater) {
            var value = unsafe dashfs_load32_acquire(dashfs_entry(number))
            if value != 0, value != own, !Description(index: value &- 1).retain() { value = 0 }
            unsafe dashfs_store32(dashfs_block_entry(block, number), value)
        }
        return unsafe highWater
    }

    /// An entry of a table that has gone.
    static func release(entry value: UInt32) {
        if value != 0, value != own { Description(index: value &- 1).release() }
    }

    /// How many open files a block names.
    static var filesLimit: Int { min(Layout.handedLimit, Scratch.bytes / 4) }

    /// The open files of this process, each as often as it has a descriptor or a map for it, listed in the block.
    static func files(in scratch: borrowing Scratch) -> Inheritance {
        let target = unsafe scratch.base.assumingMemoryBound(to: Int32.self)
        let limit = filesLimit
        var count = 0
        for number in 0...end where count < limit {
            let number = number == end ? directoryEntry : number
            guard let file = pin(entry: number) else { continue }
            if file.generation == Connection.generation {
                unsafe target[count] = file.handle
                count += 1
            }
            file.release()
        }
        unsafe Maps.addHandles(target, &count, limit: limit)
        return unsafe Inheritance(key: (0, 0), handles: target, count: count)
    }

    /// The descriptor is not ours any more.
    @inline(__always)
    static func remove(_ descriptor: Int64) {
        let number = UInt32(truncatingIfNeeded: descriptor)
        guard number < UInt32(DASHFS_DESCRIPTOR_LIMIT), entry(descriptor) != 0, prepare(through: number) else { return }
        replace(number, with: 0)
    }

    static func setDirectory(_ description: Description?) {
        let value = description.map { $0.index &+ 1 } ?? 0
        replace(directoryEntry, with: value)
    }

    private static func replace(_ number: UInt32, with value: UInt32) {
        let old = unsafe dashfs_exchange32(word(number), value)
        if old != 0, old != own { Description(index: old &- 1).release(closing: !Connection.isBorrowed && number != directoryEntry) }
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

    /// The session that has it open; nil: it is lost, or there is no server. In a child that has inherited it this is where it connects.
    @inline(__always)
    var session: Session? {
        guard generation == Connection.generation, let session = Connection.sessionOfFiles(), generation == Connection.generation else { return nil }
        return session
    }

    /// What a call on it answers where there is no session for it.
    var failure: Int64 { generation == Connection.generation || Connection.wasLostWithServer(generation) ? -ErrorNumber.io : -ErrorNumber.badDescriptor }

    fileprivate func claim(handle: Int32, mode: UInt32, inode: UInt64, generation: UInt32) -> Bool {
        guard unsafe dashfs_load32(row) == 0, unsafe dashfs_swap32_if(row, 0, 1) else { return false }
        unsafe row.pointee.handle = handle
        unsafe row.pointee.mode = mode
        unsafe row.pointee.inode = inode
        unsafe row.pointee.generation = generation
        return true
    }

    /// Something beside one descriptor and the caller has it: another descriptor, a map, a call.
    var isShared: Bool { unsafe dashfs_load32(row) > 2 }

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
        let old = unsafe dashfs_fetch_subtract32(UnsafeMutableRawPointer(row).assumingMemoryBound(to: UInt32.self), 1)
        if old == 1 { Description.close(handle, generation, keepsLocks: !closing) }
    }

    private static func close(_ handle: Int32, _ generation: UInt32, keepsLocks: Bool) {
        guard generation == Connection.generation, let session = Connection.sessionOfFiles(), generation == Connection.generation,
            let channel = session.acquire()
        else { return }
        defer { session.release(channel) }
        _ = channel.closeSoon(handle, keepsLocks: keepsLocks)
    }
}
