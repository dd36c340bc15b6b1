// Where two areas differ, in 8-byte words: what the journal's deltas are made from. Offsets and lengths are multiples of 8.
#include "csystem_memory.h"

#include <string.h>

typedef uint64_t four_words __attribute__((vector_size(32), aligned(1)));

#define ALWAYS static inline __attribute__((always_inline))
#define DIFFERENCE(at) (*(const four_words *)(a + (at)) ^ *(const four_words *)(b + (at)))

/// Whether any of four words is not zero. By address, because how vectors are passed depends on the processor.
ALWAYS int any(const four_words *words) { return ((*words)[0] | (*words)[1] | (*words)[2] | (*words)[3]) != 0; }

ALWAYS size_t first(const char *a, const char *b, size_t at, size_t length) {
    for (; at + 128 <= length; at += 128) {
        four_words difference = DIFFERENCE(at) | DIFFERENCE(at + 32) | DIFFERENCE(at + 64) | DIFFERENCE(at + 96);
        if (any(&difference)) break;
    }
    for (; at + 32 <= length; at += 32) {
        four_words difference = DIFFERENCE(at);
        if (any(&difference)) break;
    }
    while (at < length && memcmp(a + at, b + at, 8) == 0) at += 8;
    return at;
}

ALWAYS size_t end(const char *a, const char *b, size_t at, size_t length) {
    for (; at + 32 <= length; at += 32) {
        four_words difference = DIFFERENCE(at);
        if (!any(&difference)) break;
    }
    // Before an equal stride, or in a rest too short for one: what differs ends at the last word that does.
    size_t last = at + 32 <= length ? at : length;
    while (memcmp(a + last - 8, b + last - 8, 8) == 0) last -= 8;
    return last;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static size_t first_avx2(const char *a, const char *b, size_t at, size_t length) { return first(a, b, at, length); }
__attribute__((target("avx2"))) static size_t end_avx2(const char *a, const char *b, size_t at, size_t length) { return end(a, b, at, length); }
#endif

size_t dashfs_difference(const void *a, const void *b, size_t at, size_t length) {
#if defined(__x86_64__)
    if (length >= 128 && __builtin_cpu_supports("avx2")) return first_avx2(a, b, at, length);
#endif
    return first(a, b, at, length);
}

size_t dashfs_difference_end(const void *a, const void *b, size_t at, size_t length) {
#if defined(__x86_64__)
    if (length >= 128 && __builtin_cpu_supports("avx2")) return end_avx2(a, b, at, length);
#endif
    return end(a, b, at, length);
}
