// Devices: ioctls and system calls whose names or macros Swift does not see.
#ifndef CSYSTEM_DEVICE_H
#define CSYSTEM_DEVICE_H

#include <linux/fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/// A nameless file in memory, close-on-exec, or -1 and errno.
static inline int dashfs_device_memfd(const char *_Nonnull name) {
    return (int)syscall(SYS_memfd_create, name, 1u /* MFD_CLOEXEC */);
}

/// Size of a block device in bytes; 0, or -1 and errno.
static inline int dashfs_block_device_size(int descriptor, uint64_t *_Nonnull bytes) {
    return ioctl(descriptor, BLKGETSIZE64, bytes);
}

/// Logical sector size of a block device in bytes; 0, or -1 and errno.
static inline int dashfs_block_device_sector(int descriptor, int *_Nonnull bytes) {
    return ioctl(descriptor, BLKSSZGET, bytes);
}

/// Discards (what is read after is undefined) a range of a block device; 0, or -1 and errno.
static inline int dashfs_block_device_discard(int descriptor, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return ioctl(descriptor, BLKDISCARD, range);
}

/// Zeroes a range of a block device; 0, or -1 and errno.
static inline int dashfs_block_device_zero(int descriptor, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return ioctl(descriptor, BLKZEROOUT, range);
}

#endif
