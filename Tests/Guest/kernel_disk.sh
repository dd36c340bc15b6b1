#!/bin/bash
# The kernel's driver on the guest's disks, and dashfs on the kernel's disk: what has to work before a user-level driver is tested.
# Runs in the guest (Tests/Guest/run).
set -euo pipefail
step() { printf '%6.1f s  %s\n' "$(cut -d ' ' -f 1 /proc/uptime)" "$*"; }
disk() { awk -v serial="$1" '$2 == serial { print "/dev/" $3 }' /run/nvme; }
test=$(disk dashfs) kernel=$(disk kernel)
[ -b "$test" ] && [ -b "$kernel" ]
step "two disks: $test, $(blockdev --getsize64 "$test") bytes in blocks of $(blockdev --getss "$test"); $kernel, $(blockdev --getsize64 "$kernel") bytes"

for device in "$test" "$kernel"; do
    mkfs.ext4 -q -E nodiscard "$device"
    mount "$device" /mnt
    cp -a /usr/lib/modules /mnt/
    umount /mnt
    mount "$device" /mnt
    diff -r --no-dereference /usr/lib/modules /mnt/modules
    umount /mnt
    step "ext4 on $device: written and read back"
done

ground=$(mktemp -d)
dashfs format "$test" --force
dashfs serve "$test" --socket "$ground/socket" --cache 64M >"$ground/serve.log" 2>&1 &
server=$!
for _ in $(seq 600); do grep -q . "$ground/serve.log" && break; kill -0 $server; sleep 0.1; done
step "serving: $(head -n 1 "$ground/serve.log")"
dashfs run --socket "$ground/socket" -- cp -a /usr/lib/modules /dash/
dashfs run --socket "$ground/socket" -- diff -r --no-dereference /usr/lib/modules /dash/modules
step "cp and diff of $(find /usr/lib/modules | wc -l) files"
fill='CREATE TABLE t(i); INSERT INTO t VALUES(6), (7); SELECT sum(i) FROM t; PRAGMA integrity_check'
[ "$(dashfs run --socket "$ground/socket" -- sqlite3 /dash/sums.db "$fill" | tr '\n' ' ')" = '13 ok ' ]
step "sqlite3"
kill -TERM $server
wait $server
step "SIGTERM: flushed, exit 0"
dashfs check "$test"
step "checked"
