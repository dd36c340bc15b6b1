import DashFS
import Foundation
import Testing

/// The Swift API against a served volume: what a program sees.
@Suite struct FileTests {
    private func withVolume(_ body: (FileSystem, ServedVolume) throws -> Void) throws {
        let served = try ServedVolume()
        try body(try FileSystem.connect(socket: served.socketPath), served)
        served.stop()
        #expect(served.server.snapshot.violations == 0)
    }

    private func pattern(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = SplitMix(state: seed)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    @Test func bytesWrittenAreReadBackThroughSpans() throws {
        try withVolume { volume, _ in
            let file = try volume.open("/greeting", [.readWrite, .create])
            let text: [UInt8] = Array("hello, DashFS\n".utf8)
            try #expect(file.write(unsafe text.span.bytes, at: 0) == text.count)
            var buffer = [UInt8](repeating: 0, count: 64)
            let count = try read(file, into: &buffer)
            #expect(Array(buffer.prefix(count)) == text)
            try file.synchronize()
            #expect(try file.status().size == Int64(text.count))
            #expect(try volume.status(of: "/greeting").kind == .regular)
            try file.close()
        }
    }

    private func read(_ file: borrowing File, into buffer: inout [UInt8]) throws -> Int {
        var span = buffer.mutableSpan
        var bytes = unsafe span.mutableBytes
        return try file.read(into: &bytes, at: 0)
    }

    @Test func transfersLargerThanTheArenaAreWhole() throws {
        try withVolume { volume, _ in
            let file = try volume.open("/large", [.readWrite, .create])
            let bytes = pattern(3_500_000, seed: 11)
            try file.write(bytes, at: 5)
            #expect(try file.read(upTo: 4_000_000, at: 5) == bytes)
            #expect(try file.status().size == 3_500_005)
            try file.seek(to: 5)
            #expect(try file.read(upTo: 4_000_000) == bytes)
        }
    }

    @Test func namesAreMadeMovedListedAndRemoved() throws {
        try withVolume { volume, _ in
            try volume.createDirectory("/d")
            for number in 0..<300 { try volume.open("/d/file-\(number)", [.writeOnly, .create]).close() }
            #expect(Set(try volume.contents(of: "/d").map(\.name)) == Set((0..<300).map { "file-\($0)" }))
            try volume.rename("/d/file-7", to: "/d/seven")
            #expect(try !volume.exists("/d/file-7"))
            try volume.link("/d/seven", to: "/d/also-seven")
            #expect(try volume.status(of: "/d/seven").linkCount == 2)
            try volume.createSymbolicLink("/d/link", to: "seven")
            #expect(try volume.targetOfSymbolicLink("/d/link") == Array("seven".utf8))
            #expect(try volume.status(of: "/d/link").inode == volume.status(of: "/d/seven").inode)
            #expect(try volume.status(of: "/d/link", followingSymbolicLinks: false).kind == .symbolicLink)
            for entry in try volume.contents(of: "/d") { try volume.remove("/d/\(entry.name)") }
            try volume.removeDirectory("/d")
            #expect(try volume.contents(of: "/").isEmpty)
        }
    }

    @Test func errorsNameTheCallAndThePath() throws {
        try withVolume { volume, _ in
            let error = try #require(throws: FileError.self) { _ = try volume.open("/no/such") }
            #expect(error.code == .noSuchFile && error.operation == "open" && error.path == "/no/such")
            #expect(error.description == "open /no/such: No such file or directory")
            #expect(throws: FileError.self) { try volume.status(of: "") }
            // A NUL never reaches the wire, where it would end the session.
            let nul = try #require(throws: FileError.self) { try volume.status(of: "/a\0b") }
            #expect(nul.code == .invalidArgument)
            let long = try #require(throws: FileError.self) { try volume.status(of: String(repeating: "x/", count: 2048)) }
            #expect(long.code == .nameTooLong)
            #expect(try !volume.exists("/still/connected"))
        }
    }

    @Test func symbolicLinksThatLeaveTheVolumeComeBackOnlyThroughThePrefix() throws {
        try withVolume { volume, _ in
            try volume.createDirectory("/inside")
            try volume.open("/inside/target", [.writeOnly, .create]).close()
            try volume.createSymbolicLink("/back", to: "/dash/inside/target")
            try volume.createSymbolicLink("/above", to: "../../inside/target")
            try volume.createSymbolicLink("/away", to: "/etc/passwd")
            try volume.createSymbolicLink("/loop", to: "/dash/loop")
            let inode = try volume.status(of: "/inside/target").inode
            #expect(try volume.status(of: "/back").inode == inode)
            #expect(try volume.status(of: "/above").inode == inode)
            #expect(try #require(throws: FileError.self) { try volume.status(of: "/away") }.code == .crossesVolumes)
            #expect(try #require(throws: FileError.self) { try volume.status(of: "/loop") }.code == .tooManySymbolicLinks)
            try volume.rename("/back", to: "/moved")
            #expect(try volume.status(of: "/moved").inode == inode)
        }
    }

    @Test func attributesAndExtendedAttributesAreKept() throws {
        try withVolume { volume, _ in
            try volume.open("/f", [.writeOnly, .create]).close()
            try volume.setPermissions(0o640, of: "/f")
            try volume.setTimes(accessed: .init(seconds: -5, nanoseconds: 7), modified: .init(seconds: 1 << 33, nanoseconds: 999_999_999), of: "/f")
            try volume.truncate("/f", to: 1 << 33)
            try volume.setExtendedAttribute("user.colour", to: Array("blue".utf8), of: "/f")
            let status = try volume.status(of: "/f")
            #expect(status.permissions == 0o640 && status.size == 1 << 33)
            #expect(status.accessed == .init(seconds: -5, nanoseconds: 7))
            #expect(try volume.extendedAttribute("user.colour", of: "/f") == Array("blue".utf8))
            #expect(try volume.extendedAttributes(of: "/f") == ["user.colour"])
            try volume.removeExtendedAttribute("user.colour", of: "/f")
            #expect(try #require(throws: FileError.self) { try volume.extendedAttribute("user.colour", of: "/f") }.code == .noAttribute)
            let space = try volume.volumeStatus()
            #expect(space.blockSize == 4096 && space.freeBlocks <= space.blocks && space.freeBlocks > 0)
        }
    }

    @Test func aBatchIsAnsweredWholeAndInItsOwnTickets() throws {
        try withVolume { volume, _ in
            let file = try volume.open("/b", [.readWrite, .create])
            var batch = try volume.batch()
            var tickets: [Batch.Ticket] = []
            let blocks = (0..<60).map { pattern(4096, seed: UInt64($0)) }
            for (index, block) in blocks.enumerated() { tickets.append(try batch.write(unsafe block.span.bytes, to: file, at: Int64(index * 4096))) }
            let missing = try batch.status(of: "/none")
            batch.run()
            for ticket in tickets { #expect(try batch.result(of: ticket) == 4096) }
            #expect(throws: FileError.self) { try batch.result(of: missing) }
            batch.reset()
            tickets = []
            for index in 0..<60 { tickets.append(try batch.read(4096, from: file, at: Int64(index * 4096))) }
            batch.run()
            for (index, ticket) in tickets.enumerated() { #expect(try batch.bytes(of: ticket) == blocks[index]) }
        }
    }

    @Test func manyTasksShareOneRing() async throws {
        let served = try ServedVolume()
        let volume = try FileSystem.connect(socket: served.socketPath)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<200 {
                group.addTask {
                    let file = try await volume.open("/task-\(number)", [.readWrite, .create])
                    let bytes = [UInt8](repeating: UInt8(number % 251), count: 40_000 + number)
                    try await file.write(bytes, at: 0)
                    try await file.synchronize()
                    #expect(try await file.read(upTo: 100_000, at: 0) == bytes)
                    #expect(try await volume.status(of: "/task-\(number)").size == Int64(bytes.count))
                    if number % 2 == 0 { try await volume.remove("/task-\(number)") }
                }
            }
            try await group.waitForAll()
        }
        let left = try volume.contents(of: "/")
        #expect(left.count == 100)
    }

    @Test func aFileThatGoesOutOfScopeIsClosed() throws {
        try withVolume { volume, served in
            for _ in 0..<20_000 { _ = try volume.open("/same", [.readWrite, .create]) }
            #expect(try volume.exists("/same"))
        }
    }
}
