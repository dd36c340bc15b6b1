// A file system with one planted error, for showing that the harnesses find it: LD_PRELOAD this with FLAW_AT=DIRECTORY and FLAW one of
//   byte    every 50th write of more than 64 bytes into DIRECTORY has one wrong bit
//   times   setting times does nothing there
//   locks   every record lock is granted
//   names   every 60th directory entry is not listed
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int flaw(const char *name) {
    const char *asked = getenv("FLAW");
    return asked && strcmp(asked, name) == 0;
}

static int below(int fd, const char *path) {
    char link[64], real[4096];
    const char *top = getenv("FLAW_AT");
    if (!top) return 0;
    if (path && path[0] == '/') return strncmp(path, top, strlen(top)) == 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, sizeof real - 1);
    if (n < 0) return 0;
    real[n] = 0;
    return strncmp(real, top, strlen(top)) == 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
    static int calls;
    if (flaw("byte") && count > 64 && below(fd, NULL) && ++calls % 50 == 7) {
        char *copy = malloc(count);
        if (copy) {
            memcpy(copy, bytes, count);
            copy[count / 2] ^= 1;
            ssize_t n = NEXT(write)(fd, copy, count);
            free(copy);
            return n;
        }
    }
    return NEXT(write)(fd, bytes, count);
}

int futimens(int fd, const struct timespec times[2]) {
    return flaw("times") && below(fd, NULL) ? 0 : NEXT(futimens)(fd, times);
}

int utimensat(int dirfd, const char *path, const struct timespec times[2], int flags) {
    return flaw("times") && below(dirfd, path) ? 0 : NEXT(utimensat)(dirfd, path, times, flags);
}

static int lock_or(int (*next)(int, int, ...), int fd, int command, void *argument) {
    if (flaw("locks") && (command == F_SETLK || command == F_SETLKW) && below(fd, NULL)) return 0;
    return next(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock_or(NEXT(fcntl), fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return lock_or(NEXT(fcntl64), fd, command, argument);
}

static int hidden(DIR *dir) {
    static int entries;
    return flaw("names") && below(dirfd(dir), NULL) && ++entries % 60 == 0;
}

struct dirent *readdir(DIR *dir) {
    struct dirent *entry = NEXT(readdir)(dir);
    return entry && entry->d_name[0] != '.' && hidden(dir) ? NEXT(readdir)(dir) : entry;
}

struct dirent64 *readdir64(DIR *dir) {
    struct dirent64 *entry = NEXT(readdir64)(dir);
    return entry && entry->d_name[0] != '.' && hidden(dir) ? NEXT(readdir64)(dir) : entry;
}
