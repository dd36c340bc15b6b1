// Symbolic links of the kernel's file systems that lead below the prefix. The kernel finds nothing there, so a call on a path of its own that ends with ENOENT is looked at once more: where
// a link, at the path's end or on the way, leads to the volume, the call is made anew with what the link makes of the path.
//
// It costs such a call two looks (is the end a link; is its directory there) and, where the directory is not there, one for each name. A link whose text goes on by other links is followed as the kernel would.

import CPreload
import CSystem

enum KernelLinks {
    private static let chainLimit = 40
    private static let room = Int(DASHFS_TEXT_CAPACITY)

    /// A call that `PathCalls` has left to the kernel; nil: it takes no path.
    static func answer(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        // glibc 2.41 cancels a thread that waits in open(2) (for a pipe's other end) only where it makes the call itself.
        guard PathArguments(number) != nil, frame.cancellation_point == 0 else { return nil }
        Report.wasTheKernels(number)
        let result = Signals.call(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, frame.argument5)
        return result == -ErrorNumber.noEntry ? retry(number, frame, memory) ?? result : result
    }

    /// What the call answers where a link has led to the volume; nil: none has. The kernel has said ENOENT.
    @inline(never)
    static func retry(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        // What RESOLVE_* says of links is the kernel's to say.
        guard number != .openat2, let arguments = PathArguments(number) else { return nil }
        if Execution.isExec(number) { return retryExec(number, frame, arguments, memory) }
        guard let first = Scratch(), let second = Scratch() else { return nil }
        var call = frame
        let follows = PathCalls.rules(number, frame).follows && arguments.secondPath == nil
        var isOurs = unsafe lead(&call, arguments.directory, arguments.path, follows: follows, first.base, first.base + 2 * room, memory)
        if let path = arguments.secondPath, unsafe lead(&call, arguments.secondDirectory, path, follows: false, second.base, second.base + 2 * room, memory) {
            isOurs = true
        }
        return isOurs ? PathCalls.answer(number, call, memory) : nil
    }

    /// One that succeeds does not come back to give a block up.
    private static func retryExec(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ arguments: PathArguments, _ memory: ProgramMemory) -> Int64? {
        guard let text = unsafe Execution.pathRoom else { return nil }
        var call = frame
        func lead() -> Bool {
            guard let block = Scratch() else { return false }
            return unsafe self.lead(&call, arguments.directory, arguments.path, follows: PathCalls.rules(number, frame).follows, block.base, text, memory)
        }
        return lead() ? PathCalls.answer(number, call, memory) : nil
    }

    /// Makes one path of the call, where it leads to the volume, an absolute one, in `text`. `block`: room for two texts.
    private static func lead(
        _ call: inout SystemCallFrame, _ directoryIndex: Int?, _ pathIndex: Int, follows: Bool, _ block: UnsafeMutableRawPointer,
        _ text: UnsafeMutableRawPointer, _ memory: ProgramMemory
    ) -> Bool {
        let address = UInt64(bitPattern: call.argument(pathIndex))
        let directory = directoryIndex.map { call.argument($0) } ?? currentDirectory
        guard var count = memory.stringLength(address, limit: room), count > 0, count < room, let path = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else {
            return false
        }
        unsafe dashfs_copy(text, path, count)
        unsafe text.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        let (link, composed) = unsafe (block, block + room)
        for _ in 0..<chainLimit {
            guard let (start, end, length) = unsafe findLink(text, count, directory, link, follows: follows) else { return false }
            // What stood before the link, unless it begins anew; the link's text; what stood behind the link.
            let before = unsafe Text.byte(link, 0) == Text.slash ? 0 : start
            guard before + length + count - end < room else { return false }
            unsafe dashfs_copy(composed, text, before)
            unsafe dashfs_copy(composed + before, link, length)
            unsafe dashfs_copy(composed + before + length, text + end, count - end)
            count = before + length + count - end
            unsafe dashfs_copy(text, composed, count)
            unsafe text.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
            guard unsafe Text.byte(text, 0) == Text.slash, unsafe Location.belowPrefix(PathBytes(text, count: count)) != nil else { continue }
            call.setArgument(pathIndex, Int64(Int(bitPattern: text)))
            if let directoryIndex { call.setArgument(directoryIndex, currentDirectory) }
            return true
        }
        return false
    }

    /// The first link of a path that the kernel does not find: where its name begins and ends, and the length of its text, which is put into `link`.
    private static func findLink(
        _ text: UnsafeMutableRawPointer, _ count: Int, _ directory: Int64, _ link: UnsafeMutableRawPointer, follows: Bool
    ) -> (start: Int, end: Int, length: Int)? {
        var end = count
        while end > 1, unsafe Text.byte(text, end - 1) == Text.slash { end -= 1 }
        // A slash behind a link asks for what it names.
        if follows || end < count, let length = unsafe read(text, end, directory, link) { return unsafe (nameStart(text, end), end, length) }
        let last = unsafe nameStart(text, end)
        guard last > 1, unsafe !exists(text, last - 1, directory) else { return nil }
        var at = 0
        while at < last {
            while at < last, unsafe Text.byte(text, at) == Text.slash { at += 1 }
            let start = at
            while at < last, unsafe Text.byte(text, at) != Text.slash { at += 1 }
            if at > start, let length = unsafe read(text, at, directory, link) { return (start, at, length) }
        }
        return nil
    }

    private static func nameStart(_ text: UnsafeMutableRawPointer, _ end: Int) -> Int {
        var start = end
        while start > 0, unsafe Text.byte(text, start - 1) != Text.slash { start -= 1 }
        return start
    }

    /// readlinkat(2) of the path's first `end` bytes; nil: that is no link.
    private static func read(_ text: UnsafeMutableRawPointer, _ end: Int, _ directory: Int64, _ link: UnsafeMutableRawPointer) -> Int? {
        let found = unsafe cut(text, end) {
            dashfs_raw_syscall6(SystemCallNumber.readlinkat.rawValue, directory, Int64(Int(bitPattern: text)), Int64(Int(bitPattern: link)), Int64(room) - 1, 0, 0)
        }
        return found > 0 ? Int(found) : nil
    }

    private static func exists(_ text: UnsafeMutableRawPointer, _ end: Int, _ directory: Int64) -> Bool {
        unsafe cut(text, end) { dashfs_raw_syscall3(SystemCallNumber.faccessat.rawValue, directory, Int64(Int(bitPattern: text)), 0) } == 0
    }

    private static func cut(_ text: UnsafeMutableRawPointer, _ end: Int, _ body: () -> Int64) -> Int64 {
        let kept = unsafe Text.byte(text, end)
        unsafe text.storeBytes(of: 0, toByteOffset: end, as: UInt8.self)
        defer { unsafe text.storeBytes(of: kept, toByteOffset: end, as: UInt8.self) }
        return body()
    }
}
