#!/bin/bash
# The controller given to vfio-pci, driven a little by vfio_probe, and given back. Runs in the guest (Tests/Guest/run).
set -euo pipefail
address=$(awk '$2 == "dashfs" { print $1 }' /run/nvme)
disk=/dev/$(awk '$2 == "dashfs" { print $3 }' /run/nvme)
dd if=/dev/urandom of="$disk" bs=1M count=1 oflag=direct status=none
before=$(head -c 1048576 "$disk" | sha256sum)
group=$(bind-vfio "$address")
echo "$address is at $group, with $(ls "/sys/kernel/iommu_groups/${group##*/}/devices" | tr '\n' ' ')in its group"
./vfio_probe "$address" "$group"
disk=$(bind-nvme "$address")
[ "$(head -c 1048576 "$disk" | sha256sum)" = "$before" ]
echo "given back: $disk"
