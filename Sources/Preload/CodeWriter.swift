// Writes to pages of code. /proc/self/mem first: it leaves page permissions alone, which matters where a page that was once
// writable can never be executable again (MDWE); mprotect where that file cannot be opened or written.
//
// The mprotect way is tried on the slots, which are pages of their own with nothing in use in them, before it is used on the
// C library.

import CPreload
import CSystem

struct CodeWriter: ~Copyable {
    private let memory: Int64
    /// The last errno, for the message.
    private(set) var failure: Int64 = 0

    init() {
        let readWriteCloseOnExec: Int64 = 0o2000002
        let path: StaticString = "/proc/self/mem"
        memory = unsafe dashfs_raw_syscall3(
            SystemCallNumber.open.rawValue, Int64(Int(bitPattern: path.utf8Start)), readWriteCloseOnExec, 0)
    }

    deinit {
        if memory >= 0 { _ = dashfs_raw_syscall3(SystemCallNumber.close.rawValue, memory, 0, 0) }
    }

    /// Replaces the code at `address`.
    mutating func write(_ bytes: UnsafeRawBufferPointer, at address: UInt64) -> Bool {
        let source = Int64(Int(bitPattern: bytes.baseAddress))
        if memory >= 0 {
            let written = dashfs_raw_syscall6(
                SystemCallNumber.pwrite64.rawValue, memory, source, Int64(bytes.count), Int64(bitPattern: address), 0, 0)
            if written == Int64(bytes.count) { return true }
        }
        let first = address & ~4095
        let length = Int64(bitPattern: ((address &+ UInt64(bytes.count) &+ 4095) & ~4095) &- first)
        let first64 = Int64(bitPattern: first)
        let (readWrite, readExecute): (Int64, Int64) = (3, 5)
        let opened = dashfs_raw_syscall3(SystemCallNumber.mprotect.rawValue, first64, length, readWrite)
        if opened != 0 {
            failure = -opened
            return false
        }
        if let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)), let start = bytes.baseAddress {
            unsafe target.copyMemory(from: start, byteCount: bytes.count)
        }
        let closed = dashfs_raw_syscall3(SystemCallNumber.mprotect.rawValue, first64, length, readExecute)
        failure = -closed
        return closed == 0
    }
}
