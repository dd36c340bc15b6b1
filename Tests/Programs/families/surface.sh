# Calls that programs make on files now and then: readiness, copies inside the kernel, locks of descriptions, flags of single transfers, limits of walks, asynchronous
# requests, ioctl. What they answer is printed, and so compared with the kernel's.
. "$(dirname "$0")/lib.sh"

check "surface.py" "${PYTHON:-python3}" "$(dirname "$0")/surface.py" "$T"
finish
