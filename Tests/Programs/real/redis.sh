# Redis with an append-only file and appendfsync always: killed under the load of four connections, with its log being rewritten meanwhile. Every key whose
# write was acknowledged is there afterwards, and no other. Three times, then a snapshot and an orderly end.
. "$(dirname "$0")/lib.sh"
socket=$K/redis.sock
must "a directory" mkdir "$T/data"

start() { # start N: a server that answers; $server is its process
    starts "redis$1" redis-server --dir "$T/data" --port 0 --unixsocket "$socket" --appendonly yes --appendfsync always --save '' \
        --auto-aof-rewrite-percentage 0 --repl-diskless-sync no --daemonize no
    server=$!
    until_true "Redis" "$server" bash -c '[ "$(redis-cli -s "$1" ping)" = PONG ]' ping "$socket"
}

ask() { redis-cli -s "$socket" "$@"; }

start 0
same "appendfsync" "$(ask config get appendfsync | tail -n 1)" always
: >"$K/acknowledged"
more() { # more N: that many more writes are acknowledged
    until_true "acknowledged writes" "$load" bash -c '[ "$(wc -l <"$1")" -ge "$2" ]' count "$K/acknowledged" $(($(wc -l <"$K/acknowledged") + $1))
}
for round in 1 2 3; do
    "$PYTHON" "$HERE/redis_load.py" write "$socket" "$K/acknowledged" "$round" 2>"$K/load.log" &
    load=$!
    STARTED+=("$load")
    more 400
    ask bgrewriteaof >/dev/null || fail "BGREWRITEAOF is refused"
    more 200
    kill -9 "$server"
    wait "$server" 2>/dev/null
    wait "$load" || fail "the load ended with $?: $(cat "$K/load.log")"
    start "$round"
    must "round $round: every acknowledged key" "$PYTHON" "$HERE/redis_load.py" verify "$socket" "$K/acknowledged"
    ask bgrewriteaof >/dev/null
    until_true "the rewriting of the log" "$server" bash -c 'redis-cli -s "$1" info persistence | grep -q "aof_rewrite_in_progress:0"' rewriting "$socket"
    same "round $round: the rewriting of the log" "$(ask info persistence | tr -d '\r' | grep aof_last_bgrewrite_status)" aof_last_bgrewrite_status:ok
done
must "redis-check-aof" redis-check-aof "$T"/data/appendonlydir/*.manifest
must "a snapshot" redis-cli -s "$socket" save
must "redis-check-rdb" redis-check-rdb "$T/data/dump.rdb"
ask shutdown nosave >/dev/null 2>&1
wait "$server" || fail "Redis ended with $?"
start last
must "after an orderly end" "$PYTHON" "$HERE/redis_load.py" verify "$socket" "$K/acknowledged"
ask shutdown nosave >/dev/null 2>&1
wait "$server" || fail "Redis ended with $?"
finish
