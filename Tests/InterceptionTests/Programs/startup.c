// How long /bin/true takes from spawn to exit, on the clock and on the processor: plain, with the library loaded but idle, and with call sites rewritten
// as under `dashfs run`. The three alternate. Arguments: the library, the table, the number of rounds.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

int main(int count, char **arguments) {
    char library[4096], table[4096];
    int rounds = count > 3 ? atoi(arguments[3]) : 0;
    if (rounds < 1) return 1;
    snprintf(library, sizeof library, "LD_PRELOAD=%s", arguments[1]);
    snprintf(table, sizeof table, "DASHFS_SITES=%s", arguments[2]);
    char *plain[] = {NULL}, *idle[] = {library, "DASHFS_UNPATCHED=1", NULL};
    char *rewritten[] = {library, table, "DASHFS_SOCKET=/nowhere/socket", "DASHFS_PREFIX=/dash", NULL};
    char **environments[] = {plain, idle, rewritten}, *command[] = {"/bin/true", NULL};
    const char *names[] = {"plain", "loaded, idle", "rewritten"};
    double *times = calloc((size_t)rounds * 3, sizeof *times), *more = calloc((size_t)rounds * 3, sizeof *more), used[3] = {0};
    for (int round = 0; round < rounds; round++)
        for (int kind = 0; kind < 3; kind++) {
            pid_t child;
            int status;
            double start = now();
            if (posix_spawn(&child, command[0], NULL, NULL, command, environments[kind]) != 0) return 1;
            struct rusage usage;
            if (wait4(child, &status, 0, &usage) != child || status != 0) return 1;
            times[kind * rounds + round] = now() - start;
            more[kind * rounds + round] = times[kind * rounds + round] - times[round];
            used[kind] += (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e3;
        }
    for (int kind = 0; kind < 3; kind++) {
        double *mine = times + kind * rounds, *beside = more + kind * rounds;
        qsort(mine, (size_t)rounds, sizeof *mine, compare);
        qsort(beside, (size_t)rounds, sizeof *beside, compare);
        printf("%-13s median %.3f ms, fastest tenth %.3f ms; beside plain in the same round %+.3f ms; processor %.3f ms\n", names[kind],
               mine[rounds / 2], mine[rounds / 10], beside[rounds / 2], used[kind] / rounds);
    }
    return 0;
}
