// How long /bin/true takes from spawn to exit: plain, with the library loaded but idle, and with call sites rewritten. The
// three alternate. Arguments: the library, the table, the number of rounds.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
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
    char *plain[] = {NULL}, *idle[] = {library, "DASHFS_UNPATCHED=1", NULL}, *rewritten[] = {library, table, NULL};
    char **environments[] = {plain, idle, rewritten}, *command[] = {"/bin/true", NULL};
    const char *names[] = {"plain", "loaded, idle", "rewritten"};
    double *times = calloc((size_t)rounds * 3, sizeof *times);
    for (int round = 0; round < rounds; round++)
        for (int kind = 0; kind < 3; kind++) {
            pid_t child;
            int status;
            double start = now();
            if (posix_spawn(&child, command[0], NULL, NULL, command, environments[kind]) != 0) return 1;
            if (waitpid(child, &status, 0) != child || status != 0) return 1;
            times[kind * rounds + round] = now() - start;
        }
    for (int kind = 0; kind < 3; kind++) {
        double *mine = times + kind * rounds;
        qsort(mine, (size_t)rounds, sizeof *mine, compare);
        printf("%-13s median %.3f ms, fastest tenth %.3f ms\n", names[kind], mine[rounds / 2], mine[rounds / 10]);
    }
    return 0;
}
