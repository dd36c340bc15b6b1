// CRC-32C, reflected polynomial 0x82F63B78 (RFC 3720 appendix B.4 has test vectors). SSE 4.2 has the instruction; a loop
// over bits serves processors without it. How parts are joined: Gopal et al., Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction (Intel, 2011).
#include "csystem_memory.h"

#include <string.h>

static uint32_t by_bits(uint32_t crc, const uint8_t *bytes, size_t length) {
    while (length--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
    }
    return crc;
}

#if defined(__x86_64__)
#include <immintrin.h>

enum {
    /// The instruction's result takes three cycles and a new one can begin in each: three parts of this many bytes are summed at once.
    PART = 1360,
};

/// A sum moved past as many zero bytes as `power` says: times x^(8 n - 33), and 33 more by the product's place and the reduction.
__attribute__((target("sse4.2,pclmul"))) static inline uint64_t past(uint64_t crc, uint64_t power) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)power), 0);
    return __builtin_ia32_crc32di(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static inline uint64_t word(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, 8);
    return value;
}

/// Whole triples of parts; the caller does the rest.
__attribute__((target("sse4.2,pclmul"))) static uint32_t by_three(uint32_t crc, const uint8_t *bytes, size_t triples) {
    uint64_t first = crc;
    for (; triples > 0; triples--, bytes += 3 * PART) {
        uint64_t second = 0, third = 0;
#pragma clang loop unroll_count(10)
        for (size_t at = 0; at < PART; at += 8) {
            first = __builtin_ia32_crc32di(first, word(bytes + at));
            second = __builtin_ia32_crc32di(second, word(bytes + PART + at));
            third = __builtin_ia32_crc32di(third, word(bytes + 2 * PART + at));
        }
        first = past(first, 0x5AA1F3CF /* 2 PART */) ^ past(second, 0x3F70CC6F /* PART */) ^ third;
    }
    return (uint32_t)first;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *bytes, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; bytes += 8, length -= 8) wide = __builtin_ia32_crc32di(wide, word(bytes));
    crc = (uint32_t)wide;
    while (length--) crc = __builtin_ia32_crc32qi(crc, *bytes++);
    return crc;
}
#endif

uint32_t dashfs_crc32c(uint32_t seed, const void *bytes, size_t length) {
#if defined(__x86_64__)
    const uint8_t *at = bytes;
    uint32_t crc = ~seed;
    if (length >= 3 * PART && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        size_t triples = length / (3 * PART);
        crc = by_three(crc, at, triples);
        at += triples * 3 * PART;
        length -= triples * 3 * PART;
    }
    if (__builtin_cpu_supports("sse4.2")) return ~by_instruction(crc, at, length);
    return ~by_bits(crc, at, length);
#else
    return ~by_bits(~seed, bytes, length);
#endif
}
