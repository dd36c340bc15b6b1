// bind(2) and connect(2) with a path of ours as the name of a UNIX socket: nobody stands behind a name here, and the kernel must not make, nor meet,
// another of the same text.

import CPreload
import CSystem

enum SocketNames {
    /// struct sockaddr_un: u16 family, then at most 108 bytes of text, with a zero at its end or without.
    private static let textAt = 2
    private static let longest = 108
    private static let unixFamily: UInt16 = 1

    static func answer(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let address = UInt64(bitPattern: frame.argument1)
        let length = Int(Int32(truncatingIfNeeded: frame.argument2)) - textAt
        guard length > 0, length <= longest, memory.isReadable(address, textAt + length), let name = unsafe UnsafeRawPointer(bitPattern: UInt(address)),
            unsafe name.loadUnaligned(as: UInt16.self) == unixFamily, unsafe Text.byte(name, textAt) != 0, let scratch = Scratch()
        else { return nil }
        unsafe dashfs_copy(scratch.base, name + textAt, length)
        unsafe scratch.base.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
        let location = Location.find(currentDirectory, scratch.address, memory)
        switch location.kind {
        case .kernel: return nil
        case .error: return location.error
        case .ours: break
        }
        defer { location.release() }
        if number == .bind { return -ErrorNumber.notSupported }
        guard let session = location.session, let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let refused: Int64 = 111
        let completion = AttributeCalls.refuse(channel, location.place, refused)
        return completion.result == WireCompletion.escape ? -refused : completion.result
    }
}
