// The operations that the paper times in §4.3.1, by the same calls on every file system.
//
//     operations DIRECTORY [mark]
//
// For each line "OPERATION COUNT" that it reads it does the operation so often and answers "OPERATION COUNT MEDIAN MEAN", in nanoseconds. With `mark`
// it reads no clock, and marks where instructions are to be counted (csystem_count.h).
//
//     write       4 KiB, O_DIRECT and O_DSYNC, over blocks that have been written before
//     directread  4 KiB, O_DIRECT, of the same file
//     read        4 KiB that are cached
//     create      a file is made, written (4 KiB), synced and closed
//     unlink      everything that was created is removed; not for timing
//     known       2,000,000 instructions, 1,000 string operations of 4 KiB and little else: is the counter right?
//
// Compiled with LIBRARY it calls dashfs.h instead of the kernel.
#define _GNU_SOURCE
#include "csystem_count.h"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef LIBRARY
#include "dashfs.h"
#define open dashfs_open
#define close dashfs_close
#define pread dashfs_pread
#define pwrite dashfs_pwrite
#define fsync dashfs_fsync
#define unlink dashfs_unlink
#endif

enum { block = 4096, blocks = 1024, cached_blocks = 64, most = 10000 };
static const char *directory;
static int marks;
static int synchronous, direct, cached;
static unsigned made;
static char *buffer;
static uint64_t times[most];

static void need(int holds, const char *what) {
    if (holds) return;
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    if (marks) return 0;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static char *path(const char *name, unsigned number) {
    static char text[4096];
    snprintf(text, sizeof text, "%s/%s%u", directory, name, number);
    return text;
}

static int prepare(const char *name, int count) {
    int file = open(path(name, 0), O_CREAT | O_RDWR, 0644);
    need(file >= 0, name);
    for (int index = 0; index < count; index++) need(pwrite(file, buffer, block, (off_t)index * block) == block, name);
    need(fsync(file) == 0, name);
    return file;
}

static void write_direct(off_t at) { need(pwrite(synchronous, buffer, block, at) == block, "write"); }
static void read_direct(off_t at) { need(pread(direct, buffer, block, at) == block, "directread"); }
static void read_cached(off_t at) { need(pread(cached, buffer, block, at % (cached_blocks * block)) == block, "read"); }

static void create(off_t at) {
    (void)at;
    int file = open(path("made", made++), O_CREAT | O_EXCL | O_WRONLY, 0644);
    need(file >= 0, "create");
    need(pwrite(file, buffer, block, 0) == block, "create: write");
    need(fsync(file) == 0, "create: fsync");
    need(close(file) == 0, "create: close");
}

static void remove_all(off_t at) {
    (void)at;
    while (made > 0) need(unlink(path("made", --made)) == 0, "unlink");
    int folder = open(directory, O_RDONLY | O_DIRECTORY);
    need(folder >= 0 && fsync(folder) == 0 && close(folder) == 0, directory);
}

static void known(off_t at) {
    (void)at;
    for (int round = 0; round < 1000; round++) {
        uint64_t count = block;
        void *to = buffer;
        __asm__ volatile("rep stosb" : "+c"(count), "+D"(to) : "a"(7) : "memory");
    }
    uint64_t count = 1000000;
    __asm__ volatile("1: dec %0\njnz 1b" : "+r"(count) : : "cc");
}

static const struct { const char *name; void (*once)(off_t at); } operations[] = {
    {"write", write_direct}, {"directread", read_direct}, {"read", read_cached}, {"create", create}, {"unlink", remove_all}, {"known", known},
};

static void run(void (*once)(off_t at), int count) {
    for (int index = 0; index < count; index++) {
        uint64_t begun = now();
        once((off_t)(index % blocks) * block);
        times[index] = now() - begun;
    }
}

static int by_value(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv) {
    char operation[32];
    int count;
    if (argc < 2) return fprintf(stderr, "usage: operations DIRECTORY [mark]\n"), 64;
    directory = argv[1];
    marks = argc > 2;
#ifdef LIBRARY
    need(dashfs_connect(NULL) == 0, "dashfs_connect");
#endif
    need(posix_memalign((void **)&buffer, block, block) == 0, "memory");
    memset(buffer, 7, block);
    need(close(prepare("direct", blocks)) == 0, "close");
    cached = prepare("cached", cached_blocks);
    synchronous = open(path("direct", 0), O_RDWR | O_DIRECT | O_DSYNC);
    direct = open(path("direct", 0), O_RDWR | O_DIRECT);
    need(synchronous >= 0 && direct >= 0, "O_DIRECT");
    while (scanf("%31s %d", operation, &count) == 2 && count > 0 && count <= most) {
        void (*once)(off_t at) = NULL;
        uint64_t sum = 0;
        for (size_t index = 0; index < sizeof operations / sizeof *operations; index++)
            if (!strcmp(operation, operations[index].name)) once = operations[index].once;
        if (!once) return fprintf(stderr, "operations: there is no %s\n", operation), 64;
        if (marks && once != remove_all) {
            run(once, 10); // what happens once has happened
            dashfs_count_on();
            run(once, count);
            dashfs_count_off();
            dashfs_count_report();
        } else {
            run(once, count);
        }
        for (int index = 0; index < count; index++) sum += times[index];
        qsort(times, (size_t)count, sizeof *times, by_value);
        printf("%s %d %llu %llu\n", operation, count, (unsigned long long)times[count / 2], (unsigned long long)sum / (unsigned)count);
        fflush(stdout);
    }
    return 0;
}
