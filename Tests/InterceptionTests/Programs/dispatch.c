// What holds of dispatch alone: calls are caught whatever code makes them, in every thread and child, whatever the program does to its signals.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;
static void expect(int is_true, const char *what) {
    if (is_true) return;
    failures++;
    printf("wrong: %s\n", what);
    fflush(stdout);
}

// Of the program's own: no table knows it.
__attribute__((noinline)) static long own(long number, long first, long second, long third) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
    return result;
}
static int caught(void) { return own(SYS_access, (long)"/dashfs-probe/present", 0, 0) == 0; }

static void *thread(void *argument) { return (void *)(long)caught(); }

static int cloned(void *argument) { return caught() ? 7 : 8; }

static int status_of(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

static volatile sig_atomic_t handled, caught_in_handler, last_code, on_stack;
static char alternate[1 << 16];
static void handler(int number, siginfo_t *info, void *context) {
    char here;
    handled++;
    last_code = info->si_code;
    on_stack = &here >= alternate && &here < alternate + sizeof alternate;
    caught_in_handler = caught() && access("/dashfs-probe/present", F_OK) == 0;
}

static void set(int number, int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigfillset(&action.sa_mask);
    expect(sigaction(number, &action, NULL) == 0, "sigaction");
}

static void children(const char *program) {
    expect(caught(), "main");
    pthread_t threads[16];
    for (int i = 0; i < 16; i++) pthread_create(&threads[i], NULL, thread, NULL);
    for (int i = 0; i < 16; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        expect(result == (void *)1, "thread");
    }
    pid_t child = fork();
    if (child == 0) {
        pthread_t inner;
        void *result = NULL;
        int good = caught();
        pthread_create(&inner, NULL, thread, NULL);
        pthread_join(inner, &result);
        _exit(good && result == (void *)1 ? 7 : 8);
    }
    expect(WEXITSTATUS(status_of(child)) == 7, "fork, and a thread there");
    child = vfork();
    if (child == 0) _exit(caught() ? 7 : 8);
    expect(WEXITSTATUS(status_of(child)) == 7, "vfork");
    // In one another, by different functions: each has to come back to where it was made.
    child = vfork();
    if (child == 0) {
        int good = caught();
        long inner;
        __asm__ volatile("syscall" : "=a"(inner) : "a"(SYS_vfork) : "rcx", "r11", "memory");
        if (inner == 0) _exit(caught() ? 7 : 8);
        _exit(good && WEXITSTATUS(status_of(inner)) == 7 && caught() ? 7 : 8);
    }
    expect(WEXITSTATUS(status_of(child)) == 7, "vfork in a vfork child");
    child = vfork();
    if (child == 0) {
        pid_t inner = vfork();
        if (inner == 0) {
            kill(getpid(), SIGKILL);
            _exit(8);
        }
        _exit(WTERMSIG(status_of(inner)) == SIGKILL ? 7 : 8);
    }
    expect(WEXITSTATUS(status_of(child)) == 7, "a killed child of a vfork child");
    static char stack[2][1 << 16];
    child = clone(cloned, stack[0] + sizeof stack[0], SIGCHLD, NULL);
    expect(WEXITSTATUS(status_of(child)) == 7, "clone with a stack");
    child = clone(cloned, stack[1] + sizeof stack[1], CLONE_VM | SIGCHLD, NULL);
    expect(WEXITSTATUS(status_of(child)) == 7, "clone with a stack in shared memory");
    expect(caught(), "main, after its children");
    child = vfork();
    if (child == 0) {
        execl(program, program, "only", NULL);
        _exit(8);
    }
    expect(WEXITSTATUS(status_of(child)) == 7, "an exec");
}

static void signals(void) {
    sigset_t all, none, seen;
    sigfillset(&all);
    sigemptyset(&none);
    expect(sigprocmask(SIG_SETMASK, &all, &seen) == 0 && caught(), "with all blocked");
    expect(sigprocmask(SIG_SETMASK, NULL, &seen) == 0 && sigismember(&seen, SIGUSR1) == 1, "the mask that was set");
    set(SIGUSR1, 0);
    raise(SIGUSR1);
    expect(handled == 0, "a blocked signal waits");
    sigset_t wait = all;
    sigdelset(&wait, SIGUSR1);
    expect(sigsuspend(&wait) == -1 && errno == EINTR && handled == 1 && caught_in_handler, "sigsuspend");
    struct timespec second = {1, 0};
    raise(SIGUSR1);
    expect(ppoll(NULL, 0, &second, &wait) == -1 && errno == EINTR && handled == 2 && caught_in_handler, "ppoll");
    raise(SIGUSR1);
    expect(pselect(0, NULL, NULL, NULL, &second, &wait) == -1 && errno == EINTR && handled == 3 && caught_in_handler, "pselect");
    raise(SIGUSR1);
    expect(sigprocmask(SIG_SETMASK, &none, NULL) == 0 && handled == 4 && caught_in_handler, "unblocking");
    expect(sigprocmask(SIG_SETMASK, NULL, &seen) == 0 && sigismember(&seen, SIGUSR1) == 0, "the mask that is empty");

    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, found;
    expect(sigaltstack(&stack, NULL) == 0, "sigaltstack");
    expect(sigaltstack(NULL, &found) == 0 && found.ss_sp == alternate, "the alternate stack is kept");
    set(SIGUSR2, SA_ONSTACK);
    raise(SIGUSR2);
    expect(handled == 5 && on_stack && caught_in_handler, "a handler on the alternate stack");
    struct sigaction old;
    expect(sigaction(SIGUSR2, NULL, &old) == 0 && old.sa_sigaction == handler && (old.sa_flags & SA_ONSTACK), "what sigaction tells");

    // The signal itself belongs to the program, too.
    expect(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_handler == SIG_DFL, "SIGSYS has no handler");
    pid_t child = fork();
    if (child == 0) {
        kill(getpid(), SIGSYS);
        _exit(8);
    }
    int status = status_of(child);
    expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "SIGSYS ends a program that has no handler");
    set(SIGSYS, 0);
    kill(getpid(), SIGSYS);
    expect(handled == 6 && last_code == SI_USER && caught_in_handler, "SIGSYS by kill");
    expect(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_sigaction == handler, "SIGSYS has a handler");
    child = fork();
    if (child == 0) {
        struct sock_filter rules[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog filter = {4, rules};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) _exit(9);
        getppid();
        _exit(handled == 7 && last_code == 1 /* SYS_SECCOMP */ && caught() ? 7 : 8);
    }
    expect(WEXITSTATUS(status_of(child)) == 7, "SIGSYS by a filter of the program's own");
    errno = 0;
    expect(prctl(59, 0, 0, 0, 0) == -1 && errno == EINVAL && caught(), "nobody turns it off");
}

int main(int count, char **arguments) {
    if (count > 1) return caught() ? 7 : 8;
    children(arguments[0]);
    signals();
    printf("%d failures\n", failures);
    return failures != 0;
}
