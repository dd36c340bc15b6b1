/// mmap(2) of an open file: its memory is made, filled where the program wants it, and granted.
///
/// In steps: the row is flagged (from here on the memory follows what is written), pages are filled, sums and space are seen to where the program may store,
/// and the session may fetch a descriptor. Pages are filled outside of transactions: with what the volume has at that moment, so doing it twice does no harm.
enum MapFlag {
    /// MAP_SHARED; PROT_WRITE.
    static let shared: UInt32 = 1
    static let write: UInt32 = 2
    /// mremap: more of a file that is mapped already, named by its inode; nothing is granted.
    static let more: UInt32 = 4
    /// munmap: of such a file.
    static let released: UInt32 = 8
}

extension Volume {
    private static let grantsPerSession = 64

    /// - Returns: 0. info0: the inode, which names the memory; info1: 1 where it may be stored into; info2: the size of the file.
    func map(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        if request.flags == MapFlag.more { return try mapMore(request, progress, tx) }
        if request.flags == MapFlag.released { return try released(request, progress, tx) }
        let description = try openDescription(request.handle, request.session, tx)
        guard description.flags & OpenFlag.pathOnly == 0 else { throw .errno(Errno.badDescriptor) }
        // Between two steps the handle may be closed, and be another file's.
        guard progress.mapped == 0 || progress.mapped == description.inode else { throw .errno(Errno.badDescriptor) }
        guard request.flags & ~(MapFlag.shared | MapFlag.write) == 0, request.offset >= 0, request.length > 0 else { throw .errno(Errno.invalid) }
        let isShared = request.flags & MapFlag.shared != 0
        guard description.isReadable, !isShared || request.flags & MapFlag.write == 0 || description.isWritable else { throw .errno(Errno.access) }
        let file = try inode(description.inode, tx)
        guard file.isRegular, let makeMemory = configuration.fileMemory else { throw .errno(Errno.noDevice) }
        let first = UInt64(request.offset) / Volume.pageSize
        let (last, overflow) = UInt64(request.offset).addingReportingOverflow(request.length)
        guard !overflow, last <= UInt64(Int64.max) else { throw .errno(Errno.overflow) }
        // A map that is not to be written costs no search for stores. One that is to become so is mapped anew.
        let isWritable = isShared && request.flags & MapFlag.write != 0
        if isWritable && isReadOnly { throw .errno(Errno.readOnly) }
        try requireUntouched(file.number, tx)
        if progress.phase == 0 {
            try requireNoDirectWrite(file.number)
            try attach(file, request, makeMemory, tx)
            tx.nextProgress.phase = 1
            tx.nextProgress.mapped = file.number
            tx.nextProgress.done = first
            return .more
        }
        guard let mapped = mappedFiles[file.number] else { throw .errno(Errno.noMemory) }
        if mapped.isBroken { throw .errno(Errno.io) }
        let size = liveSize(file, tx)
        switch progress.phase {
        case 1:
            mapped.want(first, Volume.pages(last), user(of: request.session))
            if try fill(mapped, file, size: size, to: min(Volume.pages(last), Volume.pages(size)), request, progress, tx) {
                tx.nextProgress.phase = isWritable ? mapped.isWritable ? 3 : 2 : 4
                tx.nextProgress.done = 0
            }
            return .more
        case 2:
            if sum(mapped, progress, tx) { (tx.nextProgress.phase, tx.nextProgress.done) = (3, 0) }
            return .more
        case 3:
            // Only a transaction that changes something is committed.
            _ = try coreForWrite(file, tx)
            guard try keep(mapped, file, first, min(Volume.pages(last), Volume.pages(size)), progress, tx) else { return .more }
            tx.nextProgress.phase = 4
            return .more
        default: break
        }
        if isWritable { try coreForWrite(file, tx).flags |= CoreInode.Flag.sharedMap }
        if description.flags & OpenFlag.noAccessTime == 0 { try touchAccessTime(Int(description.core), tx) }
        // A change of state rows alone always commits.
        if isWritable { mapped.isWritable = true }
        mapped.grants.append((request.session, isWritable))
        if let holder = sessionIndex(request.session) { sessions[holder].hasMapped = true }
        return Outcome(0, file.number, isWritable ? 1 : 0, size)
    }

    /// The bytes get no one who has none: they go where others have them mapped.
    private func mapMore(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let range = try Volume.pages(of: request)
        guard let mapped = mappedFiles[request.argument] else { return Outcome(0) }
        if mapped.isBroken { throw .errno(Errno.io) }
        try requireUntouched(mapped.inode, tx)
        let file = try inode(mapped.inode, tx)
        let size = liveSize(file, tx)
        let (first, end) = (range.lowerBound, min(range.upperBound, Volume.pages(size)))
        if progress.phase == 0 {
            mapped.want(first, range.upperBound, user(of: request.session))
            tx.nextProgress.mapped = mapped.inode
            var here = progress
            here.done = max(first, progress.done)
            if try fill(mapped, file, size: size, to: end, request, here, tx) {
                tx.nextProgress.phase = 1
                tx.nextProgress.done = 0
            }
            return .more
        }
        if mapped.isWritable {
            _ = try coreForWrite(file, tx)
            guard try keep(mapped, file, first, end, progress, tx) else { return .more }
        }
        return Outcome(0)
    }

    private func attach(_ file: Inode, _ request: Request, _ makeMemory: () -> (any FileMemory)?, _ tx: Transaction) throws(Stop) {
        guard mappedFiles.values.reduce(0, { $0 + $1.grants.reduce(0) { $0 + ($1.session == request.session ? 1 : 0) } }) < Volume.grantsPerSession else {
            throw .errno(Errno.noMemory)
        }
        let mapped: MappedFile
        if let present = mappedFiles[file.number] { mapped = present } else {
            let user = user(of: request.session)
            guard mappedFiles.count < configuration.mappedFiles,
                user == 0 || mappedFiles.values.reduce(0, { $0 + ($1.user == user ? 1 : 0) }) < configuration.mappedFilesPerUser
            else { throw .errno(Errno.tableFull) }
            guard let memory = makeMemory() else { throw .errno(Errno.noDevice) }
            mapped = MappedFile(inode: file.number, memory: memory, user: user)
            mappedFiles[file.number] = mapped
            if mappedFiles.count == 1 { nextMapCheck = clock.monotonic &+ commitAge }
        }
        if let core = core(file.number, tx), core.flags & CoreInode.Flag.mapped != 0 { return }
        let core = try coreForWrite(file, tx)
        core.flags |= CoreInode.Flag.mapped
        core.openCount += 1
        guard mapped.memory.resize(Volume.pages(core.size) * Volume.pageSize) else { throw .errno(Errno.noMemory) }
    }

    /// Copies pages [progress.done, end) that are not there yet into the memory. True: all are.
    private func fill(
        _ mapped: MappedFile, _ file: Inode, size: UInt64, to end: UInt64, _ request: Request, _ progress: Progress, _ tx: Transaction
    ) throws(Stop) -> Bool {
        var page = progress.done
        var (looks, lookups, copied, missed) = (0, 0, 0, false)
        var endOfHole: UInt64 = 0
        let user = user(of: request.session)
        let most = pageRoom(of: user) + mapped.sums.count
        while page < end && looks < 4096 && lookups < walkStep && copied < transferStep {
            looks += 1
            if mapped.isPresent(page) {
                page += 1
                continue
            }
            guard page < UInt64(mapped.sums.count) || page < UInt64(max(0, most)) else { throw .errno(Errno.noMemory) }
            let frame = try tx.data(file.number, page)
            func note(_ sum: UInt64) {
                mapped.extend(through: page, for: user)
                mapped.note(page, sum)
            }
            let start = page * Volume.pageSize
            let count = Int(min(Volume.pageSize, size - start))
            if frame >= 0 {
                copied += 1
                guard unsafe mapped.memory.write(cache.pointer(frame), at: start, count: count) else { throw .errno(Errno.noMemory) }
                note(mapped.keepsSums ? unsafe PageSum.of(cache.pointer(frame)) : PageSum.unknown)
            } else if file.mapping == InodeLayout.Mapping.inline {
                let bytes = page == 0 ? min(Int(file.inlineCount), count) : 0
                if bytes > 0 { guard unsafe mapped.memory.write(file.inline.pointer, at: 0, count: bytes) else { throw .errno(Errno.noMemory) } }
                note(bytes == 0 ? zeroSum : PageSum.unknown)
            } else if page < endOfHole {
                note(zeroSum)
            } else {
                let (extent, next) = try lookup(file, page, tx)
                lookups += 1
                if let extent, !extent.unwritten {
                    let run = min(min(extent.end, end) - page, UInt64(transferStep))
                    tx.miss(file.number, page, block: extent.block + (page - extent.index), run: Int(run))
                    missed = true
                    copied += Int(run)
                    page += run
                    continue
                }
                endOfHole = extent?.end ?? next
                note(zeroSum)
            }
            page += 1
        }
        if missed { throw .missing }
        tx.nextProgress.done = page
        return page >= end
    }

    /// Sums of the pages that are there, before anybody may store into them. True: all are known.
    private func sum(_ mapped: MappedFile, _ progress: Progress, _ tx: Transaction) -> Bool {
        mapped.keepsSums = true
        var page = Int(progress.done)
        var looks = 0
        while page < mapped.sums.count && looks < 256 {
            if mapped.sums[page] == PageSum.unknown {
                looks += 1
                let got = unsafe max(0, min(mapped.memory.read(into: mapBuffer, at: UInt64(page) * Volume.pageSize, count: BlockLayout.size), BlockLayout.size))
                unsafe (mapBuffer + got).initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size - got)
                mapped.sums[page] = unsafe PageSum.of(mapBuffer)
            }
            page += 1
        }
        tx.nextProgress.done = UInt64(page)
        return page >= mapped.sums.count
    }

    /// Keeps a block for each page of [first, end) that has none. True: all have.
    private func keep(
        _ mapped: MappedFile, _ file: Inode, _ first: UInt64, _ end: UInt64, _ progress: Progress, _ tx: Transaction
    ) throws(Stop) -> Bool {
        var page = max(first, progress.done)
        var looks = 0
        // What fits into the inode may outgrow it by a store.
        while page < end && looks < min(64, walkStep) {
            looks += 1
            let (extent, next) = try lookup(file, page, tx)
            if let extent {
                page = min(extent.end, end)
                continue
            }
            let to = min(next, end, page + 65_536)
            try keepHoles(mapped, from: page, to: to, tx)
            page = to
        }
        tx.nextProgress.done = page
        return page >= end
    }

    /// Of pages without blocks, those whose content in the cache has one reserved need no other.
    private func keepHoles(_ mapped: MappedFile, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        var begin = from
        for page in from..<to {
            let frame = cache.find(mapped.inode, page)
            guard frame >= 0, cache.header(frame).flags & FrameFlag.reserved != 0 || cache.header(frame).block != 0 else { continue }
            if begin < page { try keepPages(mapped, from: begin, to: page, tx) }
            begin = page + 1
        }
        if begin < to { try keepPages(mapped, from: begin, to: to, tx) }
    }
}
