# gzip, gunzip, zcat -t, xz and bzip2 where they are: each opens its files itself.
. "$(dirname "$0")/lib.sh"

for f in types.h kernel.h fs.h input.h; do cp -a "$SOURCE/$f" "$T/$f"; done
for program in gzip bzip2 xz; do
    command -v $program >/dev/null || continue
    for f in types.h kernel.h fs.h input.h; do
        check "$program $f" $program -k "$T/$f"
    done
done
for f in "$T"/*.gz; do check "gzip -t" gzip -t "$f"; done
equal "zcat" "$(gzip -dc "$T/fs.h.gz" | sha256sum)" "$(sha256sum <"$SOURCE/fs.h")"
check "gzip -9" gzip -9f "$T/input.h"
refuse "the original is gone" test -e "$T/input.h"
check "gunzip" gunzip "$T/input.h.gz"
check "as before" cmp "$T/input.h" "$SOURCE/input.h"
equal "its time" "$(stat -c %Y "$T/input.h")" "$(stat -c %Y "$SOURCE/input.h")"
refuse "gzip of what is there" gzip -k "$T/fs.h" </dev/null
printf x | dd of="$T/fs.h.gz" bs=1 seek=400 conv=notrunc status=none
refuse "gzip -t of a damaged file" gzip -t "$T/fs.h.gz"
ls "$T"
finish
