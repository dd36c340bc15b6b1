"""Locks between processes. Each child is forked before its parent opens anything of the directory, and opens the file itself.

Before the holder lets go, it writes "released" into the file; whoever gets the lock must read it. So the outcome is the same whenever the waiter
arrives, and a lock given too early is seen.
"""
import errno, fcntl, os, signal, sys

path = os.path.join(sys.argv[1], "file")


def ok(what, truth):
    print("ok:" if truth else "WRONG:", what, flush=True)
    if not truth:
        sys.exit(1)


def child(body):
    """A process that runs the body when told to, and prints to a pipe; returns (pid, tell, hear)."""
    tell_read, tell_write = os.pipe()
    hear_read, hear_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell_write)
        os.close(hear_read)
        signal.alarm(60)
        try:
            body(lambda: os.read(tell_read, 1), lambda text: os.write(hear_write, text.encode().ljust(16)))
        finally:
            os._exit(0)
    os.close(tell_read)
    os.close(hear_write)
    return pid, lambda: os.write(tell_write, b"."), lambda: os.read(hear_read, 16).decode().strip()


def take(kind, fd, how):
    if kind == "flock":
        fcntl.flock(fd, how)
    else:
        fcntl.lockf(fd, how, 100, 0)


def waiter(kind):
    def body(wait, say):
        wait()
        fd = os.open(path, os.O_RDWR)
        try:
            take(kind, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say("not refused")
        except OSError as e:
            say("refused" if e.errno in (errno.EAGAIN, errno.EACCES) else errno.errorcode[e.errno])
        wait()
        say("waiting")
        take(kind, fd, fcntl.LOCK_EX)
        say(os.pread(fd, 8, 0).decode())
    return body


def holder(kind):
    def body(wait, say):
        fd = os.open(path, os.O_RDWR)
        take(kind, fd, fcntl.LOCK_EX)
        say("holding")
        wait()
        os.pwrite(fd, b"released", 0)
        say("written")
        wait()
        signal.pause()
    return body


for kind in ("lockf", "flock"):
    for end in ("unlock", "close", "exit", "kill"):
        waits, tell_waiter, hear_waiter = child(waiter(kind))
        if end in ("exit", "kill"):  # the holder is another process, which ends
            with open(path, "w") as f:
                f.write("held    ")
            holds, tell_holder, hear_holder = child(holder(kind))
            ok(f"{kind}: held by another process", hear_holder() == "holding")
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.pwrite(fd, b"held    ", 0)
            take(kind, fd, fcntl.LOCK_EX)
        tell_waiter()
        ok(f"{kind}: a second is refused", hear_waiter() == "refused")
        tell_waiter()
        ok(f"{kind}: it waits", hear_waiter() == "waiting")
        if end in ("exit", "kill"):
            tell_holder()
            ok(f"{kind}: the holder has written", hear_holder() == "written")
            os.kill(holds, signal.SIGKILL if end == "kill" else signal.SIGTERM)
            os.waitpid(holds, 0)
        else:
            os.pwrite(fd, b"released", 0)
            if end == "unlock":
                take(kind, fd, fcntl.LOCK_UN)
            else:
                os.close(fd)
        ok(f"{kind}: after {end} it has the lock", hear_waiter() == "released")
        os.waitpid(waits, 0)
        if end == "unlock":
            os.close(fd)

# Closing any descriptor of the file drops the process's record locks on it (POSIX), and does not drop a flock.
for kind, result in (("lockf", "not refused"), ("flock", "refused")):
    def probe(wait, say, kind=kind):
        wait()
        fd = os.open(path, os.O_RDWR)
        try:
            take(kind, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            say("not refused")
        except OSError:
            say("refused")
    pid, tell, hear = child(probe)
    fd = os.open(path, os.O_RDWR)
    take(kind, fd, fcntl.LOCK_EX)
    os.close(os.open(path, os.O_RDONLY))
    tell()
    ok(f"{kind}: closing another descriptor of the file", hear() == result)
    os.waitpid(pid, 0)
    os.close(fd)


# Two that wait for each other: one is told EDEADLK.
def second(wait, say):
    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
    say("has 1")
    wait()
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
        say("got")
    except OSError as e:
        say("deadlock" if e.errno == errno.EDEADLK else e.strerror[:16])


pid, tell, hear = child(second)
fd = os.open(path, os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
ok("the other has its lock", hear() == "has 1")
tell()
try:
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
    mine = "got"
except OSError as e:
    mine = "deadlock" if e.errno == errno.EDEADLK else e.strerror
os.close(fd)
ok("a deadlock is found, by one of the two", sorted((mine, hear())) == ["deadlock", "got"])
os.waitpid(pid, 0)
