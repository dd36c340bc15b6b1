// threads DIR [THREADS] [CANCELLED]: many threads at once on files of DIR, signals that land in their midst, threads that end in the middle of a call.
//   crowd      each of THREADS (256) threads writes and reads back a file of its own and appends to one of all; three crowds one after the other
//   signals    meanwhile each thread is sent signals whose handler opens, writes, reads and closes files
//   cancelled  CANCELLED (1,500) threads are cancelled while they read, write, fsync or wait for a lock, and run their clean-up handlers; then all still works
//   jumps      a handler leaves a call by siglongjmp, as often
// Exit 0 all right, 1 not (it is named), 2 could not run.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char top[3000];
static int wrong, shared;
static atomic_int handled, cleaned;
static atomic_bool stopping;

static void fail(const char *what, int number) {
    printf("WRONG: %s %d: %s\n", what, number, strerror(errno));
    fflush(stdout);
    wrong = 1;
}

static void *crowd_member(void *argument) {
    int number = (int)(long)argument;
    char path[3100], text[64], seen[64];
    snprintf(path, sizeof path, "%s/own %d", top, number);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0) { fail("open", number); return NULL; }
    for (int round = 0; round < 20; round++) {
        int length = snprintf(text, sizeof text, "thread %d round %d ", number, round);
        if (pwrite(file, text, length, round * 64L) != length) fail("pwrite", number);
        memset(seen, 0, sizeof seen);
        if (pread(file, seen, length, round * 64L) != length || memcmp(text, seen, length)) fail("pread", number);
        // The first few stay for the signals.
        if (number < 8 && round == 19 && !stopping) round = 14;
        if (number >= 8 && round % 5 == 0) {
            struct stat status;
            if (write(shared, "0123456789abcdef", 16) != 16) fail("append", number);
            if (stat(path, &status) || status.st_size < round * 64L) fail("stat", number);
        }
    }
    if (close(file) || unlink(path)) fail("close, unlink", number);
    return NULL;
}

/// All of it may be done in a handler.
static void handler(int signal) {
    int saved = errno;
    char path[3100], number[16], byte;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    strcpy(path, top);
    int count = 0;
    for (unsigned long value = (unsigned long)now.tv_nsec; value || !count; value /= 10) number[count++] = (char)('0' + value % 10);
    number[count] = 0;
    strcat(path, "/handler ");
    strcat(path, number);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    if (file >= 0 && write(file, "x", 1) == 1 && pread(file, &byte, 1, 0) == 1 && byte == 'x' && close(file) == 0) atomic_fetch_add(&handled, 1);
    unlink(path);
    errno = saved;
    (void)signal;
}

static void *signaller(void *argument) {
    pthread_t *threads = argument;
    for (int round = 0; !stopping; round++) {
        pthread_kill(threads[round % 8], SIGUSR1);
        struct timespec pause = {0, 100000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void crowd(int count) {
    pthread_t threads[1024], sender;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    stopping = false;
    for (int number = 0; number < count; number++)
        if ((errno = pthread_create(&threads[number], &attributes, crowd_member, (void *)(long)number))) { fail("pthread_create", number); exit(2); }
    pthread_create(&sender, NULL, signaller, threads);
    for (int number = 8; number < count; number++) pthread_join(threads[number], NULL);
    for (int before = handled; handled < before + 100;) sched_yield();
    stopping = true;
    pthread_join(sender, NULL);
    for (int number = 0; number < 8; number++) pthread_join(threads[number], NULL);
}

static void clean_up(void *file) {
    close(*(int *)file);
    atomic_fetch_add(&cleaned, 1);
}

static void *victim(void *argument) {
    int number = (int)(long)argument, file = -1;
    char path[3100];
    static char buffer[65536];
    snprintf(path, sizeof path, "%s/victim %d", top, number % 16);
    pthread_cleanup_push(clean_up, &file);
    file = open(path, O_RDWR | O_CREAT, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    for (;;) {
        switch (number % 4) {
        case 0: pwrite(file, buffer, sizeof buffer, 0); break;
        case 1: pread(file, buffer, sizeof buffer, 0); break;
        case 2: pwrite(file, buffer, 1, 0); fsync(file); break;
        // Held by the main thread's open file.
        default: fcntl(shared, F_GETFL); fcntl(file, F_OFD_SETLKW, &lock); break;
        }
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancelled(int count) {
    int held[16];
    for (int number = 0; number < 16; number++) {
        char path[3100];
        snprintf(path, sizeof path, "%s/victim %d", top, number);
        held[number] = open(path, O_RDWR | O_CREAT, 0600);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (held[number] < 0 || fcntl(held[number], F_OFD_SETLK, &lock)) fail("lock", number);
    }
    for (int number = 0; number < count; number += 4) {
        pthread_t threads[4];
        for (int index = 0; index < 4; index++)
            if ((errno = pthread_create(&threads[index], NULL, victim, (void *)(long)(number + index)))) { fail("pthread_create", number); exit(2); }
        struct timespec pause = {0, (number % 64) * 5000L};
        nanosleep(&pause, NULL);
        for (int index = 0; index < 4; index++) pthread_cancel(threads[index]);
        for (int index = 0; index < 4; index++) {
            void *result;
            pthread_join(threads[index], &result);
            if (result != PTHREAD_CANCELED) fail("not cancelled", number + index);
        }
    }
    for (int number = 0; number < 16; number++) close(held[number]);
}

static sigjmp_buf out;
static void jump(int signal) { siglongjmp(out, signal); }

static void jumps(int count) {
    char path[3100];
    static char buffer[65536];
    snprintf(path, sizeof path, "%s/jumps", top);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    struct sigaction action = {.sa_handler = jump};
    sigaction(SIGALRM, &action, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer)) { fail("timer_create", 0); return; }
    for (volatile int number = 0; number < count; number++) {
        struct itimerspec when = {.it_value = {0, 20000 + (number % 50) * 3000L}};
        if (sigsetjmp(out, 1)) continue;
        timer_settime(timer, 0, &when, NULL);
        for (;;) {
            pwrite(file, buffer, sizeof buffer, 0);
            pread(file, buffer, sizeof buffer, 0);
        }
    }
    timer_delete(timer);
    if (pwrite(file, "end", 3, 0) != 3 || pread(file, buffer, 3, 0) != 3 || memcmp(buffer, "end", 3)) fail("after the jumps", 0);
    close(file);
}

int main(int count, char **arguments) {
    if (count < 2) { fprintf(stderr, "usage: threads DIR [THREADS] [CANCELLED]\n"); return 2; }
    snprintf(top, sizeof top, "%s", arguments[1]);
    int threads = count > 2 ? atoi(arguments[2]) : 256, victims = count > 3 ? atoi(arguments[3]) : 1500;
    if (threads < 8 || threads > 1024) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    char path[3100];
    snprintf(path, sizeof path, "%s/shared", top);
    shared = open(path, O_RDWR | O_CREAT | O_APPEND | O_TRUNC, 0600);
    if (shared < 0) { perror("threads: open"); return 2; }
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (int round = 0; round < 3; round++) crowd(threads);
    struct stat status;
    if (fstat(shared, &status) || status.st_size != 3L * (threads - 8) * 4 * 16) fail("records in the file of all", (int)(status.st_size / 16));
    if (!handled) fail("no handler has run", 0);
    printf("crowd, signals: %s\n", wrong ? "wrong" : "ok");
    cancelled(victims);
    if (cleaned != (victims + 3) / 4 * 4) fail("clean-up handlers", cleaned);
    printf("cancelled: %s\n", wrong ? "wrong" : "ok");
    jumps(victims);
    printf("jumps: %s\n", wrong ? "wrong" : "ok");
    crowd(threads);
    printf("%s threads\n", wrong ? "FAIL" : "PASS");
    return wrong;
}
