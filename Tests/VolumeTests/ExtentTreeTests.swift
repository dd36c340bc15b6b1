/// Files of many extents: a tree finds every block that it was given, wherever its leaves part.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct ExtentTreeTests {
    /// The first extent of a leaf goes, and one that begins in the leaf before comes to lie in its place, and beyond the key by which the two part.
    @Test(arguments: [4, 64, 168]) func anExtentMayReachBeyondTheKeyThatLeadsToTheNextLeaf(fanout: Int) throws {
        let device = try MemoryDevice(size: VolumeHarness.smallSize) { $0.atomicWriteUnit = 512 }
        try VolumeHarness.format(device)
        var configuration = VolumeHarness.smallConfiguration()
        configuration.treeFanout = fanout
        var volume = try VolumeHarness(device, configuration: configuration)
        var handle = volume.open("/f", 0o102)
        var model = [UInt8](repeating: 0, count: (4 * fanout * 2 - 1) * 4096)
        func write(_ page: Int, _ pages: Int, seed: Int) {
            let bytes = VolumeWorkload.bytes(pages * 4096, seed: UInt64(seed))
            #expect(volume.write(handle, bytes, at: Int64(page * 4096)) == bytes.count)
            model.replaceSubrange(page * 4096..<(page + pages) * 4096, with: bytes)
        }
        func punch(_ page: Int, _ pages: Int) {
            #expect(volume.allocate(handle, 3, Int64(page * 4096), UInt64(pages * 4096)) == 0)
            for at in page * 4096..<(page + pages) * 4096 { model[at] = 0 }
        }
        // Every other page, from the first on: leaves are left full.
        for page in stride(from: 0, to: 4 * fanout * 2, by: 2) { write(page, 1, seed: page + 1) }
        #expect(volume.fsync(handle) == 0)
        // Wherever a leaf begins, and elsewhere.
        for page in stride(from: 4, to: 4 * fanout * 2 - 4, by: 4) {
            punch(page, 1)
            write(page - 1, 3, seed: page * 1000)
            #expect(volume.fsync(handle) == 0)
        }
        volume.unmount()
        volume = try VolumeHarness(device, configuration: configuration)
        handle = volume.open("/f", 2)
        func wrongPages() -> [Int] {
            stride(from: 0, to: model.count, by: 4096).filter { volume.read(handle, 4096, at: Int64($0)).bytes[...] != model[$0..<$0 + 4096] }.map { $0 / 4096 }
        }
        #expect(wrongPages().isEmpty)
        // And what is found is written over, zeroed and freed where it is.
        write(0, 4 * fanout, seed: 9)
        #expect(volume.allocate(handle, 17, 4096, UInt64(fanout * 4096)) == 0)
        for at in 4096..<(fanout + 1) * 4096 { model[at] = 0 }
        #expect(volume.fsync(handle) == 0)
        #expect(wrongPages().isEmpty)
        volume.unmount()
        #expect(try VolumeChecker(device).run().first.map { "\($0)" } == nil)
    }
}
