// The control socket as a tool uses it: connect, ask, take the answer. Invariant: an answer is checked before it is used, and nobody
// waits longer than ten seconds.
import CSystem
import Glibc
import Wire

struct ControlConnection {
    private let descriptor: Int32
    private let path: String

    init(_ path: String) throws(Failure) {
        self.path = path
        descriptor = Int32(truncatingIfNeeded: dashfs_sys_seqpacket())
        guard descriptor >= 0 else { throw Failure(.system, "no socket: \(errorText(-descriptor))") }
        _ = dashfs_socket_timeout(descriptor, 10_000)
        let result = unsafe path.withCString { unsafe dashfs_sys_connect_unix(descriptor, $0, path.utf8.count) }
        guard result == 0 else {
            _ = dashfs_sys_close(descriptor)
            let number = Int32(truncatingIfNeeded: -result)
            switch number {
            case ENOENT, ECONNREFUSED:
                throw Failure(.unavailable, "no server at \(path); start one with: dashfs serve DEVICE, or name its socket with --socket")
            case ENAMETOOLONG: throw Failure(.usage, "\(path): a socket's path has at most 107 bytes; choose a shorter one")
            case EACCES: throw Failure(.noPermission, "\(path): permission denied; ask whoever runs the server")
            default: throw Failure(.unavailable, "\(path): \(errorText(number))")
            }
        }
    }

    func close() { _ = dashfs_sys_close(descriptor) }

    /// The payload of the answer to a message without arguments.
    func ask(_ kind: UInt16) throws(Failure) -> [UInt8] {
        var packet = [UInt8](repeating: 0, count: ControlMessage.bytes)
        unsafe packet.withUnsafeMutableBytes { unsafe ControlMessage(kind).store($0) }
        let sent = unsafe packet.withUnsafeBytes { bytes -> Int in
            guard let base = bytes.baseAddress else { return -1 }
            return unsafe dashfs_send_packet(descriptor, base, bytes.count, nil, 0, 0)
        }
        guard sent == ControlMessage.bytes else { throw gone(sent) }
        var answer = [UInt8](repeating: 0, count: ControlMessage.packetLimit)
        var descriptors: [Int32] = [-1, -1, -1, -1]
        var count: Int32 = 0
        let length = unsafe answer.withUnsafeMutableBytes { bytes -> Int in
            unsafe descriptors.withUnsafeMutableBufferPointer { list in
                guard let base = bytes.baseAddress, let first = list.baseAddress else { return -1 }
                return unsafe dashfs_receive_packet(descriptor, base, bytes.count, first, &count, 0)
            }
        }
        guard length >= ControlMessage.bytes else { throw gone(length) }
        guard let message = unsafe answer.withUnsafeBytes({ unsafe ControlMessage($0) }), message.version == Layout.version else {
            throw Failure(.unavailable, "\(path): the server speaks another version; use the dashfs it was started with")
        }
        guard message.status == 0 else {
            throw Failure(.init(errno: -message.status), "\(path): the server refuses: \(errorText(-message.status))")
        }
        let end = ControlMessage.bytes + Int(message.payloadBytes)
        guard end <= length else { throw gone(0) }
        return Array(answer[ControlMessage.bytes..<end])
    }

    private func gone(_ result: Int) -> Failure {
        result == -Int(EAGAIN)
            ? Failure(.unavailable, "\(path): the server does not answer; is it stopped?")
            : Failure(.unavailable, "\(path): the server closed the connection; its log says why")
    }
}
