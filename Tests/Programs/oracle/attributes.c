// Operations on what a file is: stat, access, modes, owners, times, extended attributes.
#include "oracle.h"

void op_stat(void) {
    struct where w;
    struct stat st;
    char shown[16];
    switch (rnd(5)) {
    case 0: {
        int fd = pick_descriptor(shown);
        say("fstat %s", shown);
        if (chance(20)) {
            struct stat empty;
            say(" by an empty path");
            int result = fstatat(fd, "", &empty, AT_EMPTY_PATH);
            if (result != 0) say_result(-1); else say_stat_of(&empty, fd, "");
            return;
        }
        if (fstat(fd, &st) != 0) say_result(-1); else say_stat_of(&st, fd, "");
        break;
    }
    case 1:
        pick(&w);
        say("lstat %s", w.shown);
        say_path("", w.dirfd, w.path);
        break;
    case 2: {
        struct statx stx;
        pick(&w);
        say("statx %s", w.shown);
        if (statx(w.dirfd, w.path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &stx) != 0) { say_result(-1); return; }
        say("{%o n%u %u:%u%s}", stx.stx_mode, stx.stx_nlink, stx.stx_uid, stx.stx_gid,
            (stx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS ? "" : " incomplete");
        break;
    }
    default:
        pick(&w);
        int flags = chance(2) ? 0x40000000 : 0;
        say("stat %s %x", w.shown, flags);
        if (w.dirfd == AT_FDCWD && flags == 0 && chance(60) ? stat(w.path, &st) : fstatat(w.dirfd, w.path, &st, flags)) say_result(-1);
        else say_stat(&st, NULL);
    }
}

void op_access(void) {
    struct where w;
    int mode = chance(3) ? 8 : (int)rnd(8);
    pick(&w);
    int flags = chance(40) ? AT_EACCESS : 0;
    say("access %s %d %x", w.shown, mode, flags);
    say_result(w.dirfd == AT_FDCWD && flags == 0 && chance(60) ? access(w.path, mode) : faccessat(w.dirfd, w.path, mode, flags));
}

// The root keeps its mode and owner, or the stream's other users would be shut out of everything.
static bool is_root(int dirfd, const char *path, bool descriptor) {
    struct stat st, top;
    return stat(root, &top) == 0 && (descriptor ? fstat(dirfd, &st) : fstatat(dirfd, path, &st, 0)) == 0 && st.st_ino == top.st_ino;
}

void op_chmod(void) {
    struct where w;
    char shown[16];
    mode_t mode = pick_mode();
    if (chance(30)) {
        int fd = pick_descriptor(shown);
        say("fchmod %s %o", shown, mode);
        if (is_root(fd, NULL, true)) { say(" root"); return; }
        watch_descriptor(fd);
        say_result(fchmod(fd, mode));
    } else {
        pick(&w);
        say("chmod %s %o", w.shown, mode);
        if (is_root(w.dirfd, w.path, false)) { say(" root"); return; }
        watch_path(&w);
        if (planted("chmod") && operation % 20 == 0) say_result(0);
        else say_result(w.dirfd == AT_FDCWD && chance(50) ? chmod(w.path, mode) : fchmodat(w.dirfd, w.path, mode, 0));
    }
    say_watched();
}

void op_chown(void) {
    static const unsigned ids[] = {0, 1000, 2000, 3000, 1000, (unsigned)-1, (unsigned)-1, 65534};
    struct where w;
    char shown[16];
    uid_t uid = ids[rnd(8)];
    gid_t gid = ids[rnd(8)];
    if (chance(25)) {
        int fd = pick_descriptor(shown);
        say("fchown %s %d:%d", shown, (int)uid, (int)gid);
        if (is_root(fd, NULL, true)) { say(" root"); return; }
        watch_descriptor(fd);
        say_result(fchown(fd, uid, gid));
    } else {
        bool follow = chance(60);
        pick(&w);
        say("%s %s %d:%d", follow ? "chown" : "lchown", w.shown, (int)uid, (int)gid);
        if (is_root(w.dirfd, w.path, false)) { say(" root"); return; }
        watch_path(&w);
        if (w.dirfd == AT_FDCWD && chance(50)) say_result(follow ? chown(w.path, uid, gid) : lchown(w.path, uid, gid));
        else say_result(fchownat(w.dirfd, w.path, uid, gid, follow ? 0 : AT_SYMLINK_NOFOLLOW));
    }
    say_watched();
}

static struct timespec pick_time(void) {
    static const long long seconds[] = {0, 1, 1000, 1000000000, 1234567890, 2000000000, 2147483647, 4000000000};
    switch (rnd(6)) {
    case 0: return (struct timespec){0, UTIME_NOW};
    case 1: return (struct timespec){0, UTIME_OMIT};
    default: return (struct timespec){seconds[rnd(8)], chance(3) ? 1000000000 : chance(50) ? 0 : (long)rnd(1000000000)};
    }
}

static void say_wanted(struct timespec t) {
    if (t.tv_nsec == UTIME_NOW) say(" now");
    else if (t.tv_nsec == UTIME_OMIT) say(" omit");
    else say(" %lld.%09ld", (long long)t.tv_sec, t.tv_nsec);
}

void op_times(void) {
    struct where w;
    char shown[16];
    struct timespec times[2] = {pick_time(), pick_time()};
    if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) times[1].tv_nsec = 5;  // nothing to do: Linux does not even look at the path
    bool none = chance(15), descriptor = chance(30), follow = chance(70);
    int fd = -1;
    if (descriptor) {
        fd = pick_descriptor(shown);
        say("futimens %s", shown);
    } else {
        pick(&w);
        say("utimensat %s %s", w.shown, follow ? "follow" : "nofollow");
    }
    if (none) say(" NULL"); else { say_wanted(times[0]); say_wanted(times[1]); }
    if (descriptor) watch_descriptor(fd); else watch_path(&w);
    say_result(descriptor ? futimens(fd, none ? NULL : times)
                          : utimensat(w.dirfd, w.path, none ? NULL : times, follow ? 0 : AT_SYMLINK_NOFOLLOW));
    say_watched();
}

void op_umask(void) {
    static const mode_t masks[] = {0, 0, 022, 022, 027, 077, 02};
    mode_t mask = masks[rnd(7)];
    say("umask %o = %o", mask, umask(mask));
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void say_attributes(const char *names, ssize_t size) {
    const char *list[64];
    int count = 0;
    for (const char *at = names; at < names + size && count < 64; at += strlen(at) + 1)
        if (strncmp(at, "user.", 5) == 0 || strncmp(at, "trusted.", 8) == 0) list[count++] = at;
    qsort(list, (size_t)count, sizeof list[0], by_text);
    say(" = [");
    for (int i = 0; i < count; i++) {
        char room[300];
        say("%s%s", i ? " " : "", shown_text(list[i], room, sizeof room));
    }
    say("]");
}

// Values are small: how many bytes of attributes fit beside a file is the file system's own affair.
void op_xattr(void) {
    static const char *const names[] = {"user.a", "user.b", "user.c", "user.a", "user.", "bogus.x", "nodot", "", "trusted.t", "user.LONG", "user.TOOLONG"};
    struct where w;
    char shown[16], name[300];
    static char value[70000], list[8192];
    strcpy(name, names[rnd(chance(50) ? 4 : 11)]);
    if (!has(TRUSTED) && name[0] == 't') strcpy(name, "user.a");
    if (strcmp(name, "user.LONG") == 0 || strcmp(name, "user.TOOLONG") == 0) {
        size_t length = name[5] == 'L' ? 255 : 256;
        memset(name + 5, 'x', length - 5);
        name[length] = 0;
    }
    char shown_name[64];
    shown_text(name, shown_name, sizeof shown_name);
    if (!has(XATTR)) { say("skip"); return; }
    bool descriptor = chance(30), follow = chance(70);
    int fd = -1;
    if (descriptor) fd = pick_descriptor(shown); else pick_plain(&w);
    const char *subject = descriptor ? shown : w.shown;
    size_t size = chance(10) ? 0 : rnd(120) + 1;
    if (chance(1)) size = 65537;
    int flags = chance(60) ? 0 : chance(45) ? XATTR_CREATE : chance(80) ? XATTR_REPLACE : chance(50) ? XATTR_CREATE | XATTR_REPLACE : 7;
    ssize_t n;
    if (!has(ARGUMENTS_FIRST) && descriptor && (fcntl(fd, F_GETFL) & O_PATH)) { say("skip"); return; }
    switch (rnd(5)) {
    case 0: case 1:
        fill(value, size);
        say("setxattr %s \"%s\" %zu bytes flags %d %s", subject, shown_name, size, flags, follow ? "" : "nofollow");
        if (descriptor) watch_descriptor(fd); else watch_path(&w);
        say_result(descriptor ? fsetxattr(fd, name, value, size, flags)
                              : (follow ? setxattr : lsetxattr)(w.path, name, value, size, flags));
        say_watched();
        break;
    case 2:
        size = chance(20) ? 0 : chance(30) ? rnd(100) + 1 : sizeof value;
        say("getxattr %s \"%s\" room %zu %s", subject, shown_name, size, follow ? "" : "nofollow");
        n = descriptor ? fgetxattr(fd, name, value, size) : (follow ? getxattr : lgetxattr)(w.path, name, value, size);
        say_result(n);
        if (n > 0 && size > 0) say(" %016llx", (unsigned long long)checksum(1, value, (size_t)n));
        break;
    case 3:
        say("listxattr %s %s", subject, follow ? "" : "nofollow");
        n = descriptor ? flistxattr(fd, list, sizeof list) : (follow ? listxattr : llistxattr)(w.path, list, sizeof list);
        if (n < 0) say_result(-1); else say_attributes(list, n);
        break;
    default:
        say("removexattr %s \"%s\" %s", subject, shown_name, follow ? "" : "nofollow");
        if (descriptor) watch_descriptor(fd); else watch_path(&w);
        say_result(descriptor ? fremovexattr(fd, name) : (follow ? removexattr : lremovexattr)(w.path, name));
        say_watched();
    }
}
