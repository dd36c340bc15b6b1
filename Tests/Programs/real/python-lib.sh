# For python-*.sh: test modules of Debian's Python with TMPDIR on the volume. What fails there has to fail on the kernel's file system, too, where
# it is tried again, without DashFS, when something has failed; as root and on ext4 nothing does. MODULES is the list.
python_tests() {
    mkdir "$T/temporary"
    local module output code expected
    for module; do
        output=$K/$module
        (cd "$T/temporary" && TMPDIR=$T/temporary "$PYTHON" -m test -v "$module") >"$output" 2>&1 </dev/null
        code=$?
        [ "$code" = 0 ] && { [ "$(grep -c '^Result: SUCCESS\|^== Tests result: SUCCESS' "$output")" -ge 1 ] || fail "$module: no verdict: $(tail -n 3 "$output")"; continue; }
        failures "$output" >"$output.seen"
        [ -s "$output.seen" ] || fail "$module: status $code: $(tail -n 5 "$output")"
        (cd "$K" && env -u LD_PRELOAD TMPDIR="$K" "$PYTHON" -m test -v "$module") >"$output.kernel" 2>&1 </dev/null
        failures "$output.kernel" >"$output.expected"
        expected=$(comm -23 "$output.seen" "$output.expected")
        [ -z "$expected" ] || { detail "$output"; fail "$module: $(wc -l <<<"$expected") failures that the kernel's file system does not have: $(tr '\n' ' ' <<<"$expected" | cut -c1-2400)"; }
    done
    same "what the tests left" "$(ls -A "$T/temporary")" ""
}

failures() { grep -E '^(FAIL|ERROR): ' "$1" | sed -E 's/^[A-Z]+: //; s/ \(.*\.([A-Za-z_]+)\.[a-z_A-Z0-9]+\).*/ (\1)/; s/ \(setUpClass.*//' | sort -u; }

detail() { [ -z "${DETAILS:-}" ] || cp "$1" "$DETAILS/"; }
