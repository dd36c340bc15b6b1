# Python's own tests of processes that inherit files.
. "$(dirname "$0")/lib.sh"
. "$HERE/python-lib.sh"
python_tests test_subprocess
finish
