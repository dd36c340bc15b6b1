// Sizes that the assembler and C agree on.
#ifndef CPRELOAD_LAYOUT_H
#define CPRELOAD_LAYOUT_H

/// Bytes of a slot, and how many there are. glibc 2.36 with its ld.so needs about 240.
#define DASHFS_SLOT_SIZE 64
#define DASHFS_SLOT_COUNT 448
/// System call numbers at and above this one are never ours.
#define DASHFS_NUMBER_LIMIT 512
/// Descriptors at and above this one always count as hinted.
#define DASHFS_HINT_LIMIT 65536

#endif
