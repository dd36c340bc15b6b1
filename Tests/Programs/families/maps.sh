# Programs that map their files: python's mmap module, sqlite3 with mmap_size and with a WAL whose index is a shared map, git, a library loaded from the volume.
. "$(dirname "$0")/lib.sh"

check "python: stores, flush, resize, find, anonymous copies" python3 - "$T" <<'P'
import mmap, os, sys
path = sys.argv[1] + "/bytes"
with open(path, "w+b") as file:
    file.write(bytes(range(256)) * 100)
    file.flush()
    with mmap.mmap(file.fileno(), 0) as shared, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as copied:
        shared[5000:5003] = b"xxx"
        copied[0:3] = b"abc"
        shared.flush(4096, 4096)
        file.seek(4998)
        assert file.read(7) == bytes([4998 % 256, 4999 % 256]) + b"xxx" + bytes([5003 % 256, 5004 % 256])
        assert copied[0:3] == b"abc" and shared[0:3] == b"\0\1\2" and copied[5000:5003] == b"xxx"
        assert shared.find(b"xxx") == 5000 and len(shared) == 25600 and shared.size() == 25600
        os.pwrite(file.fileno(), b"written", 20000)
        assert shared[20000:20007] == b"written"
        shared.move(0, 20000, 7)
    with mmap.mmap(file.fileno(), 0) as shared:
        shared.resize(50000)
        shared[49999] = 65
        assert os.fstat(file.fileno()).st_size == 50000 and shared[25600:25700] == bytes(100)
    child = os.fork()
    if child == 0:
        with open(path, "r+b") as own, mmap.mmap(own.fileno(), 0) as shared:
            shared[30000:30005] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    file.seek(30000)
    assert file.read(5) == b"child"
P
sha256sum "$T/bytes" | cut -c1-64

ask="SELECT count(*), sum(length(bytes)), sum(id) FROM t"
for journal in DELETE WAL; do
    db=$T/$journal.db
    check "sqlite with mmap and journal_mode=$journal" sqlite3 "$db" "PRAGMA mmap_size=268435456; PRAGMA journal_mode=$journal; CREATE TABLE t(id INTEGER PRIMARY KEY, bytes BLOB);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, zeroblob(i % 700) FROM n; DELETE FROM t WHERE id % 7 = 0;"
    sqlite3 "$db" "PRAGMA mmap_size=268435456; $ask"
    check "four writers at once" bash -c 'for i in 1 2 3 4; do
        sqlite3 -cmd ".timeout 20000" "$1" "PRAGMA mmap_size=268435456; $(for j in 1 2 3 4 5 6 7 8; do echo "INSERT INTO t(bytes) VALUES(zeroblob($j));"; done)" >/dev/null & done; wait' - "$db"
    sqlite3 "$db" "PRAGMA mmap_size=268435456; $ask"
    equal "integrity" "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok
    equal "the same without maps" "$(sqlite3 "$db" "PRAGMA mmap_size=0; $ask" | tail -n 1)" "$(sqlite3 "$db" "PRAGMA mmap_size=268435456; $ask" | tail -n 1)"
done

export GIT_AUTHOR_DATE="2026-01-01T00:00:00Z" GIT_COMMITTER_DATE="2026-01-01T00:00:00Z" GIT_CONFIG_NOSYSTEM=1 HOME=$KERNEL
git config --global user.name n
git config --global user.email n@example.com
git config --global init.defaultBranch main
check "git init" git init -q "$T/repository"
mkdir "$T/repository/source"
cp "$SOURCE"/[a-f]*.h "$T/repository/source"
check "git add" git -C "$T/repository" add -A
check "git commit" git -C "$T/repository" commit -q -m first
for file in "$T"/repository/source/c*.h; do sed -i 's/define/undef/' "$file"; done
check "git commit -a" git -C "$T/repository" commit -q -a -m second
check "git gc" git -C "$T/repository" gc -q
check "git fsck" git -C "$T/repository" fsck --strict
check "git clone" git clone -q "$T/repository" "$T/clone"
git -C "$T/clone" log --format=%H
equal "nothing changed" "$(git -C "$T/clone" status --porcelain)" ""

cp "$(python3 -c 'import zlib, sys; print(next(line.split()[-1] for line in open("/proc/self/maps") if "libz.so" in line))')" "$T/libz.so"
check "a library" python3 -c 'import ctypes, sys; assert ctypes.CDLL(sys.argv[1]).zlibCompileFlags() != 0' "$T/libz.so"
finish
