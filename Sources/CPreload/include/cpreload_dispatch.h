#ifndef CPRELOAD_DISPATCH_H
#define CPRELOAD_DISPATCH_H

// System calls that the kernel hands back by a signal: Sources/Preload/X86_64/Dispatch.swift, and dispatch.c and x86_64/dispatch.S here.

#include <stdint.h>

/// What the kernel has interrupted for a signal, and goes on with when its handler ends: the beginning of struct ucontext (Linux arch/x86/include/uapi/asm/sigcontext.h).
struct dashfs_interrupted {
    uint64_t flags, link;
    /// A stack_t: the alternate stack.
    uint64_t stack_address, stack_flags, stack_size;
    int64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx;
    uint64_t rsp, rip;
    uint64_t others[15];
    /// The signals that are blocked.
    uint64_t mask;
};

/// The code whose own system calls the kernel makes: this library's. Zero length: no call is handed back.
extern DASHFS_HIDDEN struct dashfs_dispatch_range {
    uint64_t start, length;
} dashfs_dispatch_range;

static inline struct dashfs_dispatch_range *_Nonnull dashfs_dispatch_range_place(void) { return &dashfs_dispatch_range; }

/// What the kernel is told of SIGSYS, in every thread and child.
extern DASHFS_HIDDEN struct dashfs_kernel_action dashfs_dispatch_action;
static inline struct dashfs_kernel_action *_Nonnull dashfs_dispatch_action_place(void) { return &dashfs_dispatch_action; }

/// Where this library is loaded: the ELF header of its file (by the linker).
extern DASHFS_HIDDEN const uint8_t __ehdr_start[];
static inline uintptr_t dashfs_own_header_address(void) { return (uintptr_t)__ehdr_start; }

/// The handler of SIGSYS, and the end of every signal handler.
uint64_t dashfs_dispatch_entry_address(void) DASHFS_HIDDEN;
extern DASHFS_HIDDEN uint8_t dashfs_dispatch_restorer[];
static inline uintptr_t dashfs_dispatch_restorer_address(void) { return (uintptr_t)dashfs_dispatch_restorer; }

/// Makes a call as its frame says. EINTR also where a cancelled thread has to look at itself.
int64_t dashfs_dispatch_call(const struct dashfs_system_call_frame *_Nonnull) DASHFS_HIDDEN;

/// Code that makes a clone(2) with the program's registers as they are, and then goes on where this thread's `return` of that level says; the child, where it has a stack of its own,
/// where the word below that says.
extern DASHFS_HIDDEN uint8_t dashfs_dispatch_clones[];
static inline uintptr_t dashfs_dispatch_clone_address(uint32_t level, _Bool has_stack) {
    return (uintptr_t)dashfs_dispatch_clones + DASHFS_DISPATCH_STUB_SIZE * (2 * (level % DASHFS_DISPATCH_LEVELS) + has_stack);
}

/// Children of children that all share one thread's memory (vfork in a vfork child): each level has a word of its own.
struct dashfs_dispatch_thread {
    uint64_t returns[DASHFS_DISPATCH_LEVELS];
    uint32_t level;
    /// A cancellation came while the library was at work.
    uint32_t is_cancelled;
};
extern DASHFS_HIDDEN __thread __attribute__((tls_model("initial-exec"))) struct dashfs_dispatch_thread dashfs_dispatch_of_thread;

static inline uint32_t dashfs_dispatch_push(uint64_t address) {
    struct dashfs_dispatch_thread *own = &dashfs_dispatch_of_thread;
    uint32_t level = own->level < DASHFS_DISPATCH_LEVELS ? own->level : DASHFS_DISPATCH_LEVELS - 1;
    own->returns[level] = address;
    own->level = level + 1;
    return level;
}

/// A thread or child whose calls the kernel will not hand back: the program ends.
void dashfs_dispatch_is_lost(void) DASHFS_HIDDEN;

/// After the C library's own handler of its signal for cancellation, which has let the thread go on.
void dashfs_dispatch_was_cancelled(void *_Nonnull context) DASHFS_HIDDEN;
/// Whether a wait ends then: threads of this C library look for themselves (glibc 2.41).
extern DASHFS_HIDDEN uint32_t dashfs_dispatch_cancels;
static inline void dashfs_dispatch_set_cancels(_Bool cancels) { dashfs_dispatch_cancels = cancels; }
static inline _Bool dashfs_dispatch_ends_waits(void) { return dashfs_dispatch_cancels; }

/// gnu_get_libc_version(3), or null.
const char *_Nonnull dashfs_libc_version_text(void) __asm__("gnu_get_libc_version") __attribute__((weak, visibility("default")));
static inline const char *_Nullable dashfs_libc_version(void) { return &dashfs_libc_version_text != NULL ? dashfs_libc_version_text() : NULL; }

#endif
