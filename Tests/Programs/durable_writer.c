// durable_writer DIR LOG [FILES]      writes until it is killed or the file system goes away; exit 0
// durable_writer --verify DIR LOG     everything that LOG says was acknowledged must be in DIR; exit 0 if so, 1 if not
//
// Invariant: a line is written to LOG (which is on another file system) only after the fsync that it speaks of has returned 0, and it is
// written by one write(2), so every whole line in LOG is a promise that the file system made. Each 4 KiB block that is ever written
// describes itself: its file, its place, its generation, and bytes that follow from these. After a crash a block must be one that was written to
// this place, whole, at least as new as the last promise. An appended journal must have every promised line. A file made under another name and
// renamed before its fsync must be there under the new one.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 24, MOST_FILES = 4096 };

struct block {
    uint64_t magic, file, place, generation;
    uint64_t words[BLOCK / 8 - 4];
};

static const uint64_t magic = 0x6461736866732121u;

static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static void make_block(struct block *b, uint64_t file, uint64_t place, uint64_t generation) {
    *b = (struct block){.magic = magic, .file = file, .place = place, .generation = generation};
    uint64_t x = mix(file ^ mix(place ^ mix(generation)));
    for (unsigned i = 0; i < BLOCK / 8 - 4; i++) b->words[i] = x = mix(x);
}

static int append_line(int fd, const char *format, unsigned long long a, unsigned long long b, unsigned long long c) {
    char line[128];
    int n = snprintf(line, sizeof line, format, a, b, c);
    return write(fd, line, (size_t)n) == n ? 0 : -1;
}

static int stop(const char *what) {
    fprintf(stderr, "writer: stopped at %s: %s\n", what, strerror(errno));
    return 0;
}

static int run(const char *directory, const char *log_path, unsigned long files) {
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (log < 0) { perror(log_path); return 2; }
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) { perror(directory); return 2; }
    char name[4200], temporary[4200];
    snprintf(name, sizeof name, "%s/journal", directory);
    int journal = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (journal < 0) return stop("open of the journal");
    static uint64_t generations[MOST_FILES][BLOCKS];
    static int made[MOST_FILES];
    uint64_t x = 1, journal_lines = 0;
    for (uint64_t step = 0;; step++) {
        x = mix(x);
        unsigned long file = x % files, first = (x >> 20) % BLOCKS, count = (x >> 40) % 3 + 1;
        if (step % 4 == 3) {  // append a line, fsync
            if (append_line(journal, "journal line %llu %016llx %llu\n", journal_lines, mix(journal_lines), journal_lines) != 0) return stop("append");
            if (fsync(journal) != 0) return stop("fsync of the journal");
            journal_lines++;
            if (append_line(log, "J %llu\n", journal_lines, 0, 0) != 0) return 2;
            continue;
        }
        snprintf(name, sizeof name, "%s/file%lu", directory, file);
        snprintf(temporary, sizeof temporary, "%s/new%lu", directory, file);
        int fd = open(made[file] ? name : temporary, O_WRONLY | O_CREAT, 0644);
        if (fd < 0) return stop("open");
        if (first + count > BLOCKS) count = BLOCKS - first;
        for (unsigned long i = first; i < first + count; i++) {
            struct block b;
            make_block(&b, file, i, ++generations[file][i]);
            if (pwrite(fd, &b, BLOCK, (off_t)(i * BLOCK)) != BLOCK) return stop("pwrite");
        }
        if (!made[file] && rename(temporary, name) != 0) return stop("rename");
        if ((step % 5 && made[file] ? fdatasync(fd) : fsync(fd)) != 0) return stop("fsync");
        made[file] = 1;
        for (unsigned long i = first; i < first + count; i++)
            if (append_line(log, "B %llu %llu %llu\n", file, i, generations[file][i]) != 0) return 2;
        if (close(fd) != 0) return stop("close");
    }
}

static int verify(const char *directory, const char *log_path) {
    FILE *log = fopen(log_path, "r");
    if (!log) { perror(log_path); return 2; }
    static uint64_t promised[MOST_FILES][BLOCKS];
    uint64_t journal_lines = 0, promises = 0, blocks = 0, bytes = 0, newer = 0, wrong = 0;
    char line[128], name[4200];
    while (fgets(line, sizeof line, log)) {
        unsigned long long file, place, generation;
        if (!strchr(line, '\n')) break;  // the writer was killed in the middle of it: no promise
        if (sscanf(line, "J %llu", &generation) == 1) { journal_lines = generation; promises++; }
        else if (sscanf(line, "B %llu %llu %llu", &file, &place, &generation) == 3 && file < MOST_FILES && place < BLOCKS) {
            promised[file][place] = generation;
            promises++;
        }
    }
    fclose(log);
    for (unsigned long file = 0; file < MOST_FILES; file++) {
        int fd = -1;
        for (unsigned long i = 0; i < BLOCKS; i++) {
            struct block is, should;
            if (!promised[file][i]) continue;
            blocks++;
            snprintf(name, sizeof name, "%s/file%lu", directory, file);
            if (fd < 0) fd = open(name, O_RDONLY);
            if (fd < 0) { printf("LOST: %s: %s\n", name, strerror(errno)); wrong++; continue; }
            if (pread(fd, &is, BLOCK, (off_t)(i * BLOCK)) != BLOCK) { printf("LOST: %s ends before block %lu\n", name, i); wrong++; continue; }
            make_block(&should, file, i, is.generation);
            if (memcmp(&is, &should, BLOCK) != 0) { printf("WRONG: %s block %lu is not a block that was written there\n", name, i); wrong++; }
            else if (is.generation < promised[file][i]) {
                printf("LOST: %s block %lu has generation %llu, promised was %llu\n", name, i, (unsigned long long)is.generation, (unsigned long long)promised[file][i]);
                wrong++;
            } else {
                bytes += BLOCK;
                newer += is.generation > promised[file][i];
            }
        }
        if (fd >= 0) close(fd);
    }
    snprintf(name, sizeof name, "%s/journal", directory);
    FILE *journal = fopen(name, "r");
    uint64_t found = 0;
    while (journal && found < journal_lines && fgets(line, sizeof line, journal)) {
        char should[128];
        snprintf(should, sizeof should, "journal line %llu %016llx %llu\n", (unsigned long long)found, (unsigned long long)mix(found), (unsigned long long)found);
        if (strcmp(line, should) != 0) { printf("WRONG: %s line %llu\n", name, (unsigned long long)found); wrong++; break; }
        bytes += strlen(line);
        found++;
    }
    if (journal) fclose(journal);
    if (found < journal_lines) { printf("LOST: the journal has %llu of %llu promised lines\n", (unsigned long long)found, (unsigned long long)journal_lines); wrong++; }
    printf("%llu promises: %llu blocks and %llu journal lines, %llu bytes; %llu lost or wrong (%llu blocks newer than promised)\n",
           (unsigned long long)promises, (unsigned long long)blocks, (unsigned long long)journal_lines, (unsigned long long)bytes,
           (unsigned long long)wrong, (unsigned long long)newer);
    return wrong || promises == 0 ? 1 : 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--verify") == 0) return verify(argv[2], argv[3]);
    if (argc != 3 && argc != 4) { fprintf(stderr, "usage: durable_writer DIR LOG [FILES] | durable_writer --verify DIR LOG\n"); return 2; }
    unsigned long files = argc == 4 ? strtoul(argv[3], NULL, 10) : 64;
    return run(argv[1], argv[2], files < 1 || files > MOST_FILES ? 64 : files);
}
