// Calls access(2) by `syscall` instructions of its own, in the shapes compilers give them, and prints how many of them the hook has answered. Compiled into programs and libraries:
// with -DLIBRARY only the function. As a program it calls its own, the one of the libraries that it is linked with, and the one of each library named on its command line, loaded
// and unloaded a few times, by threads while others use theirs.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

static const char present[] = "/dashfs-probe/present";

static inline long call3(long number, long first, long second, long third) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
    return result;
}

#ifndef NAME
#define NAME own
#endif
/// How many of four calls were answered: a constant number, one in another register, two in a row, one by a jump.
__attribute__((noinline, visibility("default"))) int NAME(volatile int *zero) {
    int answered = 0;
    answered += call3(SYS_access, (long)present, 0, 0) == 0;
    long number = SYS_access + *zero;
    answered += call3(number, (long)present, 0, 0) == 0;
    answered += call3(SYS_faccessat, -100, (long)present, 0) == 0;
    answered += call3(*zero ? SYS_mkdir : SYS_access, (long)present, *zero, 0) == 0;
    return answered;
}

#ifndef LIBRARY
int linked(volatile int *) __attribute__((weak));

static volatile int zero;
static volatile int stop;

static void *uses(void *argument) {
    long wrong = 0;
    while (!stop) wrong += own(&zero) != 4;
    return (void *)wrong;
}

static int loads(const char *path) {
    int answered = 0;
    for (int round = 0; round < 50; round++) {
        void *library = dlopen(path, RTLD_NOW);
        int (*function)(volatile int *) = library ? (int (*)(volatile int *))dlsym(library, "late") : NULL;
        if (!function) { fprintf(stderr, "%s\n", dlerror()); exit(2); }
        int here = function(&zero);
        if (round > 0 && here != answered) { printf("round %d: %d\n", round, here); exit(3); }
        answered = here;
        dlclose(library);
    }
    return answered;
}

int main(int count, char **arguments) {
    printf("own %d, linked %d", own(&zero), linked ? linked(&zero) : -1);
    pthread_t thread;
    void *wrong;
    if (pthread_create(&thread, NULL, uses, NULL)) return 1;
    for (int i = 1; i < count; i++) printf(", loaded %d", loads(arguments[i]));
    stop = 1;
    pthread_join(thread, &wrong);
    printf(", wrong %ld\n", (long)wrong);
    return 0;
}
#endif
