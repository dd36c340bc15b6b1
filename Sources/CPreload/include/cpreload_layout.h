// Sizes that the assembler and C agree on.
#ifndef CPRELOAD_LAYOUT_H
#define CPRELOAD_LAYOUT_H

/// Bytes of a slot, and how many there are: whole pages. glibc with its ld.so needs about 240, liburing 20; what is not used costs nothing.
#define DASHFS_SLOT_SIZE 128
#define DASHFS_SLOT_COUNT 2048
/// Pages of slots for redirected calls (glibc 2.41), one for each object that has such, and the size of a slot there.
#define DASHFS_CALL_SLOT_PAGES 16
#define DASHFS_CALL_SLOT_SIZE 32
/// CANCELED_BITMASK of glibc's nptl/descr.h.
#define DASHFS_CANCELED_BIT 8
/// System call numbers at and above this one are never ours.
#define DASHFS_NUMBER_LIMIT 512
/// Descriptors at and above this one always count as hinted.
#define DASHFS_HINT_LIMIT 65536
/// Dispatch: how many children may share one thread's memory inside one another, and the size of the code that makes them.
#define DASHFS_DISPATCH_LEVELS 4
#define DASHFS_DISPATCH_STUB_SIZE 256

#endif
