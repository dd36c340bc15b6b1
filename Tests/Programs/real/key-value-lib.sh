# For leveldb.sh and rocksdb.sh: key_value LIBRARY HOW…, HOW being the ways to read files that are tried.
key_value() {
    local library=$1 how round process count
    shift
    must "compile" gcc -O2 -Wall -Werror "-D${library^^}" -o "$K/kv" "$HERE/key_value.c" "-l$library"
    must "load" "$K/kv" load "$T/steps" 20000
    for how; do
        must "reopen and verify ($how)" "$K/kv" verify "$T/steps" 20000 "$how"
        must "load once more ($how)" "$K/kv" load "$T/steps" 20000 "$how"
        must "compact ($how)" "$K/kv" compact "$T/steps" 0 "$how"
        must "verify after that ($how)" "$K/kv" verify "$T/steps" 20000 "$how"
    done
    for round in 1 2 3; do  # a new database each time, so that the numbers begin at one
        "$K/kv" crash "$T/crash$round" >"$K/acknowledged" 2>"$K/crash.log" &
        process=$!
        STARTED+=("$process")
        until_true "acknowledged batches" "$process" bash -c '[ "$(wc -l <"$1")" -ge "$2" ]' count "$K/acknowledged" $((round * 250))
        refused "a second process opens the database" "$K/kv" check "$T/crash$round" 1
        grep -q -i lock "$K/said" || fail "a second process is refused for another reason: $(cat "$K/said")"
        kill -9 "$process"
        wait "$process" 2>/dev/null
        count=$(tail -n 1 "$K/acknowledged")
        must "after a kill behind batch $count" "$K/kv" check "$T/crash$round" "$count"
    done
}
