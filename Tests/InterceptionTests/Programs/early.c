// A library whose initialiser starts a thread that makes file calls at once, and goes on with it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

long early_rounds, early_wrong;
static volatile int stop;
static pthread_t thread;

static void *body(void *argument) {
    while (!stop) {
        char byte;
        int file = open("/etc/passwd", O_RDONLY);
        if (file < 0 || read(file, &byte, 1) != 1 || byte != 'r' || close(file) != 0) early_wrong++;
        if (access("/dashfs-probe/present", F_OK) != 0) early_wrong++;
        __atomic_fetch_add(&early_rounds, 1, __ATOMIC_RELAXED);
    }
    return 0;
}

__attribute__((constructor)) static void start(void) { pthread_create(&thread, 0, body, 0); }

void early_stop(void) {
    stop = 1;
    pthread_join(thread, 0);
}
