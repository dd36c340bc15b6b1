/// Who may do what: the one place that decides (POSIX.1-2017 §4.5 file access permissions, with Linux's capabilities of root).
enum Access {
    static let read: UInt32 = 4
    static let write: UInt32 = 2
    static let execute: UInt32 = 1
}

extension Credentials {
    @inline(__always) var isPrivileged: Bool { user == 0 }

    @inline(__always) func isMember(_ group: UInt32) -> Bool { self.group == group || groups.contains(group) }

    /// True where every bit of `wanted` (read 4, write 2, execute/search 1) is granted.
    func may(_ wanted: UInt32, _ inode: Inode) -> Bool {
        let mode = UInt32(inode.mode)
        if isPrivileged {
            // Root reads and writes everything, and executes what anyone may execute; directories are always searchable.
            return wanted & Access.execute == 0 || inode.isDirectory || mode & 0o111 != 0
        }
        let granted = inode.user == user ? mode >> 6 : isMember(inode.group) ? mode >> 3 : mode
        return granted & wanted == wanted
    }

    func owns(_ inode: Inode) -> Bool { isPrivileged || inode.user == user }

    /// Sticky directories: entries belong to their owner, the directory's owner, and root.
    func mayDelete(_ victim: Inode, from directory: Inode) -> Bool {
        directory.mode & Mode.sticky == 0 || isPrivileged || victim.user == user || directory.user == user
    }

    /// What remains of a file's mode when this caller writes it or changes its owner: set-user-id goes, set-group-id goes where it
    /// is not a mandatory-locking mark (no group execute).
    static func withoutSetID(_ mode: UInt16) -> UInt16 {
        guard mode & Mode.typeMask != Mode.directory else { return mode }
        var mode = mode & ~Mode.setUser
        if mode & 0o010 != 0 { mode &= ~Mode.setGroup }
        return mode
    }

    /// The same for what this caller does to a file: a set-group-ID bit without group execution stays only for members of the group, as on Linux.
    func withoutSetID(_ file: Inode) -> UInt16 {
        let mode = Credentials.withoutSetID(file.mode)
        return file.isDirectory || isPrivileged || isMember(file.group) ? mode : mode & ~Mode.setGroup
    }
}
