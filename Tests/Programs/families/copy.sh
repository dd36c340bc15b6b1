# cp -a of a tree of real files in, around and out, diff -r, mv, rm -r, du.
. "$(dirname "$0")/lib.sh"

check "cp -a in" cp -a "$SOURCE" "$T/in"
check "diff -r" diff -r "$SOURCE" "$T/in"
equal "modes, links, times" "$(tree "$T/in")" "$(tree "$SOURCE")"
check "cp -a around" cp -a "$T/in" "$T/around"
check "diff -r around" diff -r "$T/in" "$T/around"
check "cp -a out" cp -a "$T/around" "$KERNEL/out"
check "diff -r out" diff -r "$SOURCE" "$KERNEL/out"
check "cp -r" cp -r "$SOURCE" "$T/plain"
check "cp --sparse" cp --sparse=always "$T/in/types.h" "$T/sparse"
check "cp -l" cp -rl "$T/in" "$T/linked"
equal "links of cp -l" "$(stat -c %h "$T/linked/types.h")" 2
check "cp -s" cp -s "$T/in/types.h" "$T/soft"
check "cp -u" cp -au "$SOURCE/." "$T/in"
check "cp -b" cp -b "$T/in/types.h" "$T/sparse"
check "mv of a tree" mv "$T/around" "$T/moved"
check "diff -rq" diff -rq "$T/in" "$T/moved"
echo changed >>"$T/moved/types.h"
refuse "diff sees a change" diff -rq "$T/in" "$T/moved"
rm "$T/moved/fs.h"
echo "-- diff"
diff -r "$T/in" "$T/moved"
echo "-- sizes"
find "$T/in" -type f -printf '%s\n' | awk '{n += $1} END {print NR, n}'
( cd / && find "$T/in" -type f -print0 | du --files0-from=- -b --total | tail -n 1 )
check "rm -r" rm -r "$T/in" "$T/moved" "$T/plain" "$T/linked"
equal "what is left" "$(ls "$T" | tr '\n' ' ')" "soft sparse sparse~ "
finish
