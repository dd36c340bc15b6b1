// oracle DIR SEED COUNT [--as-user UID | --mixed] [--without NAME,…] [--only FILE] [--keep]
//
// Makes DIR/oracle/root, runs operations 0 … COUNT-1 of SEED in it, prints a line for each, removes DIR/oracle.
// --as-user UID   the stream runs as that user, with UID as its group and 3000 as supplementary group; root prepares the directory
// --mixed         three processes take turns: root, user 1000 and user 2000
// --only FILE     of the stream, only the operations whose numbers stand in FILE (one a line)
// Exit 0: the stream ended. 2: could not begin. 3: a process of the stream died.
//
// One process prints at a time: whose turn it is follows from the operation's number, and a byte in a pipe hands the turn on.
#include "oracle.h"
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

static const struct { const char *name; unsigned bit; } feature_names[] = {
    {"zero-range", ZERO_RANGE}, {"tmpfile", TMPFILE}, {"special", SPECIAL}, {"opath", OPATH}, {"ofd", OFD}, {"cwd", CWD},
    {"efault", EFAULTS}, {"copy-range", COPY_RANGE}, {"noatime", NOATIME}, {"xattr", XATTR}, {"exchange", EXCHANGE},
    {"locks", LOCKS}, {"flock", FLOCK}, {"read-zero", READ_ZERO}, {"changes", CHANGES}, {"atime", ATIME},
    {"descriptors", DESCRIPTORS}, {"truncate-same", TRUNCATE_SAME}, {"fallocate", FALLOCATE}, {"trusted", TRUSTED}, {"huge-seek", HUGE_SEEK},
    {"long-links", LONG_LINKS}, {"link-atime", LINK_ATIME}, {"sticky", STICKY}, {"arguments-first", ARGUMENTS_FIRST},
    {"resolve", RESOLVE}, {"send", SEND}, {"poll", POLL},
};

static const struct { void (*run)(void); unsigned weight; } operations[] = {  // weights of 10,000
    {op_open, 1300}, {op_close, 500}, {op_dup, 200}, {op_descriptor_flags, 200}, {op_read, 600}, {op_write, 1000}, {op_seek, 350},
    {op_seek_hole, 150}, {op_truncate, 250}, {op_ftruncate, 250}, {op_fallocate, 200}, {op_fsync, 25}, {op_sum, 350}, {op_copy_range, 60},
    {op_bad_memory, 60}, {op_mkdir, 600}, {op_rmdir, 350}, {op_mknod, 120}, {op_symlink, 300}, {op_readlink, 200}, {op_link, 400},
    {op_unlink, 550}, {op_rename, 650}, {op_renameat2, 250}, {op_list, 250}, {op_list_while_changing, 4}, {op_remove_while_listing, 4},
    {op_link_chain, 4}, {op_chdir, 120}, {op_same_file, 80}, {op_stat, 500}, {op_access, 250}, {op_chmod, 350}, {op_chown, 250},
    {op_times, 250}, {op_umask, 40}, {op_xattr, 500}, {op_lock, 350}, {op_flock, 150},
    {op_open_limited, 250}, {op_send, 100}, {op_poll, 60},
};

// The printed lines, gathered where every process of the stream and the parent can reach them.
static struct output {
    size_t used;
    char text[1 << 20];
} *output;

static void write_out(void) {
    size_t at = 0;
    while (at < output->used) {
        ssize_t n = write(STDOUT_FILENO, output->text + at, output->used - at);
        if (n <= 0) break;
        at += (size_t)n;
    }
    output->used = 0;
}

static void end_line(void) {
    if (output->used + line_used + 2 > sizeof output->text) write_out();
    memcpy(output->text + output->used, line, line_used);
    output->used += line_used;
    output->text[output->used++] = '\n';
    line_used = 0;
}

static uint64_t seed;
static int64_t count;
static int64_t *only;
static int64_t only_count = -1;
static int turn[ACTORS][2];  // pipes

static int64_t nth(int64_t i) { return only_count < 0 ? i : only[i]; }
static int64_t steps(void) { return only_count < 0 ? count : only_count; }

static int actor_of(int64_t number) {  // a few operations in a row each
    seed_operation(seed ^ 0xAC7012, number >> 2);
    return (int)rnd((uint64_t)actors);
}

static void run_one(int64_t number) {
    unsigned total = 0;
    for (unsigned i = 0; i < sizeof operations / sizeof operations[0]; i++) total += operations[i].weight;
    seed_operation(seed, number);
    int64_t drawn = (int64_t)rnd(total);
    unsigned i = 0;
    while (drawn >= operations[i].weight) drawn -= operations[i++].weight;
    say("%lld", (long long)number);
    if (actors > 1) say(" %c", "RAB"[actor]);
    say(" ");
    operations[i].run();
    end_line();
}

static void act(void) {
    int probe = open("/dev/null", O_RDONLY);
    lowest_descriptor = probe;
    close(probe);
    bool mine = actors == 1;
    for (int64_t i = 0; i < steps(); i++) {
        int whose = actors == 1 ? actor : actor_of(nth(i));
        if (whose != actor) continue;
        if (!mine) {
            char byte;
            if (read(turn[actor][0], &byte, 1) != 1) _exit(3);
            mine = true;
        }
        run_one(nth(i));
        if (actors > 1 && i + 1 < steps() && actor_of(nth(i + 1)) != actor) {
            mine = false;
            if (write(turn[actor_of(nth(i + 1))][1], "", 1) != 1) _exit(3);
        }
    }
}

static void become(uid_t uid) {
    gid_t groups[] = {uid, 3000};
    if (setgroups(2, groups) != 0 || setgid(uid) != 0 || setuid(uid) != 0) { perror("oracle: cannot become the user"); _exit(2); }
}

static void make(const char *name, mode_t mode, uid_t uid, gid_t gid, bool directory) {
    char path[PATH_ROOM + 8];
    snprintf(path, sizeof path, "%s/%s", root, name);
    if (directory) {
        if (mkdir(path, 0777) != 0) { perror(path); exit(2); }
    } else {
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (fd < 0 || write(fd, "oracle\n", 7) != 7) { perror(path); exit(2); }
        close(fd);
    }
    if ((geteuid() == 0 && chown(path, uid, gid) != 0) || chmod(path, mode) != 0) { perror(path); exit(2); }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st; (void)ftw;
    return type == FTW_DP || type == FTW_D || type == FTW_DNR ? rmdir(path) : unlink(path);
}

static int open_up(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st; (void)ftw;
    if (type == FTW_D || type == FTW_DNR) chmod(path, 0700);
    return 0;
}

static bool is_set(const char *sysctl) {
    char digit = '0';
    int fd = open(sysctl, O_RDONLY);
    if (fd >= 0) {
        if (read(fd, &digit, 1) != 1) digit = '0';
        close(fd);
    }
    return digit != '0';
}

// What the kernel above every file system does in its own way, so that neither side could show it.
static void know_the_kernel(void) {
    struct utsname name;
    int major = 0, minor = 0;
    // Protected links and files in sticky directories are the administrator's policy.
    if (is_set("/proc/sys/fs/protected_symlinks") || is_set("/proc/sys/fs/protected_regular") || is_set("/proc/sys/fs/protected_fifos"))
        features &= ~(unsigned)STICKY;
    // Before 6.13 some calls looked at the descriptor first, and at their other arguments then.
    if (uname(&name) != 0 || sscanf(name.release, "%d.%d", &major, &minor) != 2 || major * 1000 + minor < 6013) features &= ~(unsigned)ARGUMENTS_FIRST;
}

static void read_only(const char *file) {
    FILE *f = fopen(file, "r");
    if (!f) { perror(file); exit(2); }
    only = malloc(sizeof *only * (size_t)(count + 1));
    only_count = 0;
    long long number;
    while (only && only_count < count && fscanf(f, "%lld", &number) == 1) only[only_count++] = number;
    fclose(f);
}

int main(int argc, char **argv) {
    uid_t user = 0;
    bool keep = false;
    if (argc < 4) { fprintf(stderr, "usage: oracle DIR SEED COUNT [--as-user UID | --mixed] [--without NAME,...] [--only FILE] [--keep]\n"); return 2; }
    seed = strtoull(argv[2], NULL, 0);
    count = strtoll(argv[3], NULL, 0);
    know_the_kernel();
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], "--as-user") == 0 && i + 1 < argc) user = (uid_t)strtoul(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--mixed") == 0) actors = 3;
        else if (strcmp(argv[i], "--keep") == 0) keep = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) read_only(argv[++i]);
        else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc) {
            for (char *name = strtok(argv[++i], ","); name; name = strtok(NULL, ",")) {
                unsigned f = 0, known = sizeof feature_names / sizeof feature_names[0];
                while (f < known && strcmp(name, feature_names[f].name) != 0) f++;
                if (f == known) { fprintf(stderr, "oracle: no feature is called %s\n", name); return 2; }
                features &= ~feature_names[f].bit;
            }
        } else { fprintf(stderr, "oracle: what is %s?\n", argv[i]); return 2; }
    }
    if ((user != 0 || actors > 1) && geteuid() != 0) { fprintf(stderr, "oracle: only root can act as others\n"); return 2; }
    output = mmap(NULL, sizeof *output, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (output == MAP_FAILED) { perror("oracle"); return 2; }

    char base[PATH_ROOM];
    started = time(NULL);
    umask(0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    snprintf(base, sizeof base, "%.3000s/oracle", argv[1]);
    snprintf(root, sizeof root, "%.3100s/root", base);
    root_length = strlen(root);
    if (mkdir(base, 0755) != 0 || mkdir(root, 0777) != 0) { perror(base); return 2; }
    make("p", 0777, 0, 0, true);
    make("q", has(STICKY) ? 01777 : 0777, 0, 0, true);
    make("r", 02775, 0, 3000, true);
    make("a", 0644, 0, 0, false);
    make("b", 0600, 1000, 1000, false);
    make("c", 0666, 0, 3000, false);
    make("d", 04755, 2000, 3000, false);

    // Every actor is a forked child which meets the directory for the first time itself.
    int gate[2], status = 0, bad = 0;
    bool chdir_root = has(CWD);
    if (pipe(gate) != 0) { perror("oracle"); return 2; }
    for (int i = 0; i < actors; i++) if (pipe(turn[i]) != 0) { perror("oracle"); return 2; }
    fflush(stdout);
    pid_t *shared_pids = mmap(NULL, sizeof actor_pids, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared_pids == MAP_FAILED) { perror("oracle"); return 2; }
    for (int i = 0; i < actors; i++) {
        pid_t pid = fork();
        if (pid < 0) { perror("oracle"); return 2; }
        if (pid == 0) {
            char byte;
            close(gate[1]);
            actor = i;
            if (actors > 1 && i > 0) become((uid_t)(i * 1000)); else if (user) become(user);
            if (read(gate[0], &byte, 1) < 0) _exit(3);  // until every pid is known
            memcpy(actor_pids, shared_pids, sizeof actor_pids);
            if (chdir_root && chdir(root) != 0) { perror("oracle: chdir"); _exit(2); }
            act();
            _exit(0);
        }
        shared_pids[i] = pid;
    }
    if (actors > 1 && steps() > 0 && write(turn[actor_of(nth(0))][1], "", 1) != 1) bad = 1;
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < actors; i++) {
        pid_t pid = wait(&status);
        if (pid > 0 && status != 0 && !bad) {  // the others would wait for their turn for ever
            bad = 1;
            printf("died: process of actor %c\n", pid == shared_pids[0] ? 'R' : pid == shared_pids[1] ? 'A' : 'B');
            for (int j = 0; j < actors; j++) if (shared_pids[j] != pid) kill(shared_pids[j], SIGKILL);
        }
    }
    write_out();
    fflush(stdout);
    if (!keep) {
        nftw(base, open_up, 32, FTW_PHYS);
        if (nftw(base, remove_entry, 32, FTW_PHYS | FTW_DEPTH) != 0) printf("end: cannot remove the tree: %s\n", strerrorname_np(errno));
        else printf("end: removed\n");
    }
    return bad ? 3 : 0;
}
