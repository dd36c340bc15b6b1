/* Every family of calls of dashfs.h, from several threads at once, with its errnos. Prints one line where all is as POSIX says. */
#define _GNU_SOURCE
#include <dashfs.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

static void need(int holds, const char *what, int line) {
    if (holds) return;
    fprintf(stderr, "line %d: %s: %s\n", line, what, strerror(errno));
    exit(1);
}
#define NEED(condition) need((condition), #condition, __LINE__)
#define FAILS(call, number) need((errno = 0, (call) == -1 && errno == (number)), #call " fails with " #number, __LINE__)

static void *one_thread(void *argument) {
    char name[64], other[64], bytes[5000], again[5000];
    snprintf(name, sizeof name, "/thread-%d", *(int *)argument);
    snprintf(other, sizeof other, "/thread-%d-moved", *(int *)argument);
    memset(bytes, *(int *)argument + 1, sizeof bytes);
    for (int round = 0; round < 50; round++) {
        int fd = dashfs_open(name, O_RDWR | O_CREAT | O_EXCL, 0640);
        NEED(fd >= 0);
        NEED(dashfs_write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
        NEED(dashfs_pread(fd, again, sizeof again, 0) == (ssize_t)sizeof again && memcmp(bytes, again, sizeof bytes) == 0);
        NEED(dashfs_fsync(fd) == 0 && dashfs_close(fd) == 0);
        NEED(dashfs_rename(name, other) == 0 && dashfs_unlink(other) == 0);
        // Each thread has an errno of its own.
        FAILS(dashfs_unlink(other), ENOENT);
    }
    return NULL;
}

static void names(void) {
    char text[64], records[4096];
    struct stat status;
    NEED(dashfs_mkdir("/dir", 0755) == 0);
    FAILS(dashfs_mkdir("/dir", 0755), EEXIST);
    FAILS(dashfs_mkdir("/none/dir", 0755), ENOENT);
    NEED(dashfs_symlink("dir", "/link") == 0 && dashfs_readlink("/link", text, sizeof text) == 3 && memcmp(text, "dir", 3) == 0);
    FAILS(dashfs_symlink("dir", "/link"), EEXIST);
    FAILS(dashfs_readlink("/dir", text, sizeof text), EINVAL);
    NEED(dashfs_lstat("/link", &status) == 0 && S_ISLNK(status.st_mode));
    NEED(dashfs_stat("/link", &status) == 0 && S_ISDIR(status.st_mode) && status.st_nlink == 2);
    int dir = dashfs_open("/dir", O_RDONLY | O_DIRECTORY);
    NEED(dir >= 0);
    int fd = dashfs_openat(dir, "file", O_WRONLY | O_CREAT, 0600);
    NEED(fd >= 0 && dashfs_close(fd) == 0);
    NEED(dashfs_link("/dir/file", "/dir/second") == 0 && dashfs_fstatat(dir, "second", &status, 0) == 0 && status.st_nlink == 2);
    ssize_t count = dashfs_getdents64(dir, records, sizeof records);
    int entries = 0;
    for (ssize_t at = 0; at < count; at += ((struct dirent64 *)(records + at))->d_reclen) entries++;
    NEED(entries == 4 && dashfs_getdents64(dir, records, sizeof records) == 0);
    FAILS(dashfs_rmdir("/dir"), ENOTEMPTY);
    FAILS(dashfs_renameat2(AT_FDCWD, "/dir/file", AT_FDCWD, "/dir/second", 1), EEXIST);
    NEED(dashfs_renameat2(AT_FDCWD, "/dir/file", AT_FDCWD, "/link", 2) == 0 && dashfs_lstat("/link", &status) == 0 && S_ISREG(status.st_mode));
    NEED(dashfs_unlinkat(dir, "file", 0) == 0 && dashfs_unlinkat(dir, "second", 0) == 0 && dashfs_unlink("/link") == 0);
    NEED(dashfs_close(dir) == 0 && dashfs_rmdir("/dir") == 0);
    FAILS(dashfs_close(dir), EBADF);
    FAILS(dashfs_open("/none", O_RDONLY), ENOENT);
    FAILS(dashfs_open(NULL, O_RDONLY), EFAULT);
    FAILS(dashfs_open("", O_RDONLY), ENOENT);
}

static void contents(void) {
    char bytes[16];
    struct stat status;
    struct statfs volume;
    int fd = dashfs_creat("/f", 0666);
    NEED(fd >= 0 && dashfs_pwrite(fd, "hello", 5, 8192) == 5);
    FAILS(dashfs_read(fd, bytes, 5), EBADF);
    NEED(dashfs_close(fd) == 0 && (fd = dashfs_open("/f", O_RDWR)) >= 0);
    FAILS(dashfs_pread(fd, bytes, 5, -1), EINVAL);
    NEED(dashfs_lseek(fd, 0, SEEK_DATA) == 8192 && dashfs_lseek(fd, 0, SEEK_HOLE) == 0 && dashfs_lseek(fd, -5, SEEK_END) == 8192);
    FAILS(dashfs_lseek(fd, -1, SEEK_SET), EINVAL);
    FAILS(dashfs_lseek(fd, 1 << 20, SEEK_DATA), ENXIO);
    NEED(dashfs_read(fd, bytes, sizeof bytes) == 5 && memcmp(bytes, "hello", 5) == 0 && dashfs_read(fd, bytes, sizeof bytes) == 0);
    NEED(dashfs_ftruncate(fd, 100) == 0 && dashfs_truncate("/f", 50) == 0 && dashfs_fstat(fd, &status) == 0 && status.st_size == 50);
    NEED(dashfs_fallocate(fd, 0, 0, 100000) == 0 && dashfs_fstat(fd, &status) == 0 && status.st_size == 100000 && status.st_blocks >= 200);
    FAILS(dashfs_fallocate(fd, 0, 0, 0), EINVAL);
    struct timespec times[2] = {{1, 2}, {3, 4}};
    NEED(dashfs_futimens(fd, times) == 0 && dashfs_fstat(fd, &status) == 0 && status.st_mtim.tv_sec == 3 && status.st_mtim.tv_nsec == 4);
    times[0].tv_nsec = 1000000000;
    FAILS(dashfs_utimensat(AT_FDCWD, "/f", times, 0), EINVAL);
    NEED(dashfs_chmod("/f", 0444) == 0 && dashfs_fstat(fd, &status) == 0 && (status.st_mode & 07777) == 0444);
    NEED(dashfs_statfs("/", &volume) == 0 && volume.f_bsize == 4096 && volume.f_bfree < volume.f_blocks && volume.f_namelen == 255);
    NEED(dashfs_fsetxattr(fd, "user.a", "value", 5, 0) == 0 && dashfs_getxattr("/f", "user.a", bytes, sizeof bytes) == 5);
    FAILS(dashfs_setxattr("/f", "user.a", "value", 5, 1), EEXIST);
    FAILS(dashfs_lgetxattr("/f", "user.a", bytes, 2), ERANGE);
    FAILS(dashfs_fgetxattr(fd, "user.b", bytes, sizeof bytes), ENODATA);
    NEED(dashfs_flistxattr(fd, bytes, sizeof bytes) == 7 && memcmp(bytes, "user.a", 7) == 0 && dashfs_lremovexattr("/f", "user.a") == 0);
    NEED(dashfs_listxattr("/f", bytes, sizeof bytes) == 0);
    int copy = dashfs_open("/g", O_RDWR | O_CREAT, 0600);
    off_t from = 0, to = 10;
    NEED(dashfs_copy_file_range(fd, &from, copy, &to, 20, 0) == 20 && from == 20 && to == 30);
    NEED(dashfs_close(copy) == 0 && dashfs_close(fd) == 0 && dashfs_unlink("/f") == 0 && dashfs_unlink("/g") == 0 && dashfs_sync() == 0);
}

static void locks(void) {
    int one = dashfs_open("/l", O_RDWR | O_CREAT, 0600), two = dashfs_open("/l", O_RDWR);
    NEED(one >= 0 && two >= 0 && dashfs_flock(one, LOCK_EX) == 0);
    FAILS(dashfs_flock(two, LOCK_SH | LOCK_NB), EAGAIN);
    NEED(dashfs_flock(one, LOCK_UN) == 0 && dashfs_flock(two, LOCK_SH | LOCK_NB) == 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
    NEED(dashfs_fcntl(one, F_SETLK, &lock) == 0);
    lock.l_type = F_RDLCK;
    // One's own locks never stand in the way.
    NEED(dashfs_fcntl(two, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK);
    NEED((dashfs_fcntl(one, F_GETFL) & O_ACCMODE) == O_RDWR && dashfs_fcntl(one, F_SETFL, O_APPEND) == 0 && dashfs_fcntl(one, F_GETFL) & O_APPEND);
    FAILS(dashfs_fcntl(one, F_DUPFD, 0), EINVAL);
    NEED(dashfs_close(one) == 0 && dashfs_close(two) == 0 && dashfs_unlink("/l") == 0);
}

int main(void) {
    FAILS(dashfs_sync(), ENOTCONN);
    NEED(dashfs_connect(NULL) == 0);
    dashfs_umask(022);
    names();
    contents();
    locks();
    pthread_t threads[8];
    int numbers[8];
    for (int i = 0; i < 8; i++) {
        numbers[i] = i;
        NEED(pthread_create(&threads[i], NULL, one_thread, &numbers[i]) == 0);
    }
    for (int i = 0; i < 8; i++) NEED(pthread_join(threads[i], NULL) == 0);
    NEED(dashfs_disconnect() == 0);
    FAILS(dashfs_disconnect(), ENOTCONN);
    puts("c library: all as expected");
    return 0;
}
