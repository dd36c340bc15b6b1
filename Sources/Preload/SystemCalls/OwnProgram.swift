// Which file of the volume this program is. The kernel runs a copy in memory, so what it says of that is put right: the link /proc/self/exe, AT_EXECFN of the auxiliary vector, the name that ps
// shows. What is opened or run by /proc/self/exe is the copy, which has the same bytes. ($ORIGIN: `Execution.makeMemory`.)
//
// Invariant: the path is absolute, begins with the prefix, had no symbolic link in it at the exec, and never changes.

import CPreload
import CSystem

enum OwnProgram {
    /// What stands between "/memfd:" and the program's path in the name of its copy.
    static var detour: StaticString { "/.." }
    /// Of a memfd's name: NAME_MAX without "memfd:".
    static let memoryNameLimit = 249
    nonisolated(unsafe) private static var length = 0

    /// Empty: a program of the kernel's.
    @inline(__always) static var path: PathBytes { unsafe PathBytes(dashfs_program_text(), count: length) }
    @inline(__always) static var isOurs: Bool { unsafe length > 0 }

    private static var name: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(dashfs_program_text()) + Int(DASHFS_TEXT_CAPACITY) }

    /// What exec has handed over.
    static func inherit(_ path: PathBytes, name: PathBytes) {
        let capacity = Int(DASHFS_TEXT_CAPACITY)
        guard let address = unsafe path.address, path.count > 0, path.count < capacity else { return }
        unsafe dashfs_copy(dashfs_program_text(), address, path.count)
        unsafe length = path.count
        if name.count < capacity, let text = unsafe name.address { unsafe dashfs_copy(self.name, text, name.count) }
    }

    /// Tells the kernel and the program, once, at the start.
    static func announce(_ environment: Environment) {
        guard isOurs else { return }
        // By a descriptor it was started under no name: as the kernel has it since 6.14.
        let hasName = unsafe Text.byte(name, 0) != 0
        let text = unsafe hasName ? UnsafeRawPointer(name) : UnsafeRawPointer(dashfs_program_text())
        var start = unsafe Text.length(text)
        while start > 0, unsafe Text.byte(text, start - 1) != Text.slash { start -= 1 }
        _ = unsafe dashfs_raw_syscall3(157 /* prctl */, 15 /* PR_SET_NAME */, Int64(Int(bitPattern: text + start)), 0)
        if !hasName { return }
        guard var entry = unsafe environment.auxiliaryVector else { return }
        while unsafe entry[0] != 0 {
            if unsafe entry[0] == 31 /* AT_EXECFN */ { unsafe entry[1] = UInt64(UInt(bitPattern: name)) }
            unsafe entry += 2
        }
    }

    // MARK: /proc/PID/exe

    /// readlink(2) and readlinkat(2) of a process's link to its program: this one's, or another's that may run a copy, too. nil: it is another path, or what the kernel says is right.
    static func readLink(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let isAt = number == .readlinkat
        let (address, buffer, size) = isAt ? (frame.argument1, frame.argument2, frame.argument3) : (frame.argument0, frame.argument1, frame.argument2)
        guard let process = process(UInt64(bitPattern: address), memory) else { return nil }
        let capacity = Int(Int32(truncatingIfNeeded: size))
        guard capacity > 0 else { return nil }
        if process == 0 {
            return isOurs ? unsafe copyOut(dashfs_program_text(), length, to: UInt64(bitPattern: buffer), capacity, memory) : nil
        }
        return another(address, UInt64(bitPattern: buffer), capacity, memory)
    }

    /// Whether the text is that link of this process's.
    static func isLink(_ address: UInt64, _ memory: ProgramMemory) -> Bool { isOurs && process(address, memory) == 0 }

    /// The process whose link "/proc/PID/exe" is, 0: this one, nil: the text is something else.
    private static func process(_ address: UInt64, _ memory: ProgramMemory) -> UInt64? {
        let longest = 64
        guard let count = memory.stringLength(address, limit: longest), count < longest, let text = unsafe UnsafeRawPointer(bitPattern: UInt(address)),
            let name = unsafe PathBytes(text, count: count).dropping("/proc/")
        else { return nil }
        if name.dropping("self/exe")?.count == 0 || name.dropping("thread-self/exe")?.count == 0 { return 0 }
        guard let digits = unsafe name.address, let (number, length) = unsafe Text.number(digits, name.count),
            unsafe PathBytes(digits + length, count: name.count - length).dropping("/exe")?.count == 0
        else { return nil }
        return number == UInt64(dashfs_sys_getpid()) ? 0 : number
    }

    /// "/memfd:/../dash/bin/x (deleted)" is told as /dash/bin/x. A name that may have been cut off (`Execution.makeMemory`) stays.
    @inline(never)
    private static func another(_ address: Int64, _ buffer: UInt64, _ capacity: Int, _ memory: ProgramMemory) -> Int64? {
        guard let scratch = Scratch() else { return nil }
        let count = Int(dashfs_raw_syscall3(SystemCallNumber.readlink.rawValue, address, Int64(bitPattern: scratch.address), Int64(DASHFS_TEXT_CAPACITY)))
        let (start, end): (StaticString, StaticString) = ("/memfd:", " (deleted)")
        guard count < start.utf8CodeUnitCount + memoryNameLimit + end.utf8CodeUnitCount, let name = unsafe PathBytes(scratch.base, count: max(0, count)).dropping(start)?.dropping(detour),
            let text = unsafe name.address, case let length = name.count - end.utf8CodeUnitCount, length > 0,
            unsafe PathBytes(text + length, count: end.utf8CodeUnitCount).dropping(end) != nil
        else { return nil }
        return unsafe copyOut(text, length, to: buffer, capacity, memory)
    }

    private static func copyOut(_ text: UnsafeRawPointer, _ count: Int, to buffer: UInt64, _ capacity: Int, _ memory: ProgramMemory) -> Int64 {
        let count = min(count, capacity)
        return unsafe memory.copyOut(text, to: buffer, count: count) ? Int64(count) : -14
    }
}
