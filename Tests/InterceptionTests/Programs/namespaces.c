// Further copies of the C library (dlmopen(3)), loaded and unloaded: each has call sites of its own, rewritten when it is mapped.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int main(void) {
    int answered = 0;
    for (int round = 0; round < 30; round++) {
        void *copy = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
        if (!copy) return puts(dlerror()), 1;
        int (*function)(const char *, int) = (int (*)(const char *, int))dlsym(copy, "access");
        answered += function("/dashfs-probe/present", 0) == 0;
        dlclose(copy);
    }
    printf("answered %d of 30\n", answered);
    return answered != 30;
}
