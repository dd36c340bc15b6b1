// Children: clone(2) in all its forms.
//
// A child that is a copy (fork) inherits the open files: before it exists a bundle keeps them open for it, and it takes them over when it first uses one (`Connection`).
// The call is made here, so that the child lets go of its parent's session before anything else of it runs. A child that runs in this memory (vfork, posix_spawn) uses its parent's
// session, and what it changes is its own (`ThreadBlock`). A thread is nothing special.

import CPreload
import CSystem

enum Processes {
    private static let sharesMemory: UInt64 = 0x100
    private static let isThread: UInt64 = 0x10000

    /// The result in parent or child, or nil: the kernel makes the call.
    static func clone(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        // Flags, and the child's stack: 0 where it goes on with a copy of the caller's.
        var words = (UInt64(0), UInt64(0))
        switch number {
        case .clone: words = (UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1))
        case .vfork: words = (sharesMemory, 0)
        case .clone3:
            // struct clone_args: the flags first, the stack at 40. Where it cannot be read the kernel says so.
            var arguments = InlineArray<6, UInt64>(repeating: 0)
            let read = unsafe withUnsafeMutableBytes(of: &arguments) { bytes in
                guard let base = bytes.baseAddress else { return false }
                return unsafe memory.copyIn(base, from: UInt64(bitPattern: frame.argument0), count: 48)
            }
            guard read else { return nil }
            words = (arguments[0], arguments[5])
        default: break
        }
        if words.0 & isThread != 0 { return nil }
        if words.0 & sharesMemory != 0 {
            willLend()
            return nil
        }
        guard words.1 == 0, !Connection.isBorrowed, Connection.existing != nil || Legacy.isThere && Legacy.kind == .session else { return nil }
        return fork(number, frame)
    }

    private static func willLend() {
        if !Connection.isBorrowed {
            _ = unsafe ThreadBlock.claim()
            // What exec has left is for this process alone, so it is taken over before a child could want it.
            if Legacy.isThere, Legacy.kind == .session { _ = Connection.session() }
        }
        Connection.willLendMemory()
    }

    private static func fork(_ number: SystemCallNumber, _ frame: SystemCallFrame) -> Int64 {
        // Without one the child's descriptors answer EBADF.
        var bundle: (socket: Int32, key: (UInt64, UInt64))?
        if let session = Connection.existing ?? Connection.session().session, let scratch = Scratch() {
            let files = Descriptors.files(in: scratch)
            if files.count > 0 { bundle = Connection.makeBundle(of: files, session) }
            if let bundle { Descriptors.reserve(bundle.socket) }
        }
        let child = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, frame.argument5)
        if child == 0 {
            // Counted once, in the parent.
            Report.isNobodys(number)
            Connection.becomeChild()
            if let bundle { Legacy.set(bundle.key, socket: bundle.socket, .bundle) }
            return 0
        }
        Report.wasTheKernels(number)
        if let bundle {
            Descriptors.unreserve(bundle.socket)
            _ = dashfs_sys_close(bundle.socket)
        }
        return child
    }
}
