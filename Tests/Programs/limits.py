"""What DashFS does not do yet (docs/PROGRAMS.md) is refused with the documented errno, and never done to another file.

    limits.py DIR        DIR is in the volume. Prints each check; exit 1 when one is wrong.
"""
import ctypes, errno, fcntl, mmap, os, select, socket, struct, subprocess, sys

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

# Maps, waiting, moving data.
for what, protection, kind in [("shared", mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED), ("private", mmap.PROT_READ, mmap.MAP_PRIVATE)]:
    refused(f"a {what} map", errno.ENODEV, mmap.mmap, fd, 4096, flags=kind, prot=protection)
poll = select.poll()
poll.register(fd, select.POLLIN)
ok("poll: POLLNVAL", poll.poll(0) == [(fd, select.POLLNVAL)])
ok("select: ready", select.select([fd], [], [], 0)[0] == [fd])
refused("epoll", errno.EBADF, select.epoll().register, fd, select.EPOLLIN)
reading, writing = os.pipe()
refused("sendfile from", errno.EINVAL, os.sendfile, writing, fd, 0, 10)
refused("sendfile to", errno.EINVAL, os.sendfile, fd, kernel, 0, 10)
refused("splice", errno.EINVAL, system_call, 275, fd, 0, writing, 0, 10, 0)
refused("copy_file_range to the kernel's", errno.EXDEV, os.copy_file_range, fd, kernel, 10)
refused("copy_file_range from the kernel's", errno.EXDEV, os.copy_file_range, kernel, fd, 10)
refused("FICLONE", errno.EOPNOTSUPP, fcntl.ioctl, fd, 0x40049409, directory)
refused("an unknown ioctl", errno.ENOTTY, fcntl.ioctl, fd, 0x5401, b"\0" * 64)

# Locks, notices, flags.
refused("F_OFD_SETLK", errno.EINVAL, fcntl.fcntl, fd, 37, struct.pack("hhqqi4x", 0, 0, 0, 0, 0))
refused("a lease", errno.EINVAL, fcntl.fcntl, fd, 1024, 0)
refused("seals", errno.EINVAL, fcntl.fcntl, fd, 1033, 0)
refused("F_NOTIFY", errno.ENOTDIR, fcntl.fcntl, directory, 1026, 1)
refused("RWF_ flags", errno.EOPNOTSUPP, os.preadv, fd, [bytearray(1)], 0, 2)
how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_RDONLY, 0, 4))
refused("RESOLVE_ flags", errno.EOPNOTSUPP, system_call, 437, -100, ctypes.c_char_p(path.encode()), how, 24)
watch = libc.inotify_init()
refused("inotify", errno.EOPNOTSUPP, system_call, 254, watch, ctypes.c_char_p(path.encode()), 2)

# Names of what is not a file, programs, roots.
unix = socket.socket(socket.AF_UNIX)
refused("bind", errno.EOPNOTSUPP, unix.bind, top + "/socket")
refused("connect to a file", errno.ECONNREFUSED, unix.connect, path)
refused("connect to nothing", errno.ENOENT, unix.connect, top + "/none")
os.chdir(top)
refused("bind where it is", errno.EOPNOTSUPP, unix.bind, "socket")
os.chdir("/")
unix.bind("/tmp/dashfs-limits-%d" % os.getpid())
os.unlink("/tmp/dashfs-limits-%d" % os.getpid())
os.mkfifo(top + "/fifo")
refused("opening a fifo", errno.ENXIO, os.open, top + "/fifo", os.O_RDWR)
refused("chroot", errno.EPERM, os.chroot, other)
refused("a rename out of the volume", errno.EXDEV, os.rename, path, "/tmp/dashfs-limits")
ok("nothing has changed", open(path).read() == text and os.listdir(other + "/below") == [])
sys.exit(wrong > 0)
