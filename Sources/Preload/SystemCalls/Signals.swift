// When the program's signal handlers run: at the end of a call, never in its middle (Sources/CPreload/signals.c).
//
// For that the kernel is given a function of ours where the program names one of its own; what the program named is kept here, and told when it asks. A vfork child's memory is its
// parent's: what it sets is the kernel's to keep.

import CPreload
import CSystem

enum Signals {
    private static let resetsHandler: UInt64 = 0x8000_0000
    private static let withInfo: UInt64 = 4

    /// rt_sigaction(2); nil: the kernel says what is wrong with it.
    static func change(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let number = Int64(Int32(truncatingIfNeeded: frame.argument0))
        guard number >= 1, number < Int64(DASHFS_SIGNALS), frame.argument3 == 8 else { return nil }
        let bytes = MemoryLayout<dashfs_kernel_action>.size
        var (new, old) = (dashfs_kernel_action(), dashfs_kernel_action())
        if frame.argument1 != 0 {
            guard unsafe withUnsafeMutablePointer(to: &new, { unsafe memory.copyIn($0, from: UInt64(bitPattern: frame.argument1), count: bytes) }) else { return nil }
        }
        if frame.argument2 != 0, !memory.isWritable(UInt64(bitPattern: frame.argument2), bytes) { return nil }
        Report.wasTheKernels(.rt_sigaction)
        let row = unsafe dashfs_signal_action_of(UInt32(truncatingIfNeeded: number))
        let before = unsafe row.pointee
        if Dispatch.isOn {
            if number == Dispatch.signal { return unsafe keep(frame, new, before, row, memory) }
            if new.handler > 1 { Dispatch.prepare(&new) }
        }
        let isOurs = frame.argument1 != 0 && new.handler > 1 && !Connection.isBorrowed
        if isOurs {
            // First: it may be called from the moment on that the kernel knows.
            unsafe row.pointee = dashfs_signal_action(handler: new.handler, flags: new.flags)
            new.handler = dashfs_signal_entry_address()
            new.flags = new.flags & ~resetsHandler | withInfo
        }
        let result = unsafe withUnsafeMutablePointer(to: &new) { new in
            unsafe withUnsafeMutablePointer(to: &old) { old in
                dashfs_raw_syscall6(
                    frame.number, number, frame.argument1 == 0 ? 0 : Int64(Int(bitPattern: new)), Int64(Int(bitPattern: old)), 8, 0, 0)
            }
        }
        if result < 0 {
            if isOurs { unsafe row.pointee = before }
            return result
        }
        if old.handler == dashfs_signal_entry_address() {
            old.handler = before.handler
            old.flags = before.flags | old.flags & ~withInfo
        }
        if frame.argument2 != 0 { _ = unsafe withUnsafePointer(to: old) { unsafe memory.copyOut($0, to: UInt64(bitPattern: frame.argument2), count: bytes) } }
        return result
    }

    /// The signal by which calls are handed back: what the program wants of it is for those of others (a filter's, kill(2)).
    private static func keep(
        _ frame: SystemCallFrame, _ new: dashfs_kernel_action, _ before: dashfs_signal_action, _ row: UnsafeMutablePointer<dashfs_signal_action>, _ memory: ProgramMemory
    ) -> Int64 {
        if frame.argument1 != 0, !Connection.isBorrowed { unsafe row.pointee = dashfs_signal_action(handler: new.handler, flags: new.flags) }
        if frame.argument2 != 0 {
            let old = dashfs_kernel_action(handler: before.handler, flags: before.flags, restorer: 0, mask: 0)
            _ = unsafe withUnsafePointer(to: old) { unsafe memory.copyOut($0, to: UInt64(bitPattern: frame.argument2), count: MemoryLayout<dashfs_kernel_action>.size) }
        }
        return 0
    }

    /// Waits for a descriptor of the kernel's, until a handler is to run: EINTR, which `dashfs_system_call` takes back where the handler does not want it. nil: it is ready.
    static func wait(for events: Int16, on descriptor: Int64) -> Int64? {
        // A signal may come between the look and the wait, so no wait is long.
        let milliseconds: Int32 = 250
        while dashfs_signal_waits() == 0 {
            let found = dashfs_sys_poll(Int32(truncatingIfNeeded: descriptor), events, milliseconds)
            if found != 0 { return found > 0 ? nil : Int64(found) }
        }
        return -ErrorNumber.interrupted
    }

    /// A call of the kernel's that may wait: handlers run when they come. Nothing may be held that a thread which ends there would leave behind.
    static func call(
        _ number: Int64, _ first: Int64, _ second: Int64 = 0, _ third: Int64 = 0, _ fourth: Int64 = 0, _ fifth: Int64 = 0, _ sixth: Int64 = 0
    ) -> Int64 {
        let site = dashfs_signals_site()
        if dashfs_signals_let_in(0) != 0 { _ = dashfs_signals_deliver() }
        let result = dashfs_raw_syscall6(number, first, second, third, fourth, fifth, sixth)
        _ = dashfs_signals_hold(site)
        return result
    }
}
