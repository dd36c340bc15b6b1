# GNU make and gcc. First zlib as Debian has it (from $SOURCES): configure, build, and zlib's own tests, which run what was built. Then a project of
# 60 files of its own with a static library, a shared one, generated dependencies and a parallel build; what make does again after a change is what it must.
. "$(dirname "$0")/lib.sh"
cd "$T" || fail "cannot enter $T"
mkdir temporary
export TMPDIR=$T/temporary MAKEFLAGS=  # the compiler's files between its passes are on the volume, too
archive=$(compgen -G "${SOURCES:-$HERE/../../../.build/programs}/zlib_*.orig.tar.*" | head -n 1)
[ -n "$archive" ] || fail "there is no zlib in ${SOURCES:-.build/programs}: Tests/Programs/real/sources DIRECTORY zlib fetches it"

mkdir zlib && must "unpack zlib" tar -xf "$archive" -C zlib --strip-components=1
cd zlib || fail "no zlib"
must "zlib's configure" env CFLAGS=-O1 ./configure --prefix="$T/installed"
must "make zlib" make -j2
must "zlib's own tests" make check
[ "$(grep -c 'test OK' "$K/said")" -ge 3 ] || fail "zlib's own tests: $(tail -n 5 "$K/said")"
must "make install" make install
same "the installed library" "$(readlink "$T/installed/lib/libz.so") $(ls "$T/installed/include" | tr '\n' ' ')" "$(basename "$T"/installed/lib/libz.so.1.*) zconf.h zlib.h "
must "minigzip as gzip" bash -c './minigzip <zlib.h >z.gz && gzip -t z.gz && gzip -dc z.gz | cmp - zlib.h'
same "nothing is left to be made" "$(make -q all; echo $?)" 0

mkdir "$T/project" && cd "$T/project" || fail "no project"
"$PYTHON" - <<'END'
import os
for part in ("static", "shared"):
    os.makedirs(part)
    header = "".join(f"int {part}_{n}(int);\n" for n in range(25))
    open(f"{part}/{part}.h", "w").write(f"#ifndef {part}_H\n#define {part}_H\n{header}#endif\n")
    for n in range(25):
        open(f"{part}/{part}_{n}.c", "w").write(
            f'#include "{part}.h"\n#include "../common.h"\nstatic int table[] = {{ {", ".join(str(n * i % 97) for i in range(64))} }};\n'
            f"int {part}_{n}(int x) {{ return (table[x & 63] + SCALE * {n}) % 1009; }}\n")
open("common.h", "w").write("#define SCALE 3\n")
calls = "\n".join(f"    sum = sum * 31 + {part}_{n}(sum + {n});" for part in ("static", "shared") for n in range(25))
for n in range(6):
    open(f"program{n}.c", "w").write(
        f'#include <stdio.h>\n#include "static/static.h"\n#include "shared/shared.h"\nint main(void) {{\n    unsigned sum = {n};\n{calls}\n    printf("%u\\n", sum);\n    return 0;\n}}\n')
open("Makefile", "w").write("""\
CFLAGS = -O1 -g -Wall -Werror -MMD -MP
OBJECTS = $(patsubst %.c,%.o,$(wildcard static/*.c))
PICS = $(patsubst %.c,%.o,$(wildcard shared/*.c))
PROGRAMS = $(patsubst %.c,%,$(wildcard program*.c))
all: $(PROGRAMS)
$(PICS): CFLAGS += -fPIC
libstatic.a: $(OBJECTS)
\t$(AR) rcs $@ $?
libshared.so: $(PICS)
\t$(CC) -shared -Wl,-soname,$@ -o $@ $^
$(PROGRAMS): %: %.o libstatic.a libshared.so
\t$(CC) -o $@ $< -L. -lstatic -lshared -Wl,-rpath,'$$ORIGIN'
run: all
\t(for p in $(PROGRAMS); do ./$$p || exit 1; done) >answers
clean:
\trm -f $(OBJECTS) $(PICS) $(PROGRAMS) *.o *.a *.so *.d */*.d answers
-include $(wildcard *.d */*.d)
""")
END
same "files of the project" "$(find . -type f | wc -l)" 60
mkdir "$K/twin" && cp -r . "$K/twin/"
must "the same project on the kernel's side" env TMPDIR=/tmp make -C "$K/twin" -j2 -s run
must "make -j2" make -j2 run
same "what the programs say" "$(cat answers)" "$(cat "$K/twin/answers")"
same "six programs" "$(sort -u answers | wc -l)" 6
must "make has nothing to do" make -q all
touch static/static_7.c
same "one object, the library, six programs" "$(make | grep -c -E '(^cc|^ar|^gcc)')" 8
sed -i 's/3/5/' common.h "$K/twin/common.h"
must "make after a change of a header" make -j2 run
must "the twin after the change" env TMPDIR=/tmp make -C "$K/twin" -j2 -s run
same "what the programs say after the change" "$(cat answers)" "$(cat "$K/twin/answers")"
must "ar t" bash -c '[ "$(ar t libstatic.a | wc -l)" = 25 ]'
must "nm, objdump, strip" bash -c 'nm -D libshared.so | grep -q " T shared_24" && objdump -d program0 | grep -q "<main>:" && strip program0 && ./program0'
must "a program with debug information" bash -c 'readelf --debug-dump=info program1 | grep -q program1.c'
must "a precompiled header" bash -c 'gcc -O1 common.h -o common.h.gch && gcc -O1 -Winvalid-pch -fsyntax-only static/static_1.c'
must "link-time optimisation" bash -c 'gcc -O1 -flto=2 -o lto program2.c static/*.c shared/*.c && [ "$(./lto)" = "$(./program2)" ]'
must "make clean" make clean
same "left after make clean" "$(find . -name '*.o' -o -name '*.d' -o -name '*.so' | wc -l)" 0
same "nothing left of the compiler's files" "$(ls "$T/temporary")" ""
finish
