// The state behind the answered system calls, in zeroed static memory: it needs no allocator, costs nothing until touched, and is there in
// signal handlers and fresh children. Sources/Preload/SystemCalls/ gives it its meaning; here are only places and atomic accesses.
#ifndef CPRELOAD_FILES_H
#define CPRELOAD_FILES_H

#include <stddef.h>
#include <stdint.h>

enum {
    DASHFS_TEXT_CAPACITY = 4096,
    /// Descriptors from here on are never DashFS's: an open that is given one fails with EMFILE.
    DASHFS_DESCRIPTOR_LIMIT = 65536,
    /// One more table entry than descriptors: the working directory.
    DASHFS_DIRECTORY_ENTRY = DASHFS_DESCRIPTOR_LIMIT,
    DASHFS_DESCRIPTION_LIMIT = 65536,
    DASHFS_THREAD_BLOCKS = 64,
    DASHFS_BLOCK_TEXT = 4096,
    DASHFS_BLOCK_ENTRIES = 8192,
    DASHFS_BLOCK_EXEC = 8192 + (260 << 10),
    DASHFS_EXEC_BYTES = 256 << 10,
    DASHFS_BLOCK_BYTES = DASHFS_BLOCK_EXEC + DASHFS_EXEC_BYTES,
    DASHFS_SETTINGS_BYTES = 16384,
    DASHFS_SCRATCH_BLOCKS = 32,
    DASHFS_SCRATCH_BYTES = 16384,
    /// Maps of files that a process may have; the kernel's own limit is 65,530 maps of everything.
    DASHFS_MAP_LIMIT = 16384,
};

/// Memory [start, end) that a file has been mapped to, from byte `offset` of it on. `state`: 0 free, 1 being filled in, 2 valid. `is_written`: shared, and
/// stores are possible. `description`: the index, + 1, of the open file by which it was made, which it keeps open as in the kernel: its locks stay, and it may become writable; 0: none.
struct dashfs_map {
    uint64_t start, end, inode, offset;
    uint32_t state, is_shared, description, is_written;
};

/// An open description as this process knows it. `references` is the only word that changes while it is used.
struct dashfs_description {
    uint32_t references;
    int32_t handle;
    /// Another value than the present one: it was lost, with a fork that nobody announced or with its server.
    uint32_t generation;
    uint32_t mode;
    uint64_t inode;
};

/// What a thread needs once it makes a child that shares its memory, or another program: mapped, and its pages are touched as they are used.
///
///     0          this: what a vfork child has of its own while its memory is its parent's. Its process is 0 where no child has changed anything
///     4096       the child's working directory
///     8192       the child's table of descriptors
///     8192 + 260 KiB    room to put together an exec's arguments and environment
struct dashfs_thread_block {
    int64_t process;
    uint32_t has_directory, is_ours, length;
    uint32_t has_table, end;
    /// Of the exec under way: how many scripts have led to the program that is run.
    uint32_t chain;
    uint64_t inode;
    /// Of that exec: the path that the program gave, in its memory; 0: none.
    uint64_t name;
};
/// A block and the thread that has it, 0: nobody.
struct dashfs_thread_place {
    uint32_t owner;
    struct dashfs_thread_block *_Nullable block;
};

extern __attribute__((visibility("hidden"))) struct dashfs_thread_place dashfs_thread_places[DASHFS_THREAD_BLOCKS];
extern __attribute__((visibility("hidden"))) uint32_t dashfs_entries[DASHFS_DESCRIPTOR_LIMIT + 1];
extern __attribute__((visibility("hidden"))) struct dashfs_description dashfs_descriptions[DASHFS_DESCRIPTION_LIMIT];
extern __attribute__((visibility("hidden"))) struct dashfs_map dashfs_maps[DASHFS_MAP_LIMIT];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_prefix_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_socket_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_directory_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_program_bytes[2 * DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_preload_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_settings_bytes[DASHFS_SETTINGS_BYTES];
extern __attribute__((visibility("hidden"))) uint32_t dashfs_scratch_words[DASHFS_SCRATCH_BLOCKS];
extern __attribute__((visibility("hidden"), aligned(4096))) uint8_t dashfs_scratch[DASHFS_SCRATCH_BLOCKS][DASHFS_SCRATCH_BYTES];

static inline uint32_t *_Nonnull dashfs_entry(uint32_t index) {
    return &dashfs_entries[index <= DASHFS_DESCRIPTOR_LIMIT ? index : DASHFS_DESCRIPTOR_LIMIT];
}
static inline struct dashfs_description *_Nonnull dashfs_description_at(uint32_t index) {
    return &dashfs_descriptions[index % DASHFS_DESCRIPTION_LIMIT];
}
static inline struct dashfs_thread_place *_Nonnull dashfs_thread_place_at(uint32_t index) {
    return &dashfs_thread_places[index % DASHFS_THREAD_BLOCKS];
}
static inline uint8_t *_Nonnull dashfs_block_text(struct dashfs_thread_block *_Nonnull block) { return (uint8_t *)block + DASHFS_BLOCK_TEXT; }
static inline uint8_t *_Nonnull dashfs_block_exec(struct dashfs_thread_block *_Nonnull block) { return (uint8_t *)block + DASHFS_BLOCK_EXEC; }
static inline uint32_t *_Nonnull dashfs_block_entry(struct dashfs_thread_block *_Nonnull block, uint32_t index) {
    uint32_t *entries = (uint32_t *)(void *)((uint8_t *)block + DASHFS_BLOCK_ENTRIES);
    return &entries[index <= DASHFS_DESCRIPTOR_LIMIT ? index : DASHFS_DESCRIPTOR_LIMIT];
}
static inline struct dashfs_map *_Nonnull dashfs_map_at(uint32_t index) { return &dashfs_maps[index % DASHFS_MAP_LIMIT]; }
static inline uint32_t *_Nonnull dashfs_map_state(struct dashfs_map *_Nonnull map) { return &map->state; }
static inline uint8_t *_Nonnull dashfs_prefix_text(void) { return dashfs_prefix_bytes; }
static inline uint8_t *_Nonnull dashfs_socket_text(void) { return dashfs_socket_bytes; }
static inline uint8_t *_Nonnull dashfs_directory_text(void) { return dashfs_directory_bytes; }
/// The program's path in the volume and, from DASHFS_TEXT_CAPACITY on, the path by which it was started, each with its zero.
static inline uint8_t *_Nonnull dashfs_program_text(void) { return dashfs_program_bytes; }
/// The program's LD_PRELOAD as it was started, and its DASHFS_ variables, each with its zero.
static inline uint8_t *_Nonnull dashfs_preload_text(void) { return dashfs_preload_bytes; }
static inline uint8_t *_Nonnull dashfs_settings_text(void) { return dashfs_settings_bytes; }
static inline uint32_t *_Nonnull dashfs_scratch_word(uint32_t index) {
    return &dashfs_scratch_words[index % DASHFS_SCRATCH_BLOCKS];
}
static inline uint8_t *_Nonnull dashfs_scratch_block(uint32_t index) { return dashfs_scratch[index % DASHFS_SCRATCH_BLOCKS]; }

/// The calling thread's block, and the same while a vfork child has changed something in it: null at first. A vfork child has its parent thread's.
extern __thread struct dashfs_thread_block *_Nullable dashfs_own_block __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern __thread struct dashfs_thread_block *_Nullable dashfs_lent_block __attribute__((tls_model("initial-exec"), visibility("hidden")));
static inline struct dashfs_thread_block *_Nullable dashfs_thread_block(void) { return dashfs_own_block; }
static inline void dashfs_set_thread_block(struct dashfs_thread_block *_Nullable block) { dashfs_own_block = block; }
static inline struct dashfs_thread_block *_Nullable dashfs_borrowed_block(void) { return dashfs_lent_block; }
static inline void dashfs_set_borrowed_block(struct dashfs_thread_block *_Nullable block) { dashfs_lent_block = block; }

static inline uint32_t dashfs_exchange32(uint32_t *_Nonnull word, uint32_t value) {
    return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}
/// Both return what was there before.
static inline uint32_t dashfs_fetch_add32(uint32_t *_Nonnull word, uint32_t value) {
    return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL);
}
static inline uint32_t dashfs_fetch_subtract32(uint32_t *_Nonnull word, uint32_t value) {
    return __atomic_fetch_sub(word, value, __ATOMIC_ACQ_REL);
}

#endif
