#include "cpreload.h"
#include "csystem.h"
#include <sys/syscall.h>
#include <ucontext.h>

// The program's handlers run at the end of a call that the hook answers, as they do at the end of a system call. So a handler that jumps away, or cancels the thread, finds no channel,
// no block and no reference held, and what it calls itself is never called in the middle of anything.
//
// The kernel calls `dashfs_signals_entry` for every handler of the program. While the hook is at work it notes the signal and has all others blocked; `dashfs_signals_deliver` sends it to the
// thread once more and unblocks, and the kernel delivers them all, now with the program's handler, mask and stack. Faults are the exception: they cannot wait.

__thread struct dashfs_signal_thread dashfs_signals_of_thread;
struct dashfs_signal_action dashfs_signal_actions[DASHFS_SIGNALS];

typedef void handler_function(int, siginfo_t *, void *);

static const uint64_t faults = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGFPE - 1) | 1ull << (SIGILL - 1) | 1ull << (SIGTRAP - 1)
    | 1ull << (SIGSYS - 1);

static int is_fault(int number, const siginfo_t *info) { return (faults >> (number - 1) & 1) && info->si_code > 0; }

static uint64_t *mask_of(void *context) { return (uint64_t *)&((ucontext_t *)context)->uc_sigmask; }

// What the kernel does where there is no handler, for the one signal whose handler stays ours (dispatch).
static void end_by(int number) {
    struct dashfs_kernel_action usual = {0, 0, 0, 0};
    dashfs_sys_call(SYS_rt_sigaction, number, (long)&usual, 0, 8, 0, 0);
    dashfs_sys_call(SYS_tgkill, dashfs_sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0), dashfs_sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0), number, 0, 0, 0);
}

void dashfs_signals_entry(int number, siginfo_t *info, void *context) {
    struct dashfs_signal_thread *own = &dashfs_signals_of_thread;
    struct dashfs_signal_action *action = dashfs_signal_action_of((uint32_t)number);
    if (own->inside && !own->deferred && !is_fault(number, info)) {
        uint64_t *to = (uint64_t *)&own->info, *from = (uint64_t *)info;
        for (unsigned word = 0; word < sizeof own->info / 8; word++) to[word] = from[word];
        own->restarts = (action->flags & SA_RESTART) != 0;
        own->mask = *mask_of(context);
        *mask_of(context) = ~faults;
        own->deferred = (uint32_t)number;
        return;
    }
    uint64_t handler = __atomic_load_n(&action->handler, __ATOMIC_ACQUIRE);
    if (action->flags & SA_RESETHAND) {
        struct dashfs_kernel_action reset = {0, 0, 0, 0};
        dashfs_sys_call(SYS_rt_sigaction, number, (long)&reset, 0, 8, 0, 0);
        action->handler = 0;
    }
    // 0, 1: it has been taken back meanwhile.
    if (handler > 1) ((handler_function *)handler)(number, info, context);
    else if (number == SIGSYS && handler == 0) end_by(number);
    if (number == DASHFS_SIGCANCEL) dashfs_dispatch_was_cancelled(context);
}

uint64_t dashfs_signal_entry_address(void) { return (uint64_t)dashfs_signals_entry; }

int dashfs_signals_deliver(void) {
    struct dashfs_signal_thread *own = &dashfs_signals_of_thread;
    siginfo_t info = own->info;
    uint64_t mask = own->mask;
    long number = own->deferred, restarts = own->restarts;
    own->deferred = 0;
    long process = dashfs_sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0), thread = dashfs_sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
    if (dashfs_sys_call(SYS_rt_tgsigqueueinfo, process, thread, number, (long)&info, 0, 0) < 0) dashfs_sys_call(SYS_tgkill, process, thread, number, 0, 0, 0);
    dashfs_sys_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8, 0, 0);
    return restarts == 0 ? DASHFS_CALL_ENDS : number == DASHFS_SIGCANCEL ? DASHFS_CANCELLATION_ENDS : DASHFS_CALL_GOES_ON;
}

void dashfs_signals_drop(void) {
    struct dashfs_signal_thread *own = &dashfs_signals_of_thread;
    if (!own->deferred) return;
    own->deferred = 0;
    uint64_t mask = own->mask;
    dashfs_sys_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8, 0, 0);
}
