// Which calls the library answers itself: those on files and paths below the prefix. Nothing else is touched, and a call that is not answered has
// made no call of its own but, where its arguments had to be looked at, the check of their memory.
//
// Where to go on reading: `Location` (whose is a path), `Descriptors` (whose is a descriptor), `Connection`, then the groups of calls.

import CPreload
import CSystem

/// True if the call has been answered and `frame.result` holds the result, a value or a negated errno.
func answer(_ number: SystemCallNumber, _ frame: inout SystemCallFrame) -> Bool {
    if Probe.isOn, Probe.answer(number, &frame) { return true }
    guard Configuration.isOn else { return false }
    if Processes.Awaited.isThere { Processes.Awaited.settle() }
    if unsafe dashfs_borrowed_block() != nil { ThreadBlock.settle() }
    guard let result = result(number, frame) else { return false }
    frame.result = result
    return true
}

/// The result, or nil: the call is the kernel's.
private func result(_ number: SystemCallNumber, _ frame: SystemCallFrame) -> Int64? {
    let memory = ProgramMemory(frame)
    let (first, second, third) = (frame.argument0, frame.argument1, frame.argument2)
    switch number {
    case .rt_sigaction: return Signals.change(frame, memory)

    // Data.
    case .read:
        return onFile(first) { Transfers.read($0, UInt64(bitPattern: second), UInt64(bitPattern: third), offset: nil, memory) }
    case .write:
        return onFile(first) { Transfers.write($0, UInt64(bitPattern: second), UInt64(bitPattern: third), offset: nil, memory) }
    case .pread64:
        return onFile(first) { Transfers.read($0, UInt64(bitPattern: second), UInt64(bitPattern: third), offset: frame.argument3, memory) }
    case .pwrite64:
        return onFile(first) { Transfers.write($0, UInt64(bitPattern: second), UInt64(bitPattern: third), offset: frame.argument3, memory) }
    case .readv: return onFile(first) { Transfers.readVector($0, UInt64(bitPattern: second), third, offset: nil, memory) }
    case .writev: return onFile(first) { Transfers.writeVector($0, UInt64(bitPattern: second), third, offset: nil, memory) }
    case .preadv: return onFile(first) { Transfers.readVector($0, UInt64(bitPattern: second), third, offset: frame.argument3, memory) }
    case .pwritev: return onFile(first) { Transfers.writeVector($0, UInt64(bitPattern: second), third, offset: frame.argument3, memory) }
    case .preadv2, .pwritev2:
        return onFile(first) { file in
            let offset: Int64? = frame.argument3 == -1 ? nil : frame.argument3
            return TransferFlags.transfer(
                file, UInt64(bitPattern: second), third, offset: offset, flags: UInt32(truncatingIfNeeded: frame.argument5), reading: number == .preadv2, memory)
        }
    case .copy_file_range: return Transfers.copyRange(frame, memory)
    case .sendfile: return Copies.sendFile(frame, memory)
    case .splice: return Copies.splice(frame, memory)
    case .tee: return refuse(Descriptors.isFile(first) || Descriptors.isFile(second), ErrorNumber.invalid)
    case .vmsplice: return refuse(Descriptors.isFile(first), ErrorNumber.badDescriptor)

    // Waiting.
    case .poll, .ppoll: return Readiness.poll(number, frame, memory)
    case .select, .pselect6: return Readiness.select(number, frame, memory)
    case .epoll_ctl: return Readiness.controlEpoll(frame, memory)

    // Work for later.
    case .io_submit: return AsynchronousCalls.submit(frame, memory)
    case .io_uring_setup: return AsynchronousCalls.ringsAreRefused ? -38 : nil

    case .sendmsg: return PassedDescriptors.send(frame, memory) ?? SocketNames.sendMessage(frame, memory)
    case .sendmmsg: return PassedDescriptors.sendSeveral(frame, memory)
    case .recvmsg: return PassedDescriptors.receive(frame, memory)
    case .recvmmsg: return PassedDescriptors.receiveSeveral(frame, memory)
    case .bind: return SocketNames.bind(frame, memory)
    case .connect: return SocketNames.connect(frame, memory)
    case .sendto: return SocketNames.sendTo(frame, memory)
    case .getsockname, .getpeername, .accept, .accept4: return SocketNames.told(frame, second, third, memory)
    case .recvfrom: return SocketNames.told(frame, frame.argument4, frame.argument5, memory)

    // Descriptors.
    case .close: return DescriptorCalls.close(first)
    case .close_range: return DescriptorCalls.closeRange(frame)
    case .dup: return DescriptorCalls.duplicate(frame)
    case .dup2, .dup3: return DescriptorCalls.duplicateOnto(frame)
    case .fcntl: return DescriptorCalls.control(frame, memory)
    case .ioctl: return DeviceControl.answer(frame, memory)

    // The working directory, the process.
    case .getcwd: return WorkingDirectory.isOurs ? WorkingDirectory.name(UInt64(bitPattern: first), second, memory) : nil
    case .fchdir: return changeDirectory(first, frame)
    case .chdir:
        if let result = PathCalls.answer(number, frame, memory) { return result }
        Report.wasTheKernels(number)
        let result = dashfs_raw_syscall3(frame.number, first, 0, 0)
        if result == -ErrorNumber.noEntry, let found = KernelLinks.retry(number, frame, memory) { return found }
        return leaving(result)
    case .truncate where second < 0: return -ErrorNumber.invalid
    case .umask:
        Report.wasTheKernels(number)
        let old = dashfs_raw_syscall3(frame.number, first, 0, 0)
        if !Connection.isBorrowed { FileModeMask.hasBecome(UInt32(truncatingIfNeeded: first)) }
        return old
    case .clone, .fork, .vfork, .clone3: return Processes.clone(number, frame, memory)
    case .execve, .execveat: return Execution.answer(number, frame, memory)
    case .setuid, .setgid, .setreuid, .setregid, .setgroups, .setresuid, .setresgid, .setfsuid, .setfsgid:
        guard Connection.existing != nil else { return nil }
        Report.wasTheKernels(number)
        let result = dashfs_raw_syscall3(frame.number, first, second, third)
        if result >= 0, !Connection.isBorrowed { Connection.identityHasChanged() }
        return result

    case .setrlimit, .prlimit64: return FileSizeLimit.change(number, frame)
    case .mmap: return Maps.map(frame)
    case .munmap: return Maps.unmap(frame)
    case .mremap: return Maps.remap(frame)
    case .mprotect, .pkey_mprotect: return Maps.protect(frame)
    case .msync: return Maps.sync(frame)

    case .sync:
        // A process that has never used the volume may be the one that is to make it safe (sync(1)).
        if let session = Connection.sessionIfServed(), let channel = session.acquire() {
            _ = channel.sync()
            session.release(channel)
            if Connection.isTemporary(session) { session.disconnect() }
        }
        return nil
    case .readlink, .readlinkat:
        if let result = DescriptorLinks.read(number, frame, memory) ?? OwnProgram.readLink(number, frame, memory) { return result }
    default:
        break
    }
    if number.interest == .byDescriptor { return onDescriptor(number, frame, memory) }
    return PathCalls.answer(number, frame, memory) ?? KernelLinks.answer(number, frame, memory)
}

/// Calls on one descriptor that are one request.
private func onDescriptor(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
    PathCalls.onFile(frame.argument0) { channel, place, file in
        let (second, third) = (frame.argument1, frame.argument2)
        switch number {
        // What Linux finds wrong with these comes before what the descriptor is not for.
        case .ftruncate where second < 0: return WireCompletion(result: -ErrorNumber.invalid)
        case .flock where !isFlockOperation(second): return WireCompletion(result: -ErrorNumber.invalid)
        case .fstat, .fstatfs, .fgetxattr, .fsetxattr, .fremovexattr: return AttributeCalls.perform(number, frame, channel, place, memory)
        case _ where file.isPathOnly: return WireCompletion(result: -ErrorNumber.badDescriptor)
        case .lseek:
            return WireCompletion(result: channel.seek(file.handle, offset: second, whence: UInt32(truncatingIfNeeded: third)))
        case .fsync: return WireCompletion(result: channel.fsync(file.handle))
        case .fdatasync: return WireCompletion(result: channel.fsync(file.handle, dataOnly: true))
        // More than is asked for: the range's data, and where it is.
        case .sync_file_range: return WireCompletion(result: channel.fsync(file.handle, dataOnly: true))
        case .syncfs: return WireCompletion(result: channel.sync())
        case .flock: return WireCompletion(result: channel.flock(file.handle, operation: UInt32(truncatingIfNeeded: second)))
        case .fallocate:
            guard third >= 0, frame.argument3 > 0 else { return WireCompletion(result: -ErrorNumber.invalid) }
            let keepsSize: Int64 = 1
            let grown = second & keepsSize == 0 ? FileSizeLimit.grow(channel, place, to: UInt64(third) &+ UInt64(frame.argument3)) : 0
            if grown < 0 { return WireCompletion(result: grown) }
            return WireCompletion(
                result: channel.fallocate(
                    file.handle, mode: UInt32(truncatingIfNeeded: second), offset: third, length: UInt64(frame.argument3)))
        case .getdents64: return WireCompletion(result: readDirectory(channel, file, frame, memory))
        case .getdents: return WireCompletion(result: -38)
        case .fadvise64, .readahead: return WireCompletion(result: 0)
        default: return AttributeCalls.perform(number, frame, channel, place, memory)
        }
    }
}

/// LOCK_SH 1, LOCK_EX 2 or LOCK_UN 8, with or without LOCK_NB 4.
private func isFlockOperation(_ operation: Int64) -> Bool {
    let kind = UInt32(truncatingIfNeeded: operation) & ~4
    return kind == 1 || kind == 2 || kind == 8
}

private func readDirectory(_ channel: Channel, _ file: Description, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64 {
    let address = UInt64(bitPattern: frame.argument1)
    let capacity = min(Int(UInt32(truncatingIfNeeded: frame.argument2)), channel.dataCapacity)
    guard file.isDirectory else { return -20 }
    guard memory.isWritable(address, max(capacity, 1)), let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) else { return -14 }
    return unsafe channel.readDirectory(file.handle, into: target, capacity: capacity)
}

@inline(__always)
private func onFile(_ descriptor: Int64, _ body: (Description) -> Int64) -> Int64? {
    guard let file = Descriptors.pin(descriptor) else {
        return Descriptors.isOwn(descriptor) ? -ErrorNumber.badDescriptor : nil
    }
    defer { file.release() }
    return body(file)
}

private func refuse(_ isOurs: Bool, _ number: Int64) -> Int64? { isOurs ? -number : nil }

private func changeDirectory(_ descriptor: Int64, _ frame: SystemCallFrame) -> Int64? {
    if Descriptors.isFile(descriptor) {
        return onFile(descriptor) { file in
            guard let session = file.session else {
                // A forked child, about to exec, that makes sure of where it is (find -exec): there it is already.
                let isHere = WorkingDirectory.isOurs && file.isDirectory && file.inode == WorkingDirectory.inode
                return isHere ? 0 : -ErrorNumber.badDescriptor
            }
            guard let channel = session.acquire() else { return -ErrorNumber.io }
            defer { session.release(channel) }
            return WorkingDirectory.enter(file, session, channel)
        }
    }
    Report.wasTheKernels(.fchdir)
    return leaving(dashfs_raw_syscall3(frame.number, descriptor, 0, 0))
}

/// The kernel has changed its working directory, or failed to.
private func leaving(_ result: Int64) -> Int64 {
    if result == 0 { WorkingDirectory.leave() }
    return result
}
