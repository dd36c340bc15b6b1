"""What DashFS does not do yet (docs/PROGRAMS.md) is refused with the documented errno, and never done to another file.

    limits.py DIR        DIR is in the volume. Prints each check; exit 1 when one is wrong.
"""
import ctypes, errno, fcntl, os, select, socket, struct, subprocess, sys

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

# Descriptors over fork: each call says EBADF, and the same number opened anew is the new file.
for what, call in {
    "read": lambda: os.read(fd, 1), "write": lambda: os.write(fd, b"x"), "pread": lambda: os.pread(fd, 1, 0),
    "fstat": lambda: os.fstat(fd), "lseek": lambda: os.lseek(fd, 0, os.SEEK_END), "ftruncate": lambda: os.ftruncate(fd, 0),
    "fsync": lambda: os.fsync(fd), "fchmod": lambda: os.fchmod(fd, 0), "flock": lambda: fcntl.flock(fd, fcntl.LOCK_SH),
    "lockf": lambda: fcntl.lockf(fd, fcntl.LOCK_EX), "openat": lambda: os.open("below", os.O_RDONLY, dir_fd=directory),
    "unlinkat": lambda: os.rmdir("below", dir_fd=directory), "fchdir": lambda: os.fchdir(directory), "listdir": lambda: os.listdir(directory),
}.items():
    ok(f"{what} of an inherited descriptor: EBADF", in_child(lambda: answers(errno.EBADF, call)))
ok("a child opens what it wants", in_child(lambda: open(path).read().startswith("what only")))


def anew():
    os.close(fd)
    return os.open(other + "/of the child", os.O_WRONLY | os.O_CREAT) == fd and os.write(fd, b"child") == 5


ok("a descriptor that a child has closed and opened is the child's", in_child(anew))
os.chdir(other)
here = os.open(".", os.O_RDONLY)
ok("fchdir of a child to where it is", in_child(lambda: os.fchdir(here) is None and os.listdir(".") == os.listdir(other)))
os.chdir("/")
ok("and to where it is not: EBADF", in_child(lambda: answers(errno.EBADF, os.fchdir, here)))

# … over exec.
for what, code in {
    "read": "os.read(fd, 1)", "write": "os.write(fd, b'x')", "fstat": "os.fstat(fd)", "/proc/self/fd": "open('/proc/self/fd/%d' % fd)",
}.items():
    script = f"import os, sys\nfd = {fd}\ntry:\n    {code}\nexcept OSError as e:\n    print(e.errno)"
    seen = subprocess.run([sys.executable, "-c", script], pass_fds=[fd], capture_output=True, text=True).stdout.strip()
    ok(f"{what} of a descriptor that came through exec: {seen}", seen in (str(errno.EBADF), str(errno.ENXIO)))
with open(path) as stdin, open(other + "/out", "w") as stdout:
    done = subprocess.run(["cat"], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True)
ok("cat with both redirected fails and says so", done.returncode != 0 and "Bad file descriptor" in done.stderr)
ok("and has written nothing", os.stat(other + "/out").st_size == 0)
ok("the file is what it was", open(path).read() == text)

# Waiting, moving data.
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
os.chmod(path, 0o755)
ok("execve of a file of the volume: EACCES", in_child(lambda: answers(errno.EACCES, os.execv, path, [path])))
refused("chroot", errno.EPERM, os.chroot, other)
refused("a rename out of the volume", errno.EXDEV, os.rename, path, "/tmp/dashfs-limits")
ok("nothing has changed", open(path).read() == text and os.listdir(other + "/below") == [])
sys.exit(wrong > 0)
