import Client
import Wire

/// How a file is opened: one of the three ways to access it, and options, with the meaning and the numbers of Linux's open(2).
public struct OpenOptions: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let readOnly: OpenOptions = []
    public static let writeOnly = OpenOptions(rawValue: 1)
    public static let readWrite = OpenOptions(rawValue: 2)
    public static let create = OpenOptions(rawValue: 0o100)
    /// With `create`: fails where the name exists.
    public static let exclusive = OpenOptions(rawValue: 0o200)
    public static let truncate = OpenOptions(rawValue: 0o1000)
    public static let append = OpenOptions(rawValue: 0o2000)
    /// Every write is durable when it returns, but for times.
    public static let dataSync = OpenOptions(rawValue: 0o10000)
    /// Every write is durable when it returns.
    public static let sync = OpenOptions(rawValue: 0o4010000)
    /// Whole blocks go past the server's cache, between the device and the memory that is shared with it: O_DIRECT.
    public static let direct = OpenOptions(rawValue: 0o40000)
    public static let directory = OpenOptions(rawValue: 0o200000)
    public static let noFollow = OpenOptions(rawValue: 0o400000)
}

extension FileSystem {
    /// open(2). The file closes itself when it goes out of scope.
    public func open(
        _ path: some PathRepresentable, _ options: OpenOptions = .readOnly, permissions: UInt32 = 0o666
    ) throws(FileError) -> File {
        let handle: Int32 = try onPath("open", path) { channel, place in
            let completion = channel.open(place, flags: options.rawValue, mode: permissions)
            return (completion, Int32(truncatingIfNeeded: completion.result))
        }
        return File(handle: handle, volume: self, options)
    }
}

/// An open file or directory. There is one owner; when it is gone the file is closed.
///
/// Reads and writes `at` an offset leave the file's own position alone; without one they use and move it.
public struct File: ~Copyable, Sendable {
    /// -1 once it is closed.
    private(set) var handle: Int32
    public let volume: FileSystem
    /// Its writes go to the end of the file, wherever they are meant for: their order is their place.
    let isAppending: Bool

    init(handle: Int32, volume: FileSystem, _ options: OpenOptions) {
        self.handle = handle
        self.volume = volume
        isAppending = options.contains(.append)
    }

    deinit {
        if handle >= 0, let channel = volume.session.acquire() {
            _ = channel.closeSoon(handle)
            volume.session.release(channel)
        }
    }

    /// Closes now. What was written is the server's already; `synchronize` makes it the device's.
    public consuming func close() throws(FileError) {
        let open = handle
        handle = -1
        let result = try volume.withChannel("close") { $0.closeSoon(open) }
        if result < 0 { throw FileError(result: result, "close") }
    }

    // MARK: Data

    /// pread(2): fills the span from its start; fewer bytes at the end of the file.
    /// - Returns: bytes read; 0 at the end.
    @discardableResult
    public func read(into span: inout MutableRawSpan, at offset: Int64) throws(FileError) -> Int {
        guard offset >= 0 else { throw FileError(.invalidArgument, "pread") }
        return try transfer(into: &span, offset: offset)
    }

    /// read(2): from the file's position, which moves.
    @discardableResult
    public func read(into span: inout MutableRawSpan) throws(FileError) -> Int { try transfer(into: &span, offset: -1) }

    /// At most `count` bytes from `offset` (nil: the file's position).
    public func read(upTo count: Int, at offset: Int64? = nil) throws(FileError) -> [UInt8] {
        guard count >= 0, offset ?? 0 >= 0 else { throw FileError(.invalidArgument, "pread") }
        var result: Int64 = 0
        let bytes = try volume.withChannel("pread") { channel in
            unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
                guard let base = buffer.baseAddress else { return }
                result = unsafe channel.read(handle, into: base, count: count, offset: offset ?? -1)
                used = min(Int(max(result, 0)), count)
            }
        }
        if result < 0 { throw FileError(result: result, "pread") }
        return bytes
    }

    private func transfer(into span: inout MutableRawSpan, offset: Int64) throws(FileError) -> Int {
        guard let channel = volume.session.acquire() else { throw FileError(.ioError, "pread") }
        let result = unsafe span.withUnsafeMutableBytes { buffer -> Int64 in
            guard let base = buffer.baseAddress else { return 0 }
            return unsafe channel.read(handle, into: base, count: buffer.count, offset: offset)
        }
        volume.session.release(channel)
        if result < 0 { throw FileError(result: result, "pread") }
        return Int(result)
    }

    /// pwrite(2), or write(2) where `offset` is nil.
    /// - Returns: bytes written, which are fewer only where space ran out on the way.
    @discardableResult
    public func write(_ span: RawSpan, at offset: Int64? = nil) throws(FileError) -> Int {
        guard offset ?? 0 >= 0 else { throw FileError(.invalidArgument, "pwrite") }
        guard let channel = volume.session.acquire() else { throw FileError(.ioError, "pwrite") }
        let result = unsafe span.withUnsafeBytes { buffer -> Int64 in
            guard let base = buffer.baseAddress else { return 0 }
            return unsafe channel.write(handle, from: base, count: buffer.count, offset: offset ?? -1)
        }
        volume.session.release(channel)
        if result < 0 { throw FileError(result: result, "pwrite") }
        return Int(result)
    }

    /// All of `bytes`, or an error.
    public func write(_ bytes: [UInt8], at offset: Int64? = nil) throws(FileError) {
        var done = 0
        while done < bytes.count {
            let written = unsafe try write(bytes.span.bytes.extracting(droppingFirst: done), at: offset.map { $0 &+ Int64(done) })
            if written == 0 { throw FileError(.noSpace, "pwrite") }
            done += written
        }
    }

    /// fsync(2): data, metadata and name are durable when it returns. `dataOnly`: fdatasync(2).
    public func synchronize(dataOnly: Bool = false) throws(FileError) {
        try check("fsync") { $0.fsync(handle, dataOnly: dataOnly) }
    }

    /// ftruncate(2).
    public func truncate(to size: Int64) throws(FileError) { try check("ftruncate") { $0.truncate(handle, size: size) } }

    public enum Whence: UInt32, Sendable { case start, current, end, data, hole }

    /// lseek(2).
    @discardableResult
    public func seek(to offset: Int64, from whence: Whence = .start) throws(FileError) -> Int64 {
        try check("lseek") { $0.seek(handle, offset: offset, whence: whence.rawValue) }
    }

    /// What `allocate` does with a range of bytes; the numbers are fallocate(2)'s.
    public enum Allocation: UInt32, Sendable {
        /// Space is reserved: writes there do not fail for lack of it. The file grows to the range's end.
        case reserve = 0
        /// The same, and the size stays.
        case reserveKeepingSize = 1
        /// The range reads as zeros and takes no space; the size stays.
        case punchHole = 3
        /// The range reads as zeros and has its space.
        case zero = 16
        case zeroKeepingSize = 17
    }

    /// fallocate(2).
    /// - Throws: `.noSpace`, `.fileTooLarge`, `.badDescriptor` where the file is not open for writing.
    public func allocate(_ range: Range<Int64>, _ allocation: Allocation = .reserve) throws(FileError) {
        guard range.lowerBound >= 0 else { throw FileError(.invalidArgument, "fallocate") }
        try check("fallocate") {
            $0.fallocate(handle, mode: allocation.rawValue, offset: range.lowerBound, length: UInt64(range.upperBound - range.lowerBound))
        }
    }

    /// copy_file_range(2): the server copies; the bytes do not pass through this process.
    public func copy(_ range: Range<Int64>, to target: borrowing File, at offset: Int64) throws(FileError) -> Int64 {
        guard range.lowerBound >= 0, offset >= 0 else { throw FileError(.invalidArgument, "copy_file_range") }
        let (source, other) = (handle, target.handle)
        return try check("copy_file_range") {
            $0.copyRange(
                from: source, at: range.lowerBound, to: other, at: offset, length: UInt64(range.upperBound - range.lowerBound))
        }
    }

    // MARK: Attributes and entries

    /// fstat(2).
    public func status() throws(FileError) -> FileStatus {
        var status: FileStatus?
        try check("fstat") { channel in
            unsafe withUnsafeTemporaryAllocation(byteCount: FileStatus.bytes, alignment: 8) { buffer in
                guard let base = buffer.baseAddress else { return -ErrorNumber.noMemory }
                let result = unsafe channel.status(Place(handle: handle), flags: 0, into: base).result
                if result >= 0 { unsafe status = FileStatus(buffer.bytes) }
                return result
            }
        }
        guard let status else { throw FileError(.ioError, "fstat") }
        return status
    }

    /// Each entry of an open directory but "." and "..", from its present position to the end.
    public func forEachEntry(_ body: (DirectoryEntry) throws(FileError) -> Void) throws(FileError) {
        var records = [UInt8](repeating: 0, count: 65536)
        while true {
            let result = try check("getdents") { channel in
                unsafe records.withUnsafeMutableBytes { buffer in
                    guard let base = buffer.baseAddress else { return -ErrorNumber.noMemory }
                    return unsafe channel.readDirectory(handle, into: base, capacity: buffer.count)
                }
            }
            if result == 0 { return }
            for entry in File.entries(records[..<Int(min(result, 65536))]) { try body(entry) }
        }
    }

    /// linux_dirent64: inode (8), cookie (8), record length (2), type (1), name with its NUL.
    private static func entries(_ records: ArraySlice<UInt8>) -> [DirectoryEntry] {
        var entries: [DirectoryEntry] = []
        var place = 0
        while place + 19 <= records.count {
            let length = Int(records[place + 16]) | Int(records[place + 17]) << 8
            guard length >= 20, place + length <= records.count else { break }
            var inode: UInt64 = 0
            for byte in (0..<8).reversed() { inode = inode << 8 | UInt64(records[place + byte]) }
            let name = records[(place + 19)..<(place + length)].prefix { $0 != 0 }
            if name != [UInt8(ascii: ".")], name != [UInt8(ascii: "."), UInt8(ascii: ".")] {
                let kind = FileStatus.Kind(rawValue: UInt32(records[place + 18]) << 12)
                entries.append(DirectoryEntry(nameBytes: Array(name), inode: inode, kind: kind))
            }
            place += length
        }
        return entries
    }

    // MARK: Locks

    public enum LockKind: UInt32, Sendable { case shared = 0, exclusive = 1 }

    /// A lock that stands in the way of one that was asked about.
    public struct LockConflict: Sendable, Equatable {
        public var kind: LockKind
        /// To `Int64.max`: to the end of the file, wherever that is.
        public var range: Range<Int64>
        /// The process that holds it.
        public var process: Int32
    }

    /// A record lock of this process (fcntl(2) F_SETLKW, or F_SETLK where `waiting` is false). It ends with `unlock`, with the closing of any descriptor that this process has of
    /// the file, and with the process.
    /// - Parameter range: bytes; nil: the whole file, however it grows.
    /// - Throws: `.wouldBlock`: another process holds it, and `waiting` is false. `.deadlock`: it would wait for ever. `.interrupted`: by a signal. `.noLocks`.
    public func lock(_ kind: LockKind, _ range: Range<Int64>? = nil, waiting: Bool = true) throws(FileError) {
        _ = try recordLock(waiting ? 7 : 6, kind.rawValue, range)
    }

    /// Gives a range back, or everything.
    public func unlock(_ range: Range<Int64>? = nil) throws(FileError) { _ = try recordLock(6, 2, range) }

    /// What would keep this process from that lock (fcntl(2) F_GETLK); nil: nothing.
    public func conflict(with kind: LockKind, _ range: Range<Int64>? = nil) throws(FileError) -> LockConflict? {
        let answer = try recordLock(5, kind.rawValue, range)
        guard let kind = LockKind(rawValue: UInt32(truncatingIfNeeded: answer.info0)) else { return nil }
        let start = Int64(clamping: answer.info1)
        let end = answer.info2 == 0 ? Int64.max : start &+ Int64(clamping: answer.info2)
        return LockConflict(kind: kind, range: start..<max(start, end), process: Int32(truncatingIfNeeded: answer.result))
    }

    private func recordLock(_ command: UInt32, _ type: UInt32, _ range: Range<Int64>?) throws(FileError) -> WireCompletion {
        guard range.map({ $0.lowerBound >= 0 && !$0.isEmpty }) ?? true else { throw FileError(.invalidArgument, "fcntl") }
        let completion = try volume.withChannel("fcntl") {
            $0.lock(
                handle, command: command, type: type, offset: range?.lowerBound ?? 0,
                length: range.map { UInt64($0.upperBound - $0.lowerBound) } ?? 0)
        }
        if completion.result < 0 { throw FileError(result: completion.result, "fcntl") }
        return completion
    }

    /// flock(2): a lock of this open file, apart from record locks. It ends with `unlockWhole` and with the file.
    /// - Throws: `.wouldBlock`: somebody holds it, and `waiting` is false. `.interrupted`.
    public func lockWhole(_ kind: LockKind, waiting: Bool = true) throws(FileError) {
        try check("flock") { $0.flock(handle, operation: (kind == .shared ? 1 : 2) | (waiting ? 0 : 4)) }
    }

    public func unlockWhole() throws(FileError) { try check("flock") { $0.flock(handle, operation: 8) } }

    @discardableResult
    private func check(_ operation: StaticString, _ body: (Channel) -> Int64) throws(FileError) -> Int64 {
        let result = try volume.withChannel(operation, body)
        if result < 0 { throw FileError(result: result, operation) }
        return result
    }
}
