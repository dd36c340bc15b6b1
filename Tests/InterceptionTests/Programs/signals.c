// A signal every 200 microseconds, its handler on a small stack of its own and making file calls itself, while the program
// makes file calls as fast as it can. Some handlers leave by siglongjmp.
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef STACK
#define STACK 8192
#endif

static volatile sig_atomic_t signals, wrong, may_jump;
static sigjmp_buf back;
static int file;

static void on_alarm(int signal) {
    signals++;
    char first;
    if (access("/dashfs-probe/present", F_OK) != 0) wrong++;
    if (pread(file, &first, 1, 0) != 1 || first != 'r') wrong++;
    if (may_jump && signals % 16 == 0) siglongjmp(back, 1);
}

int main(void) {
    static char stack[STACK];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    // Whoever started this may have had signals blocked.
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarm, NULL);
    file = open("/etc/passwd", O_RDONLY);
    struct itimerval often = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &often, NULL);

    volatile long jumps = 0, rounds = 0;
    while (signals < 3000) {
        if (sigsetjmp(back, 1)) jumps++;
        may_jump = 1;
        for (int i = 0; i < 20; i++) {
            if (access("/dashfs-probe/present", F_OK) != 0) wrong++;
            if (access("/dashfs-probe/absent", F_OK) == 0) wrong++;
        }
        may_jump = 0;
        char text[64];
        int other = open("/proc/self/stat", O_RDONLY);
        ssize_t count = read(other, text, sizeof text);
        if (other < 0 || count <= 0 || close(other) != 0) wrong++;
        rounds++;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    printf("wrong %d, jumps %s\n", (int)wrong, jumps > 0 ? "some" : "none");
    return wrong != 0;
}
