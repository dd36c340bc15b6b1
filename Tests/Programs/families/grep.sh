# grep -r in its ways.
. "$(dirname "$0")/lib.sh"

cp -a "$SOURCE" "$T/in"
for options in "-rn struct" "-rl ioctl" "-rc define" "-rw int" "-rE _IO[RW]+" "-rhoi version" "-rL include" "-rn -A1 -B1 EOPNOTSUPP"; do
    ours=$(cd / && grep $options "$T/in" | sed "s|$T/in||" | sort | sha256sum)
    theirs=$(cd / && grep $options "$SOURCE" | sed "s|$SOURCE||" | sort | sha256sum)
    equal "grep $options" "$ours" "$theirs"
done
refuse "grep finds nothing" grep -rq 'no such words anywhere' "$T/in"
printf 'text\0binary' | tee "$T/binary" >/dev/null
equal "binary" "$(grep -c binary "$T/binary")" 1
grep -r text "$T/binary" 2>&1 | sed "s|$T||"
refuse "grep of nothing" grep x "$T/absent"
awk 'END {print NR}' "$T/in/types.h" | wc -l
finish
