// Where the program's file-related system calls arrive.
//
// Called by the stub (Sources/CPreload/stub.S) on the thread that makes the call, on its own stack, which may be a signal
// stack of 8 KiB: frames stay under 2 KiB. The program's signal handlers wait until it ends (`Signals`), but it may be inside a handler of a fault, in a vfork
// child that borrows its parent's memory, and another thread may fork. So: no allocation, no lazily made globals, no
// function of libc, no lock that an interrupted owner could hold, and nothing that touches errno.

import CPreload
import CSystem

/// True: `frame.result` is the call's result, as the kernel would return it. False: the kernel makes the call.
@c func dashfs_system_call(_ frame: UnsafeMutablePointer<SystemCallFrame>) -> Bool {
    guard let number = unsafe SystemCallNumber(rawValue: frame.pointee.number) else { return false }
    while true {
        let before = unsafe dashfs_signals_hold(frame.pointee.stack_pointer)
        let isAnswered = unsafe Report.isOn ? handleAndCount(number, frame) : handle(number, frame)
        if dashfs_signals_let_in(before) == 0 { return isAnswered }
        let meaning = dashfs_signals_deliver()
        // A wait that has ended for a signal's sake, and need not.
        let goesOn = unsafe Int(meaning) == DASHFS_CALL_GOES_ON || Int(meaning) == DASHFS_CANCELLATION_ENDS && frame.pointee.cancellation_point == 0
        guard unsafe goesOn && isAnswered && frame.pointee.result == -ErrorNumber.interrupted else { return isAnswered }
    }
}

@inline(__always)
private func handle(_ number: SystemCallNumber, _ frame: UnsafeMutablePointer<SystemCallFrame>) -> Bool {
    if unsafe answer(number, &frame.pointee) {
        if number == .mmap || number == .munmap { unsafe LaterObjects.mapsHaveChanged(number, frame.pointee) }
        return true
    }
    if number.changesMappings {
        // Done here, so that what is known about memory is forgotten after it has gone, not before.
        let call = unsafe frame.pointee
        unsafe frame.pointee.result = dashfs_raw_syscall6(
            call.number, call.argument0, call.argument1, call.argument2, call.argument3, call.argument4, call.argument5)
        ProgramMemory.mappingsHaveChanged()
        if number == .mmap || number == .munmap { unsafe LaterObjects.mapsHaveChanged(number, frame.pointee) }
        return true
    }
    return false
}

@inline(never)
private func handleAndCount(_ number: SystemCallNumber, _ frame: UnsafeMutablePointer<SystemCallFrame>) -> Bool {
    Report.execute(number, entering: true)
    var isAnswered = unsafe handle(number, frame)
    Report.count(number, answered: isAnswered)
    if number.changesMappings, isAnswered { Report.wasTheKernels(number) }
    if !isAnswered, number == .execve || number == .execveat {
        // Here, so that one that fails is known to have failed.
        let call = unsafe frame.pointee
        unsafe frame.pointee.result = dashfs_raw_syscall6(
            call.number, call.argument0, call.argument1, call.argument2, call.argument3, call.argument4, call.argument5)
        isAnswered = true
    }
    Report.execute(number, entering: false)
    return isAnswered
}
