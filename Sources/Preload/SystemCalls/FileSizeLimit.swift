// RLIMIT_FSIZE (ulimit -f): a file does not grow beyond it by this process; who tries gets SIGXFSZ, and EFBIG.
//
// The kernel keeps the limit; it is asked at the first write of a process and whenever the process has changed it. Where there is none, as nearly everywhere, a write pays a comparison. What another process
// sets for this one by prlimit(2) is not noticed.

import CPreload
import CSystem

enum FileSizeLimit {
    private static let resource: Int64 = 1
    private static let none: UInt64 = 0xffff_ffff_ffff_ffff
    /// No limit has this value: the kernel's are signed.
    private static let notAsked: UInt64 = 0xffff_ffff_ffff_fffe
    nonisolated(unsafe) private static var known = notAsked

    private static var value: UInt64 {
        @inline(__always) get {
            let value = unsafe known
            return value == notAsked ? ask() : value
        }
    }

    @inline(never)
    private static func ask() -> UInt64 {
        var limits: (UInt64, UInt64) = (none, none)
        unsafe withUnsafeMutablePointer(to: &limits) { limits in
            _ = dashfs_raw_syscall6(SystemCallNumber.prlimit64.rawValue, 0, resource, 0, Int64(Int(bitPattern: limits)), 0, 0)
        }
        let value = limits.0 == notAsked ? none : limits.0
        // A vfork child's memory is its parent's.
        if !Connection.isBorrowed { unsafe known = value }
        return value
    }

    /// setrlimit(2), prlimit(2): this process's may be another from now on. nil: it is not about that.
    static func change(_ number: SystemCallNumber, _ frame: SystemCallFrame) -> Int64? {
        let isSet = number == .setrlimit
        let process = Int64(Int32(truncatingIfNeeded: frame.argument0))
        guard isSet || frame.argument2 != 0, Int64(Int32(truncatingIfNeeded: isSet ? frame.argument0 : frame.argument1)) == resource,
            isSet || process == 0 || process == Int64(dashfs_sys_getpid())
        else { return nil }
        Report.wasTheKernels(number)
        let result = dashfs_raw_syscall6(frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, 0, 0)
        if result >= 0, !Connection.isBorrowed { unsafe known = notAsked }
        return result
    }

    /// How many of `count` bytes may be written, or -EFBIG.
    /// - Parameters:
    ///   - offset: nil: the description's own.
    ///   - flags: RWF_APPEND, RWF_NOAPPEND.
    @inline(__always)
    static func room(_ count: Int, _ file: Description, _ channel: Channel, offset: Int64?, flags: UInt32) -> Int {
        let limit = value
        return limit == none || count == 0 ? count : cut(count, limit, file, channel, offset: offset, flags: flags)
    }

    @inline(never)
    private static func cut(_ count: Int, _ limit: UInt64, _ file: Description, _ channel: Channel, offset: Int64?, flags: UInt32) -> Int {
        // What is wrong with the file or its descriptor comes first.
        let refused = channel.writeInPlace(file.handle, count: 0, offset: offset ?? -1)
        if refused < 0 { return Int(refused) }
        let appending: UInt32 = 0x10, notAppending: UInt32 = 0x20
        let status = channel.statusFlags(file.handle, set: nil)
        let opened = status >= 0 && UInt32(truncatingIfNeeded: status) & 0o2000 != 0
        let start: UInt64
        if flags & appending != 0 || opened && flags & notAppending == 0 {
            start = UInt64(bitPattern: size(channel, Place(handle: file.handle), 0) ?? 0)
        } else {
            start = UInt64(bitPattern: max(0, offset ?? channel.seek(file.handle, offset: 0, whence: 1)))
        }
        guard start < limit else { return Int(exceeded()) }
        return Int(min(UInt64(count), limit - start))
    }

    /// A file that is to have `size` bytes: 0 or -EFBIG. One that becomes smaller, or stays, is not looked at.
    static func grow(_ channel: Channel, _ place: Place, to bytes: UInt64, flags: UInt32 = 0) -> Int64 {
        let limit = value
        guard limit != none, bytes > limit, let present = size(channel, place, flags), bytes > UInt64(bitPattern: present) else { return 0 }
        return exceeded()
    }

    private static func size(_ channel: Channel, _ place: Place, _ flags: UInt32) -> Int64? {
        var status = FileStatus()
        guard status.load(channel, place, flags: flags).result >= 0, status.mode & 0o170000 == 0o100000 else { return nil }
        return status.size
    }

    private static func exceeded() -> Int64 {
        let exceeded: Int64 = 25  // SIGXFSZ
        _ = dashfs_raw_syscall3(OwnCall.tgkill, Int64(dashfs_sys_getpid()), dashfs_raw_syscall3(OwnCall.gettid, 0, 0, 0), exceeded)
        return -ErrorNumber.fileTooBig
    }
}
