/// What a recording device has seen, in order. Invariants: events are only appended; a change's bytes are those at its
/// submission; an event's index is the only clock, and a cut `k` means: the first `k` events have happened.
import BlockDevice

/// A write, discard or write-zeroes, as handed over and as it ended.
package struct RecordedChange: Sendable {
    package var operation: DeviceOperation
    package var offset: Int
    package var length: Int
    package var forceUnitAccess: Bool
    package var tag: UInt64
    /// Where its bytes are in `DeviceLog.data`.
    package var dataStart: Int
    /// Index of its submission event.
    package var submittedAt: Int
    /// Index of its completion event; `Int.max` while in flight.
    package var completedAt = Int.max
    package var error: Int32 = 0
    /// For a change that failed: which of its 512-byte sectors reached the device nonetheless. Nil: all (it succeeded).
    package var reachedSectors: [Bool]?

    package var blocks: Range<Int> { offset / blockSize..<(offset + length) / blockSize }
}

package struct RecordedFlush: Sendable {
    package var submittedAt: Int
    package var completedAt = Int.max
    package var error: Int32 = 0
}

package enum DeviceEvent: Sendable, Equatable {
    /// Index into `changes`.
    case submitted(change: Int)
    case completed(change: Int)
    /// Index into `flushes`.
    case flushSubmitted(Int)
    case flushCompleted(Int)
}

package struct DeviceLog: Sendable {
    package private(set) var events: [DeviceEvent] = []
    package private(set) var changes: [RecordedChange] = []
    package private(set) var flushes: [RecordedFlush] = []
    package private(set) var data: [UInt8] = []

    mutating func submit(
        change operation: DeviceOperation, offset: Int, length: Int, forceUnitAccess: Bool, tag: UInt64,
        segments: UnsafeBufferPointer<DeviceSegment>
    ) -> Int {
        let change = changes.count
        changes.append(
            RecordedChange(
                operation: operation, offset: offset, length: length, forceUnitAccess: forceUnitAccess, tag: tag,
                dataStart: data.count, submittedAt: events.count))
        if operation == .write {
            for unsafe segment in unsafe segments {
                unsafe data.append(contentsOf: UnsafeRawBufferPointer(start: segment.address, count: segment.length))
            }
        }
        events.append(.submitted(change: change))
        return change
    }

    mutating func complete(change: Int, error: Int32, reachedSectors: [Bool]?) {
        changes[change].completedAt = events.count
        changes[change].error = error
        changes[change].reachedSectors = reachedSectors
        events.append(.completed(change: change))
    }

    mutating func submitFlush() -> Int {
        flushes.append(RecordedFlush(submittedAt: events.count))
        events.append(.flushSubmitted(flushes.count - 1))
        return flushes.count - 1
    }

    mutating func complete(flush: Int, error: Int32) {
        flushes[flush].completedAt = events.count
        flushes[flush].error = error
        events.append(.flushCompleted(flush))
    }

    /// What some of a change's 512-byte sectors hold after it; `target` is as long as they are.
    package func copy(change index: Int, sectors: Range<Int>, into target: UnsafeMutableRawBufferPointer) {
        let change = changes[index]
        switch change.operation {
        case .write:
            let from = change.dataStart + sectors.lowerBound * 512
            unsafe data.withUnsafeBytes { bytes in
                unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[from..<from + sectors.count * 512]))
            }
        case .writeZeroes: _ = unsafe target.initializeMemory(as: UInt8.self, repeating: 0)
        // What a discarded block reads as is the device's affair: something that nobody may rely on.
        case .discard: _ = unsafe target.initializeMemory(as: UInt8.self, repeating: 0xD1)
        case .read, .flush: break
        }
    }

    /// Puts those sectors of a change that reached the device where they belong in an image.
    package func apply(change index: Int, sectors: Range<Int>, to image: UnsafeMutableRawBufferPointer) {
        let start = changes[index].offset
        if let reached = changes[index].reachedSectors {
            for sector in sectors where reached[sector] {
                unsafe copy(
                    change: index, sectors: sector..<sector + 1,
                    into: UnsafeMutableRawBufferPointer(rebasing: image[start + sector * 512..<start + sector * 512 + 512]))
            }
        } else {
            let range = start + sectors.lowerBound * 512..<start + sectors.upperBound * 512
            unsafe copy(change: index, sectors: sectors, into: UnsafeMutableRawBufferPointer(rebasing: image[range]))
        }
    }
}

extension DeviceCapabilities {
    /// The sectors of a change, relative to its start, in the pieces that a power cut leaves whole: the change itself where
    /// it is no longer than the atomic unit and aligned to its size; else pieces of the atomic unit, but at most a block.
    package func atomicPieces(offset: Int, length: Int) -> [Range<Int>] {
        if length <= atomicWriteUnit && length & (length - 1) == 0 && offset % length == 0 { return [0..<length / 512] }
        let step = max(1, min(atomicWriteUnit, blockSize) / 512)
        return stride(from: 0, to: length / 512, by: step).map { $0..<$0 + step }
    }
}
