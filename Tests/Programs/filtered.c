// A program that confines itself by seccomp(2) and goes on: filtered MODE DIRECTORY.
//
//     strict   open files in DIRECTORY, then only read, write and exit are left, all else kills; pipes go on
//     errno    every call that names files is refused with EACCES; files in DIRECTORY, if the kernel is not asked for them, can be made, written, read, renamed, listed
//     late     the same, but DIRECTORY has been used before
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *directory;
static int failures;

#define CHECK(condition) \
    if (!(condition)) failures++, printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno))

static const char *name(const char *file) {
    static char text[2][4096];
    static int turn;
    turn = !turn;
    snprintf(text[turn], sizeof text[turn], "%s/%s", directory, file);
    return text[turn];
}

static void refuse_names(void) {
    static const int refused[] = {
        SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_mkdir, SYS_mkdirat,
        SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_readlink, SYS_readlinkat, SYS_truncate, SYS_chdir,
    };
    enum { COUNT = sizeof refused / sizeof *refused };
    struct sock_filter filter[COUNT + 3];
    filter[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++) filter[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i], (unsigned char)(COUNT - i), 0);
    filter[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES);
    struct sock_fprog program = {COUNT + 3, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) exit(77);
}

static void *uses_files(void *argument) {
    char text[16] = "";
    struct stat status;
    int file = open(name("file"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0);
    CHECK(write(file, "content", 7) == 7 && pread(file, text, 7, 0) == 7 && !strcmp(text, "content"));
    CHECK(fsync(file) == 0 && ftruncate(file, 3) == 0 && fstat(file, &status) == 0 && status.st_size == 3);
    CHECK(close(file) == 0);
    CHECK(rename(name("file"), name("other")) == 0 && stat(name("other"), &status) == 0 && access(name("file"), F_OK) < 0 && errno == ENOENT);
    CHECK(mkdir(name("inner"), 0700) == 0);
    DIR *listing = opendir(directory);
    int entries = 0;
    CHECK(listing != NULL);
    while (listing && readdir(listing)) entries++;
    CHECK(entries == 4);
    if (listing) closedir(listing);
    CHECK(unlink(name("other")) == 0 && rmdir(name("inner")) == 0);
    return NULL;
}

static int strict(void) {
    int ends[2];
    char text[8];
    int file = open(name("kept"), O_RDWR | O_CREAT, 0600);
    if (file < 0 || pipe(ends) || write(file, "x", 1) != 1) return 2;
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(77);
        for (int i = 0; i < 100; i++)
            if (write(ends[1], "pipe", 4) != 4 || read(ends[0], text, 4) != 4) syscall(SYS_exit, 3);
        syscall(SYS_exit, 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(pread(file, text, 1, 0) == 1 && unlink(name("kept")) == 0);
    printf("%d failures\n", failures);
    return failures != 0;
}

int main(int count, char **arguments) {
    directory = arguments[2];
    if (!strcmp(arguments[1], "strict")) return strict();
    if (!strcmp(arguments[1], "late")) uses_files(NULL);
    refuse_names();
    CHECK(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
    uses_files(NULL);
    // Another thread needs a channel of its own, and a child a connection.
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, uses_files, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        uses_files(NULL);
        _exit(failures);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    printf("%d failures\n", failures);
    return failures != 0;
}
