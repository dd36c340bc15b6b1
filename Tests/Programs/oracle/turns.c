// Whose turn it is. One process of the stream acts at a time; the others sleep on a word of their seat. Everything that is to outlive a process, its exec or its
// death is in one shared memory, which is not of the file system under test.
//
// The process that started the stream only watches: it ends it when all has been done, when the one who has the turn is gone, and when nothing has happened for half a minute.
#include "oracle.h"
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

struct control *control;

static void futex_wait(_Atomic int *word, int value, const struct timespec *limit) { syscall(SYS_futex, word, FUTEX_WAIT, value, limit, NULL, 0); }
static void futex_wake(_Atomic int *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0); }

static bool map_control(void) {
    struct stat st;
    if (fstat(CONTROL_DESCRIPTOR, &st) != 0) return false;
    control = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, CONTROL_DESCRIPTOR, 0);
    return control != MAP_FAILED;
}

bool make_control(int64_t only_room) {
    int fd = memfd_create("oracle", 0);
    if (fd < 0 || ftruncate(fd, (off_t)(sizeof *control + sizeof *control->only * (size_t)only_room)) != 0) return false;
    if (dup2(fd, CONTROL_DESCRIPTOR) < 0 || close(fd) != 0) return false;
    fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0 || dup2(fd, PROGRAM_DESCRIPTOR) < 0 || close(fd) != 0) return false;
    return map_control();
}

bool find_control(void) {
    if (!map_control()) return false;
    features = control->features;
    started = control->started;
    lowest_descriptor = control->lowest_descriptor;
    strcpy(root, control->root);
    root_length = strlen(root);
    return true;
}

void give(int seat) {
    control->turn = seat;
    control->seat[seat].go = 1;
    futex_wake(&control->seat[seat].go);
}

void await_turn(void) {
    while (!atomic_exchange(&control->seat[actor].go, 0)) futex_wait(&control->seat[actor].go, 0, NULL);
    if (control->over) _exit(0);
    control->turn = actor;
    if (control->dying) await_death(control->dying);
    control->dying = 0;
}

// A process that has ended has closed its files: its pidfd tells. Nobody's children wait to be asked for (SIGCHLD is ignored).
void await_death(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) return;
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    while (poll(&entry, 1, -1) < 0 && errno == EINTR) {}
    close(fd);
}

void set_note(int which, int value) {
    control->note[which] = value;
    futex_wake(&control->note[which]);
}

void await_note(int which, int value) {
    int now;
    while ((now = control->note[which]) < value) futex_wait(&control->note[which], now, NULL);
}

int actor_of(int64_t number) {  // a few operations in a row each
    seed_operation(control->seed ^ 0xAC7012, number >> 2);
    int seat = (int)rnd(control->processes ? ACTORS : control->mixed ? 3 : 1);
    while (!control->seat[seat].alive) seat = (seat + 1) % ACTORS;
    return seat;
}

int free_seat(void) {
    for (int i = 0; i < ACTORS; i++) if (!control->seat[i].alive) return i;
    return -1;
}

char letter(int seat) { return control->processes ? "ABCD"[seat] : "RAB"[seat]; }

void write_out(void) {
    size_t at = 0;
    while (at < control->used) {
        ssize_t n = write(STDOUT_FILENO, control->text + at, control->used - at);
        if (n <= 0) break;
        at += (size_t)n;
    }
    control->used = 0;
}

void end_line(void) {
    if (control->used + line_used + 2 > sizeof control->text) write_out();
    memcpy(control->text + control->used, line, line_used);
    control->used += line_used;
    control->text[control->used++] = '\n';
    line_used = 0;
}

static bool is_gone(int seat) { return kill(control->seat[seat].pid, 0) != 0 && errno == ESRCH; }

bool supervise(void) {
    const struct timespec now_and_then = {0, 200000000};
    bool sound = true;
    int64_t last = -1;
    int rounds = 0;
    while (!control->over) {
        futex_wait(&control->over, 0, &now_and_then);
        int seat = control->turn;
        int64_t position = control->position;
        rounds = position == last ? rounds + 1 : 0;
        last = position;
        bool gone = is_gone(seat);
        if (control->over || control->turn != seat || control->position != position || (!gone && rounds < 150)) continue;
        write_out();
        printf("%s: process %c in the operation after these\n", gone ? "died" : "stuck", letter(seat));
        fflush(stdout);
        sound = false;
        break;
    }
    control->over = 1;
    for (int i = 0; i < ACTORS; i++) {
        if (!control->seat[i].alive) continue;
        if (sound) { control->seat[i].go = 1; futex_wake(&control->seat[i].go); } else kill(control->seat[i].pid, SIGKILL);
    }
    for (int i = 0; i < ACTORS; i++) if (control->seat[i].alive) await_death(control->seat[i].pid);
    if (control->dying) await_death(control->dying);
    return sound;
}
