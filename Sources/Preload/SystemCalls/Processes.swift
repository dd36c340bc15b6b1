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
    private static let sharesDescriptors: UInt64 = 0x400

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
        guard !Connection.isBorrowed, Connection.existing != nil || Legacy.isThere && Legacy.kind == .session else { return nil }
        if words.1 == 0 { return fork(number, frame) }
        if words.0 & sharesDescriptors == 0, let bundle = bundleForChild() { Awaited.set(bundle) }
        return nil
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
        let bundle = bundleForChild()
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
        if let bundle { Descriptors.closeOwn(bundle.socket) }
        return child
    }

    /// What keeps open files open for a child. nil: there are none, or it cannot be had; then the child's descriptors answer EBADF.
    private static func bundleForChild() -> (socket: Int32, key: (UInt64, UInt64))? {
        guard let session = Connection.existing ?? Connection.session().session, let scratch = Scratch() else { return nil }
        let files = Descriptors.files(in: scratch)
        guard files.count > 0, let bundle = Connection.makeBundle(of: files, session) else { return nil }
        Descriptors.reserve(bundle.socket)
        return bundle
    }

    /// A child that begins on a stack of its own (clone(2) with one) does not come back to where the call was made, so the kernel makes it. What the child inherits by is left here, where
    /// the child's first call finds it in its copy; the parent's next call of the same thread lets go of it.
    enum Awaited {
        nonisolated(unsafe) private static var thread: UInt32 = 0
        nonisolated(unsafe) private static var connection: Int32 = -1
        nonisolated(unsafe) private static var key: (UInt64, UInt64) = (0, 0)

        @inline(__always) static var isThere: Bool { unsafe thread != 0 }

        fileprivate static func set(_ bundle: (socket: Int32, key: (UInt64, UInt64))) {
            if isThere { unsafe Descriptors.closeOwn(connection) }
            unsafe connection = bundle.socket
            unsafe key = bundle.key
            unsafe thread = own
        }

        @inline(never) static func settle() {
            if Connection.isCopied {
                unsafe thread = 0
                Connection.becomeChild()
                unsafe Legacy.set(key, socket: connection, .bundle)
            } else if unsafe thread == own {
                unsafe thread = 0
                unsafe Descriptors.closeOwn(connection)
            }
        }

        private static var own: UInt32 { UInt32(truncatingIfNeeded: dashfs_raw_syscall3(OwnCall.gettid, 0, 0, 0)) }
    }
}
