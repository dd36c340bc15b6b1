// Where code cannot be rewritten: the kernel hands every system call back by a signal (Linux 5.11, Documentation/admin-guide/syscall-user-dispatch.rst in its sources).
//
// A call from outside this library's code does not take place; instead SIGSYS comes, on the thread, with all registers. So whoever makes a call, and by whatever code, it arrives here: what is
// ours is answered as ever, all others are made from this library's code. That costs some 3 us for each call of the program, against nothing for a rewritten one.
//
// Always true, on every thread of the program: dispatch is on from its first instruction on, SIGSYS is not blocked, and its handler is ours. For that
// - a call that makes a thread or child goes on in code that turns dispatch on there (`Sources/CPreload/x86_64/dispatch.S`), or the program ends;
// - masks that the program gives the kernel are without SIGSYS, and what it does with that signal is kept here;
// - an exec turns it off, and the constructor of the next program decides anew.

import CPreload
import CSystem

enum Dispatch {
    static let signal: Int64 = 31
    private static let signalBit: UInt64 = 1 &<< 30

    @inline(__always) static var isOn: Bool { unsafe dashfs_dispatch_range_place().pointee.length != 0 }

    // MARK: On and off

    /// For the calling thread, which is the only one, and all that come from it. The result: 0, or why not, as an errno.
    static func start() -> Int64 {
        let code = LoadedObject(headerAt: UInt64(dashfs_own_header_address())).codeBounds
        unsafe dashfs_dispatch_range_place().pointee = dashfs_dispatch_range(start: code.lowerBound, length: UInt64(code.count))
        dashfs_dispatch_set_cancels(libraryLooksForCancellation)
        let (withInfo, reentrant): (UInt64, UInt64) = (4, 0x4000_0000)
        unsafe dashfs_dispatch_action_place().pointee = dashfs_kernel_action(
            handler: dashfs_dispatch_entry_address(), flags: withInfo | reentrant, restorer: 0, mask: 0)
        unsafe prepare(&dashfs_dispatch_action_place().pointee)
        var mask = signalBit
        let unblock: Int64 = 1
        var failure = unsafe withUnsafePointer(to: &mask) { unsafe -call(OwnCall.rt_sigprocmask, unblock, address($0), 0, 8) }
        if failure == 0 { failure = turnOn() }
        if failure != 0 { unsafe dashfs_dispatch_range_place().pointee.length = 0 }
        return failure
    }

    /// As it was before, for this thread.
    static func stop() {
        let off: Int64 = 0
        _ = call(OwnCall.prctl, setDispatch, off)
        var action = dashfs_kernel_action()
        _ = unsafe withUnsafePointer(to: &action) { unsafe call(.rt_sigaction, signal, address($0), 0, 8) }
        unsafe dashfs_dispatch_range_place().pointee.length = 0
    }

    /// A new thread, or the child of a fork, has it off, and perhaps no handler (CLONE_CLEAR_SIGHAND, glibc's posix_spawn from 2.38 on).
    private static func turnOn() -> Int64 {
        let failure = unsafe -call(.rt_sigaction, signal, address(dashfs_dispatch_action_place()), 0, 8)
        if failure != 0 { return failure }
        let code = unsafe dashfs_dispatch_range_place().pointee
        let on: Int64 = 1
        return -call(OwnCall.prctl, setDispatch, on, Int64(bitPattern: code.start), Int64(bitPattern: code.length))
    }

    private static let setDispatch: Int64 = 59

    /// glibc from 2.41 on: "2.41".
    private static var libraryLooksForCancellation: Bool {
        guard let text = unsafe dashfs_libc_version(), unsafe text[0] == 0x32 && text[1] == 0x2e else { return false }
        let minor = unsafe UnsafeRawPointer(text + 2)
        return unsafe Text.number(minor, Text.length(minor)).map { $0.value >= 41 } ?? false
    }

    // MARK: Signals

    /// What the kernel is told of a handler of the program's.
    static func prepare(_ action: inout dashfs_kernel_action) {
        let withRestorer: UInt64 = 0x0400_0000
        action.flags |= withRestorer
        action.restorer = UInt64(dashfs_dispatch_restorer_address())
        action.mask &= ~signalBit
    }

    // MARK: A call that has been handed back

    @inline(__always)
    fileprivate static func handle(_ interrupted: UnsafeMutablePointer<dashfs_interrupted>) {
        let registers = unsafe interrupted.pointee
        var frame = SystemCallFrame(
            number: registers.rax, argument0: registers.rdi, argument1: registers.rsi, argument2: registers.rdx, argument3: registers.r10,
            argument4: registers.r8, argument5: registers.r9, result: 0, stack_pointer: registers.rsp,
            cancellation_point: dashfs_dispatch_ends_waits() ? registers.rip : 0)
        // Alive as long as the call.
        var masks = InlineArray<3, UInt64>(repeating: 0)
        unsafe withUnsafeMutablePointer(to: &masks) { masks in
            unsafe masks.withMemoryRebound(to: UInt64.self, capacity: 3) { unsafe leaveSignal(out: $0, &frame) }
            let makesChild = Processes.areMade(by: frame.number)
            if isInteresting(frame), unsafe dashfs_system_call(&frame) {
                if makesChild, frame.result == 0 { turnOnOrEnd() }
                unsafe interrupted.pointee.rax = frame.result
            } else if makesChild {
                unsafe makeChild(frame, interrupted)
            } else {
                unsafe pass(frame, interrupted)
            }
        }
    }

    private static func isInteresting(_ frame: SystemCallFrame) -> Bool {
        guard frame.number >= 0, frame.number < Int64(DASHFS_NUMBER_LIMIT) else { return false }
        switch SystemCallInterest(rawValue: dashfs_number_class_of(UInt32(frame.number))) {
        case .always: return true
        case .byDescriptor: return dashfs_descriptor_hint(UInt32(truncatingIfNeeded: frame.argument0)) != 0
        case nil: return false
        }
    }

    /// A call of the kernel's. What it changes of the thread that a signal handler's end would take back is changed in what the handler goes back to.
    private static func pass(_ frame: SystemCallFrame, _ interrupted: UnsafeMutablePointer<dashfs_interrupted>) {
        switch frame.number {
        case OwnCall.rt_sigreturn:
            // Of a handler that was set before, or by a restorer of the program's own: goes on there, with the program's stack.
            unsafe interrupted.pointee.rip = UInt64(dashfs_dispatch_restorer_address())
            return
        case OwnCall.prctl where frame.argument0 == setDispatch:
            unsafe interrupted.pointee.rax = -ErrorNumber.invalid
            return
        case OwnCall.rt_sigprocmask where frame.argument1 != 0 && frame.argument3 == 8:
            unsafe interrupted.pointee.rax = changeMask(&interrupted.pointee.mask, frame, ProgramMemory(frame))
            return
        case SystemCallNumber.rt_sigaction.rawValue:
            // Also where no server is named and the hook so has no interest.
            if let result = Signals.change(frame, ProgramMemory(frame)) {
                unsafe interrupted.pointee.rax = result
                return
            }
        default: break
        }
        let result = unsafe withUnsafePointer(to: frame) { unsafe dashfs_dispatch_call($0) }
        unsafe interrupted.pointee.rax = result
        if frame.number == OwnCall.sigaltstack, result == 0 {
            _ = unsafe call(OwnCall.sigaltstack, 0, address(&interrupted.pointee.stack_address))
        }
    }

    /// rt_sigprocmask(2), for when the handler has ended: what is unblocked does not come on top of it, where a small stack has no room.
    private static func changeMask(_ mask: inout UInt64, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64 {
        let (block, unblock, set): (Int64, Int64, Int64) = (0, 1, 2)
        let neverBlocked: UInt64 = signalBit | 1 &<< 8 | 1 &<< 18  // SIGKILL, SIGSTOP
        var change: UInt64 = 0
        guard unsafe withUnsafeMutablePointer(to: &change, { unsafe memory.copyIn($0, from: UInt64(bitPattern: frame.argument1), count: 8) }) else { return -14 }
        let before = mask
        switch Int64(Int32(truncatingIfNeeded: frame.argument0)) {
        case block: mask |= change & ~neverBlocked
        case unblock: mask &= ~change
        case set: mask = change & ~neverBlocked
        default: return -ErrorNumber.invalid
        }
        if frame.argument2 == 0 { return 0 }
        return unsafe withUnsafePointer(to: before) { unsafe memory.copyOut($0, to: UInt64(bitPattern: frame.argument2), count: 8) } ? 0 : -14
    }

    /// A thread or child that is the kernel's to make.
    private static func makeChild(_ frame: SystemCallFrame, _ interrupted: UnsafeMutablePointer<dashfs_interrupted>) {
        let memory = ProgramMemory(frame)
        guard let arguments = CloneArguments(frame, memory) else {
            unsafe interrupted.pointee.rax = -14  // EFAULT
            return
        }
        if !arguments.sharesMemory, arguments.stack == 0 {
            // It has a copy of this stack, and comes back here.
            let child = unsafe withUnsafePointer(to: frame) { unsafe dashfs_dispatch_call($0) }
            if child == 0 { turnOnOrEnd() }
            unsafe interrupted.pointee.rax = child
            return
        }
        let next = unsafe interrupted.pointee.rip
        if arguments.stack != 0 {
            let isWritten = unsafe withUnsafePointer(to: next) { unsafe memory.copyOut($0, to: arguments.stack &- 8, count: 8) }
            guard isWritten else {
                unsafe interrupted.pointee.rax = -14  // EFAULT
                return
            }
        }
        unsafe interrupted.pointee.rip = UInt64(dashfs_dispatch_clone_address(dashfs_dispatch_push(next), arguments.stack != 0))
    }

    private static func turnOnOrEnd() {
        if turnOn() != 0 { dashfs_dispatch_is_lost() }
    }

    // MARK: Calls of our own

    private static func call(_ number: SystemCallNumber, _ first: Int64, _ second: Int64 = 0, _ third: Int64 = 0, _ fourth: Int64 = 0) -> Int64 {
        call(number.rawValue, first, second, third, fourth)
    }

    private static func call(_ number: Int64, _ first: Int64, _ second: Int64 = 0, _ third: Int64 = 0, _ fourth: Int64 = 0) -> Int64 {
        dashfs_raw_syscall6(number, first, second, third, fourth, 0, 0)
    }

    private static func address(_ pointer: UnsafeRawPointer) -> Int64 { Int64(Int(bitPattern: pointer)) }

    // MARK: Masks

    /// Masks that a call gives the kernel, without SIGSYS; `room` is for three words.
    private static func leaveSignal(out room: UnsafeMutablePointer<UInt64>, _ frame: inout SystemCallFrame) {
        let memory = ProgramMemory(frame)
        switch frame.number {
        case OwnCall.rt_sigsuspend: unsafe correct(&frame.argument0, room, memory)
        case SystemCallNumber.ppoll.rawValue: unsafe correct(&frame.argument3, room, memory)
        case OwnCall.epoll_pwait, OwnCall.epoll_pwait2: unsafe correct(&frame.argument4, room, memory)
        case SystemCallNumber.pselect6.rawValue, OwnCall.io_pgetevents:
            // The mask's address and its size.
            let pair = unsafe room + 1
            guard frame.argument5 != 0, unsafe memory.copyIn(pair, from: UInt64(bitPattern: frame.argument5), count: 16) else { return }
            var mask = unsafe Int64(bitPattern: pair[0])
            guard unsafe correct(&mask, room, memory) else { return }
            unsafe pair[0] = UInt64(bitPattern: mask)
            frame.argument5 = unsafe address(pair)
        default: break
        }
    }

    /// Whether `pointer` now points to the copy at `room`.
    @discardableResult
    private static func correct(_ pointer: inout Int64, _ room: UnsafeMutablePointer<UInt64>, _ memory: ProgramMemory) -> Bool {
        guard pointer != 0, unsafe memory.copyIn(room, from: UInt64(bitPattern: pointer), count: 8), unsafe room.pointee & signalBit != 0 else { return false }
        unsafe room.pointee &= ~signalBit
        pointer = unsafe address(room)
        return true
    }
}

/// Called for each, by the handler of SIGSYS (Sources/CPreload/dispatch.c).
@c func dashfs_dispatched(_ interrupted: UnsafeMutablePointer<dashfs_interrupted>) { unsafe Dispatch.handle(interrupted) }
