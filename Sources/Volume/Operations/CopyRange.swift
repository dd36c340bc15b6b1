/// copy_file_range(2) between two open files of the volume: page by page through frames, in steps.
extension Volume {
    func copyRange(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let source = try openDescription(request.handle, request.session, tx)
        let target = try openDescription(request.handle2, request.session, progress, tx)
        guard (source.flags | target.flags) & OpenFlag.pathOnly == 0 else { throw .errno(Errno.badDescriptor) }
        guard request.flags == 0, request.offset >= -1, request.offset2 >= -1 else { throw .errno(Errno.invalid) }
        let from = try inode(source.inode, tx)
        let to = try inode(target.inode, tx)
        guard from.isRegular, to.isRegular else { throw .errno(from.isDirectory || to.isDirectory ? Errno.isDirectory : Errno.invalid) }
        guard source.isReadable, target.isWritable, target.flags & OpenFlag.append == 0 else { throw .errno(Errno.badDescriptor) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        try requireUntouched(from.number, tx)
        try requireUntouched(to.number, tx)
        let moved = progress.moved
        // The description's own offset has moved along with the committed steps; given ones have not.
        let readAt = request.offset >= 0 ? UInt64(request.offset) + moved : UInt64(source.offset)
        let writeAt = request.offset2 >= 0 ? UInt64(request.offset2) + moved : UInt64(target.offset)
        let size = liveSize(from, tx)
        // Fixed by the first step: a copy into the same file does not follow the end that it moves.
        let total = moved > 0 ? progress.done : readAt < size ? min(request.length, size - readAt) : 0
        guard readAt < size, moved < total else { return Outcome(Int64(moved)) }
        let wanted = min(total - moved, size - readAt)
        tx.nextProgress.done = total
        if from.number == to.number && readAt < writeAt + wanted && writeAt < readAt + wanted { throw .errno(Errno.invalid) }
        guard writeAt < Volume.maximumSize - wanted else { throw .errno(Errno.tooBig) }
        // A page of the target at a time, from one or two of the source: a cut leaves it with what it had or what it gets. What is no more than a page is one step.
        let count = wanted <= Volume.pageSize ? wanted : Volume.pageSize - writeAt % Volume.pageSize
        let buffer = unsafe pathBuffers.memory
        let stored = core(from.number, tx).map { $0.flags & CoreInode.Flag.sharedMap != 0 } ?? false ? mappedFiles[from.number] : nil
        var (done, missed) = (UInt64(0), false)
        while done < count {
            let part = min(count - done, Volume.pageSize - (readAt + done) % Volume.pageSize)
            if try unsafe !readForCopy(from, stored, at: readAt + done, part, left: wanted - done, into: buffer + Int(done), tx) { missed = true }
            done += part
        }
        if missed { throw .missing }
        // It is read, and then written: within one file the order shows in its times.
        if source.flags & OpenFlag.noAccessTime == 0 { try touchAccessTime(Int(source.core), tx) }
        let taken = try unsafe writeBytes(to, offset: writeAt, from: buffer, count: count, credentials: credentials(request), tx)
        if request.offset < 0 { try descriptionForWrite(source.slot, tx).offset = Int64(readAt + taken) }
        if request.offset2 < 0 { try descriptionForWrite(target.slot, tx).offset = Int64(writeAt + taken) }
        tx.nextProgress.moved = moved + taken
        if taken < wanted {
            takeTicket(to.number, tx)
            return .more
        }
        return Outcome(Int64(moved + taken))
    }
    /// Bytes of one page of the source. False: they have to be read first.
    private func readForCopy(
        _ from: Inode, _ stored: MappedFile?, at readAt: UInt64, _ count: UInt64, left: UInt64, into buffer: UnsafeMutableRawPointer, _ tx: Transaction
    ) throws(Stop) -> Bool {
        let (page, offset) = (readAt / Volume.pageSize, readAt % Volume.pageSize)
        let frame = try tx.data(from.number, page)
        if let stored, stored.isPresent(page) {
            unsafe readStored(stored, readAt, Int(count), into: buffer)
        } else if frame >= 0 {
            unsafe buffer.copyMemory(from: cache.pointer(frame) + Int(offset), byteCount: Int(count))
        } else {
            unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: Int(count))
            if from.mapping == InodeLayout.Mapping.inline {
                let valid = UInt64(from.inlineCount)
                if readAt < valid { unsafe buffer.copyMemory(from: from.inline.pointer + Int(readAt), byteCount: Int(min(count, valid - readAt))) }
            } else if let extent = try lookup(from, page, tx).extent, !extent.unwritten {
                let pages = Volume.pages(offset + left)
                tx.miss(from.number, page, block: extent.block + (page - extent.index), run: Int(min(extent.end - page, pages, UInt64(transferStep))))
                return false
            }
        }
        return true
    }
}
