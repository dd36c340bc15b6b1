# bash: redirections that child processes share, here-documents, pipelines, subshells, background jobs, exec, read loops, process
# substitution, noclobber, and programs and scripts that lie on the volume.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"

# One open file and its offset, for built-ins and programs alike.
{ echo built-in; /bin/echo program; (echo subshell; /bin/echo "its program"); echo last; } >order
same "one offset for all writers" "$(cat order | tr '\n' ' ')" "built-in program subshell its program last "
/bin/echo more >>order
same ">> of a program" "$(tail -n 1 order)" more
cat <order >copy
same "cat <in >out" "$(cmp order copy && echo same)" same
seq 1 20 >lines
{ read -r first; head -n 1; read -r third; } <lines >seen
same "one offset for all readers" "$(cat seen) $third" "2 3"
exec 3<>update
echo 0123456789 >&3
/bin/echo abc >&3
exec 3<&-
same "<> and >&3" "$(cat update)" $'0123456789\nabc'
exec 3<lines 4>numbers
while read -r -u 3 n; do
    [ "$n" -gt 10 ] && break
    expr "$n" + 100 >&4
done
exec 5<&3- 4>&-
same "the offset goes with the descriptor that is moved" "$(tail -n +1 <&5 | head -n 1) $(wc -l <numbers)" "12 10"
exec 5<&-
ls /nowhere >order 2>both
ls /nowhere lines >both 2>&1
same "2>&1 behind >" "$(wc -l <both)" 2
same "2>&1 before >" "$(ls /nowhere lines 2>&1 >both | grep -c nowhere) $(cat both)" "1 lines"
ls /nowhere lines &>>both
same "&>>" "$(wc -l <both)" 3
(exec >whole 2>&1; echo one; /bin/echo two; ls /nowhere; exec 1>&2; echo three)
same "exec > of a whole shell" "$(wc -l <whole)" 4
exec {named}>by-name
/bin/echo "by name" >&"$named"
exec {named}>&-
same "{named}>" "$(cat by-name)" "by name"
: >empty
same "input at its end" "$(cat <empty | wc -c)" 0
(echo x >&7) 2>/dev/null && fail "a closed descriptor took a write"

# Here-documents: short ones are pipes, those longer than a pipe are files in TMPDIR, which here is on the volume.
short=$(cat <<END
$(expr 1 + 1) and ${#T}
END
)
same "a here-document" "$short" "2 and ${#T}"
big=$(seq 1 40000)
sum=$(printf '%s\n' "$big" | cksum)
mkdir temporary
same "a long here-document" "$(TMPDIR=$T/temporary cksum <<END
$big
END
)" "$sum"
same "a long here-string" "$(TMPDIR=$T/temporary cksum <<<"$big")" "$sum"
same "nothing left of here-documents" "$(ls temporary)" ""

# Pipelines.
seq 1 1000 | sort -rn >sorted
same "a pipeline into a file" "$(head -n 1 sorted)" 1000
cat <sorted | sort -n | tail -n 1 | { read -r n; echo "$n"; } >last
same "from a file through a pipeline into a file" "$(cat last)" 1000
false | true <lines | (exit 3) >status
same "PIPESTATUS" "${PIPESTATUS[*]}" "1 0 3"
tee one two <lines >three
same "tee" "$(cat one two three | wc -l)" 60
yes <lines | head -n 100000 >many
same "a writer ended by SIGPIPE" "$(wc -l <many)" 100000

# Subshells and background jobs.
: >log
for job in 1 2 3 4; do
    (for i in $(seq 1 100); do echo "$job $i"; done >>log; /bin/echo "$job end" >>log) &
done
wait
same "lines of four background jobs" "$(wc -l <log) $(sort -u log | wc -l)" "404 404"
{ sleep 0; cat lines >from-job; exit 7; } &
wait $!
same "the status of a job" "$?" 7
exec 6>shared
for job in 1 2 3 4; do (for i in 1 2 3 4 5 6 7 8 9 10; do /bin/echo "line of $job" >&6; done) & done
wait
exec 6>&-
same "four jobs that share one open file" "$(sort shared | uniq -c | tr -s ' ' | tr '\n' ';')" \
    " 10 line of 1; 10 line of 2; 10 line of 3; 10 line of 4;"
value=kept
(value=changed; cd / && echo "$value" >"$T/in-subshell")
same "a subshell's variable and directory" "$value ${PWD##*/} $(cat in-subshell)" "kept bash changed"
coproc { while read -r line; do echo "<$line>"; done <lines; read -r line; echo "$line" >from-coprocess; }
coprocess=$COPROC_PID
read -r -t 60 line <&"${COPROC[0]}" || fail "a coprocess says nothing"
echo "$line" >&"${COPROC[1]}"
wait "$coprocess"
same "a coprocess that reads and writes files" "$(cat from-coprocess)" "<1>"
(trap 'echo trapped >trapped' EXIT; exit 0)
same "a trap's redirection" "$(cat trapped)" trapped

# Read loops whose body runs programs.
total=0
while read -r n; do
    total=$(expr "$total" + "$n")
    /bin/true </dev/null
done <lines
same "a read loop" "$total" 210
n=0
while IFS= read -r -d '' name; do n=$((n + 1)); done < <(find . -type f -print0)
same "a read loop over find" "$n" "$(find . -type f | wc -l)"
mapfile -t array <lines
same "mapfile" "${#array[@]} ${array[19]}" "20 20"

# Process substitution.
same "diff of two sorts" "$(diff <(sort lines) <(sort -r lines | sort) && echo none)" none
same "a program reads a file's descriptor by its path" "$(wc -l /dev/fd/8 8<lines)" "20 /dev/fd/8"
seq 1 500 | tee >(wc -l >counted; echo done >finished) >passed
until [ -s finished ]; do sleep 0.02; done
same "a process at the end of tee" "$(cat counted) $(wc -l <passed)" "500 500"

# noclobber.
set -C
echo keep >fresh
(echo lost >fresh) 2>/dev/null && fail "noclobber did not hold"
(/bin/echo lost >fresh) 2>/dev/null && fail "noclobber did not hold for a program"
same "noclobber" "$(cat fresh)" keep
/bin/echo forced >|fresh
/bin/echo appended >>fresh
set +C
same ">|" "$(cat fresh)" $'forced\nappended'

# Scripts and programs on the volume.
printf '%s\n' '#!/bin/bash' 'echo "$0 $# $2"; cat' >script
(./script) 2>/dev/null </dev/null && fail "a script without x was executed"
chmod 755 script
same "a script" "$(echo input | ./script a 'b c')" $'./script 2 b c\ninput'
printf '%s\n' '#!/usr/bin/env -S bash -eu' 'echo "env: $1"; exec /bin/echo replaced' >with-env
printf '%s\n' 'echo "no interpreter: $1"' >plain
printf '%s\n' "#!$T/script first" >nested
chmod 755 with-env plain nested
same "env -S" "$(./with-env x)" $'env: x\nreplaced'
same "a script without #!" "$(./plain y)" "no interpreter: y"
printf '%s\n' 'echo one; read -r line; echo "<$line>"' data 'cat' rest >standard-input
same "a shell that shares its script with its children" "$(bash <standard-input)" $'one\n<data>\nrest'
same "bash NAME" "$(echo word | bash script 1 2)" $'script 2 2\nword'
same "source" "$(. ./plain z)" "no interpreter: z"
cp /bin/echo own-echo
same "a program" "$(./own-echo hello)" hello
same "a program by PATH" "$(PATH=$T:$PATH own-echo hello)" hello
(exec ./own-echo replaced) >replaced
same "exec of a program with its output on the volume" "$(cat replaced)" replaced
./nowhere 2>/dev/null
same "a program that is not there" "$?" 127
./lines 2>/dev/null
same "a file that is no program" "$?" 126
mkdir bin
ln -s ../own-echo bin/linked
same "a program by a link" "$(bin/linked by link)" "by link"
finish
