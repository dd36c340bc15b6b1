// CPreload: what only libdashfs-preload.so links, and what Swift cannot express of it: the stub that rewritten call sites
// jump to, its slots and lookup tables, thread-local state, and a private memcpy and relatives (in a target of its own, so
// that no other product inherits them). No logic.
#ifndef CPRELOAD_H
#define CPRELOAD_H

#include <csystem.h>
#include <stddef.h>
#include <stdint.h>

#include "cpreload_files.h"
#include "cpreload_layout.h"

#define DASHFS_HIDDEN __attribute__((visibility("hidden")))

#include "cpreload_signals.h"
#include "cpreload_dispatch.h"

// MARK: slots (stub.S; the layout is drawn there and known to Sources/Preload/Slots.swift)

extern DASHFS_HIDDEN uint8_t dashfs_slots[];
/// The entry that every slot calls; slots are written at run time, so it is needed as an address.
extern DASHFS_HIDDEN uint8_t dashfs_stub_enter[];

static inline uintptr_t dashfs_slots_address(void) { return (uintptr_t)dashfs_slots; }
static inline uintptr_t dashfs_stub_enter_address(void) { return (uintptr_t)dashfs_stub_enter; }

extern DASHFS_HIDDEN uint8_t dashfs_call_slots[];
extern DASHFS_HIDDEN uint8_t dashfs_cancellable_call[];

static inline uintptr_t dashfs_call_slots_address(void) { return (uintptr_t)dashfs_call_slots; }
static inline uintptr_t dashfs_cancellable_call_address(void) { return (uintptr_t)dashfs_cancellable_call; }

// MARK: tables and objects (Sources/Preload/TableDirectory.swift, LaterObjects.swift)

enum { DASHFS_SITES_CAPACITY = 1024, DASHFS_SLOT_PAGES = DASHFS_SLOT_COUNT * DASHFS_SLOT_SIZE / 4096, DASHFS_LATER_OBJECTS = 64 };

/// An object whose call sites were rewritten when it was mapped: where its code is, the pages of its slots, and of its redirected calls (as a number + 1). `end` 0: none.
struct dashfs_later_object {
    uint64_t start, end;
    uint32_t page, pages, call_page, unused;
};

extern DASHFS_HIDDEN uint8_t dashfs_sites_bytes[DASHFS_SITES_CAPACITY];
extern DASHFS_HIDDEN uint8_t dashfs_slot_pages[DASHFS_SLOT_PAGES];
extern DASHFS_HIDDEN uint8_t dashfs_call_slot_pages[DASHFS_CALL_SLOT_PAGES];
extern DASHFS_HIDDEN struct dashfs_later_object dashfs_later_objects[DASHFS_LATER_OBJECTS];
extern DASHFS_HIDDEN uint32_t dashfs_later_owner;

static inline uint8_t *_Nonnull dashfs_sites_text(void) { return dashfs_sites_bytes; }
/// Nonzero: the page of slots is in use.
static inline uint8_t *_Nonnull dashfs_slot_page(uint32_t index) { return &dashfs_slot_pages[index % DASHFS_SLOT_PAGES]; }
static inline uint8_t *_Nonnull dashfs_call_slot_page(uint32_t index) { return &dashfs_call_slot_pages[index % DASHFS_CALL_SLOT_PAGES]; }
static inline struct dashfs_later_object *_Nonnull dashfs_later_object_at(uint32_t index) { return &dashfs_later_objects[index % DASHFS_LATER_OBJECTS]; }
static inline uint32_t *_Nonnull dashfs_later_owner_word(void) { return &dashfs_later_owner; }

// MARK: what the stub looks at before it enters Swift

/// By call number: 0 the hook has no interest, 1 it has if the first argument is a hinted descriptor, 2 always.
extern DASHFS_HIDDEN uint8_t dashfs_number_class[DASHFS_NUMBER_LIMIT];
/// By descriptor: nonzero if it may be ours. A superset is always right; descriptors past the end count as hinted.
extern DASHFS_HIDDEN uint8_t dashfs_descriptor_hints[DASHFS_HINT_LIMIT];

static inline void dashfs_set_number_class(uint32_t number, uint8_t value) {
    if (number < DASHFS_NUMBER_LIMIT) dashfs_number_class[number] = value;
}
static inline uint8_t dashfs_number_class_of(uint32_t number) { return number < DASHFS_NUMBER_LIMIT ? dashfs_number_class[number] : 0; }
static inline void dashfs_set_descriptor_hint(uint32_t descriptor, uint8_t value) {
    if (descriptor < DASHFS_HINT_LIMIT) __atomic_store_n(&dashfs_descriptor_hints[descriptor], value, __ATOMIC_RELEASE);
}
static inline uint8_t dashfs_descriptor_hint(uint32_t descriptor) {
    return descriptor < DASHFS_HINT_LIMIT ? __atomic_load_n(&dashfs_descriptor_hints[descriptor], __ATOMIC_ACQUIRE) : 1;
}

// MARK: memory of the program that has been seen to be accessible (Sources/Preload/ProgramMemory.swift)

enum { DASHFS_VERIFIED_RANGES = 4 };

struct dashfs_address_range {
    uint64_t start, end;
};

struct dashfs_verified_ranges {
    uint64_t epoch;
    uint64_t next;
    struct dashfs_address_range ranges[DASHFS_VERIFIED_RANGES];
};

/// Thread-local in the initial-exec model: an access is a move relative to %fs, never a call.
extern DASHFS_HIDDEN __thread __attribute__((tls_model("initial-exec"))) struct dashfs_verified_ranges
    dashfs_readable_ranges, dashfs_writable_ranges;

static inline struct dashfs_verified_ranges *_Nonnull dashfs_thread_readable(void) { return &dashfs_readable_ranges; }
static inline struct dashfs_verified_ranges *_Nonnull dashfs_thread_writable(void) { return &dashfs_writable_ranges; }

/// Grows with every call that may take memory away from the program.
extern DASHFS_HIDDEN uint64_t dashfs_mapping_epoch;

static inline uint64_t dashfs_load_mapping_epoch(void) {
    return __atomic_load_n(&dashfs_mapping_epoch, __ATOMIC_ACQUIRE);
}
static inline void dashfs_advance_mapping_epoch(void) {
    __atomic_fetch_add(&dashfs_mapping_epoch, 1, __ATOMIC_ACQ_REL);
}

// MARK: the objects of the process

struct dashfs_program_header {  // Elf64_Phdr
    uint32_t type, flags;
    uint64_t offset, address, physical_address, file_size, memory_size, alignment;
};

struct dashfs_loaded_object {  // the beginning of struct dl_phdr_info, dl_iterate_phdr(3)
    uint64_t address;
    const char *_Nullable name;
    const struct dashfs_program_header *_Nullable headers;
    uint16_t header_count;
};

typedef int dashfs_object_visitor(struct dashfs_loaded_object *_Nonnull, size_t, void *_Nullable);

/// What is used of libc and ld.so is weak, so that this library needs no other: an instance that has a namespace of its own has neither (EarlyInstance.swift).
/// Under names of ours: <link.h> is part of a module that Embedded Swift has not.
int dashfs_libc_iterate(dashfs_object_visitor *_Nonnull visit, void *_Nullable context)
    __asm__("dl_iterate_phdr") __attribute__((weak, visibility("default")));
static inline _Bool dashfs_has_libc(void) { return &dashfs_libc_iterate != NULL; }
static inline int dashfs_iterate_objects(dashfs_object_visitor *_Nonnull visit, void *_Nullable context) {
    return dashfs_has_libc() ? dashfs_libc_iterate(visit, context) : 0;
}

/// glibc's own note that the process has never had a second thread (<sys/single_threaded.h>, glibc 2.32); set before any
/// initialiser runs.
extern char __libc_single_threaded __attribute__((weak, visibility("default")));
static inline _Bool dashfs_threads_have_run(void) { return &__libc_single_threaded != NULL && !__libc_single_threaded; }

struct dashfs_link {  // the beginning of struct link_map, <link.h>
    uint64_t address;
    const char *_Nullable name;
    const void *_Nullable dynamic;
    const struct dashfs_link *_Nullable next;
};

/// ld.so's _r_debug, the beginning of struct r_debug of <link.h>: the objects of the program's namespace.
extern struct dashfs_debugger_notes {
    int version;
    const struct dashfs_link *_Nullable first;
} dashfs_debugger_notes __asm__("_r_debug") __attribute__((weak, visibility("default")));

extern DASHFS_HIDDEN const uint64_t _DYNAMIC[];
/// By what name this library was loaded into the program's namespace, as long as only one thread runs.
static inline const char *_Nullable dashfs_own_name(void) {
    if (&dashfs_debugger_notes == NULL) return NULL;
    for (const struct dashfs_link *link = dashfs_debugger_notes.first; link != NULL; link = link->next)
        if (link->dynamic == _DYNAMIC) return link->name;
    return NULL;
}

// MARK: unwind information

/// Embedded Swift marks its functions "never unwound through" and gives them no .eh_frame entry, but threads are cancelled
/// inside the hook. LLVM decides for the whole module: one function of C, kept out of line, is enough to have every
/// function's entry written to .eh_frame (and not only to .debug_frame, which is why the library is built with -g).
static inline __attribute__((noinline)) void dashfs_unwind_anchor(void) { __asm__ volatile(""); }

// MARK: for reports and for the probe in the tests

static inline void dashfs_add(uint64_t *_Nonnull counter, uint64_t value) { __atomic_fetch_add(counter, value, __ATOMIC_RELAXED); }

/// Adds one; what was there before.
static inline uint64_t dashfs_take(uint64_t *_Nonnull counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

static inline void dashfs_count(uint64_t *_Nonnull counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

/// Overwrites every register that a function may overwrite, the upper halves of vector registers excepted.
void dashfs_scribble_registers(void) DASHFS_HIDDEN;

#endif
