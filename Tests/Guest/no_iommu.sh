#!/bin/bash
# The driver where there is no IOMMU (the guest is started with intel_iommu=off): refused without --no-iommu, and with it everything works, by copies.
set -euo pipefail
address=0000:00:04.0 device=nvme:0000:00:04.0
here=$PWD
cd "$(mktemp -d)"
. "$here/common"
if dashfs device bind "$address" 2>out; then fail "a controller without an IOMMU is taken"; fi
grep -q "turn the IOMMU on" out || fail "no word of what to do"
dashfs doctor | grep "NVMe" | grep -q "there is no IOMMU" || fail "doctor does not see it"
if [ ! -e /sys/module/vfio/parameters/enable_unsafe_noiommu_mode ]; then
    echo "refused as it should be; this kernel's VFIO does not know of life without an IOMMU (CONFIG_VFIO_NOIOMMU), so that cannot be tried"
    exit 0
fi
echo 1 >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
dashfs device bind "$address"
if dashfs format "$device" 2>out; then fail "it is driven without a flag"; fi
grep -q -- "--no-iommu" out || fail "no word of the flag"
if dashfs format "$device" --no-iommu 2>out; then fail "it is driven without huge pages"; fi
grep -q "nr_hugepages" out || fail "no word of huge pages"
echo 16 >/proc/sys/vm/nr_hugepages
if setpriv --reuid 65534 --clear-groups dashfs format "$device" --no-iommu 2>out; then fail "anybody may"; fi
dashfs format "$device" --no-iommu
serving --no-iommu --cache 32M
grep -q "no IOMMU keeps the device" err || fail "no warning"
dashfs run --socket socket -- cp -a /usr/lib/modules /dash/
dashfs run --socket socket -- diff -r --no-dereference /usr/lib/modules /dash/modules || fail "the copy differs"
dashfs stats --socket socket | grep ^device:
stop
dashfs check "$device" --no-iommu || fail "the volume has findings"
