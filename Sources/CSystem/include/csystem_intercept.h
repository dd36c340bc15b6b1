// Interception: system calls made by this code itself, and the frame in which the stub hands over one of the program's.
// Nothing here goes through libc, so nothing here meets a rewritten call site, and errno is never touched.
#ifndef CSYSTEM_INTERCEPT_H
#define CSYSTEM_INTERCEPT_H

#include <stdint.h>

/// The kernel's own convention: a result in -4095 ... -1 is a negated errno.
static inline int64_t dashfs_raw_syscall6(
    int64_t number, int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t a4, int64_t a5) {
    int64_t result;
    register int64_t r10 __asm__("r10") = a3;
    register int64_t r8 __asm__("r8") = a4;
    register int64_t r9 __asm__("r9") = a5;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

static inline int64_t dashfs_raw_syscall3(int64_t number, int64_t a0, int64_t a1, int64_t a2) {
    int64_t result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a0), "S"(a1), "d"(a2)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

/// One system call of the program, as the stub found it. What the hook changes in `number` and the arguments is what the
/// kernel sees if the hook leaves the call unhandled; `result` counts only when it says "handled".
/// The offsets are known to Sources/CPreload/stub.S.
struct dashfs_system_call_frame {
    int64_t number;          // +0   rax
    int64_t argument0;       // +8   rdi
    int64_t argument1;       // +16  rsi
    int64_t argument2;       // +24  rdx
    int64_t argument3;       // +32  r10
    int64_t argument4;       // +40  r8
    int64_t argument5;       // +48  r9
    int64_t result;          // +56  rax on return: a value, or a negated errno
    uint64_t stack_pointer;  // +64  the program's rsp at the call site
    uint64_t cancellation_point;  // +72  not 0: glibc 2.41 cancels threads in this call (the function that would make it)
};
typedef struct dashfs_system_call_frame SystemCallFrame;

#endif
