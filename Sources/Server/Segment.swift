import CSystem
import Wire

/// Memory that the server shares with one client: a memfd that the server made, sized and sealed, mapped here for the server's use.
///
/// Invariant: the size never changes (F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL), so no access through the mapping can fault. Of a segment that clients
/// only read, no other writable mapping or descriptor can come to be (F_SEAL_FUTURE_WRITE, mode 0400): not even by opening `/proc/self/fd` again.
@safe struct Segment {
    let address: UnsafeMutableRawPointer
    let bytes: Int
    /// Until it has been handed over; -1 after.
    private(set) var descriptor: Int32

    enum Access { case clientWrites, clientReads }

    init(bytes: Int, access: Access) throws(ErrorCode) {
        let name: StaticString = access == .clientWrites ? "dashfs-requests" : "dashfs-completions"
        let made = unsafe name.utf8Start.withMemoryRebound(to: CChar.self, capacity: name.utf8CodeUnitCount) { unsafe dashfs_sys_memfd($0) }
        guard made >= 0 else { throw ErrorCode(result: Int64(made)) }
        let fd = Int32(truncatingIfNeeded: made)
        var result = dashfs_sys_ftruncate(fd, Int64(bytes))
        var mapped = 0
        if result == 0 {
            mapped = dashfs_sys_map(
                fd, bytes, Int32(dashfs_protection_read | dashfs_protection_write), Int32(dashfs_map_shared))
            if mapped < 0, mapped >= -4095 { result = mapped }
        }
        if result == 0 { result = dashfs_sys_fchmod(fd, access == .clientWrites ? 0o600 : 0o400) }
        if result == 0 {
            var seals = DASHFS_SEAL_SHRINK | DASHFS_SEAL_GROW | DASHFS_SEAL_SEAL
            if access == .clientReads { seals |= DASHFS_SEAL_FUTURE_WRITE }
            result = dashfs_sys_add_seals(fd, seals)
        }
        guard result == 0, let pointer = unsafe UnsafeMutableRawPointer(bitPattern: mapped) else {
            _ = dashfs_sys_close(fd)
            if let pointer = unsafe UnsafeMutableRawPointer(bitPattern: mapped), mapped > 0 { unsafe _ = dashfs_sys_unmap(pointer, bytes) }
            throw ErrorCode(result: Int64(result))
        }
        unsafe address = pointer
        self.bytes = bytes
        descriptor = fd
    }

    mutating func closeDescriptor() {
        if descriptor >= 0 { _ = dashfs_sys_close(descriptor) }
        descriptor = -1
    }

    func unmap() { unsafe _ = dashfs_sys_unmap(address, bytes) }
}
