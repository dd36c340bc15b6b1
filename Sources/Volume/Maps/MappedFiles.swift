/// Files that programs have mapped: their memory, and how it stays the same as the volume.
///
/// Invariants:
/// - a mapped file's in-core row is flagged `mapped`, and counts it as one who has the file open: it outlives descriptors and names;
/// - what changes content in the volume names it in the transaction's `mirrors`; the memory changes when the transaction has been committed, before anything else
///   runs. So pages of the memory that are present hold what the volume holds, but for what programs have stored since;
/// - where a program may store (`isWritable`, the row flagged `sharedMap`) the memory is what counts: read(2) answers from it, and `absorb` brings
///   what is new into the volume, found by the sums of pages as the volume has them;
/// - it ends when nobody holds the memory any more, after a last `absorb`. Nothing in the memory is trusted.
final class MappedFile {
    let inode: UInt64
    let memory: any FileMemory
    /// Someone has been given the memory to store into.
    var isWritable = false
    /// Sums are kept from here on.
    var keepsSums = false
    /// It could not be kept the same as the volume: its programs have no memory any more.
    var isBroken = false
    /// For each page its sum as the volume has it, or `PageSum.absent` or `.unknown`.
    var sums: ContiguousArray<UInt64> = []
    /// Pages [from, to) that programs have asked for, also beyond the end of the file,
    /// and who has asked for them last.
    var wanted: [(from: UInt64, to: UInt64, user: UInt32)] = []
    /// Whose programs made it, and for whom how many of its pages are in memory (`sums`): for the limits of a user.
    let user: UInt32
    private var charges: [UInt32: Int] = [:]
    /// Pages in holes that a block is kept for, among the volume's reserved ones, because programs may store into them.
    private(set) var kept: ContiguousArray<Bool> = []
    private(set) var keptCount = 0
    /// Who may fetch a descriptor.
    var grants: [(session: SessionID, writable: Bool)] = []
    /// Pages compared since the last pass of the volume's own, and when the next is due.
    var compared = 0
    var nextPass: UInt64 = 0
    /// Requests that are in the middle of making a map.
    var users: Set<UInt64> = []

    init(inode: UInt64, memory: any FileMemory, user: UInt32) {
        self.inode = inode
        self.memory = memory
        self.user = user
    }

    func charge(to user: UInt32) -> Int { charges[user] ?? 0 }

    /// Makes room for the sum of a page, for which the user is charged.
    func extend(through page: UInt64, for user: UInt32) {
        guard page >= UInt64(sums.count) else { return }
        let new = Int(page) + 1 - sums.count
        sums.append(contentsOf: repeatElement(PageSum.absent, count: new))
        charges[user, default: 0] += new
    }

    /// Pages from `end` on are not there any more: whoever has most is charged for less.
    func cut(to end: Int) {
        var gone = sums.count - end
        guard gone > 0 else { return }
        sums.removeLast(gone)
        while gone > 0, let most = charges.max(by: { ($0.value, $0.key) < ($1.value, $1.key) }) {
            let part = min(gone, most.value)
            charges[most.key] = part == most.value ? nil : most.value - part
            gone -= part
        }
    }

    func isPresent(_ page: UInt64) -> Bool { page < UInt64(sums.count) && sums[Int(page)] != PageSum.absent }

    var isInUse: Bool { !grants.isEmpty || !users.isEmpty || memory.isHeldByOthers }

    func note(_ page: UInt64, _ sum: UInt64) { sums[Int(page)] = sum }

    func isKept(_ page: UInt64) -> Bool { page < UInt64(kept.count) && kept[Int(page)] }

    func keep(_ page: UInt64, _ value: Bool) {
        if value == isKept(page) { return }
        while UInt64(kept.count) <= page { kept.append(false) }
        kept[Int(page)] = value
        keptCount += value ? 1 : -1
    }

    /// Adds a range to what is wanted.
    func want(_ from: UInt64, _ to: UInt64, _ user: UInt32) {
        var (from, to) = (from, to)
        wanted.removeAll { range in
            guard range.from <= to, from <= range.to else { return false }
            (from, to) = (min(from, range.from), max(to, range.to))
            return true
        }
        wanted.append((from, to, user))
    }
}

/// A change of a mapped file's content that a transaction makes.
struct Mirror {
    enum Kind {
        /// `count` bytes of a frame (`place`: its number) that is the content of the page.
        case frame
        /// Bytes at the address `place`, in a staged inode.
        case bytes
        case zeros
        /// The file had `offset` bytes, and has `count`.
        case size
    }
    var kind: Kind
    var inode: UInt64
    var offset: UInt64
    var count: UInt64
    var place: Int
}

/// Pages [from, to) of a mapped file for each of which a block is kept from the commit on, or (`isKept` false) not any more.
struct KeptPages { var inode: UInt64, from: UInt64, to: UInt64, isKept: Bool }

/// A page that a transaction takes from memory into the volume, and its sum.
struct AbsorbedPage { var inode: UInt64, page: UInt64, sum: UInt64 }

extension Volume {
    static func pages(_ bytes: UInt64) -> UInt64 { bytes / pageSize + (bytes % pageSize == 0 ? 0 : 1) }

    /// Says that bytes of a file change, where it is mapped.
    @inline(__always)
    func mirror(_ core: CoreInode, _ kind: Mirror.Kind, at offset: UInt64, _ count: UInt64, _ place: Int, _ tx: Transaction) {
        if core.flags & CoreInode.Flag.mapped != 0 && !tx.isAbsorbing {
            tx.mirrors.append(Mirror(kind: kind, inode: core.inode, offset: offset, count: count, place: place))
        }
    }

    /// The file gets another size. Growing may bring pages that programs have asked for before they were there.
    func mirrorSize(_ core: CoreInode, to size: UInt64, _ tx: Transaction) throws(Stop) {
        guard core.flags & CoreInode.Flag.mapped != 0, size != core.size, let mapped = mappedFiles[core.inode] else { return }
        if size > core.size {
            let (oldEnd, newEnd) = (Volume.pages(core.size), Volume.pages(size))
            // What this transaction writes has, or has reserved, its blocks.
            var (firstWritten, endWritten) = (UInt64.max, UInt64(0))
            for number in tx.publications.indices where tx.publications[number].owner == core.inode {
                firstWritten = min(firstWritten, tx.publications[number].index)
                endWritten = max(endWritten, tx.publications[number].index + 1)
            }
            for range in mapped.wanted where max(range.from, oldEnd) < min(range.to, newEnd) {
                let (begin, end) = (max(range.from, oldEnd), min(range.to, newEnd))
                // Who writes into a file that others have mapped is not held to their limits.
                let room = user(of: tx.session) == range.user ? pageRoom(of: range.user) : configuration.mappedPages - mapOccupancy.pages
                guard end <= UInt64(mapped.sums.count) || Int(clamping: end - UInt64(mapped.sums.count)) <= room else { throw .errno(Errno.noSpace) }
                guard mapped.isWritable else { continue }
                if begin < min(end, firstWritten) { try keepPages(mapped, from: begin, to: min(end, firstWritten), tx) }
                if max(begin, endWritten) < end, firstWritten != .max { try keepPages(mapped, from: max(begin, endWritten), to: end, tx) }
            }
        }
        mirror(core, .size, at: core.size, size, 0, tx)
    }

    /// Bytes [from, to) of the file read as zeros from now on.
    func mirrorZeros(_ number: UInt64, from: UInt64, to: UInt64, _ tx: Transaction) {
        guard !mappedFiles.isEmpty, from < to, let core = core(number, tx) else { return }
        mirror(core, .zeros, at: from, to - from, 0, tx)
    }

    /// After a commit: the memory follows. Sizes first: what is written lies in what they have made.
    func settleMaps(_ tx: Transaction) {
        for number in tx.keptPages.indices {
            let pages = tx.keptPages[number]
            guard let mapped = mappedFiles[pages.inode] else { continue }
            for page in pages.from..<pages.to { mapped.keep(page, pages.isKept) }
        }
        for number in tx.mirrors.indices {
            let mirror = tx.mirrors[number]
            guard mirror.kind == .size, let mapped = mappedFiles[mirror.inode], !mapped.isBroken else { continue }
            if !resize(mapped, from: mirror.offset, to: mirror.count) { lose(mapped) }
        }
        for number in tx.mirrors.indices {
            let mirror = tx.mirrors[number]
            guard mirror.kind != .size, journal.bug != .mirrorsAreForgotten, let mapped = mappedFiles[mirror.inode], !mapped.isBroken else { continue }
            if !apply(mirror, to: mapped) { lose(mapped) }
        }
        for number in tx.absorbed.indices {
            let absorbed = tx.absorbed[number]
            if let mapped = mappedFiles[absorbed.inode], mapped.isPresent(absorbed.page) { mapped.note(absorbed.page, absorbed.sum) }
        }
        if tx.unmapped != 0 { mappedFiles[tx.unmapped] = nil }
    }

    private func resize(_ mapped: MappedFile, from old: UInt64, to new: UInt64) -> Bool {
        let (oldEnd, newEnd) = (Volume.pages(old), Volume.pages(new))
        let tail = min(old, new) % Volume.pageSize
        // What programs have stored beyond the old end, or what lay beyond the new one, is not the file's.
        if tail != 0, new < old || mapped.isWritable, !mapped.memory.zero(at: min(old, new), count: Volume.pageSize - tail) { return false }
        if newEnd < oldEnd {
            if UInt64(mapped.sums.count) > newEnd { mapped.cut(to: Int(newEnd)) }
            if tail != 0, mapped.isPresent(newEnd - 1) { mapped.note(newEnd - 1, PageSum.unknown) }
            return mapped.memory.resize(newEnd * Volume.pageSize)
        }
        if newEnd == oldEnd { return true }
        guard mapped.memory.resize(oldEnd * Volume.pageSize), mapped.memory.resize(newEnd * Volume.pageSize) else { return false }
        for range in mapped.wanted {
            var page = max(range.from, oldEnd)
            if page < min(range.to, newEnd) { mapped.extend(through: min(range.to, newEnd) - 1, for: range.user) }
            while page < min(range.to, newEnd) {
                mapped.note(page, zeroSum)
                page += 1
            }
        }
        return true
    }

    private func apply(_ mirror: Mirror, to mapped: MappedFile) -> Bool {
        var offset = mirror.offset
        let end = offset + mirror.count
        while offset < end {
            let page = offset / Volume.pageSize
            let next = min(end, (page + 1) * Volume.pageSize)
            defer { offset = next }
            guard page < UInt64(mapped.sums.count) else { return true }
            guard mapped.isPresent(page) else { continue }
            let count = Int(next - offset)
            switch mirror.kind {
            case .frame:
                let frame = unsafe cache.pointer(mirror.place)
                guard unsafe mapped.memory.write(frame + Int(offset % Volume.pageSize), at: offset, count: count) else { return false }
                mapped.note(page, mapped.keepsSums ? unsafe PageSum.of(frame) : PageSum.unknown)
            case .bytes:
                guard let bytes = unsafe UnsafeRawPointer(bitPattern: mirror.place) else { return false }
                guard unsafe mapped.memory.write(bytes + Int(offset - mirror.offset), at: offset, count: count) else { return false }
                mapped.note(page, PageSum.unknown)
            case .zeros:
                guard mapped.memory.zero(at: offset, count: UInt64(count)) else { return false }
                mapped.note(page, count == BlockLayout.size ? zeroSum : PageSum.unknown)
            case .size: break
            }
        }
        return true
    }

    /// The memory cannot follow the file any more. Better none than a wrong one: programs that touch it get SIGBUS, as for a device that fails.
    private func lose(_ mapped: MappedFile) {
        note("inode \(mapped.inode): there is no memory for its maps any more; programs that use them are ended by SIGBUS")
        mapped.isBroken = true
        mapped.cut(to: 0)
        _ = mapped.memory.resize(0)
    }

    /// read(2) of what programs may have stored.
    func readStored(_ mapped: MappedFile, _ offset: UInt64, _ count: Int, into target: UnsafeMutableRawPointer) {
        let got = unsafe max(0, min(mapped.memory.read(into: target, at: offset, count: count), count))
        unsafe (target + got).initializeMemory(as: UInt8.self, repeating: 0, count: count - got)
    }

    // MARK: Who has what

    /// What a session that has just mapped the file is to get, once.
    public func takeMap(_ session: SessionID, inode: UInt64) -> (memory: any FileMemory, isWritable: Bool)? {
        guard let mapped = mappedFiles[inode], let place = mapped.grants.firstIndex(where: { $0.session == session }) else { return nil }
        return (mapped.memory, mapped.grants.remove(at: place).writable)
    }

    /// Mapped files, and the pages of them that are in memory.
    public var mapOccupancy: (files: Int, pages: Int) { (mappedFiles.count, mappedFiles.values.reduce(0) { $0 + $1.sums.count }) }

    /// How many pages more may come into memory for a user. Root is held to the limit of all alone.
    func pageRoom(of user: UInt32) -> Int {
        let room = configuration.mappedPages - mapOccupancy.pages
        return user == 0 ? room : min(room, configuration.mappedPagesPerUser - mappedFiles.values.reduce(0) { $0 + $1.charge(to: user) })
    }

    func user(of session: SessionID) -> UInt32 { sessionIndex(session).map { sessions[$0].credentials.user } ?? .max }

    /// A session that has mapped files has ended: it may have been the last to hold them.
    func forgetGrants(_ session: SessionID) {
        for mapped in mappedFiles.values { mapped.grants.removeAll { $0.session == session } }
        nextMapCheck = 0
    }

    /// Comparing a page and looking for what is to be compared takes a microsecond or two: passes take a few hundredths of the time at most.
    private static let nanosecondsForPage: UInt64 = 30_000

    /// Brings what programs have stored into the volume, and ends what nobody holds any more; now and then.
    func checkMaps() {
        nextMapCheck = clock.monotonic &+ commitAge
        for inode in mappedFiles.keys.sorted() {
            guard let mapped = mappedFiles[inode] else { continue }
            if !mapped.isInUse {
                startMapTask(.unmap(inode))
            } else if mapped.isWritable && !isReadOnly && (isShuttingDown || clock.monotonic >= mapped.nextPass) {
                startMapTask(.absorb(inode))
            }
        }
    }

    func startMapTask(_ task: Engine.Task) {
        guard case .absorb(let inode) = task else {
            if case .unmap(let inode) = task, engine.unmapping.insert(inode).inserted { start(task) }
            return
        }
        if engine.absorbing.insert(inode).inserted { start(task) }
    }

    /// One step of ending a mapped file that nobody holds. True: it is over, or was held after all.
    func unmap(_ number: UInt64, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Bool {
        let mapped = mappedFiles[number]
        if let mapped {
            if mapped.isInUse { return true }
            if mapped.isWritable, progress.absorbed != .max, try !absorb(number, progress, tx) { return false }
            if !tx.isEmpty { return false }
            tx.reserved -= mapped.keptCount + keptNodes(mapped.keptCount)
        }
        tx.unmapped = number
        guard let row = core(number, tx), row.flags & CoreInode.Flag.mapped != 0 else {
            // It was never more than begun.
            mappedFiles[number] = nil
            return true
        }
        let core = CoreInode(slot: row.slot, cell: try tx.writeState(row.slot * CoreInode.size, length: CoreInode.size))
        core.flags &= ~(CoreInode.Flag.mapped | CoreInode.Flag.sharedMap)
        letGo(core, tx)
        return true
    }

    /// A map task has ended.
    func mapTaskEnded(_ inode: UInt64, error: Int32, isLast: Bool) {
        if isLast { engine.unmapping.remove(inode) } else { engine.absorbing.remove(inode) }
        // It has waited for its time in the memory already.
        if dirtySince[inode] != nil { requestWriteback(inode) }
        if !isLast, let mapped = mappedFiles[inode] {
            mapped.nextPass = clock.monotonic &+ max(commitAge, UInt64(mapped.compared) &* Volume.nanosecondsForPage)
            mapped.compared = 0
        }
        guard error != 0 else { return }
        writebackFailed(inode, error)
        guard isLast, let mapped = mappedFiles[inode] else { return }
        // What cannot be brought in is lost, and has been told of.
        mapped.isBroken = true
        startMapTask(.unmap(inode))
    }
}
