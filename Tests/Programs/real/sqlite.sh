# sqlite3 with four writing processes and a reading one, its database mapped into memory, with a rollback journal and with a write-ahead log. Each
# transaction moves money between two accounts and notes that it did; the sum is the same at each moment, and no note is missing.
. "$(dirname "$0")/lib.sh"
COUNT=60
cd "$T" || fail "cannot enter $T"

writer() { # writer DATABASE N JOURNAL
    { echo ".bail on"
      echo "PRAGMA busy_timeout=100000; PRAGMA journal_mode=$3; PRAGMA mmap_size=268435456; PRAGMA cache_size=20; PRAGMA synchronous=FULL;"
      for i in $(seq 1 $COUNT); do
          from=$(((i * 7 + $2 * 31) % 200)) to=$(((i * 13 + $2 * 17) % 200))
          echo "BEGIN IMMEDIATE; UPDATE account SET balance = balance - $i WHERE id = $from; UPDATE account SET balance = balance + $i WHERE id = $to;
                INSERT INTO note(writer, turn, text) VALUES($2, $i, hex(randomblob(400))); COMMIT;"
      done; } | sqlite3 "$1" >/dev/null
}

reader() { # reader DATABASE STOP: each sum that was seen
    { echo "PRAGMA busy_timeout=100000; PRAGMA mmap_size=268435456;"
      until [ -e "$2" ]; do echo "SELECT sum(balance) || ' of ' || count(*) FROM account;"; sleep 0.01; done
      echo "SELECT sum(balance) || ' of ' || count(*) FROM account;"; } | sqlite3 "$1" | tail -n +3 | sort | uniq -c
}

for journal in DELETE PERSIST WAL; do
    database=$T/$journal.db
    must "$journal: a database" sqlite3 "$database" "PRAGMA journal_mode=$journal; PRAGMA mmap_size=268435456;
        CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT); CREATE TABLE note(writer INTEGER, turn INTEGER, text TEXT, PRIMARY KEY(writer, turn));
        CREATE INDEX texts ON note(text);
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199) INSERT INTO account SELECT i, 1000, hex(randomblob(300)) FROM n;"
    same "$journal: the way of its journal" "$(sqlite3 "$database" 'PRAGMA journal_mode')" "$(tr A-Z a-z <<<"${journal/PERSIST/DELETE}")"
    reader "$database" "$K/$journal.stop" >"$K/$journal.sums" 2>"$K/$journal.errors" &
    reading=$!
    STARTED+=($reading)
    writing=()
    for n in 1 2 3 4; do
        writer "$database" "$n" "$journal" 2>>"$K/$journal.errors" &
        writing+=($!)
    done
    STARTED+=("${writing[@]}")
    for process in "${writing[@]}"; do wait "$process" || fail "$journal: a writer ended with $?: $(head -c 600 "$K/$journal.errors")"; done
    touch "$K/$journal.stop"
    wait "$reading" || fail "$journal: the reader ended with $?: $(head -c 600 "$K/$journal.errors")"
    same "$journal: errors" "$(cat "$K/$journal.errors")" ""
    same "$journal: all sums that were seen" "$(sed 's/^ *[0-9]* //' "$K/$journal.sums")" "200000 of 200"
    same "$journal: the sum" "$(sqlite3 "$database" 'SELECT sum(balance) FROM account')" 200000
    same "$journal: the notes" "$(sqlite3 "$database" 'SELECT writer, count(*), sum(turn) FROM note GROUP BY writer' | tr '\n' ' ')" \
        "$(for n in 1 2 3 4; do printf '%s|%s|%s ' $n $COUNT $((COUNT * (COUNT + 1) / 2)); done)"
    same "$journal: integrity_check" "$(sqlite3 "$database" 'PRAGMA mmap_size=268435456; PRAGMA integrity_check' | tail -n 1)" ok
    same "$journal: integrity_check without a map" "$(sqlite3 "$database" 'PRAGMA mmap_size=0; PRAGMA integrity_check' | tail -n 1)" ok
    must "$journal: VACUUM" sqlite3 "$database" "PRAGMA mmap_size=268435456; DELETE FROM note WHERE turn % 2; VACUUM;"
    same "$journal: after VACUUM" "$(sqlite3 "$database" 'PRAGMA integrity_check; SELECT count(*) FROM note' | tr '\n' ' ')" "ok $((COUNT * 2)) "
done

# Killed in the middle of a transaction that has begun to change the file: what it did is undone.
for journal in DELETE WAL; do
    database=$T/$journal.db
    mkfifo "$K/commands-$journal"
    before=$(sqlite3 "$database" 'SELECT sum(balance), count(*) FROM account; SELECT count(*) FROM note')
    sqlite3 "$database" <"$K/commands-$journal" >"$K/answers-$journal" 2>&1 &
    process=$!
    STARTED+=($process)
    exec 8>"$K/commands-$journal"
    echo "PRAGMA cache_size=5; PRAGMA cache_spill=1; BEGIN IMMEDIATE; UPDATE account SET balance = 0, filler = filler || filler; DELETE FROM note; SELECT 'deep in it';" >&8
    until_true "$journal: a transaction" "$process" grep -q -i -e 'deep in it' -e error "$K/answers-$journal"
    same "$journal: what a transaction says" "$(cat "$K/answers-$journal")" "deep in it"
    kill -9 "$process"
    wait "$process" 2>/dev/null
    exec 8>&-
    same "$journal: after a kill" "$(sqlite3 "$database" 'SELECT sum(balance), count(*) FROM account; SELECT count(*) FROM note')" "$before"
    same "$journal: integrity after a kill" "$(sqlite3 "$database" 'PRAGMA integrity_check')" ok
done
same "what is left" "$(ls | tr '\n' ' ')" "DELETE.db PERSIST.db WAL.db "
finish
