// Locks: of a process, of an open description, and flock; asked for without waiting in all processes of the stream, and waited for in small scenes whose outcome does not
// depend on who comes first.
#include "oracle.h"
#include <signal.h>
#include <stdatomic.h>

static bool is_known(pid_t pid, bool description) {
    if (pid == -1) return true;
    for (int i = 0; i < ACTORS; i++)
        if (control->seat[i].alive && control->seat[i].pid == pid) return description || i != actor;
    return false;
}

static void say_owner(pid_t pid) {
    if (pid == -1) { say(" a description"); return; }
    for (int i = 0; i < ACTORS; i++) if (control->seat[i].alive && control->seat[i].pid == pid) { say(" %c", letter(i)); return; }
    say(" a-stranger");
}

// Which of several conflicting locks F_GETLK names is not defined; that it names one of another owner that overlaps is. Of one byte there is one writer at most,
// so such a question has one answer.
void op_lock(void) {
    static const short types[] = {F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK};
    char shown[16];
    int fd = pick_descriptor(shown);
    bool description = has(OFD) && chance(30), ask = chance(25), exact = false;
    struct flock l = {.l_type = types[rnd(4)], .l_whence = (short)rnd(3), .l_pid = 0};
    l.l_start = chance(70) ? (off_t)rnd(40) : pick_offset();
    l.l_len = chance(30) ? 0 : chance(85) ? (off_t)rnd(20) + 1 : -(off_t)rnd(20);
    if (l.l_whence != SEEK_SET && chance(30)) l.l_start = -l.l_start;
    if (chance(70)) l.l_whence = SEEK_SET;
    struct stat st;
    if (l.l_whence == SEEK_END && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) l.l_whence = SEEK_SET;  // a directory's size says nothing
    if (chance(1)) l.l_type = 77;
    if (chance(1)) l.l_whence = 77;
    if (!has(LOCKS)) { say("skip"); return; }
    if (ask && l.l_type == F_UNLCK) l.l_type = F_RDLCK;
    if (ask && chance(60)) {
        exact = true;
        l.l_len = 1;
    }
    say("lock %s %s%s type %d whence %d %lld+%lld", shown, description ? "OFD" : "POSIX", ask ? " ask" : "", l.l_type, l.l_whence,
        (long long)l.l_start, (long long)l.l_len);
    int result = fcntl(fd, description ? (ask ? F_OFD_GETLK : F_OFD_SETLK) : (ask ? F_GETLK : F_SETLK), &l);
    if (result != 0 && errno == EACCES) errno = EAGAIN;  // POSIX allows either
    if (planted("lock") && result != 0 && errno == EAGAIN) result = 0;
    say_result(result);
    if (!ask || result != 0) return;
    if (l.l_type == F_UNLCK) { say(" free"); return; }
    say(" held%s%s", is_known(l.l_pid, description) ? "" : " by-a-stranger", l.l_whence == SEEK_SET ? "" : " whence");
    if (!exact) return;
    say(" type %d", l.l_type);
    if (l.l_type == F_WRLCK) {
        say(" %lld+%lld of", (long long)l.l_start, (long long)l.l_len);
        say_owner(l.l_pid);
    }
}

void op_flock(void) {
    static const int kinds[] = {LOCK_SH, LOCK_EX, LOCK_EX, LOCK_UN};
    char shown[16];
    int fd = pick_descriptor(shown), kind = chance(1) && has(ARGUMENTS_FIRST) ? 77 : kinds[rnd(4)];
    if (!has(FLOCK)) { say("skip"); return; }
    say("flock %s %d", shown, kind);
    say_result(flock(fd, kind | LOCK_NB));
}

// The scenes. All of them play on a file that no other operation knows, and leave no process and no lock behind.
enum kind { POSIX, OFD_KIND, FLOCK_KIND };
static char place[PATH_ROOM + 16];

static int open_place(void) {
    snprintf(place, sizeof place, "%.4000s/locked", control->base);
    return open(place, O_RDWR | O_CLOEXEC);
}

static int lock_byte(enum kind kind, int fd, int byte, short type, bool wait) {
    if (kind == FLOCK_KIND) return flock(fd, (type == F_UNLCK ? LOCK_UN : type == F_RDLCK ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB));
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, kind == POSIX ? (wait ? F_SETLKW : F_SETLK) : (wait ? F_OFD_SETLKW : F_OFD_SETLK), &l);
}

static void say_outcome(int error) { if (error == 0) say(" 0"); else say(" %s", strerrorname_np(error)); }

static void begin(void) { for (int i = 0; i < 8; i++) control->note[i] = 0; }

// A child that waits for what its parent holds, and tells how that ended (1000 and the errno).
static pid_t start_waiter(enum kind kind, short type) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    close_range((unsigned)lowest_descriptor, CONTROL_DESCRIPTOR - 1, 0);  // or the lock would be this process's, too
    int fd = open_place();
    set_note(0, 1);
    int result = lock_byte(kind, fd, 0, type, true);
    set_note(1, result == 0 ? 1000 : 1000 + errno);
    _exit(0);
}

static void released(enum kind kind) {  // by an unlock, by closing, or by closing something else of the file
    unsigned way = (unsigned)rnd(3);
    short waiting = chance(50) ? F_WRLCK : F_RDLCK;
    int fd = open_place(), other = open_place(), copy = dup(fd);
    say(" released by %s, waiting for %d:", way == 0 ? "unlock" : way == 1 ? "close" : "another close", waiting);
    if (lock_byte(kind, fd, 0, F_WRLCK, false) != 0) { say_result(-1); return; }
    pid_t pid = start_waiter(kind, waiting);
    await_note(0, 1);
    if (way == 0) lock_byte(kind, fd, 0, F_UNLCK, false);
    else if (way == 1) { close(fd); close(copy); fd = copy = -1; }
    else if (kind == POSIX) { close(other); other = -1; }
    else { close(copy); copy = -1; close(fd); fd = -1; }
    await_note(1, 1000);
    say_outcome(control->note[1] - 1000);
    await_death(pid);
    if (fd >= 0) { say(" again"); say_outcome(lock_byte(kind, fd, 0, F_WRLCK, false) == 0 ? 0 : errno); }
    if (fd >= 0) close(fd);
    if (copy >= 0) close(copy);
    if (other >= 0) close(other);
}

static void holder_ends(enum kind kind) {
    unsigned way = (unsigned)rnd(4);
    static const char *const ways[] = {"exit", "SIGKILL", "exec", "SIGKILL by another"};
    say(" holder ends by %s:", ways[way]);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open_place();
        set_note(2, lock_byte(kind, fd, 0, F_WRLCK, false) == 0 ? 1 : 100 + errno);
        await_note(0, 1);
        char *const arguments[] = {"true", NULL};
        if (way == 0) _exit(0);
        if (way == 1) kill(getpid(), SIGKILL);
        if (way == 2) execve("/bin/true", arguments, arguments + 1);
        for (;;) pause();
    }
    await_note(2, 1);
    if (control->note[2] != 1) say(" not held: %s", strerrorname_np(control->note[2] - 100));
    int fd = open_place();
    say_outcome(lock_byte(kind, fd, 0, F_RDLCK, false) == 0 ? 0 : errno);
    pid_t killer = 0;
    if (way == 3 && (killer = fork()) == 0) {
        await_note(0, 1);
        kill(pid, SIGKILL);
        _exit(0);
    }
    set_note(0, 1);
    say_outcome(lock_byte(kind, fd, 0, F_WRLCK, true) == 0 ? 0 : errno);
    await_death(pid);
    if (killer) await_death(killer);
    close(fd);
}

static volatile sig_atomic_t signals;
static void on_signal(int number) { (void)number; signals++; }

static void interrupted(enum kind kind) {
    bool restart = chance(50);
    int fd = open_place();
    say(" interrupted%s:", restart ? " with SA_RESTART" : "");
    if (lock_byte(kind, fd, 0, F_WRLCK, false) != 0) { say_result(-1); close(fd); return; }
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0}, old;
    sigaction(SIGUSR1, &action, &old);
    pid_t pid = start_waiter(kind, F_WRLCK);
    sigaction(SIGUSR1, &old, NULL);
    await_note(0, 1);
    for (int i = 0; i < 3 || (!restart && control->note[1] < 1000); i++) {
        kill(pid, SIGUSR1);
        usleep(300);
    }
    lock_byte(kind, fd, 0, F_UNLCK, false);
    await_note(1, 1000);
    say_outcome(control->note[1] - 1000);
    await_death(pid);
    close(fd);
}

static void waiter_dies(enum kind kind) {
    int fd = open_place(), other = open_place();
    say(" waiter is killed:");
    if (lock_byte(kind, fd, 0, F_WRLCK, false) != 0) { say_result(-1); close(fd); return; }
    pid_t pid = start_waiter(kind, F_WRLCK);
    await_note(0, 1);
    kill(pid, SIGKILL);
    await_death(pid);
    lock_byte(kind, fd, 0, F_UNLCK, false);
    say_outcome(lock_byte(kind, other, 0, F_WRLCK, false) == 0 ? 0 : errno);
    close(fd);
    close(other);
}

// Each holds a byte and asks for the next one's: one of them is told, whoever asks last. Two readers of one byte who both want to write it are such a ring, too.
static void ring(void) {
    int members = 2 + (int)rnd(2), refused = 0, granted = 0;
    bool upgrade = members == 2 && chance(50);
    pid_t pids[3];
    say(upgrade ? " two readers want to write:" : " a ring of %d:", members);
    for (int i = 0; i < members; i++) {
        pids[i] = fork();
        if (pids[i] != 0) continue;
        int fd = open_place(), own = upgrade ? 0 : i, next = upgrade ? 0 : (i + 1) % members;
        int held = lock_byte(POSIX, fd, own, upgrade ? F_RDLCK : F_WRLCK, false);
        set_note(i, held == 0 ? 1 : 2);
        for (int j = 0; j < members; j++) await_note(j, 1);
        int result = lock_byte(POSIX, fd, next, F_WRLCK, true), error = errno;
        if (result != 0) lock_byte(POSIX, fd, own, F_UNLCK, false);
        set_note(3 + i, result == 0 ? 1000 : 1000 + error);
        _exit(0);
    }
    for (int i = 0; i < members; i++) {
        await_note(3 + i, 1000);
        if (control->note[i] != 1) say(" not held");
        int error = control->note[3 + i] - 1000;
        if (error == 0) granted++; else if (error == EDEADLK) refused++; else say_outcome(error);
    }
    for (int i = 0; i < members; i++) await_death(pids[i]);
    say(" %d granted, %d told", granted, refused);
}

// Two who share a flock both want it for themselves: each lets go before it waits, so both get it, one after the other.
static void upgrades(void) {
    pid_t pids[2];
    say(" two who share want it alone:");
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] != 0) continue;
        int fd = open_place();
        set_note(i, flock(fd, LOCK_SH | LOCK_NB) == 0 ? 1 : 2);
        await_note(1 - i, 1);
        set_note(3 + i, flock(fd, LOCK_EX) == 0 ? 1000 : 1000 + errno);
        _exit(0);
    }
    for (int i = 0; i < 2; i++) {
        await_note(3 + i, 1000);
        say("%s", control->note[i] == 1 ? "" : " not held");
        say_outcome(control->note[3 + i] - 1000);
    }
    for (int i = 0; i < 2; i++) await_death(pids[i]);
}

void op_wait(void) {
    static const char *const names[] = {"POSIX", "OFD", "flock"};
    enum kind kind = (enum kind)rnd(3);
    if (kind == OFD_KIND && !has(OFD)) kind = POSIX;
    unsigned scene = (unsigned)rnd(6);
    say("wait");
    if (!has(WAITS) || !has(LOCKS) || !has(FLOCK)) { say(" skip"); return; }
    if (scene < 4) say(" %s", names[kind]);
    begin();
    int fd = open_place();
    if (fd < 0) { say_result(-1); return; }
    close(fd);
    switch (scene) {
    case 0: released(kind); break;
    case 1: holder_ends(kind); break;
    case 2: interrupted(kind); break;
    case 3: waiter_dies(kind); break;
    case 4: upgrades(); break;
    default: ring();
    }
}
