/// What happens when something runs out: an errno at the right call, nothing changed, no trap, no hang.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct ExhaustionTests {
    private func volume(inodes: UInt64? = nil, _ change: (inout Volume.Configuration) -> Void = { _ in }) throws -> VolumeHarness {
        let device = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(device, inodes: inodes)
        var configuration = VolumeHarness.smallConfiguration()
        change(&configuration)
        return try VolumeHarness(device, configuration: configuration)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64]) func noSpaceChangesNothing(seed: UInt64) throws {
        let volume = try volume { $0.treeFanout = seed % 2 == 0 ? 4 : $0.treeFanout }
        var workload = VolumeWorkload(seed: seed, shape: .full)
        // Most of the space belongs to a file that has no name: the workload cannot get at it.
        let ballast = volume.open("/ballast", 0o102)
        var size: Int64 = 0
        while case let written = volume.write(ballast, VolumeWorkload.bytes(65_536, seed: UInt64(size))), written > 0 { size += written }
        #expect(volume.truncate(handle: ballast, size - 1_000_000) == 0)
        #expect(volume.run(.unlink, "/ballast").result == 0)
        for number in 0..<700 {
            let operation = workload.next()
            volume.monotonic += 100_000_000
            if let problem = workload.perform(operation, on: volume) {
                Issue.record("seed \(seed), operation \(number): \(problem); \(volume.volume.takeNotes())")
                return
            }
        }
        if let difference = volume.difference(from: workload.model) { Issue.record("seed \(seed): \(difference)") }
        #expect(workload.refusals > 5, "seed \(seed): space never ended")
        let notes = volume.volume.takeNotes()
        #expect(notes.isEmpty, "seed \(seed): \(notes)")
        volume.unmount()
    }

    @Test func aFullVolumeTakesOverwritesAndRemovals() throws {
        let volume = try volume()
        let handle = volume.open("/f", 0o102)
        var size: Int64 = 0
        let block = VolumeWorkload.bytes(65_536, seed: 1)
        while true {
            let written = volume.write(handle, block, at: size)
            if written < 0 {
                #expect(written == -28)
                break
            }
            size += written
        }
        #expect(volume.fsync(handle) == 0, "space for what was accepted is there")
        for offset in stride(from: Int64(0), to: size - 65_536, by: 1 << 20) {
            let result = volume.write(handle, VolumeWorkload.bytes(50_000, seed: UInt64(offset)), at: offset)
            #expect(result == 50_000, "overwriting at \(offset): \(result)")
        }
        #expect(volume.fsync(handle) == 0)
        #expect(volume.open("/more", 0o102) == -28 || volume.run(.unlink, "/more").result == 0)
        #expect(volume.truncate("/f", 4096) == 0)
        #expect(volume.fsync(handle) == 0)
        #expect(volume.write(handle, block, at: 4096) == 65_536, "freed space can be used")
        #expect(volume.run(.unlink, "/f").result == 0)
    }

    @Test func inodesRunOutAndComeBack() throws {
        let volume = try volume(inodes: 64)
        var made = 0
        while made < 1000 {
            let result = volume.run(.mknod, "/n\(made)") { $0.mode = 0o100644 }.result
            if result != 0 {
                #expect(result == -28)
                break
            }
            made += 1
        }
        #expect(made >= 40 && made < 200)
        #expect(volume.list("/").count == made)
        #expect(volume.run(.unlink, "/n3").result == 0)
        #expect(volume.run(.mkdir, "/d") { $0.mode = 0o755 }.result == 0)
    }

    @Test func descriptionsRunOutAndComeBack() throws {
        let volume = try volume { $0.descriptions = 64 }
        _ = volume.close(volume.open("/f", 0o102))
        var handles: [Int64] = []
        while handles.count < 1000 {
            let handle = volume.open("/f", 2)
            if handle < 0 {
                #expect(handle == -23)
                break
            }
            handles.append(handle)
        }
        #expect(handles.count == 64)
        #expect(volume.close(handles.removeLast()) == 0)
        #expect(volume.open("/f", 0) >= 0)
    }

    @Test func openInodesRunOutAndComeBack() throws {
        let volume = try volume {
            $0.coreInodes = 64
            $0.descriptions = 256
        }
        var handles: [Int64] = []
        while handles.count < 1000 {
            let handle = volume.open("/f\(handles.count)", 0o102)
            if handle < 0 {
                #expect(handle == -23)
                break
            }
            handles.append(handle)
        }
        #expect(handles.count == 64)
        let names = volume.run(.unlink, "/f\(handles.count)").result
        #expect(names == -2, "the create that failed left no name")
        #expect(volume.close(handles.removeLast()) == 0)
        #expect(volume.open("/again", 0o102) >= 0)
    }

    @Test func locksRunOutAndComeBack() throws {
        let volume = try volume { $0.locks = 64 }
        let handle = volume.open("/f", 0o102)
        func lock(_ type: UInt64, _ offset: Int64) -> Int64 {
            volume.run(.lock) {
                $0.handle = Int32(handle)
                $0.flags = 6
                $0.argument = type
                $0.offset = offset
                $0.length = 1
                $0.owner = 1
            }.result
        }
        var held: Int64 = 0
        while held < 1000 {
            let result = lock(1, held * 10)
            if result != 0 {
                #expect(result == -37)
                break
            }
            held += 1
        }
        #expect(held >= 60 && held <= 64)
        #expect(lock(2, 0) == 0)
        #expect(lock(1, 0) == 0)
    }
}
