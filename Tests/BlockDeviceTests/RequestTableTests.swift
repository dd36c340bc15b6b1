/// Requests that the kernel serves by halves: whatever comes back short, interrupted or busy, the bytes end in their places.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct RequestTableTests {
    /// A kernel that moves some bytes of a request and stops where it likes.
    private func serve(
        _ table: borrowing RequestTable, _ slot: Int, file: inout [UInt8], atMost: Int, unit: Int
    ) -> Int {
        let request = table.slot(slot)
        var place = Int(request.offset) + request.done
        var moved = 0
        func move(_ memory: UnsafeMutableRawBufferPointer) {
            for i in 0..<memory.count where moved < atMost {
                if request.operation == .write { file[place] = unsafe memory[i] } else { unsafe memory[i] = file[place] }
                place += 1
                moved += 1
            }
        }
        if let piece = unsafe table.remainingPiece(slot) {
            #expect(piece.count % unit == 0)
            unsafe move(piece)
        } else {
            for unsafe vector in unsafe table.remaining(slot) {
                #expect(unsafe vector.iov_len % unit == 0, "what is left of a direct request stays aligned")
                unsafe move(UnsafeMutableRawBufferPointer(start: vector.iov_base, count: vector.iov_len))
            }
        }
        return moved
    }

    @Test(arguments: [1, 512, 4096], [1, 2, 3] as [UInt64])
    func shortTransfersGoOnWhereTheyStopped(_ sector: Int, _ seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var file = [UInt8](repeating: 0, count: 1 << 18)
        for i in file.indices { file[i] = UInt8(truncatingIfNeeded: random.next()) }
        var table = RequestTable(depth: 4)
        let memory = AlignedBytes(count: 1 << 17)
        for round in 0..<200 {
            let blocks = 1 + random.below(16)
            let offset = random.below(64 - blocks) * 4096
            var cuts = Set((0..<random.below(6)).map { _ in 1 + random.below(blocks * 8 - 1) })
            cuts.formUnion([0, blocks * 8])
            let ends = cuts.sorted()
            var pieces = zip(ends, ends.dropFirst()).map { memory[$0 * 512..<$1 * 512] }
            random.shuffle(&pieces)
            let writes = random.chance(0.5)
            let fill = UInt8(round)
            for (index, piece) in pieces.enumerated() { piece.fill(0..<piece.count, with: fill &+ UInt8(index)) }
            let written = pieces.flatMap(\.array)
            let list = pieces.map { unsafe DeviceSegment(address: $0.buffer.baseAddress!, length: $0.count) }
            let slot = unsafe list.withUnsafeBufferPointer {
                unsafe table.take(
                    writes ? .write : .read, offset: UInt64(offset), segments: $0, length: blocks * 4096,
                    forceUnitAccess: false, tag: UInt64(round), sectorSize: sector)
            }
            guard let slot else {
                Issue.record("the table of 4 is full with nothing in it")
                return
            }
            var error: Int32?
            var steps = 0
            while error == nil {
                steps += 1
                if random.chance(0.2) {
                    error = table.progress(slot, result: -Int(random.pick([EAGAIN, EINTR])), sectorSize: sector)
                } else {
                    let atMost = random.chance(0.3) ? blocks * 4096 : 1 + random.below(blocks * 4096)
                    let moved = serve(table, slot, file: &file, atMost: atMost, unit: sector)
                    error = table.progress(slot, result: moved, sectorSize: sector)
                }
                if steps > 10_000 { break }
            }
            #expect(error == 0)
            #expect(table.release(slot, error: error ?? EIO) == DeviceCompletion(tag: UInt64(round), error: 0))
            let range = offset..<offset + blocks * 4096
            let right = Array(file[range]) == (writes ? written : pieces.flatMap(\.array))
            #expect(right, "round \(round), \(writes ? "write" : "read"), pieces \(pieces.map(\.count)), \(steps) steps")
        }
    }

    @Test func errorsEndARequestAndEndlessRetriesDoToo() {
        var table = RequestTable(depth: 1)
        let bytes = AlignedBytes(count: 4096)
        func take(_ table: inout RequestTable) -> Int? {
            let segment = [unsafe DeviceSegment(address: bytes.buffer.baseAddress!, length: 4096)]
            return unsafe segment.withUnsafeBufferPointer {
                unsafe table.take(
                    .read, offset: 0, segments: $0, length: 4096, forceUnitAccess: false, tag: 1, sectorSize: 512)
            }
        }
        #expect(take(&table) == 0)
        #expect(take(&table) == nil, "full")
        #expect(table.progress(0, result: -Int(ENOSPC), sectorSize: 512) == ENOSPC)
        _ = table.release(0, error: ENOSPC)
        #expect(take(&table) == 0)
        #expect(table.progress(0, result: 0, sectorSize: 512) == EIO, "nothing where there should be something")
        _ = table.release(0, error: EIO)
        for result in [-Int(EAGAIN), 100] {
            #expect(take(&table) == 0)
            var tries = 0
            while table.progress(0, result: result, sectorSize: 512) == nil { tries += 1 }
            #expect(tries > 10 && tries < 1000)
            _ = table.release(0, error: EIO)
        }
    }
}
