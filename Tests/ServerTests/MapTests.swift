import CSystem
import Client
import Foundation
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Maps of files between a server and what its clients do with the memory they were given, allowed or not.
@Suite(.serialized) struct MapTests {
    private typealias Client = OneChannelClient

    private let content = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    private func bytes(_ descriptor: Int32, _ count: Int, at offset: Int64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = unsafe bytes.withUnsafeMutableBytes { unsafe dashfs_sys_pread(descriptor, $0.baseAddress!, count, offset) }
        return Array(bytes.prefix(max(0, got)))
    }

    private func store(_ descriptor: Int32, _ bytes: [UInt8], at offset: Int64) -> Int {
        unsafe bytes.withUnsafeBytes { unsafe dashfs_sys_pwrite(descriptor, $0.baseAddress!, $0.count, offset) }
    }

    @Test func twoClientsShareWhatIsMappedWrittenAndRead() throws {
        let served = try ServedVolume()
        let (one, other) = try (Client(served), Client(served))
        let (file, same) = (one.open("/f", 0o102), other.open("/f", 2))
        #expect(one.write(file, content, at: 0) == 20_000)
        let (memory, second) = (one.map(file), other.map(same, flags: 1))
        #expect(memory >= 0 && second >= 0)
        #expect(bytes(second, 20_000, at: 0) == content && bytes(second, 20_480, at: 0).count == 20_480)
        #expect(store(memory, [1, 2, 3], at: 9000) == 3)
        #expect(bytes(second, 3, at: 9000) == [1, 2, 3] && other.read(same, 3, at: 9000) == [1, 2, 3])
        #expect(other.write(same, [9], at: 9001) == 1 && bytes(memory, 3, at: 9000) == [1, 9, 3])
        #expect(other.channel.truncate(same, size: 5000) == 0 && bytes(memory, 20_480, at: 0).count == 8192)
        #expect(one.channel.syncMap(inode: 1 << 40, offset: 0, length: 1) == 0 && one.channel.fsync(file) == 0)
        #expect(one.channel.syncMap(inode: 1 << 40, offset: -1, length: 1) == -Int64(EINVAL))
        for descriptor in [memory, second] { _ = dashfs_sys_close(descriptor) }
        one.leave()
        other.leave()
        served.waitUntilNothingIsMapped()
        served.stop()
        served.expectNothingLeft()
        #expect(served.memoryVolume.volume.mapOccupancy.files == 0)
    }

    @Test func whoMayOnlyReadCannotStoreAndNobodyCanSeal() throws {
        let served = try ServedVolume()
        let client = try Client(served)
        let (file, reads) = (client.open("/f", 0o102), client.open("/f", 0))
        #expect(client.write(file, content, at: 0) == 20_000)
        #expect(client.map(reads, flags: 3) == -EACCES)
        for (handle, flags) in [(reads, UInt32(1)), (file, 1), (file, 0), (file, 2)] {
            let memory = client.map(handle, flags: flags)
            #expect(memory >= 0 && store(memory, [1], at: 0) == -Int(EBADF) && dashfs_sys_ftruncate(memory, 0) == -Int(EINVAL))
            #expect(dashfs_sys_call(9, 0, 4096, 3, 1, Int(memory), 0) == -Int(EACCES))
            if geteuid() == 0 { #expect(reopenedByAnother(memory) == -Int(EACCES)) }
            _ = dashfs_sys_close(memory)
        }
        let memory = client.map(file)
        for seal: Int32 in [2, 4, 8, 16] { #expect(dashfs_sys_add_seals(memory, seal) == -Int(EPERM)) }
        if geteuid() == 0 { #expect(reopenedByAnother(memory) == -Int(EACCES)) }
        _ = dashfs_sys_close(memory)
        client.leave()
        served.waitUntilNothingIsMapped()
        served.stop()
        served.expectNothingLeft()
    }

    /// What another user gets who opens the descriptor anew for writing.
    private func reopenedByAnother(_ descriptor: Int32) -> Int {
        unsafe "/proc/self/fd/\(descriptor)".withCString { path in
            let child = Int32(dashfs_sys_call(57, 0, 0, 0, 0, 0, 0))
            if child == 0 {
                _ = dashfs_become(65_534, 65_534)
                let result = unsafe dashfs_sys_open(path, O_RDWR, 0)
                while true { _ = dashfs_sys_call(231, result < 0 ? -result : 0, 0, 0, 0, 0, 0) }
            }
            var status: Int32 = 0
            while unsafe waitpid(child, &status, 0) < 0 {}
            return -Int(status >> 8)
        }
    }

    @Test func memoryThatAClientCutsOrFillsHarmsItsOwnFileOnly() throws {
        let served = try ServedVolume()
        let (hostile, bystander) = try (Client(served), Client(served))
        let (file, other) = (hostile.open("/f", 0o102), bystander.open("/g", 0o102))
        #expect(hostile.write(file, content, at: 0) == 20_000 && bystander.write(other, content, at: 0) == 20_000)
        let (memory, kept) = (hostile.map(file), bystander.map(other))
        for size: Int64 in [0, 5000, 1 << 40, 4096] {
            #expect(dashfs_sys_ftruncate(memory, size) == 0)
            #expect(hostile.channel.fsync(file) == 0 && hostile.read(file, 20_000, at: 0).count == 20_000)
            #expect(hostile.write(file, [1, 2], at: 15_000) == 2 && hostile.channel.truncate(file, size: 20_000) == 0)
            #expect(hostile.channel.fallocate(file, mode: 3, offset: 100, length: 9000) == 0)
            #expect(bystander.read(other, 20_000, at: 0) == content && bytes(kept, 20_000, at: 0) == content)
        }
        #expect(hostile.channel.truncate(file, size: 100) == 0 && hostile.read(file, 1000, at: 0).count == 100)
        for descriptor in [memory, kept] { _ = dashfs_sys_close(descriptor) }
        hostile.leave()
        bystander.leave()
        served.waitUntilNothingIsMapped()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func onlyWhatTheSessionHasMappedIsHandedOut() throws {
        let served = try ServedVolume()
        let (one, other) = try (Client(served), Client(served))
        let file = one.open("/f", 0o102)
        #expect(one.write(file, content, at: 0) == 20_000)
        let made = one.channel.map(file, offset: 0, length: 4096, flags: 3)
        #expect(made.result == 0 && other.session.takeMap(inode: made.info0) == -Int64(ENOENT))
        #expect(one.session.takeMap(inode: made.info0 + 1) == -Int64(ENOENT))
        let memory = one.session.takeMap(inode: made.info0)
        #expect(memory >= 0 && one.session.takeMap(inode: made.info0) == -Int64(ENOENT))
        // More of it may be asked for by anyone who knows it; it gives nobody anything.
        #expect(other.channel.changeMap(inode: made.info0, offset: 0, length: 20_000, more: true) == 0 && other.session.takeMap(inode: made.info0) == -Int64(ENOENT))
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: memory))
        one.leave()
        other.leave()
        served.waitUntilNothingIsMapped()
        served.stop()
        served.expectNothingLeft()
    }

    @Test func aFileStaysMappedAsLongAsAnybodyHasItsMemory() throws {
        let served = try ServedVolume()
        let first = try Client(served)
        let file = first.open("/f", 0o102)
        #expect(first.write(file, content, at: 0) == 20_000)
        let memory = first.map(file)
        let page = dashfs_sys_call(9, 0, 4096, 3, 1, Int(memory), 4096)
        let address = unsafe try #require(UnsafeMutableRawPointer(bitPattern: page))
        _ = dashfs_sys_close(memory)
        first.leave()
        // Its session and its descriptors are gone. What is stored is read by others.
        let second = try Client(served)
        let again = second.open("/f", 0)
        unsafe address.storeBytes(of: 42, toByteOffset: 7, as: UInt8.self)
        #expect(second.read(again, 1, at: 4103) == [42])
        #expect(second.unlink("/f") == 0)
        unsafe address.storeBytes(of: 43, toByteOffset: 7, as: UInt8.self)
        #expect(second.read(again, 1, at: 4103) == [43])
        unsafe _ = dashfs_sys_unmap(address, 4096)
        second.leave()
        served.waitUntilNothingIsMapped()
        served.stop()
        served.expectNothingLeft()
        #expect(served.memoryVolume.volume.mapOccupancy.files == 0)
    }
}

extension OneChannelClient {
    fileprivate func open(_ name: String, _ flags: UInt32) -> Int32 { at(name) { Int32(truncatingIfNeeded: channel.open($0, flags: flags, mode: 0o666).result) } }

    fileprivate func write(_ handle: Int32, _ bytes: [UInt8], at offset: Int64) -> Int64 {
        unsafe bytes.withUnsafeBytes { unsafe channel.write(handle, from: $0.baseAddress!, count: $0.count, offset: offset) }
    }

    fileprivate func read(_ handle: Int32, _ count: Int, at offset: Int64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let got = unsafe bytes.withUnsafeMutableBytes { unsafe channel.read(handle, into: $0.baseAddress!, count: count, offset: offset) }
        return Array(bytes.prefix(Int(max(0, got))))
    }

    /// A descriptor of the file's memory, or a negated errno.
    fileprivate func map(_ handle: Int32, flags: UInt32 = 3) -> Int32 {
        let made = channel.map(handle, offset: 0, length: 1 << 20, flags: flags)
        return Int32(truncatingIfNeeded: made.result < 0 ? made.result : session.takeMap(inode: made.info0))
    }
}
