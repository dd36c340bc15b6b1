# vim and nano at a pseudo-terminal: new files, changes, backups, links, a swap file and recovery from it.
. "$(dirname "$0")/lib.sh"
must "vim and nano" "$PYTHON" "$HERE/editors.py" "$T" "$K"
finish
