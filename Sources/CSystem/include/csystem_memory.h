// Memory: volatile loads, fences, CRC-32C.
#ifndef CSYSTEM_MEMORY_H
#define CSYSTEM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli) of `length` bytes, continuing from `seed` (0 to begin). Hardware instruction where there is one.
uint32_t dashfs_crc32c(uint32_t seed, const void *_Nonnull bytes, size_t length);

/// How many bytes at the start of two areas are equal, in whole 8-byte words; `length` is a multiple of 8.
static inline size_t dashfs_equal_words(const void *_Nonnull a, const void *_Nonnull b, size_t length) {
    typedef uint64_t four_words __attribute__((vector_size(32), aligned(1)));
    const char *left = (const char *)a, *right = (const char *)b;
    size_t at = 0;
    while (at + 32 <= length) {
        four_words difference = *(const four_words *)(left + at) ^ *(const four_words *)(right + at);
        if (difference[0] | difference[1] | difference[2] | difference[3]) break;
        at += 32;
    }
    while (at < length && __builtin_memcmp(left + at, right + at, 8) == 0) at += 8;
    return at;
}

/// Orders the stores before it ahead of the stores after it, as another process that maps the memory sees them.
static inline void dashfs_release_fence(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

#endif
