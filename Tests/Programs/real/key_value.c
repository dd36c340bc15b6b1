// LevelDB or RocksDB (-DLEVELDB, -DROCKSDB), through their C interfaces, which are alike but for the prefix.
//
//   key_value load DIR COUNT [HOW]     COUNT steps, each a function of its number: puts and deletes, one in 16 synchronous; small buffers, so that files are
//                                      written, merged and removed all the time
//   key_value verify DIR COUNT [HOW]   the database is what COUNT steps make, by an iterator from both ends and by every key
//   key_value crash DIR                synchronous batches of three keys for ever; the number of each acknowledged one goes to standard output
//   key_value check DIR N              every batch up to N is there and whole; at most one more is
// HOW is how RocksDB reads its files: mmap or direct.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOIN(a, b) a##_##b
#ifdef ROCKSDB
#include <rocksdb/c.h>
#define F(name) JOIN(rocksdb, name)
#else
#include <leveldb/c.h>
#define F(name) JOIN(leveldb, name)
#endif

enum { KEYS = 3000, LARGEST = 1500 };

static F(t) *database;
static F(options_t) *options;
static F(readoptions_t) *reading;
static F(writeoptions_t) *relaxed, *durable;

static void fail(const char *what, const char *text) {
    printf("%s: %s\n", what, text);
    exit(1);
}

static void must(const char *what, char *error) {
    if (error) fail(what, error);
}

static void set_up(const char *directory, const char *how) {
    options = F(options_create)();
    F(options_set_create_if_missing)(options, 1);
    F(options_set_paranoid_checks)(options, 1);
    F(options_set_write_buffer_size)(options, 128 << 10);
    F(options_set_max_open_files)(options, 50);
#ifdef ROCKSDB
    rocksdb_options_set_target_file_size_base(options, 256 << 10);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_allow_mmap_reads(options, !strcmp(how, "mmap"));
    rocksdb_options_set_use_direct_reads(options, !strcmp(how, "direct"));
    rocksdb_options_set_use_direct_io_for_flush_and_compaction(options, !strcmp(how, "direct"));
#else
    (void)how;
    leveldb_options_set_max_file_size(options, 1 << 20);
#endif
    reading = F(readoptions_create)();
    F(readoptions_set_verify_checksums)(reading, 1);
    relaxed = F(writeoptions_create)();
    durable = F(writeoptions_create)();
    F(writeoptions_set_sync)(durable, 1);
    char *error = NULL;
    database = F(open)(options, directory, &error);
    must("open", error);
}

static size_t value_of(long key, long step, char *value) {
    size_t length = 20 + (size_t)(step * 31 + key) % (LARGEST - 20);
    int used = sprintf(value, "%ld %ld ", key, step);
    for (size_t i = (size_t)used; i < length; i++) value[i] = (char)('a' + (i * 7 + (size_t)step) % 26);
    return length;
}

static long key_of(long step) { return step * 7919 % KEYS; }
static int is_delete(long step) { return step % 11 == 5; }

static void load(long count) {
    char key[16], value[LARGEST], *error = NULL;
    for (long step = 0; step < count; step++) {
        F(writeoptions_t) *how = step % 16 == 0 ? durable : relaxed;
        int length = sprintf(key, "key%08ld", key_of(step));
        if (is_delete(step)) F(delete)(database, how, key, (size_t)length, &error);
        else F(put)(database, how, key, (size_t)length, value, value_of(key_of(step), step, value), &error);
        must("write", error);
    }
}

static void verify(long count) {
    static long last[KEYS];
    char key[16], value[LARGEST], *error = NULL;
    for (long k = 0; k < KEYS; k++) last[k] = -1;
    for (long step = 0; step < count; step++) last[key_of(step)] = is_delete(step) ? -1 : step;
    F(iterator_t) *iterator = F(create_iterator)(database, reading);
    F(iter_seek_to_first)(iterator);
    for (long k = 0; k < KEYS; k++) {
        if (last[k] < 0) continue;
        size_t length, expected = value_of(k, last[k], value);
        sprintf(key, "key%08ld", k);
        if (!F(iter_valid)(iterator)) fail("the iterator ends before", key);
        const char *seen = F(iter_key)(iterator, &length);
        if (length != 11 || memcmp(seen, key, 11)) fail("another key than", key);
        seen = F(iter_value)(iterator, &length);
        if (length != expected || memcmp(seen, value, length)) fail("another value of", key);
        F(iter_next)(iterator);
    }
    if (F(iter_valid)(iterator)) fail("the iterator", "does not end");
    F(iter_seek_to_last)(iterator);
    for (long k = KEYS; k-- > 0;) {
        if (last[k] < 0) continue;
        if (!F(iter_valid)(iterator)) fail("backwards", "ends too early");
        F(iter_prev)(iterator);
    }
    F(iter_get_error)(iterator, &error);
    must("the iterator", error);
    F(iter_destroy)(iterator);
    for (long k = 0; k < KEYS; k++) {
        long which = k * 17 % KEYS;
        size_t length = 0, expected = last[which] < 0 ? 0 : value_of(which, last[which], value);
        sprintf(key, "key%08ld", which);
        char *seen = F(get)(database, reading, key, 11, &length, &error);
        must("get", error);
        if ((seen == NULL) != (last[which] < 0) || (seen && (length != expected || memcmp(seen, value, length)))) fail("get: another value of", key);
        free(seen);
    }
}

static void crash(void) {
    char key[32], value[LARGEST], line[32], *error = NULL;
    for (long n = 1;; n++) {
        F(writebatch_t) *batch = F(writebatch_create)();
        for (int part = 0; part < 3; part++) {
            int length = sprintf(key, "batch%08ld.%d", n, part);
            F(writebatch_put)(batch, key, (size_t)length, value, value_of(part, n, value));
        }
        F(write)(database, durable, batch, &error);
        must("a batch", error);
        F(writebatch_destroy)(batch);
        int length = sprintf(line, "%ld\n", n);
        if (write(1, line, (size_t)length) != length) exit(1);
    }
}

static void check(long count) {
    char key[32], value[LARGEST], *error = NULL;
    for (long n = 1; n <= count + 2; n++) {
        int parts = 0;
        for (int part = 0; part < 3; part++) {
            size_t length, expected = value_of(part, n, value);
            int size = sprintf(key, "batch%08ld.%d", n, part);
            char *seen = F(get)(database, reading, key, (size_t)size, &length, &error);
            must("get", error);
            if (seen && (length != expected || memcmp(seen, value, length))) fail("another value of", key);
            parts += seen != NULL;
            free(seen);
        }
        if (n <= count && parts != 3) fail("an acknowledged batch is not there", key);
        if (parts != 0 && parts != 3) fail("a part of a batch", key);
        if (n == count + 2 && parts != 0) fail("a batch that was never begun", key);
    }
}

int main(int count, char **arguments) {
    if (count < 3) return 64;
    long number = count > 3 ? atol(arguments[3]) : 0;
    set_up(arguments[2], count > 4 ? arguments[4] : "");
    if (!strcmp(arguments[1], "load")) load(number);
    else if (!strcmp(arguments[1], "verify")) verify(number);
    else if (!strcmp(arguments[1], "compact")) F(compact_range)(database, NULL, 0, NULL, 0);
    else if (!strcmp(arguments[1], "crash")) crash();
    else if (!strcmp(arguments[1], "check")) check(number);
    else return 64;
    F(close)(database);
    puts("done");
    return 0;
}
