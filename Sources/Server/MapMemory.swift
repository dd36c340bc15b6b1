import CSystem
import Volume

#if canImport(Glibc)
    import Glibc
#endif

/// The memory of a mapped file: a memfd that is never mapped here, because those who may write it may also shrink it.
///
/// Invariants:
/// - nobody can seal it (made without MFD_ALLOW_SEALING), so what is done to it here cannot be refused;
/// - `descriptor` is an open file of its own, never handed out, and each that is handed out is another: so a write lease, which the kernel gives only to one who
///   alone has the file open, tells whether any program still has it open or mapped, whatever became of sessions, forks and descriptors passed on;
/// - who gets a descriptor for reading cannot make one for writing of it (mode 0600, the server's own user and root apart).
public final class MapMemory: FileMemory {
    private let descriptor: Int32

    /// nil: no memory or descriptor is left, or the kernel's rules for this process forbid it.
    public init?() {
        let made = unsafe "dashfs-map".withCString { unsafe dashfs_sys_memfd_unsealable($0) }
        guard made >= 0 else { return nil }
        defer { _ = dashfs_sys_close(Int32(truncatingIfNeeded: made)) }
        descriptor = MapMemory.reopen(Int32(truncatingIfNeeded: made), O_RDWR)
        guard descriptor >= 0 else { return nil }
        _ = dashfs_sys_fchmod(descriptor, 0o600)
    }

    deinit { if descriptor >= 0 { _ = dashfs_sys_close(descriptor) } }

    /// Another open file of the same memory, or a negated errno.
    private static func reopen(_ descriptor: Int32, _ access: Int32) -> Int32 {
        let opened = unsafe "/proc/self/fd/\(descriptor)".withCString { unsafe dashfs_sys_open($0, access | O_CLOEXEC, 0) }
        return Int32(truncatingIfNeeded: opened)
    }

    func openForClient(isWritable: Bool) -> Int32 { MapMemory.reopen(descriptor, isWritable ? O_RDWR : O_RDONLY) }

    public func write(_ source: UnsafeRawPointer, at offset: UInt64, count: Int) -> Bool {
        var done = 0
        while done < count {
            let written = unsafe dashfs_sys_pwrite(descriptor, source + done, count - done, Int64(bitPattern: offset) &+ Int64(done))
            if written <= 0 { return false }
            done += min(written, count - done)
        }
        return true
    }

    public func read(into target: UnsafeMutableRawPointer, at offset: UInt64, count: Int) -> Int {
        var done = 0
        while done < count {
            let got = unsafe dashfs_sys_pread(descriptor, target + done, count - done, Int64(bitPattern: offset) &+ Int64(done))
            if got <= 0 { break }
            done += min(got, count - done)
        }
        return done
    }

    public func zero(at offset: UInt64, count: UInt64) -> Bool {
        let punchAndKeepSize: Int32 = 3
        return dashfs_sys_fallocate(descriptor, punchAndKeepSize, Int64(bitPattern: offset), Int64(bitPattern: count)) == 0
    }

    public func resize(_ bytes: UInt64) -> Bool { dashfs_sys_ftruncate(descriptor, Int64(bitPattern: bytes)) == 0 }

    public func nextData(from offset: UInt64) -> UInt64 {
        let found = dashfs_sys_lseek(descriptor, Int64(bitPattern: offset), 3 /* SEEK_DATA */)
        if found >= 0 { return UInt64(found) }
        return found == -Int(ENXIO) ? .max : offset
    }

    public var isHeldByOthers: Bool {
        guard dashfs_sys_lease(descriptor, 1 /* F_WRLCK */) == 0 else { return true }
        _ = dashfs_sys_lease(descriptor, 2 /* F_UNLCK */)
        return false
    }
}
