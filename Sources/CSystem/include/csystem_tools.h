// What the command line asks of the kernel beyond what Swift can call: variadic functions and constants that are macros.
#ifndef CSYSTEM_TOOLS_H
#define CSYSTEM_TOOLS_H

#include "csystem_syscall.h"
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/// SIGTERM comes to this process when the thread that started it ends. 0, or a negated errno.
static inline long dashfs_end_with_parent(void) { return dashfs_sys_call(SYS_prctl, PR_SET_PDEATHSIG, 15, 0, 0, 0, 0); }

/// Both ends are close-on-exec. 0, or a negated errno.
static inline long dashfs_make_pipe(int32_t *_Nonnull ends) { return dashfs_sys_call(SYS_pipe2, (long)ends, 02000000, 0, 0, 0, 0); }

/// execvp(3) with an environment. Returns only where it fails; errno says why.
static inline int dashfs_execute(
    const char *_Nonnull file, char *_Nullable const *_Nonnull arguments, char *_Nullable *_Nonnull environment) {
    extern char **environ;
    extern int execvp(const char *, char *const *);
    environ = environment;
    return execvp(file, arguments);
}

/// wait(2)'s status as a shell tells it: the exit status, or 128 and the signal.
static inline int dashfs_exit_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/// Columns of the terminal behind `fd`, or 0.
static inline int dashfs_terminal_columns(int fd) {
    struct winsize size = {0};
    return dashfs_sys_call(SYS_ioctl, fd, TIOCGWINSZ, (long)&size, 0, 0, 0) == 0 ? size.ws_col : 0;
}

/// The errno with which the kernel refuses a small io_uring, or 0.
static inline int dashfs_uring_refusal(void) {
    char parameters[256] = {0};
    long fd = dashfs_sys_call(425 /* io_uring_setup */, 2, (long)parameters, 0, 0, 0, 0);
    if (fd < 0) return (int)-fd;
    dashfs_sys_close((int)fd);
    return 0;
}

/// The errno with which the kernel refuses to hand system calls back (Linux 5.11), or 0. To turn it off, which it is, changes nothing.
static inline int dashfs_dispatch_refusal(void) {
    return (int)-dashfs_sys_call(SYS_prctl, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, 0, 0, 0, 0, 0);
}

/// Whether a program file gives capabilities (capabilities(7), "File capabilities").
static inline _Bool dashfs_gives_capabilities(const char *_Nonnull path) {
    return dashfs_sys_call(SYS_getxattr, (long)path, (long)"security.capability", 0, 0, 0, 0) > 0;
}

#endif
