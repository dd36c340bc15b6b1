# PostgreSQL 15 with checksums and small segments of its log: initdb, pgbench with four clients, all its processes killed under load, recovery; three times.
# Afterwards pgbench's four sums are one, every transaction that was acknowledged is in the history, amcheck and pg_checksums find nothing, and a dump is what
# its restoration dumps. As root the server is the user postgres, since it refuses to be root.
. "$(dirname "$0")/lib.sh"
export PATH=/usr/lib/postgresql/15/bin:$PATH PGHOST=$K/run PGUSER=owner PGDATABASE=bench LANG=C
[ -x /usr/lib/postgresql/15/bin/postgres ] || fail "PostgreSQL 15 is not installed"
as=()
[ "$(id -u)" != 0 ] || as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
mkdir "$K/run" "$T/data" "$T/space"
[ ${#as[@]} = 0 ] || chown postgres:postgres "$K/run" "$T/data" "$T/space"
chmod 700 "$T/data" "$T/space"
cd "$K/run" || exit 1  # the server's user must be able to enter it

start() { # start N
    starts "postgres$1" ${as[@]+"${as[@]}"} postgres -D "$T/data" -c listen_addresses= -c unix_socket_directories="$K/run" -c shared_buffers=8MB \
        -c max_wal_size=32MB -c min_wal_size=16MB -c checkpoint_timeout=30s -c wal_keep_size=0 -c autovacuum_naptime=2s -c bgwriter_delay=20ms \
        -c full_page_writes=on -c fsync=on -c synchronous_commit=on -c log_checkpoints=on
    server=$!
    until_true "PostgreSQL" "$server" psql -qAt -d postgres -c 'SELECT 1'
}

ask() { psql -qAtX -v ON_ERROR_STOP=1 "$@"; }

kill_all() { # the server and every process of it at one moment
    kill -STOP "$server"
    local processes
    processes=$(ps -o pid= --ppid "$server")
    kill -9 $processes "$server"
    wait "$server" 2>/dev/null
    for process in $processes; do while kill -0 "$process" 2>/dev/null; do sleep 0.02; done; done
}

must "initdb" ${as[@]+"${as[@]}"} initdb -D "$T/data" -U owner -k --wal-segsize=1 --locale=C -E UTF8 -A trust
start 0
must "createdb" createdb bench
must "pgbench -i" pgbench -i -q -s 2 --foreign-keys
acknowledged=0
for round in 1 2 3; do
    before=$(ask -c 'SELECT count(*) FROM pgbench_history')
    pgbench -n -c 4 -j 2 -t 1000000 >"$K/pgbench" 2>"$K/pgbench.log" &
    load=$!
    STARTED+=("$load")
    until_true "committed transactions" "$load" bash -c '[ "$(psql -qAtX -c "SELECT count(*) FROM pgbench_history")" -ge "$1" ]' count $((before + 250))
    [ "$round" != 2 ] || must "CHECKPOINT under load" ask -c CHECKPOINT
    kill_all
    wait "$load"
    count=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$K/pgbench")
    [ "${count:-0}" -gt 0 ] || fail "round $round: pgbench says nothing: $(tail -n 5 "$K/pgbench" "$K/pgbench.log")"
    acknowledged=$((acknowledged + count))
    start "$round"
    grep -q 'database system was not properly shut down' "$K/postgres$round.log" || fail "round $round: there was no recovery"
    same "round $round: the sums of accounts, branches, tellers and history" "$(ask -c 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
        (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history), (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)')" "t|t|t"
    history=$(ask -c 'SELECT count(*) FROM pgbench_history')
    [ "$history" -ge "$acknowledged" ] && [ "$history" -le $((acknowledged + 4 * round)) ] || fail "round $round: $history transactions in the history, $acknowledged were acknowledged"
    same "round $round: accounts" "$(ask -c 'SELECT count(*), count(DISTINCT aid) FROM pgbench_accounts')" "200000|200000"
done

must "a tablespace" ask -c "CREATE TABLESPACE elsewhere LOCATION '$T/space'"
must "tables in it, larger than its buffers" ask -c "CREATE TABLE big TABLESPACE elsewhere AS SELECT i, md5(i::text) AS m, repeat('x', i % 300) AS r FROM generate_series(1, 60000) i" \
    -c "CREATE INDEX ON big(m)" -c "CREATE INDEX ON big USING gin (string_to_array(r, 'xx'))" -c "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT * FROM big ORDER BY m OFFSET 100) s" \
    -c "VACUUM FULL pgbench_history" -c "REINDEX DATABASE bench"
must "COPY to and from a file" ask -c "COPY big TO '$T/space/copy'" -c "CREATE TABLE again (LIKE big)" -c "COPY again FROM '$T/space/copy'"
same "COPY" "$(ask -c 'SELECT count(*) FROM (SELECT * FROM big EXCEPT SELECT * FROM again) d')" 0
must "amcheck" pg_amcheck --install-missing --heapallindexed bench
must "pg_dump" pg_dump -f "$K/dump.sql" bench
must "CREATE DATABASE" createdb other
must "restore" psql -qX -v ON_ERROR_STOP=1 -d other -f "$K/dump.sql"
must "pg_dump of the restoration" pg_dump -f "$K/dump2.sql" other
same "a dump of a restored dump" "$(grep -v restrict "$K/dump2.sql" | sort | cksum)" "$(grep -v restrict "$K/dump.sql" | sort | cksum)"
must "DROP DATABASE" dropdb other
kill -INT "$server"
wait "$server" || fail "PostgreSQL ended with $?: $(tail -n 5 "$K/postgres3.log")"
must "pg_checksums" ${as[@]+"${as[@]}"} pg_checksums --check -D "$T/data"
same "a state in order" "$(${as[@]+"${as[@]}"} pg_controldata -D "$T/data" | sed -n 's/^Database cluster state: *//p')" "shut down"
finish
