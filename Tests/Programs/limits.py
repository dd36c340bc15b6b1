"""What DashFS does not do yet (docs/PROGRAMS.md) is refused with the documented errno, and never done to another file.

    limits.py DIR        DIR is in the volume. Prints each check; exit 1 when one is wrong.
"""
import ctypes, errno, fcntl, os, socket, struct, subprocess, sys

top = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
wrong = 0


def ok(what, truth):
    global wrong
    print("ok:" if truth else "WRONG:", what)
    wrong += not truth


def refused(what, number, call, *arguments, **named):
    try:
        result = call(*arguments, **named)
    except OSError as e:
        ok(f"{what}: {errno.errorcode[e.errno]}", e.errno == number)
    else:
        ok(f"{what} gave {result}", False)


def system_call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def in_child(body):
    """Runs body in a forked child; True where it returned truth."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if body() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def answers(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as e:
        return e.errno == number
    return False


path, other = top + "/file", top + "/directory"
os.makedirs(other + "/below")
text = "what only its own process reads and writes\n" * 100
with open(path, "w") as f:
    f.write(text)
kernel = os.memfd_create("kernel")
fd, directory = os.open(path, os.O_RDWR), os.open(other, os.O_RDONLY)
os.set_inheritable(fd, True)

# Copies to and from the kernel's files.
refused("copy_file_range to the kernel's", errno.EXDEV, os.copy_file_range, fd, kernel, 10)
refused("copy_file_range from the kernel's", errno.EXDEV, os.copy_file_range, kernel, fd, 10)
refused("FICLONE", errno.EOPNOTSUPP, fcntl.ioctl, fd, 0x40049409, directory)
refused("an unknown ioctl", errno.ENOTTY, fcntl.ioctl, fd, 0x5401, b"\0" * 64)

# Locks, notices, flags.
refused("a lease", errno.EINVAL, fcntl.fcntl, fd, 1024, 0)
refused("seals", errno.EINVAL, fcntl.fcntl, fd, 1033, 0)
refused("F_NOTIFY", errno.EINVAL, fcntl.fcntl, directory, 1026, 1)
refused("RWF_NOWAIT", errno.EOPNOTSUPP, os.preadv, fd, [bytearray(1)], 0, 8)
refused("RWF_ATOMIC", errno.EOPNOTSUPP, os.pwritev, fd, [b"x"], 0, 64)


def opened(name, limits):
    how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_RDONLY, 0, limits))
    os.close(system_call(437, -100, ctypes.c_char_p(name.encode()), how, 24))


# The volume is a mount of its own to openat2: RESOLVE_NO_XDEV 1, BENEATH 8, IN_ROOT 16, CACHED 32.
os.chdir("/")
refused("RESOLVE_NO_XDEV into the volume", errno.EXDEV, opened, path, 1)
refused("and from where the prefix is", errno.EXDEV, opened, path[1:], 1)
refused("RESOLVE_BENEATH with an absolute path", errno.EXDEV, opened, path, 8)
refused("RESOLVE_CACHED", errno.EAGAIN, opened, path, 32)
os.symlink("/etc", other + "/out of it")
os.chdir(other)
refused("RESOLVE_NO_XDEV out of the volume", errno.EXDEV, opened, "out of it", 1)
refused("by ..", errno.EXDEV, opened, "../../../../etc", 1)
ok("RESOLVE_NO_XDEV inside it", opened("below", 1) is None)
os.chdir("/")
os.unlink(other + "/out of it")
watch = libc.inotify_init()
refused("inotify", errno.EOPNOTSUPP, system_call, 254, watch, ctypes.c_char_p(path.encode()), 2)

# Names of what is not a file, programs, roots.
unix = socket.socket(socket.AF_UNIX)
os.symlink("/tmp", top + "/out")
refused("bind beyond a link that leads out", errno.EOPNOTSUPP, unix.bind, top + "/out/dashfs-limits")
refused("connect beyond one", errno.ECONNREFUSED, unix.connect, top + "/out/dashfs-limits")
unix.bind("/tmp/dashfs-limits-%d" % os.getpid())
os.unlink("/tmp/dashfs-limits-%d" % os.getpid())
if os.getuid() == 0:
    os.mknod(top + "/null", 0o020666, os.makedev(1, 3))
    refused("opening a device", errno.ENXIO, os.open, top + "/null", os.O_RDWR)
refused("chroot", errno.EPERM, os.chroot, other)
refused("a rename out of the volume", errno.EXDEV, os.rename, path, "/tmp/dashfs-limits")
ok("nothing has changed", open(path).read() == text and os.listdir(other + "/below") == [])
sys.exit(wrong > 0)
