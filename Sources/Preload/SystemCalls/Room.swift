// Memory for the time of one call, of whatever size the call needs: a scratch block, or a mapping of its own where that is too small.

import CPreload
import CSystem

@safe struct Room: ~Copyable {
    let base: UnsafeMutableRawPointer
    /// Bytes of the mapping; 0: it is `scratch`.
    private let mapped: Int
    private let scratch: Scratch?

    /// nil: no memory.
    init?(bytes: Int) {
        if bytes <= Scratch.bytes {
            guard let block = Scratch() else { return nil }
            unsafe base = block.base
            mapped = 0
            scratch = consume block
            return
        }
        let address = dashfs_sys_map(
            -1, bytes, Int32(dashfs_protection_read | dashfs_protection_write), Int32(dashfs_map_private | dashfs_map_anonymous))
        guard address > 0, let memory = unsafe UnsafeMutableRawPointer(bitPattern: address) else { return nil }
        unsafe base = memory
        mapped = bytes
        scratch = nil
    }

    deinit {
        if mapped > 0 { _ = unsafe dashfs_sys_unmap(base, mapped) }
    }

    var address: Int64 { unsafe Int64(Int(bitPattern: base)) }
}
