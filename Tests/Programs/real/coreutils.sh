# coreutils, findutils and util-linux as an administrator uses them: copies, moves, listings, sorting with files for what does not fit
# into memory, splitting, sums, durable writes, locks between processes.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"

mkdir -p source/sub/deep source/empty
for i in $(seq 1 60); do head -c $((i * 997)) /usr/bin/bash >"source/f$i"; done
cp /usr/bin/bash source/sub/program
ln source/f1 source/sub/hard
ln -s ../f2 source/sub/soft
chmod 640 source/f3
touch -d '2003-02-01 01:02:03.456' source/f4
truncate -s 3M source/hole

must "cp -a" cp -a source copy
must "diff -r" diff -r --no-dereference source copy
same "cp -a keeps everything" "$(tree copy)" "$(tree source)"
must "cp --reflink=auto --sparse=always" cp --sparse=always source/hole thin
same "cp --sparse=always" "$(stat -c '%s' thin) $(($(stat -c %b thin) < 100))" "3145728 1"
must "cp -u does nothing" cp -au source/. copy/
must "cp to the kernel's side" cp -a copy "$K/copy"
must "cp back" cp -a "$K/copy" back
same "there and back" "$(tree back)" "$(tree source)"
must "mv within" mv copy moved
must "mv to the kernel's side" mv moved "$K/moved"
must "mv back" mv "$K/moved" moved
same "moved twice" "$(tree moved)" "$(tree source)"
refused "mv into itself" mv moved moved/sub
must "mv over a file" mv moved/f5 moved/f6
must "mv --exchange by three" bash -c 'mv moved/f7 moved/x && mv moved/f8 moved/f7 && mv moved/x moved/f8 && cmp moved/f7 source/f8 && cmp moved/f8 source/f7'
same "ls -lR" "$(ls -lR source | grep -c '^-')" 63
same "ls sorted by size" "$(ls -S source | head -n 1)" hole
same "ls --time" "$(ls -l --time-style=+%Y source/f4 | cut -d' ' -f6)" 2003
same "du of apparent sizes" "$(du -b --exclude=sub source/f10 | cut -f1)" 9970
[ "$(du -s source | cut -f1)" -ge 1800 ] || fail "du: $(du -s source)"
same "du counts a hard link once" "$(du -l -c source/f1 source/sub/hard | tail -n 1 | cut -f1)" "$(($(du source/f1 | cut -f1) * 2))"
read -r blocks free < <(df --output=size,avail -k "$T" | tail -n 1)
[ "$blocks" -ge "$free" ] && [ "$free" -gt 1000 ] || fail "df: $blocks $free"
same "df -i" "$(df -i "$T" | wc -l)" 2
same "stat -f" "$(stat -f -c %S "$T")" 4096

same "find -exec" "$(find source -type f -size +50k -exec basename {} \; | sort | head -n 2 | tr '\n' ' ')" "f52 f53 "
same "find -exec +" "$(find source -name 'f?' -exec cat {} + | wc -c)" 44865
same "find -newer, -links, -perm, -samefile" "$(find source -newer source/f4 -links +1 -type f | wc -l; find source -perm 640; find source -samefile source/f1 | wc -l)" \
    $'2\nsource/f3\n2'
must "find -delete" find moved -name 'f1*' -delete
same "find -delete" "$(find moved -name 'f1*' | wc -l)" 0
same "xargs -P" "$(find source -type f -print0 | xargs -0 -P 4 -n 7 cksum | sort | cksum)" "$(find source -type f -exec cksum {} + | sort | cksum)"

seq 1 300000 | shuf --random-source=/usr/bin/bash >numbers
mkdir temporary
must "sort -T" sort -n -S 1M -T temporary --parallel=2 -o sorted numbers
same "sort -T" "$(cksum <sorted)" "$(seq 1 300000 | cksum)"
same "sort left nothing" "$(ls temporary)" ""
must "sort onto itself" sort -n -S 1M -T temporary -o numbers numbers
must "sort -c" sort -n -c numbers
must "sort -m" sort -n -m -o merged sorted numbers
same "uniq of a merge" "$(uniq -d merged | wc -l)" 300000
same "comm, join, cut, paste" "$(comm -12 <(head -n 9 sorted | sort) <(seq 5 20 | sort) | paste -sd,)" "5,6,7,8,9"
must "tee" bash -c 'tee t1 t2 <sorted >t3 && tee -a t1 <sorted >/dev/null'
same "tee" "$(stat -c %s t1 t2 t3 | tr '\n' ' ')" "$((1988895 * 2)) 1988895 1988895 "
must "split -b" split -b 100001 -d -a 3 sorted piece.
must "cat the pieces" bash -c 'cat piece.* >whole && cmp whole sorted'
must "split -n l" split -n l/7 sorted line.
must "cat the lines" bash -c 'cat line.* | cmp - sorted'
must "csplit" csplit -s -f part. sorted 1000 '{20}'
same "csplit" "$(cat part.* | cksum)" "$(cksum <sorted)"
same "head and tail" "$(tail -n +299999 sorted | head -n 1) $(tail -c 7 sorted) $(head -c 3 sorted | wc -l) $(tac sorted | head -n 1)" "299999 300000 1 300000"
same "tail -f until a process ends" "$(sleep 0.01 & tail -f --pid=$! -n 1 sorted)" 300000
must "shred" shred -u -n 1 t3
[ ! -e t3 ] || fail "shred -u left its file"

must "install" install -D -m 4750 -p source/f9 made/by/install/f
same "install" "$(stat -c '%a %s' made/by/install/f)" "4750 8973"
must "install over it" install -b -m 644 source/f10 made/by/install/f
same "install -b" "$(ls made/by/install | tr '\n' ' ')" "f f~ "
must "sha256sum" bash -c 'find source -type f -print0 | sort -z | xargs -0 sha256sum >sums'
must "sha256sum -c" sha256sum --quiet -c sums
printf x | dd of=source/f11 bs=1 seek=5000 conv=notrunc status=none
refused "sha256sum -c with a changed byte" sha256sum --quiet -c sums
same "which one" "$(sha256sum --quiet -c sums 2>/dev/null)" "source/f11: FAILED"
must "md5sum, b2sum" bash -c 'md5sum source/f* >m && md5sum -c --quiet m && b2sum source/f* | b2sum -c --quiet'

must "truncate" truncate -s 10000 sorted
must "truncate -r, -s +" bash -c 'truncate -r sorted new && truncate -s +5 new && truncate -s "<4000" sorted'
same "truncate" "$(stat -c %s sorted new | tr '\n' ' ')" "4000 10005 "
must "dd conv=fsync" dd if=/usr/bin/bash of=durable bs=64k conv=fsync
must "dd oflag=sync" dd if=/usr/bin/bash of=durable2 bs=64k count=8 oflag=sync
must "dd oflag=append" dd if=durable2 of=durable3 oflag=append conv=notrunc,fdatasync bs=7k
must "dd iflag=skip_bytes" bash -c 'dd if=durable bs=1M iflag=skip_bytes,fullblock skip=1001 status=none | cmp - <(tail -c +1002 /usr/bin/bash)'
must "cmp" bash -c 'cmp durable /usr/bin/bash && cmp -n 524288 durable2 durable && cmp durable2 durable3'
must "sync FILE" sync durable
must "sync -f" sync -f "$T"
must "fallocate" bash -c 'fallocate -l 1M room && [ "$(stat -c %s room)" = 1048576 ] && fallocate -p -o 0 -l 512K room && fallocate -d room'
must "dd direct" dd if=durable of=direct bs=4096 count=64 oflag=direct
must "cmp direct" cmp -n 262144 direct durable

same "links and their ends" "$(ln -s source/sub/soft l && readlink -f l && realpath --relative-to=. l && readlink source/sub/soft)" "$T/source/f2"$'\nsource/f2\n../f2'
must "ln -f, -sfn" bash -c 'ln -f source/f12 hard && ln -sfn made l && [ "$(readlink l)" = made ] && link source/f12 hard2 && [ "$(stat -c %h hard)" = 3 ] && unlink hard2'
must "mktemp" bash -c 'a=$(mktemp -p . x.XXXXXX) && b=$(mktemp -d -p . y.XXXXXX) && [ "$(stat -c %a $a $b | tr "\n" " ")" = "600 700 " ]'
must "mkfifo, mknod" bash -c 'mkfifo -m 600 fifo && [ -p fifo ] && rm fifo'
must "mkdir -p, rmdir -p" bash -c 'mkdir -p -m 700 p/q/r && rmdir -p p/q/r && [ ! -e p ]'
refused "rmdir of a full directory" rmdir source
must "chmod -R, touch -r" bash -c 'chmod -R u=rwX,go= made && [ "$(stat -c %a made/by)" = 700 ] && touch -r source/f4 made && [ made -ot source/f10 ]'

# Locks: one holds, the other is refused, waits, gets it. Then four processes count under a lock.
mkfifo "$K/go"
flock lock bash -c "echo held >'$K/held'; read -r line <'$K/go'" &
holder=$!
STARTED+=($holder)
until_true "the lock's holder" "$holder" test -s "$K/held"
refused "flock -n while another holds" flock -n lock true
refused "flock -n -s while another holds" flock -n -s lock true
(flock lock cat "$K/held" >"$K/then") &
waiter=$!
echo >"$K/go"
wait "$holder" || fail "the lock's holder ended with $?"
wait "$waiter" || fail "the lock's waiter ended with $?"
same "flock after waiting" "$(cat "$K/then")" held
echo 0 >counter
for process in 1 2 3 4; do
    (for i in $(seq 1 25); do flock counter.lock bash -c 'read -r n <counter; echo $((n + 1)) >counter'; done) &
done
wait
same "four processes that count under flock" "$(cat counter)" 100
(
    exec 9>descriptor.lock
    flock -x 9 || exit 1
    refused "flock of a descriptor" flock -n descriptor.lock true
    flock -u 9
    must "flock -u" flock -n descriptor.lock true
) || exit 1
finish
