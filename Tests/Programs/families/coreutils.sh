# ls, mkdir, ln, stat, touch, cat, head, tail, wc, sort, sha256sum, truncate, dd, du, chmod, mv, cp, rm, rmdir, readlink, realpath, mktemp, tee, install.
. "$(dirname "$0")/lib.sh"

check "mkdir -p" mkdir -p "$T/a/b/c" "$T/empty"
refuse "mkdir of what is there" mkdir "$T/a"
check "mkdir -m" mkdir -m 1750 "$T/mode"
equal "mode of mkdir -m" "$(stat -c %a "$T/mode")" 1750

seq 1 20000 | tee "$T/numbers" >"$KERNEL/numbers"
equal "wc" "$(wc -lwc <"$KERNEL/numbers" | tr -s ' ')" "$(wc -lwc "$T/numbers" | sed 's| [^ ]*numbers||' | tr -s ' ')"
equal "sha256sum" "$(sha256sum "$T/numbers" | cut -d' ' -f1)" "$(sha256sum "$KERNEL/numbers" | cut -d' ' -f1)"
check "cmp" cmp "$T/numbers" "$KERNEL/numbers"
equal "head" "$(head -n 3 "$T/numbers" | tr '\n' ,)" "1,2,3,"
equal "tail" "$(tail -n 2 "$T/numbers" | tr '\n' ,)" "19999,20000,"
equal "tail -c +N" "$(tail -c +108890 "$T/numbers" | head -n 1)" "$(tail -c +108890 "$KERNEL/numbers" | head -n 1)"
equal "head -c -N" "$(head -c -108880 "$T/numbers" | wc -c)" 14
check "sort -o" sort -rn -S 1M -o "$T/reversed" "$T/numbers"
equal "sorted" "$(head -n 1 "$T/reversed")" 20000
check "sort in place" sort -n -o "$T/reversed" "$T/reversed"
check "sorted back" cmp "$T/numbers" "$T/reversed"
equal "cat of several" "$(cat "$T/numbers" "$T/reversed" | wc -c)" 217788
equal "split" "$(split -n 7 "$T/numbers" "$T/piece." && cat "$T"/piece.* | sha256sum)" "$(cat "$KERNEL/numbers" | sha256sum)"
equal "uniq" "$(uniq -c "$T/numbers" | awk '$1 != 1' | wc -l)" 0
equal "od" "$(od -An -tx1 -N 4 "$T/numbers" | tr -d ' ')" 310a320a
equal "cut" "$(cut -c1 "$T/numbers" | sort -u | tr -d '\n')" 123456789

check "truncate up" truncate -s 100000 "$T/sparse"
equal "size" "$(stat -c %s "$T/sparse")" 100000
equal "zeros" "$(cat "$T/sparse" | tr -d "\\0" | wc -c)" 0
check "truncate far" truncate -s 8T "$T/sparse"
equal "8 TiB" "$(stat -c %s "$T/sparse")" 8796093022208
check "truncate down" truncate -s 10 "$T/sparse"

check "dd" dd if="$T/numbers" of="$T/copied" bs=4000 status=none
check "dd wrote it" cmp "$T/numbers" "$T/copied"
check "dd notrunc seek" dd if=/dev/zero of="$T/copied" bs=1 count=5 seek=10 conv=notrunc status=none
equal "dd size" "$(stat -c %s "$T/copied")" "$(stat -c %s "$T/numbers")"
equal "dd bytes" "$(head -c 16 "$T/copied" | od -An -tx1 | tr -d ' \n')" "310a320a330a340a350a0000000000""0a"
check "dd fsync" dd if=/dev/zero of="$T/zeros" bs=64k count=40 conv=fsync status=none
equal "dd skip" "$(dd if="$T/numbers" bs=10 skip=3 count=1 status=none | tr '\n' ,)" "$(dd if="$KERNEL/numbers" bs=10 skip=3 count=1 status=none | tr '\n' ,)"
check "dd append" dd if="$T/numbers" of="$T/zeros" oflag=append conv=notrunc bs=1M status=none
equal "appended" "$(tail -c 108894 "$T/zeros" | sha256sum)" "$(sha256sum <"$KERNEL/numbers")"

check "ln" ln "$T/numbers" "$T/a/second"
equal "links" "$(stat -c %h "$T/numbers")" 2
equal "one inode" "$(stat -c %i "$T/numbers")" "$(stat -c %i "$T/a/second")"
check "ln -s" ln -s ../numbers "$T/a/soft"
equal "readlink" "$(readlink "$T/a/soft")" ../numbers
equal "realpath" "$(realpath "$T/a/soft")" "$(realpath "$T")/numbers"
check "through the link" cmp "$T/a/soft" "$KERNEL/numbers"
check "ln -sfn" ln -sfn nowhere "$T/a/soft"
refuse "cat of a dangling link" cat "$T/a/soft"
refuse "ln onto a name" ln "$T/numbers" "$T/a/second"
check "ln -f" ln -f "$T/copied" "$T/a/second"
equal "links again" "$(stat -c %h "$T/numbers" "$T/copied" | tr '\n' ,)" "1,2,"

check "touch -d" touch -d '2001-02-03 04:05:06.789012345' "$T/numbers"
equal "its time" "$(stat -c '%x|%y' "$T/numbers")" "2001-02-03 04:05:06.789012345 +0000|2001-02-03 04:05:06.789012345 +0000"
check "touch -r" touch -r "$T/numbers" "$T/copied"
check "touch -h" touch -h -d '1999-01-01' "$T/a/soft"
equal "the link's time" "$(stat -c %y "$T/a/soft" | cut -c1-10)" 1999-01-01
check "touch -c makes nothing" touch -c "$T/nothing"
refuse "it is not there" test -e "$T/nothing"
check "newer" test "$T/reversed" -nt "$T/numbers"

check "chmod" chmod u=rwx,g=rxs,o= "$T/numbers"
equal "mode" "$(stat -c '%A %a' "$T/numbers")" "-rwxr-s--- 2750"
check "chmod -R" chmod -R go-rwx "$T/a"
equal "mode below" "$(stat -c %a "$T/a/b/c")" 700
check "install" install -D -m 640 "$KERNEL/numbers" "$T/deep/er/installed"
equal "installed" "$(stat -c '%a %s' "$T/deep/er/installed")" "640 108894"
check "mktemp" test -f "$(mktemp -p "$T" name.XXXXXX)"
check "mktemp -d" test -d "$(mktemp -d -p "$T" dir.XXXXXX)"
rm -r "$T"/name.* "$T"/dir.*
check "mknod of a fifo" mkfifo -m 600 "$T/fifo"
equal "it is one" "$(stat -c %F "$T/fifo")" fifo

check "mv" mv "$T/copied" "$T/moved"
check "mv into" mv "$T/moved" "$T/empty"
check "mv onto" mv -f "$T/reversed" "$T/empty/moved"
refuse "mv of a directory into itself" mv "$T/a" "$T/a/b"
check "mv -n" mv -n "$T/numbers" "$T/empty/moved"
check "mv between file systems" mv "$T/empty/moved" "$KERNEL/moved"
check "and back" mv "$KERNEL/moved" "$T/empty/moved"
check "its bytes" cmp "$KERNEL/numbers" "$T/empty/moved"
check "mv of a directory" mv "$T/a" "$T/z"
refuse "rmdir of what is not empty" rmdir "$T/z"
refuse "rm of a directory" rm "$T/z"
check "du" test "$(du -s --apparent-size -B1 "$T/empty/moved" | cut -f1)" = 108894

find "$T" -exec touch -h -d '2020-01-01' {} +
echo "-- ls -lR"
ls -lR --time-style=full-iso "$T" | awk '/^total/ {next} /^d/ {$5 = "-"} {print}'
echo "-- ls in other ways"
ls -1aF "$T"
ls -S "$T"/piece.* | wc -l
ls -d "$T"/*/ | wc -l
tree "$T"
check "rm -r" rm -r "$T/z" "$T/deep"
check "rmdir -p" sh -c "mkdir -p '$T/x/y/z' && rmdir '$T/x/y/z' '$T/x/y' '$T/x'"
check "unlink" unlink "$T/fifo"
check "shred" shred -n 1 -u "$T/zeros"
equal "what is left" "$(ls "$T" | tr '\n' ' ')" "empty mode numbers piece.aa piece.ab piece.ac piece.ad piece.ae piece.af piece.ag sparse "
finish
