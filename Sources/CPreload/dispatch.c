#include "cpreload.h"
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <sys/syscall.h>

struct dashfs_dispatch_range dashfs_dispatch_range;
struct dashfs_kernel_action dashfs_dispatch_action;
__thread struct dashfs_dispatch_thread dashfs_dispatch_of_thread;
uint32_t dashfs_dispatch_cancels;

extern DASHFS_HIDDEN const uint8_t dashfs_dispatch_call_site[], dashfs_dispatch_call_end[];

void dashfs_dispatched(struct dashfs_interrupted *) DASHFS_HIDDEN;

// Its signal mask is the program's, and so the kernel may deliver others in its midst, as it may at any instruction.
static void entry(int number, siginfo_t *info, void *context) {
    int by_dispatch = 2;  // SYS_USER_DISPATCH, <asm-generic/siginfo.h>
    if (info->si_code != by_dispatch) return dashfs_signals_entry(number, info, context);
    struct dashfs_interrupted *interrupted = context;
    if (info->si_arch == AUDIT_ARCH_X86_64) return dashfs_dispatched(interrupted);
    interrupted->rax = -ENOSYS;  // by int 0x80, with the numbers of another processor
}

uint64_t dashfs_dispatch_entry_address(void) { return (uint64_t)entry; }

void dashfs_dispatch_was_cancelled(void *context) {
    struct dashfs_interrupted *interrupted = context;
    if (!dashfs_dispatch_cancels || interrupted->rip - dashfs_dispatch_range.start >= dashfs_dispatch_range.length) return;
    if (interrupted->rip >= (uint64_t)dashfs_dispatch_call && interrupted->rip <= (uint64_t)dashfs_dispatch_call_site) {
        interrupted->rip = (uint64_t)dashfs_dispatch_call_end;
        interrupted->rax = -EINTR;
    } else {
        dashfs_dispatch_of_thread.is_cancelled = 1;
    }
}

void dashfs_dispatch_is_lost(void) {
    static const char line[] = "dashfs: prctl(PR_SET_SYSCALL_USER_DISPATCH) is refused in a new thread or process, so its calls could not be caught: the program ends\n";
    dashfs_sys_call(SYS_write, 2, (long)line, sizeof line - 1, 0, 0, 0);
    dashfs_sys_call(SYS_exit_group, 126, 0, 0, 0, 0, 0);
}
