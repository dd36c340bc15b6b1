// Where files of the volume are: absolute paths, from the prefix on, with no symbolic link in them, as getcwd(2) and the links in /proc tell them.

import CPreload
import CSystem

enum VolumePath {
    /// Of a place: written to `target`, which has room for DASHFS_TEXT_CAPACITY bytes, with its zero; its length. 0: there is none (the file was named by a descriptor), or it is too long.
    static func write(_ place: Place, _ channel: Channel, _ target: UnsafeMutableRawPointer) -> Int {
        guard place.path.count > 0 else { return 0 }
        let opened = channel.open(place, flags: OpenFlags.pathOnly, mode: 0)
        guard opened.result >= 0 else { return 0 }
        let handle = Int32(truncatingIfNeeded: opened.result)
        defer { _ = channel.close(handle, keepsLocks: true) }
        let count = Int(unsafe of(handle, channel, target, Int(DASHFS_TEXT_CAPACITY) - 1))
        guard count > 0 else { return 0 }
        unsafe target.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        return count
    }

    /// Where an open file is, prefix and all; its length or a negated errno. ENOENT: nowhere that is known.
    static func of(_ handle: Int32, _ channel: Channel, _ target: UnsafeMutableRawPointer, _ capacity: Int) -> Int64 {
        let prefix = Configuration.prefix
        guard let beginning = unsafe prefix.address, capacity > prefix.count else { return -ErrorNumber.range }
        unsafe dashfs_copy(target, beginning, prefix.count)
        let rest = unsafe channel.handlePath(handle, into: target + prefix.count, capacity: min(capacity - prefix.count, Layout.pathLimit))
        if rest < 0 { return rest }
        // The volume's root is the prefix itself.
        return Int64(prefix.count) + (rest == 1 ? 0 : rest)
    }
}
