// The names by which /proc and /dev call an open file: /proc/self/fd/N and its like. To the kernel the files of ours behind them are placeholders.

import CPreload
import CSystem

enum DescriptorLinks {
    /// Bytes that any such name takes, with its zero.
    static let capacity = 40
    private static let folder: StaticString = "/proc/self/fd/"

    static func write(_ descriptor: Int64, to target: UnsafeMutableRawPointer) {
        let count = folder.utf8CodeUnitCount
        unsafe dashfs_copy(target, folder.utf8Start, count)
        let digits = unsafe Text.write(number: UInt64(max(descriptor, 0)), to: target + count)
        unsafe target.storeBytes(of: 0, toByteOffset: count + digits, as: UInt8.self)
    }

    /// The descriptor that a path names: /proc/self/fd/N, /dev/fd/N, /dev/stdin, stdout and stderr.
    static func number(_ path: PathBytes) -> Int64? {
        if let rest = path.dropping(folder) ?? path.dropping("/dev/fd/") ?? path.dropping("/proc/thread-self/fd/") { return decimal(rest) }
        if let rest = path.dropping("/proc/"), let text = unsafe rest.address, let (process, digits) = unsafe Text.number(text, rest.count),
            process == UInt64(dashfs_sys_getpid()), let rest = unsafe PathBytes(text + digits, count: rest.count - digits).dropping("/fd/")
        {
            return decimal(rest)
        }
        if path.dropping("/dev/stdin")?.count == 0 { return 0 }
        if path.dropping("/dev/stdout")?.count == 0 { return 1 }
        return path.dropping("/dev/stderr")?.count == 0 ? 2 : nil
    }

    private static func decimal(_ text: PathBytes) -> Int64? {
        guard let address = unsafe text.address, let (value, digits) = unsafe Text.number(address, text.count), digits == text.count else { return nil }
        return Int64(clamping: value)
    }

    /// readlink(2), readlinkat(2) of such a name where it is a file of ours, or of the working directory's, /proc/self/cwd; nil: it is none.
    static func read(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let isAt = number == .readlinkat
        let (path, target, capacity) = isAt ? (frame.argument1, frame.argument2, frame.argument3) : (frame.argument0, frame.argument1, frame.argument2)
        guard Descriptors.end > 0 || WorkingDirectory.isOurs, memory.isReadable(UInt64(bitPattern: path), 6), let text = unsafe UnsafeRawPointer(bitPattern: Int(path)),
            unsafe PathBytes(text, count: 6).dropping("/proc/") != nil,
            let length = memory.stringLength(UInt64(bitPattern: path), limit: capacityOfNames)
        else { return nil }
        let name = unsafe PathBytes(text, count: length)
        let pinned: Description?
        if WorkingDirectory.isOurs, name.dropping("/proc/self/cwd")?.count == 0 || name.dropping("/proc/thread-self/cwd")?.count == 0 {
            pinned = WorkingDirectory.pin().description
        } else {
            pinned = self.number(name).flatMap { Descriptors.pin($0) }
        }
        guard let file = pinned else { return nil }
        defer { file.release() }
        let room = Int32(truncatingIfNeeded: capacity)
        guard room > 0 else { return -ErrorNumber.invalid }
        guard let scratch = Scratch() else { return -ErrorNumber.noMemory }
        var count = WorkingDirectory.path(of: file, scratch)
        if count == -ErrorNumber.noEntry { count = nameless(file, scratch) }
        if count < 0 { return count }
        let shown = min(Int(count), Int(room))
        return unsafe memory.copyOut(scratch.base, to: UInt64(bitPattern: target), count: shown) ? Int64(shown) : -14
    }

    private static let capacityOfNames = 64

    /// As the kernel calls what has no name: "/dash/#INODE (deleted)".
    private static func nameless(_ file: Description, _ scratch: borrowing Scratch) -> Int64 {
        guard let prefix = unsafe Configuration.prefix.address else { return -ErrorNumber.io }
        var count = Configuration.prefix.count
        func append(_ text: StaticString) {
            unsafe dashfs_copy(scratch.base + count, text.utf8Start, text.utf8CodeUnitCount)
            count += text.utf8CodeUnitCount
        }
        unsafe dashfs_copy(scratch.base, prefix, count)
        append("/#")
        unsafe count += Text.write(number: file.inode, to: scratch.base + count)
        append(" (deleted)")
        return Int64(count)
    }
}
