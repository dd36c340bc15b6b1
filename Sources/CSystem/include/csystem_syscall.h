// System calls by inline assembly, and the words that two processes share.
// Invariant: nothing here calls libc, touches errno or allocates, so every function may be used inside a library that rewrites
// libc's system-call sites, in a signal handler and in a fresh child. Results are the kernel's own: >= 0, or a negated errno.
#ifndef CSYSTEM_SYSCALL_H
#define CSYSTEM_SYSCALL_H

#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <poll.h>

// MARK: Raw system calls

static inline long dashfs_sys_call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long dashfs_sys_close(int fd) { return dashfs_sys_call(SYS_close, fd, 0, 0, 0, 0, 0); }

/// Fills `bytes` (at most 256) with random numbers: `count`, or a negated errno.
static inline long dashfs_sys_random(void *_Nonnull bytes, size_t count) { return dashfs_sys_call(SYS_getrandom, (long)bytes, (long)count, 0, 0, 0, 0); }

static inline long dashfs_sys_getpid(void) { return dashfs_sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0); }

static inline long dashfs_sys_read(int fd, void *_Nonnull bytes, size_t count) {
    return dashfs_sys_call(SYS_read, fd, (long)bytes, (long)count, 0, 0, 0);
}

static inline long dashfs_sys_write(int fd, const void *_Nonnull bytes, size_t count) {
    return dashfs_sys_call(SYS_write, fd, (long)bytes, (long)count, 0, 0, 0);
}

static inline long dashfs_sys_ftruncate(int fd, int64_t size) {
    return dashfs_sys_call(SYS_ftruncate, fd, size, 0, 0, 0, 0);
}

static inline long dashfs_sys_fchmod(int fd, unsigned mode) { return dashfs_sys_call(SYS_fchmod, fd, mode, 0, 0, 0, 0); }

static inline long dashfs_sys_chmod(const char *_Nonnull path, unsigned mode) {
    return dashfs_sys_call(SYS_fchmodat, AT_FDCWD, (long)path, mode, 0, 0, 0);
}

static inline long dashfs_sys_unlink(const char *_Nonnull path) {
    return dashfs_sys_call(SYS_unlink, (long)path, 0, 0, 0, 0, 0);
}

static inline long dashfs_sys_open(const char *_Nonnull path, int flags, unsigned mode) {
    return dashfs_sys_call(SYS_openat, AT_FDCWD, (long)path, flags, mode, 0, 0);
}

/// A duplicate of `fd` with the lowest free number >= `floor`, close-on-exec.
static inline long dashfs_duplicate_above(int fd, int floor) {
    return dashfs_sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, floor, 0, 0, 0);
}

// MARK: Memory

/// Maps `length` bytes of `fd` (-1: anonymous, private) at an address of the kernel's choice; the address, or a negated errno.
static inline long dashfs_sys_map(int fd, size_t length, int protection, int flags) {
    return dashfs_sys_call(SYS_mmap, 0, (long)length, protection, flags, fd, 0);
}

static inline long dashfs_sys_unmap(void *_Nonnull address, size_t length) {
    return dashfs_sys_call(SYS_munmap, (long)address, (long)length, 0, 0, 0, 0);
}

static inline long dashfs_sys_advise(void *_Nonnull address, size_t length, int advice) {
    return dashfs_sys_call(SYS_madvise, (long)address, (long)length, advice, 0, 0, 0);
}

#ifndef MADV_DONTFORK
#define MADV_DONTFORK 10
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

enum {
    dashfs_advice_dontfork = MADV_DONTFORK,
    dashfs_advice_wipeonfork = MADV_WIPEONFORK,
    dashfs_protection_read = PROT_READ,
    dashfs_protection_write = PROT_WRITE,
    dashfs_map_shared = MAP_SHARED,
    dashfs_map_private = MAP_PRIVATE,
    dashfs_map_anonymous = MAP_ANONYMOUS,
    dashfs_map_populate = MAP_POPULATE,
    dashfs_map_noreserve = MAP_NORESERVE,
};

#define DASHFS_MFD_CLOEXEC 1u
#define DASHFS_MFD_ALLOW_SEALING 2u
#define DASHFS_MFD_NOEXEC_SEAL 8u

/// A sealable memfd whose pages can never be executed (Linux 6.3 asks for it by a flag; older kernels know only the rest).
static inline long dashfs_sys_memfd(const char *_Nonnull name) {
    long fd = dashfs_sys_call(
        SYS_memfd_create, (long)name, DASHFS_MFD_CLOEXEC | DASHFS_MFD_ALLOW_SEALING | DASHFS_MFD_NOEXEC_SEAL, 0, 0, 0, 0);
    if (fd == -22)
        fd = dashfs_sys_call(SYS_memfd_create, (long)name, DASHFS_MFD_CLOEXEC | DASHFS_MFD_ALLOW_SEALING, 0, 0, 0, 0);
    return fd;
}

/// A memfd that nobody can ever seal.
static inline long dashfs_sys_memfd_unsealable(const char *_Nonnull name) {
    long fd = dashfs_sys_call(SYS_memfd_create, (long)name, DASHFS_MFD_CLOEXEC | 16u /* MFD_EXEC */, 0, 0, 0, 0);
    if (fd == -22) fd = dashfs_sys_call(SYS_memfd_create, (long)name, DASHFS_MFD_CLOEXEC, 0, 0, 0, 0);
    return fd;
}

static inline long dashfs_sys_pread(int fd, void *_Nonnull bytes, size_t count, int64_t offset) {
    return dashfs_sys_call(SYS_pread64, fd, (long)bytes, (long)count, offset, 0, 0);
}

static inline long dashfs_sys_pwrite(int fd, const void *_Nonnull bytes, size_t count, int64_t offset) {
    return dashfs_sys_call(SYS_pwrite64, fd, (long)bytes, (long)count, offset, 0, 0);
}

static inline long dashfs_sys_fallocate(int fd, int mode, int64_t offset, int64_t count) {
    return dashfs_sys_call(SYS_fallocate, fd, mode, offset, count, 0, 0);
}

static inline long dashfs_sys_lseek(int fd, int64_t offset, int whence) {
    return dashfs_sys_call(SYS_lseek, fd, offset, whence, 0, 0, 0);
}

/// fcntl(F_SETLEASE): 1 F_WRLCK, 2 F_UNLCK.
static inline long dashfs_sys_lease(int fd, int kind) {
    return dashfs_sys_call(SYS_fcntl, fd, 1024, kind, 0, 0, 0);
}

#define DASHFS_SEAL_SEAL 1
#define DASHFS_SEAL_SHRINK 2
#define DASHFS_SEAL_GROW 4
#define DASHFS_SEAL_FUTURE_WRITE 16

static inline long dashfs_sys_add_seals(int fd, int seals) {
    return dashfs_sys_call(SYS_fcntl, fd, 1033 /* F_ADD_SEALS */, seals, 0, 0, 0);
}

/// Whether a descriptor stands for a name only (O_PATH).
static inline _Bool dashfs_is_path_only(int fd) {
    long flags = dashfs_sys_call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
    return flags >= 0 && flags & 010000000;
}
static inline long dashfs_sys_get_seals(int fd) { return dashfs_sys_call(SYS_fcntl, fd, 1034 /* F_GET_SEALS */, 0, 0, 0, 0); }

// MARK: Waiting and waking

/// Sleeps while `*word` is `expected`, at most `nanoseconds` (< 0: no limit). Works on a read-only mapping. 0, -EAGAIN, -EINTR, -ETIMEDOUT.
static inline long dashfs_sys_futex_wait(const void *_Nonnull word, uint32_t expected, int64_t nanoseconds) {
    struct timespec limit = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return dashfs_sys_call(SYS_futex, (long)word, FUTEX_WAIT, expected, nanoseconds < 0 ? 0 : (long)&limit, 0, 0);
}

/// The same, with a limit, for a wait that signal handlers with SA_RESTART do not end: the kernel goes on with futex_waitv(2) behind them, because its
/// limit is a moment. The plain call, which every handler ends, where the kernel (before 5.16) or a filter has no such call.
static inline long dashfs_sys_futex_wait_restarting(const void *_Nonnull word, uint32_t expected, int64_t nanoseconds) {
    struct { uint64_t value, address; uint32_t flags, reserved; } waiter = {expected, (uint64_t)word, 2 /* 32 bits, shared */, 0};
    struct timespec limit;
    long result = dashfs_sys_call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&limit, 0, 0, 0, 0);
    if (result == 0) {
        int64_t sum = limit.tv_nsec + nanoseconds % 1000000000;
        limit.tv_sec += nanoseconds / 1000000000 + sum / 1000000000;
        limit.tv_nsec = sum % 1000000000;
        result = dashfs_sys_call(449 /* futex_waitv */, (long)&waiter, 1, 0, (long)&limit, CLOCK_MONOTONIC, 0);
        if (result >= 0) return 0;
        if (result == -4 || result == -11 || result == -110) return result;
    }
    return dashfs_sys_futex_wait(word, expected, nanoseconds);
}

static inline long dashfs_sys_futex_wake(const void *_Nonnull word, int count) {
    return dashfs_sys_call(SYS_futex, (long)word, FUTEX_WAKE, count, 0, 0, 0);
}

static inline long dashfs_sys_eventfd(void) {
    return dashfs_sys_call(SYS_eventfd2, 0, 02000000 | 04000 /* EFD_CLOEXEC | EFD_NONBLOCK */, 0, 0, 0, 0);
}

static inline long dashfs_eventfd_ring(int fd) {
    uint64_t one = 1;
    return dashfs_sys_call(SYS_write, fd, (long)&one, sizeof one, 0, 0, 0);
}

/// Takes back what was rung.
static inline long dashfs_eventfd_take(int fd) {
    uint64_t rings;
    return dashfs_sys_call(SYS_read, fd, (long)&rings, sizeof rings, 0, 0, 0);
}

/// The events that `fd` shows within `milliseconds` (< 0: no limit), 0, or a negated errno.
static inline long dashfs_sys_poll(int fd, short events, int milliseconds) {
    struct pollfd entry = {fd, events, 0};
    struct timespec limit = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    long result = dashfs_sys_call(SYS_ppoll, (long)&entry, 1, milliseconds < 0 ? 0 : (long)&limit, 0, 8, 0);
    return result > 0 ? entry.revents : result;
}

static inline long dashfs_sys_epoll_create(void) { return dashfs_sys_call(SYS_epoll_create1, 02000000, 0, 0, 0, 0, 0); }

static inline long dashfs_sys_epoll_add(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return dashfs_sys_call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, (long)&event, 0, 0);
}

static inline long dashfs_sys_epoll_remove(int epoll, int fd) {
    struct epoll_event event = {0};
    return dashfs_sys_call(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, fd, (long)&event, 0, 0);
}

static inline long dashfs_sys_epoll_wait(int epoll, struct epoll_event *_Nonnull events, int count, int milliseconds) {
    return dashfs_sys_call(SYS_epoll_pwait, epoll, (long)events, count, milliseconds, 0, 8);
}

static inline uint64_t dashfs_epoll_data(const struct epoll_event *_Nonnull event) { return event->data.u64; }
static inline uint32_t dashfs_epoll_events(const struct epoll_event *_Nonnull event) { return event->events; }

enum {
    dashfs_epoll_in = EPOLLIN,
    dashfs_epoll_hangup = EPOLLHUP,
    dashfs_epoll_error = EPOLLERR,
    dashfs_epoll_peer_closed = EPOLLRDHUP,
};
static inline uint32_t dashfs_epoll_edge(void) { return EPOLLET; }

// MARK: Sockets

/// An unbound SOCK_SEQPACKET socket.
static inline long dashfs_sys_seqpacket(void) {
    return dashfs_sys_call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, 0, 0, 0);
}

/// Fills `address` from a path of `length` bytes (< 108); its size, or 0 where the path is too long.
static inline unsigned dashfs_unix_address(
    struct sockaddr_un *_Nonnull address, const char *_Nonnull path, size_t length) {
    if (length == 0 || length >= sizeof address->sun_path) return 0;
    address->sun_family = AF_UNIX;
    for (size_t i = 0; i < length; i++) ((volatile char *)address->sun_path)[i] = path[i];
    address->sun_path[length] = 0;
    return (unsigned)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

static inline long dashfs_sys_connect_unix(int fd, const char *_Nonnull path, size_t length) {
    struct sockaddr_un address;
    unsigned size = dashfs_unix_address(&address, path, length);
    if (size == 0) return -36;
    return dashfs_sys_call(SYS_connect, fd, (long)&address, size, 0, 0, 0);
}

static inline long dashfs_sys_bind_unix(int fd, const char *_Nonnull path, size_t length) {
    struct sockaddr_un address;
    unsigned size = dashfs_unix_address(&address, path, length);
    if (size == 0) return -36;
    return dashfs_sys_call(SYS_bind, fd, (long)&address, size, 0, 0, 0);
}

/// Lets `fd` listen, and makes accept on it never wait.
static inline long dashfs_sys_listen(int fd, int backlog) {
    long result = dashfs_sys_call(SYS_fcntl, fd, F_SETFL, O_NONBLOCK, 0, 0, 0);
    return result < 0 ? result : dashfs_sys_call(SYS_listen, fd, backlog, 0, 0, 0, 0);
}

static inline long dashfs_sys_accept(int fd) {
    return dashfs_sys_call(SYS_accept4, fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0);
}

static inline long dashfs_sys_shutdown(int fd) { return dashfs_sys_call(SYS_shutdown, fd, 2, 0, 0, 0, 0); }

/// Sends and receives give up after `milliseconds`.
static inline long dashfs_socket_timeout(int fd, int milliseconds) {
    struct timeval limit = {milliseconds / 1000, (milliseconds % 1000) * 1000L};
    long result = dashfs_sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, (long)&limit, sizeof limit, 0);
    if (result < 0) return result;
    return dashfs_sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&limit, sizeof limit, 0);
}

/// SOCK_STREAM or another kind of socket; 0: it is none.
static inline int dashfs_socket_type(int fd) {
    int type = 0;
    socklen_t length = sizeof type;
    return dashfs_sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, (long)&type, (long)&length, 0) == 0 ? type : 0;
}
static inline _Bool dashfs_is_socket(int fd) { return dashfs_socket_type(fd) != 0; }
static inline _Bool dashfs_is_seqpacket(int fd) { return dashfs_socket_type(fd) == SOCK_SEQPACKET; }

struct dashfs_peer {
    int32_t process;
    uint32_t user;
    uint32_t group;
};

/// Who connected, as the kernel saw it at connect(2).
static inline long dashfs_peer_credentials(int fd, struct dashfs_peer *_Nonnull peer) {
    struct { int32_t pid; uint32_t uid, gid; } credentials = {0, 0, 0};
    unsigned length = sizeof credentials;
    long result = dashfs_sys_call(
        SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&credentials, (long)&length, 0);
    peer->process = credentials.pid;
    peer->user = credentials.uid;
    peer->group = credentials.gid;
    return result;
}

/// Supplementary groups of who connected: how many of them were written to `groups`, or a negated errno (-ERANGE: more than `capacity`).
static inline long dashfs_peer_groups(int fd, uint32_t *_Nonnull groups, unsigned capacity) {
    unsigned length = capacity * 4;
    long result = dashfs_sys_call(
        SYS_getsockopt, fd, SOL_SOCKET, 59 /* SO_PEERGROUPS */, (long)groups, (long)&length, 0);
    return result < 0 ? result : (long)(length / 4);
}

/// A pidfd of who connected: by the socket (Linux 6.5), else by its process id.
static inline long dashfs_peer_pidfd(int fd, int32_t process) {
    int pidfd = -1;
    unsigned length = sizeof pidfd;
    long result = dashfs_sys_call(
        SYS_getsockopt, fd, SOL_SOCKET, 77 /* SO_PEERPIDFD */, (long)&pidfd, (long)&length, 0);
    if (result == 0) return pidfd;
    return dashfs_sys_call(434 /* pidfd_open */, process, 0, 0, 0, 0, 0);
}

/// Sends one packet with up to four descriptors. Never raises SIGPIPE.
static inline long dashfs_send_packet(
    int fd, const void *_Nonnull bytes, size_t count, const int32_t *_Nullable descriptors, int descriptorCount, int flags) {
    struct iovec part = {(void *)bytes, count};
    union { struct cmsghdr header; char space[CMSG_SPACE(4 * sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptorCount > 0 && descriptorCount <= 4) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)descriptorCount * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN((size_t)descriptorCount * sizeof(int));
        for (int i = 0; i < descriptorCount; i++) ((volatile int *)CMSG_DATA(&control.header))[i] = descriptors[i];
    }
    return dashfs_sys_call(SYS_sendmsg, fd, (long)&message, MSG_NOSIGNAL | flags, 0, 0, 0);
}

/// Sends one packet of two parts, the second possibly empty. Never raises SIGPIPE.
static inline long dashfs_send_two_parts(
    int fd, const void *_Nonnull first, size_t firstCount, const void *_Nullable second, size_t secondCount) {
    struct iovec parts[2] = {{(void *)first, firstCount}, {(void *)second, secondCount}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = second && secondCount ? 2 : 1};
    return dashfs_sys_call(SYS_sendmsg, fd, (long)&message, MSG_NOSIGNAL, 0, 0, 0);
}

/// Receives one packet. `descriptors` has room for four; `*descriptorCount` is how many came (-1: the packet or its descriptors did not fit, or
/// more than four came: all are closed). Descriptors are close-on-exec.
static inline long dashfs_receive_packet(
    int fd, void *_Nonnull bytes, size_t capacity, int32_t *_Nonnull descriptors, int32_t *_Nonnull descriptorCount, int flags) {
    struct iovec part = {bytes, capacity};
    union { struct cmsghdr header; char space[CMSG_SPACE(4 * sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long result = dashfs_sys_call(SYS_recvmsg, fd, (long)&message, MSG_CMSG_CLOEXEC | flags, 0, 0, 0);
    int count = 0;
    if (result >= 0 && message.msg_controllen >= sizeof(struct cmsghdr) && control.header.cmsg_level == SOL_SOCKET
        && control.header.cmsg_type == SCM_RIGHTS) {
        count = (int)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
        if (count > 4) count = 4;
        for (int i = 0; i < count; i++) descriptors[i] = ((volatile int *)CMSG_DATA(&control.header))[i];
    }
    if (result >= 0 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        for (int i = 0; i < count; i++) dashfs_sys_close(descriptors[i]);
        count = -1;
    }
    *descriptorCount = count;
    return result;
}

/// Without a flag: waits. With: EAGAIN instead.
enum { dashfs_dont_wait = MSG_DONTWAIT };

// MARK: Processes and signals

/// Blocks every signal of the calling thread and returns the mask that was; `dashfs_signals_restore` puts it back.
static inline uint64_t dashfs_signals_block(void) {
    uint64_t all = ~0ull, old = 0;
    dashfs_sys_call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&all, (long)&old, 8, 0, 0);
    return old;
}

static inline void dashfs_signals_restore(uint64_t mask) {
    dashfs_sys_call(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&mask, 0, 8, 0, 0);
}

/// A descriptor that becomes readable when one of the signals of `mask` (bit n-1: signal n) arrives; they are blocked in this thread.
static inline long dashfs_sys_signalfd(uint64_t mask) {
    dashfs_sys_call(SYS_rt_sigprocmask, 0, (long)&mask, 0, 8, 0, 0);
    return dashfs_sys_call(SYS_signalfd4, -1, (long)&mask, 8, 02000000 | 04000, 0, 0);
}

/// How many processors the calling thread may run on.
static inline int dashfs_processors(void) {
    uint64_t mask[16] = {0};
    long bytes = dashfs_sys_call(SYS_sched_getaffinity, 0, sizeof mask, (long)mask, 0, 0, 0);
    int count = 0;
    for (long i = 0; i < bytes / 8; i++) count += __builtin_popcountll(mask[i]);
    return count > 0 ? count : 1;
}

// MARK: Words that two processes share

// Every shared word is fetched by one of these, once: the compiler cannot read it a second time.
static inline uint64_t dashfs_load64(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t dashfs_load32(const void *_Nonnull p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
static inline uint64_t dashfs_load64_acquire(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE); }
static inline uint32_t dashfs_load32_acquire(const void *_Nonnull p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
static inline void dashfs_store64(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
static inline void dashfs_store32(void *_Nonnull p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
static inline void dashfs_store64_release(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE); }
static inline void dashfs_store32_release(void *_Nonnull p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }

static inline _Bool dashfs_swap32_if(void *_Nonnull p, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n((uint32_t *)p, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/// Everything before is seen by others before anything after is read here. A locked no-op on the stack is cheaper than mfence.
static inline void dashfs_full_fence(void) { __asm__ volatile("lock; orl $0, (%%rsp)" ::: "memory", "cc"); }

/// Lets another thread of this processor run.
static inline void dashfs_yield(void) { dashfs_sys_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0); }

static inline void dashfs_pause(void) { __asm__ volatile("pause" ::: "memory"); }

/// Processor cycles: for budgets and histograms, never for correctness.
static inline uint64_t dashfs_cycles(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void dashfs_copy(void *_Nonnull to, const void *_Nonnull from, size_t count) { __builtin_memcpy(to, from, count); }

static inline _Bool dashfs_has_nul(const void *_Nonnull bytes, size_t count) { return __builtin_memchr(bytes, 0, count) != 0; }

/// Coarse clocks (a timer tick, as the kernel's own file systems stamp files), read without a system call.
static inline int64_t dashfs_clock_wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline uint64_t dashfs_clock_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline uint64_t dashfs_clock_monotonic_coarse(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/// Monotonic nanoseconds by a system call: for the client's time limits, where libc must not be called.
static inline uint64_t dashfs_raw_monotonic(void) {
    struct timespec now = {0, 0};
    dashfs_sys_call(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, (long)&now, 0, 0, 0, 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/// A word of the calling thread, zero at first: which channel it used last.
extern __thread uint32_t dashfs_thread_hint_word __attribute__((tls_model("initial-exec"), visibility("hidden")));
static inline uint32_t dashfs_thread_hint(void) { return dashfs_thread_hint_word; }
static inline void dashfs_set_thread_hint(uint32_t value) { dashfs_thread_hint_word = value; }

#endif
