// Devices: ioctls and system calls whose names or macros Swift does not see.
#ifndef CSYSTEM_DEVICE_H
#define CSYSTEM_DEVICE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/stat.h>
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

/// What O_DIRECT asks of memory and of offsets (statx(2), STATX_DIOALIGN, Linux 6.1); zeros where the kernel does not say or
/// the file takes no direct I/O. 1: the kernel answered; 0: it does not know the question.
static inline int dashfs_direct_alignment(int descriptor, uint32_t *_Nonnull memory, uint32_t *_Nonnull offset) {
    struct statx status = {0};
    *memory = *offset = 0;
    if (syscall(SYS_statx, descriptor, "", 0x1000 /* AT_EMPTY_PATH */, STATX_DIOALIGN, &status) != 0) return 0;
    if (!(status.stx_mask & STATX_DIOALIGN)) return 0;
    *memory = status.stx_dio_mem_align;
    *offset = status.stx_dio_offset_align;
    return 1;
}

/// O_DIRECT, which glibc hides without _GNU_SOURCE.
static inline int dashfs_open_direct_flag(void) { return 040000; }

/// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
static inline int dashfs_punch_mode(void) { return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; }

/// FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE.
static inline int dashfs_zero_mode(void) { return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE; }

/// fallocate(2); 0, or an errno.
static inline int dashfs_device_fallocate(int descriptor, int mode, uint64_t offset, uint64_t length) {
    return syscall(SYS_fallocate, descriptor, mode, (long)offset, (long)length) == 0 ? 0 : errno;
}

/// Major and minor number of a device as the kernel packs them in st_dev and st_rdev of x86-64.
static inline uint32_t dashfs_device_major(uint64_t device) { return (uint32_t)((device >> 8 & 0xfff) | (device >> 32 & ~0xfffull)); }
static inline uint32_t dashfs_device_minor(uint64_t device) { return (uint32_t)((device & 0xff) | (device >> 12 & ~0xffull)); }

#endif
