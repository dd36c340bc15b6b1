// Memory: volatile loads, fences, CRC-32C.
#ifndef CSYSTEM_MEMORY_H
#define CSYSTEM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli) of `length` bytes, continuing from `seed` (0 to begin). Hardware instruction where there is one.
uint32_t dashfs_crc32c(uint32_t seed, const void *_Nonnull bytes, size_t length);

/// Orders the stores before it ahead of the stores after it, as another process that maps the memory sees them.
static inline void dashfs_release_fence(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

#endif
