// Memory that a call's arguments point to. A bad pointer has to end in EFAULT, as from the kernel, never in a fault here.
//
// Nothing is touched before it is known to be mapped. What is known is remembered per thread, as a few page ranges, and
// forgotten when any call of the process has changed mappings (`dashfs_mapping_epoch`); so a buffer that is used again
// costs a comparison, and one seen for the first time a system call (docs/INTERCEPTION.md has the figures, and why not
// process_vm_readv). A program that unmaps memory by system calls of its own and then passes a pointer to it is not caught.
//
// No allocation, no locks: callable in signal handlers and vfork children. A handler that interrupts `remember` sees an
// empty range, never a wrong one.

import CPreload
import CSystem

struct ProgramMemory {
    /// The program's, at its call site.
    private let stackPointer: UInt64

    init(_ frame: borrowing SystemCallFrame) { stackPointer = frame.stack_pointer }

    nonisolated(unsafe) private static var stackTop: UInt64 = 0
    /// Whether this kernel has MADV_POPULATE_WRITE (Linux 5.14): 0 unknown, 1 yes, 2 no.
    nonisolated(unsafe) private static var canPopulate: UInt8 = 0

    static func start(stackTop top: UInt64) { unsafe stackTop = top }

    /// To be called after a call that may have taken memory away.
    static func mappingsHaveChanged() { dashfs_advance_mapping_epoch() }

    // MARK: Copying

    /// False if the program's memory cannot be read: answer EFAULT. Parts may have been copied.
    func copyIn(_ target: UnsafeMutableRawPointer, from address: UInt64, count: Int) -> Bool {
        guard count > 0 else { return true }
        guard isReadable(address, count), let source = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else {
            return false
        }
        unsafe target.copyMemory(from: source, byteCount: count)
        return true
    }

    /// False if the program's memory cannot be written: answer EFAULT.
    func copyOut(_ source: UnsafeRawPointer, to address: UInt64, count: Int) -> Bool {
        guard count > 0 else { return true }
        guard isWritable(address, count), let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))
        else { return false }
        unsafe target.copyMemory(from: source, byteCount: count)
        return true
    }

    /// The length of the string at `address`, without its zero; `limit` if it has none within that many bytes; nil if the
    /// memory ends before it. The string may be read in place afterwards, and may change meanwhile: copy it, then look.
    func stringLength(_ address: UInt64, limit: Int) -> Int? {
        var length = 0
        while length < limit {
            let position = address &+ UInt64(length)
            let inPage = min(limit - length, Int(4096 - position % 4096))
            guard isReadable(position, inPage), let text = unsafe UnsafePointer<UInt8>(bitPattern: UInt(position))
            else { return nil }
            var index = 0
            // Eight at a time: the lowest byte that is zero is the lowest whose top bit this sets.
            while index + 8 <= inPage {
                let word = unsafe UnsafeRawPointer(text).loadUnaligned(fromByteOffset: index, as: UInt64.self)
                let zeros = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
                if zeros != 0 { return length + index + zeros.trailingZeroBitCount / 8 }
                index += 8
            }
            while index < inPage {
                if unsafe text[index] == 0 { return length + index }
                index += 1
            }
            length += inPage
        }
        return limit
    }

    // MARK: Checking

    func isReadable(_ address: UInt64, _ count: Int) -> Bool {
        let end = address &+ UInt64(count)
        guard Self.isUserRange(address, end) else { return false }
        let known = unsafe dashfs_thread_readable()
        if unsafe Self.known(known, address, end) || isOnMainStack(address, end) { return true }
        var page = address & ~4095
        while page < end {
            // rt_sigprocmask reads 8 bytes before it finds out that the first argument makes no sense.
            let result = dashfs_raw_syscall6(OwnCall.rt_sigprocmask, -1, Int64(bitPattern: page), 0, 8, 0, 0)
            if result == -Self.efault { return false }
            page &+= 4096
        }
        unsafe Self.remember(known, address & ~4095, page)
        return true
    }

    func isWritable(_ address: UInt64, _ count: Int) -> Bool {
        let end = address &+ UInt64(count)
        guard Self.isUserRange(address, end) else { return false }
        let known = unsafe dashfs_thread_writable()
        if unsafe Self.known(known, address, end) || isOnMainStack(address, end) { return true }
        let first = address & ~4095
        let last = (end &+ 4095) & ~4095
        if Self.populates() {
            guard Self.populate(first, last &- first) == 0 else { return false }
        } else {
            // Without it only memory that is not there at all is recognised, not memory that is read-only.
            guard isReadable(address, count) else { return false }
        }
        unsafe Self.remember(known, first, last)
        return true
    }

    private static var efault: Int64 { 14 }

    /// The lower half of the address space, page zero left out; and no wrap.
    private static func isUserRange(_ address: UInt64, _ end: UInt64) -> Bool {
        address >= 4096 && address <= end && end <= 1 << 56
    }

    /// Between the program's stack pointer and the top of the main stack all is mapped or grows when touched; the probes
    /// above do not make it grow. Nothing else lies within 128 MiB below the top (mmap_base in Linux arch/x86/mm/mmap.c).
    private func isOnMainStack(_ address: UInt64, _ end: UInt64) -> Bool {
        let top = unsafe Self.stackTop
        return stackPointer < top && top - stackPointer < 128 << 20 && address >= stackPointer && end <= top
    }

    private static func populate(_ address: UInt64, _ count: UInt64) -> Int64 {
        let populateWrite: Int64 = 23
        return dashfs_raw_syscall3(OwnCall.madvise, Int64(bitPattern: address), Int64(bitPattern: count), populateWrite)
    }

    private static func populates() -> Bool {
        if unsafe canPopulate == 0 {
            // On memory that is certainly writable the only reason to fail is that the kernel or a filter has no such call.
            let own = unsafe UInt64(UInt(bitPattern: dashfs_thread_writable())) & ~4095
            unsafe canPopulate = populate(own, 4096) == 0 ? 1 : 2
        }
        return unsafe canPopulate == 1
    }

    // MARK: What is known

    private static func known(_ list: UnsafeMutablePointer<dashfs_verified_ranges>, _ start: UInt64, _ end: UInt64) -> Bool {
        guard unsafe list.pointee.epoch == dashfs_load_mapping_epoch() else { return false }
        let ranges = unsafe list.pointee.ranges
        return start >= ranges.0.start && end <= ranges.0.end || start >= ranges.1.start && end <= ranges.1.end
            || start >= ranges.2.start && end <= ranges.2.end || start >= ranges.3.start && end <= ranges.3.end
    }

    private static func remember(_ list: UnsafeMutablePointer<dashfs_verified_ranges>, _ start: UInt64, _ end: UInt64) {
        let epoch = dashfs_load_mapping_epoch()
        if unsafe list.pointee.epoch != epoch {
            unsafe list.pointee.ranges = dashfs_verified_ranges().ranges
            unsafe list.pointee.epoch = epoch
        }
        let next = unsafe list.pointee.next % UInt64(DASHFS_VERIFIED_RANGES)
        unsafe list.pointee.next &+= 1
        unsafe withUnsafeMutablePointer(to: &list.pointee.ranges) { ranges in
            unsafe ranges.withMemoryRebound(to: dashfs_address_range.self, capacity: Int(DASHFS_VERIFIED_RANGES)) {
                unsafe $0[Int(next)].end = 0
                unsafe $0[Int(next)].start = start
                unsafe $0[Int(next)].end = end
            }
        }
    }
}
