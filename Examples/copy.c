/* Copies a file of this machine into a DashFS volume, durably, and reads it back to compare.
 *
 *     cc -o copy copy.c -ldashfs
 *     dashfs serve memory:1G --socket /tmp/dashfs.sock &
 *     ./copy /tmp/dashfs.sock /etc/services /services
 */
#include <dashfs.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, const char *path) {
    fprintf(stderr, "copy: %s %s: %s\n", what, path, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: copy SOCKET SOURCE TARGET\n");
        return 64;
    }
    if (dashfs_connect(argv[1]) != 0) return fail("cannot connect to", argv[1]);
    int source = open(argv[2], O_RDONLY);
    if (source < 0) return fail("cannot open", argv[2]);
    int target = dashfs_open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (target < 0) return fail("cannot create", argv[3]);

    static char bytes[65536], again[65536];
    off_t offset = 0;
    ssize_t count;
    while ((count = read(source, bytes, sizeof bytes)) > 0) {
        for (ssize_t done = 0; done < count;) {
            ssize_t written = dashfs_write(target, bytes + done, (size_t)(count - done));
            if (written <= 0) return fail("cannot write", argv[3]);
            done += written;
        }
    }
    if (count < 0) return fail("cannot read", argv[2]);
    if (dashfs_fsync(target) != 0) return fail("cannot sync", argv[3]);

    while ((count = pread(source, bytes, sizeof bytes, offset)) > 0) {
        if (dashfs_pread(target, again, (size_t)count, offset) != count || memcmp(bytes, again, (size_t)count) != 0) {
            fprintf(stderr, "copy: %s differs at %lld\n", argv[3], (long long)offset);
            return 1;
        }
        offset += count;
    }
    struct stat status;
    if (dashfs_fstat(target, &status) != 0 || status.st_size != offset) return fail("wrong size of", argv[3]);
    if (dashfs_close(target) != 0) return fail("cannot close", argv[3]);
    printf("%lld bytes copied and compared\n", (long long)offset);
    return dashfs_disconnect() == 0 ? 0 : 1;
}
