// What the compilers expect a C library to have, and what nothing here may ever call: Embedded Swift's runtime has functions that allocate, and hashing wants a seed, but
// no function of ours does either (a test looks for the calls). Defined here so that the library needs no libc: see EarlyInstance.swift.

#include <stddef.h>

#include "cpreload.h"

DASHFS_HIDDEN int posix_memalign(void **memory, size_t alignment, size_t size) {
    (void)memory, (void)alignment, (void)size;
    __builtin_trap();
}
DASHFS_HIDDEN void free(void *memory) {
    (void)memory;
    __builtin_trap();
}
DASHFS_HIDDEN void arc4random_buf(void *memory, size_t size) {
    (void)memory, (void)size;
    __builtin_trap();
}
/// A frame of ours has been written over.
DASHFS_HIDDEN void __stack_chk_fail(void) { __builtin_trap(); }
