/// Memory for device requests in tests, and requests without pointers. Invariants: a slice keeps the memory alive; memory that
/// was submitted stays alive until its queue is idle, whatever becomes of the variable that named it. One thread at a time.
import BlockDevice
import Synchronization

@safe package final class AlignedBytes: @unchecked Sendable {
    package let buffer: UnsafeMutableRawBufferPointer
    private let owner: AlignedBytes?

    package init(count: Int, repeating byte: UInt8 = 0, alignment: Int = 4096) {
        unsafe buffer = .allocate(byteCount: count, alignment: alignment)
        owner = nil
        fill(0..<count, with: byte)
    }

    package convenience init(_ bytes: [UInt8]) {
        self.init(count: bytes.count)
        unsafe buffer.copyBytes(from: bytes)
    }

    private init(slice: UnsafeMutableRawBufferPointer, of owner: AlignedBytes) {
        unsafe buffer = unsafe slice
        self.owner = owner
    }

    deinit { if owner == nil { unsafe buffer.deallocate() } }

    package subscript(range: Range<Int>) -> AlignedBytes {
        unsafe AlignedBytes(slice: UnsafeMutableRawBufferPointer(rebasing: buffer[range]), of: self)
    }

    package func fill(_ range: Range<Int>, with byte: UInt8) {
        for i in range { unsafe buffer[i] = byte }
    }

    package var array: [UInt8] { unsafe Array(buffer) }
    package var count: Int { unsafe buffer.count }
}

private let submittedMemory = Mutex<[ObjectIdentifier: [AlignedBytes]]>([:])

extension DeviceQueue {
    package func perform(
        _ operation: DeviceOperation, offset: UInt64, _ bytes: AlignedBytes, forceUnitAccess: Bool = false
    ) -> Int32 {
        unsafe perform(operation, offset: offset, memory: bytes.buffer, forceUnitAccess: forceUnitAccess)
    }

    package func submit(_ operation: DeviceOperation, offset: UInt64, _ bytes: AlignedBytes, tag: UInt64) -> Bool {
        submit(operation, offset: offset, segments: [bytes], tag: tag)
    }

    package func submit(_ operation: DeviceOperation, offset: UInt64, segments: [AlignedBytes], tag: UInt64) -> Bool {
        keep(segments)
        let list = segments.map { piece in
            unsafe DeviceSegment(address: piece.buffer.baseAddress!, length: piece.count)
        }
        return unsafe list.withUnsafeBufferPointer {
            unsafe submit(
                operation, offset: offset, segments: $0, length: segments.reduce(0) { $0 + $1.count }, forceUnitAccess: false,
                tag: tag)
        }
    }

    private func keep(_ memory: [AlignedBytes]) {
        submittedMemory.withLock { all in
            let before = inFlight == 0 ? [] : all[ObjectIdentifier(self)] ?? []
            all[ObjectIdentifier(self)] = before + memory
        }
    }

    /// Flush, discard and write-zeroes.
    package func submit(_ operation: DeviceOperation, offset: UInt64 = 0, length: Int = 0, tag: UInt64) -> Bool {
        unsafe submit(
            operation, offset: offset, segments: UnsafeBufferPointer(start: nil, count: 0), length: length,
            forceUnitAccess: false, tag: tag)
    }

    /// Kicks and takes completions until nothing is in flight.
    package func drain() -> [DeviceCompletion] {
        var completions: [DeviceCompletion] = []
        while inFlight > 0 {
            kick()
            completions.append(waitForCompletion())
        }
        submittedMemory.withLock { $0[ObjectIdentifier(self)] = nil }
        return completions
    }
}
