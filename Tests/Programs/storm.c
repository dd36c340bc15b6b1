// storm DIR [PROCESSES] [ROUNDS]: several processes at once in one directory. Nobody takes turns, so no single result can be foretold; but
// these hold after any interleaving, and each is checked:
//   append     every record appended with O_APPEND is in the file once and whole, and each writer's records are in its order
//   exclusive  of all that create one name with O_EXCL, or mkdir it, exactly one succeeds
//   replace    a name that is replaced by rename is there at every moment, and what it names is a whole file of one writer
//   exchange   two names exchanged all the time (renameat2) are both there at every moment
//   counter    a number in a file, raised under a record lock (waiting for it), loses no increment
//   churn      links, renames and removals at random; at the end every file's link count is the number of its names, every directory's is
//              two and its subdirectories, and what is listed can be looked up
// Exit 0 all hold, 1 one does not (it is named), 2 could not run. STORM_PLANT=counter leaves the lock out.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char top[3000];
static int self, processes = 4, rounds = 400, wrong;
static uint64_t state;

static uint64_t rnd(uint64_t below) {
    state += 0x9E3779B97F4A7C15u;
    uint64_t x = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % below;
}

static const char *at(const char *name) {
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", top, name);
    return path;
}

static void complain(const char *what, const char *detail) {
    printf("WRONG: %s: %s (process %d, errno %s)\n", what, detail, self, strerrorname_np(errno));
    fflush(stdout);
    wrong = 1;
}

enum { RECORD = 100 };

static void append(int round) {
    char record[RECORD + 1];
    int fd = open(at("appended"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    int used = snprintf(record, sizeof record, "%d %d ", self, round);
    memset(record + used, 'a' + self % 26, (size_t)(RECORD - used));
    record[RECORD - 1] = '\n';
    if (fd < 0 || write(fd, record, RECORD) != RECORD || close(fd) != 0) complain("append", "cannot append");
}

static void check_append(void) {
    char record[RECORD];
    int last[256];
    long records = 0;
    memset(last, -1, sizeof last);
    FILE *f = fopen(at("appended"), "r");
    if (!f) { complain("append", "no file"); return; }
    while (fread(record, 1, RECORD, f) == RECORD) {
        int who, round;
        if (sscanf(record, "%d %d ", &who, &round) != 2 || who < 0 || who >= 256 || record[RECORD - 1] != '\n' || record[RECORD - 2] != 'a' + who % 26) { complain("append", "a torn record"); break; }
        if (round != last[who] + 1) { complain("append", "records lost, doubled or out of order"); break; }
        last[who] = round;
        records++;
    }
    fclose(f);
    if (!wrong && records != (long)processes * rounds) complain("append", "records are missing");
}

// Each round has one name; the winner says so in a file of the round. Who comes last removes nothing: the check counts winners.
static void exclusive(int round) {
    char name[64], winner[64];
    snprintf(name, sizeof name, "exclusive%d", round);
    snprintf(winner, sizeof winner, "winner%d-%d", round, self);
    if (round % 2) {
        int fd = open(at(name), O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0 && errno != EEXIST) complain("exclusive", "open");
        if (fd < 0) return;
        close(fd);
    } else if (mkdir(at(name), 0755) != 0) {
        if (errno != EEXIST) complain("exclusive", "mkdir");
        return;
    }
    int fd = open(at(winner), O_WRONLY | O_CREAT, 0644);
    if (fd < 0) complain("exclusive", "winner"); else close(fd);
}

static void check_exclusive(void) {
    for (int round = 0; round < rounds; round++) {
        if (round % 8 > 1) continue;
        int winners = 0;
        char name[64];
        for (int p = 0; p < processes; p++) {
            snprintf(name, sizeof name, "winner%d-%d", round, p);
            winners += unlink(at(name)) == 0;
        }
        snprintf(name, sizeof name, "exclusive%d", round);
        if (unlink(at(name)) != 0) rmdir(at(name));
        if (winners != 1) { complain("exclusive", winners ? "several winners" : "no winner"); return; }
    }
}

static void replace(int round) {
    char name[64], bytes[5000];
    snprintf(name, sizeof name, "new%d", self);
    memset(bytes, 'A' + self % 26, sizeof bytes);
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, bytes, sizeof bytes) != sizeof bytes || close(fd) != 0) complain("replace", "write");
    if (rename(at(name), at("replaced")) != 0) complain("replace", "rename");
    fd = open(at("replaced"), O_RDONLY);
    if (fd < 0) { complain("replace", "the name is not there"); return; }
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n != sizeof bytes) complain("replace", "not a whole file");
    for (ssize_t i = 1; i < n; i++) if (bytes[i] != bytes[0]) { complain("replace", "a mixture of two writers"); break; }
    close(fd);
    if (round % 3 == 0 && renameat2(AT_FDCWD, at("x"), AT_FDCWD, at("y"), RENAME_EXCHANGE) != 0) complain("exchange", "renameat2");
    struct stat st;
    if (stat(at("x"), &st) != 0 || stat(at("y"), &st) != 0) complain("exchange", "a name is not there");
}

static void raise_counter(void) {
    int fd = open(at("counter"), O_RDWR);
    char text[32] = "";
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int locked = !(getenv("STORM_PLANT") && strcmp(getenv("STORM_PLANT"), "counter") == 0);
    if (fd < 0) { complain("counter", "open"); return; }
    while (locked && fcntl(fd, F_SETLKW, &lock) != 0) if (errno != EINTR) { complain("counter", "lock"); break; }
    if (pread(fd, text, sizeof text - 1, 0) < 0) complain("counter", "read");
    int used = snprintf(text, sizeof text, "%-20d", atoi(text) + 1);
    if (pwrite(fd, text, (size_t)used, 0) != used) complain("counter", "write");
    close(fd);  // which releases the lock
}

static void churn(void) {
    static const char *const names[] = {"m", "n", "o", "P", "Q", "P/m", "P/n", "Q/m", "Q/o", "P/R", "Q/R", "P/R/m"};
    char one[64], other[64];
    snprintf(one, sizeof one, "churn/%s", names[rnd(12)]);
    snprintf(other, sizeof other, "churn/%s", names[rnd(12)]);
    int result = 0, fd;
    switch (rnd(9)) {
    case 0: case 1: fd = open(at(one), O_WRONLY | O_CREAT, 0644); if (fd >= 0) { if (write(fd, one, strlen(one)) < 0) complain("churn", "write"); close(fd); } else result = -1; break;
    case 2: result = mkdir(at(one), 0755); break;
    case 3: result = link(at(one), at(other)); break;
    case 4: result = unlink(at(one)); break;
    case 5: result = rmdir(at(one)); break;
    case 6: case 7: result = rename(at(one), at(other)); break;
    default: result = symlink("m", at(one));
    }
    if (result != 0 && errno != ENOENT && errno != EEXIST && errno != ENOTDIR && errno != EISDIR && errno != ENOTEMPTY && errno != EINVAL && errno != EPERM && errno != ELOOP)
        complain("churn", "an errno that cannot be");
}

// The tree at the end: names are counted per inode.
static struct { ino_t inode; nlink_t said, found; } inodes[4096];
static int known;

static void walk(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    struct stat st;
    nlink_t subdirectories = 0;
    if (!dir) { complain("churn", "opendir"); return; }
    while ((entry = readdir(dir))) {
        char below[4096];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (lstat(below, &st) != 0) { complain("churn", "listed, but not there"); continue; }
        if (st.st_ino != entry->d_ino) complain("churn", "listed with another inode");
        if (S_ISDIR(st.st_mode)) { subdirectories++; walk(below); continue; }
        int i = 0;
        while (i < known && inodes[i].inode != st.st_ino) i++;
        if (i == known && known < 4096) inodes[known++].inode = st.st_ino;
        inodes[i].said = st.st_nlink;
        inodes[i].found++;
    }
    if (stat(path, &st) == 0 && st.st_nlink != subdirectories + 2) complain("churn", "a directory's link count");
    closedir(dir);
}

static void check_counter(void) {
    char text[32] = "";
    int fd = open(at("counter"), O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) { complain("counter", "read"); return; }
    close(fd);
    if (atoi(text) != processes * rounds) complain("counter", "increments were lost");
}

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "usage: storm DIR [PROCESSES] [ROUNDS]\n"); return 2; }
    if (argc > 2) processes = atoi(argv[2]);
    if (argc > 3) rounds = atoi(argv[3]);
    if (processes < 1 || processes > 64) processes = 4;
    snprintf(top, sizeof top, "%.2900s/storm", argv[1]);
    if (mkdir(top, 0755) != 0 || mkdir(at("churn"), 0755) != 0) { perror(top); return 2; }
    close(open(at("counter"), O_WRONLY | O_CREAT, 0644));
    close(open(at("replaced"), O_WRONLY | O_CREAT, 0644));
    close(open(at("x"), O_WRONLY | O_CREAT, 0644));
    close(open(at("y"), O_WRONLY | O_CREAT, 0644));
    int gate[2];
    if (pipe(gate) != 0) return 2;
    fflush(stdout);
    for (self = 0; self < processes; self++) {
        if (fork() != 0) continue;
        char byte;
        close(gate[1]);
        state = (uint64_t)self + 1;
        if (read(gate[0], &byte, 1) < 0) _exit(2);  // all start at once
        for (int round = 0; round < rounds && !wrong; round++) {
            append(round);
            if (round % 8 == 0 || round % 8 == 1) exclusive(round);
            replace(round);
            raise_counter();
            for (int i = 0; i < 5; i++) churn();
        }
        _exit(wrong);
    }
    self = -1;
    close(gate[0]);
    close(gate[1]);
    int status;
    while (wait(&status) > 0) if (status != 0) wrong = 1;
    if (wrong) { printf("FAIL storm\n"); return 1; }
    check_append();
    check_exclusive();
    check_counter();
    walk(at("churn"));
    for (int i = 0; i < known; i++) if (inodes[i].said != inodes[i].found) complain("churn", "a file's link count is not the number of its names");
    printf(wrong ? "FAIL storm\n" : "PASS storm: %d processes, %d rounds each\n", processes, rounds);
    return wrong;
}
