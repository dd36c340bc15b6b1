"""What calls on files answer that are neither reads nor writes of one file: each answer is printed, to be compared with another file system's.

    surface.py DIR
"""
import ctypes, errno, fcntl, os, select, signal, socket, struct, sys, termios, threading

top = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)


def show(what, call, *arguments):
    try:
        result = call(*arguments)
    except OSError as e:
        result = errno.errorcode[e.errno]
    print(f"{what}: {result}", flush=True)
    return result


def system_call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def content(path):
    with open(path, "rb") as f:
        return f.read()


text = bytes(range(256)) * 4096  # 1 MiB
path, other, folder = top + "/file", top + "/other", top + "/folder"
os.makedirs(folder + "/below")
for name in (path, other):
    with open(name, "wb") as f:
        f.write(text)
fd, second = os.open(path, os.O_RDWR), os.open(other, os.O_RDWR)
directory = os.open(folder, os.O_RDONLY)
reading, writing = os.pipe()
kernel = os.memfd_create("kernel")
only_read, only_written = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
named = os.open(path, os.O_PATH)
closed = os.dup(fd)
os.close(closed)
names = {fd: "file", second: "second", directory: "directory", reading: "pipe", writing: "pipe's other end", named: "named", closed: "closed", kernel: "kernel's"}

# Readiness: one by one, mixed, waiting for the kernel's alone, interrupted.
ALL = select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLRDNORM | select.POLLWRNORM | select.POLLRDBAND | select.POLLWRBAND


def polled(wanted, limit=0):
    poll = select.poll()
    for descriptor, events in wanted:
        poll.register(descriptor, events)
    return [(names[d], hex(e)) for d, e in poll.poll(limit)]


def selected(r, w, x, limit):
    return [[names[d] for d in ready] for ready in select.select(r, w, x, limit)]


for descriptor in (fd, directory, named, closed, reading, writing):
    show(f"poll {names[descriptor]}", polled, [(descriptor, ALL)])
show("poll for nothing", polled, [(fd, 0), (directory, select.POLLPRI)])
show("poll mixed", polled, [(reading, ALL), (fd, select.POLLIN), (writing, ALL), (directory, select.POLLOUT), (closed, 0), (named, 0)], 100000)
show("poll waits not for files", polled, [(fd, select.POLLOUT), (reading, select.POLLIN)], 100000)
for descriptor in (fd, directory, reading, closed):
    show(f"select {names[descriptor]}", selected, [descriptor], [descriptor], [descriptor], 0)
show("select mixed", selected, [reading, fd, kernel], [writing, second], [fd, reading], 1000)
show("select for exceptions of files", selected, [reading], [], [fd, directory], 0.01)


def later():
    os.write(writing, b"x")


# Nothing of ours is ready, so these wait until the thread has written.
for what, call in (("poll", lambda: polled([(fd, select.POLLPRI), (reading, select.POLLIN), (directory, 0)], -1)),
                   ("select", lambda: selected([reading], [], [fd], None))):
    thread = threading.Thread(target=later)
    thread.start()
    show(f"{what} waits for the kernel's", call)
    thread.join()
    os.read(reading, 1)
show("select of a bad limit", system_call, 23, 0, 0, 0, 0, ctypes.c_char_p(struct.pack("qq", -1, 0)))
bits = ctypes.create_string_buffer(128)
struct.pack_into("Q", bits, fd // 64 * 8, 1 << fd % 64)
show("pselect6 with a bad limit", system_call, 270, fd + 1, bits, 0, 0, ctypes.c_char_p(struct.pack("qq", 1, 1000000000)), 0)
entry = ctypes.create_string_buffer(struct.pack("ihh", fd, select.POLLIN, 0), 8)
show("ppoll with a bad limit", system_call, 271, entry, 1, ctypes.c_char_p(struct.pack("qq", 1, -1)), 0, 8)
show("ppoll", system_call, 271, entry, 1, ctypes.c_char_p(struct.pack("qq", 100, 0)), 0, 8)
show("poll of bad memory", system_call, 7, 8, 1, 0)
show("pselect6", system_call, 270, fd + 1, bits, 0, 0, 0, 0)
many = [os.dup(fd) for _ in range(70)]
for d in many:
    names[d] = "copy"
show("select of many", lambda: [len(s) for s in selected(many + [reading], many, many, 100)])
show("poll of many", lambda: len(polled([(d, select.POLLIN) for d in many] + [(reading, select.POLLIN)], 100000)))
for d in many:
    os.close(d)
epoll = select.epoll()
for descriptor in (fd, directory, named, closed):
    show(f"epoll add {names[descriptor]}", epoll.register, descriptor, select.EPOLLIN)
    show(f"epoll change {names[descriptor]}", epoll.modify, descriptor, select.EPOLLIN)
    show(f"epoll remove {names[descriptor]}", epoll.unregister, descriptor)
show("epoll_ctl on a file", system_call, 233, fd, 1, reading, ctypes.c_char_p(bytes(12)))
show("epoll_ctl with bad memory", system_call, 233, epoll.fileno(), 1, fd, 0)
epoll.register(reading, select.EPOLLIN)
show("epoll of the kernel's", epoll.poll, 0)

# Copies: where what went, and where offsets are afterwards.
def where(descriptor):
    return os.lseek(descriptor, 0, os.SEEK_CUR)


os.lseek(fd, 1000, os.SEEK_SET)
show("sendfile to the kernel's", os.sendfile, kernel, fd, None, 300000)
show("offsets", lambda: (where(fd), where(kernel), os.pread(kernel, 300000, 0) == text[1000:301000]))
show("sendfile at an offset", os.sendfile, kernel, fd, 5, 10)
show("offsets", lambda: (where(fd), where(kernel)))
os.lseek(kernel, 0, os.SEEK_SET)
os.lseek(second, 7, os.SEEK_SET)
show("sendfile from the kernel's", os.sendfile, second, kernel, None, 1 << 20)
show("offsets", lambda: (where(second), where(kernel), content(other)[7:300007] == text[1000:301000], len(content(other))))
os.lseek(second, 0, os.SEEK_SET)
show("sendfile between files", os.sendfile, second, fd, 0, 1 << 30)
show("offsets", lambda: (where(second), content(other) == text))
show("sendfile at the end", os.sendfile, kernel, fd, len(text), 10)
show("sendfile of nothing", os.sendfile, kernel, fd, 0, 0)
show("sendfile of a directory", os.sendfile, kernel, directory, 0, 10)
show("sendfile to a directory", os.sendfile, directory, kernel, 0, 10)
show("sendfile from what is only written", os.sendfile, kernel, only_written, 0, 10)
show("sendfile to what is only read", os.sendfile, only_read, kernel, 0, 10)
show("sendfile from a pipe", os.sendfile, second, reading, None, 10)
show("sendfile from a pipe's offset", os.sendfile, second, reading, 3, 10)
show("sendfile from a closed one", os.sendfile, second, closed, 0, 10)
show("sendfile to a closed one", os.sendfile, closed, fd, 0, 10)
show("sendfile by name", os.sendfile, kernel, named, 0, 10)
show("sendfile before the beginning", os.sendfile, kernel, fd, -1, 10)
show("sendfile with a bad offset", system_call, 40, kernel, fd, 8, 10)
appending = os.open(other, os.O_WRONLY | os.O_APPEND)
show("sendfile to the end", os.sendfile, appending, fd, 0, 10)
show("sendfile to a pipe", os.sendfile, writing, fd, 0, 5000)
show("it holds", lambda: os.read(reading, 100000) == text[:5000])
sent = os.sendfile(writing, fd, 0, 1 << 20)  # as much as it takes
show("a full pipe", lambda: 0 < sent < 1 << 20 and os.read(reading, 1 << 20) == text[:sent])
a, b = socket.socketpair()
received = bytearray()


def receive():
    while len(received) < len(text):
        received.extend(b.recv(65536))


thread = threading.Thread(target=receive)
thread.start()
sent = 0
while sent < len(text):
    sent += os.sendfile(a.fileno(), fd, sent, len(text) - sent)
thread.join()
print("sendfile to a socket:", received == text)
a.setblocking(False)
sent = 0
try:
    while True:
        sent += os.sendfile(a.fileno(), fd, sent % len(text), 65536)
except OSError as e:
    print("a full socket:", errno.errorcode[e.errno], sent > 0)
b.close()
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
show("sendfile to nobody", os.sendfile, a.fileno(), fd, 0, 10)

SPLICE_NONBLOCK = 2
show("splice to a pipe", os.splice, fd, writing, 3000, 100)
show("it holds", lambda: os.read(reading, 100000) == text[100:3100])
os.lseek(fd, 50, os.SEEK_SET)
show("splice from its own offset", os.splice, fd, writing, 10)
show("offset", lambda: (where(fd), os.read(reading, 100) == text[50:60]))
os.write(writing, b"spliced")
show("splice from a pipe", os.splice, reading, second, 100, None, 3)
show("it holds", lambda: content(other)[:12] == text[:3] + b"spliced" + text[10:12])
os.lseek(second, 20, os.SEEK_SET)
os.write(writing, b"more of it")
show("splice part of it", os.splice, reading, second, 4)
show("the rest", lambda: (os.read(reading, 100), where(second)))
show("splice of an empty pipe", os.splice, reading, second, 10, None, None, SPLICE_NONBLOCK)
while True:
    try:
        os.splice(fd, writing, 1 << 20, 0, None, SPLICE_NONBLOCK)
    except OSError as e:
        print("splice to a full pipe:", errno.errorcode[e.errno])
        break
while select.select([reading], [], [], 0)[0]:
    os.read(reading, 1 << 20)
show("splice between files", os.splice, fd, second, 10)
show("splice with the kernel's", os.splice, fd, kernel, 10)
show("splice with an offset of the pipe", os.splice, fd, writing, 10, 0, 5)
show("splice to the end", os.splice, reading, appending, 10)
show("splice of nothing", os.splice, fd, writing, 0)
show("splice of bad flags", os.splice, fd, writing, 10, 0, None, 64)
show("splice of a directory", os.splice, directory, writing, 10)
show("splice to what is only read", os.splice, reading, only_read, 10)
show("splice past the end", os.splice, fd, writing, 10, 1 << 21)
show("tee", system_call, 276, fd, writing, 10, 0)
show("vmsplice", system_call, 278, fd, ctypes.c_char_p(struct.pack("PN", ctypes.addressof(bits), 4)), 1, 0)
os.close(writing)
show("splice from a pipe at its end", os.splice, reading, second, 10)

# Flags of one transfer.
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_APPEND = 1, 2, 4, 16
os.ftruncate(second, 10)
os.lseek(second, 2, os.SEEK_SET)
show("pwritev2 appends", os.pwritev, second, [b"ap", b"pended"], 0, RWF_APPEND)
show("and does not seek", lambda: (where(second), content(other)[10:]))
buffer = ctypes.create_string_buffer(b"again")
vector = ctypes.c_char_p(struct.pack("PN", ctypes.addressof(buffer), 5))
show("at its own offset", system_call, 328, second, vector, 1, -1, -1, RWF_APPEND)
show("and seeks", lambda: (where(second), content(other)[10:]))
for flag in (RWF_DSYNC, RWF_SYNC, RWF_HIPRI, RWF_SYNC | RWF_APPEND):
    show(f"pwritev2 {flag}", os.pwritev, second, [b"durable"], 3, flag)
    show(f"preadv2 {flag}", os.preadv, second, [bytearray(3), bytearray(2)], 3, flag)
show("unknown flags", os.pwritev, second, [b"x"], 0, 1 << 20)
show("preadv2 at -2", system_call, 327, second, vector, 1, -2, -1, 0)
show("pwritev2 of what is only read", os.pwritev, only_read, [b"x"], 0, RWF_SYNC)
show("the file", lambda: content(other))

# Limits of walks.
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 1, 2, 4, 8, 16
for name, target in (("up", "../file"), ("away", "/etc/hostname"), ("here", "below"), ("absolute", folder + "/below"), ("root", "/below"), ("chain", "here/../here")):
    os.symlink(target, f"{folder}/{name}")
with open(folder + "/below/inner", "w") as f:
    f.write("inner")


def opened(at, name, flags, limits, mode=0, size=24, extra=b""):
    how = ctypes.create_string_buffer(struct.pack("QQQ", flags, mode, limits) + extra, max(size, 24 + len(extra)))
    result = system_call(437, at, ctypes.c_char_p(name.encode()), how, size)
    status = os.fstat(result)
    os.close(result)
    return f"inode of {[n for n in ('', '/below', '/below/inner', '/../file', '/new') if os.path.exists(folder + n) and os.stat(folder + n).st_ino == status.st_ino] or 'others'}"


for limits in (0, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, NO_XDEV | BENEATH, NO_SYMLINKS | IN_ROOT):
    for name in ("below/inner", "below/../below/inner", "..", "../file", "below/../..", "up", "away", "here/inner", "absolute/inner", "root/inner", "chain/inner", "/", "/below/inner", ".", "none", "below/inner/x",
                 "../../../../../../../../.."):
        if limits & IN_ROOT == 0 and limits & (BENEATH | NO_XDEV) == 0 and name in ("/", "/below/inner", "away", "../../../../../../../../.."):
            continue
        show(f"openat2 {limits} {name}", opened, directory, name, os.O_RDONLY, limits)
show("openat2 makes a file below", opened, directory, "new", os.O_WRONLY | os.O_CREAT, BENEATH, 0o600)
show("openat2 makes a file above", opened, directory, "../new", os.O_WRONLY | os.O_CREAT, BENEATH, 0o600)
show("openat2 of a link itself", opened, directory, "here", os.O_PATH | os.O_NOFOLLOW, NO_SYMLINKS)
show("openat2 of unknown limits", opened, directory, "below", os.O_RDONLY, 64)
show("openat2 of both", opened, directory, "below", os.O_RDONLY, BENEATH | IN_ROOT)
show("openat2 of unknown flags", opened, directory, "below", 1 << 40, 0)
show("openat2 of a mode without O_CREAT", opened, directory, "below", os.O_RDONLY, 0, 0o600)
show("openat2 of a bad mode", opened, directory, "new", os.O_CREAT | os.O_WRONLY, 0, 0o10000)
show("openat2 too short", opened, directory, "below", os.O_RDONLY, 0, 0, 16)
show("openat2 longer", opened, directory, "below", os.O_RDONLY, 0, 0, 32, bytes(8))
show("openat2 of the future", opened, directory, "below", os.O_RDONLY, 0, 0, 32, b"\1" + bytes(7))
show("openat2 by name and more", opened, directory, "below", os.O_PATH | os.O_TRUNC, 0)

# Locks of descriptions.
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def lock(descriptor, command, kind, start, length, process=0):
    answer = fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", kind, 0, start, length, process))
    return struct.unpack("hhqqi", answer[:28])


READ, WRITE, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
one, two = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
same = os.dup(one)
show("lock", lock, one, F_OFD_SETLK, WRITE, 10, 10)
show("another is refused", lock, two, F_OFD_SETLK, READ, 15, 1)
show("beside it", lock, two, F_OFD_SETLK, WRITE, 20, 5)
show("a duplicate is the same", lock, same, F_OFD_SETLK, READ, 12, 2)
show("who", lock, two, F_OFD_GETLK, WRITE, 0, 0)
show("who of the process", lock, two, fcntl.F_GETLK, WRITE, 0, 0)
show("the process is refused", lock, one, fcntl.F_SETLK, WRITE, 10, 1)
show("the process beside it", lock, one, fcntl.F_SETLK, WRITE, 100, 1)
show("by the process", lambda: lock(two, F_OFD_GETLK, WRITE, 100, 0)[:4])
show("with a process", lock, one, F_OFD_SETLK, WRITE, 10, 1, 5)
show("what is only read", lock, only_read, F_OFD_SETLK, WRITE, 500, 1)
show("a bad kind", lock, one, F_OFD_SETLK, 9, 500, 1)
os.close(os.open(path, os.O_RDONLY))
show("after a close of the process", lambda: (lock(two, F_OFD_GETLK, WRITE, 10, 1), lock(two, F_OFD_GETLK, WRITE, 100, 1)))
os.close(one)
show("one of two is closed", lock, two, F_OFD_SETLK, WRITE, 10, 1)
os.close(same)
show("both are closed", lock, two, F_OFD_SETLK, WRITE, 10, 1)
show("no deadlock of descriptions", lock, two, F_OFD_SETLKW, WRITE, 30, 1)
order = []


def waiter():
    own = os.open(path, os.O_RDWR)
    lock(own, F_OFD_SETLKW, WRITE, 10, 1)
    order.append(os.pread(own, 8, 0) == b"released")
    os.close(own)


thread = threading.Thread(target=waiter)
thread.start()
os.pwrite(two, b"released", 0)
lock(two, F_OFD_SETLK, UNLOCK, 10, 1)
thread.join()
print("a waiter got it:", order)
os.pwrite(two, text[:8], 0)
F_SETLEASE, F_GETLEASE, F_NOTIFY = 1024, 1025, 1026
show("lease", fcntl.fcntl, only_read, F_GETLEASE)
show("notes of a file", fcntl.fcntl, fd, F_NOTIFY, 1)
show("pipe size", fcntl.fcntl, fd, 1032)
os.close(two)

# ioctl.
for what, number, argument in (("FIONREAD", termios.FIONREAD, b"\0" * 4), ("FIGETBSZ", 2, b"\0" * 4), ("FIOQSIZE", 0x5460, b"\0" * 8), ("TCGETS", termios.TCGETS, b"\0" * 64),
                               ("TIOCGWINSZ", termios.TIOCGWINSZ, b"\0" * 8), ("FICLONE", 0x40049409, None), ("FIFREEZE", 0xC0045877, None), ("FIOASYNC", 0x5452, b"\1\0\0\0"), ("unknown", 0x12345678, b"\0" * 8)):
    for descriptor in (fd, directory, named):
        if number in (0x40049409, 0xC0045877) and descriptor != fd or number == 0xC0045877:
            continue
        if number == 0x5460 and descriptor == directory:
            continue  # how long a directory is says nothing
        os.lseek(fd, 100, os.SEEK_SET)
        show(f"ioctl {what} {names[descriptor]}", lambda: fcntl.ioctl(descriptor, number, second if argument is None else argument))
show("isatty", os.isatty, fd)
show("FIONBIO", lambda: (fcntl.ioctl(fd, termios.FIONBIO, b"\1\0\0\0"), bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)))
show("and back", lambda: (fcntl.ioctl(fd, termios.FIONBIO, b"\0\0\0\0"), bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)))
show("FIONBIO of bad memory", system_call, 16, fd, termios.FIONBIO, 8)

# Asynchronous requests: struct iocb and struct io_event of Linux.
context = ctypes.c_ulong(0)
system_call(206, 64, ctypes.byref(context))


def request(data, operation, descriptor, buffer=0, count=0, offset=0, flags=0, event=None):
    return ctypes.create_string_buffer(struct.pack(
        "QIIHhIQQqQII", data, 0, flags, operation, 0, descriptor & 0xffffffff, buffer, count, offset, 0, 1 if event is not None else 0, event or 0), 64)


def submitted(requests):
    before = [r.raw for r in requests]
    list_ = (ctypes.c_void_p * len(requests))(*[ctypes.addressof(r) for r in requests])
    result = system_call(209, context.value, len(requests), list_)
    ends = ctypes.create_string_buffer(32 * 64)
    count = system_call(208, context.value, result, 64, ends, 0)
    events = sorted(struct.unpack_from("QQqq", ends, 32 * i) for i in range(count))
    assert all(r.raw[12:] == b[12:] for r, b in zip(requests, before)), "a request has been changed"
    return result, [(data, [ctypes.addressof(r) for r in requests].index(address), result, more) for data, address, result, more in events]


space = ctypes.create_string_buffer(8192)
READ, WRITE, FSYNC, FDSYNC, POLL, READV, WRITEV = 0, 1, 2, 3, 5, 7, 8
address = ctypes.addressof(space)
show("aio read", submitted, [request(11, READ, fd, address, 4096, 100)])
print("it has read", space.raw[:4096] == text[100:4196])
show("aio short", submitted, [request(12, READ, fd, address, 4096, len(text) - 10)])
show("aio at the end", submitted, [request(12, READ, fd, address, 4096, len(text))])
space[:5] = b"async"
show("aio write, sync, read", submitted, [request(1, WRITE, second, address, 5, 2), request(2, FSYNC, second), request(3, FDSYNC, second), request(4, READ, second, address + 100, 5, 2)])
print("it has written", content(other)[:8], space[100:105])
os.pwrite(kernel, b"of the kernel's", 0)
show("aio mixed", submitted, [request(1, READ, kernel, address + 200, 15, 0), request(2, READ, fd, address, 10, 0), request(3, READ, kernel, address + 300, 2, 3), request(4, WRITE, second, address, 10, 0)])
print("it has read", space[200:215], space[300:302], space.raw[:10] == text[:10])
parts = ctypes.create_string_buffer(struct.pack("PNPN", address, 3, address + 1000, 4), 32)
show("aio vectors", submitted, [request(1, READV, fd, ctypes.addressof(parts), 2, 7), request(2, WRITEV, second, ctypes.addressof(parts), 2, 30)])
print("it has moved", content(other)[30:37] == text[7:14])
show("aio poll", submitted, [request(9, POLL, fd, select.POLLIN | select.POLLPRI)])
bell = os.eventfd(0)
show("aio with an eventfd", submitted, [request(9, READ, fd, address, 10, 0, event=bell)])
show("it has rung", os.eventfd_read, bell)
show("aio appends", submitted, [request(9, WRITE, second, address, 3, 0, flags=RWF_APPEND)])
print("it is", len(content(other)))
for what, bad in (("closed", request(1, READ, closed, address, 1)), ("written only", request(1, READ, only_written, address, 1)), ("read only", request(1, WRITE, only_read, address, 1)),
                  ("a directory", request(1, READ, directory, address, 1)), ("bad memory", request(1, WRITE, fd, 8, 10)), ("a bad operation", request(1, 99, fd, address, 1)),
                  ("before the beginning", request(1, READ, fd, address, 1, -1)), ("unknown flags", request(1, READ, fd, address, 1, 0, flags=1 << 20)), ("a sync of something", request(1, FSYNC, fd, address, 1))):
    show(f"aio {what}", submitted, [bad])
show("aio good and bad", submitted, [request(1, READ, fd, address, 1), request(2, READ, closed, address, 1), request(3, READ, fd, address, 1)])
show("aio of bad addresses", system_call, 209, context.value, 1, ctypes.byref(ctypes.c_void_p(8)))
show("aio of no context", system_call, 209, 4096, 1, ctypes.byref(ctypes.c_void_p(ctypes.addressof(space))))
system_call(207, context.value)

# POSIX AIO: threads of the C library's. struct aiocb of x86-64.
def control(descriptor, buffer, count, offset):
    block = ctypes.create_string_buffer(168)
    struct.pack_into("iiiiQQ", block, 0, descriptor, 0, 0, 0, buffer, count)
    struct.pack_into("i", block, 44, 1)  # SIGEV_NONE
    struct.pack_into("q", block, 128, offset)
    return block


def posix(call, block, *arguments):
    if call(*arguments, block) != 0:
        raise OSError(ctypes.get_errno(), "")
    libc.aio_suspend((ctypes.c_void_p * 1)(ctypes.addressof(block)), 1, None)
    return libc.aio_error(block), libc.aio_return(block)


space[:9] = b"by thread"
os.ftruncate(second, 0)
show("aio_write", posix, libc.aio_write, control(second, address, 9, 5))
show("aio_read", posix, libc.aio_read, control(second, address + 100, 100, 0))
print("it has read", space[100:114])
show("aio_fsync", posix, libc.aio_fsync, control(second, 0, 0, 0), os.O_DSYNC)
show("aio_read of what is only written", posix, libc.aio_read, control(only_written, address, 9, 0))
print("end", content(path) == text)
