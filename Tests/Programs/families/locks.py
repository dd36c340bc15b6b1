"""Locks between processes. Each child is forked before its parent opens anything of the directory, and opens the file itself.

Before the holder lets go, it writes "released" into the file; whoever gets the lock must read it. So the outcome is the same whenever the waiter
arrives, and a lock given too early is seen.
"""
import ctypes, errno, fcntl, os, signal, struct, sys, threading

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


# Waits for locks and signals: a handler ends the wait (EINTR), and one that was set with SA_RESTART does not.
libc = ctypes.CDLL(None, use_errno=True)
F_OFD_SETLKW = 38


def wait_for(kind, fd):
    """The C call itself, which Python does not repeat; 0 or an errno."""
    if kind == "flock":
        result = libc.flock(fd, fcntl.LOCK_EX)
    else:
        lock = ctypes.create_string_buffer(struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 100, 0))
        result = libc.fcntl(fd, ctypes.c_int(fcntl.F_SETLKW if kind == "lockf" else F_OFD_SETLKW), lock)
    return ctypes.get_errno() if result < 0 else 0


def signalled(kind, restarts, bell):
    def body(wait, say):
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        signal.siginterrupt(signal.SIGUSR1, not restarts)
        signal.set_wakeup_fd(bell)  # told by the handler itself, whatever waits
        wait()
        fd = os.open(path, os.O_RDWR)
        say("waiting")
        result = wait_for(kind, fd)
        say("got it" if result == 0 else errno.errorcode[result])
    return body


for kind in ("lockf", "ofd", "flock"):
    for restarts in (False, True):
        heard, bell = os.pipe()
        os.set_blocking(bell, False)
        pid, tell, hear = child(signalled(kind, restarts, bell))
        fd = os.open(path, os.O_RDWR)
        take("flock" if kind == "flock" else "lockf", fd, fcntl.LOCK_EX)
        tell()
        ok(f"{kind}: it waits for the lock", hear() == "waiting")
        if restarts:
            for _ in range(50):
                os.kill(pid, signal.SIGUSR1)
                os.read(heard, 1)
            os.close(fd)
            ok(f"{kind}: 50 handlers later it has the lock", hear() == "got it")
        else:
            # Before it waits, a signal ends nothing: so they come until one has.
            said = []
            thread = threading.Thread(target=lambda: said.append(hear()))
            thread.start()
            while not said:
                os.kill(pid, signal.SIGUSR1)
                thread.join(0.01)
            ok(f"{kind}: a handler has ended its wait", said == ["EINTR"])
            os.close(fd)
        os.waitpid(pid, 0)
        os.close(heard)
        os.close(bell)
