# gpg and its agent, tmux and its server: programs that start a daemon and talk to it by a UNIX socket in their directory, here on the file system under test.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"
export HOME=$T
unset TMUX

mkdir -m 700 keys
export GNUPGHOME=$T/keys
must "a key" gpg --batch --quiet --passphrase '' --quick-generate-key 'Somebody <somebody@example.org>' default default never
[ -S keys/S.gpg-agent ] || fail "the agent has no socket in its directory"
answers() { gpg-connect-agent --no-autostart 'getinfo pid' /bye 2>/dev/null | grep -q '^OK'; }
must "the agent answers" answers
seq 1 20000 >text
must "sign" gpg --batch --quiet --sign -o text.gpg text
must "verify" gpg --batch --quiet --verify text.gpg
must "encrypt to oneself" gpg --batch --quiet --trust-model always --encrypt --recipient somebody@example.org -o secret text
must "decrypt" gpg --batch --quiet --decrypt -o plain secret
must "the same text" cmp text plain
printf 'changed' | dd of=text.gpg bs=1 seek=1000 conv=notrunc status=none
refused "a changed signature" gpg --batch --quiet --verify text.gpg
must "end the agent" gpgconf --kill all
refused "an agent that has ended" answers

export TMUX_TMPDIR=$T
must "a session" tmux -f /dev/null new-session -d -s one "cat >typed; echo ended >end"
must "another client of the same server" tmux new-session -d -s two 'sleep 1000'
same "its sessions" "$(tmux list-sessions -F '#{session_name}')" $'one\ntwo'
must "typed into it" tmux send-keys -t one 'some words' Enter C-d
server=$(tmux display-message -p '#{pid}')
until_true "what was typed" "$server" test -s end
same "what was typed" "$(cat typed)" "some words"
must "a signal between two" bash -c 'tmux new-session -d -s three "tmux wait-for -S done; sleep 1000" && tmux wait-for done'
must "end the server" tmux kill-server
finish
