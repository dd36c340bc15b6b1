/// Reading and writing the bytes of files.
enum OpenFlag {
    static let accessMode: UInt32 = 3
    static let create: UInt32 = 0o100
    static let exclusive: UInt32 = 0o200
    static let truncate: UInt32 = 0o1000
    static let append: UInt32 = 0o2000
    static let nonBlocking: UInt32 = 0o4000
    static let dataSync: UInt32 = 0o10000
    static let direct: UInt32 = 0o40000
    static let directory: UInt32 = 0o200000
    static let noFollow: UInt32 = 0o400000
    static let noAccessTime: UInt32 = 0o1000000
    static let pathOnly: UInt32 = 0o10000000
    static let sync: UInt32 = 0o4010000
    static let temporary: UInt32 = 0o20200000
    /// In an open's mode: an empty path means the handle's own file, opened anew.
    static let handleItself: UInt32 = 1 << 31
    /// What fcntl(F_SETFL) may change.
    static let settable: UInt32 = append | nonBlocking | direct | noAccessTime
}

/// Where a description's sequential reading would go on, and how much was fetched at its last miss.
struct ReadAhead {
    /// The page behind what was fetched.
    var next: UInt64 = 0
    var window = 0
    /// The page at which the next window is asked for; several may be on their way.
    var trigger = UInt64.max
}

extension Volume {
    /// Files end below this: 2^63 - 1 bytes.
    static let maximumSize = UInt64(Int64.max)
    static let pageSize = UInt64(BlockLayout.size)
    /// Pages that one transaction of a read or write touches.
    var transferStep: Int { max(1, min(64, cache.count / 16)) }

    // MARK: Reading

    func read(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        guard description.isReadable, description.flags & OpenFlag.pathOnly == 0 else { throw .errno(Errno.badDescriptor) }
        guard request.offset >= -1 else { throw .errno(Errno.invalid) }
        let (size, flags) = try contentSize(description, tx)
        if flags & CoreInode.Flag.shrinking != 0 { throw shrinkingStop(description.inode) }
        let stored = flags & CoreInode.Flag.sharedMap != 0 ? mappedFiles[description.inode] : nil
        let moved = progress.moved
        // Where a call begins is fixed by its first step: others may seek meanwhile.
        let start = request.offset >= 0 ? request.offset : moved > 0 ? Int64(progress.done) : max(0, description.offset)
        let offset = UInt64(start) + moved
        let wanted = min(UInt64(request.bufferLength), UInt64(Int64.max - start))
        guard offset < size, moved < wanted else { return try finishRead(request, description, start, Int64(moved), tx) }
        guard let buffer = unsafe request.buffer else { throw .errno(Errno.invalid) }
        let count = min(wanted - moved, size - offset)
        let firstPage = offset / Volume.pageSize
        let lastPage = min((offset + count - 1) / Volume.pageSize, firstPage + UInt64(transferStep) - 1)
        let end = min(offset + count, (lastPage + 1) * Volume.pageSize)
        var page = firstPage
        var missed = false
        while page <= lastPage {
            let from = max(offset, page * Volume.pageSize)
            let to = min(end, (page + 1) * Volume.pageSize)
            let target = unsafe buffer + Int(moved + (from - offset))
            if let stored, stored.isPresent(page) {
                unsafe readStored(stored, from, Int(to - from), into: target)
                page += 1
                continue
            }
            let frame = try tx.data(description.inode, page)
            if frame >= 0 {
                unsafe target.copyMemory(from: cache.pointer(frame) + Int(from % Volume.pageSize), byteCount: Int(to - from))
            } else {
                let file = try inode(description.inode, tx)
                if description.flags & OpenFlag.direct != 0, from == page * Volume.pageSize,
                    let direct = unsafe try directRead(file, page, end: (offset + count) / Volume.pageSize, start: UInt64(start), into: target, tx)
                {
                    // What lies before it comes first: bytes of a page that the cache is still to get, or of one that it has.
                    if missed { break }
                    if page == firstPage {
                        tx.directTransfer = direct
                        throw .missing
                    }
                    tx.nextProgress.moved = moved + (from - offset)
                    tx.nextProgress.done = UInt64(start)
                    return .more
                }
                let fetched = try unsafe readUncached(file, page, from, to, into: target, request, Int(lastPage - page + 1), tx)
                if fetched > 0 {
                    missed = true
                    page += UInt64(fetched)
                    continue
                }
            }
            page += 1
        }
        if missed { throw .missing }
        if unsafe lastPage >= readAhead[Int(request.handle)].trigger && firstPage <= readAhead[Int(request.handle)].next { fetchAhead(request.handle, description.inode, size: size, tx) }
        tx.nextProgress.moved = moved + (end - offset)
        if end < offset + count {
            tx.nextProgress.done = UInt64(start)
            return .more
        }
        return try finishRead(request, description, start, Int64(moved + (end - offset)), tx)
    }

    /// Size of an open file, and the flags of its row.
    @inline(__always) private func contentSize(_ description: Description, _ tx: Transaction) throws(Stop) -> (UInt64, UInt32) {
        let core = CoreInode(slot: Int(description.core), cell: tx.readState(Int(description.core) &* CoreInode.size, length: CoreInode.size))
        if core.flags & CoreInode.Flag.isDirectory != 0 { throw .errno(Errno.isDirectory) }
        if core.flags & CoreInode.Flag.isSpecial != 0 { throw .errno(Errno.invalid) }
        return (core.size, core.flags)
    }

    /// Bytes [from, to) of a page that the cache does not hold. How many pages, this one the first, have to be read for that; 0: the bytes are there.
    private func readUncached(
        _ file: Inode, _ page: UInt64, _ from: UInt64, _ to: UInt64, into target: UnsafeMutableRawPointer, _ request: Request, _ pages: Int,
        _ tx: Transaction
    ) throws(Stop) -> Int {
        if file.mapping == InodeLayout.Mapping.inline {
            let valid = UInt64(file.inlineCount)
            let copied = from < valid ? min(valid, to) - from : 0
            if copied > 0 { unsafe target.copyMemory(from: file.inline.pointer + Int(from), byteCount: Int(copied)) }
            unsafe (target + Int(copied)).initializeMemory(as: UInt8.self, repeating: 0, count: Int(to - from - copied))
            return 0
        }
        if let extent = try lookup(file, page, tx).extent, !extent.unwritten {
            let run = readAheadRun(request.handle, page: page, pages: pages, end: extent.end)
            tx.miss(file.number, page, block: extent.block + (page - extent.index), run: run)
            return run
        }
        unsafe target.initializeMemory(as: UInt8.self, repeating: 0, count: Int(to - from))
        return 0
    }

    /// Pages to fetch at a miss, not past `end`: more while a description reads on where it stopped.
    private func readAheadRun(_ handle: Int32, page: UInt64, pages: Int, end: UInt64) -> Int {
        let slot = Int(handle)
        let state = unsafe readAhead[slot]
        let goesOn = page == state.next
        let window = goesOn ? min(max(state.window * 2, pages, 8), longestWindow) : pages
        let run = min(end - page, UInt64(window))
        // One miss says nothing; the second where the first ended begins a sequence.
        unsafe readAhead[slot] = ReadAhead(next: page + run, window: window, trigger: goesOn ? page + run / 2 : .max)
        return Int(run)
    }

    private var longestWindow: Int { max(1, min(256, cache.count / 8)) }

    /// How far fetching is ahead of a sequence at most: enough requests to keep a device busy that answers several at once.
    private func readAheadDistance(_ window: Int) -> UInt64 { UInt64(max(1, min(window * 4, cache.count / 8))) }

    /// A sequence has come nearer to the end of what was fetched for it than it may: the next window is fetched while it goes on. Only a hint: what
    /// cannot be told without waiting is not fetched.
    @inline(never) private func fetchAhead(_ handle: Int32, _ number: UInt64, size: UInt64, _ tx: Transaction) {
        let slot = Int(handle)
        let state = unsafe readAhead[slot]
        unsafe readAhead[slot].trigger = .max
        let endPage = (size + Volume.pageSize - 1) / Volume.pageSize
        guard state.next < endPage else { return }
        do throws(Stop) {
            guard let extent = try lookup(try inode(number, tx), state.next, tx).extent, !extent.unwritten else { return }
            let window = min(state.window * 2, longestWindow)
            let run = min(UInt64(window), min(extent.end, endPage) - state.next)
            tx.miss(number, state.next, block: extent.block + (state.next - extent.index), run: Int(run))
            let next = state.next + run
            unsafe readAhead[slot] = ReadAhead(next: next, window: window, trigger: next - min(next, readAheadDistance(window)))
        } catch {
            // A node of the extent tree is on its way; the next miss goes on from there.
        }
    }

    private func finishRead(_ request: Request, _ description: Description, _ start: Int64, _ moved: Int64, _ tx: Transaction) throws(Stop) -> Outcome {
        if request.offset < 0 && moved > 0 {
            let writable = try descriptionForWrite(description.slot, tx)
            writable.offset = start + moved
        }
        if request.bufferLength > 0 && description.flags & OpenFlag.noAccessTime == 0 { try touchAccessTime(Int(description.core), tx) }
        return Outcome(moved)
    }

    /// relatime: the access time moves when it is not after the last change, or is a day old.
    func touchAccessTime(_ slot: Int, _ tx: Transaction) throws(Stop) {
        let core = CoreInode(slot: slot, cell: tx.readState(slot * CoreInode.size, length: CoreInode.size))
        if isReadOnly || !accessTimeIsDue(core.accessTime, core.modificationTime, core.changeTime) { return }
        let writable = CoreInode(slot: slot, cell: try tx.writeState(slot * CoreInode.size, length: CoreInode.size))
        writable.accessTime = now
        markAttributesDirty(writable, timesOnly: true, tx)
    }

    private func accessTimeIsDue(_ access: Timestamp, _ modification: Timestamp, _ change: Timestamp) -> Bool {
        func notAfter(_ a: Timestamp, _ b: Timestamp) -> Bool { a.seconds < b.seconds || a.seconds == b.seconds && a.nanoseconds <= b.nanoseconds }
        return notAfter(access, modification) || notAfter(access, change) || now.seconds &- access.seconds >= 86_400
    }

    // MARK: Writing

    func write(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, progress, tx)
        let status = Volume.status(description.flags, ofOneWrite: request.flags)
        let synchronous = status & OpenFlag.dataSync != 0
        if progress.phase != 0 {
            // The data is in; an O_SYNC write ends when it is durable.
            let outcome = try syncStep(description.inode, dataOnly: status & OpenFlag.sync != OpenFlag.sync, progress, tx)
            return outcome.again ? outcome : Outcome(Int64(progress.moved))
        }
        guard description.isWritable, description.flags & OpenFlag.pathOnly == 0 else { throw .errno(Errno.badDescriptor) }
        guard request.offset >= -1 else { throw .errno(Errno.invalid) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        let (size, rowFlags) = try contentSize(description, tx)
        try requireUntouched(description.inode, tx)
        let wanted = UInt64(request.bufferLength)
        let appending = status & OpenFlag.append != 0
        let moved = progress.moved
        // The place is fixed by the first step: others may seek, or write, before the last.
        let base = moved > 0 ? progress.done : appending ? size : UInt64(max(0, request.offset >= 0 ? request.offset : description.offset))
        let offset = base + moved
        if wanted == 0 { return Outcome(0) }
        guard offset < Volume.maximumSize else { throw .errno(Errno.tooBig) }
        let count = min(wanted - moved, Volume.maximumSize - offset)
        guard let buffer = unsafe request.buffer else { throw .errno(Errno.invalid) }
        let file = try inode(description.inode, tx)
        if description.flags & OpenFlag.direct != 0 && rowFlags & CoreInode.Flag.mapped == 0 && !Volume.hasSetID(file) {
            let isForced = synchronous && capabilities.volatileCache && capabilities.supportsForceUnitAccess
            // What makes the blocks the file's has to be durable as well.
            let isInPlace = !synchronous || hasDurableMapping(file, tx)
            let isDurable = isInPlace && (isForced || !capabilities.volatileCache)
            let isFull = status & OpenFlag.sync == OpenFlag.sync
            if moved == wanted {
                try touchContentTimes(file, tx)
                if request.offset < 0 { try descriptionForWrite(description.slot, tx).offset = Int64(base + moved) }
                guard synchronous, !isDurable || isFull || progress.wasCached else { return Outcome(Int64(moved)) }
                tx.nextProgress.phase = 1
                tx.nextProgress.done = 0
                return .more
            }
            if var direct = try unsafe directWrite(file, offset: offset, count: count, start: base, isForced: isForced, from: buffer + Int(moved), tx) {
                if moved == 0 && direct.count * BlockLayout.size == Int(wanted) && request.offset >= 0 && isInPlace && (!synchronous || !isFull) {
                    // It will have been all that there is to do.
                    try touchContentTimes(file, tx)
                    direct.result = Int64(wanted)
                    direct.wantsFlush = synchronous && !isDurable
                    tx.directTransfer = direct
                    return Outcome(Int64(wanted))
                }
                tx.directTransfer = direct
                throw .missing
            }
        }
        let taken = try unsafe writeBytes(
            file, offset: offset, from: buffer + Int(moved), count: count, credentials: credentials(request), tx)
        tx.nextProgress.wasCached = true
        tx.nextProgress.moved = moved + taken
        if request.offset < 0 { try descriptionForWrite(description.slot, tx).offset = Int64(offset + taken) }
        if taken < count {
            takeTicket(description.inode, tx)
            tx.nextProgress.done = base
            return .more
        }
        if synchronous {
            tx.nextProgress.phase = 1
            tx.nextProgress.done = 0
            return .more
        }
        return Outcome(Int64(moved + taken))
    }

    /// A description's flags, for one write with RWF_DSYNC 2, RWF_SYNC 4, RWF_APPEND 16 or RWF_NOAPPEND 32 of pwritev2(2).
    @inline(__always)
    private static func status(_ flags: UInt32, ofOneWrite own: UInt32) -> UInt32 {
        if own == 0 { return flags }
        let added = (own & 2 != 0 ? OpenFlag.dataSync : 0) | (own & 4 != 0 ? OpenFlag.sync : 0) | (own & 16 != 0 ? OpenFlag.append : 0)
        return (own & 32 != 0 ? flags & ~OpenFlag.append : flags) | added
    }

    /// The content of a file is another, and nothing else of it.
    private func touchContentTimes(_ file: Inode, _ tx: Transaction) throws(Stop) {
        if let core = core(file.number, tx), core.modificationTime == now, core.changeTime == now, core.flags & CoreInode.Flag.attributesDirty != 0 { return }
        let core = try coreForWrite(file, tx)
        core.modificationTime = now
        core.changeTime = now
        markAttributesDirty(core, timesOnly: true, tx)
    }

    /// Puts bytes into the file at `offset`: inline where they fit, else into frames of their own. How many fitted into this transaction.
    func writeBytes(
        _ file: Inode, offset: UInt64, from source: UnsafeRawPointer, count: UInt64, credentials: Credentials, _ tx: Transaction
    ) throws(Stop) -> UInt64 {
        let core = try coreForWrite(file, tx)
        let end = offset + count
        let size = core.size
        if file.mode & (Mode.setUser | Mode.setGroup) != 0 && !credentials.isPrivileged {
            try inodeForWrite(file.number, tx).mode = credentials.withoutSetID(file)
        }
        if file.mapping == InodeLayout.Mapping.inline && max(end, size) <= UInt64(InodeLayout.inlineSize) && cache.find(file.number, 0) < 0 {
            let inode = try inodeForWrite(file.number, tx)
            unsafe writeInline(inode, offset: Int(offset), source, Int(count))
            let newSize = max(end, size)
            try mirrorSize(core, to: newSize, tx)
            unsafe mirror(core, .bytes, at: offset, count, Int(bitPattern: inode.inline.pointer + Int(offset)), tx)
            inode.size = newSize
            core.size = newSize
            inode.modificationTime = now
            inode.changeTime = now
            core.modificationTime = now
            core.changeTime = now
            return count
        }
        // Back-pressure: a writer waits, memory does not grow.
        if cache.needingWriteback > cache.count / 2 {
            requestWriteback(file.number)
            throw .frames
        }
        var page = offset / Volume.pageSize
        let lastPage = min((end - 1) / Volume.pageSize, page + UInt64(transferStep) - 1)
        if file.mapping == InodeLayout.Mapping.inline, page > 0, file.inlineCount > 0, try tx.data(file.number, 0) < 0 {
            // The file outgrows its inode: what was inline becomes its first page.
            try unsafe publishPage(file, core, 0, from: 0, to: 0, nil, size: size, tx)
        }
        var done: UInt64 = 0
        while page <= lastPage {
            let from = max(offset, page * Volume.pageSize)
            let to = min(end, (page + 1) * Volume.pageSize)
            do throws(Stop) {
                try unsafe publishPage(file, core, page, from: from, to: to, source + Int(from - offset), size: size, tx)
            } catch {
                // A short write where space ends, if a page of it has found a place.
                if case .errno(Errno.noSpace) = error, done > 0 { break }
                throw error
            }
            done += to - from
            page += 1
        }
        if offset + done > size { try mirrorSize(core, to: offset + done, tx) }
        core.size = max(size, offset + done)
        core.modificationTime = now
        core.changeTime = now
        markAttributesDirty(core, timesOnly: false, tx)
        return done
    }

    private func writeInline(_ inode: Inode, offset: Int, _ source: UnsafeRawPointer, _ count: Int) {
        let area = inode.inline
        let valid = Int(inode.inlineCount)
        if offset > valid { area.zero(valid, offset - valid) }
        unsafe area.copy(offset, from: source, count)
        inode.inlineCount = UInt32(max(valid, offset + count))
    }

    /// Makes a new frame the content of a page: its present bytes, with [from, to) of the file replaced (nil: by zeros).
    func publishPage(
        _ file: Inode, _ core: CoreInode, _ page: UInt64, from: UInt64, to: UInt64, _ source: UnsafeRawPointer?, size: UInt64, _ tx: Transaction
    ) throws(Stop) {
        let start = page * Volume.pageSize
        let present = try tx.data(file.number, page)
        var block: UInt64 = 0
        var flags: UInt8 = 0
        var baseIsInline = false
        // What programs have stored into the page goes with it: a block is never a mixture that the file has not been.
        var stored = core.flags & CoreInode.Flag.sharedMap != 0 && !tx.isAbsorbing ? mappedFiles[file.number] : nil
        if let mapped = stored, !mapped.isPresent(page) || journal.bug == .writesForgetStores { stored = nil }
        if present >= 0 {
            let header = cache.header(present)
            block = header.block
            flags = header.flags & FrameFlag.reserved
        } else if file.mapping == InodeLayout.Mapping.inline {
            baseIsInline = page == 0
        } else if let extent = try lookup(file, page, tx).extent {
            block = extent.block + (page - extent.index)
            // Bytes that stay have to be read first.
            if stored == nil && !extent.unwritten && (from > start || to < min(start + Volume.pageSize, size)) {
                tx.miss(file.number, page, block: block, run: 1)
                throw .missing
            }
        }
        if block == 0 && flags == 0 {
            let isKept = core.flags & CoreInode.Flag.mapped != 0 && useKeptPage(file.number, page, tx)
            let nodes = nodesFor(core.reserved + 1, file)
            if !isKept { try requireSpace(1 + Int(nodes) - Int(core.reservedNodes), tx) }
            core.reserved += 1
            tx.reserved += 1
            releaseNodeReservation(core, file, tx)
            flags = FrameFlag.reserved
        }
        let frame = try tx.newFrame()
        tx.publications.append(Transaction.Publication(frame: frame, owner: file.number, index: page, block: block, flags: flags))
        let memory = unsafe cache.pointer(frame)
        let (head, tail) = (Int(from - start), Int(to - start))
        if head > 0 || tail < BlockLayout.size {
            if let stored {
                let count = start < core.size ? Int(min(Volume.pageSize, core.size - start)) : 0
                unsafe readStored(stored, start, count, into: memory)
                unsafe (memory + count).initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size - count)
            } else if present >= 0 {
                unsafe memory.copyMemory(from: cache.pointer(present), byteCount: BlockLayout.size)
            } else {
                unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size)
                if baseIsInline { unsafe memory.copyMemory(from: file.inline.pointer, byteCount: Int(file.inlineCount)) }
            }
        }
        if let source = unsafe source {
            unsafe (memory + head).copyMemory(from: source, byteCount: tail - head)
        } else {
            unsafe (memory + head).initializeMemory(as: UInt8.self, repeating: 0, count: tail - head)
        }
        if to > from { mirror(core, .frame, at: from, to - from, frame, tx) }
    }

    func credentials(_ request: Request) -> Credentials {
        sessionIndex(request.session).map { sessions[$0].credentials } ?? Credentials(user: .max, group: .max)
    }
}
