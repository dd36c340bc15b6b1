// Threads that wait for a record lock, which another open file has, and are cancelled: cancelled_lock FILE. Each has to end as cancelled, with its clean-up handler run, and the lock
// has to be free for others as soon as its owner gives it back.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static const char *path;
static volatile int waiting;
static int cleaned;

static void clean(void *argument) { __atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST); }

static void *waits(void *argument) {
    int file = open(path, O_RDWR);
    struct flock lock = {.l_type = F_WRLCK};
    pthread_cleanup_push(clean, NULL);
    waiting = 1;
    fcntl(file, F_OFD_SETLKW, &lock);
    pthread_cleanup_pop(0);
    return NULL;
}

int main(int count, char **arguments) {
    path = arguments[1];
    int file = open(path, O_RDWR | O_CREAT, 0644), cancelled = 0;
    struct flock lock = {.l_type = F_WRLCK};
    if (file < 0 || fcntl(file, F_OFD_SETLK, &lock)) return 2;
    for (int round = 0; round < 5; round++) {
        pthread_t thread;
        void *result;
        waiting = 0;
        pthread_create(&thread, NULL, waits, NULL);
        while (!waiting) usleep(100);
        usleep(round * 20000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        cancelled += result == PTHREAD_CANCELED;
    }
    lock.l_type = F_UNLCK;
    if (fcntl(file, F_OFD_SETLK, &lock)) return 3;
    int other = open(path, O_RDWR);
    lock.l_type = F_WRLCK;
    int again = fcntl(other, F_OFD_SETLK, &lock);
    printf("cancelled %d, cleaned up %d, free %d\n", cancelled, cleaned, again == 0);
    return cancelled != 5 || cleaned != 5 || again != 0;
}
