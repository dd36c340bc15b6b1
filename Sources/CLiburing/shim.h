// liburing, and what its macros keep from Swift.
//
// liburing.h asks for _GNU_SOURCE and _XOPEN_SOURCE, with which libc names the fields of some structures otherwise than in the Glibc
// module: a debug build refuses two definitions of one type. So libc's headers come first, as everyone else sees them.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include <liburing.h>
#include <stdint.h>

/// Takes the next completion, if there is one: one load of the ring's tail where there is none, and never a system call.
static inline int dashfs_uring_take(struct io_uring *ring, uint64_t *user_data, int32_t *result) {
    unsigned head = *ring->cq.khead;
    if (head == __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE)) return 0;
    const struct io_uring_cqe *completion = &ring->cq.cqes[head & *ring->cq.kring_mask];
    *user_data = completion->user_data;
    *result = completion->res;
    // Gives the entry back: the kernel may write it from here on.
    __atomic_store_n(ring->cq.khead, head + 1, __ATOMIC_RELEASE);
    return 1;
}

/// The request uses file 0 of the ring's registered files.
static inline void dashfs_uring_use_registered_file(struct io_uring_sqe *entry) {
    entry->fd = 0;
    entry->flags |= IOSQE_FIXED_FILE;
}

/// What a ring may be asked for, or must say in each entry (`type`: IORING_RESTRICTION_...).
static inline struct io_uring_restriction dashfs_uring_restriction(uint16_t type, uint8_t value) {
    return (struct io_uring_restriction){.opcode = type, .sqe_op = value};
}

static inline uint8_t dashfs_uring_registered_file_flag(void) { return IOSQE_FIXED_FILE; }

/// The write is durable when it completes.
static inline void dashfs_uring_set_durable(struct io_uring_sqe *entry) { entry->rw_flags = 2 /* RWF_DSYNC */; }
