// Threads that were started by a library's initialiser, before main, and eight that are started later.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern long early_rounds, early_wrong;
void early_stop(void);

static void *body(void *argument) {
    long wrong = 0;
    char name[64], text[64];
    snprintf(name, sizeof name, "/proc/self/task/%d/comm", gettid());
    for (int i = 0; i < 2000; i++) {
        FILE *file = fopen(name, "r");
        if (!file || !fgets(text, sizeof text, file)) wrong++;
        if (file) fclose(file);
        if (access("/dashfs-probe/present", F_OK) != 0) wrong++;
    }
    return (void *)wrong;
}

int main(void) {
    pthread_t threads[8];
    long wrong = 0;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, body, NULL);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    while (__atomic_load_n(&early_rounds, __ATOMIC_RELAXED) < 100) usleep(100);
    early_stop();
    printf("wrong %ld before, %ld after\n", early_wrong, wrong);
    return early_wrong != 0 || wrong != 0;
}
