// Loads the library into a process that already has two threads.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

static void *body(void *argument) {
    pause();
    return 0;
}

int main(int count, char **arguments) {
    pthread_t thread;
    pthread_create(&thread, 0, body, 0);
    dlopen(arguments[1], RTLD_NOW);
    return 0;
}
