// Whose is a path? Below the prefix it is ours, everything else is the kernel's.
//
// Decided from the text alone, as far as the kernel's part goes: "/tmp/../dash/x" is ours, and what a symbolic link of the kernel's
// file systems means is looked up only where the kernel finds nothing (`KernelLinks`). Inside the volume the server resolves, and hands back what leads out (`WireCompletion.escape`).

import CPreload
import CSystem

/// AT_FDCWD
let currentDirectory: Int64 = -100

/// Where a path leads. Whoever got `.ours` calls `release` when the call is over.
@safe struct Location {
    enum Kind { case kernel, ours, error }
    var kind: Kind
    var error: Int64 = 0
    var place = Place(handle: WireRequest.rootHandle)
    private var state: UnsafeMutablePointer<SessionState>?
    private var pinned: Description?

    static var kernel: Location { Location(kind: .kernel) }
    static func error(_ number: Int64) -> Location { Location(kind: .error, error: -number) }

    private init(kind: Kind, error: Int64 = 0) {
        self.kind = kind
        self.error = error
        unsafe state = nil
    }

    private init(_ place: Place, _ session: Session, pinned: Description?) {
        kind = .ours
        self.place = place
        unsafe state = session.state
        self.pinned = pinned
    }

    /// - Precondition: `kind` is `.ours`.
    var session: Session? { unsafe state.map { unsafe Session(state: $0) } }

    /// The description that the place starts from, if it starts from one.
    var description: Description? { pinned }

    func isOfSession(_ other: Location) -> Bool { unsafe state == other.state }

    func release() {
        pinned?.release()
        if let session, Connection.isTemporary(session) { session.disconnect() }
    }

    /// - Parameters:
    ///   - directory: the call's directory descriptor, or `currentDirectory`.
    ///   - allowsEmpty: an empty path means the directory descriptor itself.
    ///   - follows: what a symbolic link names is meant, not the link.
    static func find(
        _ directory: Int64, _ address: UInt64, _ memory: ProgramMemory, allowsEmpty: Bool = false, follows: Bool = true
    ) -> Location {
        let directory = Int64(Int32(truncatingIfNeeded: directory))
        guard memory.isReadable(address, 1), let text = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else {
            // The kernel says EFAULT; for a directory of ours that it does not know we do.
            return directory != currentDirectory && Descriptors.isFile(directory) ? .error(14) : .kernel
        }
        let first = unsafe Text.byte(text, 0)
        if first == Text.slash { return unsafe absolute(text, address, memory, follows: follows) }
        let isCurrent = directory == currentDirectory
        if isCurrent ? WorkingDirectory.isOurs : Descriptors.isFile(directory) {
            guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)) else { return .error(14) }
            if length > Layout.pathLimit { return .error(ErrorNumber.nameTooLong) }
            if length == 0, !allowsEmpty { return .error(ErrorNumber.noEntry) }
            return unsafe relative(PathBytes(text, count: length), directory)
        }
        if !isCurrent, Descriptors.isOwn(directory) { return .error(ErrorNumber.badDescriptor) }
        if first == 0 { return .kernel }
        return unsafe isCurrent ? belowKernelDirectory(text, address, memory) : belowKernelDescriptor(directory, text, address, memory)
    }

    /// The file that a descriptor of ours is.
    static func file(_ descriptor: Int64) -> Location {
        guard let description = Descriptors.pin(descriptor) else { return .error(ErrorNumber.badDescriptor) }
        return of(description, .none)
    }

    private static func relative(_ path: PathBytes, _ directory: Int64) -> Location {
        let description: Description
        if directory == currentDirectory {
            let (present, error) = WorkingDirectory.pin()
            guard let present else { return Location(kind: .error, error: error) }
            description = present
        } else {
            guard let present = Descriptors.pin(directory) else { return .error(ErrorNumber.badDescriptor) }
            description = present
        }
        return of(description, path)
    }

    /// What the path means from a description, which is held from now on or let go.
    private static func of(_ description: Description, _ path: PathBytes) -> Location {
        var failure = Location(kind: .error, error: description.failure)
        if description.session != nil {
            let (present, error) = Connection.session()
            if let session = present, description.session != nil {
                if path.count == 0 { return Location(Place(handle: description.handle), session, pinned: description) }
                if description.isDirectory { return Location(Place(path, from: description.handle), session, pinned: description) }
                failure.error = -20
            } else {
                failure.error = present == nil ? error : description.failure
            }
        }
        description.release()
        return failure
    }

    private static func absolute(_ text: UnsafeRawPointer, _ address: UInt64, _ memory: ProgramMemory, follows: Bool) -> Location {
        guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)) else { return .kernel }
        if let rest = unsafe remainder(PathBytes(text, count: length), startingFrom: 0) {
            if length > Layout.pathLimit { return .error(ErrorNumber.nameTooLong) }
            return below(rest)
        }
        return unsafe Descriptors.end > 0 && follows ? throughProc(PathBytes(text, count: length)) : .kernel
    }

    /// A place in the volume by the rest of a path after the prefix.
    private static func below(_ rest: PathBytes) -> Location {
        let (session, error) = Connection.session()
        guard let session else { return Location(kind: .error, error: error) }
        if rest.count > 0 { return Location(Place(rest), session, pinned: nil) }
        let root: StaticString = "/"
        return unsafe Location(Place(PathBytes(root.utf8Start, count: 1)), session, pinned: nil)
    }

    /// What follows the prefix in `path`; nil if the path is not below it. `matched`: components of the prefix that `path` starts from
    /// (0: from the root).
    private static func remainder(_ path: PathBytes, startingFrom depth: Int) -> PathBytes? {
        guard let text = unsafe path.address, let prefix = unsafe Configuration.prefix.address else { return nil }
        let count = path.count
        let prefixCount = Configuration.prefix.count
        // How deep the walk is, and how many of its components, from the root, are the prefix's.
        var level = depth, matched = depth
        var at = 0
        while at < count {
            while at < count, unsafe Text.byte(text, at) == Text.slash { at += 1 }
            let start = at
            while at < count, unsafe Text.byte(text, at) != Text.slash { at += 1 }
            let size = at - start
            if size == 0 || size == 1 && (unsafe Text.byte(text, start)) == Text.dot { continue }
            if unsafe size == 2 && Text.byte(text, start) == Text.dot && Text.byte(text, start + 1) == Text.dot {
                level = max(level - 1, 0)
                matched = min(matched, level)
                continue
            }
            if level == matched, unsafe isComponent(matched, of: prefix, prefixCount, text + start, size) { matched += 1 }
            level += 1
            if level == matched, matched == Configuration.prefixComponents { return unsafe PathBytes(text + at, count: count - at) }
        }
        return nil
    }

    /// What follows the prefix in an absolute path; nil if it does not lead below it.
    static func belowPrefix(_ path: PathBytes) -> PathBytes? { remainder(path, startingFrom: 0) }

    /// Whether a path leads to the volume, or, if it is relative, may do so. Empty: the working directory.
    static func mayLeadToVolume(_ path: PathBytes) -> Bool {
        guard path.count > 0, let text = unsafe path.address else { return WorkingDirectory.isOurs }
        return unsafe Text.byte(text, 0) == Text.slash ? belowPrefix(path) != nil : WorkingDirectory.isOurs || namesPrefix(path)
    }

    private static func isComponent(_ index: Int, of prefix: UnsafeRawPointer, _ prefixCount: Int, _ name: UnsafeRawPointer, _ size: Int) -> Bool {
        var at = 0
        var passed = 0
        while at < prefixCount {
            at += 1
            let start = at
            while at < prefixCount, unsafe Text.byte(prefix, at) != Text.slash { at += 1 }
            if passed == index { return unsafe at - start == size && Text.equal(prefix + start, name, size) }
            passed += 1
        }
        return false
    }

    /// A relative path while the working directory is the kernel's: ours if that is above the prefix, or if ".." leads there.
    private static func belowKernelDirectory(_ text: UnsafeRawPointer, _ address: UInt64, _ memory: ProgramMemory) -> Location {
        let depth = WorkingDirectory.prefixDepth
        if depth >= 0 {
            guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)) else { return .kernel }
            guard let rest = unsafe remainder(PathBytes(text, count: length), startingFrom: depth) else { return .kernel }
            return length > Layout.pathLimit ? .error(ErrorNumber.nameTooLong) : below(rest)
        }
        guard memory.isReadable(address, 3), unsafe Text.byte(text, 0) == Text.dot, unsafe Text.byte(text, 1) == Text.dot,
            unsafe Text.byte(text, 2) == Text.slash
        else { return .kernel }
        guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)), length <= Layout.pathLimit,
            let scratch = Scratch()
        else { return .kernel }
        let getcwd = SystemCallNumber.getcwd.rawValue
        let present = Int(dashfs_raw_syscall3(getcwd, Int64(bitPattern: scratch.address), Int64(DASHFS_TEXT_CAPACITY), 0)) - 1
        return unsafe below(scratch, present, text, length)
    }

    /// A path from a directory of the kernel's by its descriptor, as careful programs walk: ours if that is above the prefix, or if ".." leads there. Where the directory is is asked
    /// of /proc only for a path that has the last of the prefix's names in it.
    private static func belowKernelDescriptor(_ directory: Int64, _ text: UnsafeRawPointer, _ address: UInt64, _ memory: ProgramMemory) -> Location {
        guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)), length <= Layout.pathLimit, unsafe namesPrefix(PathBytes(text, count: length)),
            directory >= 0, let scratch = Scratch()
        else { return .kernel }
        let name = unsafe scratch.base + Int(DASHFS_TEXT_CAPACITY)
        unsafe DescriptorLinks.write(directory, to: name)
        let present = Int(
            dashfs_raw_syscall3(
                SystemCallNumber.readlink.rawValue, Int64(Int(bitPattern: name)), Int64(bitPattern: scratch.address), Int64(DASHFS_TEXT_CAPACITY) - 1))
        return unsafe below(scratch, present, text, length)
    }

    /// Whether one of the path's names is the prefix's last.
    static func namesPrefix(_ path: PathBytes) -> Bool {
        guard let prefix = unsafe Configuration.prefix.address, let text = unsafe path.address else { return false }
        let length = path.count
        let start = Configuration.prefixParent.count + 1
        let size = Configuration.prefix.count - start
        var at = 0
        while at + size <= length {
            let end = at + size
            if unsafe Text.equal(text + at, prefix + start, size), unsafe end == length || Text.byte(text, end) == Text.slash { return true }
            while at < length, unsafe Text.byte(text, at) != Text.slash { at += 1 }
            while at < length, unsafe Text.byte(text, at) == Text.slash { at += 1 }
        }
        return false
    }

    /// The path from a directory whose own path, of `present` bytes, is in the scratch block.
    private static func below(_ scratch: borrowing Scratch, _ present: Int, _ text: UnsafeRawPointer, _ length: Int) -> Location {
        // The directory's path, a slash, the path; what is found in it is a suffix of the program's own text.
        guard present > 0, unsafe Text.byte(scratch.base, 0) == Text.slash else { return .kernel }
        unsafe scratch.base.storeBytes(of: Text.slash, toByteOffset: present, as: UInt8.self)
        unsafe dashfs_copy(scratch.base + present + 1, text, length)
        guard let rest = unsafe remainder(PathBytes(scratch.base, count: present + 1 + length), startingFrom: 0), rest.count <= length
        else { return .kernel }
        return unsafe below(PathBytes(text + (length - rest.count), count: rest.count))
    }

    /// What of /proc and /dev leads to a file of ours.
    private static func throughProc(_ path: PathBytes) -> Location {
        guard let number = DescriptorLinks.number(path), Descriptors.isFile(number) else { return .kernel }
        return file(number)
    }
}

extension PathBytes {
    /// What follows `beginning`, or nil if the text does not begin with it.
    func dropping(_ beginning: StaticString) -> PathBytes? {
        let size = beginning.utf8CodeUnitCount
        guard count >= size, let text = unsafe address, unsafe Text.equal(text, beginning.utf8Start, size) else { return nil }
        return unsafe PathBytes(text + size, count: count - size)
    }
}
