# tar, cpio, rsync, zip and unzip: what goes in comes out, compared by diff -r and by kind, mode, owner, links, size and time of every name.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"

build() { # build DIR: a tree with most of what a tree can have
    local i long
    mkdir -p "$1/empty" "$1/a/b/c/d/e/f" "$1/many" && cd "$1" || return 1
    for i in $(seq 1 40); do head -c $((i * 999)) /usr/bin/bash | tail -c $((i * 777)) >"many/f$i"; done
    seq 1 200000 >numbers
    cp /usr/bin/bash a/b/program
    : >none
    printf %4095s x >short-of-a-block && printf %4096s x >a-block && printf %4097s x >past-a-block
    truncate -s 8M hole && truncate -s 5000001 tail && echo end >>tail
    dd if=/usr/bin/bash of=holes bs=4096 count=3 seek=512 conv=notrunc status=none && truncate -s 6M holes
    ln numbers a/numbers-too && ln numbers a/b/numbers-as-well && ln none a/none-too
    ln -s numbers link && ln -s ../../numbers a/b/up && ln -s nowhere dangling && ln -s /etc/passwd outside && ln -s . self
    ln -s "$(printf 'x%.0s' {1..300})" long-link
    long=$(printf 'n%.0s' {1..255})
    echo 1 >"$long" && echo 2 >"with space" && echo 3 >$'new\nline' && echo 4 >-rf && echo 5 >$'caf\xc3\xa9' && echo 6 >$'\xff\xfe' \
        && echo 7 >'*?[a]' && echo 8 >'a\b"c'"'d" && echo 9 >.hidden && echo 10 >'~' && echo 11 >a/b/c/d/e/f/deep
    mkfifo pipe
    chmod 600 many/f1 && chmod 4755 many/f2 && chmod 2711 many/f3 && chmod 444 many/f4 && chmod 1777 empty && chmod 2750 a/b
    [ "$(id -u)" != 0 ] || { chmod 000 many/f5 && chown 1000:100 many/f6 && chown -h 1:2 link && chown 7:7 empty; }
    touch -d '1971-02-03 04:05:06.123456789' many/f7 && touch -d '2037-12-31 23:59:59' many/f8 && touch -h -d '2001-01-01' dangling
    touch -d '2011-11-11 11:11:11.5' a/b/c && touch -d '2012-12-12' empty
    cd "$T"
}

alike() { # alike WHAT A B [seconds]: the same bytes, and the same of everything else
    local a b
    must "$1: diff -r" diff -r --no-dereference --exclude=pipe "$2" "$3"
    a=$(tree "$2") b=$(tree "$3")
    if [ "${4:-}" = seconds ]; then a=$(sed -E 's/\.[0-9]+$//' <<<"$a") b=$(sed -E 's/\.[0-9]+$//' <<<"$b"); fi
    [ "$a" = "$b" ] || fail "$1: $(diff <(echo "$a") <(echo "$b") | head -n 10)"
}

thin() { # thin WHAT DIR: holes are holes still
    local blocks
    blocks=$(($(stat -c %b "$2/hole" "$2/holes" "$2/tail" | paste -sd+)))
    [ "$blocks" -lt 4000 ] || fail "$1: the files with holes have $blocks blocks"
}

must "a tree" build "$T/tree"
links=$(stat -c %h tree/numbers)
same "three links" "$links" 3

must "tar c" tar --format=posix -cSf tree.tar -C tree .
must "tar d" tar -df tree.tar -C tree
mkdir out-tar && must "tar x" tar -xpSf tree.tar -C out-tar
alike "tar" tree out-tar
thin "tar -S" out-tar
for how in gzip bzip2 xz; do
    must "tar c --$how" tar -c "--$how" -f "tree.tar.$how" -C tree many a numbers
    must "tar d --$how" tar -d "--$how" -f "tree.tar.$how" -C tree
done
mkdir out-pipe && must "tar through a pipe" bash -c 'tar --format=posix -cf - -C tree . | tar -xpf - -C out-pipe'
alike "tar through a pipe" tree out-pipe
must "tar from and to a redirection" bash -c 'mkdir out-red && tar --format=posix -cS -C tree . >red.tar && tar -xpS -C out-red <red.tar'
alike "tar from and to a redirection" tree out-red
must "tar c of two" tar -cf some.tar -C tree many numbers
must "tar r" tar -rf some.tar -C /etc passwd
must "tar --delete" tar --delete -f some.tar numbers
same "tar r, --delete" "$(tar -tf some.tar | grep -v '^many/')" passwd
must "tar d once more" bash -c 'tar -df some.tar -C tree many'
cp -a tree grown
must "tar -g, the first" tar --format=posix -c -g snapshot -f level0.tar -C grown .
echo more >grown/a/more && rm grown/many/f10
must "tar -g, the second" tar --format=posix -c -g snapshot -f level1.tar -C grown .
mkdir out-inc
must "an incremental restore" bash -c 'tar -xpG -f level0.tar -C out-inc && tar -xpG -f level1.tar -C out-inc'
alike "an incremental restore" grown out-inc
must "remove" rm -rf grown out-tar out-pipe out-red out-inc red.tar level?.tar

must "cpio -o" bash -c 'cd tree && find . -depth -print0 | cpio -0 -o -H newc --quiet -O ../tree.cpio'
must "cpio -i" bash -c 'mkdir out-cpio && cd out-cpio && cpio -idm --quiet --sparse -I ../tree.cpio'
chmod --reference=tree out-cpio
alike "cpio" tree out-cpio seconds
must "cpio by redirection" bash -c 'mkdir out-red && cd out-red && (cd ../tree && find . -depth -print0 | cpio -0 -o -H crc --quiet) >../red.cpio && cpio -idm --quiet <../red.cpio'
alike "cpio by redirection" tree out-red seconds
must "cpio -p" bash -c 'mkdir out-pass && cd tree && find . -depth -print0 | cpio -0 -pdm --quiet ../out-pass'
alike "cpio -p" tree out-pass seconds
must "remove" rm -rf out-cpio out-red out-pass tree.cpio red.cpio

must "rsync" rsync -aHXS --numeric-ids tree/ out-rsync/
alike "rsync" tree out-rsync
thin "rsync -S" out-rsync
same "rsync finds nothing to do" "$(rsync -aHXSni --numeric-ids tree/ out-rsync/ 2>&1)" ""
echo changed >>tree/many/f20 && rm tree/many/f21 && mv tree/a/b/c tree/a/moved && printf X | dd of=tree/a/b/program bs=1 seek=500000 conv=notrunc status=none
must "rsync of changes" rsync -aHXS --delete --no-whole-file --checksum --numeric-ids tree/ out-rsync/
alike "rsync of changes" tree out-rsync
echo again >>tree/numbers
must "rsync --inplace" rsync -aHX --inplace --no-whole-file --fsync tree/ out-rsync/
alike "rsync --inplace" tree out-rsync
must "rsync from the kernel's side and back" bash -c 'rsync -aHX tree/ "$1/out/" && rsync -aHX "$1/out/" out-back/' rsync "$K"
alike "rsync from the kernel's side and back" tree out-back
must "remove" rm -rf out-rsync out-back

# What a zip archive can hold: no holes, no hard links, no pipes, times of whole seconds.
rm tree/pipe tree/$'\xff\xfe' && chmod 600 tree/many/f5
must "zip" bash -c 'cd tree && zip -qryX ../tree.zip .'
must "unzip -t" unzip -tq tree.zip
mkdir out-zip && must "unzip" unzip -q -K -^ tree.zip -d out-zip
must "zip: diff -r" diff -r --no-dereference tree out-zip
same "zip: modes" "$(cd out-zip && find . -type f -printf '%P %m\n' | sort)" "$(cd tree && find . -type f -printf '%P %m\n' | sort)"
must "zip through pipes" bash -c 'cd tree && tar -cf - many | zip -q ../stream.zip - && unzip -p ../stream.zip | tar -df -'
must "zip -u, -d" bash -c 'cd tree && echo new >many/new && zip -qu ../tree.zip many/new && zip -qd ../tree.zip none'
same "zip -u, -d" "$(unzip -p tree.zip many/new; unzip -l tree.zip none >/dev/null 2>&1 || echo gone)" $'new\ngone'
finish
