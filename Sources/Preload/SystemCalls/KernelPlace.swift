// A place of the kernel's for a socket or a pipe of ours: made in a directory that only its maker can enter, held by an O_PATH descriptor, and without a name from then on. So whoever comes to it
// has got that descriptor from the server, which asks the volume who may (docs/PROTOCOL.md).
//
//     /tmp/.dashfs.01234567/ and, with 0x01 for each slash, the text that the program has bound to
//
// The kernel tells the name of a socket to whoever asks; by its form it is known again, and the program's own text given instead (`SocketNames`).

import CPreload
import CSystem

enum KernelPlace {
    private static let folder: StaticString = "/tmp/.dashfs."
    private static let digits = 8
    private static let slash: UInt8 = 1
    /// struct sockaddr_un: u16 family, then at most 108 bytes of text, with a zero at its end or without.
    static let textAt = 2
    static let longest = 108
    static let unixFamily: UInt16 = 1
    private static var folderLength: Int { folder.utf8CodeUnitCount + digits }

    /// Binds a socket there under a name that says `text`, or makes a pipe where there is no socket. The descriptor, out of the program's way, or a negated errno.
    /// - Parameter room: for 512 bytes.
    static func make(socket: Int64?, _ text: PathBytes, _ room: UnsafeMutableRawPointer) -> Int64 {
        let name = unsafe room + textAt
        let place = Int64(Int(bitPattern: name))
        guard unsafe makeFolder(name) == 0 else { return -ErrorNumber.notSupported }
        unsafe name.storeBytes(of: Text.slash, toByteOffset: folderLength, as: UInt8.self)
        var length = folderLength + 1
        // What does not fit is not told; there is always something.
        for index in 0..<min(text.count, longest - 1 - length) {
            guard let source = unsafe text.address else { break }
            let byte = unsafe Text.byte(source, index)
            unsafe name.storeBytes(of: byte == Text.slash ? slash : byte, toByteOffset: length, as: UInt8.self)
            length += 1
        }
        unsafe name.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
        var result: Int64
        if let socket {
            unsafe room.storeBytes(of: unixFamily, as: UInt16.self)
            result = dashfs_raw_syscall3(SystemCallNumber.bind.rawValue, socket, place - Int64(textAt), Int64(textAt + length + 1))
        } else {
            result = dashfs_raw_syscall3(SystemCallNumber.mknod.rawValue, place, 0o010600, 0)
        }
        let isMade = result >= 0
        if isMade {
            // Its mode is the volume's to say; a name that nobody else can reach needs none.
            _ = dashfs_raw_syscall3(SystemCallNumber.chmod.rawValue, place, 0o777, 0)
            result = Int64(unsafe dashfs_sys_open(name.assumingMemoryBound(to: CChar.self), 0o12000000 /* O_PATH | O_CLOEXEC */, 0))
            _ = dashfs_raw_syscall3(SystemCallNumber.unlink.rawValue, place, 0, 0)
        }
        unsafe name.storeBytes(of: 0, toByteOffset: folderLength, as: UInt8.self)
        _ = dashfs_raw_syscall3(SystemCallNumber.rmdir.rawValue, place, 0, 0)
        return isMade ? outOfTheWay(result) : result
    }

    /// A directory that is the caller's alone, whose path is at `name`.
    private static func makeFolder(_ name: UnsafeMutableRawPointer) -> Int64 {
        var result: Int64 = -1
        for _ in 0..<16 {
            var number: UInt32 = 0
            unsafe withUnsafeMutablePointer(to: &number) { _ = unsafe dashfs_sys_random($0, 4) }
            unsafe dashfs_copy(name, folder.utf8Start, folder.utf8CodeUnitCount)
            for digit in 0..<digits {
                let value = UInt8(truncatingIfNeeded: number >> UInt32(digit * 4) & 15)
                unsafe name.storeBytes(of: value < 10 ? 0x30 + value : 0x57 + value, toByteOffset: folder.utf8CodeUnitCount + digit, as: UInt8.self)
            }
            unsafe name.storeBytes(of: 0, toByteOffset: folderLength, as: UInt8.self)
            result = dashfs_raw_syscall3(SystemCallNumber.mkdir.rawValue, Int64(Int(bitPattern: name)), 0o700, 0)
            if result != -ErrorNumber.exists { break }
        }
        return result
    }

    /// Moves a descriptor of ours to where the program's are not.
    static func outOfTheWay(_ descriptor: Int64) -> Int64 {
        guard descriptor >= 0 else { return descriptor }
        let low = Int32(truncatingIfNeeded: descriptor)
        let high = dashfs_duplicate_above(low, Connection.descriptorFloor())
        if high < 0 { return descriptor }
        _ = dashfs_sys_close(low)
        return Int64(high)
    }

    /// The program's text in a name that `make` has given, in place; its length, or nil: it is no such name.
    static func restore(_ name: UnsafeMutableRawPointer, _ length: Int) -> Int? {
        let start = folderLength + 1
        guard length > start, unsafe Text.equal(name, folder.utf8Start, folder.utf8CodeUnitCount), unsafe Text.byte(name, start - 1) == Text.slash else { return nil }
        for index in start..<length {
            let byte = unsafe Text.byte(name, index)
            unsafe name.storeBytes(of: byte == slash ? Text.slash : byte, toByteOffset: index - start, as: UInt8.self)
        }
        return length - start
    }
}
