import CSystem

#if canImport(Glibc)
    import Glibc
#endif

/// The system calls that a serving process makes after its start, and the seccomp program that refuses every other one.
///
/// Invariant: a call that is not in `serving` fails with EPERM before the kernel looks at its arguments; one of another architecture ends the process. What is
/// listed cannot open, make or rename a file, start a program or thread, connect anywhere, or make memory executable.
package struct SystemCallFilter {
    package struct Rule {
        var number: UInt32
        var condition: Condition
        package var callNumber: Int { Int(number) }

        enum Condition {
            case always
            /// The lower half of the argument at this index is one of these.
            case argumentIsOneOf(Int, [UInt32])
            /// The lower half of the argument at this index has none of these bits.
            case argumentHasNoneOf(Int, UInt32)
        }

        init(_ number: Int, _ condition: Condition = .always) {
            self.number = UInt32(number)
            self.condition = condition
        }
    }

    /// What `Server.run` needs, by what it is for.
    package static let serving: [Rule] =
        [
            // The control socket and the doorbells.
            SYS_accept4, SYS_getrandom, SYS_getsockopt, SYS_recvmsg, SYS_sendmsg, SYS_shutdown, SYS_pidfd_open, SYS_epoll_pwait, SYS_epoll_ctl, SYS_eventfd2, SYS_ppoll,
            // Segments of new channels.
            SYS_memfd_create, SYS_ftruncate, SYS_fchmod,
            // Memory of mapped files.
            SYS_lseek,
            // The device: io_uring, or plain calls where there is none; what io_uring has no operation for.
            SYS_io_uring_enter, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_pread64, SYS_pwrite64, SYS_fdatasync, SYS_fallocate, SYS_flock,
            // Waiting and waking; the log, signals and the stop bell.
            SYS_futex, SYS_read, SYS_write, SYS_writev, SYS_sched_yield, SYS_restart_syscall, SYS_clock_gettime, SYS_rt_sigprocmask, SYS_rt_sigreturn,
            // Memory, and the end.
            SYS_munmap, SYS_brk, SYS_madvise, SYS_mremap, SYS_close, SYS_unlink, SYS_exit, SYS_exit_group, SYS_sched_getaffinity,
        ].map { Rule(Int($0)) } + [
            Rule(Int(SYS_mmap), .argumentHasNoneOf(2, UInt32(PROT_EXEC))),
            Rule(Int(SYS_mprotect), .argumentHasNoneOf(2, UInt32(PROT_EXEC))),
            Rule(Int(SYS_fcntl), .argumentIsOneOf(1, [1033 /* F_ADD_SEALS */, 1024 /* F_SETLEASE */, 3 /* F_GETFL */])),
            // IORING_REGISTER_BUFFERS_UPDATE: a piece of the cache as requests first name it.
            Rule(Int(SYS_io_uring_register), .argumentIsOneOf(1, [16])),
            // BLKDISCARD and BLKZEROOUT of <linux/fs.h>; VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET, VFIO_IOMMU_MAP_DMA and
            // VFIO_IOMMU_UNMAP_DMA of <linux/vfio.h>.
            Rule(Int(SYS_ioctl), .argumentIsOneOf(1, [0x1277, 0x127f, 0x3b6e, 0x3b6f, 0x3b71, 0x3b72])),
        ]

    /// Opens memory of mapped files anew, by `/proc/self/fd`. Only where Landlock keeps everything else from being opened: a filter does not see names.
    package static let reopening = Rule(Int(SYS_openat), .argumentIsOneOf(2, [UInt32(O_RDONLY | O_CLOEXEC), UInt32(O_RDWR | O_CLOEXEC)]))

    package let program: [sock_filter]

    package init(_ rules: [Rule] = SystemCallFilter.serving, architecture: UInt32 = dashfs_filter_architecture()) {
        func load(_ offset: Int) -> sock_filter { dashfs_filter_instruction(UInt16(dashfs_filter_load), 0, 0, UInt32(offset)) }
        func jump(ifEqual value: UInt32, _ ifTrue: UInt8, _ ifFalse: UInt8) -> sock_filter {
            dashfs_filter_instruction(UInt16(dashfs_filter_jump_if_equal), ifTrue, ifFalse, value)
        }
        func end(_ action: UInt32) -> sock_filter { dashfs_filter_instruction(UInt16(dashfs_filter_return), 0, 0, action) }
        let (allow, refuse) = (dashfs_filter_allow(), dashfs_filter_refuse())

        var program = [
            load(Int(dashfs_filter_architecture_offset)), jump(ifEqual: architecture, 1, 0), end(dashfs_filter_kill()),
            load(Int(dashfs_filter_number_offset)),
        ]
        for rule in rules {
            var body: [sock_filter]
            switch rule.condition {
            case .always: body = [end(allow)]
            case .argumentIsOneOf(let index, let values):
                body = [load(Int(dashfs_filter_arguments_offset) + index * 8)]
                for value in values { body += [jump(ifEqual: value, 0, 1), end(allow)] }
                body.append(end(refuse))
            case .argumentHasNoneOf(let index, let bits):
                body = [
                    load(Int(dashfs_filter_arguments_offset) + index * 8),
                    dashfs_filter_instruction(UInt16(dashfs_filter_jump_if_any_bit), 1, 0, bits), end(allow), end(refuse),
                ]
            }
            program.append(jump(ifEqual: rule.number, 0, UInt8(body.count)))
            program += body
        }
        program.append(end(refuse))
        self.program = program
    }

    /// From now on, for every thread of the process. 0, or a negated errno.
    package func install() -> Int {
        unsafe program.withUnsafeBufferPointer { program in
            guard let first = program.baseAddress else { return -Int(EINVAL) }
            return unsafe dashfs_install_filter(first, UInt16(program.count))
        }
    }
}
