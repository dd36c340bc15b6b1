// Memory: volatile loads, fences, CRC-32C.
#ifndef CSYSTEM_MEMORY_H
#define CSYSTEM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli) of `length` bytes, continuing from `seed` (0 to begin). Hardware instruction where there is one.
uint32_t dashfs_crc32c(uint32_t seed, const void *_Nonnull bytes, size_t length) __attribute__((visibility("hidden")));

/// The offset, at or after `at`, of the first 8-byte word in which two areas of `length` bytes differ; `length` where they do not.
size_t dashfs_difference(const void *_Nonnull a, const void *_Nonnull b, size_t at, size_t length) __attribute__((visibility("hidden")));

/// Where the run of differences that begins at `at` ends: behind its last word that differs, before at least 32 equal bytes or the end.
size_t dashfs_difference_end(const void *_Nonnull a, const void *_Nonnull b, size_t at, size_t length) __attribute__((visibility("hidden")));

/// Orders the stores before it ahead of the stores after it, as another process that maps the memory sees them.
static inline void dashfs_release_fence(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

#endif
