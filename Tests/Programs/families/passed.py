# Prints what processes see of files that they were sent.
import array, ctypes, errno, fcntl, os, socket, struct, subprocess, sys

os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)


def say(what, value):
    print(f"{what}: {value}")


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child(body):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = body() or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def errno_of(call, *arguments):
    try:
        return call(*arguments) and 0
    except OSError as error:
        return errno.errorcode[error.errno]


def make(name, content=b"0123456789abcdef"):
    with open(name, "wb") as file:
        file.write(content)
    return os.open(name, os.O_RDWR)


def pair(kind=socket.SOCK_STREAM):
    return socket.socketpair(socket.AF_UNIX, kind)


def send(where, *descriptors, text=b"x"):
    return socket.send_fds(where, [text], list(descriptors))


def receive(where, most=8, flags=0):
    numbers = array.array("i")
    for _, _, data in where.recvmsg(100, socket.CMSG_LEN(4 * most), flags)[1]:
        numbers.frombytes(data)
    return list(numbers)


for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM), ("packets", socket.SOCK_SEQPACKET)):
    here, there = pair(kind)
    file = make("one")
    os.read(file, 4)
    send(here, file)
    (got,) = receive(there)
    say(f"{name}: another number", got != file)
    say(f"{name}: same file", os.path.samestat(os.fstat(got), os.fstat(file)))
    say(f"{name}: one offset", (os.read(got, 3), os.read(file, 3), os.lseek(got, 0, os.SEEK_CUR)))
    os.close(file)
    say(f"{name}: after the sender's close", (os.read(got, 2), os.write(got, b"NEW"), os.pread(got, 16, 0)))
    os.close(got)
    say(f"{name}: closed", errno_of(os.fstat, got))

# Closed before it is received, again and again: a close that is under way must not take the new one with it.
here, there = pair()
for number in range(200):
    file = make("two", b"%d" % number)
    send(here, file)
    os.close(file)
    (got,) = receive(there)
    if os.read(got, 10) != b"%d" % number:
        say("lost", number)
    os.close(got)
say("closed before it is received", "ok")

# Flags go with it, and descriptors of the kernel beside it.
reader, writer = os.pipe()
appending = os.open("three", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
path = os.open("three", os.O_PATH)
send(here, appending, writer, directory, path)
got = receive(there)
say("four of them", len(got))
mask = os.O_ACCMODE | os.O_APPEND | os.O_PATH
say("flags", [oct(fcntl.fcntl(number, fcntl.F_GETFL) & mask) for number in got])
os.write(got[0], b"more")
os.write(got[1], b"pipe")
say("pipe", os.read(reader, 10))
say("reading what is for writing", errno_of(os.read, got[0], 1))
say("a path is no file", errno_of(os.read, got[3], 1))
say("a directory", (os.stat("three", dir_fd=got[2]).st_size, "three" in os.listdir(got[2])))
os.fchdir(got[2])
say("inheritable", [os.get_inheritable(number) for number in got])
for number in got + [reader, writer, directory, path, appending]:
    os.close(number)

file = make("four")
send(here, file)
(got,) = receive(there, flags=socket.MSG_CMSG_CLOEXEC)
say("close on exec", os.get_inheritable(got))
os.close(got)
send(here, file)
peeked = receive(there, flags=socket.MSG_PEEK)
got = receive(there)
os.read(peeked[0], 5)
say("peeked at", (len(peeked), os.read(got[0], 3)))
for number in peeked + got:
    os.close(number)

# Room for one of two; a number that is none.
send(here, file, file)
text, control, state, _ = there.recvmsg(10, socket.CMSG_LEN(4))
one = array.array("i", control[0][2][:4])[0]
say("cut off", (bool(state & socket.MSG_CTRUNC), os.pread(one, 4, 0)))
os.close(one)
say("not open", errno_of(send, here, 777))
os.close(file)
say("closed", errno_of(send, here, file))

# Between processes. The receiver's is the sender's, also when that has gone.
file = make("five")
here, there = pair()


def reads():
    (mine,) = receive(there)
    os.read(mine, 5)
    os.write(mine, b"CHILD")
    fcntl.flock(mine, fcntl.LOCK_EX)
    return 0


pid = child(reads)
late = make("six")
send(here, late)
say("child", wait(pid))
say("what it did", (os.read(late, 3), os.pread(late, 20, 0)))
say("its lock is ours", errno_of(fcntl.flock, os.open("six", os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB))
os.close(late)


def gives():
    mine = os.open("seven", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(mine, b"left behind")
    os.unlink("seven")
    send(here, mine)
    return 0


say("a giver that ends", wait(child(gives)))
(got,) = receive(there)
say("what it left", (os.pread(got, 20, 0), os.fstat(got).st_nlink))
os.close(got)

# A program that has nothing to do with these files but what it is sent.
program = """
import os, socket, sys
there = socket.socket(fileno=int(sys.argv[1]))
_, found, _, _ = socket.recv_fds(there, 10, 4)
print("a program:", os.read(found[0], 4), os.pread(found[0], 20, 0))
os.write(found[0], b"program")
os.chdir("/")
there.send(b"done")
there.recv(1)
print("and again:", os.read(found[0], 9))
"""
sys.stdout.flush()
running = subprocess.Popen([sys.executable, "-c", program, str(there.fileno())], pass_fds=[there.fileno()], cwd="/")
send(here, file)
here.recv(10)
say("from the program", os.pread(file, 30, 0))
os.lseek(file, 2, os.SEEK_SET)
os.close(file)
here.send(b"x")
say("program", running.wait())

# Many at once, and over several messages of one call.
here, there = pair()
files = [make(f"many{number}", b"%03d" % number) for number in range(100)]
send(here, *files)
for number in files:
    os.close(number)
got = receive(there, 100)
say("many", (len(got), b"".join(os.read(number, 3) for number in got) == b"".join(b"%03d" % number for number in range(100))))
for number in got:
    os.close(number)


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("parts", ctypes.POINTER(Part)), ("count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int), ("unused", ctypes.c_int), ("length", ctypes.c_uint), ("rest", ctypes.c_uint)]


here, there = pair(socket.SOCK_DGRAM)
files = [make(f"few{number}", b"few%d" % number) for number in range(3)]
texts, controls = [], []


def headers(descriptors):
    made = (Header * 3)()
    for index in range(3):
        control = ctypes.create_string_buffer(struct.pack("QiiiI", 20, 1, 1, descriptors[index], 0), 24)
        text = ctypes.create_string_buffer(b"text", 10)
        part = Part(ctypes.cast(text, ctypes.c_char_p), 4)
        controls.append((control, text, part))
        made[index] = Header(None, 0, ctypes.pointer(part), 1, ctypes.cast(control, ctypes.c_void_p), 24, 0, 0, 0, 0)
    return made


sent = headers(files)
say("sendmmsg", (libc.sendmmsg(here.fileno(), sent, 3, 0), [sent[index].length for index in range(3)]))
back = headers([-1, -1, -1])
say("recvmmsg", (libc.recvmmsg(there.fileno(), back, 3, 0, None), [back[index].length for index in range(3)]))
got = [struct.unpack("QiiiI", controls[3 + index][0].raw)[3] for index in range(3)]
say("what they were", [os.read(number, 9) for number in got])

# What /proc calls them.
top = os.getcwd()


def name_of(number, process="self"):
    return os.readlink(f"/proc/{process}/fd/{number}").replace(top, "TOP")


os.makedirs("tree/deep")
file = make("tree/deep/file")
say("names", (name_of(file), name_of(file, os.getpid()), name_of(os.open("tree", os.O_RDONLY))))
say("by descriptor", os.path.realpath(f"/dev/fd/{file}").replace(top, "TOP"))
os.rename("tree/deep/file", "tree/deep/another")
os.rename("tree/deep", "tree/moved")
say("renamed", name_of(file))
os.unlink("tree/moved/another")
say("unlinked", name_of(file).endswith(" (deleted)"))
os.chdir("tree")
say("cwd", os.readlink("/proc/self/cwd").replace(top, "TOP"))
