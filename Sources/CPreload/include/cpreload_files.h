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
    DASHFS_BORROWERS = 8,
    DASHFS_SCRATCH_BLOCKS = 32,
    DASHFS_SCRATCH_BYTES = 16384,
    /// Maps of files that a process may have; the kernel's own limit is 65,530 maps of everything.
    DASHFS_MAP_LIMIT = 16384,
};

/// Memory [start, end) that a file has been mapped to, from byte `offset` of it on. `state`: 0 free, 1 being filled in, 2 valid. `description`: the index, + 1, of
/// the open file by which it may become writable, kept open for that.
struct dashfs_map {
    uint64_t start, end, inode, offset;
    uint32_t state, is_shared, description, unused;
};

/// An open description as this process knows it. `references` is the only word that changes while it is used.
struct dashfs_description {
    uint32_t references;
    int32_t handle;
    /// Of the connection that `handle` belongs to: another value than the present one means that a fork or exec lies between.
    uint32_t generation;
    uint32_t mode;
    uint64_t inode;
    uint64_t session;
};

/// The working directory of a vfork child that has changed its own: it may not change what is its parent's memory too.
struct dashfs_borrower {
    int64_t process;
    uint64_t inode;
    uint32_t is_ours, length;
    uint8_t text[DASHFS_TEXT_CAPACITY];
};

extern __attribute__((visibility("hidden"))) struct dashfs_borrower dashfs_borrowers[DASHFS_BORROWERS];
extern __attribute__((visibility("hidden"))) uint32_t dashfs_entries[DASHFS_DESCRIPTOR_LIMIT + 1];
extern __attribute__((visibility("hidden"))) struct dashfs_description dashfs_descriptions[DASHFS_DESCRIPTION_LIMIT];
extern __attribute__((visibility("hidden"))) struct dashfs_map dashfs_maps[DASHFS_MAP_LIMIT];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_prefix_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_socket_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint8_t dashfs_directory_bytes[DASHFS_TEXT_CAPACITY];
extern __attribute__((visibility("hidden"))) uint32_t dashfs_scratch_words[DASHFS_SCRATCH_BLOCKS];
extern __attribute__((visibility("hidden"), aligned(4096))) uint8_t dashfs_scratch[DASHFS_SCRATCH_BLOCKS][DASHFS_SCRATCH_BYTES];

static inline uint32_t *_Nonnull dashfs_entry(uint32_t index) {
    return &dashfs_entries[index <= DASHFS_DESCRIPTOR_LIMIT ? index : DASHFS_DESCRIPTOR_LIMIT];
}
static inline struct dashfs_description *_Nonnull dashfs_description_at(uint32_t index) {
    return &dashfs_descriptions[index % DASHFS_DESCRIPTION_LIMIT];
}
static inline struct dashfs_borrower *_Nonnull dashfs_borrower_at(uint32_t index) {
    return &dashfs_borrowers[index % DASHFS_BORROWERS];
}
static inline struct dashfs_map *_Nonnull dashfs_map_at(uint32_t index) { return &dashfs_maps[index % DASHFS_MAP_LIMIT]; }
static inline uint32_t *_Nonnull dashfs_map_state(struct dashfs_map *_Nonnull map) { return &map->state; }
static inline uint8_t *_Nonnull dashfs_borrower_text(struct dashfs_borrower *_Nonnull borrower) { return borrower->text; }
static inline uint8_t *_Nonnull dashfs_prefix_text(void) { return dashfs_prefix_bytes; }
static inline uint8_t *_Nonnull dashfs_socket_text(void) { return dashfs_socket_bytes; }
static inline uint8_t *_Nonnull dashfs_directory_text(void) { return dashfs_directory_bytes; }
static inline uint32_t *_Nonnull dashfs_scratch_word(uint32_t index) {
    return &dashfs_scratch_words[index % DASHFS_SCRATCH_BLOCKS];
}
static inline uint8_t *_Nonnull dashfs_scratch_block(uint32_t index) { return dashfs_scratch[index % DASHFS_SCRATCH_BLOCKS]; }

/// The scratch block, + 1, in which the calling thread prepares an exec; 0 at first.
extern __thread uint32_t dashfs_exec_block __attribute__((tls_model("initial-exec"), visibility("hidden")));
static inline uint32_t dashfs_thread_exec_block(void) { return dashfs_exec_block; }
static inline void dashfs_set_thread_exec_block(uint32_t value) { dashfs_exec_block = value; }

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
