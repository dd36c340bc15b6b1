# Python's own tests of files, buffers and maps.
. "$(dirname "$0")/lib.sh"
. "$HERE/python-lib.sh"
python_tests test_io test_fileio test_mmap test_tempfile
finish
