# RocksDB: a load with synchronous writes and small files, reopened and verified; killed three times between synchronous batches.
. "$(dirname "$0")/lib.sh"
. "$HERE/key-value-lib.sh"
key_value rocksdb plain mmap direct
finish
