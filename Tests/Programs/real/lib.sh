# For the scripts beside this one. Each is called as `bash NAME.sh DIRECTORY`, works in DIRECTORY/NAME only, leaves nothing there, and
# ends with the line `ok` and status 0, or with one line that says what failed and status 1. It is right when it passes on a file system
# of the kernel, where none of it needs DashFS. What it starts it ends, by process id; it waits for conditions, never for time.
#
# $T is the place to work in, $K a temporary directory of the kernel's for logs, sockets, and the programs that test.
set -u -o pipefail
export LC_ALL=C TZ=UTC
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin  # Debian's programs
NAME=$(basename "$0" .sh)
TARGET=${1:?usage: $NAME.sh DIRECTORY}
HERE=$(cd "$(dirname "$0")" && pwd)
T=$TARGET/$NAME
PYTHON=/usr/bin/python3  # Debian's, with Debian's test suite
STARTED=()
K=$(mktemp -d -p "${TMPDIR:-/tmp}" "real.XXXXXX")
chmod 755 "$K"

leave() {
    local process
    for process in ${STARTED[@]+"${STARTED[@]}"}; do kill -9 "$process" 2>/dev/null; done
    cd /
    rm -rf "$K" "$T"
}
trap leave EXIT

FAILURES=$K/failures

fail() { # fail TEXT: the verdict; with KEEP_GOING=1 one of several
    local text="$NAME: $*"
    printf '%s\n' "${text:0:3000}"
    [ -n "${KEEP_GOING:-}" ] || exit 1
    echo "$1" >>"$FAILURES"
}

must() { # must WHAT COMMAND…: the command succeeds; what it prints is in $K/said
    local what=$1 code
    shift
    "$@" >"$K/said" 2>&1
    code=$?
    [ "$code" = 0 ] || fail "$what: status $code: $(tail -c 1000 "$K/said")"
}

refused() { # refused WHAT COMMAND…: the command fails, and not by a signal
    local what=$1 code
    shift
    "$@" >"$K/said" 2>&1
    code=$?
    [ "$code" != 0 ] && [ "$code" -lt 128 ] || fail "$what: status $code: $(tail -c 1000 "$K/said")"
}

same() { # same WHAT SEEN EXPECTED
    if [ "$2" = "$3" ]; then
        return
    elif [ $((${#2} + ${#3})) -lt 600 ]; then
        fail "$1: '$2' is not '$3'"
    else
        fail "$1 (seen <, expected >): $(diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") | head -n 10)"
    fi
}

starts() { # starts WHAT COMMAND…: a process in the background, ended with the script; $! is its id
    local what=$1
    shift
    "$@" >"$K/$what.log" 2>&1 &
    STARTED+=($!)
}

until_true() { # until_true WHAT PROCESS COMMAND…: waits until the command succeeds, as long as the process lives
    local what=$1 process=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "$process" 2>/dev/null || { fail "$what: process $process has ended: $(tail -qn 12 "$K"/*.log | tail -c 1500)"; return 1; }
        sleep 0.05
    done
}

# The tree below a directory: kind, mode, owner, links, size, time and target of everything in it.
tree() {
    (cd "$1" && find . -mindepth 1 -type d -printf '%P %y %m %U:%G\n' -o -mindepth 1 -type l -printf '%P %y %l\n' \
        -o -mindepth 1 -printf '%P %y %m %U:%G %n %s %T@\n' | sort)
}

finish() {
    cd /
    must "remove everything" rm -rf "$T"
    [ ! -s "$FAILURES" ] || exit 1
    [ ! -e "$T" ] || fail "$T is still there"
    echo ok
    exit 0
}

rm -rf "$T"
mkdir -p "$T" || fail "cannot make $T"
