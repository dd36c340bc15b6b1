# git: 300 imported commits and 120 made one by one, branches, merges, a conflict, tags, rebase, stash, clone, fetch, push, worktree, repack, gc, fsck.
# What the imported history is called is told by the same import on a file system of the kernel.
. "$(dirname "$0")/lib.sh"
export HOME=$K GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 GIT_EDITOR=true GIT_PAGER=cat
cat >"$K/.gitconfig" <<'END'
[user]
    name = A Writer
    email = writer@example.org
[init]
    defaultBranch = main
[core]
    fsync = committed
[gc]
    auto = 0
[protocol "file"]
    allow = always
[advice]
    detachedHead = false
END
stamp() { # stamp N: the time of commit N
    export GIT_AUTHOR_DATE="$((1700000000 + $1 * 60)) +0000" GIT_COMMITTER_DATE="$((1700000000 + $1 * 60)) +0000"
}
stamp 0
stream() {
    "$PYTHON" - <<'END'
import random
rng = random.Random(4)
write = lambda text: print(text, end="")
files = {}
for n in range(1, 301):
    changed = {}
    for _ in range(rng.randrange(1, 6)):
        name = f"d{rng.randrange(8)}/s{rng.randrange(4)}/f{rng.randrange(30)}.txt"
        lines = files.get(name, [])[:]
        for _ in range(rng.randrange(1, 30)):
            lines.insert(rng.randrange(len(lines) + 1), f"{rng.getrandbits(64):x} {n}\n")
        files[name] = changed[name] = lines
    message = f"commit {n}\n"
    write(f"commit refs/heads/main\nmark :{n}\ncommitter A <a@example.org> {1600000000 + n * 60} +0000\ndata {len(message)}\n{message}")
    for name, lines in changed.items():
        text = "".join(lines)
        write(f"M 100644 inline {name}\ndata {len(text)}\n{text}\n")
END
}
stream >"$K/stream"
import() { git init -q "$1" && git -C "$1" fast-import --quiet <"$K/stream" && git -C "$1" checkout -q -f main; }
must "the same history on the kernel's side" import "$K/expected"
must "git fast-import" import "$T/repo"
same "the history's name" "$(git -C "$T/repo" rev-parse main)" "$(git -C "$K/expected" rev-parse main)"
must "the working tree" diff -r --exclude=.git "$K/expected" "$T/repo"
cd "$T/repo" || fail "cannot enter the repository"
must "git fsck" git fsck --full --strict
same "git status" "$(git status --porcelain)" ""

for n in $(seq 1 120); do
    stamp $((1000000 + n))
    echo "line $n" >>"d$((n % 8))/log"
    echo "$n" >"new-$((n % 10))"
    must "git add" git add -A
    must "git commit $n" git commit -q -m "change $n"
    if [ $((n % 30)) = 0 ]; then
        must "git tag" git tag -a "v$n" -m "version $n"
        must "git branch" git branch "topic-$n"
    fi
done
same "git log" "$(git log --oneline | wc -l)" 420
must "git fsck of loose objects" git fsck --full --strict

must "git switch" git switch -q topic-60
echo "on the topic" >topic && sed -i 1d d1/log
must "git commit -a" bash -c 'git add topic && git commit -q -a -m "on the topic"'
must "git switch main" git switch -q main
must "git merge" git merge -q --no-edit topic-60
same "the merge" "$(git log -1 --format=%P | wc -w) $(cat topic)" "2 on the topic"
must "git switch -c" git switch -q -c other v90
echo "their way" >new-1
must "git commit on other" git commit -q -a -m "their way"
must "git switch back" git switch -q main
refused "git merge with a conflict" git merge other
same "the conflict" "$(grep -c '^<<<<<<<' new-1) $(git status --porcelain new-1)" "1 UU new-1"
echo both >new-1
must "git commit of the resolved merge" bash -c 'git add new-1 && git commit -q --no-edit'
must "git rebase" bash -c 'git switch -q -c moved v30 && for i in 1 2 3; do echo $i >rebased-$i && git add . && git commit -q -m "r$i" || exit 1; done && git rebase -q main'
same "git rebase" "$(git log --oneline main..moved | wc -l)" 3
must "git merge --ff-only" bash -c 'git switch -q main && git merge -q --ff-only moved'
must "git stash" bash -c 'echo unfinished >>topic && git stash -q && [ "$(cat topic)" = "on the topic" ] && git stash pop -q && grep -q unfinished topic && git checkout -q topic'
must "git mv, rm" bash -c 'git mv topic renamed && git rm -q new-2 && git commit -q -m "renamed" && git log --follow --oneline renamed | grep -q "on the topic"'
must "git bisect" bash -c 'git bisect start main v30 && git bisect run sh -c "! grep -q \"line 77\" d5/log" && git bisect log | grep "first bad commit" && git bisect reset'
grep -q 'change 77' "$K/said" || fail "git bisect found something else: $(tail -n 3 "$K/said")"
must "git blame" git blame d5/log
must "git grep" git grep -q 'line 77'

head=$(git rev-parse main)
must "git clone" git clone -q "$T/repo" "$T/linked"
must "git clone --no-hardlinks" git clone -q --no-hardlinks "$T/repo" "$T/copied"
must "git clone by a pack" git clone -q --bare "file://$T/repo" "$T/bare.git"
must "git clone --depth" git clone -q --depth 5 "file://$T/repo" "$T/shallow"
must "git clone to the kernel's side" git clone -q "file://$T/repo" "$K/out"
for clone in "$T/linked" "$T/copied" "$T/bare.git" "$T/shallow" "$K/out"; do
    same "the head of $clone" "$(git -C "$clone" rev-parse HEAD)" "$head"
    must "git fsck of $clone" git -C "$clone" fsck --full
done
must "diff -r of the clones" diff -r --exclude=.git "$T/repo" "$T/copied"
must "a push" bash -c 'cd "$1/copied" && echo pushed >pushed && git add . && git commit -q -m pushed && git push -q "$1/bare.git" main:main' push "$T"
must "a fetch" git fetch -q "$T/bare.git" main:pushed
same "what was pushed and fetched" "$(git show pushed:pushed)" pushed
must "git worktree" bash -c 'git worktree add -q "$1/second" pushed && [ "$(cat "$1/second/pushed")" = pushed ] && git worktree remove "$1/second"' worktree "$T"
must "git archive" bash -c 'mkdir "$1/export" && git archive --format=tar main | tar -xf - -C "$1/export" && diff -r --exclude=.git "$1/linked" "$1/export"' archive "$T"
must "git bundle" bash -c 'git bundle create -q ../all.bundle --all && git bundle verify -q ../all.bundle && git clone -q ../all.bundle ../from-bundle'

must "git repack" git repack -q -a -d -f --depth=50 --window=20 --write-bitmap-index
must "git fsck after repack" git fsck --full --strict
must "git pack-refs, reflog expire" bash -c 'git pack-refs --all && git reflog expire --expire=now --all'
must "git branch -D" git branch -q -D other pushed
must "git gc" git gc -q --prune=now --aggressive
same "one pack and no loose object" "$(git count-objects -v | grep -E '^(count|packs|garbage)' | tr '\n' ' ')" "count: 0 packs: 1 garbage: 0 "
must "git fsck after gc" git fsck --full --strict
must "git multi-pack-index, commit-graph" bash -c 'git multi-pack-index write && git multi-pack-index verify && git commit-graph write --reachable && git commit-graph verify'
must "git verify-pack" bash -c 'git verify-pack .git/objects/pack/*.idx'
same "the head at the end" "$(git rev-parse main) $(git status --porcelain)" "$head "
must "git reset --hard to the import" git reset -q --hard main~1
must "git clean" bash -c 'touch junk && git clean -q -fdx && [ ! -e junk ]'
finish
