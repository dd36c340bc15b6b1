# Children and other programs that inherit open files, and programs that lie in TARGET.
. "$(dirname "$0")/lib.sh"
check "processes.py" python3 "$(dirname "$0")/processes.py" "$T" "$KERNEL"
cd "$T"
check "a pipeline into a file" bash -c 'printf "%s\n" b a c | sort >sorted && cat sorted'
check "background jobs" bash -c 'for i in 1 2 3; do echo $i >>jobs & done; wait; sort jobs'
check "nested redirections" bash -c '{ echo out; echo err >&2; } >both 2>&1; cat both; { { echo 3 >&3; } 3>three; } >none; cat three; wc -c <none'
check "a loop over a file" bash -c 'while read -r a; do echo "<$a>"; head -c 0; done <sorted >read; cat read'
check "process substitution" bash -c 'diff <(cat sorted) sorted && echo same'
check "a coprocess" bash -c 'coproc cat; echo word >&"${COPROC[1]}"; read -r w <&"${COPROC[0]}"; echo "$w" >word; cat word'
check "noclobber" bash -c 'set -C; echo x >clobber && ! echo y >clobber 2>/dev/null; cat clobber'
check "exec with a file" bash -c 'exec >whole; echo one; bash -c "echo two"; (echo three)'
check "and what it says" cat whole
cd /
finish
