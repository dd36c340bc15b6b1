#!/bin/bash
# The user-level NVMe driver over VFIO: a volume made, served, used by real programs, its server killed in the middle of writing and started
# again (the new owner resets the controller and sees it ready before it reads), shut down in order, checked, and the controller given back.
set -euo pipefail
address=0000:00:04.0 device=nvme:0000:00:04.0 cache=${1:-on}
here=$PWD
strace=$(realpath ../strace)
cd "$(mktemp -d)"
. "$here/common"
serve() { serving --cache 32M --wait "${1:-adaptive}"; }
on() { dashfs run --socket socket -- "$@"; }

echo "-- names and refusals"
dashfs device list
if dashfs serve "$device" --socket socket >out 2>&1; then fail "a controller of the kernel's is served"; fi
grep -q "device bind $address" out || fail "no word of what to do"
mkfs.ext4 -q "/dev/$(awk -v a="$address" '$1 == a { print $3 }' /run/nvme)"
if dashfs device bind "$address" 2>out; then fail "a disk with a file system is taken without --force"; fi
grep -q "ext2, ext3 or ext4" out || fail "no word of what is there"
mkdir mounted && mount "/dev/$(awk -v a="$address" '$1 == a { print $3 }' /run/nvme)" mounted
if dashfs device bind "$address" 2>out; then fail "a mounted disk is taken"; fi
grep -q "is mounted on" out || fail "no word of the mount"
umount mounted
dashfs device bind "$address" --force
if dashfs format nvme:0000:00:1f.7 2>out; then fail "a device that is not there is formatted"; fi
grep -q "no PCI device" out || fail "no word of the address"
if dashfs format "$device" 2>out; then fail "a disk with a file system is formatted without --force"; fi

echo "-- a volume used by programs"
dashfs format "$device" --force
dashfs info "$device" | tee out
grep -q "^health *good" out || fail "no word of the device's health"
grep -q "^wear .*% spare" out || fail "no word of its wear"
grep -q "^cache *$([ "$cache" = off ] && echo none || echo volatile)" out || fail "the volatile cache is not told right"
dashfs doctor >out || fail "doctor"
grep -q "NVMe .*2 controllers, $address with vfio-pci; an IOMMU is there" out || fail "doctor does not see the controllers"
if dashfs serve "$device" --buffered --socket socket >out 2>&1; then fail "--buffered is ignored"; fi
serve
if dashfs info "$device" 2>other; then fail "two processes have the controller"; fi
grep -q "another process has the device" other || fail "no word of the other process"
tar -C / -cf tree.tar usr/lib
on bash -c 'mkdir /dash/tree && tar -C /dash/tree -xf tree.tar && sync && diff -r /dash/tree/usr/lib /usr/lib' || fail "the copy differs"
on sqlite3 /dash/numbers.db "create table t(a); with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000)
    insert into t select x from c; pragma integrity_check;" | grep -qx ok || fail "sqlite3"

echo "-- no system call for a request, while it is polled"
stop
serve never
# A client that sleeps is woken by a futex call, which is this slow machine's doing; and so is it that reading the clock takes a call.
"$strace" -f -c -U name,calls -e trace='!futex,clock_gettime' -o calls -p "$server" 2>attached &
tracer=$!
until grep -q attached attached; do sleep 0.1; done
on dd if=/dev/zero of=/dash/synced bs=4k count=200 oflag=dsync 2>/dev/null
dashfs stats --socket socket | tee out | grep "^device:"
if [ "$cache" = off ]; then grep -q " 0 flushes" out || fail "a flush where there is no cache"; fi
kill -INT "$tracer"
wait "$tracer" || true
cat calls
[ "$(awk '$1 == "total" { print $2 }' calls)" -lt 100 ] || fail "the server's calls grow with its writes"

echo "-- a killed server"
(on bash -c 'for i in $(seq 2000); do echo $i >/dash/file$i && sync /dash/file$i && echo $i >>done || break; done' >/dev/null 2>&1 || true) &
for _ in $(seq 600); do
    if [ "$(wc -l 2>/dev/null <done || echo 0)" -ge 30 ]; then break; fi
    sleep 0.1
done
kill -9 "$server"
wait "$server" || true
serve
last=$(tail -1 done)
echo "$last files were synced"
for i in $(seq "$last"); do echo "$i"; done >expected
on bash -c "for i in \$(seq $last); do cat /dash/file\$i; done" | cmp - expected || fail "synced files are not there"
on diff -r /dash/tree/usr/lib /usr/lib || fail "the copy differs after the server was killed"
stop
dashfs check "$device" || fail "the volume has findings"

echo "-- given back"
dashfs device unbind "$address"
dashfs device list
dashfs check "/dev/$(ls /sys/bus/pci/devices/$address/nvme/*/ | grep -m1 '^nvme[0-9]*n')" || fail "the kernel reads another volume"
