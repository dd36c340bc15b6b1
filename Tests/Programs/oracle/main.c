// oracle DIR SEED COUNT [--as-user UID | --mixed] [--processes] [--without NAME,…] [--only FILE] [--keep]
//
// Makes DIR/oracle/root, runs operations 0 … COUNT-1 of SEED in it, prints a line for each, removes DIR/oracle.
// --as-user UID   the stream runs as that user, with UID as its group and 3000 as supplementary group; root prepares the directory
// --mixed         three processes take turns: root, user 1000 and user 2000
// --processes     up to four processes take turns, which come, go and become other programs by operations of the stream, and map files. With
//                 --mixed some of root's children become the other users
// --only FILE     of the stream, only the operations whose numbers stand in FILE (one a line)
// Exit 0: the stream ended. 2: could not begin. 3: a process of the stream died.
#include "oracle.h"
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/utsname.h>
#include <time.h>

static const struct { const char *name; uint64_t bit; } feature_names[] = {
    {"zero-range", ZERO_RANGE}, {"tmpfile", TMPFILE}, {"special", SPECIAL}, {"opath", OPATH}, {"ofd", OFD}, {"cwd", CWD},
    {"efault", EFAULTS}, {"copy-range", COPY_RANGE}, {"noatime", NOATIME}, {"xattr", XATTR}, {"exchange", EXCHANGE},
    {"locks", LOCKS}, {"flock", FLOCK}, {"read-zero", READ_ZERO}, {"changes", CHANGES}, {"atime", ATIME},
    {"descriptors", DESCRIPTORS}, {"truncate-same", TRUNCATE_SAME}, {"fallocate", FALLOCATE}, {"trusted", TRUSTED}, {"huge-seek", HUGE_SEEK},
    {"long-links", LONG_LINKS}, {"link-atime", LINK_ATIME}, {"sticky", STICKY}, {"arguments-first", ARGUMENTS_FIRST},
    {"resolve", RESOLVE}, {"send", SEND}, {"poll", POLL}, {"maps", MAPS}, {"waits", WAITS}, {"execute", EXECUTE}, {"bad-buffers", BAD_BUFFERS}, {"advice", ADVICE}, {"protect-part", PROTECT_PART}, {"vfork-locks", VFORK_LOCKS}, {"protect-atime", PROTECT_ATIME},
};

struct operation { void (*run)(void); unsigned weight; };
static const struct operation operations[] = {  // weights of 10,000
    {op_open, 1300}, {op_close, 500}, {op_dup, 200}, {op_descriptor_flags, 200}, {op_read, 600}, {op_write, 1000}, {op_seek, 350},
    {op_seek_hole, 150}, {op_truncate, 250}, {op_ftruncate, 250}, {op_fallocate, 200}, {op_fsync, 25}, {op_sum, 350}, {op_copy_range, 60},
    {op_bad_memory, 60}, {op_mkdir, 600}, {op_rmdir, 350}, {op_mknod, 120}, {op_symlink, 300}, {op_readlink, 200}, {op_link, 400},
    {op_unlink, 550}, {op_rename, 650}, {op_renameat2, 250}, {op_list, 250}, {op_list_while_changing, 4}, {op_remove_while_listing, 4},
    {op_link_chain, 4}, {op_chdir, 120}, {op_same_file, 80}, {op_stat, 500}, {op_access, 250}, {op_chmod, 350}, {op_chown, 250},
    {op_times, 250}, {op_umask, 40}, {op_xattr, 500}, {op_lock, 350}, {op_flock, 150},
    {op_open_limited, 250}, {op_send, 100}, {op_poll, 60},
};

// What only several processes do, beside the others: 2,000 more.
static const struct operation of_processes[] = {
    {op_fork, 90}, {op_spawn, 45}, {op_exec, 60}, {op_exit, 80}, {op_kill, 80}, {op_wait, 15}, {op_close_range, 60}, {op_lock, 250}, {op_flock, 70},
    {op_map, 330}, {op_load, 330}, {op_store, 300}, {op_msync, 60}, {op_unmap, 70}, {op_protect, 80}, {op_remap, 60}, {op_advise, 30}, {op_mapped_buffer, 40},
};

static int64_t nth(int64_t i) { return control->only_count < 0 ? i : control->only[i]; }
static int64_t steps(void) { return control->only_count < 0 ? control->count : control->only_count; }

static const struct operation *pick_operation(void) {
    enum { COMMON = sizeof operations / sizeof operations[0], MORE = sizeof of_processes / sizeof of_processes[0] };
    unsigned total = 0, kinds = control->processes ? COMMON + MORE : COMMON;
    for (unsigned i = 0; i < kinds; i++) total += (i < COMMON ? operations[i] : of_processes[i - COMMON]).weight;
    int64_t drawn = (int64_t)rnd(total);
    for (unsigned i = 0;; i++) {
        const struct operation *one = i < COMMON ? &operations[i] : &of_processes[i - COMMON];
        if (drawn < one->weight) return one;
        drawn -= one->weight;
    }
}

void act(void) {
    await_turn();
    for (;;) {
        if (control->position >= steps()) {
            control->over = 1;
            _exit(0);
        }
        int64_t number = nth(control->position);
        int next = actor_of(number);
        if (next != actor) {
            if (leaving >= 0) control->dying = getpid();
            give(next);
            if (leaving >= 0) leave();
            await_turn();
            continue;
        }
        seed_operation(control->seed, number);
        const struct operation *one = pick_operation();
        say("%lld", (long long)number);
        if (control->mixed || control->processes) say(" %c", letter(actor));
        say(" ");
        one->run();
        end_line();
        control->position++;
        if (leaving >= 0) control->seat[actor].alive = false;
    }
}

void become(uid_t uid) {
    gid_t groups[] = {uid, 3000};
    if (setgroups(2, groups) != 0 || setgid(uid) != 0 || setuid(uid) != 0) { perror("oracle: cannot become the user"); _exit(2); }
    prctl(PR_SET_DUMPABLE, 1);
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
        features &= ~(uint64_t)STICKY;
    // Before 6.13 some calls looked at the descriptor first, and at their other arguments then.
    if (uname(&name) != 0 || sscanf(name.release, "%d.%d", &major, &minor) != 2 || major * 1000 + minor < 6013) features &= ~(uint64_t)ARGUMENTS_FIRST;
}

static int64_t *only;

static int64_t read_only(const char *file, int64_t most) {
    FILE *f = fopen(file, "r");
    if (!f) { perror(file); exit(2); }
    only = malloc(sizeof *only * (size_t)(most + 1));
    int64_t found = 0;
    long long number;
    while (only && found < most && fscanf(f, "%lld", &number) == 1) only[found++] = number;
    fclose(f);
    return found;
}

// This program and a script on the file system under test, for who wants to run one from there.
static void copy_program(void) {
    char path[PATH_ROOM + 16], text[PATH_ROOM + 32];
    struct stat st;
    snprintf(path, sizeof path, "%s/exe", control->base);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0755);
    if (fd < 0 || fstat(PROGRAM_DESCRIPTOR, &st) != 0 || sendfile(fd, PROGRAM_DESCRIPTOR, &(off_t){0}, (size_t)st.st_size) != st.st_size) { perror(path); exit(2); }
    close(fd);
    int n = snprintf(text, sizeof text, "#!%s --script\n", path);
    if (n > 200) features &= ~(uint64_t)EXECUTE;  // Linux looks no further
    snprintf(path, sizeof path, "%s/script", control->base);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0755);
    if (fd < 0 || write(fd, text, (size_t)n) != n) { perror(path); exit(2); }
    close(fd);
}

static int start(int argc, char **argv) {
    uid_t user = 0;
    bool keep = false, mixed = false, processes = false;
    int64_t only_count = -1;
    uint64_t seed = strtoull(argv[2], NULL, 0);
    int64_t count = strtoll(argv[3], NULL, 0);
    know_the_kernel();
    for (int i = 4; i < argc; i++) {
        if (strcmp(argv[i], "--as-user") == 0 && i + 1 < argc) user = (uid_t)strtoul(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--mixed") == 0) mixed = true;
        else if (strcmp(argv[i], "--processes") == 0) processes = true;
        else if (strcmp(argv[i], "--keep") == 0) keep = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) only_count = read_only(argv[++i], count);
        else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc) {
            for (char *name = strtok(argv[++i], ","); name; name = strtok(NULL, ",")) {
                unsigned f = 0, known = sizeof feature_names / sizeof feature_names[0];
                while (f < known && strcmp(name, feature_names[f].name) != 0) f++;
                if (f == known) { fprintf(stderr, "oracle: no feature is called %s\n", name); return 2; }
                features &= ~feature_names[f].bit;
            }
        } else { fprintf(stderr, "oracle: what is %s?\n", argv[i]); return 2; }
    }
    if ((user != 0 || mixed) && geteuid() != 0) { fprintf(stderr, "oracle: only root can act as others\n"); return 2; }
    // What a process of the stream opens gets the numbers from here on; what is kept open beside it lies higher.
    lowest_descriptor = open("/dev/null", O_RDONLY);
    close(lowest_descriptor);
    if (!make_control(only_count)) { perror("oracle"); return 2; }
    control->seed = seed;
    control->count = count;
    control->only_count = only_count;
    if (only_count > 0) memcpy(control->only, only, sizeof *only * (size_t)only_count);
    control->mixed = mixed;
    control->processes = processes;
    control->lowest_descriptor = lowest_descriptor;
    control->started = started = time(NULL);
    control->turn = -1;
    umask(0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    char *base = control->base;
    snprintf(base, sizeof control->base, "%.3000s/oracle", argv[1]);
    snprintf(root, sizeof root, "%.3100s/root", base);
    strcpy(control->root, root);
    root_length = strlen(root);
    if (mkdir(base, 0755) != 0 || mkdir(root, 0777) != 0) { perror(base); return 2; }
    if (processes) {
        copy_program();
        make("../locked", 0666, 0, 0, false);
    }
    control->features = features;
    make("p", 0777, 0, 0, true);
    make("q", has(STICKY) ? 01777 : 0777, 0, 0, true);
    make("r", 02775, 0, 3000, true);
    make("a", 0644, 0, 0, false);
    make("b", 0600, 1000, 1000, false);
    make("c", 0666, 0, 3000, false);
    make("d", 04755, 2000, 3000, false);

    // Every actor is a forked child which meets the directory for the first time itself.
    fflush(stdout);
    int first = mixed ? 3 : 1;
    for (int i = 0; i < first; i++) {
        uid_t own = mixed ? (uid_t)(i * 1000) : user;
        pid_t pid = fork();
        if (pid < 0) { perror("oracle"); return 2; }
        if (pid == 0) {
            actor = i;
            if (own != 0) become(own);
            if (has(CWD) && chdir(root) != 0) { perror("oracle: chdir"); _exit(2); }
            act();
        }
        control->seat[i].pid = pid;
        control->seat[i].user = own;
        control->seat[i].alive = true;
    }
    control->turn = 0;
    give(0);
    bool sound = supervise();
    if (sound) write_out();
    fflush(stdout);
    if (!keep) {
        nftw(base, open_up, 32, FTW_PHYS);
        if (nftw(base, remove_entry, 32, FTW_PHYS | FTW_DEPTH) != 0) printf("end: cannot remove the tree: %s\n", strerrorname_np(errno));
        else printf("end: removed\n");
    }
    return sound ? 0 : 3;
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "--script") == 0) { argv += 2; argc -= 2; }
    if (argc == 3 && strcmp(argv[1], "--resume") == 0) {
        if (!find_control()) { fprintf(stderr, "oracle: what was to go on is not there\n"); return 2; }
        resume(atoi(argv[2]));
        return 2;
    }
    if (argc < 4) { fprintf(stderr, "usage: oracle DIR SEED COUNT [--as-user UID | --mixed] [--processes] [--without NAME,...] [--only FILE] [--keep]\n"); return 2; }
    return start(argc, argv);
}
