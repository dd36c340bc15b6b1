// What a thread needs once it makes a child that shares its memory (vfork, posix_spawn), or another program: 520 KiB of address space, touched as used.
//
// Always true: a thread waits while its vfork child has its memory, and both have the same thread-local state; so a thread has one such child at a time, and
// the block is the child's until that has another program or has ended. What the child changed is forgotten at the thread's next call that arrives here (`settle`).
// Blocks of threads that have ended are used again.

import CPreload
import CSystem

enum ThreadBlock {
    /// The calling thread's own; nil: no memory.
    static func claim() -> UnsafeMutablePointer<dashfs_thread_block>? {
        if let own = unsafe dashfs_thread_block() { return unsafe own }
        let thread = UInt32(truncatingIfNeeded: dashfs_raw_syscall3(OwnCall.gettid, 0, 0, 0))
        let process = Int64(dashfs_sys_getpid())
        for index in 0..<UInt32(DASHFS_THREAD_BLOCKS) {
            let place = unsafe dashfs_thread_place_at(index)
            let owner = unsafe dashfs_load32(place)
            let gone: Int64 = -3  // ESRCH
            if owner != 0, dashfs_raw_syscall3(OwnCall.tgkill, process, Int64(owner), 0) != gone { continue }
            guard unsafe dashfs_swap32_if(place, owner, thread) else { continue }
            if unsafe place.pointee.block == nil { unsafe place.pointee.block = map() }
            guard let block = unsafe place.pointee.block else {
                unsafe dashfs_store32_release(place, 0)
                return nil
            }
            unsafe block.pointee = dashfs_thread_block()
            unsafe dashfs_set_thread_block(block)
            return unsafe block
        }
        // More threads than places: this one is not given back.
        guard let block = unsafe map() else { return nil }
        unsafe dashfs_set_thread_block(block)
        return unsafe block
    }

    private static func map() -> UnsafeMutablePointer<dashfs_thread_block>? {
        let protection = Int32(dashfs_protection_read | dashfs_protection_write)
        let memory = dashfs_sys_map(-1, Int(DASHFS_BLOCK_BYTES), protection, Int32(dashfs_map_private | dashfs_map_anonymous))
        return memory > 0 ? unsafe UnsafeMutablePointer(bitPattern: memory) : nil
    }

    // MARK: In a vfork child

    /// What the calling vfork child has changed; nil: nothing, or the caller is none.
    static var borrowed: UnsafeMutablePointer<dashfs_thread_block>? {
        guard let block = unsafe dashfs_borrowed_block(), Connection.isBorrowed else { return nil }
        return unsafe block
    }

    private static func borrow() -> UnsafeMutablePointer<dashfs_thread_block>? {
        if let block = unsafe borrowed { return unsafe block }
        guard let block = unsafe dashfs_thread_block() else { return nil }
        unsafe block.pointee = dashfs_thread_block()
        unsafe block.pointee.process = Int64(dashfs_sys_getpid())
        unsafe dashfs_set_borrowed_block(block)
        return unsafe block
    }

    /// The child's own entry of the table of descriptors; nil: it has no table, or that does not reach so far.
    @inline(never)
    static func table(_ number: UInt32) -> UnsafeMutablePointer<UInt32>? {
        guard let block = unsafe borrowed, unsafe block.pointee.has_table != 0, unsafe number < block.pointee.end else { return nil }
        return unsafe dashfs_block_entry(block, number)
    }

    static var tableEnd: UInt32? {
        guard let block = unsafe borrowed, unsafe block.pointee.has_table != 0 else { return nil }
        return unsafe block.pointee.end
    }

    /// Gives the calling vfork child a table of its own that has this entry. False: no memory.
    static func makeTable(through number: UInt32) -> Bool {
        guard let block = unsafe borrow() else { return false }
        if unsafe block.pointee.has_table == 0 {
            unsafe block.pointee.end = Descriptors.copy(into: block)
            unsafe block.pointee.has_table = 1
        }
        while unsafe block.pointee.end <= number {
            unsafe dashfs_store32(dashfs_block_entry(block, block.pointee.end), 0)
            unsafe block.pointee.end += 1
        }
        return true
    }

    /// The calling vfork child's own notion of the working directory; nil: its parent's.
    static var directory: UnsafeMutablePointer<dashfs_thread_block>? {
        guard let block = unsafe borrowed, unsafe block.pointee.has_directory != 0 else { return nil }
        return unsafe block
    }

    /// The same, to be filled. nil: no memory.
    static func makeDirectory() -> UnsafeMutablePointer<dashfs_thread_block>? {
        guard let block = unsafe borrow() else { return nil }
        unsafe block.pointee.has_directory = 1
        return unsafe block
    }

    // MARK: After it

    /// In a thread whose vfork child has gone: so has what that had open.
    @inline(never)
    static func settle() {
        guard let block = unsafe dashfs_borrowed_block(), !Connection.isBorrowed else { return }
        dashfs_set_borrowed_block(nil)
        if unsafe block.pointee.has_table != 0 {
            for number in 0..<(unsafe block.pointee.end) { unsafe Descriptors.release(entry: dashfs_load32(dashfs_block_entry(block, number))) }
        }
        unsafe block.pointee = dashfs_thread_block()
    }
}
