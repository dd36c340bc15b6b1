// Calls about descriptors as numbers: close, dup, fcntl, close_range. The kernel does them to the placeholder, the table follows.

import CPreload
import CSystem

enum DescriptorCalls {
    /// open(2) has succeeded on the server: a descriptor for its handle, or a negated errno with the handle closed.
    static func place(_ opened: WireCompletion, flags: UInt32, _ session: Session, _ channel: Channel) -> Int64 {
        let handle = Int32(truncatingIfNeeded: opened.result)
        let closeOnExec = flags & OpenFlags.closeOnExec != 0
        let duplicate: Int64 = closeOnExec ? 1030 /* F_DUPFD_CLOEXEC */ : 0 /* F_DUPFD */
        let number = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(Connection.placeholder), duplicate, 0)
        guard number >= 0 else {
            _ = channel.close(handle, keepsLocks: true)
            return number
        }
        if Connection.isTemporary(session) {
            // It lasts for this call.
            _ = channel.close(handle, keepsLocks: true)
            return number
        }
        let mode = UInt32(truncatingIfNeeded: opened.info1) | (flags & OpenFlags.pathOnly != 0 ? Description.pathOnlyBit : 0)
        guard number < Int64(DASHFS_DESCRIPTOR_LIMIT),
            let description = Descriptors.make(
                handle: handle, mode: mode, inode: opened.info0)
        else {
            _ = dashfs_sys_close(Int32(truncatingIfNeeded: number))
            _ = channel.close(handle, keepsLocks: true)
            return -ErrorNumber.tooManyFiles
        }
        Descriptors.install(description, at: number)
        return number
    }

    static func close(_ descriptor: Int64) -> Int64? {
        if Descriptors.isOwn(descriptor) { return -ErrorNumber.badDescriptor }
        guard Descriptors.isFile(descriptor) else { return nil }
        Descriptors.remove(descriptor)
        return Int64(dashfs_sys_close(Int32(truncatingIfNeeded: descriptor)))
    }

    /// dup(2), and fcntl(2) with F_DUPFD and F_DUPFD_CLOEXEC: `frame` as it came.
    static func duplicate(_ frame: SystemCallFrame) -> Int64? {
        if Descriptors.isOwn(frame.argument0) { return -ErrorNumber.badDescriptor }
        guard let file = Descriptors.pin(frame.argument0) else { return nil }
        let number = dashfs_raw_syscall3(frame.number, frame.argument0, frame.argument1, frame.argument2)
        guard number >= 0 else {
            file.release()
            return number
        }
        guard number < Int64(DASHFS_DESCRIPTOR_LIMIT) else {
            file.release()
            _ = dashfs_sys_close(Int32(truncatingIfNeeded: number))
            return -ErrorNumber.tooManyFiles
        }
        Descriptors.install(file, at: number)
        return number
    }

    /// dup2(2), dup3(2).
    static func duplicateOnto(_ frame: SystemCallFrame) -> Int64? {
        let (old, new) = (frame.argument0, frame.argument1)
        if Descriptors.isOwn(old) { return -ErrorNumber.badDescriptor }
        // The library's own number is not to be had: as if an open were under way on it (dup2(2)).
        if Descriptors.isOwn(new) { return -16 }
        let file = Descriptors.pin(old)
        guard file != nil || Descriptors.isFile(new) else { return nil }
        let number = dashfs_raw_syscall3(frame.number, old, new, frame.argument2)
        guard number >= 0, Int32(truncatingIfNeeded: old) != Int32(truncatingIfNeeded: new) else {
            file?.release()
            return number
        }
        if let file {
            guard number < Int64(DASHFS_DESCRIPTOR_LIMIT) else {
                file.release()
                _ = dashfs_sys_close(Int32(truncatingIfNeeded: number))
                return -ErrorNumber.tooManyFiles
            }
            Descriptors.install(file, at: number)
        } else {
            Descriptors.remove(new)
        }
        return number
    }

    /// close_range(2): around the library's own, then the table.
    static func closeRange(_ frame: SystemCallFrame) -> Int64? {
        let first = UInt32(truncatingIfNeeded: frame.argument0)
        let last = UInt32(truncatingIfNeeded: frame.argument1)
        let closeOnExec: Int64 = 4
        // The kernel checks; marking close-on-exec does not change what is ours. A program that has just begun may have nothing of ours but what an exec has left.
        guard first <= last, Connection.placeholder >= 0 || Legacy.isThere, frame.argument2 & ~2 == 0, frame.argument2 & closeOnExec == 0 else { return nil }
        var begin = first
        var flags = frame.argument2
        while begin <= last {
            var end = last
            var next = last
            var hasOwn = false
            for number in begin...max(begin, min(last, UInt32(DASHFS_DESCRIPTOR_LIMIT) - 1)) where Descriptors.isOwn(Int64(number)) {
                hasOwn = true
                next = number
                break
            }
            if hasOwn { end = next &- 1 }
            if !hasOwn || next > begin {
                let result = dashfs_raw_syscall3(SystemCallNumber.close_range.rawValue, Int64(begin), Int64(end), flags)
                if result < 0 { return result }
                flags = 0
            }
            if !hasOwn || next == .max { break }
            begin = next + 1
        }
        var number = first
        while number <= last, number < Descriptors.end {
            if Descriptors.isFile(Int64(number)) { Descriptors.remove(Int64(number)) }
            number += 1
        }
        return 0
    }

    /// fcntl(2)
    static func control(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let command = Int32(truncatingIfNeeded: frame.argument1)
        switch command {
        case 0, 1030: return duplicate(frame)
        case 1, 2: return Descriptors.isOwn(frame.argument0) ? -ErrorNumber.badDescriptor : nil  // F_GETFD, F_SETFD: the placeholder's
        default: break
        }
        if Descriptors.isOwn(frame.argument0) { return -ErrorNumber.badDescriptor }
        guard let file = Descriptors.pin(frame.argument0) else { return nil }
        defer { file.release() }
        guard let session = file.session else { return file.failure }
        switch command {
        case 4 where file.isPathOnly: return -ErrorNumber.badDescriptor
        case 3, 4:  // F_GETFL, F_SETFL
            guard let channel = session.acquire() else { return -ErrorNumber.io }
            defer { session.release(channel) }
            if command == 4 { return channel.statusFlags(file.handle, set: UInt32(truncatingIfNeeded: frame.argument2)) }
            let flags = channel.statusFlags(file.handle, set: nil)
            return flags < 0 ? flags : OpenFlags.asShown(UInt32(truncatingIfNeeded: flags))
        case _ where file.isPathOnly: return -ErrorNumber.badDescriptor
        case 5, 6, 7, 36, 37, 38:
            return RecordLocks.control(file, session, UInt32(command), UInt64(bitPattern: frame.argument2), memory)
        case 8, 10, 9, 11: return command == 9 || command == 11 ? 0 : -ErrorNumber.invalid  // F_SETOWN, F_SETSIG; F_GETOWN, F_GETSIG
        case 1025: return 2  // F_GETLEASE: F_UNLCK
        case 1026: return file.isDirectory ? -ErrorNumber.invalid : -20  // F_NOTIFY
        case 1031, 1032: return -ErrorNumber.badDescriptor  // F_SETPIPE_SZ, F_GETPIPE_SZ
        default: return -ErrorNumber.invalid
        }
    }
}

/// Record locks, owned by the process (POSIX) or by the open description (F_OFD_*).
enum RecordLocks {
    /// Whether this process has ever had one: only then does closing one of several descriptors have to release any.
    static var used: Bool { unsafe everUsed }
    nonisolated(unsafe) private static var everUsed = false

    /// Another program of this process may have had some, and left them by exec.
    static func mayBeHeld() { unsafe everUsed = true }

    static func releaseAll(_ session: Session, _ handle: Int32) {
        guard let channel = session.acquire() else { return }
        defer { session.release(channel) }
        _ = channel.lock(handle, command: 6, type: 2, offset: 0, length: 0)
    }

    /// struct flock: i16 type, i16 whence, i64 start at 8, i64 length at 16, i32 process at 24; 32 bytes.
    static func control(_ file: Description, _ session: Session, _ command: UInt32, _ address: UInt64, _ memory: ProgramMemory) -> Int64 {
        var lock = InlineArray<4, Int64>(repeating: 0)
        let read = unsafe withUnsafeMutableBytes(of: &lock) { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe memory.copyIn(base, from: address, count: 32)
        }
        guard read else { return -14 }
        let type = Int16(truncatingIfNeeded: lock[0])
        let whence = Int16(truncatingIfNeeded: lock[0] >> 16)
        let isKnownType = type >= 0 && type <= 2
        let isDescriptions = command >= 36
        guard whence >= 0, whence <= 2, isKnownType && type != 2 || command != 5 else { return -ErrorNumber.invalid }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        var base: Int64 = 0
        if whence == 1 {
            base = channel.seek(file.handle, offset: 0, whence: 1)
            if base < 0 { return base }
        } else if whence == 2 {
            var status = FileStatus()
            let answer = status.load(channel, Place(handle: file.handle), flags: 0)
            if answer.result < 0 { return answer.result }
            base = status.size
        }
        var (start, overflow) = base.addingReportingOverflow(lock[1])
        if overflow { return -75 }
        var length = lock[2]
        if length < 0 {
            guard length != .min, start >= -(length) else { return -ErrorNumber.invalid }
            start += length
            length = -length
        }
        if start < 0 { return -ErrorNumber.invalid }
        if length > 0, start.addingReportingOverflow(length - 1).overflow { return -75 }
        // A description's lock has no process.
        guard isKnownType, !isDescriptions || UInt32(truncatingIfNeeded: lock[3]) == 0 else { return -ErrorNumber.invalid }
        if command == 6 || command == 7, type != 2 { unsafe everUsed = true }
        let answer = channel.lock(file.handle, command: command, type: UInt32(type), offset: start, length: UInt64(length))
        guard command == 5 || command == 36, answer.result >= 0 else { return answer.result }
        if answer.info0 == 2 {
            lock[0] = lock[0] & ~0xffff | 2
        } else {
            lock[0] = lock[0] & ~0xffff_ffff | Int64(answer.info0 & 0xffff)
            lock[1] = Int64(clamping: answer.info1)
            lock[2] = Int64(clamping: answer.info2)
            lock[3] = lock[3] & ~0xffff_ffff | answer.result & 0xffff_ffff
        }
        return unsafe withUnsafeBytes(of: lock) { bytes in
            guard let base = bytes.baseAddress else { return -14 }
            return unsafe memory.copyOut(base, to: address, count: 32) ? 0 : -14
        }
    }
}
