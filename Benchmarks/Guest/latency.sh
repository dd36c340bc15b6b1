#!/bin/bash
# In the guest of scripts/nvme-latency: the operations of operations.c in turns on ext4, through the preload library and through the C library.
# Prints a line for each piece: OPERATION ROUND SIDE MEDIAN-NS DEVICE-WRITES DEVICE-FLUSHES DEVICE-READS BYTES-WRITTEN.
# Usage: latency.sh ROUNDS COUNT WRITE-CACHE
set -euo pipefail
rounds=$1 count=$2 cache=$3
address=0000:00:04.0 here=$PWD
disk=$(awk '$2 == "kernel" { print $3 }' /run/nvme)

# Debian's kernel takes a cache that is there for one that is on.
[ "$cache" = on ] || echo 'write through' >"/sys/block/$disk/queue/write_cache"
mkfs.ext4 -q -b 4096 "/dev/$disk"
mount "/dev/$disk" /mnt
bind-vfio $address >/dev/null
export DASHFS_SOCKET=$here/socket
dashfs format nvme:$address --force >/dev/null
dashfs serve nvme:$address --socket "$DASHFS_SOCKET" --cache 64M --wait never >served 2>&1 &
server=$!
until grep -q ^serving served; do kill -0 $server; sleep 0.1; done
dashfs run -- mkdir /dash/preload /dash/library

mkfifo {ext4,preload,library}.{in,out}
./operations /mnt <ext4.in >ext4.out &
dashfs run -- ./operations /dash/preload <preload.in >preload.out &
LD_LIBRARY_PATH=/usr/local/lib ./operations-library /library <library.in >library.out &
declare -A to from
exec {to[ext4]}>ext4.in {from[ext4]}<ext4.out {to[preload]}>preload.in {from[preload]}<preload.out {to[library]}>library.in {from[library]}<library.out

# Writes, flushes, reads and bytes written: of the kernel's disk, or as the server counts them. The kernel counts a flush that its file system asks for as
# a write without sectors as well.
counters() {
    if [ "$1" = ext4 ]; then
        awk '{ print $5 - $16, $16, $1, $7 * 512 }' "/sys/block/$disk/stat"
    else
        dashfs stats --json | sed 's/.*"device":{\([^}]*\)}.*/\1/' | tr , '\n' | tr -d '" ' |
            awk -F: '{ v[$1] = $2 } END { print v["writes"], v["flushes"], v["reads"], v["bytesWritten"] }'
    fi
}

piece() {  # piece SIDE OPERATION ROUND
    local before after answer
    # A server that polls would take a processor from the kernel.
    if [ "$1" = ext4 ]; then kill -STOP $server; else kill -CONT $server; fi
    before=($(counters "$1"))
    echo "$2 $count" >&"${to[$1]}"
    read -ra answer <&"${from[$1]}"
    after=($(counters "$1"))
    [ "$3" = 0 ] || echo "$2 $3 $1 ${answer[2]} $((after[0] - before[0])) $((after[1] - before[1])) $((after[2] - before[2])) $((after[3] - before[3]))"
    if [ "$2" = create ]; then
        echo "unlink 1" >&"${to[$1]}"
        read -ra answer <&"${from[$1]}"
    fi
}

for operation in write create read directread; do
    for round in $(seq 0 "$rounds"); do  # the first does not count
        for side in ext4 preload library; do piece $side $operation "$round"; done
    done
done
for side in ext4 preload library; do exec {to[$side]}>&-; done
kill -CONT $server
wait %2 %3 %4
kill $server
wait $server
