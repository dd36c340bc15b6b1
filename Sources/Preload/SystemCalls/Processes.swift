// Children: clone(2) in all its forms.
//
// A child that is a copy (fork) inherits the open files: before it exists a bundle keeps them open for it, and it takes them over when it first uses one (`Connection`).
// The call is made here, so that the child lets go of its parent's session before anything else of it runs. A child that runs in this memory (vfork, posix_spawn) uses its parent's
// session, and what it changes is its own (`ThreadBlock`). A thread is nothing special.

import CPreload
import CSystem

enum Processes {
    static func areMade(by number: Int64) -> Bool {
        number == SystemCallNumber.clone.rawValue || number == SystemCallNumber.fork.rawValue || number == SystemCallNumber.vfork.rawValue
            || number == SystemCallNumber.clone3.rawValue
    }

    private static let isThread: UInt64 = 0x10000
    private static let sharesDescriptors: UInt64 = 0x400

    /// The result in parent or child, or nil: the kernel makes the call.
    static func clone(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        // Where it cannot be read the kernel says so.
        guard let arguments = CloneArguments(frame, memory) else { return nil }
        if arguments.flags & isThread != 0 { return nil }
        if arguments.sharesMemory {
            willLend()
            return nil
        }
        guard !Connection.isBorrowed, Connection.existing != nil || Legacy.isThere && Legacy.kind == .session else { return nil }
        if arguments.stack == 0 { return fork(number, frame) }
        if arguments.flags & sharesDescriptors == 0, let bundle = bundleForChild() { Awaited.set(bundle) }
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

/// What kind of child a call asks for.
struct CloneArguments {
    /// CLONE_…, <linux/sched.h>.
    private(set) var flags: UInt64 = 0
    /// The end of the child's stack, from where it grows down; 0: it goes on with its parent's, or a copy of it.
    private(set) var stack: UInt64 = 0

    var sharesMemory: Bool { flags & Self.sharingMemory != 0 }
    private static let sharingMemory: UInt64 = 0x100

    /// nil: they are not readable.
    init?(_ frame: SystemCallFrame, _ memory: ProgramMemory) {
        switch frame.number {
        case SystemCallNumber.clone.rawValue: (flags, stack) = (UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1))
        case SystemCallNumber.vfork.rawValue: flags = Self.sharingMemory
        case SystemCallNumber.clone3.rawValue:
            // struct clone_args: the flags first, the stack and its size at 40.
            var words = InlineArray<7, UInt64>(repeating: 0)
            let isRead = unsafe withUnsafeMutableBytes(of: &words) { bytes in
                guard let base = bytes.baseAddress else { return false }
                return unsafe memory.copyIn(base, from: UInt64(bitPattern: frame.argument0), count: 56)
            }
            guard isRead else { return nil }
            (flags, stack) = (words[0], words[5] == 0 ? 0 : words[5] &+ words[6])
        default: break
        }
    }
}
