// Files of ours that are passed through a UNIX socket (SCM_RIGHTS).
//
// What travels in a file's place is the connection of a bundle that keeps it open (docs/PROTOCOL.md) and describes itself: the server's answer, with key and handle, stays unread in
// it. Whoever receives it takes the file over by that, gets a placeholder under the same number, and the connection is closed; a program without this library gets a socket that is of no
// use to it. Messages without descriptors are not touched.

import CPreload
import CSystem

/// struct msghdr of x86-64: name 0, its length 8, parts 16, their count 24, control 32, its length 40, flags 48; 56 bytes.
struct MessageHeader {
    static let bytes = 56
    /// struct mmsghdr: and the length of what was sent or received, at 56.
    static let slotBytes: UInt64 = 64
    private var words = InlineArray<7, UInt64>(repeating: 0)

    /// nil: it cannot be read, and the kernel says so.
    init?(_ address: UInt64, _ memory: ProgramMemory) {
        let isRead = unsafe withUnsafeMutableBytes(of: &words) { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe memory.copyIn(base, from: address, count: MessageHeader.bytes)
        }
        guard isRead else { return nil }
    }

    var control: UInt64 {
        get { words[4] }
        set { words[4] = newValue }
    }
    var controlLength: UInt64 { words[5] }
    var name: UInt64 { words[0] }
    var nameLength: UInt32 { UInt32(truncatingIfNeeded: words[1]) }
    mutating func setName(_ address: Int64, _ length: Int64) {
        words[0] = UInt64(bitPattern: address)
        words[1] = UInt64(bitPattern: length)
    }
    /// Whether there is room for a descriptor.
    var hasControl: Bool { control != 0 && controlLength >= UInt64(ControlHeader.bytes) + 4 }

    mutating func call(_ number: SystemCallNumber, _ socket: Int64, _ flags: Int64) -> Int64 {
        unsafe withUnsafeMutableBytes(of: &words) { bytes in
            Signals.call(number.rawValue, socket, Int64(Int(bitPattern: bytes.baseAddress)), flags)
        }
    }
}

/// struct cmsghdr: length 0 (its own 16 bytes included), level 8, type 12; the next begins at a multiple of 8.
private struct ControlHeader {
    static let bytes = 16
    var length: UInt64 = 0
    /// SOL_SOCKET, SCM_RIGHTS: both 1.
    private var kind: UInt64 = 0
    var carriesDescriptors: Bool { kind == 1 << 32 | 1 }
    /// How many descriptors follow, in `room` bytes from the header's start.
    func count(in room: UInt64) -> UInt64 { length < UInt64(ControlHeader.bytes) ? 0 : (min(length, room) - UInt64(ControlHeader.bytes)) / 4 }

    /// nil: this is the end.
    init?(at address: UInt64, room: UInt64, _ memory: ProgramMemory) {
        guard room >= UInt64(ControlHeader.bytes) else { return nil }
        let isRead = unsafe withUnsafeMutableBytes(of: &self) { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe memory.copyIn(base, from: address, count: ControlHeader.bytes)
        }
        guard isRead, length >= UInt64(ControlHeader.bytes) else { return nil }
    }
}

enum PassedDescriptors {
    /// The most that Linux lets through in one message.
    private static let limit = 253
    private static let tooMany: Int64 = -109  // ETOOMANYREFS
    private static let closeOnExec: Int64 = 0x4000_0000  // MSG_CMSG_CLOEXEC

    // MARK: Sending

    /// sendmsg(2); nil: nothing of ours is in it.
    static func send(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        send(frame.argument0, UInt64(bitPattern: frame.argument1), frame.argument2, memory)
    }

    /// sendmmsg(2): one by one where something of ours is in any.
    static func sendSeveral(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let most: UInt64 = 1024
        let count = min(UInt64(UInt32(truncatingIfNeeded: frame.argument2)), most)
        let first = UInt64(bitPattern: frame.argument1)
        guard (0..<count).contains(where: { hasFiles(first &+ $0 &* MessageHeader.slotBytes, memory) }) else { return nil }
        for number in 0..<count {
            let address = first &+ number &* MessageHeader.slotBytes
            let result =
                send(frame.argument0, address, frame.argument3, memory)
                ?? Signals.call(SystemCallNumber.sendmsg.rawValue, frame.argument0, Int64(bitPattern: address), frame.argument3)
            if result < 0 { return number == 0 ? result : Int64(number) }
            var sent = UInt32(truncatingIfNeeded: result)
            _ = unsafe withUnsafeMutablePointer(to: &sent) { unsafe memory.copyOut($0, to: address &+ UInt64(MessageHeader.bytes), count: 4) }
        }
        return Int64(count)
    }

    private static func hasFiles(_ address: UInt64, _ memory: ProgramMemory) -> Bool {
        guard let header = MessageHeader(address, memory), header.hasControl else { return false }
        var isFound = false
        forEachDescriptor(of: header, memory) { _, descriptor in isFound = isFound || Descriptors.isFile(descriptor) || Descriptors.isOwn(descriptor) }
        return isFound
    }

    private static func send(_ socket: Int64, _ address: UInt64, _ flags: Int64, _ memory: ProgramMemory) -> Int64? {
        guard hasFiles(address, memory), var header = MessageHeader(address, memory) else { return nil }
        guard header.controlLength <= UInt64(Scratch.bytes), let scratch = Scratch(), let bundles = Scratch() else { return -ErrorNumber.noMemory }
        guard unsafe memory.copyIn(scratch.base, from: header.control, count: Int(header.controlLength)) else { return -14 }
        header.control = scratch.address
        let sockets = unsafe bundles.base.assumingMemoryBound(to: Int32.self)
        var count = 0
        var problem: Int64 = 0
        forEachDescriptor(of: header, memory) { place, descriptor in
            guard problem == 0, Descriptors.isFile(descriptor) || Descriptors.isOwn(descriptor) else { return }
            let (made, error) = count < limit ? bundle(descriptor) : (-1, -ErrorNumber.invalid)
            guard error == 0, let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(place)) else {
                problem = error
                return
            }
            unsafe target.storeBytes(of: made, as: Int32.self)
            unsafe sockets[count] = made
            count += 1
        }
        // A handler that leaves this call for ever leaves the connections behind.
        let result = problem == 0 ? header.call(.sendmsg, socket, flags) : problem
        for index in 0..<count { unsafe Descriptors.closeOwn(sockets[index]) }
        return result
    }

    /// A connection that stands for a file of ours.
    private static func bundle(_ descriptor: Int64) -> (socket: Int32, error: Int64) {
        guard let file = Descriptors.pin(descriptor) else { return (-1, -ErrorNumber.badDescriptor) }
        defer { file.release() }
        guard let session = file.session else { return (-1, file.failure) }
        let made = unsafe withUnsafePointer(to: file.handle) { handle in
            Connection.makeBundle(of: unsafe Inheritance(key: (0, 0), handles: handle, count: 1), session, describesItself: true)
        }
        guard let made else { return (-1, tooMany) }
        Descriptors.reserve(made.socket)
        return (made.socket, 0)
    }

    // MARK: Receiving

    /// recvmsg(2); nil: there is no room for descriptors.
    static func receive(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let address = UInt64(bitPattern: frame.argument1)
        guard let header = MessageHeader(address, memory), header.hasControl || header.name != 0 else { return nil }
        Report.wasTheKernels(.recvmsg)
        let result = Signals.call(frame.number, frame.argument0, frame.argument1, frame.argument2)
        if result >= 0 {
            if header.hasControl { adopt(address, frame.argument2, memory) }
            if header.name != 0 { SocketNames.restore(Int64(bitPattern: header.name), room: header.nameLength, lengthAt: address &+ 8, memory) }
        }
        return result
    }

    /// recvmmsg(2).
    static func receiveSeveral(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let first = UInt64(bitPattern: frame.argument1)
        guard frame.argument2 > 0, let header = MessageHeader(first, memory), header.hasControl else { return nil }
        Report.wasTheKernels(.recvmmsg)
        let result = Signals.call(frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4)
        if result > 0 { for number in 0..<UInt64(result) { adopt(first &+ number &* MessageHeader.slotBytes, frame.argument3, memory) } }
        return result
    }

    /// Of what has been received, the files of ours become files of this process.
    private static func adopt(_ address: UInt64, _ flags: Int64, _ memory: ProgramMemory) {
        guard let header = MessageHeader(address, memory), header.hasControl else { return }
        forEachDescriptor(of: header, memory) { _, descriptor in adopt(descriptor, closesOnExec: flags & closeOnExec != 0) }
    }

    private static func adopt(_ descriptor: Int64, closesOnExec: Bool) {
        guard descriptor < Int64(DASHFS_DESCRIPTOR_LIMIT), let (key, handle) = Session.describedFile(Int32(truncatingIfNeeded: descriptor)),
            let session = Connection.session().session, !Connection.isTemporary(session)
        else { return }
        let file = take(handle, key, session)
        // Without the file its number is a placeholder alone, on which calls fail.
        let openCloseOnExec: Int64 = closesOnExec ? 0o2000000 : 0
        let placed = dashfs_raw_syscall3(SystemCallNumber.dup3.rawValue, Int64(Connection.placeholder), descriptor, openCloseOnExec)
        guard let file else { return }
        if placed < 0 { return file.release() }
        Descriptors.install(file, at: descriptor)
    }

    private static func take(_ handle: Int32, _ key: (UInt64, UInt64), _ session: Session) -> Description? {
        // Where it is ours already it has a description, unless another thread is closing or receiving it at this moment.
        for _ in 0..<10_000 {
            let result = session.take(handle, key: key)
            if result == 0 { return describe(handle, session) }
            guard result == -ErrorNumber.exists else { return nil }
            if let present = Descriptors.find(handle: handle) { return present }
            dashfs_yield()
        }
        return nil
    }

    private static func describe(_ handle: Int32, _ session: Session) -> Description? {
        guard let channel = session.acquire() else { return nil }
        defer { session.release(channel) }
        var status = FileStatus()
        let found = status.load(channel, Place(handle: handle), flags: 0)
        let flags = channel.statusFlags(handle, set: nil)
        let pathOnly = flags >= 0 && UInt32(truncatingIfNeeded: flags) & OpenFlags.pathOnly != 0 ? Description.pathOnlyBit : 0
        guard found.result >= 0, flags >= 0, let file = Descriptors.make(handle: handle, mode: status.mode | pathOnly, inode: status.inode) else {
            _ = channel.close(handle, keepsLocks: true)
            return nil
        }
        return file
    }

    // MARK: Control data

    /// Each descriptor in a message, and where it stands.
    private static func forEachDescriptor(of header: MessageHeader, _ memory: ProgramMemory, _ body: (_ place: UInt64, _ descriptor: Int64) -> Void) {
        var (at, room) = (header.control, min(header.controlLength, UInt64(Scratch.bytes)))
        while let control = ControlHeader(at: at, room: room, memory) {
            if control.carriesDescriptors {
                for index in 0..<min(control.count(in: room), UInt64(limit)) {
                    let place = at &+ UInt64(ControlHeader.bytes) &+ index &* 4
                    var descriptor: Int32 = -1
                    guard unsafe withUnsafeMutablePointer(to: &descriptor, { unsafe memory.copyIn($0, from: place, count: 4) }) else { return }
                    body(place, Int64(descriptor))
                }
            }
            let step = (min(control.length, room) &+ 7) & ~7
            guard step < room else { return }
            at &+= step
            room &-= step
        }
    }
}
