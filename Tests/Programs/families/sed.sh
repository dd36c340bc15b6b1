# sed -i and other programs that replace a file by rename: sort -o, patch, ed.
. "$(dirname "$0")/lib.sh"

cp -a "$SOURCE/." "$T" && cp -a "$SOURCE" "$KERNEL/k"
chmod 640 "$T/types.h" "$KERNEL/k/types.h"
for script in 's/struct/STRUCT/g' '/^#define/d' '1,5{h;d};$G' 'y/abc/ABC/'; do
    check "sed -i $script" sed -i "$script" "$T"/[a-k]*.h
    sed -i "$script" "$KERNEL/k"/[a-k]*.h
done
check "same files" diff -r "$KERNEL/k" "$T"
equal "mode kept" "$(sed -i p "$T/types.h" && stat -c %a "$T/types.h")" 640
check "sed -i.bak" sed -i.bak 2d "$T/types.h"
check "backup is there" test -f "$T/types.h.bak"
ln -s types.h "$T/link.h"
check "sed -i --follow-symlinks" sed -i --follow-symlinks 2d "$T/link.h"
check "still a link" test -L "$T/link.h"
check "sed -n w" sed -n "w $T/written" "$T/types.h"
check "written" cmp "$T/written" "$T/types.h"
refuse "sed -i of nothing" sed -i p "$T/absent"
equal "no temporary file left" "$(find "$T" -name 'sed??????' | wc -l)" 0
if command -v patch >/dev/null; then
    cp "$SOURCE/fs.h" "$KERNEL/a.h" && sed 's/define/DEFINE/' "$KERNEL/a.h" >"$KERNEL/b.h"
    cp "$KERNEL/a.h" "$T/a.h"
    diff -u "$KERNEL/a.h" "$KERNEL/b.h" >"$KERNEL/patch"
    patch -s "$T/a.h" "$KERNEL/patch" && cmp "$T/a.h" "$KERNEL/b.h" || FAILED="${FAILED}patch; "
fi
finish
