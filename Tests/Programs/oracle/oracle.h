// The oracle: a seeded stream of file system calls, one printed line each.
//
// Invariant: what operation N does, and which process does it, depends on (seed, N) and on what the file system answered before, and on nothing else:
// no clock, no pid, no descriptor number, no address, no path above the root. So the same seed in two directories prints the same lines,
// or one of the two file systems is different. Only libc calls are used, as any unmodified program would.
//
// Every path stays below the root: "." and ".." are written only after a component that lstat has just called a real directory, and
// no symlink's text climbs above its own root twice.
#ifndef ORACLE_H
#define ORACLE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SLOTS = 8, ACTORS = 4, PATH_ROOM = 4096 + 64 };

// What a comparison may leave out, because one of its sides has no such thing: `--without NAME,NAME`.
enum feature {
    ZERO_RANGE = 1 << 0, TMPFILE = 1 << 1, SPECIAL = 1 << 2, OPATH = 1 << 3, OFD = 1 << 4, CWD = 1 << 5, EFAULTS = 1 << 6,
    COPY_RANGE = 1 << 7, NOATIME = 1 << 8, XATTR = 1 << 9, EXCHANGE = 1 << 10, LOCKS = 1 << 11, FLOCK = 1 << 12, READ_ZERO = 1 << 13,
    CHANGES = 1 << 14, ATIME = 1 << 15, DESCRIPTORS = 1 << 16, TRUNCATE_SAME = 1 << 17, STICKY = 1 << 18,
    FALLOCATE = 1 << 19, TRUSTED = 1 << 20, HUGE_SEEK = 1 << 21, LONG_LINKS = 1 << 22, LINK_ATIME = 1 << 23, ARGUMENTS_FIRST = 1 << 24,
    RESOLVE = 1 << 25, SEND = 1 << 26, POLL = 1 << 27, MAPS = 1 << 28, WAITS = 1 << 29, EXECUTE = 1 << 30, BAD_BUFFERS = 1u << 31,
};
#define ADVICE (1ull << 32)
#define PROTECT_PART (1ull << 35)
#define VFORK_LOCKS (1ull << 34)
#define PROTECT_ATIME (1ull << 33)

// A path as a call will use it, and as it is printed.
struct where {
    int dirfd;               // AT_FDCWD, or what is in a slot
    char path[PATH_ROOM];
    char shown[700];
    bool plain;              // no decoration: the parent is everything before the last slash
};

// stream.c: randomness, paths, the line being written
extern char root[PATH_ROOM];
extern size_t root_length;
extern uint64_t features;
extern int actor;                         // this process's seat
extern int64_t operation;                 // the number of the operation being done
extern time_t started;
extern int slot[SLOTS];                   // open descriptors; -1 is none
extern int lowest_descriptor;
void seed_operation(uint64_t seed, int64_t number);
uint64_t rnd(uint64_t below);
bool chance(unsigned percent);
void pick(struct where *w);               // any path, perhaps relative to a slot
void pick_directory(struct where *w);     // one that is probably meant for a directory
void pick_plain(struct where *w);         // an absolute path without decoration
void pick_link_text(char *text);
const char *shown_text(const char *text, char *room, size_t size);
off_t pick_offset(void);
size_t pick_length(void);
int pick_slot(void);
int pick_descriptor(char shown[16]);      // mostly a slot's; sometimes a number that is not open
mode_t pick_mode(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_result(long result);             // "= n" or "= -1 ENAME", from errno
bool has(uint64_t feature);
bool planted(const char *name);           // ORACLE_PLANT=name: a deliberate error of this harness
extern char line[];
extern size_t line_used;

// observe.c: what can be seen of a file
void say_stat(const struct stat *st, const char *link_text);
void say_stat_of(const struct stat *st, int dirfd, const char *path);
void say_path(const char *label, int dirfd, const char *path);
uint64_t checksum(uint64_t so_far, const void *bytes, size_t count);
void say_sum(int fd);
void watch_path(const struct where *w);   // before the call: the object and its directory
void watch_descriptor(int fd);
void say_watched(void);                   // after it
void fill(void *bytes, size_t count);     // this operation's bytes

// turns.c: the memory that all processes of the stream share, and who acts
struct seat {
    _Atomic int go;          // the turn is this one's
    pid_t pid;
    bool alive;
    uid_t user;
    int slots[SLOTS];        // for the image that exec starts
};
struct control {
    uint64_t seed;
    int64_t count, only_count, position;
    uint64_t features;
    bool processes, mixed;
    time_t started;
    int lowest_descriptor;
    char base[PATH_ROOM], root[PATH_ROOM];
    _Atomic int turn, over;
    struct seat seat[ACTORS];
    int back;                // who gets the turn after a started image has told what it has
    int exec_error;
    pid_t dying;             // ends on its own, without the turn
    _Atomic int note[8];     // between the processes of one operation
    char report[8192];
    char line[32768];        // of an operation that goes on in another image
    size_t line_used;
    size_t used;
    char text[1 << 20];      // printed lines
    int64_t only[];
};
extern struct control *control;
enum { CONTROL_DESCRIPTOR = 190, PROGRAM_DESCRIPTOR = 191, KEPT_DESCRIPTORS = 300 };
bool make_control(int64_t only_room);
bool find_control(void);                  // after exec
void give(int seat);
void await_turn(void);
void await_death(pid_t pid);
void await_note(int which, int value);
void set_note(int which, int value);
int actor_of(int64_t number);             // of those who live
int free_seat(void);                      // or -1
char letter(int seat);
void write_out(void);
void end_line(void);
bool supervise(void);                     // until the stream is over; false: a process died that should not

// main.c
void act(void);                           // this process's part of the stream; ends with it
void become(uid_t uid);

// processes.c
extern int leaving;                       // how this process ends after its line, or -1
void resume(int seat);                    // what exec started goes on
void leave(void);

// mapped.c
bool times_are_told(const struct stat *st);  // not where stores through maps may have moved them

// operations, by what they are about
void op_open(void); void op_open_limited(void); void op_close(void); void op_dup(void); void op_descriptor_flags(void);
void op_read(void); void op_write(void); void op_seek(void); void op_seek_hole(void); void op_truncate(void); void op_ftruncate(void);
void op_fallocate(void); void op_fsync(void); void op_sum(void); void op_copy_range(void); void op_send(void); void op_poll(void); void op_bad_memory(void);
void op_mkdir(void); void op_rmdir(void); void op_mknod(void); void op_symlink(void); void op_readlink(void); void op_link(void);
void op_unlink(void); void op_rename(void); void op_renameat2(void); void op_list(void); void op_list_while_changing(void);
void op_remove_while_listing(void); void op_link_chain(void); void op_chdir(void); void op_same_file(void);
void op_stat(void); void op_access(void); void op_chmod(void); void op_chown(void); void op_times(void); void op_umask(void); void op_xattr(void);
void op_lock(void); void op_flock(void); void op_wait(void);
void op_fork(void); void op_spawn(void); void op_exec(void); void op_exit(void); void op_kill(void); void op_close_range(void);
void op_map(void); void op_load(void); void op_store(void); void op_msync(void); void op_unmap(void); void op_protect(void); void op_remap(void);
void op_advise(void); void op_mapped_buffer(void);
#endif
