import BlockDevice

/// A device queue used one request at a time, by polling until it is done: for format, mount and check, before and beside the running volume.
@safe package final class BlockingDevice {
    package let queue: any DeviceQueue
    private let buffer: UnsafeMutableRawPointer
    package static let bufferBlocks = 64

    package init(_ queue: any DeviceQueue) {
        self.queue = queue
        unsafe buffer = .allocate(byteCount: BlockingDevice.bufferBlocks * BlockLayout.size, alignment: 4096)
    }

    deinit { unsafe buffer.deallocate() }

    /// In as many requests as the device needs for it.
    private func run(_ operation: DeviceOperation, block: UInt64, _ memory: UnsafeMutableRawPointer?, _ length: Int) throws(VolumeError) {
        guard let memory = unsafe memory else { return try unsafe request(operation, block: block, nil, length) }
        let most = max(queue.maximumTransfer / BlockLayout.size * BlockLayout.size, BlockLayout.size)
        for start in stride(from: 0, to: length, by: most) {
            try unsafe request(operation, block: block + UInt64(start / BlockLayout.size), memory + start, min(most, length - start))
        }
    }

    private func request(_ operation: DeviceOperation, block: UInt64, _ memory: UnsafeMutableRawPointer?, _ length: Int) throws(VolumeError) {
        let offset = block * UInt64(BlockLayout.size)
        while true {
            let accepted: Bool
            if let memory = unsafe memory {
                let segment = unsafe DeviceSegment(address: memory, length: length)
                accepted = unsafe withUnsafePointer(to: segment) {
                    unsafe queue.submit(
                        operation, offset: offset, segments: UnsafeBufferPointer(start: $0, count: 1), length: length, forceUnitAccess: false,
                        tag: .max)
                }
            } else {
                accepted = unsafe queue.submit(
                    operation, offset: offset, segments: UnsafeBufferPointer(start: nil, count: 0), length: length, forceUnitAccess: false, tag: .max)
            }
            queue.kick()
            if accepted { break }
            _ = queue.nextCompletion()
        }
        while true {
            if let completion = queue.nextCompletion(), completion.tag == .max {
                if completion.error != 0 {
                    throw VolumeError(errno: completion.error, "\(operation) at block \(block) failed: \(errorText(completion.error))")
                }
                return
            }
            queue.kick()
        }
    }

    /// The buffer, with blocks [block, block + count) in it; count at most `bufferBlocks`. Valid until the next call.
    package func read(_ block: UInt64, _ count: Int = 1) throws(VolumeError) -> Bytes {
        try unsafe run(.read, block: block, buffer, count * BlockLayout.size)
        return unsafe Bytes(buffer, count: count * BlockLayout.size, writable: true)
    }

    /// The buffer, zeroed, to be filled and written.
    package func blank(_ count: Int = 1) -> Bytes {
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: count * BlockLayout.size)
        return unsafe Bytes(buffer, count: count * BlockLayout.size, writable: true)
    }

    /// Writes the first `count` blocks of the buffer.
    package func write(_ block: UInt64, _ count: Int = 1) throws(VolumeError) { try unsafe run(.write, block: block, buffer, count * BlockLayout.size) }

    package func write(_ block: UInt64, from memory: UnsafeMutableRawPointer) throws(VolumeError) {
        try unsafe run(.write, block: block, memory, BlockLayout.size)
    }

    package func flush() throws(VolumeError) { try unsafe run(.flush, block: 0, nil, 0) }
}

/// Why a volume cannot be made, mounted or checked: what, and what to do.
public struct VolumeError: Error, Sendable, CustomStringConvertible {
    public var errno: Int32
    public var message: String
    public init(errno: Int32, _ message: String) {
        self.errno = errno
        self.message = message
    }
    public var description: String { message }
}
