# Programs whose libraries lie in TARGET: ld.so opens those before anything of the program runs. Found by LD_LIBRARY_PATH, DT_RPATH, DT_RUNPATH, $ORIGIN, a path in DT_NEEDED,
# LD_PRELOAD and dlopen; started in every way. Each says what it was linked with, by what path, and what it sees of itself.
. "$(dirname "$0")/lib.sh"
mkdir -p "$T/app/bin" "$T/app/lib" "$T/plain" "$KERNEL/bin" "$KERNEL/empty"
cd "$KERNEL" || exit 1
echo "from a file" >"$T/app/data"

cat >inner.c <<'END'
int inner(void) { return 2; }
END
cat >outer.c <<'END'
#include <stdio.h>
int inner(void);
__attribute__((constructor)) static void begin(void) {
    char line[64] = "";
    FILE *file = fopen(DATA, "r");
    if (file != NULL && fgets(line, sizeof line, file) != NULL) fclose(file);
    printf("constructor: %s", line);
}
int outer(void) { return 40 + inner(); }
END
cat >added.c <<'END'
#include <stdio.h>
__attribute__((constructor)) static void begin(void) { printf("preloaded\n"); }
END
cat >auditor.c <<'END'
unsigned la_version(unsigned version) { return version; }
END
cat >program.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
int outer(void);
static int visit(struct dl_phdr_info *object, size_t size, void *context) {
    if (strstr(object->dlpi_name, "outer") || strstr(object->dlpi_name, "inner")) printf("object: %s\n", object->dlpi_name);
    return 0;
}
static void link_text(const char *path) {
    char text[4096] = "";
    ssize_t count = readlinkat(AT_FDCWD, path, text, sizeof text - 1);
    printf("program: %s\n", count < 0 ? "?" : text);
}
int main(int count, char **arguments) {
    char name[64], *real = realpath("/proc/self/exe", NULL), comm[32] = "";
    printf("outer() is %d\n", outer());
    dl_iterate_phdr(visit, NULL);
    link_text("/proc/self/exe");
    snprintf(name, sizeof name, "/proc/%d/exe", (int)getpid());
    link_text(name);
    printf("real: %s\n", real);
    FILE *file = fopen("/proc/self/comm", "r");
    if (file != NULL && fgets(comm, sizeof comm, file) != NULL) printf("name: %s", comm);
    printf("LD_AUDIT: %s\n", getenv("LD_AUDIT") ? getenv("LD_AUDIT") : "none");
    printf("GLIBC_TUNABLES: %s\n", getenv("GLIBC_TUNABLES") ? getenv("GLIBC_TUNABLES") : "none");
    if (count > 1 && strcmp(arguments[1], "again") == 0) {
        fflush(stdout);
        execl("/proc/self/exe", arguments[0], "exec", NULL);
    }
    if (count > 1 && strcmp(arguments[1], "exec") == 0) printf("started as: %s\n", (char *)getauxval(AT_EXECFN));
    for (int i = 2; i < count; i++) {
        void *object = dlopen(arguments[i], RTLD_NOW);
        struct link_map *map = NULL;
        if (object == NULL) printf("dlopen: %s\n", dlerror());
        else if (dlinfo(object, RTLD_DI_LINKMAP, &map) == 0) printf("opened: %s\n", map->l_name);
    }
    return 0;
}
END
L=$T/app/lib
compile() { gcc -O1 "$@" || { echo "FAIL $NAME: gcc $*"; exit 1; }; }
compile -shared -fPIC inner.c -o libinner.so -Wl,-soname,libinner.so
compile -shared -fPIC -DDATA="\"$T/app/data\"" outer.c -o libouter.so -Wl,-soname,libouter.so -L. -linner
compile -shared -fPIC added.c -o added.so
compile -shared -fPIC auditor.c -o auditor.so
cp libinner.so libouter.so added.so auditor.so "$L"
link() { compile program.c -o "$@" -L. -louter -Wl,-rpath-link,.; }
link bin/none
link bin/rpath -Wl,--disable-new-dtags,-rpath,"$KERNEL/empty:$L"
link bin/runpath -Wl,--enable-new-dtags,-rpath,"$KERNEL/empty:$L"
link bin/origin -Wl,--disable-new-dtags,-rpath,'$ORIGIN/../lib'
link bin/braces -Wl,--disable-new-dtags,-rpath,'${ORIGIN}/../lib'
compile -shared -fPIC -DDATA="\"$T/app/data\"" outer.c -o "$L/nameless.so" -Wl,--disable-new-dtags,-rpath,'$ORIGIN' -L. -linner
compile program.c -o bin/slash "$L/nameless.so" -Wl,-rpath-link,.
cp bin/* "$T/app/bin"
cp bin/none "$T/plain"

show() { echo "-- $1"; shift; "$@" 2>&1 | sed "s|: ${T#/}|: WITHOUT-A-SLASH|"; echo "status ${PIPESTATUS[0]}"; }
show "LD_LIBRARY_PATH" env LD_LIBRARY_PATH="$L" bin/none
show "and a program in the tree" env LD_LIBRARY_PATH="$KERNEL/empty:$L" "$T/plain/none" exec
show "relative" bash -c 'cd "$0/app" && LD_LIBRARY_PATH=lib bin/none' "$T"
show "relative, from outside" bash -c 'cd / && LD_LIBRARY_PATH="${1#/}" "$0/bin/none"' "$KERNEL" "$L"
show "the working directory" bash -c 'cd "$0/app/lib" && LD_LIBRARY_PATH=:/usr/none ../bin/none' "$T"
show "by way of .." env LD_LIBRARY_PATH="/usr/..$L/../lib" bin/none
show "DT_RPATH" bin/rpath
show "DT_RUNPATH, for the first library" bin/runpath
show "and LD_LIBRARY_PATH for the second" env LD_LIBRARY_PATH="$L" bin/runpath
show "\$ORIGIN" "$T/app/bin/origin" exec
show "\${ORIGIN}" "$T/app/bin/braces"
show "\$ORIGIN in LD_LIBRARY_PATH" env LD_LIBRARY_PATH='$ORIGIN/../lib' "$T/app/bin/none"
show "\$ORIGIN, and by /proc/self/exe" "$T/app/bin/origin" again
show "\$ORIGIN, from its directory" bash -c 'cd "$0/app/bin" && ./origin' "$T"
show "\$ORIGIN, by PATH" env PATH="$T/app/bin:$PATH" origin
ln -s app/bin "$T/programs"
ln -s ../programs/origin "$T/plain/chain"
ln -s "$T/plain/chain" "$KERNEL/outside"
ln -s "$T/plain/chain" "$T/again"
show "\$ORIGIN, by links" "$T/again"
show "a path in DT_NEEDED" bin/slash
show "LD_PRELOAD" env LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD:}$L/added.so" LD_LIBRARY_PATH="$L" bin/none
show "LD_PRELOAD, a program that needs nothing" env LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD:}$L/added.so" true
show "dlopen" env LD_LIBRARY_PATH="$L" bin/none then added.so "$L/auditor.so" none.so
show "dlopen by \$ORIGIN" "$T/app/bin/origin" then '$ORIGIN/../lib/auditor.so' added.so
show "an auditor of the program's own" env LD_AUDIT="$KERNEL/auditor.so" LD_LIBRARY_PATH="$L" bin/none
show "and one in the tree" env LD_AUDIT="$L/auditor.so" "$T/app/bin/origin"
show "tunables of the program's own" env GLIBC_TUNABLES=glibc.malloc.check=0:glibc.malloc.arena_max=1 LD_LIBRARY_PATH="$L" bin/none
# librustc_driver has as much.
mkdir "$T/wide" && cp libinner.so "$T/wide"
compile -shared -fPIC -Wl,-soname,libouter.so -xc - -o "$T/wide/libouter.so" -L. -linner <<'END'
static _Thread_local char storage[24000];
int inner(void);
int outer(void) { char *volatile all = storage; all[sizeof storage - 1] = 1; return all[0] + inner(); }
END
show "a library with much thread-local storage" env LD_LIBRARY_PATH="$T/wide" bin/none
show "a library that is not there" bin/none
show "one that is not there, in the tree" env LD_LIBRARY_PATH="$T/plain" "$T/app/bin/none"
show "one that its library needs" bash -c 'mkdir "$0/half" && cp "$0/app/lib/libouter.so" "$0/half" && LD_LIBRARY_PATH="$0/half" "$1/bin/none"' "$T" "$KERNEL"
show "what is no library" bash -c 'mkdir "$0/bad" && echo text >"$0/bad/libouter.so" && LD_LIBRARY_PATH="$0/bad" "$1/bin/none"' "$T" "$KERNEL"

printf '#!%s/app/bin/origin\n' "$T" >"$KERNEL/script"
printf '#!%s/script\n' "$KERNEL" >"$KERNEL/second"
# Longer than what dlopen takes for an object's head, wherever $T is.
printf '#!%s/app/bin/origin exec\n#%064d\n' "$T" 0 >"$T/script"
chmod 755 "$KERNEL/script" "$KERNEL/second" "$T/script"
show "a script outside" "$KERNEL/script"
show "a script of that" "$KERNEL/second"
show "a script in the tree" "$T/script"

cat >start.py <<'END'
import ctypes, os, subprocess, sys
program = sys.argv[1]
def ended(child):
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print("-- posix_spawn", flush=True)
ended(os.posix_spawn(program, [program], os.environ))
print("-- subprocess: vfork", flush=True)
print("status", subprocess.call([program], cwd=os.path.dirname(program)), flush=True)
print("-- fork", flush=True)
child = os.fork()
if child == 0:
    os.execv(program, [program])
ended(child)
print("-- an environment of its own", flush=True)
print("status", subprocess.call([program], env={"LANG": "C"}), flush=True)
print("-- while a file is open", flush=True)
with open(os.path.dirname(program) + "/../data") as file:
    file.read(5)
    print("status", subprocess.call([program], pass_fds=[file.fileno()]), flush=True)
    print("then", file.read().strip(), flush=True)
END
python3 start.py "$T/app/bin/origin"
show "open files go on to it" bash -c 'exec 7<"$0/app/data"; read -r -N 5 -u 7; LD_LIBRARY_PATH="$0/app/lib" bash -c "cat <&7"' "$T"
others() { grep -v -E '^(_|LD_PRELOAD|LD_LIBRARY_PATH|DASHFS_[A-Z_]*|SHLVL)=' | sort; }
equal "the environment is the same" "$(LD_LIBRARY_PATH=$L env | others)" "$(env | others)"
equal "its child's, too" "$(LD_LIBRARY_PATH=$L sh -c 'unset LD_LIBRARY_PATH; env' | others)" "$(env | others)"
equal "no descriptor is left open" "$(LD_LIBRARY_PATH=$L sh -c 'cd /; for n in 3 4 5 6; do [ ! -e /proc/self/fd/$n ] || echo $n; done')" ""
# Long paths: of the directory, and of that with the name.
long=$T/$(printf "%$((220 - ${#T}))s" | tr ' ' d)
mkdir -p "$long/bin" "$long/lib"
cp libinner.so libouter.so "$long/lib"
cp bin/origin "$long/bin/$(printf '%200s' | tr ' ' p)"
equal "\$ORIGIN of a long path" "$("$long"/bin/p* | grep -c -x -e 'outer() is 42' -e "program: $long/bin/p*" -e "object: $long/bin/../lib/lib....r.so")" 5
cp /bin/bash "$T/app/bin/shell"
equal "another process's program" "$("$T/app/bin/shell" -c 'readlink /proc/$$/exe; readlink -f /proc/$$/exe; ls -l /proc/$$/exe | sed "s/.*-> //"' | sort -u)" "$T/app/bin/shell"
show "by a descriptor" python3 -c 'import os, sys; os.execve(os.open(sys.argv[1], os.O_RDONLY), ["x"], os.environ)' "$T/app/bin/origin" | grep -v '^name:'
check "a renamed program says where it was" bash -c 'cp "$0/app/bin/origin" "$0/app/bin/moving" && "$0/app/bin/moving" | grep -c "^program: $0/app/bin/moving$"' "$T"

# A program with its libraries in a directory of their own, as third parties install them.
O=$T/opt
mkdir -p "$O/bin" "$O/lib"
cp "$(readlink -f /usr/bin/sqlite3)" "$O/bin/sqlite3"
LD_PRELOAD= ldd /usr/bin/sqlite3 | awk '$3 ~ /^\// && $1 !~ /^libc\.|^ld-/ { print $3 }' | xargs -I{} cp {} "$O/lib"
equal "a program with all its libraries there" "$(LD_LIBRARY_PATH=$O/lib "$O/bin/sqlite3" "$O/database" 'create table t(x); insert into t values(41); select x + 1 from t;')" 42
finish
