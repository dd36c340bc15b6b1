// power_cut work DIR FIRST LAST      steps FIRST to LAST - 1, each made durable before the next begins; exit 1 where a call fails
// power_cut noise DIR                files written, overwritten, renamed, cut and removed without any sync, until it is killed or a call fails
// power_cut verify DIR STEP          exit 0 if DIR is as a power cut may have left it when the steps before STEP had been made durable
//
// What step i does, and every byte of every file after it, is a function of i, so a verifier needs nothing but the number. All that step i
// writes is cells of 16 bytes that name i, so whoever finds the name of i on a device (power_cut.py) knows that step i - 1 has been acknowledged.
// A later state than that is as good: the cut may have come when the next steps were under way or done.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, SLOTS = 12, MOST_BYTES = 192 * 1024, MOST_FOUND = 4 * SLOTS, NOISE_BLOCKS = 40, AHEAD = 32 };

static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

#define NEED(call) do { if (!(call)) { fprintf(stderr, "power_cut: %s: %s\n", #call, strerror(errno)); exit(1); } } while (0)

// ---- The steps.

enum kind { CREATE, OVERWRITE, APPEND, TRUNCATE, REPLACE, RENAME, REMOVE };

struct file {
    char folder[24], path[48];  // the folder it has for itself, or ""; path is "" where there is no file
    size_t size;
    unsigned char bytes[MOST_BYTES];
};

struct step {
    enum kind kind;
    unsigned number, slot, how;  // how it is made durable
    size_t from, to;             // the bytes that it writes
    char temporary[48];          // REPLACE: the name before the rename
    struct file before, after;
};

static struct file files[SLOTS];  // before the step

static void copy(struct file *to, const struct file *from) {
    memcpy(to, from, offsetof(struct file, bytes) + from->size);
}

/// `<`, six hexadecimal digits that stand for the step, `:`, eight bytes that follow from step and place. Two steps have hardly a byte in common
/// at a place, so a journal that records differences only has the cells whole.
static void fill(unsigned char *bytes, size_t from, size_t to, unsigned step) {
    char cell[16];
    snprintf(cell, sizeof cell, "<%06x:", step * 0x9E3779u & 0xFFFFFF);
    for (size_t at = from / 16 * 16; at < to; at += 16) {
        uint64_t rest = mix(step ^ mix(at));
        memcpy(cell + 8, &rest, 8);
        size_t first = at < from ? from - at : 0, last = at + 16 > to ? to - at : 16;
        memcpy(bytes + at + first, cell + first, last - first);
    }
}

static void plan(unsigned number, struct step *s) {
    static const enum kind kinds[] = {OVERWRITE, APPEND, REPLACE, OVERWRITE, RENAME, APPEND, TRUNCATE, REPLACE, REMOVE, OVERWRITE};
    static const size_t sizes[] = {64, 200, 355, 361, 1500, 4096, 6000, 16384, 30000, 70000};  // inline, one block, in a record, too large for one
    uint64_t r = mix(number);
    s->number = number;
    s->slot = r % SLOTS;
    s->how = r >> 8 & 3;
    copy(&s->before, &files[s->slot]);
    struct file *after = &s->after;
    copy(after, &s->before);
    size_t size = sizes[(r >> 16) % 10] + (r >> 24) % 50;
    s->kind = after->path[0] ? kinds[(r >> 32) % 10] : CREATE;
    if (s->kind == APPEND && after->size + size > MOST_BYTES) s->kind = REMOVE;
    if (s->kind == OVERWRITE && after->size < 32) s->kind = APPEND;
    s->from = 0;
    s->to = size;
    switch (s->kind) {
    case CREATE:
        if (r >> 40 & 1) snprintf(after->folder, sizeof after->folder, "d%u.%u", s->slot, number);
        snprintf(after->path, sizeof after->path, "%s%sf%u.%u", after->folder, after->folder[0] ? "/" : "", s->slot, number);
        after->size = size;
        break;
    case OVERWRITE:
        s->from = (r >> 40) % (after->size - 16);
        s->to = s->from + size < after->size ? s->from + size : after->size;
        break;
    case APPEND:
        s->from = after->size;
        after->size = s->to = s->from + size;
        break;
    case TRUNCATE:
        after->size = (r >> 40) % (after->size + 1);
        s->to = 0;
        break;
    case REPLACE:
        snprintf(s->temporary, sizeof s->temporary, "%s%st%u.%u", after->folder, after->folder[0] ? "/" : "", s->slot, number);
        after->size = size;
        break;
    case RENAME:
        snprintf(after->path, sizeof after->path, "%s%sr%u.%u", after->folder, after->folder[0] ? "/" : "", s->slot, number);
        s->to = 0;
        break;
    case REMOVE:
        after->path[0] = after->folder[0] = 0;
        after->size = s->to = 0;
        break;
    }
    if (s->to > s->from) fill(after->bytes, s->from, s->to, number);
}

static void synchronise_folder(const char *folder) {
    int fd = open(folder[0] ? folder : ".", O_RDONLY | O_DIRECTORY);
    NEED(fd >= 0);
    NEED(fsync(fd) == 0);
    NEED(close(fd) == 0);
}

static void take(const struct step *s) {
    const char *path = s->kind == REPLACE ? s->temporary : s->kind == CREATE ? s->after.path : s->before.path;
    bool synchronous = (s->kind == OVERWRITE || s->kind == APPEND) && s->how == 0;
    int fd = -1;
    if (s->after.folder[0] && s->kind == CREATE) NEED(mkdir(s->after.folder, 0755) == 0);
    if (s->kind != RENAME && s->kind != REMOVE) {
        int flags = s->kind == APPEND ? O_APPEND : s->kind == CREATE || s->kind == REPLACE ? O_CREAT | O_EXCL : 0;
        fd = open(path, O_WRONLY | flags | (synchronous ? s->number & 1 ? O_SYNC : O_DSYNC : 0), 0644);
        NEED(fd >= 0);
    }
    if (s->to > s->from) NEED(pwrite(fd, s->after.bytes + s->from, s->to - s->from, (off_t)s->from) == (ssize_t)(s->to - s->from));
    switch (s->kind) {
    case TRUNCATE: NEED(ftruncate(fd, (off_t)s->after.size) == 0); break;
    case REPLACE:
    case RENAME: NEED(rename(path, s->after.path) == 0); break;
    case REMOVE:
        NEED(unlink(path) == 0);
        if (s->before.folder[0]) NEED(rmdir(s->before.folder) == 0);
        break;
    default: break;
    }
    if (synchronous) {}
    else if (s->how == 1) sync();
    else if (fd < 0 || (s->kind == REPLACE && s->how == 2)) synchronise_folder(s->after.folder);
    else NEED((s->how == 2 ? fdatasync(fd) : fsync(fd)) == 0);
    if (fd >= 0) NEED(close(fd) == 0);
}

static int work(unsigned first, unsigned last) {
    static struct step s;
    for (unsigned number = 0; number < last; number++) {
        plan(number, &s);
        if (number >= first) take(&s);
        copy(&files[s.slot], &s.after);
    }
    return 0;
}

// ---- Noise: whole blocks that say what they are.

struct block { uint64_t file, place, generation, words[BLOCK / 8 - 3]; };

static void make_block(struct block *b, uint64_t file, uint64_t place, uint64_t generation) {
    *b = (struct block){.file = file, .place = place, .generation = generation};
    uint64_t x = mix(file ^ mix(place ^ mix(generation)));
    for (unsigned i = 0; i < BLOCK / 8 - 3; i++) b->words[i] = x += 0x9E3779B97F4A7C15u;
}

static int noise(void) {
    static struct block run[24];
    struct { uint64_t file; size_t blocks; char path[40]; } slots[SLOTS] = {0};
    uint64_t seed = mix((uint64_t)getpid()), last = seed >> 16;  // no file of an earlier noise has these numbers
    for (uint64_t generation = 1;; generation++) {
        uint64_t r = mix(seed ^ generation);
        size_t slot = r % SLOTS, count = (r >> 8) % 24 + 1;
        char path[40];
        if (!slots[slot].path[0]) {
            slots[slot].file = ++last;
            slots[slot].blocks = 0;
            snprintf(slots[slot].path, sizeof path, "n.%llx", (unsigned long long)last);
        }
        switch (slots[slot].blocks ? (r >> 16) % 8 : 0) {
        case 6:
            snprintf(path, sizeof path, "m%llu.%llx", (unsigned long long)generation, (unsigned long long)slots[slot].file);
            NEED(rename(slots[slot].path, path) == 0);
            strcpy(slots[slot].path, path);
            break;
        case 7:
            if (r >> 24 & 1) {
                NEED(unlink(slots[slot].path) == 0);
                slots[slot].path[0] = 0;
            } else {
                slots[slot].blocks = (r >> 32) % slots[slot].blocks;
                NEED(truncate(slots[slot].path, (off_t)(slots[slot].blocks * BLOCK)) == 0);
            }
            break;
        default: {
            size_t first = r >> 24 & 1 ? slots[slot].blocks : (r >> 32) % (slots[slot].blocks + 1);
            if (first + count > NOISE_BLOCKS) first = 0;
            for (size_t i = 0; i < count; i++) make_block(&run[i], slots[slot].file, first + i, generation);
            int fd = open(slots[slot].path, O_WRONLY | O_CREAT, 0644);
            NEED(fd >= 0);
            NEED(pwrite(fd, run, count * BLOCK, (off_t)(first * BLOCK)) == (ssize_t)(count * BLOCK));
            NEED(close(fd) == 0);
            if (slots[slot].blocks < first + count) slots[slot].blocks = first + count;
        }
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);  // so that the steps have the most of the processors
    }
}

static bool is_noise(const char *name, const unsigned char *bytes, size_t size) {
    const char *dot = strchr(name, '.');
    if (!dot || size % BLOCK != 0) return printf("WRONG: %s has %zu bytes\n", name, size), false;
    for (size_t place = 0; place < size / BLOCK; place++) {
        struct block is, should;
        memcpy(&is, bytes + place * BLOCK, BLOCK);
        make_block(&should, strtoull(dot + 1, NULL, 16), place, is.generation);
        if (memcmp(&is, &should, BLOCK) != 0) return printf("WRONG: block %zu of %s was never written there\n", place, name), false;
    }
    return true;
}

// ---- The verifier. It reads the tree once, then looks for a step that it fits.

static struct found {
    char path[300];
    bool folder, explained;
    size_t size;
    unsigned char *bytes;
} found[MOST_FOUND];
static unsigned found_count;

/// Everything below `folder`, which must be readable, and noise right.
static bool read_tree(const char *folder, bool noisy) {
    DIR *directory = opendir(folder[0] ? folder : ".");
    NEED(directory);
    for (struct dirent *entry; (errno = 0, entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (found_count == MOST_FOUND) return printf("WRONG: more files than there can be\n"), false;
        struct found *f = &found[found_count++];
        *f = (struct found){0};
        snprintf(f->path, sizeof f->path, "%s%s%s", folder, folder[0] ? "/" : "", entry->d_name);
        struct stat status;
        NEED(lstat(f->path, &status) == 0);
        f->folder = S_ISDIR(status.st_mode);
        if (f->folder) {
            if (!read_tree(f->path, noisy)) return false;
            continue;
        }
        f->size = (size_t)status.st_size;
        f->bytes = malloc(f->size + 1);
        int fd = open(f->path, O_RDONLY);
        NEED(fd >= 0);
        NEED(read(fd, f->bytes, f->size + 1) == (ssize_t)f->size);
        NEED(close(fd) == 0);
        if (noisy && !is_noise(f->path, f->bytes, f->size)) return false;
    }
    NEED(errno == 0);
    return closedir(directory) == 0;
}

static struct found *find(const char *path) {
    for (unsigned i = 0; path[0] && i < found_count; i++)
        if (!strcmp(found[i].path, path)) return found[i].explained = true, &found[i];
    return NULL;
}

static bool begins(const struct found *f, const struct file *file) {  // f is as much of the file as it is long
    return f->size <= file->size && memcmp(f->bytes, file->bytes, f->size) == 0;
}
static bool equals(const struct found *f, const struct file *file) { return f && !f->folder && f->size == file->size && begins(f, file); }

static bool may_be(const struct step *s) {  // the file of a step that is under way: docs/DURABILITY.md, 3
    const struct file *before = &s->before, *after = &s->after;
    struct found *old = find(before->path), *new = find(after->path), *temporary = find(s->temporary);
    find(before->folder);
    find(after->folder);
    switch (s->kind) {
    case CREATE: return !new || begins(new, after);
    case OVERWRITE:
        if (!old || old->size != before->size) return false;
        for (size_t at = 0; at < old->size; at += BLOCK) {
            size_t count = old->size - at < BLOCK ? old->size - at : BLOCK;
            if (memcmp(old->bytes + at, before->bytes + at, count) != 0 && memcmp(old->bytes + at, after->bytes + at, count) != 0) return false;
        }
        return true;
    case APPEND: return old && old->size >= before->size && begins(old, after);
    case TRUNCATE: return equals(old, before) || equals(old, after);
    case REPLACE: return temporary ? equals(old, before) && begins(temporary, after) : equals(old, before) || equals(old, after);
    case RENAME: return old ? !new && equals(old, before) : equals(new, after);
    case REMOVE: return !old || equals(old, before);
    }
    return false;
}

/// Whether the tree may be there while this step is under way: empty, or what is against it.
static const char *against(const struct step *s) {
    static char text[400];
    for (unsigned i = 0; i < found_count; i++) found[i].explained = false;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        const struct file *file = &files[slot];
        find(file->folder);
        if (slot == s->slot ? may_be(s) : !file->path[0] || equals(find(file->path), file)) continue;
        snprintf(text, sizeof text, "%s, durable before step %u, is %s", file->path, s->number, find(file->path) ? "another" : "not there");
        if (slot == s->slot) snprintf(text, sizeof text, "step %u (kind %u, on %s) has left what it cannot", s->number, s->kind, s->before.path);
        return text;
    }
    for (unsigned i = 0; i < found_count; i++)
        if (!found[i].explained) return snprintf(text, sizeof text, "%s is there at step %u", found[i].path, s->number), text;
    return "";
}

static int verify(unsigned durable) {
    static struct step s;
    char first[400] = "";
    bool fits = false;
    if (chdir("steps") != 0) {
        NEED(errno == ENOENT);
        if (durable > 0) printf("WRONG: nothing is there, and %u steps were durable\n", durable);
        return durable > 0;
    }
    if (!read_tree("", false)) return 1;
    for (unsigned number = 0; number < durable + AHEAD && !fits; number++) {
        plan(number, &s);
        if (number >= durable) {
            const char *reason = against(&s);
            fits = !*reason;
            if (number == durable) strcpy(first, reason);
            if (fits) printf("step %u\n", number);
        }
        copy(&files[s.slot], &s.after);
    }
    if (!fits) printf("WRONG: %s; nor does a later step explain it\n", first);
    NEED(chdir("../noise") == 0);
    found_count = 0;
    return !read_tree("", true) || !fits;
}

int main(int argc, char **argv) {
    if (argc < 3 || chdir(argv[2]) != 0) { fprintf(stderr, "usage: power_cut work DIR FIRST LAST | noise DIR | verify DIR STEP\n"); return 64; }
    if (argc == 5 && !strcmp(argv[1], "work")) return chdir("steps") == 0 ? work((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4])) : 1;
    if (argc == 3 && !strcmp(argv[1], "noise")) return chdir("noise") == 0 ? noise() : 1;
    if (argc == 4 && !strcmp(argv[1], "verify")) return verify((unsigned)atoi(argv[3]));
    return 64;
}
