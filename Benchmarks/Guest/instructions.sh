#!/bin/bash
# In the guest of scripts/nvme-latency --instructions, on one processor, where QEMU counts (counter.c): operations of operations.c on ext4, and the same by
# dashfs-instructions on the NVMe driver. Prints a line "counted SIDE OPERATION COUNT" for each report of the counter, in their order; with HOT=1 also
# the kernel's symbols.
# Usage: instructions.sh WRITE-CACHE REPETITIONS COUNT OPERATION...
set -euo pipefail
cache=$1 repetitions=$2 count=$3 address=0000:00:04.0
shift 3
disk=$(awk '$2 == "kernel" { print $3 }' /run/nvme)
sysctl -qw kernel.randomize_va_space=0

# As on a disk with a queue for each processor; and Debian's kernel takes a cache that is there for one that is on.
echo none >"/sys/block/$disk/queue/scheduler"
[ "$cache" = on ] || echo 'write through' >"/sys/block/$disk/queue/write_cache"
mkfs.ext4 -q -b 4096 "/dev/$disk"
mount "/dev/$disk" /mnt
bind-vfio $address >/dev/null

counted() {  # counted SIDE OPERATION COUNT COMMAND...
    local name="$1 $2 $3"
    shift 3
    "$@" >out || { cat out >&2; exit 1; }
    if grep failures out | grep -qv 'failures 0$'; then cat out >&2; exit 1; fi
    echo "counted $name"
}
ext4() { printf '%s %s\n' "$1" "$2" unlink 1 | ./operations /mnt mark; }
dashfs() {
    # A copy of 4 KiB by the C library is plain loads and stores, not one instruction that takes long.
    SWIFT_DETERMINISTIC_HASHING=1 \
        GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824 \
        ./dashfs-instructions "$1" "$2" --device nvme:$address --mark
}

counted ext4 known 1 ext4 known 1
for operation; do
    case $operation in write) name=durable ;; create) name=createsync ;; *) name=$operation ;; esac
    for _ in $(seq "$repetitions"); do
        counted ext4 "$operation" "$count" ext4 "$operation" "$count"
        counted dashfs "$operation" "$count" dashfs $name "$count"
    done
done
[ -z "${HOT:-}" ] || sed -n 's/^\([0-9a-f]*\) [tTwW] \([^ \t]*\).*/symbol \1 kernel \2/p' /proc/kallsyms
