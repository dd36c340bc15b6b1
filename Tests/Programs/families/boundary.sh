# Where the tree meets other file systems and other processes: symbolic links and ".." that lead out, odd spellings of its path, relative paths from
# above it, working directories over fork, exec and vfork, renames across. TARGET has to be on another file system than the temporary directory.
. "$(dirname "$0")/lib.sh"

mkdir -p "$T/p/q" && cd "$T/p" || exit 1
echo one >f
ln -s "$KERNEL/outside" absolute
ln -s ../../../../../../../../.."$KERNEL/outside" relative
ln -s "$T/p/f" self
ln -s absolute chain
ln -s loop-b loop-a
ln -s loop-a loop-b
echo two >"$KERNEL/outside"
equal "an absolute link out" "$(cat absolute)" two
equal "a relative link out" "$(cat relative)" two
equal "a link to a link out" "$(cat chain)" two
equal "an absolute link back in" "$(cat self)" one
refuse "a circle of links" cat loop-a
check "writing through a link out" bash -c 'echo three >absolute'
equal "the kernel's file has it" "$(cat "$KERNEL/outside")" three

equal "double slashes" "$(cat "//${T#/}///p//f")" one
equal "dots" "$(cat "/.$T/./p/../p/f")" one
equal "from a directory of the kernel's" "$(cat "/usr/../$T/p/f")" one
equal "from the root" "$(cd / && cat "${T#/}/p/f")" one
equal "up and down again" "$(cd /usr/lib && cat "../..$T/p/f")" one
equal "out by .." "$(cd q && cat "../../../../../../../..$KERNEL/outside")" three

# Links of the kernel's that lead in.
K="$KERNEL/in"
mkdir "$K"
ln -s "$T/p" "$K/folder"
ln -s "$T/p/f" "$K/file"
ln -s file "$K/chain"
ln -s in "$KERNEL/way"
ln -s "$T/p/made" "$K/new"
ln -s "$T/p/none/none" "$K/lost"
equal "a link in" "$(cat "$K/file")" one
equal "by a chain" "$(cat "$K/chain") $(cat "$KERNEL/way/chain")" "one one"
equal "a folder's" "$(cat "$K/folder/f") $(cat "$KERNEL/way/folder/q/../f") $(cd "$KERNEL" && cat ./way/folder/f)" "one one one"
equal "its names" "$(ls "$K/folder/" | head -n 3 | tr '\n' ' ')$(ls "$K/folder" | wc -l)" "$(ls "$T/p" | head -n 3 | tr '\n' ' ')$(ls "$T/p" | wc -l)"
equal "the link itself" "$(readlink "$K/folder") $(stat -c %F "$K/folder") $(stat -L -c %F "$K/folder")" "$T/p symbolic link directory"
equal "where it leads" "$(readlink -f "$K/folder/q")" "$T/p/q"
check "a file is made by one" bash -c 'echo four >"$1"' - "$K/new"
equal "it is there" "$(cat "$T/p/made")" four
refuse "what is not there" cat "$K/lost"
refuse "nor is it behind a file" cat "$K/file/none"
refuse "a link that is there already" mkdir "$K/lost"
equal "a directory that is changed to" "$(cd "$K/folder/q" && /bin/pwd -P && cat ../f)" "$T/p/q
one"
check "a directory made there, moved and removed" bash -c 'cd "$1" && mkdir folder/d && mv folder/d folder/e && rmdir folder/e'  - "$K"
equal "moved out of it" "$(mv "$K/folder/made" "$K/came" && cat "$K/came" && ls "$T/p/made" 2>&1 | wc -l)" "four
1"
printf '#!/bin/sh\necho run "$@"\n' >"$T/p/program"
chmod 755 "$T/p/program"
equal "a program" "$("$K/folder/program" 1) $(PATH="$K/folder:$PATH" program 2) $(env "$K/folder/program" 3)" "run 1 run 2 run 3"
equal "by descriptor" "$(python3 -c '
import os, sys
above = os.open(sys.argv[1], os.O_RDONLY)
print(os.stat("folder/f", dir_fd=above).st_size, os.access("file", os.R_OK, dir_fd=above), os.path.samefile(sys.argv[1] + "/file", sys.argv[2]))
try:
    os.open("file", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=above)
except OSError as error:
    print(error.errno)' "$K" "$T/p/f")" "4 True True
40"
equal "a copy of the links" "$(cp -a "$K" "$KERNEL/copy" && cat "$KERNEL/copy/file" && rm -r "$KERNEL/copy" && cat "$T/p/f")" "one
one"
rm "$T/p/program"

equal "the directory of a forked child" "$(cd q && pwd -P)" "$T/p/q"
equal "a program's" "$(cd q && /bin/pwd)" "$T/p/q"
equal "a program's relative paths" "$(cd q && cat ../f)" one
equal "after leaving" "$(cd q && cd / && /bin/pwd)" /
equal "with a link in it" "$(ln -s q l && cd l && /bin/pwd -P)" "$T/p/q"
equal "after its directory was renamed" "$(python3 -c 'import os; os.mkdir("r"); os.chdir("r"); os.rename("../r", "../s"); print(os.getcwd())')" "$T/p/s"
equal "of a vfork child" "$(python3 -c 'import subprocess, sys; print(subprocess.check_output(["cat", "../f"], cwd=sys.argv[1]).decode(), end="")' "$T/p/q")" one
equal "and its parent" "$(cd / && python3 -c 'import os, subprocess, sys; subprocess.check_output(["true"], cwd=sys.argv[1]); print(os.getcwd())' "$T/p/q")" /
refuse "a vfork child in a directory that is not there" python3 -c 'import subprocess, sys; subprocess.check_call(["true"], cwd=sys.argv[1])' "$T/p/none"
equal "open files survive a vfork child that closes all" "$(python3 -c '
import subprocess, sys
file = open(sys.argv[1], "w")
file.write("before ")
file.flush()
subprocess.check_output(["true"], close_fds=True)
file.write("after")
file.close()
print(open(sys.argv[1]).read())' "$T/p/g")" "before after"

python3 -c '
import errno, os, sys
inside, outside = sys.argv[1:]
def attempt(call, *arguments):
    try:
        call(*arguments)
        print(call.__name__, "done")
    except OSError as error:
        print(call.__name__, errno.errorcode[error.errno])
attempt(os.rename, inside + "/f", outside + "/x")
attempt(os.rename, outside + "/outside", inside + "/x")
attempt(os.link, inside + "/f", outside + "/x")
attempt(os.rename, inside + "/none/f", outside + "/x")
attempt(os.link, inside + "/none", outside + "/x")
attempt(os.link, outside + "/none", inside + "/x")
attempt(os.rename, outside + "/none/x", inside + "/x")
attempt(os.chmod, "/proc/self/fd/%d" % os.open(inside + "/f", os.O_RDONLY), 0o600)
print(oct(os.stat(inside + "/f").st_mode))
' "$T/p" "$KERNEL" | sed 's/^/renames: /'
check "mv out" mv f "$KERNEL/moved"
equal "is there" "$(cat "$KERNEL/moved")" one
check "mv in" mv "$KERNEL/moved" f
equal "is here" "$(cat f)" one
finish
