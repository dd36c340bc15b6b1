// What a program that is about to be replaced by exec tells its successor, in the environment variable
//
//     DASHFS_INHERITED=<inode of the working directory, 0: the kernel's>:<descriptors, separated by commas>:<working directory>
//
// The successor reopens the working directory by its path, and only if that still is the same inode. Descriptors of DashFS files that stay
// open are named so that every call on them fails with EBADF: as placeholders they would mislead fstat(2) and its like.

import CPreload
import CSystem

enum Handover {
    private static var name: StaticString { "DASHFS_INHERITED=" }
    /// The present program's environment has the variable, so it may be in what is handed on, out of date.
    nonisolated(unsafe) private static var wasTaken = false

    static func take(_ environment: Environment) {
        guard let value = environment.value("DASHFS_INHERITED") else { return }
        unsafe wasTaken = true
        let count = value.count
        let text = unsafe UnsafeRawPointer(value.start)
        guard let (inode, digits) = unsafe Text.number(text, count) else { return }
        var at = digits + 1
        var lost: Description?
        while at < count, let (number, digits) = unsafe Text.number(text + at, count - at), number < UInt64(DASHFS_DESCRIPTOR_LIMIT) {
            if lost == nil { lost = Descriptors.make(handle: -1, mode: 0, inode: 0, session: nil, generation: .max) }
            if let lost, lost.retain() { Descriptors.install(lost, at: Int64(number)) }
            at += digits + 1
        }
        lost?.release()
        if at < count, unsafe Text.byte(text, at) == 0x3a { at += 1 }
        if inode != 0, at < count { WorkingDirectory.inherit(unsafe PathBytes(text + at, count: count - at), inode: inode) }
    }

    /// execve(2) and execveat(2) of a program of the kernel's, with an environment that says what has to be said. nil: nothing has, let the kernel go on.
    static func execute(_ frame: SystemCallFrame, variables: UInt64, _ memory: ProgramMemory) -> (address: UInt64, error: Int64)? {
        let descriptors = hasInheritableFiles()
        guard unsafe wasTaken || WorkingDirectory.isOurs || descriptors else { return nil }
        guard let block = unsafe buffer() else { return (0, -ErrorNumber.noMemory) }
        let pointers = unsafe block.assumingMemoryBound(to: UInt64.self)
        let textOffset = Scratch.bytes - 5120
        var count = 0
        var entry = variables
        while entry != 0 {
            guard memory.isReadable(entry, 8), let slot = unsafe UnsafePointer<UInt64>(bitPattern: UInt(entry)) else { return (0, -14) }
            let string = unsafe slot.pointee
            if string == 0 { break }
            // More variables than fit: the program starts without being told, and finds placeholders.
            guard (count + 3) * 8 < textOffset else { return nil }
            if !isOurs(string, memory) {
                unsafe pointers[count] = string
                count += 1
            }
            entry &+= 8
        }
        if WorkingDirectory.isOurs || descriptors {
            unsafe pointers[count] = UInt64(UInt(bitPattern: block + textOffset))
            count += 1
            guard unsafe compose(block + textOffset, 5120) else { return (0, -7) }
        }
        unsafe pointers[count] = 0
        return (UInt64(UInt(bitPattern: block)), 0)
    }

    private static func isOurs(_ string: UInt64, _ memory: ProgramMemory) -> Bool {
        let size = name.utf8CodeUnitCount
        for index in 0..<size {
            let address = string &+ UInt64(index)
            guard index != 0 && address % 4096 != 0 || memory.isReadable(address, 1),
                let byte = unsafe UnsafePointer<UInt8>(bitPattern: UInt(address)), unsafe byte.pointee == name.utf8Start[index]
            else { return false }
        }
        return true
    }

    private static func hasInheritableFiles() -> Bool {
        for number in 0..<Descriptors.end where Descriptors.isFile(Int64(number)) && survivesExec(number) { return true }
        return false
    }

    private static func survivesExec(_ number: UInt32) -> Bool {
        let flags = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(number), 1 /* F_GETFD */, 0)
        guard flags >= 0, flags & 1 == 0 else { return false }
        // A vfork child may have put something else there than its parent's table says.
        let status = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(number), 3 /* F_GETFL */, 0)
        return status >= 0 && status & Int64(OpenFlags.pathOnly) != 0
    }

    private static func compose(_ target: UnsafeMutableRawPointer, _ capacity: Int) -> Bool {
        var length = name.utf8CodeUnitCount
        unsafe dashfs_copy(target, name.utf8Start, length)
        unsafe length += Text.write(number: WorkingDirectory.isOurs ? WorkingDirectory.inode : 0, to: target + length)
        unsafe target.storeBytes(of: 0x3a, toByteOffset: length, as: UInt8.self)
        length += 1
        var first = true
        for number in 0..<Descriptors.end where Descriptors.isFile(Int64(number)) && survivesExec(number) {
            guard length + 8 < capacity else { return false }
            if !first {
                unsafe target.storeBytes(of: 0x2c, toByteOffset: length, as: UInt8.self)
                length += 1
            }
            first = false
            unsafe length += Text.write(number: UInt64(number), to: target + length)
        }
        let directory = WorkingDirectory.isOurs ? WorkingDirectory.text : PathBytes.none
        guard length + directory.count + 2 <= capacity else { return false }
        unsafe target.storeBytes(of: 0x3a, toByteOffset: length, as: UInt8.self)
        length += 1
        if let text = unsafe directory.address { unsafe dashfs_copy(target + length, text, directory.count) }
        unsafe target.storeBytes(of: 0, toByteOffset: length + directory.count, as: UInt8.self)
        return true
    }

    /// A block of the thread's own: a vfork child that execs never comes back to release one.
    private static func buffer() -> UnsafeMutableRawPointer? {
        let present = dashfs_thread_exec_block()
        if present != 0 { return unsafe UnsafeMutableRawPointer(dashfs_scratch_block(present &- 1)) }
        guard let index = Scratch.claim() else { return nil }
        dashfs_set_thread_exec_block(index &+ 1)
        return unsafe UnsafeMutableRawPointer(dashfs_scratch_block(index))
    }
}
