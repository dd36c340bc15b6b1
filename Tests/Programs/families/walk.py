"""A walk through what Python's standard library does with files. Prints each step; exits 1 at the first that is wrong."""
import errno, fcntl, hashlib, io, json, os, pathlib, shutil, stat, sys, tempfile, threading, zipfile

top, source = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


def ok(what, truth):
    print("ok:" if truth else "WRONG:", what)
    if not truth:
        sys.exit(1)


def raises(what, number, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except OSError as e:
        ok(f"{what}: {errno.errorcode.get(e.errno)}", e.errno == number)
    else:
        ok(what, False)


# io: buffered, text, raw, append, exclusive
path = top / "file"
with open(path, "w", encoding="utf-8") as f:
    for i in range(5000):
        f.write(f"line {i} äöü\n")
ok("text", path.read_text(encoding="utf-8").splitlines()[4999] == "line 4999 äöü")
with open(path, "r+b") as f:
    f.seek(100)
    f.write(b"PATCHED")
    f.seek(-5, io.SEEK_END)
    f.write(b"|")
    f.flush()
    os.fsync(f.fileno())
    f.seek(100)
    ok("read what was patched", f.read(7) == b"PATCHED")
    ok("tell", f.tell() == 107)
    ok("truncate", f.truncate(5000) == 5000)
ok("size", path.stat().st_size == 5000)
with open(path, "ab", buffering=0) as f:
    f.write(b"x" * 10)
    ok("append", f.tell() == 5010)
raises("exclusive", errno.EEXIST, open, path, "x")
raises("a directory", errno.EISDIR, open, top, "w")
raises("nothing", errno.ENOENT, open, top / "none")
raises("through a file", errno.ENOTDIR, open, path / "x")
raises("a long name", errno.ENAMETOOLONG, open, top / ("n" * 256), "w")

# os: descriptors
fd = os.open(path, os.O_RDWR)
ok("pwrite", os.pwrite(fd, b"0123456789", 3) == 10)
ok("pread", os.pread(fd, 4, 5) == b"2345")
ok("readv", os.lseek(fd, 3, os.SEEK_SET) == 3 and os.readv(fd, [bytearray(4), bytearray(6)]) == 10)
ok("preadv", os.preadv(fd, [bytearray(10)], 5005) == 5)
ok("pwritev", os.pwritev(fd, [b"ab", b"cd"], 20000) == 4)
ok("a hole reads as zeros", os.pread(fd, 100, 10000) == bytes(100))
ok("posix_fallocate", os.posix_fallocate(fd, 0, 30000) is None and os.fstat(fd).st_size == 30000)
other = os.dup(fd)
os.lseek(other, 77, os.SEEK_SET)
ok("dup shares the offset", os.lseek(fd, 0, os.SEEK_CUR) == 77)
os.close(other)
os.unlink(path)
ok("unlinked and open", os.fstat(fd).st_nlink == 0 and os.pread(fd, 4, 20000) == b"abcd")
os.close(fd)
raises("closed", errno.EBADF, os.fstat, fd)

# directories
for i in range(300):
    (top / "many").mkdir(exist_ok=True)
    (top / "many" / f"entry {i}").touch()
ok("listdir", sorted(os.listdir(top / "many")) == sorted(f"entry {i}" for i in range(300)))
with os.scandir(top / "many") as entries:
    ok("scandir", all(e.is_file(follow_symlinks=False) and e.inode() == e.stat().st_ino for e in entries))
os.makedirs(top / "a/b/c/d")
raises("rmdir of what is not empty", errno.ENOTEMPTY, os.rmdir, top / "a")
os.removedirs(top / "a/b/c/d")
ok("removedirs", not (top / "a").exists())
here = os.getcwd()
(top / "sub").mkdir()
os.chdir(top / "sub")
pathlib.Path("relative").write_bytes(b"r")
ok("chdir", (top / "sub/relative").read_bytes() == b"r" and os.path.samefile(os.getcwd(), top / "sub"))
os.chdir("..")
ok("..", os.path.exists("sub/relative"))
os.chdir(here)
directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
at = os.open("at", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=directory)
os.close(at)
ok("dir_fd", stat.S_IMODE(os.stat("at", dir_fd=directory).st_mode) == 0o640)
os.rename("at", "at2", src_dir_fd=directory, dst_dir_fd=directory)
os.symlink("at2", "soft", dir_fd=directory)
ok("symlink", os.readlink(top / "soft") == "at2" and (top / "soft").resolve() == (top / "at2").resolve())
os.link(top / "at2", top / "hard")
ok("link", os.stat(top / "hard").st_nlink == 2)
os.utime(top / "hard", ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
ok("utime", os.stat(top / "at2").st_mtime_ns == 987_654_321_012_345_678)
ok("fsync of a directory", os.fsync(directory) is None)
os.close(directory)
ok("access", os.access(top / "hard", os.R_OK) and not os.access(top / "none", os.F_OK))
ok("statvfs", os.statvfs(top).f_namemax == 255 and os.statvfs(top).f_blocks > 0)
os.replace(top / "hard", top / "sub/relative")
ok("replace", (top / "sub/relative").stat().st_size == 0)
os.setxattr(top / "at2", "user.note", b"value")
ok("xattr", os.getxattr(top / "at2", "user.note") == b"value" and "user.note" in os.listxattr(top / "at2"))

# locks
with open(top / "lock", "w") as one, open(top / "lock", "w") as two:
    fcntl.flock(one, fcntl.LOCK_EX)
    raises("flock of another description", errno.EAGAIN, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(one, fcntl.LOCK_UN)
    fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
    ok("lockf", True)

# tempfile
with tempfile.TemporaryDirectory(dir=top) as d:
    with tempfile.NamedTemporaryFile(dir=d) as f:
        f.write(b"t" * 100000)
        f.flush()
        ok("named temporary file", os.path.getsize(f.name) == 100000)
    with tempfile.TemporaryFile(dir=d) as f:
        f.write(b"u" * 100000)
        f.seek(0)
        ok("temporary file", f.read() == b"u" * 100000)
    with tempfile.SpooledTemporaryFile(max_size=10, dir=d) as f:
        f.write(b"v" * 100)
        f.seek(50)
        ok("spooled", f.read() == b"v" * 50)
ok("temporary directory is gone", not os.path.exists(d))


# shutil
def digest(tree):
    h = hashlib.sha256()
    for where, directories, files in sorted(os.walk(tree)):
        directories.sort()
        for name in sorted(files):
            full = os.path.join(where, name)
            h.update(os.path.relpath(full, tree).encode())
            h.update(pathlib.Path(full).read_bytes())
    return h.hexdigest()


shutil.copytree(source, top / "tree", symlinks=True)
ok("copytree", digest(top / "tree") == digest(source))
shutil.copytree(top / "tree", top / "tree2", symlinks=True)
ok("copytree inside", digest(top / "tree2") == digest(source))
shutil.move(top / "tree2", top / "tree3")
shutil.copy2(source / "types.h", top / "copy")
ok("copy2", (top / "copy").stat().st_mtime_ns == (source / "types.h").stat().st_mtime_ns)
ok("disk_usage", shutil.disk_usage(top).total > 0)
with zipfile.ZipFile(top / "z.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for f in sorted((top / "tree").glob("*.h"))[:80]:
        z.write(f, f.name)
with zipfile.ZipFile(top / "z.zip") as z:
    ok("zip", z.testzip() is None)
    z.extractall(top / "unzipped")
ok("unzipped", all(f.read_bytes() == (source / f.name).read_bytes() for f in (top / "unzipped").iterdir()))
(top / "j.json").write_text(json.dumps({"a": list(range(10000))}))
ok("json", json.loads((top / "j.json").read_text())["a"][9999] == 9999)
ok("rglob", len(list((top / "tree").rglob("*.h"))) == len(list(source.rglob("*.h"))))


# threads: each its own file, then all the same file by pwrite
def write_own(i):
    with open(top / f"thread{i}", "wb") as f:
        for k in range(200):
            f.write(bytes([i]) * 500)


shared = os.open(top / "shared", os.O_RDWR | os.O_CREAT)


def write_shared(i):
    for k in range(100):
        os.pwrite(shared, bytes([i]) * 64, (k * 8 + i) * 64)


for job in (write_own, write_shared):
    threads = [threading.Thread(target=job, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
ok("threads, own files", all((top / f"thread{i}").read_bytes() == bytes([i]) * 100000 for i in range(8)))
ok("threads, one file", os.pread(shared, 51200, 0) == b"".join(bytes([i]) * 64 for k in range(100) for i in range(8)))
os.close(shared)
shutil.rmtree(top / "tree")
shutil.rmtree(top / "tree3")
ok("rmtree", not (top / "tree").exists())
print("left:", *sorted(os.listdir(top)))
