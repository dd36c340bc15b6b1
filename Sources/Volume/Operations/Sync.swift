/// fsync(2), fdatasync(2), sync(2): the durability contract, docs/DURABILITY.md.
extension Volume {
    func sync(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        let outcome = try syncStep(description.inode, dataOnly: request.flags & 1 != 0, progress, tx)
        if outcome.again { return outcome }
        // An error of an earlier write-back is told once to every descriptor.
        if !writebackErrors.isEmpty, let failure = writebackErrors[description.inode], description.errorSeen != failure.generation {
            try descriptionForWrite(description.slot, tx).errorSeen = failure.generation
            return Outcome(-Int64(failure.errno))
        }
        return outcome
    }

    /// One step of making an inode durable: its data into records or home, then the wait for the journal.
    /// The record to wait for is fixed when the data is on its way; later writers are not chased.
    func syncStep(_ number: UInt64, dataOnly: Bool, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        if progress.target == 0 {
            if progress.absorbed != .max, !mappedFiles.isEmpty, journal.bug != .storesAreNotSynced {
                // What programs have stored is the file's, too.
                _ = try absorb(number, progress, tx)
                return .more
            }
            if try !writeBack(number, progress, forSync: true, dataOnly: dataOnly, tx) { return .more }
            if isReadOnly { throw .errno(Errno.readOnly) }
            // What this step itself changes is in the open batch when it commits.
            tx.nextProgress.target = pendingRecord(tx)
            return .more
        }
        if progress.target > journal.durableSequence {
            if isReadOnly { throw .errno(Errno.io) }
            throw .durable(progress.target)
        }
        return Outcome(0)
    }

    /// The last record with anything acknowledged, this transaction included.
    private func pendingRecord(_ tx: Transaction) -> UInt64 {
        if !tx.isEmpty || journal.openLength > 0 || journal.openHadOrdered { return journal.openSequence }
        return journal.phase != .idle ? journal.sealedSequence : max(journal.durableSequence, 1)
    }

    /// Everything: every inode with newer data or attributes, then the journal. Where one cannot be written back, the answer is its error.
    func syncAll(_ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        if progress.target == 0, let stored = nextStored(progress.absorbing) {
            let isOther = stored != progress.absorbing
            var here = progress
            if isOther { here.absorbed = 0 }
            let isDone = try absorb(stored, here, tx)
            tx.nextProgress.absorbing = isDone ? stored + 1 : stored
            if isDone { tx.nextProgress.absorbed = 0 }
            return .more
        }
        if progress.target == 0 {
            // Inodes in ascending order; `done` is the last one asked for.
            let pending = [cache.dirtyLists.next(after: progress.done), dirtySince.next(after: progress.done)].compactMap { $0 }
            if let next = pending.min(), !isReadOnly {
                if progress.phase == 0 || progress.moved != next {
                    tx.nextProgress.phase = 1
                    tx.nextProgress.moved = next
                    requestWriteback(next)
                    return .more
                }
                if engine.writingBack.contains(next) { throw .writeback(next) }
                tx.nextProgress.done = next
                return .more
            }
            tx.nextProgress.target = pendingRecord(tx)
            return .more
        }
        if progress.target > journal.durableSequence {
            if isReadOnly { throw .errno(Errno.io) }
            throw .durable(progress.target)
        }
        // Whoever syncs all comes to a rest: nobody waits for these.
        discards.dueAt = 0
        return Outcome(-Int64(progress.failure))
    }

    /// Begins an orderly end: everything reaches the device and the superblock says so. Poll until it is true.
    public func shutdown() -> Bool {
        if cleanShutdownDone { return true }
        if !isShuttingDown {
            isShuttingDown = true
            checkMaps()
        }
        if isReadOnly {
            poll()
            cleanShutdownDone = queue.inFlight == 0
            return cleanShutdownDone
        }
        checkpoint.drain = true
        discards.dueAt = 0
        if journal.openLength > 0 || journal.openHadOrdered { journal.wanted = max(journal.wanted, journal.openSequence) }
        poll()
        let isQuiet = dirtySince.count <= abandoned.count && journal.openLength == 0 && journal.phase == .idle && checkpoint.phase == .idle
            && discards.isEmpty && queue.inFlight == 0 && engine.runnable == 0 && !engine.parked.contains { $0.task != .request }
        if isQuiet && cache.needingWriteback == 0 && cache.checkpointCount == 0 {
            superblock.clean = true
            writeSuperblocks()
            cleanShutdownDone = true
        } else if isQuiet && !abandoned.isEmpty {
            // The journal stays what it is; the next mount replays it.
            note("not shut down in order: the data of \(abandoned.count) files could not be written back")
            cleanShutdownDone = true
        }
        return cleanShutdownDone
    }
}
