# Open files over fork, exec, vfork and posix_spawn: python3 processes.py DIR HOST. Prints what it observes; HOST is a directory of the kernel's.
import ctypes, fcntl, errno, mmap, os, signal, struct, subprocess, sys, threading, time

top, host = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(top)


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child(body):
    """Runs body in a forked child; what it returns is the exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = body() or 0
        except OSError as e:
            status = 100 + e.errno
        finally:
            os._exit(status)
    return wait(pid)


def say(what, value):
    print(f"{what}: {value}")


def errno_of(call, *arguments):
    try:
        return call(*arguments)
    except OSError as e:
        return errno.errorcode[e.errno]


def python(code, *arguments, fds=(), **more):
    """Another program that has these descriptors; what it prints."""
    done = subprocess.run([sys.executable, "-c", "import os,sys,fcntl,errno\n" + code, *map(str, arguments)], pass_fds=fds, capture_output=True, text=True, **more)
    return done.stdout.strip() + ("" if done.returncode == 0 else f" status {done.returncode} {done.stderr.strip()[-200:]}")


# Offsets and flags are shared.
fd = os.open("shared", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(fd, b"one ")
say("child writes", child(lambda: os.write(fd, b"two ") - 4))
os.write(fd, b"three ")
say("content", os.pread(fd, 100, 0))
say("child seeks", child(lambda: os.lseek(fd, 3, os.SEEK_SET) - 3))
say("offset", os.lseek(fd, 0, os.SEEK_CUR))
say("child sets O_APPEND", child(lambda: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)))
say("append", bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND))
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
say("grandchild writes", child(lambda: child(lambda: os.write(fd, b"X") - 1)))
say("offset", os.lseek(fd, 0, os.SEEK_CUR))

# What the child does to its descriptors is its own affair.
say("child closes", child(lambda: os.close(fd)))
say("still open", os.fstat(fd).st_size)


def anew():
    os.close(fd)
    other = os.open("of the child", os.O_WRONLY | os.O_CREAT, 0o600)
    return 0 if other == fd and os.write(other, b"child") == 5 else 1


say("child opens anew", child(anew))
say("child's file", open("of the child").read())
say("content", os.pread(fd, 100, 0))
say("dup2 in a child", child(lambda: os.dup2(fd, 200) - 200))
say("200 here", errno_of(os.fstat, 200))

# A file without a name, a directory, a path descriptor.
gone = os.open("gone", os.O_RDWR | os.O_CREAT, 0o600)
os.write(gone, b"no name")
os.unlink("gone")
say("unlinked, in a child", child(lambda: 0 if os.pread(gone, 9, 0) == b"no name" else 1))
os.makedirs("dir/below", exist_ok=True)
directory = os.open("dir", os.O_RDONLY)
say("names in a child", child(lambda: 0 if os.listdir(directory) == ["below"] and os.stat("below", dir_fd=directory) else 1))
say("fchdir in a child", child(lambda: os.fchdir(directory) or (0 if os.path.basename(os.getcwd()) == "dir" else 1)))
say("here", os.path.basename(os.getcwd()) == os.path.basename(top))
os.chdir("dir")
os.rename("../dir", "../moved")
say("a moved working directory in a child", child(lambda: 0 if os.path.basename(os.getcwd()) == "moved" and os.listdir(".") == ["below"] else 1))
say("and in another program", python("print(os.path.basename(os.getcwd()), os.listdir('.'))"))
os.chdir("..")

# Parents that go first.
reading, writing = os.pipe()
os.set_inheritable(reading, True)


def parent_goes():
    os.lseek(fd, 0, os.SEEK_SET)
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.05)
    os.write(writing, os.read(fd, 3))
    os._exit(0)


say("parent goes first", child(parent_goes))
say("the orphan reads", os.read(reading, 3))
flocked = os.open("lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(flocked, fcntl.LOCK_EX)
other = os.open("lock", os.O_RDWR)
pid = os.fork()
if pid == 0:
    os.read(reading, 1)
    os._exit(0)
os.close(flocked)
say("flock held by the child", errno_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB))
os.write(writing, b".")
say("child", wait(pid))
say("flock after it", errno_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB))
fcntl.flock(other, fcntl.LOCK_UN)

# Record locks belong to the process: not to children, but to the next program.
record = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)
fcntl.fcntl(fd, fcntl.F_SETLK, record)
say("record lock in a child", child(lambda: 0 if errno_of(fcntl.fcntl, fd, fcntl.F_SETLK, record) in ("EAGAIN", "EACCES") else 1))


def lock_and_exec():
    mine = os.open("records", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.fcntl(mine, fcntl.F_SETLK, record)
    os.set_inheritable(mine, True)
    os.execv(sys.executable, [sys.executable, "-c", "import os\nos.read(%d, 1)" % reading])


pid = os.fork()
if pid == 0:
    lock_and_exec()
asking = os.open("records", os.O_RDWR | os.O_CREAT, 0o600)
for _ in range(1000):
    answer = struct.unpack("hhqqi4x", fcntl.fcntl(asking, fcntl.F_GETLK, record))
    if answer[0] != fcntl.F_UNLCK:
        break
    time.sleep(0.005)
time.sleep(0.2)
answer = struct.unpack("hhqqi4x", fcntl.fcntl(asking, fcntl.F_GETLK, record))
say("record lock after exec", answer[0] == fcntl.F_WRLCK and answer[4] == pid)
os.write(writing, b".")
say("that program", wait(pid))
say("record lock after it", struct.unpack("hhqqi4x", fcntl.fcntl(asking, fcntl.F_GETLK, record))[0] == fcntl.F_UNLCK)

# exec: what stays, what goes.
os.lseek(fd, 0, os.SEEK_SET)
stays, goes = os.dup(fd), os.dup(fd)
os.set_inheritable(stays, True)
say("through exec", python("fd=int(sys.argv[1])\nprint(os.read(fd,4), os.fstat(fd).st_size, os.lseek(fd,0,1))", stays, fds=[stays]))
say("offset after it", os.lseek(fd, 0, os.SEEK_CUR))
say("close-on-exec", python("try:\n os.fstat(int(sys.argv[1]))\nexcept OSError as e:\n print(errno.errorcode[e.errno])", goes))
with open("out", "w") as out, open("shared") as given:
    say("cat", subprocess.run(["cat"], stdin=given, stdout=out, stderr=out).returncode)
say("out", open("out").read())
say("shell", subprocess.run("exec 7>seven; echo seven >&7; sh -c 'echo eight >&7'; (echo nine >&7); exec 7>&-; cat seven", shell=True, capture_output=True, text=True).stdout)
say("sh -c with a here-document", subprocess.run(["sh", "-c", "cat <<E >doc\nline\nE\ncat doc"], capture_output=True, text=True).stdout)
with open("log", "a") as log:
    for word in ("a", "b", "c"):
        subprocess.run(["echo", word], stdout=log)
        log.write(word.upper())
        log.flush()
say("log", open("log").read())
many = [os.open("shared", os.O_RDONLY) for _ in range(200)]
say("200 descriptors", python("print(sum(os.pread(int(f),1,0)==b'o' for f in sys.argv[1:]))", *many, fds=many))
for number in many:
    os.close(number)
flocked = os.open("lock", os.O_RDWR)
fcntl.flock(flocked, fcntl.LOCK_EX)
say("flock through exec", python("print(os.fstat(int(sys.argv[1])).st_size)", flocked, fds=[flocked]))
say("flock after it", errno_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB))
os.close(flocked)
say("flock given up", errno_of(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB))

# A chain of programs, of which only the last uses the file.
say("a chain", subprocess.run(["env", "nice", "sh", "-c", "exec sh -c 'exec cat'"], stdin=open("out"), capture_output=True, text=True).stdout)
say("an empty environment", subprocess.run(["env", "-i", "cat", top + "/out"], capture_output=True, text=True).stdout)
say("an empty environment, inherited", subprocess.run(["env", "-i", "/bin/sh", "-c", "cat; pwd >&2; exec env -i cat out"], stdin=open("out"), capture_output=True, text=True).stdout)

# posix_spawn and its actions, vfork.
actions = [
    (os.POSIX_SPAWN_OPEN, 1, "spawned", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
    (os.POSIX_SPAWN_DUP2, fd, 0),
    (os.POSIX_SPAWN_DUP2, 1, 2),
    (os.POSIX_SPAWN_CLOSE, fd),
]
os.lseek(fd, 0, os.SEEK_SET)
say("posix_spawn", wait(os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=actions)))
say("spawned", open("spawned").read())
say("here fd is open, and at its end", os.lseek(fd, 0, os.SEEK_CUR) == os.fstat(fd).st_size)
say("posix_spawn of nothing", errno_of(os.posix_spawn, "/nonexistent", ["x"], os.environ))
say("posix_spawn into a missing directory", errno_of(os.posix_spawn, "/bin/true", ["x"], os.environ, ) is not None)
missing = [(os.POSIX_SPAWN_OPEN, 1, "no/such", os.O_WRONLY | os.O_CREAT, 0o644)]
say("posix_spawn with an action that fails", errno_of(lambda: os.posix_spawn("/bin/true", ["true"], os.environ, file_actions=missing)))
say("descriptors after it", sorted(set(int(n) for n in os.listdir("/proc/self/fd")))[:3] == [0, 1, 2])
for _ in range(50):
    subprocess.run(["true"], stdin=open("out"))
say("popen", os.popen("cat out; echo $?").read())

# Threads that spawn at once.
results = []


def spawn(number):
    with open(f"thread{number}", "w+") as mine:
        for _ in range(10):
            subprocess.run(["echo", str(number)], stdout=mine)
        mine.seek(0)
        results.append(mine.read() == f"{number}\n" * 10)


threads = [threading.Thread(target=spawn, args=(n,)) for n in range(6)]
for t in threads:
    t.start()
for t in threads:
    t.join()
say("threads", results)

# Programs that lie here.
open("script", "w").write("#!/bin/sh -e\necho \"$0 $1\"\nexec cat\n")
os.chmod("script", 0o755)
say("script", subprocess.run(["./script", "x"], stdin=open("out"), capture_output=True, text=True).stdout)
say("script by its path", subprocess.run([top + "/script", "y"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.replace(top, "@"))
open("interpreted", "w").write(f"#!{top}/script arg\n")
os.chmod("interpreted", 0o755)
say("a script's script", subprocess.run(["./interpreted"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.replace(top, "@"))
open("loop", "w").write(f"#!{top}/loop\n")
os.chmod("loop", 0o755)
say("a script that is its own interpreter", errno_of(lambda: subprocess.run(["./loop"]).returncode) in ("ELOOP", "ENOEXEC"))
open("binary", "wb").write(open("/bin/echo", "rb").read())
say("not executable", errno_of(lambda: subprocess.run(["./binary"]).returncode))
os.chmod("binary", 0o755)
say("a program", subprocess.run(["./binary", "from here"], capture_output=True, text=True).stdout)
say("by execveat", child(lambda: os.execve(os.open("binary", os.O_RDONLY), ["echo"], os.environ) and 1))
os.symlink("/bin/echo", "link")
say("by a link that leads out", subprocess.run(["./link", "out"], capture_output=True, text=True).stdout)
say("a directory", errno_of(lambda: subprocess.run(["./moved"]).returncode))
open("text", "w").write("echo no interpreter\n")
os.chmod("text", 0o755)
say("no format", errno_of(os.execv, "./text", ["text"]))
say("in a shell", subprocess.run(["sh", "-c", "./text"], capture_output=True, text=True).stdout)
say("in PATH", subprocess.run(["sh", "-c", "binary in path"], env=dict(os.environ, PATH=top + ":/bin"), capture_output=True, text=True).stdout)

# Everything is closed.
say("closefrom", child(lambda: os.closerange(3, 4096) or (0 if open("out").read() else 1)))
say("and then a program", child(lambda: os.closerange(0, 4096) or os.execv("/bin/sh", ["sh", "-c", f"exec <out >closed; cat"])))
say("closed", open("closed").read() == open("out").read())

# Files by what /proc says of their descriptors.
say("/dev/stdin", subprocess.run(["cat", "/dev/stdin"], stdin=open("out"), capture_output=True, text=True).stdout)
say("/dev/fd", open(f"/dev/fd/{os.open('out', os.O_RDONLY)}").read())
again = os.open(f"/proc/self/fd/{os.open('out', os.O_PATH)}", os.O_RDWR)
say("opened anew, for writing", os.pwrite(again, b"OUT", 0) and open("out").read())
say("a directory anew", os.listdir(os.open(f"/proc/self/fd/{os.open('moved', os.O_PATH)}", os.O_RDONLY)))
say("exclusively", errno_of(os.open, f"/proc/self/fd/{again}", os.O_CREAT | os.O_EXCL | os.O_RDWR))
say("a link itself", errno_of(os.open, f"/proc/self/fd/{os.open('link', os.O_PATH | os.O_NOFOLLOW)}", os.O_RDONLY))
say("truncated", os.open(f"/proc/self/fd/{again}", os.O_RDWR | os.O_TRUNC) > 0 and os.stat("out").st_size)

# From a directory above, name by name.
target = os.path.dirname(top)
above = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
there = os.open(os.path.basename(target), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
say("walked", os.path.samestat(os.fstat(there), os.stat(target)), )
say("seen from above", os.path.samestat(os.stat(os.path.basename(target), dir_fd=above, follow_symlinks=False), os.stat(target)))
say("and below", os.path.samestat(os.stat(f"{os.path.basename(target)}/{os.path.basename(top)}", dir_fd=above), os.stat(top)))

# Record locks go with a close of a descriptor of the file, and with nothing else.
locked = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(locked, 4096)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
memory = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, locked, 0)
os.close(locked)
locked = os.open("mapped", os.O_RDWR)
fcntl.fcntl(locked, fcntl.F_SETLK, record)


def is_locked(name):
    asking = os.open(name, os.O_RDONLY)
    answer = struct.unpack("hhqqi4x", fcntl.fcntl(asking, fcntl.F_GETLK, record))
    return 0 if answer[0] != fcntl.F_UNLCK and answer[4] == os.getppid() else 1


libc.munmap(ctypes.c_void_p(memory), ctypes.c_size_t(4096))
say("locked after munmap", child(lambda: is_locked("mapped")))
os.close(os.open("mapped", os.O_PATH))
say("locked after the close of a path", child(lambda: is_locked("mapped")))
os.close(os.open("mapped", os.O_RDONLY))
say("locked after a close", child(lambda: is_locked("mapped")))
os.mkdir("locked")
directory = os.open("locked", os.O_RDONLY)
fcntl.fcntl(directory, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
os.chdir("locked")
os.chdir("..")
say("a directory, after it was the working directory", child(lambda: is_locked("locked")))
os.chmod("binary", 0o755)
program = os.open("binary", os.O_RDWR)
fcntl.fcntl(program, fcntl.F_SETLK, record)
os.set_inheritable(program, False)
say("a program that is run", child(lambda: is_locked("binary")))

# A child on a stack of its own, with a copy of the memory: clone(2) as the C library has it.
stack = mmap.mmap(-1, 1 << 20)
stack_top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20) - 64
beside = os.open("cloned", os.O_RDWR | os.O_CREAT, 0o600)
os.write(beside, b"parent ")


def clone(body):
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: body())
    libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    pid = libc.clone(ctypes.cast(function, ctypes.c_void_p), stack_top, signal.SIGCHLD, None)
    return wait(pid)


say("cloned", clone(lambda: os.write(beside, b"child ") - 6 + len(os.listdir(top)) * 0))
os.write(beside, b"parent")
say("cloned wrote", os.pread(beside, 100, 0))
say("cloned makes", clone(lambda: os.close(os.open("by a clone", os.O_CREAT)) or 0))
say("made", os.path.exists("by a clone"))
fcntl.fcntl(beside, fcntl.F_SETLK, record)
say("a clone has no record locks", clone(lambda: 0 if errno_of(fcntl.fcntl, beside, fcntl.F_SETLK, record) in ("EAGAIN", "EACCES") else 1))
