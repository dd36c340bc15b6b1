#ifndef CPRELOAD_SIGNALS_H
#define CPRELOAD_SIGNALS_H

// Signals that arrive while the hook is at work: see signals.c.

#include <signal.h>
#include <stdint.h>

/// What a thread knows of its own signals. Written by the thread and by handlers that run on it.
struct dashfs_signal_thread {
    /// The hook is at work for a call that was made with this stack pointer; 0: it is not.
    uint64_t inside;
    /// The signal that waits for the hook's end, or 0. All others are blocked from then on.
    uint32_t deferred;
    /// Its handler has SA_RESTART: it does not end a call.
    uint32_t restarts;
    /// The thread's mask, to be put back.
    uint64_t mask;
    siginfo_t info;
};

/// What the program has asked for, where that is a function.
struct dashfs_signal_action {
    uint64_t handler;
    uint64_t flags;
};

/// struct sigaction as the kernel has it.
struct dashfs_kernel_action {
    uint64_t handler;
    uint64_t flags;
    uint64_t restorer;
    uint64_t mask;
};

enum {
    DASHFS_SIGNALS = 65,
    /// By which the C library cancels threads.
    DASHFS_SIGCANCEL = 32,
};

extern DASHFS_HIDDEN __thread __attribute__((tls_model("initial-exec"))) struct dashfs_signal_thread dashfs_signals_of_thread;
extern DASHFS_HIDDEN struct dashfs_signal_action dashfs_signal_actions[DASHFS_SIGNALS];

static inline struct dashfs_signal_action *_Nonnull dashfs_signal_action_of(uint32_t number) { return &dashfs_signal_actions[number % DASHFS_SIGNALS]; }

void dashfs_signals_entry(int number, siginfo_t *_Nonnull info, void *_Nonnull context) DASHFS_HIDDEN;
/// The address of that function, which the kernel calls in place of the program's.
uint64_t dashfs_signal_entry_address(void) DASHFS_HIDDEN;

/// From here on signals wait. What it returns is for `dashfs_signals_let_in`: 0, or that of a call in whose midst this one is made, by the handler of a fault. Calls further up the
/// stack than this one have been left by a jump, or belonged to a vfork child that was killed.
static inline uint64_t dashfs_signals_hold(uint64_t stack_pointer) {
    uint64_t before = dashfs_signals_of_thread.inside;
    dashfs_signals_of_thread.inside = stack_pointer;
    __asm__ volatile("" ::: "memory");
    return before > stack_pointer ? before : 0;
}

/// The end of it. Not 0: a signal waits to be delivered.
static inline uint32_t dashfs_signals_let_in(uint64_t before) {
    __asm__ volatile("" ::: "memory");
    dashfs_signals_of_thread.inside = before;
    __asm__ volatile("" ::: "memory");
    return before ? 0 : dashfs_signals_of_thread.deferred;
}

static inline uint64_t dashfs_signals_site(void) { return dashfs_signals_of_thread.inside; }

static inline int dashfs_signal_waits(void) { return __atomic_load_n(&dashfs_signals_of_thread.deferred, __ATOMIC_RELAXED) != 0; }

/// What delivered signals mean for a call that waits: EINTR; EINTR where threads are cancelled in it (otherwise it goes on); nothing.
enum { DASHFS_CALL_ENDS, DASHFS_CANCELLATION_ENDS, DASHFS_CALL_GOES_ON };

/// Has the kernel deliver what has waited; the handlers have run, or have not come back, when it returns. By the handler of the first.
int dashfs_signals_deliver(void) DASHFS_HIDDEN;

/// In a forked child: what has waited is its parent's.
void dashfs_signals_drop(void) DASHFS_HIDDEN;

#endif
