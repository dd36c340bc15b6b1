// The path of a program of the volume as /proc/self/exe would tell it: absolute, from the prefix on, with no symbolic link in it. The server has no paths of files, only of directories, so links at
// the path's end are followed here, name by name.

import CPreload
import CSystem

enum ProgramPath {
    private static let chainLimit = 40

    /// Written to `target`, which has room for DASHFS_TEXT_CAPACITY bytes, with its zero; its length. 0: there is none (the file was named by a descriptor), or it is too long.
    static func write(_ place: Place, _ channel: Channel, _ target: UnsafeMutableRawPointer) -> Int {
        guard let scratch = Scratch(), let given = unsafe place.path.address, place.path.count > 0, place.path.count <= Layout.pathLimit else { return 0 }
        let (text, link) = unsafe (scratch.base, scratch.base + Int(DASHFS_TEXT_CAPACITY))
        var count = place.path.count
        unsafe dashfs_copy(text, given, count)
        // The directory that the text starts from, and whether it was opened here.
        var (directory, isOpened) = (place.handle, false)
        defer { if isOpened { _ = channel.close(directory, keepsLocks: true) } }
        for _ in 0..<chainLimit {
            var start = count
            while start > 0, unsafe Text.byte(text, start - 1) != Text.slash { start -= 1 }
            let name = unsafe PathBytes(text + start, count: count - start)
            if name.count == 0 || name.dropping(".")?.count == 0 || name.dropping("..")?.count == 0 { return 0 }
            let dot: StaticString = "."
            let path = unsafe start > 0 ? PathBytes(text, count: start) : PathBytes(dot.utf8Start, count: 1)
            let opened = channel.open(Place(path, from: directory), flags: OpenFlags.pathOnly | OpenFlags.directory, mode: 0)
            guard opened.result >= 0 else { return 0 }
            if isOpened { _ = channel.close(directory, keepsLocks: true) }
            (directory, isOpened) = (Int32(truncatingIfNeeded: opened.result), true)
            let read = unsafe channel.readlink(Place(name, from: directory), into: link, capacity: Layout.pathLimit)
            if read.result <= 0 { return unsafe join(channel, directory, name, target) }
            var next = unsafe PathBytes(link, count: Int(read.result))
            if unsafe Text.byte(link, 0) == Text.slash {
                guard let rest = Location.belowPrefix(next) else { return 0 }
                next = rest
                _ = channel.close(directory, keepsLocks: true)
                (directory, isOpened) = (WireRequest.rootHandle, false)
            }
            guard let source = unsafe next.address else { return 0 }
            count = next.count
            unsafe dashfs_copy(text, source, count)
        }
        return 0
    }

    private static func join(_ channel: Channel, _ directory: Int32, _ name: PathBytes, _ target: UnsafeMutableRawPointer) -> Int {
        let prefix = Configuration.prefix
        let room = Int(DASHFS_TEXT_CAPACITY) - prefix.count - name.count - 2
        guard let beginning = unsafe prefix.address, let end = unsafe name.address, room > 1 else { return 0 }
        unsafe dashfs_copy(target, beginning, prefix.count)
        let length = Int(unsafe channel.directoryPath(directory, into: target + prefix.count, capacity: room))
        guard length > 0 else { return 0 }
        var count = prefix.count + (length == 1 ? 0 : length)  // the volume's root is "/"
        unsafe target.storeBytes(of: Text.slash, toByteOffset: count, as: UInt8.self)
        unsafe dashfs_copy(target + count + 1, end, name.count)
        count += 1 + name.count
        unsafe target.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        return count
    }
}
