# Descriptors that are passed through UNIX sockets: what the receiver has is the sender's open file. Printed, and so compared with the kernel's.
. "$(dirname "$0")/lib.sh"

check "passed.py" "${PYTHON:-python3}" "$(dirname "$0")/passed.py" "$T"
finish
