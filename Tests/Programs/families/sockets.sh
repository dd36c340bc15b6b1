# UNIX sockets whose names are in TARGET, and named pipes there: between threads, processes, users, and other programs.
. "$(dirname "$0")/lib.sh"
python3 "$(dirname "$0")/sockets.py" "$T" 2>&1 || FAILED="sockets.py; "
CHECKS=$((CHECKS + 1))

# Pipes, as shells use them.
mkdir "$T/shell" && cd "$T/shell" || exit 1
mkfifo pipe
cat pipe >copy & seq 1 100000 >pipe
wait
equal "a pipe between two programs" "$(cksum <copy)" "$(seq 1 100000 | cksum)"
tee one two <pipe >/dev/null & { echo a; echo b; } >pipe
wait
equal "tee of a pipe" "$(cat one two)" "$(printf 'a\nb\na\nb')"
exec 7<>pipe
echo "for itself" >&7
read -r line <&7
equal "both ends in one shell" "$line" "for itself"
exec 7>&-
mkfifo back
bash -c 'while read -r line <pipe && [ "$line" != end ]; do echo "answer to $line" >back; done' &
answers=
for question in one two three; do
    echo $question >pipe
    answers="$answers$(cat back), "
done
echo end >pipe
wait
equal "questions and answers" "$answers" "answer to one, answer to two, answer to three, "
mv pipe moved && ln moved linked
cat linked >copy & echo "by another name" >moved
wait
equal "a pipe that has been renamed and linked" "$(cat copy)" "by another name"
rm linked && mkfifo linked
check "a new pipe of an old name" bash -c '(echo new >linked) & read -t 20 -r line <linked; [ "$line" = new ]'
refuse "a pipe that is written without readers, not waiting" dd if=/dev/zero of=moved oflag=nonblock conv=nocreat,notrunc count=1 status=none
equal "kinds" "$(stat -c '%F %n' moved back)" "$(printf 'fifo moved\nfifo back')"
finish
