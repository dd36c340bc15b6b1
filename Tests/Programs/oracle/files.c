// Operations on open files: open, read, write, seek, truncate, fallocate, and what descriptors carry.
#include "oracle.h"
#include <linux/openat2.h>
#include <poll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

static unsigned char buffer[1 << 18];

static void put_in_slot(int s, int fd) {
    if (slot[s] >= 0) close(slot[s]);
    slot[s] = fd;
}

static void say_flags(int flags) {
    static const struct { int flag; const char *name; } names[] = {
        {O_CREAT, "CREAT"}, {O_EXCL, "EXCL"}, {O_TRUNC, "TRUNC"}, {O_APPEND, "APPEND"}, {O_NOFOLLOW, "NOFOLLOW"}, {O_NONBLOCK, "NONBLOCK"},
        {O_CLOEXEC, "CLOEXEC"}, {O_NOATIME, "NOATIME"}, {O_NOCTTY, "NOCTTY"},
    };
    static const char *const access[] = {"RDONLY", "WRONLY", "RDWR", "3"};
    say("%s", access[flags & O_ACCMODE]);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (flags & names[i].flag) say("|%s", names[i].name);
    if ((flags & O_TMPFILE) == O_TMPFILE) say("|TMPFILE");
    else if (flags & O_DIRECTORY) say("|DIRECTORY");
    if (flags & O_PATH) say("|PATH");
    if ((flags & O_SYNC) == O_SYNC) say("|SYNC"); else if (flags & O_DSYNC) say("|DSYNC");
}

// Opening a fifo, a socket or a device asks the kernel for something that is no file: left out unless the feature is on.
static bool would_open_special(const struct where *w, int flags) {
    struct stat st;
    if (has(SPECIAL) || (flags & O_PATH)) return false;
    return fstatat(w->dirfd, w->path, &st, 0) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

void op_open(void) {
    struct where w;
    int s = pick_slot(), flags = (int)rnd(3);
    if (chance(1)) flags = 3;
    mode_t mode = pick_mode();
    if (chance(70)) mode |= 0600;
    pick(&w);
    if (chance(45)) flags |= O_CREAT;
    if (chance(12)) flags |= O_EXCL;
    if (chance(12)) flags |= O_TRUNC;
    if (chance(15)) flags |= O_APPEND;
    if (chance(12)) flags |= O_DIRECTORY;
    if (chance(10)) flags |= O_NOFOLLOW;
    if (chance(20)) flags |= O_CLOEXEC;
    if (chance(5) && has(OPATH)) flags |= O_PATH;
    if (chance(2) && has(NOATIME)) flags |= O_NOATIME;
    if (rnd(1000) < 3) flags |= chance(50) ? O_SYNC : O_DSYNC;
    if (chance(2) && has(TMPFILE)) flags = (flags & ~(O_CREAT | O_PATH | O_NOFOLLOW)) | O_TMPFILE;
    if (!(flags & O_CREAT)) flags &= ~O_EXCL;  // undefined by POSIX
    // O_CREAT with O_DIRECTORY is EINVAL from Linux 6.4 on, and made files before.
    if ((flags & O_TMPFILE) != O_TMPFILE && (flags & O_CREAT)) flags &= ~O_DIRECTORY;
    flags |= O_NONBLOCK;
    say("open #%d %s ", s, w.shown);
    say_flags(flags & ~O_NONBLOCK);
    say(" %o", mode);
    if (would_open_special(&w, flags)) { say(" special"); return; }
    watch_path(&w);
    int fd;
    if (w.dirfd == AT_FDCWD && chance(70)) fd = open(w.path, flags, mode);
    else if (w.dirfd == AT_FDCWD && flags == (O_WRONLY | O_CREAT | O_TRUNC)) fd = creat(w.path, mode);
    else fd = openat(w.dirfd, w.path, flags, mode);
    if (fd < 0) { say_result(-1); say_watched(); return; }
    if (has(DESCRIPTORS)) say(" = +%d", fd - lowest_descriptor); else say(" = ok");  // POSIX: the lowest number that is free
    put_in_slot(s, fd);
    say_watched();
    watch_descriptor(fd);
    say_watched();
}

// openat2(2) with RESOLVE_*: what the walk may not pass.
void op_open_limited(void) {
    static const uint64_t limits[] = {RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV};
    struct where w;
    struct open_how how = {.flags = O_NONBLOCK, .resolve = limits[rnd(7)]};
    int s = pick_slot();
    pick(&w);
    if (chance(20)) how.resolve |= limits[rnd(7)];
    if (chance(30)) how.flags |= rnd(3);
    if (chance(20)) how.flags |= O_CREAT;
    if (chance(20) && !(how.flags & O_CREAT)) how.flags |= O_DIRECTORY;
    if (chance(10)) how.flags |= O_NOFOLLOW;
    if (chance(10) && has(OPATH)) how.flags = O_PATH | (how.flags & (O_DIRECTORY | O_NOFOLLOW | O_CREAT));
    if (how.flags & O_CREAT || chance(2)) how.mode = pick_mode();
    if (chance(1)) how.resolve |= 1 << 20;
    // Whether a mount lies between the root and the directory is not the file system's doing.
    if (w.path[0] == '/') how.resolve &= ~(uint64_t)RESOLVE_NO_XDEV;
    say("openat2 #%d %s %llo limits %llu %llo", s, w.shown, (unsigned long long)how.flags & ~(unsigned long long)O_NONBLOCK, (unsigned long long)how.resolve, (unsigned long long)how.mode);
    if (!has(RESOLVE)) { say(" skip"); return; }
    if (would_open_special(&w, (int)how.flags)) { say(" special"); return; }
    int fd = (int)syscall(SYS_openat2, w.dirfd, w.path, &how, sizeof how);
    if (fd < 0) { say_result(-1); return; }
    say(" = ok");
    put_in_slot(s, fd);
    watch_descriptor(fd);
    say_watched();
}

void op_close(void) {
    if (chance(5)) {
        char shown[16];
        int fd = chance(50) ? 987 : -1;
        snprintf(shown, sizeof shown, "%d", fd);
        say("close %s", shown);
        say_result(close(fd));
        return;
    }
    int s = pick_slot();
    say("close #%d", s);
    say_result(slot[s] < 0 ? (errno = EBADF, -1) : close(slot[s]));
    slot[s] = -1;
}

void op_dup(void) {
    char shown[16];
    int s = pick_slot(), fd = pick_descriptor(shown), other = pick_slot(), result;
    switch (rnd(5)) {
    case 0:
        say("dup %s -> #%d", shown, s);
        result = dup(fd);
        break;
    case 1:
        say("fcntl %s F_DUPFD_CLOEXEC -> #%d", shown, s);
        result = fcntl(fd, F_DUPFD_CLOEXEC, lowest_descriptor + 5);
        break;
    case 2:
        say("fcntl %s F_DUPFD -> #%d", shown, s);
        result = fcntl(fd, F_DUPFD, 0);
        break;
    case 3: {
        int flags = chance(50) ? O_CLOEXEC : chance(90) ? 0 : O_APPEND;
        say("dup3 %s #%d %s", shown, other, flags == 0 ? "" : flags == O_CLOEXEC ? "CLOEXEC" : "APPEND");
        if (slot[other] < 0) { say(" closed"); return; }
        say_result(dup3(fd, slot[other], flags) < 0 ? -1 : 0);
        return;
    }
    default:  // onto a descriptor that is open (or onto itself)
        say("dup2 %s #%d", shown, other);
        if (slot[other] < 0) { say(" closed"); return; }
        say_result(dup2(fd, slot[other]) < 0 ? -1 : 0);
        return;
    }
    if (result < 0) { say_result(-1); return; }
    if (has(DESCRIPTORS)) say(" = +%d", result - lowest_descriptor); else say(" = ok");
    put_in_slot(s, result);
}

void op_descriptor_flags(void) {
    char shown[16];
    int fd = pick_descriptor(shown), flags;
    switch (rnd(4)) {
    case 0:
        say("fcntl %s F_GETFL", shown);
        flags = fcntl(fd, F_GETFL);
        if (flags < 0) say_result(-1); else { say(" = "); say_flags(flags & ~(O_DIRECTORY | 0100000)); }
        break;
    case 1:
        flags = chance(50) ? O_APPEND : 0;
        say("fcntl %s F_SETFL %d", shown, flags);
        say_result(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
        break;
    case 2:
        say("fcntl %s F_GETFD", shown);
        say_result(fcntl(fd, F_GETFD));
        break;
    default:
        flags = chance(50) ? FD_CLOEXEC : 0;
        say("fcntl %s F_SETFD %d", shown, flags);
        say_result(fcntl(fd, F_SETFD, flags));
    }
}

static int split(struct iovec *iov, unsigned char *bytes, size_t count) {  // into 1 to 4 pieces, some of them empty
    int pieces = (int)rnd(4) + 1;
    size_t at = 0;
    for (int i = 0; i < pieces; i++) {
        size_t n = i == pieces - 1 ? count - at : rnd(count - at + 1);
        iov[i] = (struct iovec){bytes + at, n};
        at += n;
    }
    return pieces;
}

void op_read(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    size_t count = pick_length();
    off_t offset = chance(3) ? -1 - (off_t)rnd(5000) : pick_offset();
    struct iovec iov[4];
    ssize_t n;
    if (chance(2) && has(READ_ZERO)) count = 0;
    memset(buffer, 0xEE, count);
    watch_descriptor(fd);
    switch (rnd(8)) {
    case 0: case 1: case 2: say("read %s %zu", shown, count); n = read(fd, buffer, count); break;
    case 3: case 4: case 5: say("pread %s %zu @%lld", shown, count, (long long)offset); n = pread(fd, buffer, count, offset); break;
    case 6: say("readv %s %zu", shown, count); n = readv(fd, iov, split(iov, buffer, count)); break;
    default:
        if (chance(8) && has(ARGUMENTS_FIRST)) { volatile int bad = -1; say("readv %s, -1 pieces", shown); n = readv(fd, iov, bad); break; }
        say("preadv %s %zu @%lld", shown, count, (long long)offset);
        n = preadv(fd, iov, split(iov, buffer, count), offset);
    }
    say_result(n);
    if (n > 0) say(" %016llx", (unsigned long long)checksum(1, buffer, (size_t)n));
    if (n >= 0 && (size_t)n < count && buffer[n] != 0xEE) say(" wrote-past-result");
    say(" at %lld", (long long)lseek(fd, 0, SEEK_CUR));
    say_watched();
}

void op_write(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    size_t count = chance(2) ? 0 : pick_length();
    off_t offset = chance(3) ? -1 - (off_t)rnd(5000) : pick_offset();
    struct iovec iov[4];
    ssize_t n;
    fill(buffer, count);
    watch_descriptor(fd);
    switch (rnd(8)) {
    case 0: case 1: case 2: say("write %s %zu", shown, count); n = write(fd, buffer, count); break;
    case 3: case 4: case 5: say("pwrite %s %zu @%lld", shown, count, (long long)offset); n = pwrite(fd, buffer, count, offset); break;
    case 6: say("writev %s %zu", shown, count); n = writev(fd, iov, split(iov, buffer, count)); break;
    default:
        if (chance(8) && has(ARGUMENTS_FIRST)) { volatile int bad = 1025; say("writev %s, 1025 pieces", shown); n = writev(fd, iov, bad); break; }
        say("pwritev %s %zu @%lld", shown, count, (long long)offset);
        n = pwritev(fd, iov, split(iov, buffer, count), offset);
    }
    say_result(n);
    say(" at %lld", (long long)lseek(fd, 0, SEEK_CUR));
    say_watched();
}

void op_seek(void) {
    char shown[16];
    int fd = pick_descriptor(shown), whence = (int)rnd(3);
    off_t offset = pick_offset();
    if (chance(15)) offset = -offset;
    if (whence == SEEK_CUR && offset > (off_t)1 << 40) offset = 7;
    if (chance(2)) whence = 99;
    if (has(HUGE_SEEK) && chance(3)) { whence = SEEK_SET; offset = INT64_MAX - (off_t)rnd(2); }
    if (chance(1)) { whence = SEEK_CUR; offset = INT64_MIN; }
    say("lseek %s %lld %d", shown, (long long)offset, whence);
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) { say(" directory"); return; }  // its offsets are cookies
    off_t result = lseek(fd, offset, whence);
    say_result(result);
    if (result > (off_t)9 << 40) lseek(fd, 0, SEEK_SET);  // stay where every file system still has offsets
}

// Where holes begin is the file system's own affair; that a hole reads as zeros, and that what is not zero is data, is not.
void op_seek_hole(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    off_t offset = chance(50) ? 0 : pick_offset();
    bool hole = chance(50);
    struct stat st;
    say("lseek %s %lld %s", shown, (long long)offset, hole ? "SEEK_HOLE" : "SEEK_DATA");
    if (fstat(fd, &st) != 0) { say_result(lseek(fd, offset, hole ? SEEK_HOLE : SEEK_DATA) < 0 ? -1 : 0); return; }
    if (!S_ISREG(st.st_mode)) { say(" not a file"); return; }
    off_t before = lseek(fd, 0, SEEK_CUR), result = lseek(fd, offset, hole ? SEEK_HOLE : SEEK_DATA);
    int error = errno;
    lseek(fd, before, SEEK_SET);
    if (result < 0 && (error != ENXIO || offset >= st.st_size || hole)) {
        errno = error;
        say_result(-1);
        return;
    }
    if (result >= 0 && result < offset) say(" before-the-question");
    if (result > st.st_size) say(" past-the-end");
    off_t from = hole ? result : offset, to = hole ? st.st_size : result < 0 ? st.st_size : result;
    if (hole && result < st.st_size) {
        off_t data = lseek(fd, result, SEEK_DATA);
        if (data >= 0) to = data;
        lseek(fd, before, SEEK_SET);
    }
    // Sample what was called a hole: its beginning and its end.
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    bool zero = true, readable = mode == O_RDONLY || mode == O_RDWR;
    if (readable && pread(fd, buffer, 1, 0) < 0) readable = false;  // moves the atime, however many holes there are to sample
    for (int end = 0; readable && end < 2 && from < to; end++) {
        size_t count = to - from < 1 << 16 ? (size_t)(to - from) : 1 << 16;
        ssize_t n = pread(fd, buffer, count, end ? to - (off_t)count : from);
        if (n < 0) readable = false;
        for (ssize_t i = 0; i < n; i++) zero = zero && buffer[i] == 0;
    }
    say(readable ? zero ? " ok" : " data-in-a-hole" : " unreadable");
}

void op_truncate(void) {
    struct where w;
    off_t size = chance(4) ? -1 : pick_offset();
    struct stat st;
    pick(&w);
    while (w.dirfd != AT_FDCWD) pick(&w);
    say("truncate %s %lld", w.shown, (long long)size);
    if (!has(TRUNCATE_SAME) && stat(w.path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == size) { say(" same"); return; }
    watch_path(&w);
    say_result(truncate(w.path, size));
    say_watched();
}

void op_ftruncate(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    off_t size = chance(4) ? -1 : pick_offset();
    struct stat st;
    say("ftruncate %s %lld", shown, (long long)size);
    if (!has(TRUNCATE_SAME) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == size) { say(" same"); return; }
    watch_descriptor(fd);
    say_result(ftruncate(fd, size));
    say_watched();
}

void op_fallocate(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    int mode = 0;
    off_t offset = chance(3) ? -1 : (off_t)rnd(200000), length = chance(4) ? 0 : (off_t)rnd(100000) + 1;
    struct stat st;
    if (!has(FALLOCATE)) { say("skip"); return; }
    if (chance(40)) offset &= ~4095;
    if (chance(40)) length = (length + 4095) & ~4095;
    switch (rnd(6)) {
    case 0: break;
    case 1: mode = FALLOC_FL_KEEP_SIZE; break;
    case 2: case 3: mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; break;
    case 4: mode = FALLOC_FL_PUNCH_HOLE; break;  // without KEEP_SIZE: not allowed
    default: if (has(ZERO_RANGE)) mode = FALLOC_FL_ZERO_RANGE | (chance(50) ? FALLOC_FL_KEEP_SIZE : 0);
    }
    say("fallocate %s mode %d %lld+%lld", shown, mode, (long long)offset, (long long)length);
    // The kernel's file systems disagree on whether fallocate clears setuid bits and moves times: ask only where nothing of it shows.
    if (fstat(fd, &st) == 0 && (st.st_mode & 06000)) { say(" setuid"); return; }
    long result = fallocate(fd, mode, offset, length);
    say_result(result);
    if (result == 0 && futimens(fd, NULL) != 0) {
        fill(buffer, 1);
        say(" then pwrite");
        say_result(pwrite(fd, buffer, 1, offset));
    }
    watch_descriptor(fd);
    say_watched();
}

void op_fsync(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    bool data = chance(50);
    say("%s %s", data ? "fdatasync" : "fsync", shown);
    say_result(data ? fdatasync(fd) : fsync(fd));
}

void op_sum(void) {
    char shown[16];
    struct where w;
    struct stat st;
    if (chance(50)) {
        int fd = pick_descriptor(shown);
        say("sum %s", shown);
        say_sum(fd);
        return;
    }
    pick(&w);
    say("sum %s", w.shown);
    if (fstatat(w.dirfd, w.path, &st, 0) != 0 || !S_ISREG(st.st_mode)) { say(" not a file"); return; }
    int fd = openat(w.dirfd, w.path, O_RDONLY | O_NOCTTY);
    if (fd < 0) { say_result(-1); return; }
    say_sum(fd);
    close(fd);
}

void op_copy_range(void) {
    char from[16], to[16];
    int in = pick_descriptor(from), out = pick_descriptor(to);
    off_t offset_in = pick_offset(), offset_out = pick_offset();
    size_t count = pick_length();
    if (!has(COPY_RANGE)) { say("skip"); return; }
    say("copy_file_range %s @%lld %s @%lld %zu", from, (long long)offset_in, to, (long long)offset_out, count);
    say_result(copy_file_range(in, &offset_in, out, &offset_out, count, 0));
    say(" at %lld %lld", (long long)offset_in, (long long)offset_out);
    watch_descriptor(out);
    say_watched();
}

void op_send(void) {
    char from[16], to[16];
    int in = pick_descriptor(from), out = pick_descriptor(to);
    off_t offset = pick_offset();
    size_t count = pick_length() + 1;
    bool own = chance(40);
    struct stat a = {0}, b;
    if (!has(SEND)) { say("skip"); return; }
    say("sendfile %s @%lld %s %zu", from, own ? -1LL : (long long)offset, to, count);
    // What a copy of a file into itself reads of what it has written is nobody's promise.
    if (fstat(in, &a) == 0 && fstat(out, &b) == 0 && a.st_ino == b.st_ino) { say(" same file"); return; }
    // The kernel moves the atime of what it did not read.
    if (S_ISDIR(a.st_mode)) { say(" directory"); return; }
    say_result(sendfile(out, in, own ? NULL : &offset, count));
    say(" at %lld", own ? 0LL : (long long)offset);
    if (fstat(in, &a) == 0 && S_ISREG(a.st_mode)) say(" %lld", (long long)lseek(in, 0, SEEK_CUR));
    if (fstat(out, &a) == 0 && S_ISREG(a.st_mode)) say(" %lld", (long long)lseek(out, 0, SEEK_CUR));
    watch_descriptor(out);
    say_watched();
}

// Every file is ready, whatever it is open for.
void op_poll(void) {
    char shown[3][16];
    struct pollfd entries[3];
    fd_set in, out;
    if (!has(POLL)) { say("skip"); return; }
    say("poll");
    FD_ZERO(&in);
    FD_ZERO(&out);
    int highest = -1;
    for (int i = 0; i < 3; i++) {
        entries[i] = (struct pollfd){.fd = pick_descriptor(shown[i]), .events = (short)rnd(0x400)};
        say(" %s %x", shown[i], entries[i].events);
        // What is beyond the process's table of descriptors, 64 at first, select(2) does not look at.
        if (entries[i].fd < 0 || entries[i].fd >= 64) continue;
        FD_SET(entries[i].fd, i % 2 ? &in : &out);
        if (entries[i].fd > highest) highest = entries[i].fd;
    }
    say_result(poll(entries, 3, 0));
    for (int i = 0; i < 3; i++) say(" %x", entries[i].revents);
    struct timeval now = {0, 0};
    int result = select(highest + 1, &in, &out, NULL, &now);
    say_result(result);
    for (int i = 0; result >= 0 && i < 3; i++) if (entries[i].fd >= 0 && entries[i].fd < 64) say(" %d%d", !!FD_ISSET(entries[i].fd, &in), !!FD_ISSET(entries[i].fd, &out));
}

// Addresses that are not the program's: EFAULT, and nobody dies.
void op_bad_memory(void) {
    char shown[16];
    int fd = pick_descriptor(shown);
    struct stat st;
    void *volatile bad = (void *)8;
    if (!has(EFAULTS)) { say("skip"); return; }
    switch (rnd(4)) {
    case 0: say("open of a bad address"); say_result(open(bad, O_RDONLY)); break;
    case 1: say("fstat %s to a bad address", shown); say_result(fstat(fd, bad)); break;
    case 2: {
        struct where w;
        pick_plain(&w);
        say("stat %s to a bad address", w.shown);
        say_result(stat(w.path, bad));
        break;
    }
    default:
        say("pread %s to a bad address", shown);
        if (fstat(fd, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size == 0)) { say(" nothing to read"); return; }
        // The kernel moves the atime although nothing was read: ask only where that does not show.
        if (fstat(fd, &st) == 0 && (st.st_atim.tv_sec < started - 5 || st.st_atim.tv_sec > started + 86400)) { say(" fixed atime"); return; }
        say_result(pread(fd, bad, 1, 0));
    }
}
