// What the C library of DashFS needs of libc: errno, the environment, the umask.
#ifndef CSYSTEM_CAPI_H
#define CSYSTEM_CAPI_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "csystem_syscall.h"

static inline void dashfs_set_errno(int number) { errno = number; }

/// The umask of this process, from /proc (umask(2) cannot be read without being changed under other threads); 022 where that tells nothing.
static inline uint32_t dashfs_read_umask(void) {
    char text[512];
    long fd = dashfs_sys_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 022;
    long count = dashfs_sys_read((int)fd, text, sizeof text);
    dashfs_sys_close((int)fd);
    for (long i = 0; i + 12 < count; i++) {
        const char *line = text + i;
        if (line[0] == 'U' && line[1] == 'm' && line[2] == 'a' && line[3] == 's' && line[4] == 'k' && line[5] == ':') {
            uint32_t mask = 0;
            for (long j = i + 6; j < count && text[j] != '\n'; j++)
                if (text[j] >= '0' && text[j] <= '7') mask = mask * 8 + (uint32_t)(text[j] - '0');
            return mask & 0777;
        }
    }
    return 022;
}

/// Where a server listens that nobody has named: $DASHFS_SOCKET, else the user's own ($XDG_RUNTIME_DIR/dashfs.sock, not for root, where it is there), else the
/// system's. Its length in `path`, without a terminator; 0: it does not fit.
static inline size_t dashfs_find_socket(char *_Nonnull path, size_t capacity) {
    const char *parts[2] = {getenv("DASHFS_SOCKET"), ""};
    if (!parts[0] || !*parts[0]) {
        parts[0] = geteuid() == 0 ? 0 : getenv("XDG_RUNTIME_DIR");
        parts[1] = "/dashfs.sock";
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        size_t first = parts[0] ? strlen(parts[0]) : 0, second = strlen(parts[1]);
        if (first > 0 && first + second < capacity) {
            memcpy(path, parts[0], first);
            memcpy(path + first, parts[1], second + 1);
            if (!*parts[1] || access(path, F_OK) == 0) return first + second;
        }
        parts[0] = "/run/dashfs/dashfs.sock";
        parts[1] = "";
    }
    return 0;
}

#endif
