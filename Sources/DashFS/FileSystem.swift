import CSystem
import Client
import Wire

/// A DashFS volume that a server on this machine serves, reached through shared memory.
///
///     let volume = try FileSystem.connect()
///     let file = try volume.open("/notes.txt", [.readWrite, .create])
///     try file.write(text.utf8.span.bytes, at: 0)
///     try file.synchronize()
///
/// Any thread may call anything; each thread gets a ring of its own, up to 256. Calls block until they are answered; `async` forms and `Batch` do not
/// block a thread. Paths begin at the volume's root. A symbolic link that leads out of the volume fails with `.crossesVolumes`, unless it leads to
/// `prefix`, the place where programs see the volume. A forked child must connect anew.
public final class FileSystem: Sendable {
    let session: Session
    let engine: AsyncEngine

    /// Connects to the server that listens at `path`; nil: at DASHFS_SOCKET, else where the user's own server listens, else at the system's (`docs/COMMANDS.md`).
    /// - Parameter prefix: where unmodified programs see the volume (`dashfs run --at`), for absolute symbolic links; empty: they start at the volume's root.
    /// - Throws: `.noSuchFile`, `.refused`: nobody listens there. `.permissionDenied`: the server does not serve this user.
    ///   `.versionMismatch`: it speaks another protocol version.
    public static func connect(socket path: String? = nil, prefix: String = "/dash") throws(FileError) -> FileSystem {
        var path = path ?? standardSocket
        let prefix = Array(prefix.utf8)
        let connected = path.withUTF8 { bytes -> Result<Session, ErrorCode> in
            guard let base = bytes.baseAddress else { return .failure(ErrorCode(number: FileError.Code.noSuchFile.rawValue)) }
            do throws(ErrorCode) {
                let place = unsafe prefix.withUnsafeBytes { prefix -> Result<Session, ErrorCode> in
                    do throws(ErrorCode) {
                        return .success(try unsafe Session.connect(path: base, length: bytes.count, prefix: PathBytes(prefix)))
                    } catch { return .failure(error) }
                }
                return .success(try place.get())
            } catch { return .failure(error) }
        }
        switch connected {
        case .success(let session): return FileSystem(session: session)
        case .failure(let error): throw FileError(FileError.Code(rawValue: error.number), "connect", path)
        }
    }

    private static var standardSocket: String {
        unsafe withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { buffer in
            let count = unsafe buffer.baseAddress.map { unsafe dashfs_find_socket($0.assumingMemoryBound(to: CChar.self), buffer.count) } ?? 0
            return unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
        }
    }

    /// Requests of tasks that are in the ring and not answered.
    public var requestsUnderWay: Int { engine.underWay }

    package init(session: Session) {
        self.session = session
        engine = AsyncEngine(session: session)
    }

    deinit {
        engine.end()
        session.disconnect()
    }

    // MARK: Names

    /// stat(2), or lstat(2) where symbolic links are not followed.
    public func status(of path: some PathRepresentable, followingSymbolicLinks: Bool = true) throws(FileError) -> FileStatus {
        try onPath("stat", path) { channel, place in
            unsafe withUnsafeTemporaryAllocation(byteCount: FileStatus.bytes, alignment: 8) { buffer in
                guard let base = buffer.baseAddress else { return (WireCompletion(result: -ErrorNumber.noMemory), nil) }
                let completion = unsafe channel.status(place, flags: followingSymbolicLinks ? 0 : 0x100, into: base)
                return unsafe (completion, completion.result >= 0 ? FileStatus(buffer.bytes) : nil)
            }
        }
    }

    /// True where something has this name (a symbolic link counts by what it leads to).
    public func exists(_ path: some PathRepresentable) throws(FileError) -> Bool {
        do {
            _ = try status(of: path)
            return true
        } catch where error.code == .noSuchFile || error.code == .notDirectory { return false }
    }

    public struct Access: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        public static let execute = Access(rawValue: 1)
        public static let write = Access(rawValue: 2)
        public static let read = Access(rawValue: 4)
    }

    /// access(2), for the identity that connected: whether all of that is allowed; false also where there is no such file.
    public func allows(_ access: Access, on path: some PathRepresentable) throws(FileError) -> Bool {
        do {
            try onPath("access", path) { channel, place in (channel.access(place, mode: access.rawValue, flags: 0), ()) }
            return true
        } catch where error.code == .permissionDenied || error.code == .noSuchFile || error.code == .readOnly { return false }
    }

    /// mkdir(2).
    public func createDirectory(_ path: some PathRepresentable, permissions: UInt32 = 0o777) throws(FileError) {
        try onPath("mkdir", path) { channel, place in (channel.mkdir(place, mode: permissions), ()) }
    }

    /// rmdir(2).
    public func removeDirectory(_ path: some PathRepresentable) throws(FileError) {
        try onPath("rmdir", path) { channel, place in (channel.rmdir(place), ()) }
    }

    /// unlink(2).
    public func remove(_ path: some PathRepresentable) throws(FileError) {
        try onPath("unlink", path) { channel, place in (channel.unlink(place), ()) }
    }

    public struct RenameOptions: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Fail with `.fileExists` instead of replacing.
        public static let noReplace = RenameOptions(rawValue: 1)
        /// Both exist, and change places.
        public static let exchange = RenameOptions(rawValue: 2)
    }

    /// renameat2(2): atomic, also over a crash.
    public func rename(_ old: some PathRepresentable, to new: some PathRepresentable, _ options: RenameOptions = []) throws(FileError) {
        try onPaths("rename", old, new) { channel, from, to in channel.rename(from, to: to, flags: options.rawValue) }
    }

    /// link(2): a further name for a file. A symbolic link is linked itself.
    public func link(_ existing: some PathRepresentable, to new: some PathRepresentable) throws(FileError) {
        try onPaths("link", existing, new) { channel, from, to in channel.link(from, to: to, flags: 0) }
    }

    /// symlink(2).
    public func createSymbolicLink(_ path: some PathRepresentable, to target: some PathRepresentable) throws(FileError) {
        let text = target.pathBytes
        guard !text.isEmpty, !text.contains(0) else {
            throw FileError(text.isEmpty ? .noSuchFile : .invalidArgument, "symlink", path.pathText)
        }
        try onPath("symlink", path) { channel, place in
            (unsafe text.withUnsafeBytes { unsafe channel.symlink(PathBytes($0), at: place) }, ())
        }
    }

    /// readlink(2).
    public func targetOfSymbolicLink(_ path: some PathRepresentable) throws(FileError) -> [UInt8] {
        try onPath("readlink", path) { channel, place in
            var target = [UInt8](repeating: 0, count: Layout.pathCapacity)
            let completion = unsafe target.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return WireCompletion(result: -ErrorNumber.noMemory) }
                return unsafe channel.readlink(place, into: base, capacity: buffer.count)
            }
            return (completion, Array(target.prefix(Int(max(completion.result, 0)))))
        }
    }

    /// The names in a directory, "." and ".." left out, in no particular order.
    public func contents(of path: some PathRepresentable) throws(FileError) -> [DirectoryEntry] {
        let directory = try open(path, [.readOnly, .directory])
        var entries: [DirectoryEntry] = []
        try directory.forEachEntry { entries.append($0) }
        return entries
    }

    // MARK: Attributes

    /// chmod(2).
    public func setPermissions(_ permissions: UInt32, of path: some PathRepresentable) throws(FileError) {
        try setAttributes("chmod", path) { request in
            request.attributeMask = 1
            request.mode = permissions
        }
    }

    /// chown(2); nil leaves one as it is.
    public func setOwner(
        user: UInt32?, group: UInt32?, of path: some PathRepresentable, followingSymbolicLinks: Bool = true
    ) throws(FileError) {
        try setAttributes("chown", path) { request in
            request.attributeMask = (user == nil ? 0 : 2) | (group == nil ? 0 : 4)
            request.attributeOwner = user ?? 0
            request.attributeGroup = group ?? 0
            request.flags = followingSymbolicLinks ? 0 : 0x100
        }
    }

    /// truncate(2), up or down.
    public func truncate(_ path: some PathRepresentable, to size: Int64) throws(FileError) {
        try setAttributes("truncate", path) { request in
            request.attributeMask = 8
            request.length = UInt64(bitPattern: size)
        }
    }

    /// utimensat(2); nil leaves one as it is.
    public func setTimes(
        accessed: FileStatus.Moment?, modified: FileStatus.Moment?, of path: some PathRepresentable, followingSymbolicLinks: Bool = true
    ) throws(FileError) {
        try setAttributes("utimensat", path) { request in
            request.attributeMask = (accessed == nil ? 0 : 16) | (modified == nil ? 0 : 32)
            request.accessSeconds = accessed?.seconds ?? 0
            request.accessNanoseconds = accessed?.nanoseconds ?? 0
            request.modificationSeconds = modified?.seconds ?? 0
            request.modificationNanoseconds = modified?.nanoseconds ?? 0
            request.flags = followingSymbolicLinks ? 0 : 0x100
        }
    }

    private func setAttributes(
        _ operation: StaticString, _ path: some PathRepresentable, _ fill: (inout WireRequest) -> Void
    ) throws(FileError) {
        try onPath(operation, path) { channel, place in
            var request = WireRequest(.setattr)
            fill(&request)
            return (channel.setAttributes(place, &request), ())
        }
    }

    // MARK: Extended attributes

    /// getxattr(2).
    public func extendedAttribute(_ name: String, of path: some PathRepresentable) throws(FileError) -> [UInt8] {
        let name = try attributeName(name, "getxattr")
        return try onPath("getxattr", path) { channel, place in
            unsafe FileSystem.filling(65536) { buffer, capacity in
                unsafe name.withUnsafeBytes { unsafe channel.getxattr(place, name: PathBytes($0), into: buffer, capacity: capacity) }
            }
        }
    }

    /// What becomes of a value that is there already, or is not; the numbers are setxattr(2)'s.
    public enum AttributeReplacement: UInt32, Sendable { case whatever = 0, mustBeNew = 1, mustExist = 2 }

    /// setxattr(2).
    /// - Throws: `.fileExists`, `.noAttribute` as `replacement` says; `.noSpace` where all attributes of a file are more than 64 KiB.
    public func setExtendedAttribute(
        _ name: String, to value: [UInt8], of path: some PathRepresentable, _ replacement: AttributeReplacement = .whatever
    ) throws(FileError) {
        let name = try attributeName(name, "setxattr")
        try onPath("setxattr", path) { channel, place in
            let completion = unsafe name.withUnsafeBytes { name in
                unsafe value.withUnsafeBytes { value in
                    unsafe channel.setxattr(place, name: PathBytes(name), value: value.baseAddress, count: value.count, flags: replacement.rawValue)
                }
            }
            return (completion, ())
        }
    }

    /// listxattr(2).
    public func extendedAttributes(of path: some PathRepresentable) throws(FileError) -> [String] {
        let list: [UInt8] = try onPath("listxattr", path) { channel, place in
            unsafe FileSystem.filling(65536) { buffer, capacity in unsafe channel.listxattr(place, into: buffer, capacity: capacity) }
        }
        return list.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// removexattr(2).
    public func removeExtendedAttribute(_ name: String, of path: some PathRepresentable) throws(FileError) {
        let name = try attributeName(name, "removexattr")
        try onPath("removexattr", path) { channel, place in
            (unsafe name.withUnsafeBytes { unsafe channel.removexattr(place, name: PathBytes($0)) }, ())
        }
    }

    private func attributeName(_ name: String, _ operation: StaticString) throws(FileError) -> [UInt8] {
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty, !bytes.contains(0) else { throw FileError(.invalidArgument, operation, name) }
        return bytes
    }

    // MARK: The volume

    /// sync(2) for this volume: everything acknowledged so far is durable when it returns.
    public func synchronize() throws(FileError) {
        let result = try withChannel("sync") { $0.sync() }
        if result < 0 { throw FileError(result: result, "sync") }
    }

    /// statfs(2).
    public func volumeStatus() throws(FileError) -> VolumeStatus {
        try onPath("statfs", "/") { channel, place in
            unsafe withUnsafeTemporaryAllocation(byteCount: 120, alignment: 8) { buffer in
                guard let base = buffer.baseAddress else { return (WireCompletion(result: -ErrorNumber.noMemory), nil) }
                let completion = unsafe channel.statfs(place, into: base, capacity: 120)
                guard completion.result >= 0 else { return (completion, nil) }
                func word(_ offset: Int) -> UInt64 { unsafe base.load(fromByteOffset: offset, as: UInt64.self) }
                let status = VolumeStatus(
                    blockSize: Int64(bitPattern: word(8)), blocks: word(16), freeBlocks: word(24), availableBlocks: word(32),
                    inodes: word(40), freeInodes: word(48))
                return (completion, status)
            }
        }
    }

    static func filling(
        _ capacity: Int, _ body: (UnsafeMutableRawPointer?, Int) -> WireCompletion
    ) -> (WireCompletion, [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: capacity)
        let completion = unsafe bytes.withUnsafeMutableBytes { unsafe body($0.baseAddress, capacity) }
        return (completion, Array(bytes.prefix(Int(max(completion.result, 0)))))
    }
}
