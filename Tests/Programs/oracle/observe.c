// What can be seen of a file. Times are compared as relations: a time that somebody set to a fixed value prints as that value, a time of this
// run prints as "now", and an operation that is watched prints which of the times it moved.
#include "oracle.h"
#include <time.h>

static char kind(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return 'f';
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFIFO: return 'p';
    case S_IFSOCK: return 's';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    default: return '?';
    }
}

static void say_time(char name, struct timespec t) {
    if (t.tv_sec >= started - 5 && t.tv_sec < started + 86400) say(" %c:now", name);
    else say(" %c:%lld.%09ld", name, (long long)t.tv_sec, t.tv_nsec);
}

void say_stat(const struct stat *st, const char *link_text) {
    long long size = st->st_size;
    say("{%c%04o n%lu %u:%u", kind(st->st_mode), st->st_mode & 07777, (unsigned long)st->st_nlink, st->st_uid, st->st_gid);
    if (link_text && strncmp(link_text, root, root_length) == 0) size -= (long long)root_length;
    if (!S_ISDIR(st->st_mode)) say(" s%lld", size);  // a directory's size is the file system's own affair
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) say(" dev%llx", (unsigned long long)st->st_rdev);
    if (has(ATIME) && (has(LINK_ATIME) || !S_ISLNK(st->st_mode))) say_time('a', st->st_atim);
    if (times_are_told(st)) say_time('m', st->st_mtim);
    say("}");
}

void say_stat_of(const struct stat *st, int dirfd, const char *path) {
    char text[PATH_ROOM];
    ssize_t n = -1;
    // Reading the text moves the atime, on either side alike. An empty path asks for the link that dirfd itself is.
    if (S_ISLNK(st->st_mode)) n = readlinkat(dirfd, path, text, sizeof text - 1);
    if (n >= 0) text[n] = 0;
    say_stat(st, n >= 0 ? text : NULL);
}

void say_path(const char *label, int dirfd, const char *path) {
    struct stat st;
    if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        say(" %s", label);
        say_stat_of(&st, dirfd, path);
    } else say(" %s{%s}", label, strerrorname_np(errno));
}

uint64_t checksum(uint64_t h, const void *bytes, size_t count) {  // FNV-1a, eight bytes at a step
    const unsigned char *b = bytes;
    for (; count >= 8; b += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, b, 8);
        h = (h ^ word) * 0x100000001B3u;
        h ^= h >> 29;
    }
    for (; count > 0; b++, count--) h = (h ^ *b) * 0x100000001B3u;
    return h;
}

void fill(void *bytes, size_t count) {
    unsigned char *b = bytes;
    uint64_t x = (uint64_t)operation * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < count; i++) {
        if (i % 8 == 0) x = x * 6364136223846793005u + 1442695040888963407u;
        b[i] = (unsigned char)(x >> (8 * (i % 8)));
    }
    if (planted("byte") && count > 100 && operation % 50 == 0) b[count / 2] ^= 1;
}

// The bytes of a file: all of them when it is small, else windows around the offsets that operations like.
void say_sum(int fd) {
    static char buffer[1 << 16];
    static const off_t windows[] = {0, 1 << 16, 1 << 17, 1 << 18, 1 << 19, (1 << 20) - (1 << 16), 1 << 20, ((off_t)1 << 32) - (1 << 15),
                                    ((off_t)1 << 43) - (1 << 15), ((off_t)1 << 43)};
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) { say(" sum{-}"); return; }
    uint64_t h = 0xcbf29ce484222325u;
    off_t total = 0;
    if (st.st_size <= 1 << 19) {
        ssize_t n;
        while ((n = pread(fd, buffer, sizeof buffer, total)) > 0) { h = checksum(h, buffer, (size_t)n); total += n; }
        if (n < 0) say(" sum{%s}", strerrorname_np(errno)); else say(" sum{%lld %016llx}", (long long)total, (unsigned long long)h);
        return;
    }
    for (unsigned i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        if (windows[i] >= st.st_size) break;
        ssize_t n = pread(fd, buffer, sizeof buffer, windows[i]);
        if (n < 0) { say(" sum{%s}", strerrorname_np(errno)); return; }
        h = checksum(h, buffer, (size_t)n);
        total += n;
    }
    say(" sum{%lld of %lld %016llx}", (long long)total, (long long)st.st_size, (unsigned long long)h);
}

// What an operation is about: up to two paths with their directories, or a descriptor. One in 150 operations also asks before the call, waits for the
// next tick of the kernel's coarse clock, from which file times are taken, and so sees which times the call moved.
static struct watched {
    int dirfd;
    char path[PATH_ROOM];
    struct stat before;
    bool existed, descriptor;
    const char *label;
} watched[5];
static int watching;
static bool watching_changes;

static void await_tick(void) {
    struct timespec fine, coarse;
    clock_gettime(CLOCK_REALTIME, &fine);
    do clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
    while (coarse.tv_sec < fine.tv_sec || (coarse.tv_sec == fine.tv_sec && coarse.tv_nsec <= fine.tv_nsec));
}

static void add_watch(const char *label, int dirfd, const char *path, bool descriptor) {
    struct watched *w = &watched[watching++];
    if (watching == 1) {
        watching_changes = has(CHANGES) && rnd(150) == 0;
        if (watching_changes) await_tick();
    }
    w->label = label;
    w->dirfd = dirfd;
    w->descriptor = descriptor;
    strcpy(w->path, path);
    w->existed = watching_changes
                 && (descriptor ? fstat(dirfd, &w->before) : fstatat(dirfd, path, &w->before, AT_SYMLINK_NOFOLLOW)) == 0;
}

void watch_path(const struct where *w) {
    add_watch(watching ? "second" : "first", w->dirfd, w->path, false);
    if (w->plain) {
        char parent[PATH_ROOM];
        strcpy(parent, w->path);
        char *last = strrchr(parent, '/');
        if (last && last != parent) *last = 0; else if (!last) strcpy(parent, ".");
        if (w->dirfd == AT_FDCWD || last) add_watch("in", w->dirfd, parent, false);
    }
}

void watch_descriptor(int fd) { add_watch("fd", fd, "", true); }

void say_watched(void) {
    for (int i = 0; i < watching; i++) {
        struct watched *w = &watched[i];
        struct stat after;
        int result = w->descriptor ? fstat(w->dirfd, &after) : fstatat(w->dirfd, w->path, &after, AT_SYMLINK_NOFOLLOW);
        if (result != 0) { say(" %s{%s}", w->label, strerrorname_np(errno)); continue; }
        say(" %s", w->label);
        say_stat_of(&after, w->dirfd, w->path);
        if (w->existed && after.st_ino == w->before.st_ino && times_are_told(&after)) {
            bool m = memcmp(&after.st_mtim, &w->before.st_mtim, sizeof after.st_mtim) != 0;
            bool c = memcmp(&after.st_ctim, &w->before.st_ctim, sizeof after.st_ctim) != 0;
            say("%s%s", m ? "M" : "-", c ? "C" : "-");
            if (after.st_ctim.tv_sec < w->before.st_ctim.tv_sec) say(" ctime-went-back");
        }
    }
    watching = 0;
}
