// The system calls that can carry file system work, on x86-64: the one list of them.
//
// The site finder rewrites the call sites that can make one of these; the preloaded library (which compiles this file
// through a symlink) enters its hook for these and no others. Futexes, what else there is about signals, and exit are not here: their
// sites stay as the C library was built.
//
// Numbers: Linux arch/x86/entry/syscalls/syscall_64.tbl. Names as there.

/// When a call of the program is worth a look.
package enum SystemCallInterest: UInt8 {
    /// Only if the first argument may be a descriptor of ours.
    case byDescriptor = 1
    /// Each time: it takes a path, more than one descriptor, or changes what the library has to know.
    case always = 2
}

package enum SystemCallNumber: Int64, CaseIterable {
    case read = 0, write = 1, open = 2, close = 3, stat = 4, fstat = 5, lstat = 6, poll = 7, lseek = 8, mmap = 9
    case mprotect = 10, munmap = 11, brk = 12, rt_sigaction = 13, ioctl = 16, pread64 = 17, pwrite64 = 18, readv = 19, writev = 20
    case access = 21, select = 23, mremap = 25, msync = 26, dup = 32, dup2 = 33, sendfile = 40, connect = 42, accept = 43, sendto = 44, recvfrom = 45, sendmsg = 46, recvmsg = 47, bind = 49
    case getsockname = 51, getpeername = 52, clone = 56
    case fork = 57, vfork = 58, execve = 59
    case shmdt = 67, fcntl = 72, flock = 73, fsync = 74, fdatasync = 75, truncate = 76, ftruncate = 77, getdents = 78
    case getcwd = 79, chdir = 80, fchdir = 81, rename = 82, mkdir = 83, rmdir = 84, creat = 85, link = 86, unlink = 87
    case symlink = 88, readlink = 89, chmod = 90, fchmod = 91, chown = 92, fchown = 93, lchown = 94, umask = 95
    case setuid = 105, setgid = 106, setreuid = 113, setregid = 114, setgroups = 116, setresuid = 117, setresgid = 119
    case setfsuid = 122, setfsgid = 123, utime = 132, mknod = 133, statfs = 137, fstatfs = 138, setrlimit = 160, chroot = 161
    case sync = 162, readahead = 187, setxattr = 188, lsetxattr = 189, fsetxattr = 190, getxattr = 191
    case lgetxattr = 192, fgetxattr = 193, listxattr = 194, llistxattr = 195, flistxattr = 196, removexattr = 197
    case lremovexattr = 198, fremovexattr = 199, io_submit = 209, getdents64 = 217, fadvise64 = 221, epoll_ctl = 233
    case utimes = 235, inotify_add_watch = 254, openat = 257, mkdirat = 258, mknodat = 259, fchownat = 260
    case futimesat = 261, newfstatat = 262, unlinkat = 263, renameat = 264, linkat = 265, symlinkat = 266
    case readlinkat = 267, fchmodat = 268, faccessat = 269, pselect6 = 270, ppoll = 271, splice = 275, tee = 276
    case sync_file_range = 277, vmsplice = 278, utimensat = 280, fallocate = 285, dup3 = 292, preadv = 295
    case pwritev = 296, recvmmsg = 299, fanotify_mark = 301, prlimit64 = 302, name_to_handle_at = 303, open_by_handle_at = 304, syncfs = 306, sendmmsg = 307, accept4 = 288
    case renameat2 = 316, execveat = 322, copy_file_range = 326, preadv2 = 327, pwritev2 = 328, pkey_mprotect = 329
    case statx = 332, io_uring_setup = 425, clone3 = 435, close_range = 436, openat2 = 437, faccessat2 = 439, fchmodat2 = 452, setxattrat = 463
    case getxattrat = 464, listxattrat = 465, removexattrat = 466
}

extension SystemCallNumber {
    package var interest: SystemCallInterest {
        switch self {
        case .read, .write, .close, .fstat, .lseek, .ioctl, .pread64, .pwrite64, .readv, .writev, .dup, .fcntl,
            .flock, .fsync, .fdatasync, .ftruncate, .getdents, .fchmod, .fchown, .fstatfs, .readahead, .fsetxattr,
            .fgetxattr, .flistxattr, .fremovexattr, .getdents64, .fadvise64, .sync_file_range, .vmsplice,
            .fallocate, .preadv, .pwritev, .syncfs, .preadv2, .pwritev2:
            .byDescriptor
        default:
            .always
        }
    }

    /// Whether it may take memory away that the program had, or its permissions.
    package var changesMappings: Bool {
        switch self {
        case .mmap, .mprotect, .munmap, .brk, .mremap, .shmdt, .pkey_mprotect: true
        default: false
        }
    }
}
