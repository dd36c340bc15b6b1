// Marks for an emulator that counts instructions (Benchmarks/Guest/counter.c): operations that do nothing, with displacements that no compiler
// makes. A jump stands before and behind each, because the emulator counts by blocks and a jump ends one.
#ifndef CSYSTEM_COUNT_H
#define CSYSTEM_COUNT_H

#define DASHFS_COUNT_OFF 0x44464900
#define DASHFS_COUNT_ON 0x44464901
#define DASHFS_COUNT_REPORT 0x44464902

#if defined(__x86_64__)
/// nopl displacement(%rax)
#define dashfs_count_mark(displacement) \
    __asm__ volatile("jmp 1f\n1: .byte 0x0f, 0x1f, 0x80\n.long %c0\njmp 2f\n2:" : : "i"(displacement) : "memory")
#else
#define dashfs_count_mark(displacement)
#endif

/// Instructions count from here on.
static inline void dashfs_count_on(void) { dashfs_count_mark(DASHFS_COUNT_ON); }
/// They do not any more.
static inline void dashfs_count_off(void) { dashfs_count_mark(DASHFS_COUNT_OFF); }
/// What was counted since the last report is written down.
static inline void dashfs_count_report(void) { dashfs_count_mark(DASHFS_COUNT_REPORT); }

#endif
