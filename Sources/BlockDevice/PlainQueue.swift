/// A file queue without io_uring: plain system calls, for machines that forbid it. Invariant: a request is carried out in the
/// `kick` that follows its submission, by the caller's own thread, which waits for the device; completions are taken
/// afterwards. No threads.
import CSystem
import Glibc

@safe final class PlainQueue: DeviceQueue {
    private let device: FileDevice
    private var table: RequestTable

    init(device: FileDevice, depth: Int) {
        self.device = device
        table = RequestTable(depth: depth)
    }

    var counters: DeviceCounters { table.counters }
    var inFlight: Int { table.inFlight }
    var room: Int { table.room }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        unsafe table.submit(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess, tag: tag, to: device)
    }

    func kick() {
        table.letOutRefused()
        while let slot = table.waiting.first {
            table.waiting.removeFirst()
            table.finish(slot, error: run(slot))
        }
    }

    private func run(_ index: Int) -> Int32 {
        while true {
            let slot = table.slot(index)
            var result: Int
            switch slot.operation {
            case .flush: result = device.flushNow()
            case .discard: result = device.discardNow(offset: slot.offset, length: slot.length)
            case .writeZeroes: result = device.zeroNow(offset: slot.offset, length: slot.length)
            case .read, .write: result = transfer(index, slot)
            }
            if let error = table.progress(index, result: result, sectorSize: device.directSectorSize) {
                guard error == 0, slot.forceUnitAccess else { return error }
                result = device.flushNow()
                return result < 0 ? Int32(truncatingIfNeeded: 0 &- result) : 0
            }
        }
    }

    private func transfer(_ index: Int, _ slot: RequestSlot) -> Int {
        let place = off_t(slot.offset) + off_t(slot.done)
        let done: Int
        if let piece = unsafe table.remainingPiece(index) {
            done =
                slot.operation == .read
                ? unsafe pread(device.descriptor, piece.baseAddress, piece.count, place)
                : unsafe pwrite(device.descriptor, piece.baseAddress, piece.count, place)
        } else {
            let rest = unsafe table.remaining(index)
            done =
                slot.operation == .read
                ? unsafe preadv(device.descriptor, rest.baseAddress, Int32(rest.count), place)
                : unsafe pwritev(device.descriptor, rest.baseAddress, Int32(rest.count), place)
        }
        return done < 0 ? -Int(errno) : done
    }

    func nextCompletion() -> DeviceCompletion? { table.nextFinished() }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {}

    /// None is needed: after `kick`, everything is there.
    var wakeupDescriptor: Int32 { -1 }
    func armWakeup() {}
    func disarmWakeup() {}
}
