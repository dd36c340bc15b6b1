/// Paths to inodes: one walk for every operation.
///
/// Rules: every directory walked through needs search permission; symbolic links in the middle are always followed, the last one where the caller says
/// so; 40 links at most (ELOOP); names to 255 bytes, the whole text (with what links insert) to 4095. A walk that leaves the volume ends with
/// `escape`: the rest of the text goes back to the client.
struct Resolution {
    enum Last { case name, dot, dotDot, root }
    /// The directory of the last component (for root, dot and dotdot: the directory itself), as it was before the operation changed anything.
    var directory: Inode
    var name: Name
    var last: Last
    /// What the path names, likewise; nil: the last component does not exist.
    var file: Inode?
    /// Where the entry of the last component is; nil for ".", ".." and the root.
    var entry: DirectoryEntry?
    /// The text ended in `/`: only a directory will do.
    var wantsDirectory: Bool

    @inline(__always) var parent: UInt64 { directory.number }
    /// 0: does not exist.
    @inline(__always) var inode: UInt64 { file?.number ?? 0 }

    /// A path that ends at a directory which no entry of the walk named.
    @inline(__always) static func end(_ directory: Inode, _ name: Name, _ last: Last, wantsDirectory: Bool = true) -> Resolution {
        Resolution(directory: directory, name: name, last: last, file: directory, entry: nil, wantsDirectory: wantsDirectory)
    }

    /// Why there is no such entry.
    var absence: Stop { .errno(name.count > Volume.maximumName ? Errno.nameTooLong : Errno.noEntry) }
}

/// What a slash behind the last component means.
enum TrailingSlash {
    /// A directory is asked for, and a symbolic link followed to it.
    case asksForDirectory
    /// The entry itself is meant all the same: for operations that change entries, as on Linux.
    case keepsEntry
    /// EISDIR: for O_CREAT, which makes no directories.
    case refused
}

/// RESOLVE_* of openat2(2): what a walk may not pass. Magic links and other mounts there are none of in a volume, so leaving it is all that
/// RESOLVE_NO_XDEV forbids.
struct WalkLimits: OptionSet {
    let rawValue: UInt64
    static let noLeaving = WalkLimits(rawValue: 1)
    static let noLinks = WalkLimits(rawValue: 4)
    /// The directory that the walk starts from is as far up as it goes: EXDEV beyond.
    static let beneath = WalkLimits(rawValue: 8)
    /// The same directory is what `/` and `..` above it lead to.
    static let inRoot = WalkLimits(rawValue: 16)
    /// With RESOLVE_NO_MAGICLINKS 2 and RESOLVE_CACHED 32, which mean nothing here.
    static let known: UInt64 = 63
}

@safe final class PathBuffers {
    /// Two paths of an operation may each need room for what links insert.
    let memory: UnsafeMutableRawPointer
    init() { unsafe memory = .allocate(byteCount: 4 * 4096, alignment: 16) }
    deinit { unsafe memory.deallocate() }
}

extension Volume {
    static let escapeErrno: Int32 = 4096
    static let maximumPath = 4095
    static let maximumName = 255
    static let maximumLinks = 40

    /// - Parameters:
    ///   - second: the operation's second path (its own buffer; `escape` says which).
    ///   - follow: a symbolic link at the end is followed.
    func resolve(
        _ request: Request, second: Bool = false, follow: Bool, slash trailing: TrailingSlash = .asksForDirectory, emptyIsHandle: Bool = false,
        _ tx: Transaction
    ) throws(Stop) -> Resolution {
        guard let sessionIndex = sessionIndex(request.session) else { throw .errno(Errno.badDescriptor) }
        let handle = second ? request.handle2 : request.handle
        var text = unsafe UnsafeRawPointer((second ? request.path2 : request.path) ?? pathBuffers.memory)
        var count = second ? request.path2Length : request.pathLength
        guard count > 0 || emptyIsHandle else { throw .errno(Errno.noEntry) }
        guard count <= Volume.maximumPath else { throw .errno(Errno.nameTooLong) }

        let limits = request.opcode == .open ? WalkLimits(rawValue: request.length) : []
        guard limits.rawValue & ~WalkLimits.known == 0, !limits.isSuperset(of: [.beneath, .inRoot]) else { throw .errno(Errno.invalid) }
        var start = Superblock.rootInode
        let isAbsolute = unsafe count > 0 && text.load(as: UInt8.self) == UInt8(ascii: "/")
        if isAbsolute && limits.contains(.beneath) { throw .errno(Errno.crossDevice) }
        if handle != Request.rootHandle && (!isAbsolute || limits.contains(.inRoot)) {
            start = try openDescription(handle, request.session, tx).inode
        }
        let top = limits.isDisjoint(with: [.beneath, .inRoot]) ? Superblock.rootInode : start
        var current = try inode(start, tx)
        if count == 0 { return unsafe .end(current, Name(text, 0), .dot, wantsDirectory: false) }
        let buffer = unsafe pathBuffers.memory + (second ? 8192 : 0)
        var links = 0
        var at = 0
        while true {
            // At the start of a component, or at the end.
            while at < count, unsafe text.load(fromByteOffset: at, as: UInt8.self) == UInt8(ascii: "/") { at &+= 1 }
            guard current.isDirectory else { throw .errno(Errno.notDirectory) }
            if at == count { return unsafe .end(current, Name(text + at, 0), .root) }
            guard sessions[sessionIndex].credentials.may(Access.execute, current) else { throw .errno(Errno.access) }
            let start = at
            while at < count {
                let byte = unsafe text.load(fromByteOffset: at, as: UInt8.self)
                if byte == UInt8(ascii: "/") { break }
                if byte == 0 { throw .errno(Errno.invalid) }
                at &+= 1
            }
            let name = unsafe Name(text + start, at &- start)
            var rest = at
            while rest < count, unsafe text.load(fromByteOffset: rest, as: UInt8.self) == UInt8(ascii: "/") { rest &+= 1 }
            let isLast = rest == count
            let slash = isLast && rest > at
            if name.count > Volume.maximumName {
                // Of a last name the operation tells, after what it finds wrong with its other path.
                guard isLast, current.links > 0 else { throw .errno(current.links > 0 ? Errno.nameTooLong : Errno.noEntry) }
                if slash && trailing == .refused { throw .errno(Errno.isDirectory) }
                return Resolution(directory: current, name: name, last: .name, file: nil, entry: nil, wantsDirectory: slash)
            }

            if unsafe name.bytes.load(as: UInt8.self) == UInt8(ascii: ".") {
                if name.count == 1 {
                    if isLast { return .end(current, name, .dot) }
                    continue
                }
                if unsafe name.count == 2 && name.bytes.load(fromByteOffset: 1, as: UInt8.self) == UInt8(ascii: ".") {
                    if current.number == top {
                        if limits.contains(.beneath) { throw .errno(Errno.crossDevice) }
                        if !limits.contains(.inRoot), !sessions[sessionIndex].prefix.isEmpty {
                            if limits.contains(.noLeaving) { throw .errno(Errno.crossDevice) }
                            throw unsafe escape(request, second, text + start, count - start)
                        }
                    } else {
                        current = try inode(current.parent, tx)
                    }
                    if isLast { return .end(current, name, .dotDot) }
                    continue
                }
            }
            if slash && trailing == .refused { throw .errno(Errno.isDirectory) }
            guard let entry = try find(name, in: current, tx) else {
                if !isLast { throw .errno(Errno.noEntry) }
                return Resolution(directory: current, name: name, last: .name, file: nil, entry: nil, wantsDirectory: slash)
            }
            let target = try inode(entry.inode, tx)
            if target.isLink && (!isLast || follow || slash && trailing == .asksForDirectory) {
                links += 1
                if links > Volume.maximumLinks || limits.contains(.noLinks) { throw .errno(Errno.loop) }
                // The link's text, then what was not walked yet.
                let length = Int(clamping: target.size)
                let remaining = count - at
                guard length > 0, length <= Volume.maximumPath - remaining else { throw .errno(length == 0 ? Errno.noEntry : Errno.nameTooLong) }
                unsafe (buffer + length).copyMemory(from: text + at, byteCount: remaining)
                try unsafe readLink(target, into: buffer, tx)
                unsafe text = UnsafeRawPointer(buffer)
                count = length + remaining
                at = 0
                if unsafe text.load(as: UInt8.self) == UInt8(ascii: "/") {
                    if limits.contains(.beneath) { throw .errno(Errno.crossDevice) }
                    let prefix = limits.contains(.inRoot) ? [] : sessions[sessionIndex].prefix
                    if !prefix.isEmpty {
                        if limits.contains(.noLeaving) { throw .errno(Errno.crossDevice) }
                        guard unsafe count >= prefix.count && prefix.withUnsafeBytes({ unsafe dashfs_equal($0.baseAddress!, text, prefix.count) })
                            && (count == prefix.count || text.load(fromByteOffset: prefix.count, as: UInt8.self) == UInt8(ascii: "/"))
                        else { throw unsafe escape(request, second, text, count) }
                        at = prefix.count
                    }
                    current = try inode(limits.contains(.inRoot) ? top : Superblock.rootInode, tx)
                }
                continue
            }
            if isLast { return Resolution(directory: current, name: name, last: .name, file: target, entry: entry, wantsDirectory: slash) }
            current = target
        }
    }

    /// The text to be resolved by the client goes back in the request's path.
    private func escape(_ request: Request, _ second: Bool, _ text: UnsafeRawPointer, _ count: Int) -> Stop {
        if let path = unsafe second ? request.path2 : request.path { unsafe path.copyMemory(from: text, byteCount: count) }
        escapeLength = count
        escapeSecond = second
        return .errno(Volume.escapeErrno)
    }

    /// The existing inode that the path names.
    func resolveExisting(_ request: Request, follow: Bool, emptyIsHandle: Bool = true, _ tx: Transaction) throws(Stop) -> Inode {
        let resolution = try resolve(request, follow: follow, emptyIsHandle: emptyIsHandle, tx)
        guard let found = resolution.file else { throw resolution.absence }
        if resolution.wantsDirectory && !found.isDirectory { throw .errno(Errno.notDirectory) }
        return found
    }

    /// The directory that a new entry goes into, which may be written and takes the name.
    func requireRoom(for resolution: Resolution, _ credentials: Credentials) throws(Stop) -> Inode {
        if resolution.directory.links == 0 { throw .errno(Errno.noEntry) }
        if resolution.name.count > Volume.maximumName { throw .errno(Errno.nameTooLong) }
        return try requireParent(resolution, credentials)
    }

    /// The directory of an entry that is to be changed.
    func requireParent(_ resolution: Resolution, _ credentials: Credentials) throws(Stop) -> Inode {
        guard credentials.may(Access.write | Access.execute, resolution.directory) else { throw .errno(Errno.access) }
        return resolution.directory
    }
}
