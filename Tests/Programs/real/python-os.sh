# Python's own tests of calls by name and descriptor, trees, identity.
. "$(dirname "$0")/lib.sh"
. "$HERE/python-lib.sh"
python_tests test_os test_posix test_shutil
finish
