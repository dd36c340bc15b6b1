// Bad pointers to calls that the hook answers end in EFAULT; good ones of every kind work.
#define _GNU_SOURCE
#include <alloca.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int wrong;

static void expect(const char *what, long result, int error) {
    int got = result < 0 ? errno : 0;
    if (got != error) wrong++, printf("%s: errno %d instead of %d\n", what, got, error);
}

#define CALLS "/dashfs-probe/calls"
#define PRESENT "/dashfs-probe/present"

static void deep(int megabytes) {
    // Far below what the stack has grown to.
    char *buffer = alloca((size_t)megabytes << 20);
    expect("a fresh part of the stack", readlink(CALLS, buffer, 20), 0);
}

static void *in_thread(void *argument) {
    char buffer[20];
    expect("the stack of a thread", readlink(CALLS, buffer, sizeof buffer), 0);
    deep(1);
    return NULL;
}

int main(void) {
    char *pages = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++) {
        expect("no path", access(NULL, F_OK), EFAULT);
        expect("a path at an odd address", access((char *)0xdeadc0de, F_OK), EFAULT);
        expect("a path in the kernel's half", access((char *)0xffff800000000000, F_OK), EFAULT);
        expect("a path at the last byte", access((char *)-1, F_OK), EFAULT);
        expect("a path at an address that no processor has", access((char *)0x8000000000000000, F_OK), EFAULT);
        expect("no buffer", readlink(CALLS, NULL, 20), EFAULT);
        expect("a buffer in the kernel's half", readlink(CALLS, (char *)0xffff800000000000, 20), EFAULT);
        expect("a constant as buffer", readlink(CALLS, (char *)(uintptr_t)PRESENT, 20), EFAULT);
        expect("a good buffer", readlink(CALLS, pages, 20), 0);

        // A path that ends with its page, and one that does not.
        char *end = pages + 4096 - sizeof PRESENT;
        strcpy(end, PRESENT);
        expect("a path up to the end of a page", access(end, F_OK), 0);
        mprotect(pages + 4096, 4096, PROT_NONE);
        expect("with nothing behind it", access(end, F_OK), 0);
        memmove(end + 1, PRESENT, sizeof PRESENT - 1);
        expect("a path into nothing", access(end + 1, F_OK), EFAULT);
        expect("a buffer that is protected", readlink(CALLS, pages + 4096, 20), EFAULT);
        mprotect(pages + 4096, 4096, PROT_READ);
        expect("a buffer that is read-only", readlink(CALLS, pages + 4096, 20), EFAULT);
        mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE);
        expect("the same, writable again", readlink(CALLS, pages + 4096, 20), 0);

        char *lost = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        strcpy(lost, PRESENT);
        expect("a path in a fresh page", access(lost, F_OK), 0);
        expect("a fresh page as buffer", readlink(CALLS, lost, 20), 0);
        munmap(lost, 4096);
        expect("the same, unmapped", access(lost, F_OK), EFAULT);
        expect("the same as buffer", readlink(CALLS, lost, 20), EFAULT);
    }
    deep(4);
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, NULL);
    pthread_join(thread, NULL);
    printf("%d failures\n", wrong);
    return wrong != 0;
}
