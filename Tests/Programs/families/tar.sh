# tar: create in, extract in, list, append, update, diff, links, sparse files, times and modes.
. "$(dirname "$0")/lib.sh"

mkdir "$KERNEL/src"
cp -a "$SOURCE" "$KERNEL/src/linux"
ln "$KERNEL/src/linux/types.h" "$KERNEL/src/hard"
ln -s linux/types.h "$KERNEL/src/soft"
mkfifo "$KERNEL/src/fifo"
mkdir -m 2770 "$KERNEL/src/set"
truncate -s 3M "$KERNEL/src/sparse"
printf end | dd of="$KERNEL/src/sparse" bs=1 seek=2000000 conv=notrunc status=none
tar -C "$KERNEL" --format=posix -cf "$KERNEL/k.tar" src
check "extract from outside" tar -C "$T" -xpf "$KERNEL/k.tar"
equal "same tree" "$(tree "$T/src")" "$(tree "$KERNEL/src")"
check "create inside" tar -C "$T" --format=posix -cSf "$T/d.tar" src
equal "same list" "$(tar -tf "$T/d.tar" | sort | sha256sum)" "$(tar -tf "$KERNEL/k.tar" | sort | sha256sum)"
mkdir "$T/again" "$KERNEL/again"
check "extract inside" tar -C "$T/again" -xpf "$T/d.tar"
equal "same tree inside" "$(tree "$T/again/src")" "$(tree "$KERNEL/src")"
check "extract outside" tar -C "$KERNEL/again" -xpf "$T/d.tar"
equal "same tree outside" "$(tree "$KERNEL/again/src")" "$(tree "$KERNEL/src")"
check "compare" tar -C "$T" -df "$T/d.tar"
check "append" tar -C "$T/src" -rf "$T/d.tar" soft
check "update" tar -C "$T/src" -uf "$T/d.tar" hard
equal "one member" "$(tar -xOf "$T/d.tar" src/linux/fs.h | sha256sum)" "$(sha256sum <"$SOURCE/fs.h")"
check "compressed" tar -C "$T" --use-compress-program=gzip -cf "$KERNEL/d.tgz" src
check "decompressed" tar -C "$T/again" --overwrite -xzf "$KERNEL/d.tgz"
check "delete" tar --delete -f "$T/d.tar" src/linux/fs.h
refuse "it is gone" tar -tf "$T/d.tar" src/linux/fs.h
finish
