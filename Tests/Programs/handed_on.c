// What the oracle's processes once found different on DashFS, each as few calls as show it: descriptions that exec hands on, locks that go with a description or a descriptor.
//     handed_on DIRECTORY    one line for each; its verdict is the last line
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };
static int wrong, checks;
static char place[4096];
static char *program;

static void check(int holds, const char *what) {
    checks++;
    if (!holds) wrong++;
    printf("%s: %s\n", holds ? "ok" : "WRONG", what);
    fflush(stdout);
}

static int open_as(const char *name, int flags) {
    char path[5000];
    snprintf(path, sizeof path, "%s/%s", place, name);
    return open(path, flags, 0755);
}

static int can_lock(const char *name) {
    int fd = open_as(name, O_RDWR), got = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return got;
}

static int exit_of(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/// This program in a child, with what it is to do there and two descriptors.
static int again(const char *what, int one, int other) {
    char first[12], second[12];
    sprintf(first, "%d", one);
    sprintf(second, "%d", other);
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, program, place, what, first, second, (char *)NULL);
        _exit(99);
    }
    return exit_of(pid);
}

/// After exec: 0, or what was wrong.
static int after(const char *what, int one, int other) {
    struct flock l = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1};
    char byte;
    if (strcmp(what, "dup") == 0) {
        if (close(one) != 0) return 1;
        return read(other, &byte, 1) == 1 && byte == 'b' && lseek(other, 0, SEEK_CUR) == 2 ? 0 : 2;
    }
    if (strcmp(what, "first") == 0) {  // the first that this program does, as daemons do
        if (dup2(one, 2) != 2) return 1;
        closefrom(3);
        return write(2, "d", 1) == 1 && fcntl(other, F_GETFD) < 0 ? 0 : 2;
    }
    if (strcmp(what, "rest") == 0) {  // with what exec has handed over in its place
        closefrom(other + 1);
        return write(other, "e", 1) == 1 && close(one) == 0 ? 0 : 2;
    }
    if (strcmp(what, "locks") == 0) {  // set before exec, by a process that is this one; `other` was close-on-exec
        pid_t pid = fork();
        if (pid == 0) {
            int fd = open_as("locks", O_RDWR);
            _exit(fcntl(fd, F_SETLK, &l) == 0 ? 0 : 1);
        }
        return fcntl(other, F_GETFD) < 0 ? exit_of(pid) : 2;
    }
    return 3;
}

static void *map(int fd, int pages, int protection, int flags) { return mmap(NULL, (size_t)pages * PAGE, protection, flags, fd, 0); }

int main(int count, char **arguments) {
    if (count < 2) return 64;
    snprintf(place, sizeof place, "%s", arguments[1]);
    program = arguments[0];
    if (count == 5) return after(arguments[2], atoi(arguments[3]), atoi(arguments[4]));

    int fd = open_as("dup", O_RDWR | O_CREAT | O_TRUNC);
    if (write(fd, "abc", 3) != 3) return 2;
    lseek(fd, 1, SEEK_SET);
    int copy = dup(fd);
    check(again("dup", fd, copy) == 0, "two descriptors of one description are that after exec: closing one leaves the other");
    int own = dup(2);
    check(again("rest", fd, copy) == 0, "a program that begins with closing all others has what it was given");
    dup2(copy, 2);
    int closed = again("first", 2, copy);
    dup2(own, 2);
    check(closed == 0, "one that begins with closing all but its standard error has that");
    close(own);
    close(fd), close(copy);

    fd = open_as("locks", O_RDWR | O_CREAT);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1};
        char first[12], second[12];
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (fcntl(fd, F_SETLK, &l) != 0) _exit(98);
        sprintf(first, "%d", fd);
        sprintf(second, "%d", copy);
        execl(program, program, place, "locks", first, second, (char *)NULL);
        _exit(99);
    }
    check(exit_of(pid) == 0, "a descriptor that exec closes takes the process's locks on its file along, though another one stays");
    close(fd);

    for (int kind = 0; kind < 3; kind++) {
        static const char *const names[] = {"a map that is read keeps its description's flock", "so does one that is written", "so does a private one"};
        fd = open_as("mapped", O_RDWR | O_CREAT);
        if (ftruncate(fd, 8 * PAGE) != 0) return 2;
        char *m = map(fd, 8, kind == 1 ? PROT_READ | PROT_WRITE : PROT_READ, kind == 2 ? MAP_PRIVATE : MAP_SHARED);
        flock(fd, LOCK_EX);
        close(fd);
        int kept = !can_lock("mapped");
        munmap(m, 8 * PAGE);
        check(kept && can_lock("mapped"), names[kind]);
    }

    fd = open_as("mapped", O_RDWR);
    char *m = map(fd, 8, PROT_READ, MAP_SHARED);
    flock(fd, LOCK_EX);
    close(fd);
    mmap(m, 6 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    check(mremap(m, 8 * PAGE, PAGE, 0) == m && can_lock("mapped"), "mremap of other memory takes the rest of a map away, and its flock");
    munmap(m, PAGE);

    int other = open_as("mapped", O_RDWR);
    fd = open_as("mapped", O_RDWR);
    check(flock(fd, LOCK_SH) == 0 && flock(other, LOCK_SH) == 0 && flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK && flock(other, LOCK_EX | LOCK_NB) == 0,
          "a shared flock is lost where it cannot become exclusive");
    close(fd), close(other);

    for (int i = 0; i < 50 && !wrong; i++) {
        int ready[2];
        char byte;
        if (pipe(ready) != 0) return 2;
        pid = fork();
        if (pid == 0) {
            int own = open_as("mapped", O_RDWR);
            flock(own, LOCK_EX);
            if (write(ready[1], "", 1) != 1) _exit(1);
            kill(getpid(), 9);
        }
        if (read(ready[0], &byte, 1) != 1) return 2;
        waitpid(pid, NULL, 0);
        close(ready[0]), close(ready[1]);
        if (!can_lock("mapped")) check(0, "who has waited for a process's end finds its locks free");
    }
    check(!wrong, "who has waited for a process's end finds its locks free, fifty times");

    char path[5000], *const nothing[] = {"nothing", NULL};
    snprintf(path, sizeof path, "%s/pipe", place);
    mkfifo(path, 0777);
    check(execv(path, nothing) == -1 && errno == EACCES, "a pipe cannot be run");
    fd = open_as("sparse", O_RDWR | O_CREAT);
    if (ftruncate(fd, (off_t)1 << 40) != 0) return 2;
    close(fd);
    snprintf(path, sizeof path, "%s/sparse", place);
    check(execv(path, nothing) == -1 && errno == ENOEXEC, "a hole of a terabyte is no program, and that is soon said");
    snprintf(path, sizeof path, "%s/link", place);
    check(symlink("dup", path) == 0 && syscall(SYS_execveat, AT_FDCWD, path, nothing, nothing + 1, AT_SYMLINK_NOFOLLOW) == -1 && errno == ELOOP, "a link is not run where it is not to be followed");

    if (wrong) printf("FAIL handed_on: %d of %d checks\n", wrong, checks);
    else printf("PASS handed_on: %d checks\n", checks);
    return wrong != 0;
}
