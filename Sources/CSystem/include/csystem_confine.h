// What a process gives up for good: the structures of seccomp(2), landlock(7) and capset(2), whose macros Swift does not see.
// Results are the kernel's own: >= 0, or a negated errno.
#ifndef CSYSTEM_CONFINE_H
#define CSYSTEM_CONFINE_H

#include "csystem_syscall.h"
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

/// One instruction of a seccomp program (classic BPF).
static inline struct sock_filter dashfs_filter_instruction(uint16_t code, uint8_t ifTrue, uint8_t ifFalse, uint32_t value) {
    struct sock_filter instruction = {code, ifTrue, ifFalse, value};
    return instruction;
}

enum {
    dashfs_filter_load = BPF_LD | BPF_W | BPF_ABS,
    dashfs_filter_jump_if_equal = BPF_JMP | BPF_JEQ | BPF_K,
    dashfs_filter_jump_if_any_bit = BPF_JMP | BPF_JSET | BPF_K,
    dashfs_filter_return = BPF_RET | BPF_K,
    dashfs_filter_number_offset = offsetof(struct seccomp_data, nr),
    dashfs_filter_architecture_offset = offsetof(struct seccomp_data, arch),
    dashfs_filter_arguments_offset = offsetof(struct seccomp_data, args),
};
static inline uint32_t dashfs_filter_architecture(void) { return AUDIT_ARCH_X86_64; }
static inline uint32_t dashfs_filter_allow(void) { return SECCOMP_RET_ALLOW; }
static inline uint32_t dashfs_filter_refuse(void) { return SECCOMP_RET_ERRNO | 1 /* EPERM */; }
static inline uint32_t dashfs_filter_kill(void) { return SECCOMP_RET_KILL_PROCESS; }

/// Puts the program before every system call of every thread of this process. Needs no new privileges to be promised first.
static inline long dashfs_install_filter(const struct sock_filter *_Nonnull program, uint16_t count) {
    struct sock_fprog whole = {count, (struct sock_filter *)program};
    return dashfs_sys_call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, (long)&whole, 0, 0, 0);
}

/// No core dumps, no ptrace, no /proc/PID/fd for others of the same user; no new privileges by exec.
static inline long dashfs_forbid_new_privileges(void) {
    long result = dashfs_sys_call(SYS_prctl, 4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0, 0);
    return result < 0 ? result : dashfs_sys_call(SYS_prctl, 38 /* PR_SET_NO_NEW_PRIVS */, 1, 0, 0, 0, 0);
}

/// The calling thread, and those it will make, have no capability any more.
static inline long dashfs_drop_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    return dashfs_sys_call(SYS_capset, (long)&header, (long)none, 0, 0, 0, 0);
}

/// The calling thread becomes this user for good, without supplementary groups.
static inline long dashfs_become(uint32_t user, uint32_t group) {
    long result = dashfs_sys_call(SYS_setgroups, 0, 0, 0, 0, 0, 0);
    if (result == 0) result = dashfs_sys_call(SYS_setresgid, group, group, group, 0, 0, 0);
    return result < 0 ? result : dashfs_sys_call(SYS_setresuid, user, user, user, 0, 0, 0);
}

/// From now on the calling thread, and those it will make, can do nothing to any file by name but remove files below `directory`.
/// -EOPNOTSUPP, -ENOSYS: this kernel has no Landlock.
static inline long dashfs_close_file_system(const char *_Nonnull directory) {
    // landlock(7); the numbers are those of <linux/landlock.h>, which older systems lack.
    struct { uint64_t handled; } ruleset = {(1 << 13) - 1};
    struct { uint64_t allowed; int32_t parent; } __attribute__((packed)) rule = {1 << 5 /* REMOVE_FILE */, -1};
    long version = dashfs_sys_call(444 /* landlock_create_ruleset */, 0, 0, 1 /* VERSION */, 0, 0, 0);
    if (version < 0) return version;
    if (version >= 2) ruleset.handled |= 1 << 13; // REFER
    if (version >= 3) ruleset.handled |= 1 << 14; // TRUNCATE
    long rules = dashfs_sys_call(444, (long)&ruleset, sizeof ruleset, 0, 0, 0, 0);
    if (rules < 0) return rules;
    long place = dashfs_sys_open(directory, 010000000 /* O_PATH */ | O_CLOEXEC | 0200000 /* O_DIRECTORY */, 0);
    long result = place;
    if (place >= 0) {
        rule.parent = (int32_t)place;
        result = dashfs_sys_call(445 /* landlock_add_rule */, rules, 1 /* PATH_BENEATH */, (long)&rule, 0, 0, 0);
        dashfs_sys_close((int)place);
    }
    if (result >= 0) result = dashfs_sys_call(446 /* landlock_restrict_self */, rules, 0, 0, 0, 0, 0);
    dashfs_sys_close((int)rules);
    return result;
}

/// As many descriptors as this process may have.
static inline void dashfs_raise_descriptor_limit(void) {
    struct { uint64_t now, most; } limit = {0, 0};
    if (dashfs_sys_call(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, 0, (long)&limit, 0, 0) < 0 || limit.now >= limit.most) return;
    limit.now = limit.most;
    dashfs_sys_call(SYS_prlimit64, 0, 7, (long)&limit, 0, 0, 0);
}

#endif
