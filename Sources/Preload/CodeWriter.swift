// Writes to pages of code, in one of two ways.
//
// Changing permissions for a moment (mprotect) costs half of what /proc/self/mem costs, but where a page that was once
// writable can never be executable again (MDWE, its imitation by seccomp, SELinux without execmod) it would leave the C
// library dead. So it is rehearsed on a page of ours that nothing uses; if that page does not become executable again,
// everything goes through /proc/self/mem, which leaves permissions alone.
//
// Between `open` and `close` the code in the range cannot run: the caller is the only thread and calls nobody.

import CPreload
import CSystem

struct CodeWriter: ~Copyable {
    /// /proc/self/mem, or -1 if pages are made writable instead.
    private var memory: Int64 = -1
    /// The last errno, for the message.
    private(set) var failure: Int64 = 0

    private static var readWrite: Int64 { 3 }
    private static var readExecute: Int64 { 5 }

    /// `unused` is the address of a page of code that is never executed.
    init(rehearsingOn unused: UInt64) {
        if Self.protect(unused..<unused &+ 4096, Self.readWrite) == 0 {
            if let byte = unsafe UnsafeMutablePointer<UInt8>(bitPattern: UInt(unused)) { unsafe byte.pointee = 0xcc }
            if Self.protect(unused..<unused &+ 4096, Self.readExecute) == 0 { return }
        }
        let readWriteCloseOnExec: Int64 = 0o2000002
        let path: StaticString = "/proc/self/mem"
        memory = unsafe dashfs_raw_syscall3(
            SystemCallNumber.open.rawValue, Int64(Int(bitPattern: path.utf8Start)), readWriteCloseOnExec, 0)
        if memory < 0 { failure = -memory }
    }

    deinit {
        if memory >= 0 { _ = dashfs_raw_syscall3(SystemCallNumber.close.rawValue, memory, 0, 0) }
    }

    var isUsable: Bool { failure == 0 }

    mutating func open(_ range: Range<UInt64>) -> Bool {
        guard memory < 0 else { return true }
        failure = -Self.protect(range, Self.readWrite)
        return failure == 0
    }

    mutating func close(_ range: Range<UInt64>) -> Bool {
        guard memory < 0 else { return true }
        failure = -Self.protect(range, Self.readExecute)
        return failure == 0
    }

    /// Replaces the code at `address`, which lies in an open range.
    mutating func write(_ bytes: UnsafeRawBufferPointer, at address: UInt64) -> Bool {
        guard let source = bytes.baseAddress, let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) else {
            return false
        }
        guard memory >= 0 else {
            unsafe target.copyMemory(from: source, byteCount: bytes.count)
            return true
        }
        let written = dashfs_raw_syscall6(
            SystemCallNumber.pwrite64.rawValue, memory, Int64(Int(bitPattern: source)), Int64(bytes.count),
            Int64(bitPattern: address), 0, 0)
        failure = written < 0 ? -written : 0
        return written == Int64(bytes.count)
    }

    private static func protect(_ range: Range<UInt64>, _ access: Int64) -> Int64 {
        let first = range.lowerBound & ~4095
        let end = (range.upperBound &+ 4095) & ~4095
        return dashfs_raw_syscall3(
            SystemCallNumber.mprotect.rawValue, Int64(bitPattern: first), Int64(bitPattern: end &- first), access)
    }
}
