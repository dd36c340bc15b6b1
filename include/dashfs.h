/* dashfs.h - a DashFS volume from C and from every language that can call C.
 *
 * Link with -ldashfs. The calls are POSIX's with a dashfs_ prefix: same arguments, same results, same errno. What differs:
 *
 *  - Paths begin at the volume's root, whether or not they start with "/"; there is no current directory (AT_FDCWD is the root). Absolute
 *    symbolic links are followed if they lead to /dash, where `dashfs run` shows the volume; others fail with EXDEV.
 *  - Descriptors are the volume's, numbered apart from the kernel's: give them to dashfs_ calls only.
 *  - Calls do not enter the kernel unless they have to wait. Any thread may call anything; up to 256 threads of a process at once get a ring of
 *    their own, more take turns.
 *  - Waiting for locks is interrupted by signals (EINTR); other calls are not.
 *  - Every call may also fail with ENOTCONN (no connection; a child after fork has none and makes its own by dashfs_connect) or EIO (the server is gone).
 */
#ifndef DASHFS_H
#define DASHFS_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Connection ---- */

/* dashfs_connect - connects this process to the server that listens at `socket_path` (NULL: $DASHFS_SOCKET, else that of the user's own
 * server, $XDG_RUNTIME_DIR/dashfs.sock, else the system's, /run/dashfs/dashfs.sock). A connection that exists is replaced, and its descriptors are closed. Not to be called while another thread is in a dashfs_ call.
 * Returns 0, or -1 with errno:
 *   ENOENT, ECONNREFUSED  nobody listens there
 *   EACCES                the server does not serve this user
 *   EPROTO                the server speaks another version of the protocol
 *   ETIMEDOUT             it did not answer within ten seconds */
int dashfs_connect(const char *socket_path);

/* dashfs_disconnect - ends the connection and closes all its descriptors. Returns 0, or -1 (ENOTCONN). */
int dashfs_disconnect(void);

/* dashfs_umask - sets what file creation takes off the mode, and returns what it was. At connect it is the process's own umask. */
mode_t dashfs_umask(mode_t mask);

/* ---- Opening and closing ---- */

/* dashfs_open, dashfs_openat, dashfs_creat - open(2). `mode` is read where O_CREAT is given, less the umask. Returns a descriptor or -1. */
int dashfs_open(const char *path, int flags, ... /* mode_t mode */);
int dashfs_openat(int dirfd, const char *path, int flags, ... /* mode_t mode */);
int dashfs_creat(const char *path, mode_t mode);

/* dashfs_close - close(2). Releases the record locks of this process on the file. */
int dashfs_close(int fd);

/* ---- Data ---- */

/* dashfs_read, dashfs_pread - read(2), pread(2). Return bytes read (0 at the end of the file) or -1. */
ssize_t dashfs_read(int fd, void *buffer, size_t count);
ssize_t dashfs_pread(int fd, void *buffer, size_t count, off_t offset);

/* dashfs_write, dashfs_pwrite - write(2), pwrite(2). Return bytes written or -1. ENOSPC is told here, never at fsync. Up to 1 MiB is one operation. */
ssize_t dashfs_write(int fd, const void *buffer, size_t count);
ssize_t dashfs_pwrite(int fd, const void *buffer, size_t count, off_t offset);

/* dashfs_lseek - lseek(2), with SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE. Returns the offset or -1. */
off_t dashfs_lseek(int fd, off_t offset, int whence);

/* dashfs_fsync - fsync(2): when it has returned 0, the file's data, its metadata and its name survive a power cut.
 * dashfs_fdatasync - the same without times. dashfs_sync - everything of the volume; returns 0 or -1. */
int dashfs_fsync(int fd);
int dashfs_fdatasync(int fd);
int dashfs_sync(void);

/* dashfs_truncate, dashfs_ftruncate - truncate(2), ftruncate(2). */
int dashfs_truncate(const char *path, off_t size);
int dashfs_ftruncate(int fd, off_t size);

/* dashfs_fallocate - fallocate(2): 0, FALLOC_FL_KEEP_SIZE, with it FALLOC_FL_PUNCH_HOLE or FALLOC_FL_ZERO_RANGE. */
int dashfs_fallocate(int fd, int mode, off_t offset, off_t length);

/* dashfs_copy_file_range - copy_file_range(2) between two files of the volume; the server copies. `flags` must be 0. */
ssize_t dashfs_copy_file_range(int fd_in, off_t *offset_in, int fd_out, off_t *offset_out, size_t length, unsigned flags);

/* ---- Status and attributes ---- */

/* dashfs_stat, dashfs_lstat, dashfs_fstat, dashfs_fstatat - stat(2). `flags`: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH. */
int dashfs_stat(const char *path, struct stat *status);
int dashfs_lstat(const char *path, struct stat *status);
int dashfs_fstat(int fd, struct stat *status);
int dashfs_fstatat(int dirfd, const char *path, struct stat *status, int flags);

/* dashfs_access, dashfs_faccessat - access(2), for the identity that connected. `flags`: AT_SYMLINK_NOFOLLOW. */
int dashfs_access(const char *path, int mode);
int dashfs_faccessat(int dirfd, const char *path, int mode, int flags);

/* dashfs_chmod, dashfs_fchmod, dashfs_chown, dashfs_lchown, dashfs_fchown - chmod(2), chown(2). An owner or group of -1 stays. */
int dashfs_chmod(const char *path, mode_t mode);
int dashfs_fchmod(int fd, mode_t mode);
int dashfs_chown(const char *path, uid_t owner, gid_t group);
int dashfs_lchown(const char *path, uid_t owner, gid_t group);
int dashfs_fchown(int fd, uid_t owner, gid_t group);

/* dashfs_utimensat, dashfs_futimens - utimensat(2). `times` NULL: now; UTIME_NOW and UTIME_OMIT count. */
int dashfs_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags);
int dashfs_futimens(int fd, const struct timespec times[2]);

/* dashfs_statfs, dashfs_fstatfs - statfs(2). */
int dashfs_statfs(const char *path, struct statfs *statistics);
int dashfs_fstatfs(int fd, struct statfs *statistics);

/* ---- Names ---- */

/* mkdir(2), mknod(2), rmdir(2), unlink(2). dashfs_unlinkat: `flags` AT_REMOVEDIR. */
int dashfs_mkdir(const char *path, mode_t mode);
int dashfs_mkdirat(int dirfd, const char *path, mode_t mode);
int dashfs_mknod(const char *path, mode_t mode, dev_t device);
int dashfs_rmdir(const char *path);
int dashfs_unlink(const char *path);
int dashfs_unlinkat(int dirfd, const char *path, int flags);

/* dashfs_rename, dashfs_renameat2 - rename(2): atomic, also over a crash. `flags`: RENAME_NOREPLACE (1), RENAME_EXCHANGE (2). */
int dashfs_rename(const char *old_path, const char *new_path);
int dashfs_renameat2(int old_dirfd, const char *old_path, int new_dirfd, const char *new_path, unsigned flags);

/* link(2), linkat(2) with AT_SYMLINK_FOLLOW and AT_EMPTY_PATH, symlink(2), readlink(2) (bytes, no terminator). */
int dashfs_link(const char *old_path, const char *new_path);
int dashfs_linkat(int old_dirfd, const char *old_path, int new_dirfd, const char *new_path, int flags);
int dashfs_symlink(const char *target, const char *path);
ssize_t dashfs_readlink(const char *path, char *buffer, size_t size);

/* dashfs_getdents64 - getdents64(2) on an open directory: struct dirent64 records, as many as fit; 0 at the end. dashfs_lseek(fd, 0, SEEK_SET) rewinds. */
ssize_t dashfs_getdents64(int fd, void *buffer, size_t size);

/* ---- Extended attributes ----
 *
 * dashfs_getxattr - getxattr(2): the value's size or -1; with `size` 0 nothing is written. ERANGE: it does not fit; ENODATA: there is none.
 * dashfs_setxattr - setxattr(2): `flags` 0, XATTR_CREATE (1: EEXIST where there is one), XATTR_REPLACE (2: ENODATA where there is none). ENOSPC: all attributes of a file have
 *   64 KiB. EOPNOTSUPP: a name that does not begin with user., trusted. (root) or security.
 * dashfs_listxattr - listxattr(2): the names, each with its NUL; their size in all.
 * dashfs_removexattr - removexattr(2).
 * l: a symbolic link at the end is not followed. f: of an open file. */

ssize_t dashfs_getxattr(const char *path, const char *name, void *value, size_t size);
int dashfs_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
ssize_t dashfs_listxattr(const char *path, char *list, size_t size);
int dashfs_removexattr(const char *path, const char *name);
ssize_t dashfs_lgetxattr(const char *path, const char *name, void *value, size_t size);
int dashfs_lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags);
ssize_t dashfs_llistxattr(const char *path, char *list, size_t size);
int dashfs_lremovexattr(const char *path, const char *name);
ssize_t dashfs_fgetxattr(int fd, const char *name, void *value, size_t size);
int dashfs_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
ssize_t dashfs_flistxattr(int fd, char *list, size_t size);
int dashfs_fremovexattr(int fd, const char *name);

/* ---- Locks ---- */

/* dashfs_fcntl - fcntl(2) with F_GETLK, F_SETLK, F_SETLKW (struct flock *), F_GETFL, F_SETFL (int). Other commands: EINVAL. */
int dashfs_fcntl(int fd, int command, ... /* struct flock *lock, or int flags */);

/* dashfs_flock - flock(2): LOCK_SH, LOCK_EX, LOCK_UN, with LOCK_NB. */
int dashfs_flock(int fd, int operation);

#ifdef __cplusplus
}
#endif

#endif
