# sqlite3 with a rollback journal in its ways, with WAL in exclusive mode, with locks between two processes; integrity_check after each.
. "$(dirname "$0")/lib.sh"

fill="CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, bytes BLOB); CREATE INDEX names ON t(name);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO t SELECT i, 'name ' || (i * 7919 % 3001), zeroblob(i % 700) FROM n;
UPDATE t SET name = name || '!' WHERE id % 3 = 0; DELETE FROM t WHERE id % 11 = 0;"
ask="SELECT count(*), sum(length(bytes)), sum(id), min(name), max(name) FROM t; SELECT count(*) FROM t WHERE name LIKE 'name 1%';"
want=$(sqlite3 :memory: "$fill $ask")

for journal in DELETE TRUNCATE PERSIST MEMORY; do
    db=$T/$journal.db
    check "fill with journal_mode=$journal" sqlite3 "$db" "PRAGMA journal_mode=$journal; PRAGMA synchronous=FULL; $fill"
    equal "its rows" "$(sqlite3 "$db" "$ask")" "$want"
    equal "integrity" "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok
done

db=$T/wal.db
check "fill with WAL" sqlite3 "$db" "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=50; $fill"
equal "its rows" "$(sqlite3 "$db" "PRAGMA locking_mode=EXCLUSIVE; $ask" | tail -n +2)" "$want"
equal "integrity" "$(sqlite3 "$db" 'PRAGMA locking_mode=EXCLUSIVE; PRAGMA integrity_check' | tail -n 1)" ok
check "a checkpoint" sqlite3 "$db" "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(name) VALUES('last'); PRAGMA wal_checkpoint(TRUNCATE);"
check "back to DELETE" sqlite3 "$db" "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=DELETE;"

db=$T/DELETE.db
check "a transaction undone" sqlite3 "$db" "BEGIN; DELETE FROM t; ROLLBACK;"
equal "its rows" "$(sqlite3 "$db" "$ask")" "$want"
check "VACUUM" sqlite3 "$db" "VACUUM"
check ".backup" sqlite3 "$db" ".backup '$T/backup.db'"
equal "the backup's rows" "$(sqlite3 "$T/backup.db" "$ask")" "$want"
check "ATTACH" sqlite3 "$db" "ATTACH '$T/backup.db' AS b; BEGIN; DELETE FROM t WHERE id < 100; DELETE FROM b.t WHERE id < 100; COMMIT;"
equal "both changed" "$(sqlite3 "$db" "$ask")" "$(sqlite3 "$T/backup.db" "$ask")"
equal ".dump" "$(sqlite3 "$db" .dump | sha256sum)" "$(sqlite3 "$T/backup.db" .dump | sha256sum)"

# Record locks between processes: while one holds a write transaction, another's attempt is refused; afterwards it succeeds.
mkfifo "$KERNEL/commands" "$KERNEL/answers"
sqlite3 "$db" <"$KERNEL/commands" >"$KERNEL/answers" &
holder=$!
exec 8>"$KERNEL/commands" 9<"$KERNEL/answers"
echo "BEGIN IMMEDIATE; INSERT INTO t(name) VALUES('held'); SELECT 'holding';" >&8
read -r -t 20 line <&9
equal "the first holds" "$line" holding
refuse "the second may not write" sqlite3 "$db" "INSERT INTO t(name) VALUES('second')"
check "the second may read" sqlite3 "$db" "SELECT 1 FROM t LIMIT 1"
printf '%s\n' "COMMIT;" "SELECT 'done';" >&8
read -r -t 20 line <&9
equal "the first is done" "$line" done
check "now the second writes" sqlite3 "$db" "INSERT INTO t(name) VALUES('second')"
exec 8>&- 9<&-
wait $holder
equal "both rows" "$(sqlite3 "$db" "SELECT count(*) FROM t WHERE name IN ('held', 'second')")" 2
equal "integrity" "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok
ls "$T"
finish
