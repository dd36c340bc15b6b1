# A Python program's walk through os, io, shutil, tempfile, pathlib, fcntl, zipfile and json.
. "$(dirname "$0")/lib.sh"

"${PYTHON:-python3}" "$(dirname "$0")/walk.py" "$T" "$SOURCE"
check "walk.py" test $? = 0
finish
