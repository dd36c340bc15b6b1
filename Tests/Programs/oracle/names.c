// Operations on names: directories, links, renames, listings.
#include "oracle.h"

void op_mkdir(void) {
    struct where w;
    mode_t mode = chance(75) ? 0777 : pick_mode();
    pick_directory(&w);
    say("mkdir %s %o", w.shown, mode);
    watch_path(&w);
    say_result(w.dirfd == AT_FDCWD && chance(50) ? mkdir(w.path, mode) : mkdirat(w.dirfd, w.path, mode));
    say_watched();
}

void op_rmdir(void) {
    struct where w;
    pick_directory(&w);
    say("rmdir %s", w.shown);
    watch_path(&w);
    say_result(w.dirfd == AT_FDCWD && chance(50) ? rmdir(w.path) : unlinkat(w.dirfd, w.path, AT_REMOVEDIR));
    say_watched();
}

void op_mknod(void) {
    static const mode_t kinds[] = {S_IFIFO, S_IFIFO, S_IFSOCK, S_IFREG, S_IFCHR, S_IFBLK, S_IFDIR, 0};
    struct where w;
    mode_t mode = pick_mode() | kinds[rnd(8)];
    dev_t dev = S_ISCHR(mode) || S_ISBLK(mode) ? (dev_t)0x103 : 0;
    pick(&w);
    say("mknod %s %o %llx", w.shown, mode, (unsigned long long)dev);
    watch_path(&w);
    say_result(w.dirfd == AT_FDCWD && chance(50) ? mknod(w.path, mode, dev) : mknodat(w.dirfd, w.path, mode, dev));
    say_watched();
}

void op_symlink(void) {
    struct where w;
    static char text[PATH_ROOM];
    char shown[700];
    pick_link_text(text);
    pick(&w);
    say("symlink \"%s\" %s", shown_text(text, shown, sizeof shown), w.shown);
    watch_path(&w);
    say_result(w.dirfd == AT_FDCWD && chance(50) ? symlink(text, w.path) : symlinkat(text, w.dirfd, w.path));
    say_watched();
}

void op_readlink(void) {
    struct where w;
    char text[PATH_ROOM], shown[700];
    size_t room = sizeof text - 1;
    pick(&w);
    say("readlink %s", w.shown);
    ssize_t n = readlinkat(w.dirfd, w.path, text, room);
    if (n < 0) { say_result(-1); return; }
    text[n] = 0;
    size_t own = strncmp(text, root, root_length) == 0 ? root_length : 0;
    say(" = %zd \"%s\"", n - (ssize_t)own, shown_text(text, shown, sizeof shown));
    if (own == 0 && n > 3) {  // cut short by a small buffer
        memset(text, 'x', 8);
        ssize_t m = readlinkat(w.dirfd, w.path, text, 3);
        say(" short = %zd%s", m, text[3] == 'x' ? "" : " wrote-past-the-buffer");
    }
}

// fs.protected_hardlinks is the kernel's policy for links to other people's files, and a file system never hears of it. Such links
// are left out.
static bool protected_link(const struct where *w, int flags) {
    struct stat st;
    if (geteuid() == 0 || fstatat(w->dirfd, w->path, &st, flags & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return false;
    return st.st_uid != geteuid();
}

void op_link(void) {
    struct where from, to;
    int flags = chance(15) ? AT_SYMLINK_FOLLOW : chance(2) ? 0x40000000 : 0;
    pick(&from);
    pick(&to);
    say("link %s %s %x", from.shown, to.shown, flags);
    if (protected_link(&from, flags)) { say(" not one's own"); return; }
    watch_path(&from);
    watch_path(&to);
    bool simple = from.dirfd == AT_FDCWD && to.dirfd == AT_FDCWD && flags == 0 && chance(50);
    say_result(simple ? link(from.path, to.path) : linkat(from.dirfd, from.path, to.dirfd, to.path, flags));
    say_watched();
}

void op_unlink(void) {
    struct where w;
    int flags = chance(1) ? 0x40000000 : 0;
    pick(&w);
    say("unlink %s %x", w.shown, flags);
    watch_path(&w);
    say_result(w.dirfd == AT_FDCWD && flags == 0 && chance(50) ? unlink(w.path) : unlinkat(w.dirfd, w.path, flags));
    say_watched();
}

void op_rename(void) {
    struct where from, to;
    pick(&from);
    pick(&to);
    say("rename %s %s", from.shown, to.shown);
    watch_path(&from);
    watch_path(&to);
    bool simple = from.dirfd == AT_FDCWD && to.dirfd == AT_FDCWD && chance(60);
    say_result(simple ? rename(from.path, to.path) : renameat(from.dirfd, from.path, to.dirfd, to.path));
    say_watched();
}

void op_renameat2(void) {
    struct where from, to;
    unsigned flags = chance(50) ? RENAME_NOREPLACE : has(EXCHANGE) ? RENAME_EXCHANGE : 0;
    if (chance(4)) flags = chance(50) ? RENAME_NOREPLACE | RENAME_EXCHANGE : 0x80;
    pick(&from);
    pick(&to);
    say("renameat2 %s %s %x", from.shown, to.shown, flags);
    watch_path(&from);
    watch_path(&to);
    say_result(renameat2(from.dirfd, from.path, to.dirfd, to.path, flags));
    say_watched();
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// A listing, sorted; each name with its type.
static void say_listing(DIR *dir) {
    char *names[512];
    size_t count = 0;
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) && count < 512) {
        char *text = malloc(strlen(entry->d_name) + 8);
        if (!text) break;
        sprintf(text, "%s:%d", entry->d_name, entry->d_type);
        names[count++] = text;
    }
    if (errno) say(" %s", strerrorname_np(errno));
    qsort(names, count, sizeof names[0], by_text);
    say(" [");
    for (size_t i = 0; i < count; i++) {
        char room[300];
        say("%s%s", i ? " " : "", shown_text(names[i], room, sizeof room));
        free(names[i]);
    }
    say("]");
}

void op_list(void) {
    struct where w;
    pick_directory(&w);
    say("list %s", w.shown);
    int fd = openat(w.dirfd, chance(12) ? root : w.path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) { say_result(-1); return; }
    DIR *dir = fdopendir(fd);
    if (!dir) { say_result(-1); close(fd); return; }
    watch_descriptor(fd);
    say_listing(dir);
    if (chance(30)) { rewinddir(dir); say_listing(dir); }
    say_watched();
    closedir(dir);
}

static void own_directory(char *path, const char *what) {
    sprintf(path, "%s/%s-%d", root, what, actor);
}

static bool make_file(const char *directory, char kind, unsigned number) {
    char path[PATH_ROOM + 32];
    snprintf(path, sizeof path, "%s/%c%u", directory, kind, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static bool remove_file(const char *directory, char kind, unsigned number) {
    char path[PATH_ROOM + 32];
    snprintf(path, sizeof path, "%s/%c%u", directory, kind, number);
    return unlink(path) == 0;
}

// POSIX readdir: a name that was there all the time is returned exactly once, whatever comes and goes beside it; after rewinddir as well.
void op_list_while_changing(void) {
    char path[PATH_ROOM];
    unsigned lasting = (unsigned)rnd(chance(15) ? 1200 : 150) + 1, passing = (unsigned)rnd(60), made = 0, removed = 0, pass;
    static unsigned char seen[1400];
    own_directory(path, "changing");
    say("list-while-changing %u lasting %u passing", lasting, passing);
    if (mkdir(path, 0777) != 0) { say_result(-1); return; }
    for (unsigned i = 0; i < lasting; i++) if (!make_file(path, 'f', i)) say(" cannot-make");
    for (unsigned i = 0; i < passing; i++) if (!make_file(path, 'v', made++)) say(" cannot-make");
    DIR *dir = opendir(path);
    if (!dir) { say_result(-1); return; }
    for (pass = 0; pass < 2; pass++) {
        unsigned dots = 0, steps = 0;
        struct dirent *entry;
        memset(seen, 0, sizeof seen);
        long mark = -1;
        unsigned char at_mark[1400];
        while ((entry = readdir(dir))) {
            unsigned number;
            if (sscanf(entry->d_name, "f%u", &number) == 1 && number < lasting) seen[number]++;
            else if (entry->d_name[0] == '.') dots++;
            else if (entry->d_name[0] != 'v') say(" stranger");
            if (steps++ % 7 == 3 && made < 1000) {
                if (chance(50) && removed < made) remove_file(path, 'v', removed++); else make_file(path, 'v', made++);
            }
            if (steps == lasting / 2) { mark = telldir(dir); memcpy(at_mark, seen, sizeof seen); }
            if (steps > 20000) { say(" endless"); break; }
        }
        for (unsigned i = 0; i < lasting; i++) if (seen[i] != 1) { say(" f%u seen %u times", i, seen[i]); break; }
        say(" dots %u", dots);
        if (mark != -1 && pass == 0) {  // back to the middle: the second half again, and only it
            seekdir(dir, mark);
            while ((entry = readdir(dir))) {
                unsigned number;
                if (sscanf(entry->d_name, "f%u", &number) == 1 && number < lasting) at_mark[number]++;
            }
            for (unsigned i = 0; i < lasting; i++) if (at_mark[i] != 1) { say(" after seekdir f%u seen %u times", i, at_mark[i]); break; }
        }
        rewinddir(dir);
    }
    closedir(dir);
    for (unsigned i = 0; i < lasting; i++) remove_file(path, 'f', i);
    while (removed < made) remove_file(path, 'v', removed++);
    say_result(rmdir(path));
}

// As rm -r does: remove each name as it comes. At the end nothing is left.
void op_remove_while_listing(void) {
    char path[PATH_ROOM];
    unsigned count = (unsigned)rnd(chance(20) ? 600 : 100) + 1, removed = 0;
    own_directory(path, "emptied");
    say("remove-while-listing %u", count);
    if (mkdir(path, 0777) != 0) { say_result(-1); return; }
    for (unsigned i = 0; i < count; i++) if (!make_file(path, 'g', i)) say(" cannot-make");
    DIR *dir = opendir(path);
    if (!dir) { say_result(-1); return; }
    struct dirent *entry;
    while ((entry = readdir(dir))) if (entry->d_name[0] != '.' && unlinkat(dirfd(dir), entry->d_name, 0) == 0) removed++;
    closedir(dir);
    say(" removed %u", removed);
    say_result(rmdir(path));
}

// Linux follows 40 symbolic links on the way to a file, and no more.
void op_link_chain(void) {
    char path[PATH_ROOM], name[PATH_ROOM + 32], text[32];
    unsigned length = 38 + (unsigned)rnd(5);
    struct stat st;
    own_directory(path, "chain");
    say("link-chain %u", length);
    if (mkdir(path, 0777) != 0) { say_result(-1); return; }
    snprintf(name, sizeof name, "%s/l0", path);
    close(open(name, O_WRONLY | O_CREAT, 0644));
    for (unsigned i = 1; i <= length; i++) {
        snprintf(name, sizeof name, "%s/l%u", path, i);
        sprintf(text, "l%u", i - 1);
        if (symlink(text, name) != 0) say(" cannot-link");
    }
    say_result(stat(name, &st));
    int fd = open(name, O_RDONLY);
    if (fd < 0) say_result(-1); else { say(" opened"); close(fd); }
    for (unsigned i = 0; i <= length; i++) remove_file(path, 'l', i);
    say_result(rmdir(path));
}

void op_chdir(void) {
    struct where w;
    char where_now[PATH_ROOM], shown[700];
    if (!has(CWD)) { say("skip"); return; }
    if (chance(35)) {
        say("chdir \"@\"");
        say_result(chdir(root));
    } else if (chance(25)) {
        char text[16];
        int fd = pick_descriptor(text);
        say("fchdir %s", text);
        say_result(fchdir(fd));
    } else {
        pick_directory(&w);
        while (w.dirfd != AT_FDCWD) pick_directory(&w);
        say("chdir %s", w.shown);
        say_result(chdir(w.path));
    }
    if (!getcwd(where_now, sizeof where_now)) { say(" getcwd %s", strerrorname_np(errno)); return; }
    say(" now \"%s\"", shown_text(where_now, shown, sizeof shown));
    if (strncmp(where_now, root, root_length) != 0) say_result(chdir(root));  // never leave
}

void op_same_file(void) {
    struct where one, other;
    struct stat a, b;
    pick(&one);
    pick(&other);
    say("same-file %s %s", one.shown, other.shown);
    if (fstatat(one.dirfd, one.path, &a, 0) != 0) { say_result(-1); return; }
    if (fstatat(other.dirfd, other.path, &b, 0) != 0) { say_result(-1); return; }
    say(a.st_dev == b.st_dev && a.st_ino == b.st_ino ? " yes" : " no");
}
