import CSystem
import Client
import Foundation
import Testing
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// What stands behind sockets and pipes of the volume, as the server keeps it, for clients that behave and for those that do not.
@Suite(.serialized) struct MeetingTests {
    private typealias Client = OneChannelClient

    private func pathOnly(_ path: String) -> Int32 { unsafe path.withCString { Int32(unsafe dashfs_sys_open($0, 0o10000000 | O_CLOEXEC, 0)) } }

    private func number(_ descriptor: Int64) -> UInt64 {
        var status = stat()
        guard descriptor >= 0, unsafe fstat(Int32(descriptor), &status) == 0 else { return 0 }
        close(Int32(descriptor))
        return UInt64(status.st_ino)
    }

    @Test("What one process has put behind a socket's name others get, as the node's permissions say, and nobody after it has gone")
    func sockets() throws {
        let served = try ServedVolume()
        let (one, other) = (try Client(served), try Client(served))
        let place = pathOnly("/")
        defer { close(place) }
        let expected = number(Int64(dup(place)))
        #expect(one.make("/socket", 0o140755) == 0)
        let inode = one.ask("/socket", 0)
        #expect(inode != 0 && one.session.meetingPlace(inode: inode) == -Int64(EACCES), "nothing was asked of it")
        #expect(one.ask("/socket", 2) == inode && one.session.meetingPlace(inode: inode) == -Int64(ENOENT))
        #expect(other.session.meetingPlace(inode: inode) == -Int64(EACCES), "never asked")
        #expect(other.session.offerMeetingPlace(place, inode: inode) == -Int64(EACCES))
        #expect(one.session.offerMeetingPlace(place, inode: inode) == 0)
        #expect(other.ask("/socket", 2) == inode && number(other.session.meetingPlace(inode: inode)) == expected)
        // The name's next owner says anew what it is.
        let second = pathOnly("/proc")
        defer { close(second) }
        #expect(one.session.offerMeetingPlace(second, inode: inode) == 0 && number(other.session.meetingPlace(inode: inode)) == number(Int64(dup(second))))
        // Another file in the same inode is not the one that was asked about.
        #expect(one.unlink("/socket") == 0 && one.make("/again", 0o140755) == 0)
        #expect(one.ask("/again", 2) == inode, "the inode is used again, or this shows nothing")
        #expect(one.session.meetingPlace(inode: inode) == -Int64(ENOENT))
        one.leave()
        other.leave()
        served.stop()
        served.expectNothingLeft()
    }

    @Test("A pipe has one place, the first; what is no name alone is refused; directories and files have none")
    func pipes() throws {
        let served = try ServedVolume()
        let client = try Client(served)
        let place = pathOnly("/")
        defer { close(place) }
        #expect(client.make("/pipe", 0o010600) == 0)
        let inode = client.ask("/pipe", 4)
        let readable = unsafe Glibc.open("/", O_RDONLY | O_CLOEXEC)
        defer { close(readable) }
        #expect(client.session.offerMeetingPlace(readable, inode: inode) == -Int64(EINVAL), "an open file, whose closing might wait")
        #expect(client.session.meetingPlace(inode: inode) == -Int64(ENOENT))
        #expect(client.session.offerMeetingPlace(place, inode: inode) == 0 && client.session.offerMeetingPlace(place, inode: inode) == -Int64(EEXIST))
        #expect(number(client.session.meetingPlace(inode: inode)) == number(Int64(dup(place))))
        let root = client.ask("/", 2)
        #expect(root != 0 && client.session.meetingPlace(inode: root) == -Int64(EACCES) && client.session.offerMeetingPlace(place, inode: root) == -Int64(EACCES))
        client.leave()
        served.stop()
        served.expectNothingLeft()
    }

    @Test("However many names one user makes, the server keeps a bounded number of descriptors, the latest")
    func bounded() throws {
        let served = try ServedVolume()
        let client = try Client(served)
        let place = pathOnly("/")
        defer { close(place) }
        func descriptors() throws -> Int { try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count }
        let before = try descriptors()
        var inodes: [UInt64] = []
        for index in 0..<300 {
            #expect(client.make("/s\(index)", 0o140700) == 0)
            inodes.append(client.ask("/s\(index)", 2))
            #expect(client.session.offerMeetingPlace(place, inode: inodes[index]) == 0)
        }
        #expect(try descriptors() < before + 280)
        #expect(client.session.meetingPlace(inode: inodes[0]) == -Int64(EACCES), "a session's grants are few")
        #expect(client.ask("/s0", 2) == inodes[0] && client.session.meetingPlace(inode: inodes[0]) == -Int64(ENOENT))
        #expect(number(client.session.meetingPlace(inode: inodes[299])) != 0)
        client.leave()
        served.stop()
    }

    @Test("A descriptor with another message, or several with this one, end the session, and are closed")
    func unasked() throws {
        for (kind, count) in [(ControlMessage.Kind.statistics, 1), (ControlMessage.Kind.map, 1), (ControlMessage.Kind.meet, 2)] {
            let served = try ServedVolume()
            let client = try Client(served)
            let place = pathOnly("/")
            var packet = [UInt8](repeating: 0, count: ControlMessage.bytes)
            unsafe packet.withUnsafeMutableBytes { unsafe ControlMessage(kind).store($0) }
            let sent = unsafe packet.withUnsafeBytes { unsafe dashfs_send_packet(client.session.socket, $0.baseAddress!, $0.count, [place, place], Int32(count), 0) }
            #expect(sent == ControlMessage.bytes)
            close(place)
            var answer = [UInt8](repeating: 0, count: 64)
            #expect(unsafe recv(client.session.socket, &answer, 64, 0) == 0, "kind \(kind)")
            client.leave()
            served.stop()
            served.expectNothingLeft()
        }
    }
}

extension OneChannelClient {
    fileprivate func make(_ name: String, _ mode: UInt32) -> Int64 { at(name) { channel.mknod($0, mode: mode, device: 0).result } }

    /// The inode, once `access` has granted it.
    fileprivate func ask(_ name: String, _ mode: UInt32) -> UInt64 {
        let answer = at(name) { channel.access($0, mode: mode, flags: 0) }
        return answer.result == 0 ? answer.info0 : 0
    }
}
