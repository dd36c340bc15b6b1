#!/bin/bash
# What power_cut.py cuts: steps that are made durable one by one, beside noise; the server killed in the middle of the noise; more of both under a
# new server, which recovers; an end in order. A short journal and a small cache, so that blocks go home all the time.
set -euo pipefail
address=0000:00:04.0 device=nvme:0000:00:04.0
program=$PWD/power_cut
here=$PWD
cd "$(mktemp -d)"
. "$here/common"
# Nobody is to wait for the server that is killed.
on() { exec dashfs run --socket socket --timeout 0 -- "$@"; }
steps() {  # steps FIRST LAST
    on "$program" noise /dash 2>noise &
    noise=$!
    (on "$program" work /dash "$1" "$2") || fail "a step"
    kill -0 "$noise" 2>/dev/null || fail "the noise has ended: $(cat noise)"
}

echo "-- a volume, and steps"
dashfs device bind "$address" --force
dashfs format "$device" --journal 1M --force
serving --cache 4M
(on bash -c 'mkdir /dash/steps /dash/noise && sync')
steps 0 120
echo "-- the server killed"
kill -9 "$server"
wait "$server" || true
wait "$noise" || true
echo "-- a new server, and more steps"
serving --cache 4M
steps 120 240
echo "-- the end"
kill "$noise"
wait "$noise" || true
stop
