// Where files of the volume are: absolute paths, from the prefix on, with no symbolic link in them, as getcwd(2) and the links in /proc tell them.

import CPreload
import CSystem

enum VolumePath {
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
