/// A miss at each block access of each operation in turn: the operation parks, runs again from the top, and gives the same result and the
/// same bytes as without.
import BlockDevice
import TestSupport
import Testing
import Volume

private struct Attempt {
    var name: String
    var prepare: (VolumeHarness) -> Int64 = { _ in 0 }
    var act: (VolumeHarness, Int64) -> String
}

@Suite struct ForcedMissTests {
    private static func bytes(_ count: Int, _ seed: UInt64) -> [UInt8] { VolumeWorkload.bytes(count, seed: seed) }

    private static func path(_ opcode: Opcode, _ path: String, _ second: String? = nil, _ change: @escaping (inout Request) -> Void = { _ in }) -> Attempt {
        Attempt(name: "\(opcode) \(path.prefix(20)) \(second?.prefix(20) ?? "")") { volume, _ in
            let completion = volume.run(opcode, path, second, change)
            return "\(completion.result) \(completion.info0)"
        }
    }

    private static func handle(_ name: String, _ file: String, _ flags: UInt32 = 2, _ act: @escaping (VolumeHarness, Int64) -> String) -> Attempt {
        Attempt(name: "\(name) \(file)", prepare: { $0.open(file, flags) }, act: act)
    }

    private static var attempts: [Attempt] {
        var list: [Attempt] = [
            path(.mkdir, "/d/new") { $0.mode = 0o755 }, path(.mknod, "/d/fifo") { $0.mode = 0o010644 },
            path(.symlink, "/short", "target"), path(.symlink, "/long", String(repeating: "x", count: 4000)),
            path(.link, "/small", "/d/second"), path(.unlink, "/small"), path(.unlink, "/many"), path(.unlink, "/long0"), path(.rmdir, "/empty"),
            path(.rmdir, "/d"), path(.rename, "/small", "/d/moved"), path(.rename, "/small", "/large"), path(.rename, "/d", "/e/d"),
            path(.rename, "/d", "/small") { $0.flags = 2 }, path(.access, "/d/e0") { $0.mode = 4 },
            path(.open, "/created") { $0.flags = 0o102 }, path(.open, "/many") { $0.flags = 0o1002 },
            path(.removexattr, "/small", "user.big"), path(.removexattr, "/small", "user.none"),
        ]
        for (name, change) in [("mode", AttributeChange.Mask.mode), ("owner", [.owner, .group]), ("times", [.accessTime, .modificationTime])] {
            list.append(
                Attempt(name: "setattr \(name)") { volume, _ in
                    "\(volume.run(.setattr, "/d/e1") { $0.attributes.mask = change; $0.attributes.mode = 0o600; $0.attributes.owner = 7 }.result)"
                })
        }
        for (file, size) in [("/large", 10_000), ("/large", 0), ("/many", 5000), ("/small", 100_000), ("/small", 3), ("/many", 1 << 40)] as [(String, Int64)] {
            list.append(Attempt(name: "truncate \(file) \(size)") { volume, _ in "\(volume.truncate(file, size))" })
        }
        for (file, count, offset) in [
            ("/small", 10, 5), ("/small", 5000, 100), ("/large", 100, 4090), ("/large", 30_000, 8192), ("/many", 4096, 4096), ("/many", 9000, 60_000),
            ("/large", 500_000, 1_000_000),
        ] as [(String, Int, Int64)] {
            list.append(handle("write \(count) at \(offset)", file) { "\($0.write($1, bytes(count, 5), at: offset))" })
            list.append(handle("read \(count) at \(offset)", file) { "\($0.read($1, count, at: offset))" })
            for mode in [0, 3, 16, 17] as [UInt32] { list.append(handle("allocate \(mode) \(count) at \(offset)", file) { "\($0.allocate($1, mode, offset, UInt64(count)))" }) }
        }
        list.append(Attempt(name: "fsync", prepare: {
            let handle = $0.open("/large", 2)
            _ = $0.write(handle, bytes(70_000, 9), at: 3000)
            return handle
        }) { "\($0.fsync($1))" })
        // Of the tables only, so nothing can be missing.
        for opcode in [Opcode.share, .bequeath] {
            list.append(handle("\(opcode)", "/small") { volume, handle in
                "\(volume.run(opcode) { $0.handle = Int32(handle); $0.argument = UInt64(volume.session.rawValue) }.result)"
            })
        }
        list.append(handle("append", "/large", 0o2002) { "\($0.write($1, bytes(6000, 3)))" })
        for hole in [3, 4] as [UInt32] {
            list.append(handle("seek \(hole)", "/many") { volume, handle in
                "\(volume.run(.seek) { $0.handle = Int32(handle); $0.offset = 5000; $0.flags = hole }.result)"
            })
        }
        list.append(handle("copy", "/large") { volume, handle in
            "\(volume.run(.copyRange) { $0.handle = Int32(handle); $0.handle2 = Int32(handle); $0.offset = 100; $0.offset2 = 300_000; $0.length = 9000 }.result)"
        })
        list.append(handle("path", "/d/deep/deeper", 0) { $0.handlePath($1) })
        list.append(handle("close", "/many", 0o1002) { "\($0.close($1))" })
        for count in [10, 9000, 60_000] { list.append(Attempt(name: "setxattr \(count)") { volume, _ in "\(volume.setAttribute("/small", "user.big", bytes(count, 4)))" }) }
        list.append(Attempt(name: "getxattr") { volume, _ in "\(volume.attribute("/small", "user.big") ?? [])" })
        list.append(Attempt(name: "readlink") { volume, _ in volume.target("/long0") })
        list.append(Attempt(name: "list") { volume, _ in "\(volume.list("/d").map { $0.name })" })
        list.append(path(.null, "/"))
        list.append(Attempt(name: "statfs") { volume, _ in
            var buffer = [UInt64](repeating: 0, count: 8)
            return unsafe buffer.withUnsafeMutableBytes { raw in
                "\(volume.run(.statfs) { unsafe $0.buffer = raw.baseAddress; $0.bufferLength = 64 }.result)"
            }
        })
        list.append(Attempt(name: "listxattr") { volume, _ in "\(volume.attributes("/small").keys.sorted())" })
        list.append(Attempt(name: "sync", prepare: {
            let handle = $0.open("/large", 2)
            _ = $0.write(handle, bytes(70_000, 9), at: 3000)
            return handle
        }) { volume, _ in "\(volume.run(.sync).result)" })
        list.append(handle("lock", "/large") { volume, handle in
            "\(volume.run(.lock) { $0.handle = Int32(handle); $0.flags = 6; $0.argument = 1; $0.offset = 5; $0.length = 10; $0.owner = 1 }.result)"
        })
        list.append(handle("flock", "/large") { volume, handle in "\(volume.run(.flock) { $0.handle = Int32(handle); $0.flags = 2 }.result)" })
        list.append(handle("setflags", "/large") { volume, handle in "\(volume.run(.setflags) { $0.handle = Int32(handle); $0.flags = 0o1002002 }.result)" })
        for file in ["/small", "/large", "/many"] {
            list.append(handle("map", file) { volume, handle in
                let (result, memory) = volume.map(handle)
                return "\(result) \((memory?.bytes ?? []).reduce(UInt32(17)) { $0 &* 31 &+ UInt32($1) })"
            })
            list.append(Attempt(name: "syncMap \(file)", prepare: {
                let memory = $0.map($0.open(file, 2)).memory
                for page in stride(from: 0, to: 80, by: 3) { memory?.store([UInt8(page)], at: page * 4096) }
                return Int64($0.status(file).status.inode)
            }) { volume, inode in
                "\(volume.run(.syncMap) { $0.argument = UInt64(inode); $0.offset = 0; $0.length = 1 << 30 }.result)"
            })
        }
        list.append(Attempt(name: "stat") { volume, _ in "\(volume.status("/d/e3"))" })
        return list
    }

    /// A volume with something of everything; small, because it is copied for every miss.
    private static func prepared() throws -> SharedImage {
        let device = try MemoryDevice(size: (256 + 4 * 512 + 2) * 4096) { $0.atomicWriteUnit = 512 }
        try VolumeHarness.format(device, blocksPerGroup: 512)
        let volume = try VolumeHarness(device, configuration: configuration)
        for name in ["/d", "/e", "/empty", "/d/deep", "/d/deep/deeper"] { _ = volume.run(.mkdir, name) { $0.mode = 0o755 } }
        for number in 0..<30 { _ = volume.close(volume.open("/d/e\(number)", 0o102)) }
        func file(_ name: String, _ body: (Int64) -> Void) {
            let handle = volume.open(name, 0o102)
            body(handle)
            _ = volume.close(handle)
        }
        file("/small") { _ = volume.write($0, bytes(300, 1)) }
        file("/large") { _ = volume.write($0, bytes(200_000, 2)) }
        file("/many") { for page in 0..<40 { _ = volume.write($0, bytes(4096, UInt64(page)), at: Int64(page * 8192)) } }
        _ = volume.run(.symlink, "/long0", String(repeating: "y", count: 3000))
        _ = volume.setAttribute("/small", "user.big", bytes(6000, 8))
        volume.unmount()
        return unsafe SharedImage(copying: UnsafeRawBufferPointer(device.bytes))
    }

    private static var configuration: Volume.Configuration {
        var configuration = VolumeHarness.smallConfiguration()
        configuration.cacheFrames = 256
        configuration.treeFanout = 4
        return configuration
    }

    /// Result, accesses, and a checksum of everything but the journal.
    private static func run(_ attempt: Attempt, on image: SharedImage, missAt: Int, _ covered: inout Set<Opcode>) throws -> (result: String, accesses: Int, bytes: UInt64) {
        let device = image.privateDevice(description: "a copy") { $0.atomicWriteUnit = 512 }
        let volume = try VolumeHarness(device, configuration: configuration)
        let handle = attempt.prepare(volume)
        volume.volume.forceMissAt = missAt
        let result = attempt.act(volume, handle)
        volume.volume.forceMissAt = -1
        let accesses = volume.volume.lastAccesses
        covered.formUnion(volume.forced)
        let closed = volume.volume.takeNotes()
        volume.unmount()
        return (result + closed.map(\.text).joined(), accesses, CrashTests.groups(device))
    }

    @Test func everyAccessOfEveryOperationMayMiss() throws {
        let image = try ForcedMissTests.prepared()
        var total = 0
        var covered: Set<Opcode> = []
        for attempt in ForcedMissTests.attempts {
            let expected = try ForcedMissTests.run(attempt, on: image, missAt: -1, &covered)
            // The highest number that any attempt of the operation gets to.
            let count = try ForcedMissTests.run(attempt, on: image, missAt: Int.max, &covered).accesses
            for number in 0..<min(count + 2, 120) {
                let found = try ForcedMissTests.run(attempt, on: image, missAt: number, &covered)
                let sameResult = found.result == expected.result
                #expect(sameResult, "\(attempt.name), miss at \(number): \(found.result.prefix(80)), expected \(expected.result.prefix(80))")
                #expect(found.bytes == expected.bytes, "\(attempt.name), miss at \(number) of \(count): other bytes")
                total += 1
            }
        }
        print("forced misses: \(total)")
        #expect(total > 1000)
        #expect(covered == Set(Opcode.allCases), "without a miss: \(Set(Opcode.allCases).subtracting(covered))")
    }
}
