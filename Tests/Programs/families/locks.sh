# Record locks and flock between processes: waiting for one, its end by unlock, close, exit and SIGKILL, deadlock found.
. "$(dirname "$0")/lib.sh"

"${PYTHON:-python3}" "$(dirname "$0")/locks.py" "$T"
check "locks.py" test $? = 0
finish
