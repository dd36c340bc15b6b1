// mmap(2) of files, as Linux has it: what is shared by descriptors, maps and processes, what a map may and may not, what a changed size does to it.
//     maps DIRECTORY [ROUNDS] [SEED]    prints what it sees, to be compared with the same on another file system; its verdict is the last line
// MAPS_PLANT in the environment: some stores of the mixture are of another byte, which it must find.
// A child never uses a descriptor that it has inherited: it opens the file anew.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };
static int wrong, checks;
static char path[4096];

static void check(int holds, const char *what, ...) {
    va_list list;
    va_start(list, what);
    checks++;
    printf(holds ? "ok: " : "WRONG: ");
    vprintf(what, list);
    printf("\n");
    va_end(list);
    if (!holds) wrong++;
}

static int open_as(const char *name, int flags) {
    char whole[5000];
    snprintf(whole, sizeof whole, "%s/%s", path, name);
    return open(whole, flags, 0644);
}

/// A file of `size` bytes, byte i being i * 7 + salt.
static int make(const char *name, size_t size, int salt) {
    int fd = open_as(name, O_RDWR | O_CREAT | O_TRUNC);
    char *bytes = malloc(size + 1);
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 7 + salt);
    if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size) perror(name), exit(2);
    free(bytes);
    return fd;
}

static sigjmp_buf trap;
static void on_bus(int signal) { siglongjmp(trap, signal); }

/// 0, or the signal that touching the byte gives.
static int touch(volatile char *address, int store) {
    struct sigaction action = {.sa_handler = on_bus}, bus, fault;
    sigaction(SIGBUS, &action, &bus);
    sigaction(SIGSEGV, &action, &fault);
    int got = sigsetjmp(trap, 1);
    if (!got) {
        if (store) *address = 1;
        else (void)*address;
    }
    sigaction(SIGBUS, &bus, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    return got;
}

static char at(int fd, off_t offset) {
    char byte = 0;
    return pread(fd, &byte, 1, offset) == 1 ? byte : (char)0xEE;
}

static void *map(int fd, size_t length, int protection, int flags, off_t offset) {
    return mmap(NULL, length, protection, flags, fd, offset);
}

static void reading(void) {
    int fd = make("reading", 3 * PAGE + 100, 3);
    for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
        char *m = map(fd, 5 * PAGE, PROT_READ, flags, 0);
        int same = 1, zeros = 1;
        for (int i = 0; i < 3 * PAGE + 100; i++) same &= m[i] == (char)(i * 7 + 3);
        for (int i = 3 * PAGE + 100; i < 4 * PAGE; i++) zeros &= m[i] == 0;
        check(same, "all bytes are there (%d)", flags);
        check(zeros, "behind the end the page is zeros");
        check(touch(m + 4 * PAGE, 0) == SIGBUS, "the page behind it is SIGBUS");
        check(touch(m, 1) == SIGSEGV, "a store into what is only read is SIGSEGV");
        munmap(m, 5 * PAGE);
        m = map(fd, PAGE, PROT_READ, flags, 2 * PAGE);
        check(m[5] == (char)((2 * PAGE + 5) * 7 + 3), "a map from the third page on");
        munmap(m, PAGE);
    }
    close(fd);
}

static void coherence(size_t size) {
    int fd = make("coherence", size, 9), other = open_as("coherence", O_RDWR);
    char *m = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    char *n = map(other, PAGE, PROT_READ, MAP_SHARED, 0);
    char *p = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    printf("size %zu\n", size);
    m[10] = 'a';
    check(n[10] == 'a' && p[10] == 'a' && at(fd, 10) == 'a' && at(other, 10) == 'a', "a store is seen by the other map, the private one, and both descriptors");
    check(pwrite(other, "b", 1, 11) == 1 && m[11] == 'b' && n[11] == 'b' && p[11] == 'b' && m[10] == 'a', "a write is seen by all maps, and leaves the store beside it");
    p[12] = 'c';
    check(m[12] == (char)(12 * 7 + 9) && at(fd, 12) == m[12], "a store into a private map is nobody else's");
    m[13] = 'd';
    check(p[12] == 'c', "and stays");
    m[size - 1] = 'e';
    check(at(other, size - 1) == 'e', "the last byte");
    m[size] = 'f';  // behind the end: nowhere, when the page is not whole
    struct stat status;
    check(fstat(fd, &status) == 0 && status.st_size == (off_t)size, "the size stays");
    check(msync(m, PAGE, MS_SYNC) == 0 && at(fd, 10) == 'a' && at(fd, size) == (char)0xEE, "after msync as well");
    check(pwrite(fd, "g", 1, size + 10) == 1 && at(fd, size) == 0 && m[size + 10] == 'g' && n[size + 10] == 'g', "a write behind the end: zeros before it, seen in the map");
    m[size + 5] = 'h';
    check(at(other, size + 5) == 'h', "a store there counts now");
    munmap(m, PAGE), munmap(n, PAGE), munmap(p, PAGE);
    check(at(fd, 10) == 'a' && at(fd, 11) == 'b' && at(fd, size + 5) == 'h', "all of it is in the file when the maps are gone");
    close(fd), close(other);
    fd = open_as("coherence", O_RDONLY);
    check(at(fd, 10) == 'a' && at(fd, 11) == 'b' && at(fd, 12) == (char)(12 * 7 + 9) && at(fd, size + 5) == 'h' && at(fd, size - 1) == 'e', "and for who opens it then");
    close(fd);
}

static void processes(void) {
    int fd = make("processes", 4 * PAGE, 1);
    char *m = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    pid_t child = fork();
    if (child == 0) {
        m[0] = 'x';
        int own = open_as("processes", O_RDWR);
        char *n = map(own, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);
        n[1] = 'y';
        m[2 * PAGE + 2] = at(own, 0) == 'x' && at(own, PAGE + 1) == 'y' ? 'z' : '?';
        if (pwrite(own, "w", 1, 3 * PAGE + 3) != 1 || m[3 * PAGE + 3] != 'w') m[2 * PAGE + 2] = '!';
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    check(m[0] == 'x' && m[PAGE + 1] == 'y' && m[2 * PAGE + 2] == 'z' && m[3 * PAGE + 3] == 'w', "what a child stored and wrote before SIGKILL is in the map");
    check(at(fd, 0) == 'x' && at(fd, PAGE + 1) == 'y' && at(fd, 3 * PAGE + 3) == 'w', "and in the file");
    close(fd);
    m[4] = 'v';
    fd = open_as("processes", O_RDONLY);
    check(at(fd, 4) == 'v', "a map goes on when its descriptor is closed");
    check(msync(m, 4 * PAGE, MS_SYNC) == 0, "and is synced");
    child = fork();
    if (child == 0) {
        munmap(m, PAGE);
        m[PAGE] = 'u';
        _exit(msync(m + PAGE, 3 * PAGE, MS_SYNC) != 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    check(status == 0 && at(fd, PAGE) == 'u' && m[0] == 'x', "a child's stores are its parent's file, its munmap is not its parent's");
    munmap(m, 4 * PAGE);
    close(fd);
    fd = open_as("processes", O_RDONLY);
    check(at(fd, PAGE) == 'u' && at(fd, 2 * PAGE + 2) == 'z', "nobody has it mapped, and all is there");
    close(fd);
}

static void sizes(void) {
    int fd = make("sizes", 8 * PAGE, 5);
    char *m = map(fd, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    m[3 * PAGE] = 'k';
    check(ftruncate(fd, 3 * PAGE + 50) == 0, "cut to three pages and a bit");
    check(touch(m + 3 * PAGE, 0) == 0 && m[3 * PAGE] == 'k', "the page with the end is there");
    check(m[3 * PAGE + 49] == (char)((3 * PAGE + 49) * 7 + 5) && m[3 * PAGE + 50] == 0 && m[4 * PAGE - 1] == 0, "its rest is zeros");
    check(touch(m + 4 * PAGE, 0) == SIGBUS && touch(m + 7 * PAGE, 1) == SIGBUS, "what is gone is SIGBUS");
    check(ftruncate(fd, 6 * PAGE) == 0 && m[3 * PAGE + 50] == 0 && m[5 * PAGE] == 0 && touch(m + 6 * PAGE, 0) == SIGBUS, "longer again: zeros");
    m[5 * PAGE + 7] = 'l';
    check(at(fd, 5 * PAGE + 7) == 'l', "a store into what grew");
    check(pwrite(fd, "mn", 2, 10 * PAGE - 1) == 2 && m[10 * PAGE - 1] == 'm' && m[10 * PAGE] == 'n' && m[8 * PAGE] == 0, "a write makes it longer, and is seen");
    m[8 * PAGE + 3] = 'o';
    check(at(fd, 8 * PAGE + 3) == 'o', "a store into the hole that this made");
    check(ftruncate(fd, 0) == 0 && touch(m, 0) == SIGBUS, "nothing is left: SIGBUS");
    check(pwrite(fd, "pq", 2, 0) == 2 && m[0] == 'p' && m[2] == 0, "written anew");
    check(fallocate(fd, 0, 0, 4 * PAGE) == 0 && touch(m + 3 * PAGE, 1) == 0 && at(fd, 3 * PAGE) == 1, "allocated, and stored into");
    for (int i = 0; i < 4; i++) memset(m + i * PAGE, 'A' + i, PAGE);
    check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE - 10, PAGE + 20) == 0, "a hole");
    check(m[PAGE - 11] == 'A' && m[PAGE - 10] == 0 && m[PAGE] == 0 && m[2 * PAGE + 9] == 0 && m[2 * PAGE + 10] == 'C', "is zeros in the map");
    check(at(fd, PAGE - 11) == 'A' && at(fd, PAGE - 10) == 0 && at(fd, 2 * PAGE + 10) == 'C', "and in the file");
    m[PAGE + 1] = 'r';
    check(msync(m, 4 * PAGE, MS_SYNC) == 0 && at(fd, PAGE + 1) == 'r' && at(fd, PAGE + 2) == 0, "a store into the hole");
    close(fd);
    fd = open_as("sizes", O_WRONLY | O_TRUNC);
    check(touch(m, 0) == SIGBUS, "O_TRUNC of another");
    close(fd);
    munmap(m, 12 * PAGE);
}

static void refusals(void) {
    int both = make("refusals", 2 * PAGE, 1), reads = open_as("refusals", O_RDONLY), writes = open_as("refusals", O_WRONLY), folder = open_as(".", O_RDONLY), name = open_as("refusals", O_PATH);
    struct { const char *what; size_t length; int protection, flags, fd; off_t offset; int error; } tries[] = {
        {"no length", 0, PROT_READ, MAP_SHARED, both, 0, EINVAL},
        {"an odd offset", PAGE, PROT_READ, MAP_SHARED, both, 100, EINVAL},
        {"an odd offset of no descriptor", PAGE, PROT_READ, MAP_SHARED, 999, 100, EINVAL},
        {"no descriptor", PAGE, PROT_READ, MAP_SHARED, 999, 0, EBADF},
        {"a name only", PAGE, PROT_READ, MAP_SHARED, name, 0, EBADF},
        {"neither shared nor private", PAGE, PROT_READ, 0, both, 0, EINVAL},
        {"writing what is open for reading", PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reads, 0, EACCES},
        {"reading what is open for writing", PAGE, PROT_READ, MAP_SHARED, writes, 0, EACCES},
        {"writing what is open for writing only", PAGE, PROT_WRITE, MAP_SHARED, writes, 0, EACCES},
        {"a private one of that", PAGE, PROT_READ, MAP_PRIVATE, writes, 0, EACCES},
        {"a directory", PAGE, PROT_READ, MAP_SHARED, folder, 0, ENODEV},
        {"a directory to be written", PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, folder, 0, EACCES},
        {"an offset too far", PAGE, PROT_READ, MAP_SHARED, both, (off_t)0x7ffffffffffff000, EOVERFLOW},
        {"too long", (size_t)1 << 60, PROT_READ, MAP_SHARED, both, 0, ENOMEM},
        {"private and writable of what is open for reading", PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, reads, 0, 0},
        {"no access", PAGE, PROT_NONE, MAP_SHARED, reads, 0, 0},
        {"far behind the end", PAGE, PROT_READ, MAP_SHARED, both, (off_t)1 << 40, 0},
        {"to be executed", PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, reads, 0, 0},
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        void *m = map(tries[i].fd, tries[i].length, tries[i].protection, tries[i].flags, tries[i].offset);
        int error = m == MAP_FAILED ? errno : 0;
        check(error == tries[i].error, "%s: %s", tries[i].what, error ? strerror(error) : "mapped");
        if (!error) munmap(m, tries[i].length);
    }
    char *m = map(reads, PAGE, PROT_READ, MAP_SHARED, 0);
    check(mprotect(m, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES, "a shared map of what is open for reading cannot become writable");
    munmap(m, PAGE);
    m = map(both, PAGE, PROT_READ, MAP_SHARED, 0);
    check(mprotect(m, PAGE, PROT_READ | PROT_WRITE) == 0, "one of what is open for both can");
    m[1] = 'm';
    check(at(reads, 1) == 'm', "and then it can be stored into");
    check(mprotect(m, PAGE, PROT_NONE) == 0 && touch(m, 0) == SIGSEGV && mprotect(m, PAGE, PROT_READ) == 0 && m[1] == 'm', "no access, and access again");
    check(msync(m + 1, PAGE, MS_SYNC) == -1 && errno == EINVAL, "msync of an odd address");
    check(msync(m, PAGE, MS_SYNC | MS_ASYNC) == -1 && errno == EINVAL, "msync in both ways");
    check(msync(m, PAGE, MS_ASYNC) == 0 && msync(m, PAGE, MS_INVALIDATE) == 0, "msync in other ways");
    munmap(m, PAGE);
    check(msync(m, PAGE, MS_SYNC) == -1 && errno == ENOMEM, "msync of what is not mapped");
    m = map(reads, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    m[1] = 'n';
    check(at(reads, 1) == 'm' && m[1] == 'n', "a private copy of a file that may only be read");
    munmap(m, PAGE);
    close(both), close(reads), close(writes), close(folder), close(name);
}

static void moving(void) {
    int fd = make("moving", 64 * PAGE, 2);
    char *m = map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);
    m[5] = 's';
    m = mremap(m, 2 * PAGE, 60 * PAGE, MREMAP_MAYMOVE);
    check(m != MAP_FAILED && m[5] == 's' && m[40 * PAGE] == (char)(41 * PAGE * 7 + 2), "a map made longer shows the file");
    m[50 * PAGE] = 't';
    check(at(fd, 51 * PAGE) == 't', "and stores into it");
    check(msync(m + 40 * PAGE, 20 * PAGE, MS_SYNC) == 0, "msync of its new part");
    m = mremap(m, 60 * PAGE, PAGE, 0);
    check(m != MAP_FAILED && m[5] == 's' && touch(m + PAGE, 0) == SIGSEGV, "a map made shorter");
    char *place = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *fixed = mmap(place + PAGE, 2 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 50 * PAGE);
    check(fixed == place + PAGE && fixed[PAGE] == 't' && place[0] == 0 && place[3 * PAGE] == 0, "a map where the program wants it");
    munmap(place, 4 * PAGE);
    munmap(m, PAGE);
    m = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    check(munmap(m + PAGE, PAGE) == 0, "a map with a hole in it");
    m[7] = 'u', m[3 * PAGE] = 'v';
    check(touch(m + PAGE, 0) == SIGSEGV && at(fd, 7) == 'u' && at(fd, 3 * PAGE) == 'v' && msync(m + 2 * PAGE, 2 * PAGE, MS_SYNC) == 0, "both its sides work");
    munmap(m, 4 * PAGE);
    close(fd);
}

static void names(void) {
    int fd = make("gone", 2 * PAGE, 4);
    char whole[5000];
    snprintf(whole, sizeof whole, "%s/gone", path);
    char *m = map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
    close(fd);
    check(unlink(whole) == 0 && access(whole, F_OK) != 0, "the name of a mapped file goes");
    m[PAGE] = 'w';
    check(m[5] == (char)(5 * 7 + 4) && m[PAGE] == 'w' && msync(m, 2 * PAGE, MS_SYNC) == 0, "its map stays");
    munmap(m, 2 * PAGE);
    // mov eax, 42; ret
    fd = open_as("code", O_RDWR | O_CREAT | O_TRUNC);
    check(write(fd, "\xb8\x2a\0\0\0\xc3", 6) == 6, "machine code");
    int (*code)(void) = map(fd, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0);
    check((void *)code != MAP_FAILED && code() == 42, "runs from a map");
    munmap((void *)code, PAGE);
    close(fd);
}

static uint64_t state;
static unsigned draw(unsigned limit) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (unsigned)(state >> 20) % limit;
}

/// Random stores, writes, reads, sizes and holes, beside an array that says what the file is.
static void mixture(int rounds) {
    enum { PAGES = 48, LIMIT = PAGES * PAGE };
    static char model[LIMIT], bytes[LIMIT];
    size_t size = 20 * PAGE + 77;
    int fd = make("mixture", size, 0), other = open_as("mixture", O_RDWR), bad = 0, planted = getenv("MAPS_PLANT") != NULL;
    for (size_t i = 0; i < LIMIT; i++) model[i] = i < size ? (char)(i * 7) : 0;
    char *m = map(fd, LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *n = map(other, LIMIT, PROT_READ, MAP_SHARED, 0);
    for (int round = 0; round < rounds && !bad; round++) {
        unsigned offset = draw(LIMIT), count = 1 + draw(draw(4) ? 300 : 3 * PAGE), kind = draw(100);
        if (offset + count > LIMIT) count = LIMIT - offset;
        if (kind < 35) {
            for (unsigned i = offset; i < offset + count && i < size; i++) m[i] = model[i] = (char)(i + round);
            if (planted && round > 100 && offset < size) m[offset] ^= 1;
        } else if (kind < 60) {
            for (unsigned i = 0; i < count; i++) bytes[i] = (char)(i * 3 + round);
            if (pwrite(draw(2) ? fd : other, bytes, count, offset) != (ssize_t)count) bad = __LINE__;
            memcpy(model + offset, bytes, count);
            if (offset + count > size) size = offset + count;
        } else if (kind < 75) {
            ssize_t want = offset >= size ? 0 : offset + count > size ? (ssize_t)(size - offset) : (ssize_t)count;
            if (pread(draw(2) ? fd : other, bytes, count, offset) != want || memcmp(bytes, model + offset, (size_t)want)) bad = __LINE__;
        } else if (kind < 82) {
            if (ftruncate(fd, offset) != 0) bad = __LINE__;
            if (offset < size) memset(model + offset, 0, size - offset);
            size = offset;
        } else if (kind < 86) {
            if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count) != 0) bad = __LINE__;
            memset(model + offset, 0, count);
        } else if (kind < 88) {
            if (msync(m, LIMIT, MS_SYNC) != 0) bad = __LINE__;
        } else if (kind < 90) {
            if (fsync(other) != 0) bad = __LINE__;
        } else if (kind < 91) {
            munmap(n, LIMIT);
            n = map(other, LIMIT, PROT_READ, draw(2) ? MAP_SHARED : MAP_PRIVATE, 0);
        } else if (kind < 92) {
            munmap(m, LIMIT), munmap(n, LIMIT);
            m = map(fd, LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED, 0), n = map(other, LIMIT, PROT_READ, MAP_SHARED, 0);
        } else {
            unsigned end = offset + count < size ? offset + count : (unsigned)size;
            for (unsigned i = offset; i < end; i++) if (n[i] != model[i] || m[i] != model[i]) bad = __LINE__;
        }
        if (bad) printf("WRONG in round %d, kind %u, line %d, %u bytes at %u of %zu\n", round, kind, bad, count, offset, size);
    }
    check(!bad, "%d random changes", rounds);
    munmap(m, LIMIT), munmap(n, LIMIT);
    check(pread(other, bytes, LIMIT, 0) == (ssize_t)size && memcmp(bytes, model, size) == 0, "and what they leave");
    close(fd), close(other);
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2) return 64;
    snprintf(path, sizeof path, "%s", arguments[1]);
    state = count > 3 ? strtoull(arguments[3], NULL, 0) | 1 : 12345;
    reading();
    coherence(100);
    coherence(PAGE - 100);
    processes();
    sizes();
    refusals();
    moving();
    names();
    mixture(count > 2 ? atoi(arguments[2]) : 5000);
    if (wrong) printf("FAIL maps: %d of %d checks\n", wrong, checks);
    else printf("PASS maps: %d checks\n", checks);
    return wrong != 0;
}
