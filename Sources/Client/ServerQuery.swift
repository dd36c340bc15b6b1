import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// Questions to a server that need no session.
public enum ServerQuery {
    /// Counters and latency histograms as JSON text: bytes written to `buffer`, or a negated errno (ERANGE: it did not fit).
    public static func statistics(
        path: UnsafeRawPointer, length: Int, into buffer: UnsafeMutableRawBufferPointer, timeoutMilliseconds: Int32 = 10_000
    ) -> Int64 {
        let made = dashfs_sys_seqpacket()
        guard made >= 0 else { return Int64(made) }
        let socket = Int32(truncatingIfNeeded: made)
        defer { _ = dashfs_sys_close(socket) }
        _ = dashfs_socket_timeout(socket, timeoutMilliseconds)
        let connected = unsafe dashfs_sys_connect_unix(socket, path.assumingMemoryBound(to: CChar.self), length)
        guard connected == 0 else { return Int64(connected) }
        let sent = Session.send(ControlMessage(ControlMessage.Kind.statistics), socket: socket)
        guard sent >= 0 else { return sent }
        guard let base = buffer.baseAddress, buffer.count > ControlMessage.bytes else { return -ErrorNumber.range }
        var handed = (Int32(-1), Int32(-1), Int32(-1), Int32(-1))
        var count: Int32 = 0
        let received = unsafe withUnsafeMutablePointer(to: &handed) { pointer in
            unsafe pointer.withMemoryRebound(to: Int32.self, capacity: 4) {
                unsafe dashfs_receive_packet(socket, base, buffer.count, $0, &count, 0)
            }
        }
        if received < 0 { return Int64(received) == -ErrorNumber.again ? -ErrorNumber.timedOut : Int64(received) }
        guard count == 0 else { return -ErrorNumber.range }
        guard let answer = unsafe ControlMessage(UnsafeRawBufferPointer(start: base, count: received)) else {
            return -ErrorNumber.protocolMismatch
        }
        guard answer.status == 0 else { return Int64(min(answer.status, -1)) }
        guard answer.version == Layout.version else { return -ErrorNumber.protocolMismatch }
        let text = min(Int(answer.payloadBytes), received - ControlMessage.bytes)
        for index in 0..<text { unsafe buffer[index] = unsafe buffer[index + ControlMessage.bytes] }
        return Int64(text)
    }
}
