/// Open descriptions that several sessions hold: what fork(2) and exec(2) hand on, offset, flags and flock(2) included.
///
/// Invariants: a description's number is the same for all its holders. Its row names the first of them, every further one has a share, a row in the same table that
/// the first row's chain reaches; `references` counts both. The first to go hands its place to a share. Who is not named holds nothing: a session cannot
/// reach what another has opened since.
extension Volume {
    /// Makes open descriptions of one session another's as well.
    /// - Parameter handles: nil: all that `session` holds. What it does not hold is passed over.
    /// - Returns: how many the other holds of them now; fewer than there are where a table or its limit is full.
    @discardableResult
    public func share(_ handles: [Int32]?, of session: SessionID, with other: SessionID) -> Int {
        (handles ?? holdings(session)).reduce(0) { $0 + (share($1, of: session, with: other) >= 0 ? 1 : 0) }
    }

    /// Makes one open description another session's as well.
    /// - Returns: 0, 1 where it held it already, or a negated errno: EBADF, EMFILE, ENFILE.
    public func share(_ handle: Int32, of session: SessionID, with other: SessionID) -> Int64 {
        var request = Request(.share, session: other)
        request.handle = handle
        request.argument = UInt64(session.rawValue)
        return submit(request)?.result ?? -Int64(Errno.io)
    }

    /// One process under a new name, after exec(2) or with another identity: `heir` holds what `session` holds of `handles` (nil: everything), and its record locks.
    /// The others are closed. `session` is to be closed next.
    /// - Returns: how many the heir holds.
    @discardableResult
    public func succeed(_ session: SessionID, by heir: SessionID, keeping handles: [Int32]?) -> Int {
        guard let old = sessionIndex(session), let new = sessionIndex(heir) else { return 0 }
        let count = share(handles, of: session, with: heir)
        if let handles {
            let kept = Set(handles)
            for handle in holdings(session) where !kept.contains(handle) { closeHandle(handle, session) }
        }
        var slot = 0
        while slot < region.layout.locks, sessions[old].locks > 0 {
            var request = Request(.bequeath, session: heir)
            request.handle = Int32(truncatingIfNeeded: slot)
            request.argument = UInt64(session.rawValue)
            if let completion = submit(request), completion.result > 0 {
                sessions[old].locks -= 1
                sessions[new].locks += 1
            }
            slot += 1
        }
        return count
    }

    /// What the session holds.
    func holdings(_ session: SessionID) -> [Int32] { (0..<descriptionHighWater).compactMap { handle(inRow: $0, of: session) } }

    func closeHandle(_ handle: Int32, _ session: SessionID) {
        var request = Request(.close, session: session)
        request.handle = handle
        _ = submit(request)
    }

    /// The description that the row makes the session hold.
    func handle(inRow slot: Int, of session: SessionID) -> Int32? {
        let row = description(slot, transaction)
        guard row.used != 0, row.session == session.rawValue else { return nil }
        return row.used == Description.isShare ? Int32(truncatingIfNeeded: row.target) : Int32(slot)
    }

    // MARK: Operations

    /// `session` (the request's) comes to hold `handle`, as `argument` does. 1: it did already.
    func share(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let giver = SessionID(rawValue: UInt32(truncatingIfNeeded: request.argument))
        let present = try openDescription(request.handle, giver, tx)
        guard let holder = sessionIndex(request.session), sessions[holder].descriptions < configuration.descriptionsPerSession else {
            throw .errno(Errno.tooManyOpen)
        }
        if present.session == request.session.rawValue || shareRow(present.slot, request.session) >= 0 { return Outcome(1) }
        guard let slot = descriptionPool.candidate(tx.takenDescriptions) else { throw .errno(Errno.tableFull) }
        tx.holder = holder
        tx.takenDescriptions += 1
        let row = try descriptionForWrite(present.slot, tx)
        let share = try descriptionForWrite(slot, tx)
        share.cell.zero(0, Description.size)
        share.used = Description.isShare
        share.session = request.session.rawValue
        share.target = UInt32(present.slot)
        share.nextShare = row.nextShare
        row.nextShare = UInt32(slot + 1)
        row.references += 1
        tx.shared = slot
        descriptionHighWater = max(descriptionHighWater, slot + 1)
        return Outcome(0)
    }

    /// Takes one of several holders off a description's list.
    func leave(_ row: Description, _ session: SessionID, _ tx: Transaction) throws(Stop) {
        row.references -= 1
        var previous = row
        var next = row.nextShare
        let isFirst = row.session == session.rawValue
        while next != 0 {
            let share = try descriptionForWrite(Int(next) - 1, tx)
            if isFirst || share.session == session.rawValue {
                tx.unshared = (share.slot, Volume.shareHash(row.slot, share.session))
                if isFirst { row.session = share.session }
                previous.nextShare = share.nextShare
                share.cell.zero(0, Description.size)
                tx.givenDescriptions.append(share.slot)
                return
            }
            previous = share
            next = share.nextShare
        }
    }

    /// The record lock in row `handle` goes from the session `argument` to the request's. 1: it did; 0: the row is not one of its locks.
    func bequeath(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        guard request.handle >= 0, Int(request.handle) < region.layout.locks else { throw .errno(Errno.invalid) }
        let at = region.layout.locksAt + Int(request.handle) * LockCell.size
        let from = UInt32(truncatingIfNeeded: request.argument)
        let present = LockCell(slot: Int(request.handle), cell: tx.readState(at, length: LockCell.size))
        guard present.used == 1, present.session == from else { return Outcome(0) }
        let row = LockCell(slot: present.slot, cell: try tx.writeState(at, length: LockCell.size))
        row.session = request.session.rawValue
        return Outcome(1)
    }

    // MARK: Index

    static func shareHash(_ slot: Int, _ session: UInt32) -> UInt64 { HashIndex.hash(UInt64(truncatingIfNeeded: slot), UInt64(session)) }

    /// The row of the session's share of the description in `slot`, or -1.
    @inline(never) func shareRow(_ slot: Int, _ session: SessionID) -> Int {
        shareIndex.find(Volume.shareHash(slot, session.rawValue)) { place in
            let share = description(place, transaction)
            return share.used == Description.isShare && share.target == UInt32(slot) && share.session == session.rawValue
        }
    }

    /// After the commit of a transaction that has made or ended shares.
    func indexShares(_ tx: Transaction) {
        if tx.unshared.slot >= 0 {
            shareIndex.remove(tx.unshared.hash, slot: tx.unshared.slot) { place in
                let share = description(place, tx)
                return Volume.shareHash(Int(share.target), share.session)
            }
        }
        if tx.shared >= 0 {
            let share = description(tx.shared, tx)
            shareIndex.insert(Volume.shareHash(Int(share.target), share.session), slot: tx.shared)
        }
    }
}
