# Sockets and pipes of the volume belong to the node's owner, and others reach them as its mode says. As root, with a volume that users 1000 and 2000 may use: socket_users.py DIRECTORY
import errno, os, socket, sys

place = sys.argv[1] + "/shared"
os.mkdir(place)
os.chmod(place, 0o1777)
os.chdir(place)
wrong = 0


def as_user(user, call, *arguments):
    """What the call says in a child with another identity: 0, or an errno."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        try:
            call(*arguments)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def expect(what, seen, expected):
    global wrong
    if seen != expected:
        wrong += 1
        print(f"{what}: {errno.errorcode.get(seen, seen)} instead of {errno.errorcode.get(expected, expected)}")


def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)


def bind(path):
    socket.socket(socket.AF_UNIX).bind(path)


def open_pipe(path, flags=os.O_RDWR):
    os.close(os.open(path, flags))


server = socket.socket(socket.AF_UNIX)
server.bind("roots")
server.listen(16)
for mode, other in ((0o777, 0), (0o766, 0), (0o755, errno.EACCES), (0o600, errno.EACCES)):
    os.chmod("roots", mode)
    expect(f"a socket with mode {mode:o}", as_user(1000, connect, "roots"), other)
    expect("root's own", as_user(0, connect, "roots"), 0)
expect("another's name", as_user(1000, bind, "roots"), errno.EADDRINUSE)
os.mkdir("closed", 0o700)
os.chmod("roots", 0o777)
os.rename("roots", "closed/roots")
expect("in a directory that is closed", as_user(1000, connect, "closed/roots"), errno.EACCES)
expect("a user's socket", as_user(1000, bind, "users"), 0)
expect("whose binder has gone", as_user(2000, connect, "users"), errno.EACCES)
expect("for root", as_user(0, connect, "users"), errno.ECONNREFUSED)

os.mkfifo("pipe", 0o600)
expect("a pipe of root's", as_user(1000, open_pipe, "pipe"), errno.EACCES)
os.chmod("pipe", 0o644)
expect("to be read", as_user(1000, open_pipe, "pipe", os.O_RDONLY | os.O_NONBLOCK), 0)
expect("to be written", as_user(1000, open_pipe, "pipe", os.O_WRONLY | os.O_NONBLOCK), errno.EACCES)
held = os.open("pipe", os.O_RDWR)
os.chmod("pipe", 0o666)


def answer():
    pipe = os.open("pipe", os.O_RDWR)
    if os.read(pipe, 10) != b"question":
        raise OSError(errno.EIO, "")
    os.write(pipe, b"answer")


os.write(held, b"question")
expect("a user reads what root has written", as_user(2000, answer), 0)
expect("and root the answer", os.read(held, 10) == b"answer", True)
print("PASS" if wrong == 0 else "FAIL", "socket_users")
sys.exit(wrong > 0)
