# RLIMIT_FSIZE (ulimit -f): how far a file grows, what is written of a write that passes the limit, and what comes instead of the rest.
. "$(dirname "$0")/lib.sh"
cd "$T" || exit 1
( ulimit -f 8; dd if=/dev/zero of=cut bs=1k count=20 status=none; echo "dd: $?" ) 2>/dev/null
equal "as far as the limit" "$(stat -c %s cut)" 8192
equal "by a shell" "$( (ulimit -f 8; trap '' XFSZ; cat /usr/bin/env >copied; echo $?) 2>&1 )" "cat: write error: File too large
1"
python3 - <<'END' || FAILED="python; "
import errno, os, resource, signal
signal.signal(signal.SIGXFSZ, lambda *_: print("SIGXFSZ", end=" "))
def tried(what, call, *arguments):
    try:
        print(what + ":", call(*arguments))
    except OSError as error:
        print(what + ":", errno.errorcode[error.errno])
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 16384))
file = os.open("file", os.O_RDWR | os.O_CREAT, 0o666)
tried("over the limit", os.pwrite, file, bytes(100), 8192 - 50)
tried("at it", os.pwrite, file, b"x", 8192)
tried("nothing at it", os.pwrite, file, b"", 8192)
tried("vectors", os.pwritev, file, [bytes(60), bytes(60)], 8192 - 100)
tried("longer", os.ftruncate, file, 9000)
tried("longer by name", os.truncate, "file", 9000)
tried("as long", os.ftruncate, file, 8192)
tried("shorter", os.ftruncate, file, 8000)
tried("allocated", os.posix_fallocate, file, 0, 9000)
os.lseek(file, 8100, os.SEEK_SET)
tried("by the offset", os.write, file, bytes(200))
tried("and the rest", os.write, file, bytes(108))
appended = os.open("file", os.O_WRONLY | os.O_APPEND)
os.truncate("file", 8190)
tried("appended", os.write, appended, bytes(10))
tried("no more", os.pwrite, appended, b"x", 0)
large = os.open("large", os.O_RDWR | os.O_CREAT, 0o666)
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
tried("a limit that is raised", os.pwrite, large, bytes(100), 10000)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 16384))
tried("within a longer file", os.pwrite, large, bytes(100), 5000)
tried("copied", os.copy_file_range, large, os.open("copy", os.O_RDWR | os.O_CREAT, 0o666), 8192, 0)
tried("read only", os.write, os.open("large", os.O_RDONLY), bytes(10))
if os.fork() == 0:
    tried("in a child", os.pwrite, file, bytes(100), 4090)
    os._exit(0)
os.wait()
print(os.stat("file").st_size, os.stat("large").st_size, os.stat("copy").st_size)
END
CHECKS=$((CHECKS + 1))
finish
