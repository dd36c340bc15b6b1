// UNIX sockets whose name is a path of ours.
//
// bind(2) makes a node on the volume and binds the socket in a place of the kernel's, which the server keeps for the node (`KernelPlace`); connect(2) and the sending calls find it by
// the node, whose permissions decide. What the kernel tells of a socket's name is turned back into what the program has said. After that they are the kernel's own sockets: nothing of what goes
// through them comes here.

import CPreload
import CSystem

enum SocketNames {
    private static let refused: Int64 = -111

    /// A name's text; nil: it is no path.
    private static func text(_ address: Int64, _ length: Int64, _ memory: ProgramMemory, _ scratch: borrowing Scratch) -> PathBytes? {
        let count = Int(Int32(truncatingIfNeeded: length)) - KernelPlace.textAt
        let address = UInt64(bitPattern: address)
        guard count > 0, count <= KernelPlace.longest, memory.isReadable(address, KernelPlace.textAt + count), let name = unsafe UnsafeRawPointer(bitPattern: UInt(address)),
            unsafe name.loadUnaligned(as: UInt16.self) == KernelPlace.unixFamily, unsafe Text.byte(name, KernelPlace.textAt) != 0
        else { return nil }
        unsafe dashfs_copy(scratch.base, name + KernelPlace.textAt, count)
        unsafe scratch.base.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        return unsafe PathBytes(scratch.base, count: Text.length(scratch.base))
    }

    // MARK: bind

    static func bind(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard let scratch = Scratch(), let text = text(frame.argument1, frame.argument2, memory, scratch) else { return nil }
        let location = Location.find(currentDirectory, scratch.address, memory, follows: false)
        switch location.kind {
        case .kernel: return nil
        case .error: return location.error
        case .ours: break
        }
        defer { location.release() }
        guard let session = location.session, let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let made = channel.mknod(location.place, mode: 0o140777 | FileModeMask.value << 16, device: 0)
        if made.result == -ErrorNumber.exists { return -98 /* EADDRINUSE */ }
        if made.result < 0 { return made.result == WireCompletion.escape ? -ErrorNumber.notSupported : made.result }
        let result = unsafe bind(frame.argument0, text, location.place, session, channel, scratch.base + 512)
        if result < 0 { _ = channel.unlink(location.place) }
        return result
    }

    private static func bind(
        _ socket: Int64, _ text: PathBytes, _ place: Place, _ session: Session, _ channel: Channel, _ room: UnsafeMutableRawPointer
    ) -> Int64 {
        let node = channel.access(place, mode: 0, flags: PathCalls.symlinkNoFollow)
        if node.result < 0 { return node.result }
        let descriptor = unsafe KernelPlace.make(socket: socket, text, room)
        if descriptor < 0 { return descriptor }
        let mask = dashfs_signals_block()
        let result = session.offerMeetingPlace(Int32(truncatingIfNeeded: descriptor), inode: node.info0)
        dashfs_signals_restore(mask)
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: descriptor))
        return result
    }

    // MARK: connect, sendto

    static func connect(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        reach(frame.argument1, frame.argument2, memory) { Signals.call(frame.number, frame.argument0, $0, $1) }
    }

    static func sendTo(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        if frame.argument4 == 0 { return nil }
        return reach(frame.argument4, frame.argument5, memory) {
            Signals.call(frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, $0, $1)
        }
    }

    /// sendmsg(2) of a message without files of ours.
    static func sendMessage(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard let header = MessageHeader(UInt64(bitPattern: frame.argument1), memory), header.name != 0 else { return nil }
        return reach(Int64(bitPattern: header.name), Int64(header.nameLength), memory) {
            var message = header
            message.setName($0, $1)
            return message.call(.sendmsg, frame.argument0, frame.argument2)
        }
    }

    /// Calls `body` with a name by which the kernel finds the socket. nil: the name is the kernel's.
    static func reach(_ address: Int64, _ length: Int64, _ memory: ProgramMemory, _ body: (_ name: Int64, _ length: Int64) -> Int64) -> Int64? {
        guard let scratch = Scratch(), text(address, length, memory, scratch) != nil else { return nil }
        let location = Location.find(currentDirectory, scratch.address, memory)
        switch location.kind {
        case .kernel: return nil
        case .error: return location.error
        case .ours: break
        }
        let descriptor = find(location)
        if descriptor < 0 { return descriptor }
        unsafe scratch.base.storeBytes(of: KernelPlace.unixFamily, as: UInt16.self)
        unsafe DescriptorLinks.write(descriptor, to: scratch.base + KernelPlace.textAt)
        let count = unsafe KernelPlace.textAt + Text.length(scratch.base + KernelPlace.textAt) + 1
        let result = body(Int64(bitPattern: scratch.address), Int64(count))
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: descriptor))
        return result
    }

    /// The descriptor of what stands behind the name, or a negated errno.
    private static func find(_ location: Location) -> Int64 {
        defer { location.release() }
        guard let session = location.session, let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let node = channel.access(location.place, mode: 2, flags: 0)
        if node.result == WireCompletion.escape { return refused }
        if node.result < 0 { return node.result }
        guard node.info1 & 0o170000 == 0o140000 else { return refused }
        let mask = dashfs_signals_block()
        defer { dashfs_signals_restore(mask) }
        let found = session.meetingPlace(inode: node.info0)
        return found < 0 ? found == -ErrorNumber.tooManyFiles ? found : refused : KernelPlace.outOfTheWay(found)
    }

    // MARK: What the kernel tells

    /// getsockname(2), getpeername(2), accept(2), accept4(2), recvfrom(2): a name, whose length is at `lengthAt`. nil: it is not asked for.
    static func told(_ frame: SystemCallFrame, _ address: Int64, _ lengthAt: Int64, _ memory: ProgramMemory) -> Int64? {
        guard address != 0, lengthAt != 0 else { return nil }
        var room: UInt32 = 0
        guard unsafe withUnsafeMutablePointer(to: &room, { unsafe memory.copyIn($0, from: UInt64(bitPattern: lengthAt), count: 4) }) else { return nil }
        let result = Signals.call(frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, frame.argument5)
        if result >= 0 { restore(address, room: room, lengthAt: UInt64(bitPattern: lengthAt), memory) }
        return result
    }

    /// A name that has been told, in `room` bytes, becomes the program's.
    static func restore(_ address: Int64, room: UInt32, lengthAt: UInt64, _ memory: ProgramMemory) {
        var length: UInt32 = 0
        guard unsafe withUnsafeMutablePointer(to: &length, { unsafe memory.copyIn($0, from: lengthAt, count: 4) }) else { return }
        let count = Int(min(length, room)) - KernelPlace.textAt
        guard count > 0, count <= KernelPlace.longest + 1, memory.isWritable(UInt64(bitPattern: address), count + KernelPlace.textAt),
            let name = unsafe UnsafeMutableRawPointer(bitPattern: Int(address)), unsafe name.loadUnaligned(as: UInt16.self) == KernelPlace.unixFamily,
            let rest = unsafe KernelPlace.restore(name + KernelPlace.textAt, count)
        else { return }
        // The kernel's says how long the whole is, even if there is less room.
        length = UInt32(truncatingIfNeeded: Int(length) - (count - rest))
        _ = unsafe withUnsafeMutablePointer(to: &length) { unsafe memory.copyOut($0, to: lengthAt, count: 4) }
    }
}
