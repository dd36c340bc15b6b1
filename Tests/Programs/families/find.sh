# find by every property, with -exec, -delete, -newer, -empty; xargs.
. "$(dirname "$0")/lib.sh"

cp -a "$SOURCE" "$T/in"
ln -s ../in "$T/in/loop"
mkdir -p "$T/in/empty/er" "$T/many"
for i in $(seq 500); do : >"$T/many/$i"; done
touch -d '2010-10-10' "$T/in/types.h"
chmod 4755 "$T/in/kernel.h"
equal "names" "$(find "$T/in" -name '*.h' -printf '%P\n' | sort | sha256sum)" "$(find "$SOURCE" -name '*.h' -printf '%P\n' | sort | sha256sum)"
equal "sizes" "$(find "$T/in" -type f -size +16k | wc -l)" "$(find "$SOURCE" -type f -size +16k | wc -l)"
equal "types" "$(find "$T/in" -type d | wc -l)" "$(($(find "$SOURCE" -type d | wc -l) + 2))"
equal "-perm" "$(find "$T/in" -perm -4000 -printf %f)" kernel.h
equal "-newer" "$(find "$T/in" -type f ! -newermt 2010-10-11 -newermt 2010-10-09 -printf %f)" types.h
equal "-empty" "$(find "$T/in" -empty -printf %f)" er
equal "-links" "$(find "$T/in" -type f -links +1 | wc -l)" 0
equal "-samefile" "$(find "$T/in" -samefile "$T/in/types.h" -printf %f)" types.h
equal "-user" "$(find "$T/in" ! -user "$(id -un)" | wc -l)" "$(find "$SOURCE" ! -user "$(id -un)" | wc -l)"
find -L "$T/in" -name types.h 2>&1 | grep -c 'loop detected'
equal "-exec +" "$(find "$T/in" -type f -exec cat {} + | wc -c)" "$(find "$SOURCE" -type f -exec cat {} + | wc -c)"
equal "-exec ;" "$(find "$T/in" -maxdepth 1 -name 'a*.h' -exec wc -c {} \; | awk '{print $1}' | sort | tr '\n' ,)" "$(find "$SOURCE" -maxdepth 1 -name 'a*.h' -exec wc -c {} \; | awk '{print $1}' | sort | tr '\n' ,)"
equal "-exec from where it is" "$(cd "$T/in" && find . -maxdepth 1 -name types.h -exec cat {} \; | sha256sum)" "$(sha256sum <"$SOURCE/types.h")"
equal "xargs" "$(find "$T/in" -type f -print0 | xargs -0 -P 2 -n 40 sha256sum | cut -d' ' -f1 | sort | sha256sum)" "$(find "$SOURCE" -type f -print0 | xargs -0 sha256sum | cut -d' ' -f1 | sort | sha256sum)"
equal "many" "$(find "$T/many" -type f | wc -l)" 500
check "-delete" find "$T/many" -name '*7*' -delete
equal "fewer" "$(find "$T/many" -type f | wc -l)" 405
check "-depth -delete" find "$T/in" -depth -delete
refuse "nothing is left" test -e "$T/in"
finish
