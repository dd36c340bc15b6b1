// Operations on processes: children by fork, vfork and posix_spawn, new images by exec, ends of their own and by a signal. What a child has of its parent, and an image of
// the one before it, is seen by what the operations after it do there.
#include "oracle.h"
#include <linux/close_range.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

extern char **environ;
int leaving = -1;

static void say_where(void) {
    char now[PATH_ROOM], shown[700];
    if (!getcwd(now, sizeof now)) { say(" cwd %s", strerrorname_np(errno)); return; }
    say(" cwd \"%s\"", shown_text(now, shown, sizeof shown));
}

static void say_descriptors(void) {
    for (int s = 0; s < SLOTS; s++) if (slot[s] >= 0) say(" #%d:%d", s, fcntl(slot[s], F_GETFD));
}

static void take_seat(int seat, pid_t pid, uid_t user) {
    control->seat[seat].pid = pid;
    control->seat[seat].user = user;
    control->seat[seat].go = 0;
    control->seat[seat].alive = true;
}

void op_fork(void) {
    int seat = free_seat();
    uid_t user = control->seat[actor].user;
    bool bare = chance(20);
    say(bare ? "_Fork" : "fork");
    if (seat < 0) { say(" full"); return; }
    if (control->mixed && user == 0 && chance(30)) {
        user = chance(50) ? 1000 : 2000;
        say(" to be %u", user);
    }
    pid_t pid = bare ? _Fork() : fork();
    if (pid < 0) { say_result(-1); return; }
    if (pid == 0) {
        actor = seat;
        line_used = 0;
        if (geteuid() != user) become(user);
        if (planted("offset")) for (int s = 0; s < SLOTS; s++) if (slot[s] >= 0) {  // as if offsets were not shared
            char path[64];
            off_t at = lseek(slot[s], 0, SEEK_CUR);
            int flags = fcntl(slot[s], F_GETFL);
            sprintf(path, "/proc/self/fd/%d", slot[s]);
            int own = open(path, flags & (O_ACCMODE | O_APPEND));
            if (own < 0) continue;
            lseek(own, at, SEEK_SET);
            dup2(own, slot[s]);
            close(own);
        }
        act();
    }
    take_seat(seat, pid, user);
    say(" = %c", letter(seat));
}

// What a child does before it runs another image. It may run in its parent's memory, so nothing here leaves a trace but in `done`.
enum { STEPS = 6 };
static struct plan {
    bool wanted[STEPS];
    int from, to, closed, flagged, sought, locked, flag;
    char directory[PATH_ROOM];
    long done[STEPS];
} plan;

static void make_plan(void) {
    for (int i = 0; i < STEPS; i++) plan.wanted[i] = chance(30);
    plan.from = slot[pick_slot()];
    plan.to = slot[pick_slot()];
    plan.closed = slot[pick_slot()];
    plan.flagged = slot[pick_slot()];
    plan.sought = slot[pick_slot()];
    plan.locked = slot[pick_slot()];
    plan.flag = chance(50) ? FD_CLOEXEC : 0;
    if (plan.to < 0 || plan.from < 0) plan.wanted[0] = false;
    struct stat st;
    if (plan.sought < 0 || fstat(plan.sought, &st) != 0 || !S_ISREG(st.st_mode)) plan.wanted[3] = false;
    snprintf(plan.directory, sizeof plan.directory, "%.4000s/%s", root, chance(50) ? "p" : "r");
    memset(plan.done, 0, sizeof plan.done);
}

static void follow_plan(void) {
    struct flock l = {.l_type = F_WRLCK, .l_start = 3, .l_len = 4};
    if (plan.wanted[0]) plan.done[0] = dup2(plan.from, plan.to) < 0 ? -errno : 0;
    if (plan.wanted[1]) plan.done[1] = close(plan.closed) < 0 ? -errno : 0;
    if (plan.wanted[2]) plan.done[2] = fcntl(plan.flagged, F_SETFD, plan.flag) < 0 ? -errno : 0;
    if (plan.wanted[3]) plan.done[3] = lseek(plan.sought, 5, SEEK_CUR) < 0 ? -errno : 0;
    if (plan.wanted[4]) plan.done[4] = fcntl(plan.locked, F_SETLK, &l) < 0 ? -(errno == EACCES ? EAGAIN : errno) : 0;
    if (plan.wanted[5]) plan.done[5] = chdir(plan.directory) < 0 ? -errno : 0;
}

static int number_of(int fd) {
    for (int s = 0; s < SLOTS; s++) if (slot[s] == fd && fd >= 0) return s;
    return -1;
}

static void say_plan(bool results) {
    static const char *const names[STEPS] = {"dup2", "close", "setfd", "seek", "lock", "chdir"};
    const int subjects[STEPS] = {plan.from, plan.closed, plan.flagged, plan.sought, plan.locked, -1};
    for (int i = 0; i < STEPS; i++) {
        if (!plan.wanted[i]) continue;
        say(" %s", names[i]);
        if (i < 5) say(" #%d", number_of(subjects[i]));
        if (i == 0) say(" #%d", number_of(plan.to));
        if (results) { if (plan.done[i] < 0) say("=%s", strerrorname_np((int)-plan.done[i])); else say("=0"); }
    }
}

// This program again, by one of the ways there are. Returns only when there is no such way.
static void run_image(int way, char *const arguments[], char *const environment[]) {
    char path[PATH_ROOM + 16];
    int fd;
    switch (way) {
    case 0: case 1:
        execve("/proc/self/fd/191", arguments, environment);
        break;
    case 2:
        fexecve(PROGRAM_DESCRIPTOR, arguments, environment);
        break;
    case 3:
        snprintf(path, sizeof path, "%s/exe", control->base);
        execve(path, arguments, environment);
        break;
    case 4:
        snprintf(path, sizeof path, "%s/exe", control->base);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) fexecve(fd, arguments, environment);
        break;
    case 5:
        fd = open(control->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) syscall(SYS_execveat, fd, "exe", arguments, environment, 0);
        break;
    default:
        snprintf(path, sizeof path, "%s/script", control->base);
        execve(path, arguments, environment);
    }
}

static const char *const way_names[] = {"", "", " by descriptor", " on the volume", " on the volume, by descriptor", " on the volume, at", " by a script"};
static int pick_way(void) { return has(EXECUTE) ? (int)rnd(7) : (int)rnd(3); }

static char plant_setting[64];
static char *few[] = {NULL, NULL};
static char *const *pick_environment(void) {
    if (chance(70)) return environ;
    const char *plant = getenv("ORACLE_PLANT");
    if (plant) { snprintf(plant_setting, sizeof plant_setting, "ORACLE_PLANT=%s", plant); few[0] = plant_setting; }
    say(" with an empty environment");
    return few;
}

static int spawn(int way, char *const arguments[], char *const environment[], pid_t *pid) {
    posix_spawn_file_actions_t actions;
    char path[PATH_ROOM + 16];
    posix_spawn_file_actions_init(&actions);
    if (plan.wanted[0]) posix_spawn_file_actions_adddup2(&actions, plan.from, plan.to);
    if (plan.wanted[1] && plan.closed >= 0) posix_spawn_file_actions_addclose(&actions, plan.closed);
    if (plan.wanted[3] && plan.sought >= 0) {
        snprintf(path, sizeof path, "%s/a", root);
        posix_spawn_file_actions_addopen(&actions, plan.sought, path, O_RDONLY | (plan.flag ? O_CREAT : 0), 0640);
    }
    if (plan.wanted[5]) posix_spawn_file_actions_addchdir_np(&actions, plan.directory);
    snprintf(path, sizeof path, "%s/exe", control->base);
    int error = posix_spawn(pid, way < 3 ? "/proc/self/fd/191" : path, &actions, NULL, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

void op_spawn(void) {
    static const char *const hows[] = {"vfork", "posix_spawn", "fork and exec"};
    int seat = free_seat(), how = (int)rnd(3), way = pick_way();
    char number[8];
    pid_t pid = 0;
    say("%s%s", hows[how], way_names[way]);
    char *const *environment = pick_environment();
    make_plan();
    if (seat < 0) { say(" full"); return; }
    if (how == 1) plan.wanted[2] = plan.wanted[4] = false;
    if (how == 0 && !has(VFORK_LOCKS)) plan.wanted[4] = false;
    if (how == 1) {  // opens a file there
        struct stat st;
        char path[PATH_ROOM + 16];
        snprintf(path, sizeof path, "%s/a", root);
        if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) plan.wanted[3] = false;
    }
    sprintf(number, "%d", seat);
    char *const arguments[] = {"oracle", "--resume", number, NULL};
    memcpy(control->seat[seat].slots, slot, sizeof slot);
    control->seat[seat].go = 0;
    control->report[0] = 0;
    control->exec_error = 0;
    control->back = actor;
    say_plan(false);
    if (how == 1) {
        control->exec_error = spawn(way, arguments, environment, &pid);
    } else {
        pid = how == 0 ? vfork() : fork();
        if (pid == 0) {
            follow_plan();
            run_image(way, arguments, environment);
            control->exec_error = errno;
            if (how == 2) give(control->back);
            _exit(0);
        }
    }
    if (pid < 0) { say_result(-1); return; }
    if (how == 2 || control->exec_error == 0) {  // a fork's failure is told by its child
        control->seat[seat].pid = pid;
        give(seat);
        await_turn();
    }
    if (how == 0) { say(" did"); say_plan(true); }
    if (control->exec_error == 0) {
        take_seat(seat, pid, control->seat[actor].user);
        say(" = %c%s", letter(seat), control->report);
    } else {
        if (how != 1) await_death(pid);
        errno = control->exec_error;
        say_result(-1);
    }
    say(" here");
    say_descriptors();
    say_where();
}

// What a new image finds: the descriptors that exec has left, and where it is.
static void take_over(int seat) {
    memcpy(slot, control->seat[seat].slots, sizeof slot);
    say(" kept");
    for (int s = 0; s < SLOTS; s++) {
        if (slot[s] < 0) continue;
        int flags = fcntl(slot[s], F_GETFD);
        if (flags < 0) slot[s] = -1; else say(" #%d:%d:%lld", s, flags, (long long)lseek(slot[s], 0, SEEK_CUR));
    }
    if (planted("exec")) for (int s = 0; s < SLOTS; s++) if (slot[s] >= 0) { close(slot[s]); slot[s] = -1; break; }
    say_where();
    mode_t mask = umask(0);
    say(" umask %o", umask(mask));
}

void resume(int seat) {
    actor = seat;
    if (control->seat[seat].alive) {  // an image instead of another, in the middle of its line
        memcpy(line, control->line, control->line_used);
        line_used = control->line_used;
        take_over(seat);
        end_line();
        control->position++;
        give(seat);
        act();
    }
    await_turn();
    take_over(seat);
    line[line_used] = 0;
    snprintf(control->report, sizeof control->report, "%s", line);
    line_used = 0;
    give(control->back);
    act();
}

// Files of the stream that cannot be run: every way to say no.
static void exec_in_vain(void) {
    struct where w;
    char *const arguments[] = {"oracle", NULL};
    pick(&w);
    say("exec %s", w.shown);
    if (!has(EXECUTE)) { say(" skip"); return; }
    int nofollow = chance(20) ? AT_SYMLINK_NOFOLLOW : 0;
    struct stat st;
    if (fstatat(w.dirfd, w.path, &st, 0) == 0 && S_ISREG(st.st_mode)) {
        // What may be run and not read cannot be copied.
        if (faccessat(w.dirfd, w.path, R_OK, AT_EACCESS) != 0) { say(" unreadable"); return; }
        // A look at what then is not run may move its atime, or not: ask only where that does not show.
        if (st.st_atim.tv_sec < started - 5 || st.st_atim.tv_sec > started + 86400) { say(" fixed atime"); return; }
    }
    if (w.dirfd == AT_FDCWD && !nofollow) execve(w.path, arguments, environ);
    else syscall(SYS_execveat, w.dirfd, w.path, arguments, environ, nofollow);
    if (errno == ETXTBSY) errno = ENOEXEC;  // it is open for writing
    say_result(-1);
    say_descriptors();
}

void op_exec(void) {
    if (chance(40)) { exec_in_vain(); return; }
    int way = pick_way();
    char number[8];
    sprintf(number, "%d", actor);
    char *const arguments[] = {"oracle", "--resume", number, NULL};
    say("exec%s", way_names[way]);
    char *const *environment = pick_environment();
    memcpy(control->seat[actor].slots, slot, sizeof slot);
    memcpy(control->line, line, line_used);
    control->line_used = line_used;
    run_image(way, arguments, environment);
    say_result(-1);
}

// The first process stays, so that somebody is always there who may do everything.
void op_exit(void) {
    static const char *const ways[] = {"_exit", "exit", "SIGKILL to oneself", "SIGTERM to oneself"};
    int way = (int)rnd(4);
    say("%s", ways[way]);
    if (actor == 0) say(" not the first"); else leaving = way;
}

void leave(void) {
    switch (leaving) {
    case 0: _exit(0);
    case 1: exit(0);
    case 2: kill(getpid(), SIGKILL); break;
    default: kill(getpid(), SIGTERM);
    }
    _exit(0);
}

void op_kill(void) {
    int seat = 1 + (int)rnd(ACTORS - 1);
    say("kill %c", letter(seat));
    if (!control->seat[seat].alive || seat == actor) { say(" not there"); return; }
    int result = kill(control->seat[seat].pid, SIGKILL);
    say_result(result);
    if (result != 0) return;
    await_death(control->seat[seat].pid);
    control->seat[seat].alive = false;
}

void op_close_range(void) {
    static const unsigned all[] = {0, 0, CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_UNSHARE, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC, 64};
    unsigned flags = all[rnd(7)], wide = (unsigned)rnd(3);
    int s = pick_slot();
    say("close_range #%d +%u %u", s, wide, flags);
    if (slot[s] < 0) { say(" closed"); return; }
    if ((flags & CLOSE_RANGE_CLOEXEC) && chance(30)) wide = 30;
    say_result(close_range((unsigned)slot[s], (unsigned)slot[s] + wide, (int)flags));
    for (int i = 0; i < SLOTS; i++) if (slot[i] >= 0 && fcntl(slot[i], F_GETFD) < 0) slot[i] = -1;
    say_descriptors();
}
