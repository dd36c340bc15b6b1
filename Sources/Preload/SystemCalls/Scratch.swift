// Memory for texts that are too long for a signal handler's stack: blocks of 16 KiB.
//
// A block belongs to whoever holds it. A thread that is cancelled, or a handler that jumps away, leaves its block behind for ever; when all
// are gone a block is mapped for each use.

import CPreload
import CSystem

@safe struct Scratch: ~Copyable {
    static let bytes = Int(DASHFS_SCRATCH_BYTES)
    let base: UnsafeMutableRawPointer
    private let block: UInt32

    /// nil: no memory.
    init?() {
        if let index = Scratch.claim() {
            unsafe base = UnsafeMutableRawPointer(dashfs_scratch_block(index))
            block = index
            return
        }
        let mapped = dashfs_sys_map(
            -1, Scratch.bytes, Int32(dashfs_protection_read | dashfs_protection_write), Int32(dashfs_map_private | dashfs_map_anonymous))
        guard mapped > 0, let memory = unsafe UnsafeMutableRawPointer(bitPattern: mapped) else { return nil }
        unsafe base = memory
        block = .max
    }

    deinit {
        if block == .max {
            _ = unsafe dashfs_sys_unmap(base, Scratch.bytes)
        } else {
            unsafe dashfs_store32_release(dashfs_scratch_word(block), 0)
        }
    }

    /// The number of a block that is the caller's from now on.
    static func claim() -> UInt32? {
        for index in 0..<UInt32(DASHFS_SCRATCH_BLOCKS) {
            if unsafe dashfs_load32(dashfs_scratch_word(index)) == 0, unsafe dashfs_swap32_if(dashfs_scratch_word(index), 0, 1) { return index }
        }
        return nil
    }

    var address: UInt64 { unsafe UInt64(UInt(bitPattern: base)) }
}
