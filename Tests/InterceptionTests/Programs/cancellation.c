// Threads cancelled where they wait in a rewritten call, and asynchronously anywhere in site, stub and hook.
//
// Compiled twice. With -fexceptions a clean-up handler is a landing pad, reached by unwinding through every frame; the
// compiler gives calls that cannot throw, access(2) among them, no landing pad, so asynchronous cancellation is left to the
// other form, where the handler is found by comparing the unwinder's frame addresses with its own.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int ends[2];
static volatile int started;
static int cleaned;

static void clean(void *argument) { __atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST); }

static void *waits(void *argument) {
    char byte;
    pthread_cleanup_push(clean, NULL);
    started = 1;
    if (read(ends[0], &byte, 1) == 1) return NULL;
    pthread_cleanup_pop(0);
    return NULL;
}

static void *spins(void *argument) {
    pthread_cleanup_push(clean, NULL);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    started = 1;
    for (;;) {
        access("/dashfs-probe/present", F_OK);
        access("/", F_OK);
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void *tests(void *argument) {
    pthread_cleanup_push(clean, NULL);
    started = 1;
    for (;;) {
        access("/dashfs-probe/present", F_OK);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void) {
#ifdef __EXCEPTIONS
    void *(*const bodies[])(void *) = {waits, tests, tests};
#else
    void *(*const bodies[])(void *) = {waits, spins, tests};
#endif
    if (pipe(ends) != 0) return 1;
    int expected = 0, cancelled = 0;
    for (int round = 0; round < 300; round++) {
        pthread_t thread;
        void *result;
        started = 0;
        pthread_create(&thread, NULL, bodies[round % 3], NULL);
        while (!started) usleep(1);
        if (round % 2) usleep(round);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        expected++;
        cancelled += result == PTHREAD_CANCELED;
    }
    printf("cancelled %d, cleaned up %d, of %d\n", cancelled, cleaned, expected);
    return cancelled != expected || cleaned != expected;
}
