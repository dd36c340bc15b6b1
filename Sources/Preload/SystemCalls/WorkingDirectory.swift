// The working directory, where it is in the volume: an open directory handle beside the kernel's notion of it.
//
// Always true: while `isOurs`, the kernel's own working directory is a place where no relative name exists and none can be made, so a call that
// slips past fails loudly. The text kept here reopens the directory after fork and exec; the inode number beside it shows whether
// it is still the same one.

import CPreload
import CSystem

enum WorkingDirectory {
    nonisolated(unsafe) private static var ours = false
    nonisolated(unsafe) private static var depth = -1
    /// From the volume's root: "/", "/a/b". Where it did not lead when it was made (the directory has no name left, or is too deep for one) it is "/",
    /// and `number` says that it is not that.
    nonisolated(unsafe) private static var textLength = 0
    nonisolated(unsafe) private static var number: UInt64 = 0

    @inline(__always) static var isOurs: Bool {
        if unsafe dashfs_borrowed_block() != nil, let own = unsafe ThreadBlock.directory { return unsafe own.pointee.is_ours != 0 }
        return unsafe ours
    }
    /// If the kernel's working directory is above the prefix: how many of the prefix's components it consists of. Else -1.
    @inline(__always) static var prefixDepth: Int { unsafe depth }
    static var inode: UInt64 {
        if let own = unsafe ThreadBlock.directory { return unsafe own.pointee.inode }
        return unsafe number
    }

    static var text: PathBytes {
        if let own = unsafe ThreadBlock.directory { return unsafe PathBytes(dashfs_block_text(own), count: Int(own.pointee.length)) }
        return unsafe PathBytes(dashfs_directory_text(), count: textLength)
    }

    /// To be called when the kernel's working directory has changed.
    static func noteKernelDirectory() {
        unsafe depth = -1
        guard let scratch = Scratch(), let prefix = unsafe Configuration.prefix.address else { return }
        let getcwd = SystemCallNumber.getcwd.rawValue
        let length = Int(dashfs_raw_syscall3(getcwd, Int64(bitPattern: scratch.address), Int64(DASHFS_TEXT_CAPACITY), 0)) - 1
        guard length > 0, length < Configuration.prefix.count else { return }
        if length == 1 {
            unsafe depth = 0
        } else if unsafe Text.byte(prefix, length) == Text.slash, unsafe Text.equal(scratch.base, prefix, length) {
            var depth = 0
            for index in 0..<length where unsafe Text.byte(prefix, index) == Text.slash { depth += 1 }
            unsafe self.depth = depth
        }
    }

    /// The kernel's working directory has become the program's.
    static func leave() {
        if Connection.isBorrowed {
            if let own = unsafe ThreadBlock.makeDirectory() { unsafe own.pointee.is_ours = 0 }
            return
        }
        unsafe ours = false
        Descriptors.setDirectory(nil)
        noteKernelDirectory()
    }

    /// What exec has handed over; opened at first use.
    static func inherit(_ path: PathBytes, inode: UInt64) {
        guard let address = unsafe path.address, path.count > 0, path.count < Int(DASHFS_TEXT_CAPACITY) else { return }
        unsafe dashfs_copy(dashfs_directory_text(), address, path.count)
        unsafe textLength = path.count
        unsafe number = inode
        unsafe ours = true
    }

    /// The working directory's description, kept alive until `release`; opened anew where it was opened by another process.
    static func pin() -> (description: Description?, error: Int64) {
        let isBorrower = unsafe ThreadBlock.directory != nil
        if !isBorrower, let description = Descriptors.pin(entry: Descriptors.directoryEntry) {
            if description.session != nil { return (description, 0) }
            description.release()
        }
        let (session, error) = Connection.session()
        guard let session else { return (nil, error) }
        guard let channel = session.acquire() else { return (nil, -ErrorNumber.io) }
        defer { session.release(channel) }
        let opened = channel.open(Place(text), flags: OpenFlags.pathOnly | OpenFlags.directory, mode: 0)
        guard opened.result >= 0 else { return (nil, opened.result == WireCompletion.escape ? -ErrorNumber.noEntry : opened.result) }
        let handle = Int32(truncatingIfNeeded: opened.result)
        guard opened.info0 == inode,
            let description = Descriptors.make(
                handle: handle, mode: UInt32(truncatingIfNeeded: opened.info1), inode: opened.info0)
        else {
            _ = channel.close(handle, keepsLocks: true)
            return (nil, -ErrorNumber.noEntry)
        }
        // A vfork child's lasts for one call.
        if isBorrower { return (description, 0) }
        _ = description.retain()
        Descriptors.setDirectory(description)
        return (description, 0)
    }

    /// chdir(2) to a place of ours.
    static func enter(_ place: Place, from description: Description?, _ session: Session, _ channel: Channel) -> WireCompletion {
        let opened = channel.open(place, flags: OpenFlags.pathOnly | OpenFlags.directory, mode: 0)
        guard opened.result >= 0 else { return opened }
        let handle = Int32(truncatingIfNeeded: opened.result)
        return WireCompletion(result: adopt(handle, opened, place, session, channel))
    }

    /// fchdir(2) on a directory of ours.
    static func enter(_ description: Description, _ session: Session, _ channel: Channel) -> Int64 {
        guard description.isDirectory else { return -20 }
        let dot: StaticString = "."
        let place = unsafe Place(PathBytes(dot.utf8Start, count: 1), from: description.handle)
        let opened = channel.open(place, flags: OpenFlags.pathOnly | OpenFlags.directory, mode: 0)
        guard opened.result >= 0 else { return opened.result }
        return adopt(Int32(truncatingIfNeeded: opened.result), opened, Place(handle: description.handle), session, channel)
    }

    private static func adopt(_ handle: Int32, _ opened: WireCompletion, _ place: Place, _ session: Session, _ channel: Channel) -> Int64 {
        let dot: StaticString = "."
        let searchable = unsafe channel.access(Place(PathBytes(dot.utf8Start, count: 1), from: handle), mode: 1, flags: 0).result
        guard searchable >= 0, let scratch = Scratch() else {
            _ = channel.close(handle, keepsLocks: true)
            return searchable < 0 ? searchable : -ErrorNumber.noMemory
        }
        var length = unsafe place.handle == WireRequest.rootHandle || handleIsPresent(place.handle) ? joined(place, scratch.base) : 0
        if length == 0 { length = Int(unsafe channel.handlePath(handle, into: scratch.base, capacity: Layout.pathLimit)) }
        if length <= 0 {
            unsafe scratch.base.storeBytes(of: Text.slash, as: UInt8.self)
            length = 1
        }
        if !isOurs {
            // Numbers are the only names there, and nobody can make others.
            let nowhere: StaticString = "/proc/self/fdinfo"
            _ = unsafe dashfs_raw_syscall3(SystemCallNumber.chdir.rawValue, Int64(Int(bitPattern: nowhere.utf8Start)), 0, 0)
        }
        if Connection.isBorrowed {
            _ = channel.close(handle, keepsLocks: true)
            guard let own = unsafe ThreadBlock.makeDirectory() else { return -ErrorNumber.noMemory }
            unsafe dashfs_copy(dashfs_block_text(own), scratch.base, length)
            unsafe own.pointee.length = UInt32(truncatingIfNeeded: length)
            unsafe own.pointee.inode = opened.info0
            unsafe own.pointee.is_ours = 1
            return 0
        }
        guard
            let description = Descriptors.make(
                handle: handle, mode: UInt32(truncatingIfNeeded: opened.info1), inode: opened.info0)
        else {
            _ = channel.close(handle, keepsLocks: true)
            return -ErrorNumber.noMemory
        }
        unsafe dashfs_copy(dashfs_directory_text(), scratch.base, length)
        unsafe textLength = length
        unsafe number = opened.info0
        unsafe ours = true
        Descriptors.setDirectory(description)
        return 0
    }

    private static func handleIsPresent(_ handle: Int32) -> Bool {
        guard isOurs, let present = Descriptors.pin(entry: Descriptors.directoryEntry) else { return false }
        defer { present.release() }
        return present.handle == handle
    }

    /// The place's text from the root, at `target`; 0 if it has ".." in it, whose meaning depends on links, or is too long.
    private static func joined(_ place: Place, _ target: UnsafeMutableRawPointer) -> Int {
        guard let path = unsafe place.path.address, place.path.count > 0 else { return 0 }
        let count = place.path.count
        var length = 0
        if place.handle != WireRequest.rootHandle {
            length = text.count
            guard let present = unsafe text.address else { return 0 }
            unsafe dashfs_copy(target, present, length)
            if length == 1 { length = 0 }
        }
        guard length + count + 1 < Int(DASHFS_TEXT_CAPACITY) else { return 0 }
        var at = 0
        while at < count {
            while at < count, unsafe Text.byte(path, at) == Text.slash { at += 1 }
            let start = at
            while at < count, unsafe Text.byte(path, at) != Text.slash { at += 1 }
            let size = at - start
            if size == 0 || size == 1 && (unsafe Text.byte(path, start)) == Text.dot { continue }
            if unsafe size == 2 && Text.byte(path, start) == Text.dot && Text.byte(path, start + 1) == Text.dot { return 0 }
            unsafe target.storeBytes(of: Text.slash, toByteOffset: length, as: UInt8.self)
            unsafe dashfs_copy(target + length + 1, path + start, size)
            length += 1 + size
        }
        if length == 0 {
            unsafe target.storeBytes(of: Text.slash, as: UInt8.self)
            length = 1
        }
        return length
    }

    /// getcwd(2): the prefix and the present path below it, with its zero. The kernel's result is the length with the zero.
    static func name(_ address: UInt64, _ capacity: Int64, _ memory: ProgramMemory) -> Int64 {
        let (pinned, error) = pin()
        guard let description = pinned else { return error }
        defer { description.release() }
        guard let scratch = Scratch() else { return -ErrorNumber.noMemory }
        let count = path(of: description, scratch)
        guard count > 0 else { return count == -ErrorNumber.range ? -ErrorNumber.nameTooLong : count }
        let total = Int(count) + 1
        guard capacity >= 0, total <= Int(min(capacity, 1 << 20)) else { return -ErrorNumber.range }
        unsafe scratch.base.storeBytes(of: 0, toByteOffset: total - 1, as: UInt8.self)
        return unsafe memory.copyOut(scratch.base, to: address, count: total) ? Int64(total) : -14
    }

    /// Where an open file is, prefix and all, written into the block. ENOENT: nowhere that is known.
    static func path(of file: Description, _ scratch: borrowing Scratch) -> Int64 {
        guard let session = file.session, let channel = session.acquire() else { return file.failure }
        defer { session.release(channel) }
        let prefix = Configuration.prefix
        guard let beginning = unsafe prefix.address else { return -ErrorNumber.io }
        unsafe dashfs_copy(scratch.base, beginning, prefix.count)
        let rest = unsafe channel.handlePath(file.handle, into: scratch.base + prefix.count, capacity: Layout.pathLimit)
        if rest < 0 { return rest }
        // The volume's root is the prefix itself.
        return Int64(prefix.count) + (rest == 1 ? 0 : rest)
    }
}
