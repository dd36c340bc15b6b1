/// Record locks (fcntl(2)) and whole-file locks (flock(2)).
///
/// A record lock belongs to an owner and an inode: a process (session, owner), or an open description (F_OFD_SETLK), with which it goes. The ranges of one
/// owner never overlap. A file's locks are a list of rows from its in-core inode. Waiting is parking: every release wakes those who wait, and they look again.
struct LockOwner: Equatable {
    /// Of a process; of a description: who asked, for the limits.
    var session: UInt32
    /// Of a description: its slot.
    var owner: UInt64
    var isDescription: Bool

    static func == (a: LockOwner, b: LockOwner) -> Bool {
        a.owner == b.owner && a.isDescription == b.isDescription && (a.isDescription || a.session == b.session)
    }
}

extension LockCell {
    /// What F_GETLK says of a lock that no process owns.
    static let noProcess = UInt32.max
    var holder: LockOwner { LockOwner(session: session, owner: owner, isDescription: process == LockCell.noProcess) }
}

extension Volume {
    private func lockRow(_ slot: Int, _ tx: Transaction) -> LockCell {
        LockCell(slot: slot, cell: tx.readState(region.layout.locksAt + slot * LockCell.size, length: LockCell.size))
    }

    private func lockRowForWrite(_ slot: Int, _ tx: Transaction) throws(Stop) -> LockCell {
        LockCell(slot: slot, cell: try tx.writeState(region.layout.locksAt + slot * LockCell.size, length: LockCell.size))
    }

    /// F_GETLK 5, F_SETLK 6, F_SETLKW 7, F_OFD_GETLK 36, F_OFD_SETLK 37, F_OFD_SETLKW 38; F_RDLCK 0, F_WRLCK 1, F_UNLCK 2.
    func lock(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        if description.flags & OpenFlag.pathOnly != 0 { throw .errno(Errno.badDescriptor) }
        let isDescription = request.flags >= 36
        guard request.offset >= 0, request.argument <= 2, 5...7 ~= request.flags || 36...38 ~= request.flags else { throw .errno(Errno.invalid) }
        let command = isDescription ? request.flags - 31 : request.flags
        let first = UInt64(request.offset)
        let (sum, overflow) = first.addingReportingOverflow(request.length)
        guard !overflow, sum <= UInt64(Int64.max) + 1 else { throw .errno(Errno.overflow) }
        let last = request.length == 0 ? UInt64(Int64.max) : sum - 1
        let type = UInt32(request.argument)
        let owner = LockOwner(
            session: request.session.rawValue, owner: isDescription ? UInt64(description.slot) : request.owner, isDescription: isDescription)
        let core = CoreInode(
            slot: Int(description.core), cell: tx.readState(Int(description.core) * CoreInode.size, length: CoreInode.size))
        if command == 5 {
            // F_UNLCK asks for the description's own locks (Linux 6.5).
            guard type != 2 || isDescription else { throw .errno(Errno.invalid) }
            guard let conflict = conflict(core, type, first, last, owner, tx) else { return Outcome(0, 2) }
            let length = conflict.last == UInt64(Int64.max) ? 0 : conflict.last - conflict.first + 1
            return Outcome(Int64(conflict.process), UInt64(conflict.type), conflict.first, length)
        }
        if type == 0 && !description.isReadable || type == 1 && !description.isWritable { throw .errno(Errno.badDescriptor) }
        if type != 2, conflict(core, type, first, last, owner, tx) != nil {
            if command == 6 { throw .errno(Errno.again) }
            // Who would have to let a description's lock go cannot be told: of those Linux finds no deadlock either.
            if !isDescription, waitsFor(owner, from: core, type, first, last, tx) { throw .errno(Errno.deadlock) }
            throw .lock(description.inode)
        }
        let process = isDescription ? LockCell.noProcess : UInt32(bitPattern: credentials(request).process)
        try setRange(Int(description.core), type, first, last, owner, process, tx)
        return Outcome(0)
    }

    private func conflict(
        _ core: CoreInode, _ type: UInt32, _ first: UInt64, _ last: UInt64, _ owner: LockOwner, _ tx: Transaction
    ) -> LockCell? {
        var next = core.firstLock
        var found: LockCell?
        while next != 0 {
            let row = lockRow(Int(next) - 1, tx)
            let isMine = row.holder == owner
            if row.first <= last && row.last >= first && (type == 2 ? isMine : !isMine && (type == 1 || row.type == 1)) {
                // The first in the file: F_GETLK's answer does not depend on who came when.
                if found.map({ row.first < $0.first }) ?? true { found = row }
            }
            next = row.next
        }
        return found
    }

    /// True where the owner of a conflicting lock waits, at some remove, for a lock of this owner: waiting for it would never end.
    private func waitsFor(
        _ owner: LockOwner, from core: CoreInode, _ type: UInt32, _ first: UInt64, _ last: UInt64, _ tx: Transaction
    ) -> Bool {
        var (core, type, first, last) = (core, type, first, last)
        var asking = owner
        // As far as Linux looks (MAX_DEADLK_ITERATIONS): the time that a client may take from others has a bound.
        for _ in 0..<10 {
            guard let holder = conflict(core, type, first, last, asking, tx)?.holder, !holder.isDescription else { return false }
            if holder == owner { return true }
            asking = holder
            let waiting = engine.parked.first {
                guard case .lock = $0.reason, $0.request.opcode == .lock, $0.request.flags == 7 else { return false }
                return $0.request.session.rawValue == asking.session && $0.request.owner == asking.owner
            }
            guard let request = waiting?.request, let row = try? openDescription(request.handle, request.session, tx) else { return false }
            core = CoreInode(slot: Int(row.core), cell: tx.readState(Int(row.core) * CoreInode.size, length: CoreInode.size))
            type = UInt32(truncatingIfNeeded: request.argument)
            first = UInt64(max(0, request.offset))
            last = request.length == 0 ? UInt64(Int64.max) : first &+ request.length &- 1
        }
        return false
    }

    /// Makes [first, last] of the owner's locks this type (2: none): what overlaps is cut, what touches is joined.
    private func setRange(
        _ coreSlot: Int, _ type: UInt32, _ first: UInt64, _ last: UInt64, _ owner: LockOwner, _ process: UInt32, _ tx: Transaction
    ) throws(Stop) {
        let core = CoreInode(slot: coreSlot, cell: try tx.writeState(coreSlot * CoreInode.size, length: CoreInode.size))
        tx.holder = Int(owner.session & 0xFFFF)
        var (first, last) = (first, last)
        var keep: [(type: UInt32, first: UInt64, last: UInt64)] = []
        var previous: Int?
        var next = core.firstLock
        // Of the owner's locks on the file, those that stay; of those that go, those that count for this session.
        var (staying, returned) = (0, 0)
        while next != 0 {
            let slot = Int(next) - 1
            let row = lockRow(slot, tx)
            let following = row.next
            next = following
            let mine = row.holder == owner
            let touches = row.first <= (last == .max ? last : last + 1) && (row.last == .max ? row.last : row.last + 1) >= first
            let overlaps = row.first <= last && row.last >= first
            guard mine, overlaps || touches && row.type == type else {
                if mine { staying += 1 }
                previous = slot
                continue
            }
            if row.type == type {
                first = min(first, row.first)
                last = max(last, row.last)
            } else {
                if row.first < first { keep.append((row.type, row.first, first - 1)) }
                if row.last > last { keep.append((row.type, last + 1, row.last)) }
            }
            if let previous { try lockRowForWrite(previous, tx).next = following } else { core.firstLock = following }
            if row.session == owner.session { returned += 1 }
            try release(row, core, tx)
        }
        if type != 2 { keep.append((type, first, last)) }
        for piece in keep {
            // The second for descriptions, whose locks may have been taken by holders that have gone.
            guard sessions[tx.holder].locks + tx.takenLocks - returned < configuration.locksPerSession,
                staying + tx.takenLocks < configuration.locksPerSession, let slot = lockPool.candidate(tx.takenLocks)
            else { throw .errno(Errno.noLocks) }
            tx.takenLocks += 1
            let row = try lockRowForWrite(slot, tx)
            row.used = 1
            row.type = piece.type
            row.owner = owner.owner
            row.first = piece.first
            row.last = piece.last
            row.core = UInt32(coreSlot)
            row.session = owner.session
            row.process = process
            row.next = core.firstLock
            core.firstLock = UInt32(slot + 1)
        }
    }

    /// Frees a row that is in no list any more.
    private func release(_ row: LockCell, _ core: CoreInode, _ tx: Transaction) throws(Stop) {
        tx.givenLocks.append(Transaction.GivenLock(slot: row.slot, session: sessionIndex(SessionID(rawValue: row.session)) ?? -1))
        try lockRowForWrite(row.slot, tx).cell.zero(0, LockCell.size)
        tx.unlockedInode = core.inode
    }

    /// close(2) of any descriptor of a file releases its process's record locks on it; the last one of a description, the description's.
    /// - Parameter ending: the description that goes.
    func releaseLocks(_ core: CoreInode, session: SessionID?, ending: Int?, _ tx: Transaction) throws(Stop) {
        var next = core.firstLock
        var previous: Int?
        while next != 0 {
            let slot = Int(next) - 1
            let row = lockRow(slot, tx)
            let following = row.next
            let holder = row.holder
            if holder.isDescription ? ending.map({ UInt64($0) == holder.owner }) ?? false : holder.session == session?.rawValue {
                if let previous { try lockRowForWrite(previous, tx).next = following } else { core.firstLock = following }
                try release(row, core, tx)
            } else {
                previous = slot
            }
            next = following
        }
    }

    /// LOCK_SH 1, LOCK_EX 2, LOCK_UN 8, LOCK_NB 4. The description owns the lock.
    func lockWhole(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let description = try openDescription(request.handle, request.session, tx)
        // Access mode 3 is for neither reading nor writing, and flock(2) asks for one of them.
        if description.flags & OpenFlag.pathOnly != 0 || description.flags & 3 == 3 && request.flags & ~4 != 8 { throw .errno(Errno.badDescriptor) }
        let wanted: UInt32
        switch request.flags & ~4 {
        case 1: wanted = 1
        case 2: wanted = 2
        case 8: wanted = 0
        default: throw .errno(Errno.invalid)
        }
        let held = description.flock
        if held == wanted { return Outcome(0) }
        let core = CoreInode(slot: Int(description.core), cell: try tx.writeState(Int(description.core) * CoreInode.size, length: CoreInode.size))
        // Without this description's own.
        let others = held == 2 ? 0 : core.flocks == .max ? .max : core.flocks - held
        if wanted == 2 && others > 0 || wanted == 1 && others == .max {
            let mayWait = request.flags & 4 == 0
            if held != 0 {
                // As in Linux: the lock that is to become another goes first, and stays away where that cannot be had. Two who both want more than they share would wait for each other for ever.
                core.flocks = others
                try descriptionForWrite(description.slot, tx).flock = 0
                tx.unlockedInode = description.inode
                return mayWait ? .more : Outcome(-Int64(Errno.again))
            }
            throw mayWait ? .lock(description.inode) : .errno(Errno.again)
        }
        core.flocks = wanted == 2 ? .max : others + wanted
        try descriptionForWrite(description.slot, tx).flock = wanted
        if held == 2 || wanted == 0 { tx.unlockedInode = description.inode }
        return Outcome(0)
    }
}
