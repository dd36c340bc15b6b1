// Numbers of system calls that the library makes for itself and does not answer: Linux arch/x86/entry/syscalls/syscall_64.tbl. And what an ELF file of this processor says.

enum OwnCall {
    static var rt_sigprocmask: Int64 { 14 }
    static var rt_sigreturn: Int64 { 15 }
    static var madvise: Int64 { 28 }
    static var nanosleep: Int64 { 35 }
    static var getpid: Int64 { 39 }
    static var rt_sigsuspend: Int64 { 130 }
    static var sigaltstack: Int64 { 131 }
    static var prctl: Int64 { 157 }
    static var gettid: Int64 { 186 }
    static var exit_group: Int64 { 231 }
    static var tgkill: Int64 { 234 }
    static var epoll_pwait: Int64 { 281 }
    static var io_pgetevents: Int64 { 333 }
    static var epoll_pwait2: Int64 { 441 }
}

extension ElfHeader {
    static let machine: UInt16 = 62
}
