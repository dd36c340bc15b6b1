// Operations on maps of files: made, loaded from, stored into, synced, moved, protected and taken away, in several processes; with calls that read and write files from and
// into them. Loads and stores that the kernel answers by a signal are told as such.
//
// A shared map is stored into before the end of its file only: what is stored behind it, on its last page, is nowhere on one file system and is there on another. So each map
// keeps a descriptor by which the end is seen, an O_PATH one, whose close does nothing to locks.
#include "oracle.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { MAP_SLOTS = 6, PAGE = 4096, MOST_PAGES = 24, WINDOW_PAGES = 64 };
static struct map {
    unsigned char *at;
    size_t pages;
    off_t offset;        // of its first page in the file
    int file;
    bool shared, ours;   // ours: at an address that nobody else would be given
} maps[MAP_SLOTS];

bool times_are_told(const struct stat *st) { return !control->processes || !has(MAPS) || !S_ISREG(st->st_mode); }

static unsigned char *window(int i) { return (unsigned char *)(uintptr_t)(0x100000000000u + (uintptr_t)i * 2 * WINDOW_PAGES * PAGE); }

static sigjmp_buf trap;
static volatile sig_atomic_t expecting;
static void *volatile fault_address;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    if (!expecting) {
        signal(number, SIG_DFL);
        return;
    }
    expecting = 0;
    fault_address = info->si_addr;
    siglongjmp(trap, number);
}

static void catch_faults(void) {
    static bool done;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (done) return;
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    done = true;
}

// Bytes from one place to the other, one after the other. False: a signal, told with its page (if there is a map to name it).
static bool move_bytes(unsigned char *to, const unsigned char *from, size_t count, const unsigned char *base) {
    catch_faults();
    int number = sigsetjmp(trap, 0);
    if (number != 0) {
        if (base) say(" %s at page %ld", number == SIGBUS ? "SIGBUS" : "SIGSEGV", (long)((const unsigned char *)fault_address - base) / PAGE);
        return false;
    }
    expecting = 1;
    volatile unsigned char *out = to;
    const volatile unsigned char *in = from;
    for (size_t i = 0; i < count; i++) out[i] = in[i];
    expecting = 0;
    return true;
}

static int pick_map(void) {
    int i = (int)rnd(MAP_SLOTS);
    for (int n = 0; n < MAP_SLOTS && !maps[i].at; n++) i = (i + 1) % MAP_SLOTS;
    return maps[i].at ? i : -1;
}

static void forget(struct map *m) {
    if (m->file >= 0) close(m->file);
    m->at = NULL;
}

// Something that tells of the file and holds nothing of it.
static int keep_watch(int fd) {
    char path[64];
    sprintf(path, "/proc/self/fd/%d", fd);
    int name = open(path, O_PATH | O_CLOEXEC);
    if (name < 0) { say(" no watch: %s", strerrorname_np(errno)); return -1; }
    int kept = fcntl(name, F_DUPFD_CLOEXEC, KEPT_DESCRIPTORS);
    close(name);
    return kept;
}

static int pick_mappable(char shown[16]) {
    int s = pick_slot();
    if (chance(80)) for (int n = 0; n < SLOTS; n++, s = (s + 1) % SLOTS) {
        struct stat st;
        if (slot[s] < 0 || (fcntl(slot[s], F_GETFL) & (O_ACCMODE | O_PATH)) != O_RDWR || fstat(slot[s], &st) != 0 || !S_ISREG(st.st_mode)) continue;
        sprintf(shown, "#%d", s);
        return slot[s];
    }
    return pick_descriptor(shown);
}

void op_map(void) {
    static const int protections[] = {PROT_READ, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC};
    char shown[16];
    int i = (int)rnd(MAP_SLOTS), fd = pick_mappable(shown), protection = protections[rnd(8)];
    int flags = chance(65) ? (chance(90) ? MAP_SHARED : MAP_SHARED_VALIDATE) : MAP_PRIVATE;
    size_t length = (size_t)(rnd(12) + 1) * PAGE - (chance(40) ? rnd(PAGE) : 0);
    off_t offset = chance(60) ? 0 : chance(90) ? (off_t)rnd(8) * PAGE : pick_offset() & ~(off_t)(PAGE - 1);
    struct map *m = &maps[i];
    if (chance(1)) offset += 7;
    if (chance(1)) length = 0;
    if (chance(10)) flags |= MAP_POPULATE;
    if (chance(10)) flags |= MAP_NORESERVE;
    if (chance(1)) flags &= ~MAP_TYPE;
    uint64_t where = rnd(3);
    unsigned char *wanted = window(i) + PAGE * rnd(8);
    say("mmap @%d %s prot %d flags %x %zu @%lld", i, shown, protection, flags, length, (long long)offset);
    if (!has(MAPS)) { say(" skip"); return; }
    if (m->at) {  // in its place, page for page
        wanted = m->at;
        length = m->pages * PAGE;
        flags |= MAP_FIXED;
        say(" over %zu pages", m->pages);
    } else if (where < 2) {
        if (where == 0) flags |= MAP_FIXED;
    } else wanted = NULL;
    unsigned char *at = mmap(wanted, length, protection, flags, fd, offset);
    if (at == MAP_FAILED) { say_result(-1); return; }
    bool ours = wanted != NULL && (m->at ? m->ours : true);
    if (wanted && at != wanted) say(" elsewhere");
    if (m->at) forget(m);
    *m = (struct map){at, (length + PAGE - 1) / PAGE, offset, keep_watch(fd), (flags & MAP_TYPE) != MAP_PRIVATE, ours};
    say(" = ok");
    watch_descriptor(fd);
    say_watched();
}

// A range in or a little beyond the map.
static void pick_range(const struct map *m, size_t *from, size_t *count) {
    *from = (size_t)rnd(m->pages * PAGE);
    if (chance(40)) *from &= ~(size_t)(PAGE - 1);
    *count = chance(60) ? rnd(200) + 1 : rnd(3 * PAGE) + 1;
    if (*from + *count > m->pages * PAGE) *count = m->pages * PAGE - *from;
}

static void pick_pages(const struct map *m, size_t *from, size_t *count) {
    *from = chance(50) ? 0 : (size_t)rnd(m->pages);
    *count = chance(40) ? m->pages - *from : (size_t)rnd(m->pages - *from) + 1;
}

// How much of a range may be stored into.
static size_t storable(const struct map *m, size_t from, size_t count) {
    struct stat st;
    if (!m->shared) return count;
    if (m->file < 0 || fstat(m->file, &st) != 0) return 0;
    if (st.st_size <= m->offset) return count;
    size_t end = (size_t)(st.st_size - m->offset), last = (end + PAGE - 1) / PAGE * PAGE;
    if (from >= last) return count;
    if (from >= end) return 0;
    return from + count > end ? end - from : count;
}

void op_load(void) {
    static unsigned char bytes[4 * PAGE];
    size_t from, count;
    int i = pick_map();
    if (i < 0) { say("load: no map"); return; }
    pick_range(&maps[i], &from, &count);
    say("load @%d %zu+%zu", i, from, count);
    if (move_bytes(bytes, maps[i].at + from, count, maps[i].at)) say(" = %016llx", (unsigned long long)checksum(1, bytes, count));
}

void op_store(void) {
    static unsigned char bytes[4 * PAGE];
    size_t from, count;
    int i = pick_map();
    if (i < 0) { say("store: no map"); return; }
    pick_range(&maps[i], &from, &count);
    say("store @%d %zu+%zu", i, from, count);
    count = storable(&maps[i], from, count);
    if (count == 0) { say(" behind the end"); return; }
    fill(bytes, count);
    if (planted("store") && operation % 5 == 0) bytes[0] ^= 1;
    if (move_bytes(maps[i].at + from, bytes, count, maps[i].at)) say(" = %zu", count);
}

void op_msync(void) {
    static const int kinds[] = {MS_SYNC, MS_SYNC, MS_ASYNC, MS_SYNC | MS_INVALIDATE, 0, MS_SYNC | MS_ASYNC, 64};
    size_t from, count;
    int i = pick_map(), kind = kinds[rnd(7)];
    if (i < 0) { say("msync: no map"); return; }
    pick_pages(&maps[i], &from, &count);
    say("msync @%d %zu+%zu %d", i, from, count, kind);
    say_result(msync(maps[i].at + from * PAGE + (chance(2) ? 1 : 0), count * PAGE, kind));
}

void op_unmap(void) {
    size_t from, count;
    int i = pick_map();
    if (i < 0) { say("munmap: no map"); return; }
    struct map *m = &maps[i];
    pick_pages(m, &from, &count);
    if (chance(60)) { from = 0; count = m->pages; }
    say("munmap @%d %zu+%zu of %zu", i, from, count, m->pages);
    if (!m->ours && count < m->pages) {  // nobody else may come to be there
        say(" by another");
        say_result(mmap(m->at + from * PAGE, count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    } else say_result(munmap(m->at + from * PAGE, count * PAGE));
    if (count == m->pages) forget(m);
}

void op_protect(void) {
    static const int protections[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC, PROT_WRITE};
    size_t from, count;
    int i = pick_map(), protection = protections[rnd(6)];
    if (i < 0) { say("mprotect: no map"); return; }
    struct stat st;
    pick_pages(&maps[i], &from, &count);
    if (!has(PROTECT_PART) && maps[i].shared && (protection & PROT_WRITE)) { from = 0; count = maps[i].pages; }
    say("mprotect @%d %zu+%zu %d", i, from, count, protection);
    if (!has(PROTECT_ATIME) && maps[i].shared && (protection & PROT_WRITE)
        && (maps[i].file < 0 || fstat(maps[i].file, &st) != 0 || st.st_atim.tv_sec < started - 5 || st.st_atim.tv_sec > started + 86400)) { say(" fixed atime"); return; }
    say_result(mprotect(maps[i].at + from * PAGE, count * PAGE, protection));
}

void op_remap(void) {
    int i = pick_map(), to = (int)rnd(MAP_SLOTS);
    size_t pages = (size_t)rnd(MOST_PAGES) + 1;
    uint64_t how = rnd(3);
    if (i < 0) { say("mremap: no map"); return; }
    struct map *m = &maps[i];
    say("mremap @%d %zu to %zu pages", i, m->pages, pages);
    unsigned char *at;
    if (how == 0 && m->ours) {  // in its place: its window has room
        at = mremap(m->at, m->pages * PAGE, pages * PAGE, 0);
    } else if (how == 1 && !maps[to].at) {
        say(" at @%d", to);
        at = mremap(m->at, m->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, window(to) + 9 * PAGE);
    } else {
        say(" anywhere");
        at = mremap(m->at, m->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    }
    if (at == MAP_FAILED) {
        say_result(-1);
        // A part of it may have gone all the same: nobody else may come to be there.
        for (size_t p = 0; !m->ours && p < m->pages; p++) mmap(m->at + p * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        return;
    }
    say(" = ok");
    struct map moved = *m;
    if (how == 1 && !maps[to].at) {
        m->at = NULL;
        maps[to] = moved;
        m = &maps[to];
        m->ours = true;
    } else if (at != m->at) m->ours = false;
    m->at = at;
    m->pages = pages;
}

void op_advise(void) {
    static const struct { int advice; const char *name; } all[] = {
        {MADV_DONTNEED, "DONTNEED"}, {MADV_DONTNEED, "DONTNEED"}, {MADV_WILLNEED, "WILLNEED"}, {MADV_DONTFORK, "DONTFORK"}, {MADV_DOFORK, "DOFORK"}, {MADV_POPULATE_READ, "POPULATE_READ"},
        {MADV_RANDOM, "RANDOM"},
    };
    size_t from, count;
    int i = pick_map(), which = (int)rnd(7);
    if (i < 0) { say("madvise: no map"); return; }
    if (!has(ADVICE) && (all[which].advice == MADV_DONTFORK || all[which].advice == MADV_DOFORK || all[which].advice == MADV_RANDOM)) which = 0;
    pick_pages(&maps[i], &from, &count);
    say("madvise @%d %zu+%zu %s", i, from, count, all[which].name);
    say_result(madvise(maps[i].at + from * PAGE, count * PAGE, all[which].advice));
}

// A map as the buffer of a read or a write of another file.
void op_mapped_buffer(void) {
    static unsigned char bytes[2 * PAGE];
    char shown[16];
    size_t from, count;
    int i = pick_map(), fd = pick_descriptor(shown);
    bool writes = chance(50);
    off_t offset = pick_offset();
    struct stat here, there;
    if (i < 0) { say("buffer: no map"); return; }
    struct map *m = &maps[i];
    pick_range(m, &from, &count);
    if (count > 2 * PAGE) count = 2 * PAGE;
    say("%s %s @%d %zu+%zu @%lld", writes ? "pwrite" : "pread", shown, i, from, count, (long long)offset);
    if (m->file < 0 || fstat(m->file, &here) != 0 || fstat(fd, &there) != 0) { say(" unseen"); return; }
    if (here.st_ino == there.st_ino) { say(" same file"); return; }
    if (!writes) count = storable(m, from, count);
    if (count == 0) { say(" behind the end"); return; }
    unsigned char *buffer = m->at + from;
    if (!has(BAD_BUFFERS) && (!move_bytes(bytes, buffer, count, NULL) || (!writes && !move_bytes(buffer, bytes, count, NULL)))) { say(" bad"); return; }
    ssize_t n = writes ? pwrite(fd, buffer, count, offset) : pread(fd, buffer, count, offset);
    say_result(n);
    watch_descriptor(fd);
    say_watched();
}
