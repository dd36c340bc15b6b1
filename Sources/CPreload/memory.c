// The compiler turns copies into calls of these. Hidden here, they never leave the library: libc's own are reached through
// its PLT and pick AVX variants, and while libc is being rewritten it must not be entered at all.
// Legacy SSE only (see stub.S on vector state); written compiled with -fno-builtin, so that no loop becomes a call of itself.

#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "cpreload.h"

__thread struct dashfs_verified_ranges dashfs_readable_ranges, dashfs_writable_ranges;
uint8_t dashfs_sites_bytes[DASHFS_SITES_CAPACITY];
uint8_t dashfs_slot_pages[DASHFS_SLOT_PAGES];
uint8_t dashfs_call_slot_pages[DASHFS_CALL_SLOT_PAGES];
struct dashfs_later_object dashfs_later_objects[DASHFS_LATER_OBJECTS];
uint32_t dashfs_later_owner;
uint64_t dashfs_mapping_epoch = 1;
uint8_t dashfs_number_class[DASHFS_NUMBER_LIMIT];
uint8_t dashfs_descriptor_hints[DASHFS_HINT_LIMIT];

/// From here on the processor's own string instruction is faster than a loop of 16-byte moves.
enum { STRING_INSTRUCTION = 1024 };

static inline __m128i load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void store(void *p, __m128i v) { _mm_storeu_si128((__m128i *)p, v); }

typedef uint64_t __attribute__((aligned(1), may_alias)) word64;
typedef uint32_t __attribute__((aligned(1), may_alias)) word32;
typedef uint16_t __attribute__((aligned(1), may_alias)) word16;

/// In ascending order, every load of a piece before any store that could overwrite it when `to` lies below `from`.
static inline void *copy_ascending(void *to, const void *from, size_t count) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if (count >= STRING_INSTRUCTION) {
        void *result = to;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        return result;
    }
    if (count >= 16) {
        __m128i last = load(s + count - 16);
        for (size_t i = 0; i + 16 < count; i += 16) store(d + i, load(s + i));
        store(d + count - 16, last);
    } else if (count >= 8) {
        uint64_t a = *(const word64 *)s, b = *(const word64 *)(s + count - 8);
        *(word64 *)d = a, *(word64 *)(d + count - 8) = b;
    } else if (count >= 4) {
        uint32_t a = *(const word32 *)s, b = *(const word32 *)(s + count - 4);
        *(word32 *)d = a, *(word32 *)(d + count - 4) = b;
    } else if (count >= 2) {
        uint16_t a = *(const word16 *)s, b = *(const word16 *)(s + count - 2);
        *(word16 *)d = a, *(word16 *)(d + count - 2) = b;
    } else if (count == 1) {
        *d = *s;
    }
    return to;
}

DASHFS_HIDDEN void *memcpy(void *restrict to, const void *restrict from, size_t count) {
    return copy_ascending(to, from, count);
}

DASHFS_HIDDEN void *memmove(void *to, const void *from, size_t count) {
    // The difference wraps when `to` is the lower one.
    if ((uintptr_t)to - (uintptr_t)from >= count) return copy_ascending(to, from, count);
    uint8_t *d = to;
    const uint8_t *s = from;
    while (count >= 16) {
        count -= 16;
        store(d + count, load(s + count));
    }
    while (count > 0) {
        count -= 1;
        d[count] = s[count];
    }
    return to;
}

DASHFS_HIDDEN void *memset(void *to, int value, size_t count) {
    uint8_t *d = to;
    if (count >= STRING_INSTRUCTION) {
        void *result = to;
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        return result;
    }
    __m128i v = _mm_set1_epi8((char)value);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) store(d + i, v);
    for (; i < count; i++) {
        d[i] = (uint8_t)value;
    }
    return to;
}

DASHFS_HIDDEN int memcmp(const void *left, const void *right, size_t count) {
    const uint8_t *a = left, *b = right;
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(load(a + i), load(b + i))) != 0xffff) break;
    for (; i < count; i++)
        if (a[i] != b[i]) return (int)a[i] - (int)b[i];
    return 0;
}

DASHFS_HIDDEN size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) {
        length++;
    }
    return length;
}
