import CSystem
import Client
import Synchronization
import Wire

/// Many requests in the ring at once: put them together, run them, look at what each gave.
///
///     var batch = try volume.batch()
///     let first = try batch.write(header.span.bytes, to: file, at: 0)
///     let second = try batch.write(body.span.bytes, to: file, at: 4096)
///     try batch.run()                       // one wake-up at most, all under way together
///     try batch.result(of: first)
///
/// At most 64 requests and 1 MiB of data. They are unordered among themselves; an fsync covers what was *finished* before it, so give it a `run` of its own.
public struct Batch: ~Copyable {
    /// Names a request of this batch.
    public struct Ticket: Sendable, Equatable {
        let index: Int
        /// Which filling of which batch it belongs to.
        let filling: UInt64
    }

    private struct Entry {
        var tag: UInt8
        var operation: StaticString
        var dataOffset: Int
        var dataCount: Int
        var completion: WireCompletion?
    }

    private let volume: FileSystem
    private let channel: Channel
    private var entries: [Entry] = []
    private var dataUsed = 0
    private var filling: UInt64
    private static let fillings = Atomic<UInt64>(0)
    private static func nextFilling() -> UInt64 { fillings.add(1, ordering: .relaxed).newValue }

    /// Requests that are in the ring and not answered yet, as far as has been looked.
    public var underWay: Int { channel.tagsUnderWay }

    init(volume: FileSystem, channel: Channel) {
        self.volume = volume
        self.channel = channel
        filling = Batch.nextFilling()
    }

    deinit {
        channel.announce()
        for entry in entries where entry.completion == nil { _ = channel.wait(entry.tag) }
        volume.session.release(channel)
    }

    /// Reads up to `count` bytes at `offset`; see `bytes(of:)`.
    public mutating func read(_ count: Int, from file: borrowing File, at offset: Int64) throws(FileError) -> Ticket {
        guard offset >= 0, count >= 0 else { throw FileError(.invalidArgument, "pread") }
        var request = WireRequest(.read)
        request.handle = file.handle
        request.offset = offset
        return try add(request, "pread", dataCount: count)
    }

    /// Writes at `offset`. The bytes are copied now.
    public mutating func write(_ bytes: RawSpan, to file: borrowing File, at offset: Int64) throws(FileError) -> Ticket {
        guard offset >= 0 else { throw FileError(.invalidArgument, "pwrite") }
        var request = WireRequest(.write)
        request.handle = file.handle
        request.offset = offset
        let place = dataUsed
        guard bytes.byteCount <= channel.dataCapacity - place else { throw FileError(.noSpace, "batch") }
        unsafe bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe dashfs_copy(channel.dataArea + place, base, source.count) }
        }
        return try add(request, "pwrite", dataCount: bytes.byteCount)
    }

    public mutating func synchronize(_ file: borrowing File, dataOnly: Bool = false) throws(FileError) -> Ticket {
        var request = WireRequest(.fsync)
        request.handle = file.handle
        request.flags = dataOnly ? 1 : 0
        return try add(request, "fsync")
    }

    /// stat(2); see `status(of:)`.
    public mutating func status(of path: some PathRepresentable) throws(FileError) -> Ticket {
        try add(WireRequest(.getattr), "stat", path: path, dataCount: FileStatus.bytes)
    }

    /// unlink(2).
    public mutating func remove(_ path: some PathRepresentable) throws(FileError) -> Ticket {
        try add(WireRequest(.unlink), "unlink", path: path)
    }

    /// mkdir(2).
    public mutating func createDirectory(_ path: some PathRepresentable, permissions: UInt32 = 0o777) throws(FileError) -> Ticket {
        var request = WireRequest(.mkdir)
        request.mode = permissions
        return try add(request, "mkdir", path: path)
    }

    /// Waits until every request put in so far is answered. Data of earlier runs stays until `reset`.
    public mutating func run() {
        channel.announce()
        for index in entries.indices where entries[index].completion == nil { entries[index].completion = channel.wait(entries[index].tag) }
    }

    /// What the call would have returned: bytes for reads and writes, else 0.
    /// - Throws: the call's error; `.resourceBusy` before `run`; `.invalidArgument` for a ticket of another batch, or of before `reset`.
    @discardableResult
    public func result(of ticket: Ticket) throws(FileError) -> Int {
        guard ticket.filling == filling else { throw FileError(.invalidArgument, "batch") }
        let entry = entries[ticket.index]
        guard let completion = entry.completion else { throw FileError(.resourceBusy, "batch") }
        if completion.result == WireCompletion.escape { throw FileError(.crossesVolumes, entry.operation) }
        if completion.result < 0 { throw FileError(result: completion.result, entry.operation) }
        return Int(completion.result)
    }

    /// What a read brought.
    public func bytes(of ticket: Ticket) throws(FileError) -> [UInt8] {
        let count = min(try result(of: ticket), entries[ticket.index].dataCount)
        return unsafe Array(UnsafeRawBufferPointer(start: channel.dataArea + entries[ticket.index].dataOffset, count: count))
    }

    public func status(of ticket: Ticket) throws(FileError) -> FileStatus {
        _ = try result(of: ticket)
        let entry = entries[ticket.index]
        guard entry.dataCount == FileStatus.bytes else { throw FileError(.invalidArgument, "batch") }
        let raw = unsafe Array(UnsafeRawBufferPointer(start: channel.dataArea + entry.dataOffset, count: FileStatus.bytes))
        return unsafe FileStatus(raw.span.bytes)
    }

    /// Empties the batch for the next requests; tickets so far are void.
    public mutating func reset() {
        run()
        entries.removeAll(keepingCapacity: true)
        dataUsed = 0
        filling = Batch.nextFilling()
    }

    private mutating func add(
        _ request: WireRequest, _ operation: StaticString, path: some PathRepresentable, dataCount: Int = 0
    ) throws(FileError) -> Ticket {
        let bytes = try volume.checked(path.pathBytes, operation)
        guard bytes.count <= Layout.pathLimit else { throw FileError(.nameTooLong, operation, path.pathText) }
        return try add(request, operation, pathBytes: bytes, dataCount: dataCount)
    }

    private mutating func add(
        _ request: WireRequest, _ operation: StaticString, pathBytes: [UInt8] = [], dataCount: Int = 0
    ) throws(FileError) -> Ticket {
        guard dataCount <= channel.dataCapacity - dataUsed else { throw FileError(.noSpace, "batch") }
        guard let tag = channel.reserve() else { throw FileError(result: channel.refusal, "batch") }
        var request = request
        request.tag = tag
        if dataCount > 0 {
            request.bufferOffset = Channel.dataOffset + UInt32(dataUsed)
            request.bufferLength = UInt32(dataCount)
        }
        if !pathBytes.isEmpty {
            unsafe pathBytes.withUnsafeBytes { unsafe channel.put(Place(PathBytes($0)), into: &request) }
        }
        entries.append(Entry(tag: tag, operation: operation, dataOffset: dataUsed, dataCount: dataCount))
        // The next one's data on a cache line of its own.
        dataUsed = min(dataUsed + (dataCount + 63) & ~63, channel.dataCapacity)
        channel.submit(request)
        return Ticket(index: entries.count - 1, filling: filling)
    }
}

extension FileSystem {
    /// A ring of its own for many requests at once. Use it on one thread, and let it go when done.
    public func batch() throws(FileError) -> Batch {
        guard let channel = session.acquire() else { throw FileError(.ioError, "batch") }
        return Batch(volume: self, channel: channel)
    }
}
