# fio: what was written is read back and verified, by read and write, by maps, and by the kernel's asynchronous interface; in one job and in several, with
# holes, with direct I/O, and after a file was written in one way, read in another.
. "$(dirname "$0")/lib.sh"
cd "$K" || exit 1
common=(--directory="$T" --size=16M --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 --allrandrepeat=1 --group_reporting --output-format=terse)

try() { # try WHAT OPTIONS…
    local what=$1
    shift
    must "fio: $what" fio "${common[@]}" --name="${what//[^a-z]/-}" "$@"
    same "fio: $what: errors" "$(grep -c 'verify: bad\|error=' "$K/said")" 0
    rm -f "$T"/*
}

try "psync, random" --ioengine=psync --rw=randwrite --bs=4k
try "psync, sizes of all kinds, fsync" --ioengine=psync --rw=randrw --bsrange=512-64k --bs_unaligned=1 --fsync=64
try "psync, four processes" --ioengine=psync --rw=randwrite --bs=8k --size=4M --numjobs=4
try "psync, four threads, one file" --ioengine=psync --thread --rw=write --bs=4k --numjobs=4 --size=16M --filename=shared --offset_increment=4M --io_size=4M
try "psync, direct" --ioengine=psync --direct=1 --rw=randwrite --bs=4k
try "sync, vsync and pvsync2" --ioengine=vsync --rw=write --bs=4k --iodepth=16
try "psync with fallocate and fdatasync" --ioengine=psync --fallocate=posix --rw=randwrite --bs=16k --fdatasync=16
try "psync, sync_file_range" --ioengine=psync --rw=write --bs=16k --sync_file_range=write:32
try "mmap, random" --ioengine=mmap --rw=randwrite --bs=4k
try "mmap, msync" --ioengine=mmap --rw=randrw --bs=8k --fsync=32
try "mmap, four processes" --ioengine=mmap --rw=randwrite --bs=4k --size=4M --numjobs=4
try "libaio, random" --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k
try "libaio, direct" --ioengine=libaio --direct=1 --iodepth=32 --rw=randrw --bs=4k
try "posixaio" --ioengine=posixaio --iodepth=8 --rw=randwrite --bs=4k

written=(--directory="$T" --name=way --filename=file --size=8M --bs=4k --verify=sha1 --verify_fatal=1 --randseed=9)
for pair in "psync mmap" "mmap psync" "psync libaio" "libaio mmap"; do
    read -r write read <<<"$pair"
    must "fio: written by $write" fio "${written[@]}" --ioengine="$write" --rw=randwrite --do_verify=0 --end_fsync=1
    must "fio: written by $write, read by $read" fio "${written[@]}" --ioengine="$read" --rw=randwrite --verify_only=1
    rm -f "$T"/*
done

# The verdict can be no: a byte that was changed is found.
must "fio: written" fio "${written[@]}" --ioengine=psync --rw=randwrite --do_verify=0
printf '\x55' | dd of="$T/file" bs=1 seek=1000001 conv=notrunc status=none
refused "fio: a changed byte" fio "${written[@]}" --ioengine=psync --rw=randwrite --verify_only=1
finish
