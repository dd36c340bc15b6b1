# For the scripts beside this one; each is called as `bash NAME.sh TARGET` and tries one family of programs in TARGET/NAME.
#
# A script prints what it observes (to be compared with the same script's output on a kernel file system), and as its last line its own verdict:
# "PASS name: n checks" with exit 0, or "FAIL name: …" with exit 1.
set -u
export LC_ALL=C TZ=UTC
umask 022
NAME=$(basename "$0" .sh)
TARGET=${1:?usage: $NAME.sh TARGET}
T=$TARGET/$NAME
SOURCE=${SOURCE:-/usr/include/linux}
KERNEL=$(mktemp -d)
CHECKS=0
FAILED=

remove_all() { rm -rf "$KERNEL" "$T"; }
trap remove_all EXIT
rm -rf "$T"
mkdir -p "$T" || { echo "FAIL $NAME: cannot make $T"; exit 1; }

check() {  # check "what" command…: the command must succeed
    local what=$1
    shift
    CHECKS=$((CHECKS + 1))
    if "$@"; then echo "ok: $what"; else echo "WRONG: $what"; FAILED="$FAILED$what; "; fi
}

refuse() {  # refuse "what" command…: the command must fail
    local what=$1
    shift
    CHECKS=$((CHECKS + 1))
    if "$@" 2>/dev/null; then echo "WRONG: $what succeeded"; FAILED="$FAILED$what; "; else echo "ok: refused: $what"; fi
}

equal() {  # equal "what" one other
    CHECKS=$((CHECKS + 1))
    if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "WRONG: $1: '${2:0:400}' is not '${3:0:400}'"; FAILED="$FAILED$1; "; fi
}

# The tree below a directory: path, kind, mode, links, size and time of each file, the checksum of all bytes. Sizes, times and links of directories are the
# file system's own affair.
tree() {
    ( cd / && find "$1" -type d -printf '%P d %m\n' -o -type l -printf '%P l %l\n' -o -printf '%P %y %m %n %s %T@\n' | sort
      find "$1" -type f -print0 | sort -z | xargs -0 -r sha256sum | sed "s|  $1|  |" | sha256sum )
}

finish() {
    remove_all
    trap - EXIT
    if [ -n "$FAILED" ]; then echo "FAIL $NAME: $FAILED"; exit 1; fi
    echo "PASS $NAME: $CHECKS checks"
}
