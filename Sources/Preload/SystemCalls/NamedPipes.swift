// open(2) of a pipe of ours: the kernel's own pipe, which stands behind the volume's name as long as the server does (`KernelPlace`). Who opens it first makes it.
//
// What open gives is a descriptor of the kernel's, which comes here no more; the open may wait for the other side, so nothing of ours is held then.

import CPreload
import CSystem

enum NamedPipes {
    /// The result of `prepare` where the kernel can be asked; info0 is the descriptor of the place, to be closed.
    static let ready: Int64 = -5001

    /// Everything that needs the server: `ready`, or an errno. `handle` is the pipe's, opened with `flags`.
    static func prepare(_ handle: Int32, _ flags: UInt32, _ session: Session, _ channel: Channel) -> WireCompletion {
        let access = flags & 3
        let node = channel.access(Place(handle: handle), mode: access == 0 ? 4 : access == 1 ? 2 : 6, flags: PathCalls.emptyPath)
        if node.result < 0 { return node }
        let mask = dashfs_signals_block()
        defer { dashfs_signals_restore(mask) }
        var found: Int64 = 0
        // A second time where another was faster.
        for _ in 0..<2 {
            found = session.meetingPlace(inode: node.info0)
            guard found == -ErrorNumber.noEntry, let scratch = Scratch() else { break }
            let name: StaticString = "pipe"
            found = unsafe KernelPlace.make(socket: nil, PathBytes(name.utf8Start, count: name.utf8CodeUnitCount), scratch.base)
            if found < 0 { return WireCompletion(result: -6) }
            let offered = session.offerMeetingPlace(Int32(truncatingIfNeeded: found), inode: node.info0)
            if offered == 0 { break }
            _ = dashfs_sys_close(Int32(truncatingIfNeeded: found))
            found = offered
            if offered != -ErrorNumber.exists { break }
        }
        if found < 0 { return WireCompletion(result: found) }
        var ready = WireCompletion(result: ready)
        ready.info0 = UInt64(KernelPlace.outOfTheWay(found))
        return ready
    }

    /// Opens what `prepare` has found; waits for the other side as the kernel does.
    static func open(_ prepared: WireCompletion, _ flags: UInt32) -> Int64 {
        let descriptor = Int64(truncatingIfNeeded: prepared.info0)
        defer { _ = dashfs_sys_close(Int32(truncatingIfNeeded: descriptor)) }
        guard isPipe(Int32(truncatingIfNeeded: descriptor)) else { return -6 }
        // O_CREAT, O_EXCL, O_TRUNC and O_NOFOLLOW were about the name.
        let kept = flags & ~UInt32(0o401300)
        return unsafe withUnsafeTemporaryAllocation(byteCount: DescriptorLinks.capacity, alignment: 8) { text in
            guard let base = text.baseAddress else { return -ErrorNumber.noMemory }
            unsafe DescriptorLinks.write(descriptor, to: base)
            return Signals.call(SystemCallNumber.openat.rawValue, currentDirectory, Int64(Int(bitPattern: base)), Int64(kept))
        }
    }

    /// What others have made is looked at.
    private static func isPipe(_ descriptor: Int32) -> Bool {
        var status = InlineArray<18, UInt64>(repeating: 0)
        let result = unsafe withUnsafeMutableBytes(of: &status) { bytes in
            dashfs_raw_syscall3(SystemCallNumber.fstat.rawValue, Int64(descriptor), Int64(Int(bitPattern: bytes.baseAddress)), 0)
        }
        // struct stat of x86-64: u32 st_mode at 24.
        return result == 0 && status[3] & 0o170000 == 0o010000
    }
}
