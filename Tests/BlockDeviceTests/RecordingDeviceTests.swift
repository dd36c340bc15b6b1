/// The recording device: order, delays, faults, and what it notices about its caller.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct RecordingDeviceTests {
    private func blocks(_ byte: UInt8, _ count: Int = 1) -> AlignedBytes { AlignedBytes(count: count * 4096, repeating: byte) }

    @Test func nothingMovesBeforeItsCompletion() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        let written = blocks(7)
        let read = blocks(0)
        #expect(queue.submit(.write, offset: 0, written, tag: 1))
        #expect(queue.nextCompletion() == nil, "not kicked")
        #expect(device.current[0] == 0)
        #expect(queue.drain().count == 1)
        #expect(queue.submit(.read, offset: 0, read, tag: 2))
        #expect(read.array.allSatisfy { $0 == 0xA5 }, "a buffer is poison until its read has completed")
        #expect(queue.drain() == [DeviceCompletion(tag: 2, error: 0)])
        #expect(read.array == written.array)
        #expect(device.violations.isEmpty)
    }

    @Test func shuffledCompletionsAreDeterminedByTheSeedAndLoseNothing() throws {
        func order(seed: UInt64) throws -> [UInt64] {
            let device = RecordingDevice(size: 1 << 20, seed: seed, schedule: .init(shuffled: true, maximumDelay: 5))
            let queue = try device.makeQueue(depth: 32)
            let bytes = blocks(1)
            for i in 0..<32 { #expect(queue.submit(.write, offset: UInt64(i) * 4096, bytes, tag: UInt64(i))) }
            return queue.drain().map(\.tag)
        }
        let first = try order(seed: 3)
        #expect(try order(seed: 3) == first)
        #expect(first.sorted() == Array(0..<32))
        #expect(first != Array(0..<32))
        #expect(try order(seed: 4) != first)
    }

    @Test func faultsStrikeTheNthRequestOnceOrForEver() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        device.plan(DeviceFault(.error(EIO), on: [.write], after: 1))
        #expect((0..<4).map { _ in queue.perform(.write, offset: 0, blocks(1)) } == [0, EIO, 0, 0])
        device.plan(DeviceFault(.error(ENOSPC), on: [.write], after: 2, forever: true, range: 8192..<12288))
        #expect((0..<4).map { _ in queue.perform(.write, offset: 8192, blocks(1)) } == [0, 0, ENOSPC, ENOSPC])
        #expect(queue.perform(.write, offset: 4096, blocks(1)) == 0)
        #expect(queue.perform(.flush) == 0)
        device.clearFaults()
        device.plan(DeviceFault(.error(EIO), on: [.flush]))
        #expect((0..<2).map { _ in queue.perform(.flush) } == [EIO, 0])
    }

    @Test func rottenMisdirectedLostAndStaleDataIsServed() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 5)
        let queue = try device.makeQueue(depth: 8)
        let read = blocks(0)
        func content(_ offset: UInt64) -> [UInt8] {
            #expect(queue.perform(.read, offset: offset, read) == 0)
            return read.array
        }
        #expect(queue.perform(.write, offset: 4096, blocks(1)) == 0)
        #expect(queue.perform(.write, offset: 4096, blocks(2)) == 0)
        device.plan(DeviceFault(.staleRead))
        #expect(content(4096) == blocks(1).array)
        #expect(content(4096) == blocks(2).array)
        device.plan(DeviceFault(.lostWrite))
        #expect(queue.perform(.write, offset: 4096, blocks(3)) == 0)
        #expect(content(4096) == blocks(2).array)
        device.plan(DeviceFault(.bitRot))
        let flipped = zip(content(4096), blocks(2).array).map { ($0 ^ $1).nonzeroBitCount }.reduce(0, +)
        #expect(flipped == 1)
        #expect(content(4096) != blocks(2).array, "rot stays")
        device.plan(DeviceFault(.misdirectedWrite))
        #expect(queue.perform(.write, offset: 8192, blocks(9)) == 0)
        #expect(content(8192) == blocks(0).array)
        let places = (0..<256).filter { content(UInt64($0) * 4096) == blocks(9).array }
        #expect(places.count == 1)
    }

    @Test func aCallerThatTouchesMemoryInFlightOrOverlapsIsNoticed() throws {
        let device = RecordingDevice(size: 1 << 20, seed: 1)
        let queue = try device.makeQueue(depth: 8)
        let bytes = blocks(1)
        #expect(queue.submit(.write, offset: 0, bytes, tag: 1))
        bytes.fill(100..<101, with: 2)
        #expect(queue.submit(.write, offset: 0, blocks(1), tag: 2))
        _ = queue.drain()
        #expect(
            device.violations == [
                .overlappingChanges(tags: [1, 2], offset: 0), .memoryChangedInFlight(tag: 1, offset: 0),
            ])
    }
}
