/// unlink(2), rmdir(2), rename(2).
extension Volume {
    private func requireName(_ resolution: Resolution, dot: Int32, dotDot: Int32, root: Int32) throws(Stop) {
        switch resolution.last {
        case .name: return
        case .dot: throw .errno(dot)
        case .dotDot: throw .errno(dotDot)
        case .root: throw .errno(root)
        }
    }

    func unlink(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let resolution = try resolve(request, follow: false, slash: .keepsEntry, tx)
        try requireName(resolution, dot: Errno.isDirectory, dotDot: Errno.isDirectory, root: Errno.isDirectory)
        guard let file = resolution.file, let entry = resolution.entry else { throw resolution.absence }
        if resolution.wantsDirectory { throw .errno(file.isDirectory ? Errno.isDirectory : Errno.notDirectory) }
        let parent = try requireParent(resolution, credentials(request))
        guard credentials(request).mayDelete(file, from: parent) else { throw .errno(Errno.perm) }
        if file.isDirectory { throw .errno(Errno.isDirectory) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        let directory = try inodeForWrite(parent.number, tx)
        try removeEntry(entry, resolution.name, from: directory, tx)
        try touch(directory, tx)
        try dropLink(file.number, tx)
        return Outcome(0)
    }

    /// One name fewer; the last one takes the inode with it.
    private func dropLink(_ number: UInt64, _ tx: Transaction) throws(Stop) {
        let inode = try inodeForWrite(number, tx)
        if inode.links == 0 { throw damaged("link count of inode \(number)") }
        inode.links -= 1
        inode.changeTime = now
        if core(number, tx) != nil { try coreForWrite(inode, tx).changeTime = now }
        if inode.links == 0 { try dropLastLink(inode, tx) }
    }

    func removeDirectory(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let resolution = try resolve(request, follow: false, slash: .keepsEntry, tx)
        try requireName(resolution, dot: Errno.invalid, dotDot: Errno.notEmpty, root: Errno.busy)
        guard let victim = resolution.file, let entry = resolution.entry else { throw resolution.absence }
        let parent = try requireParent(resolution, credentials(request))
        guard credentials(request).mayDelete(victim, from: parent) else { throw .errno(Errno.perm) }
        guard victim.isDirectory else { throw .errno(Errno.notDirectory) }
        if victim.entries > 0 { throw .errno(Errno.notEmpty) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        let directory = try inodeForWrite(parent.number, tx)
        try removeEntry(entry, resolution.name, from: directory, tx)
        directory.links -= min(directory.links, 1)
        try touch(directory, tx)
        try dropDirectory(victim.number, tx)
        return Outcome(0)
    }

    /// An empty directory without a name: gone, or kept for those who have it open.
    private func dropDirectory(_ number: UInt64, _ tx: Transaction) throws(Stop) {
        let inode = try inodeForWrite(number, tx)
        inode.links = 0
        inode.changeTime = now
        if let core = core(number, tx), core.openCount > 0 {
            try coreForWrite(inode, tx).flags |= CoreInode.Flag.orphan
            try addOrphan(number, kind: OrphanKind.unlinked, from: 0, count: 0, tx)
            return
        }
        guard try destroy(inode, tx) else { throw damaged("directory \(number) has data") }
    }

    static let renameNoReplace: UInt32 = 1
    static let renameExchange: UInt32 = 2

    /// In the order in which Linux looks: both ways there, both names, what they are, then who may do it.
    func rename(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        let flags = request.flags
        guard flags & ~3 == 0, flags != 3 else { throw .errno(Errno.invalid) }
        let exchange = flags & Volume.renameExchange != 0
        let noReplace = flags & Volume.renameNoReplace != 0
        let old = try resolve(request, follow: false, slash: .keepsEntry, tx)
        let new = try resolve(request, second: true, follow: false, slash: .keepsEntry, tx)
        try requireName(old, dot: Errno.busy, dotDot: Errno.busy, root: Errno.busy)
        let newTaken = noReplace ? Errno.exists : Errno.busy
        try requireName(new, dot: newTaken, dotDot: newTaken, root: newTaken)
        if isReadOnly { throw .errno(Errno.readOnly) }
        guard let moving = old.file, let oldEntry = old.entry else { throw old.absence }
        let newParent = new.directory
        if new.file == nil, exchange || newParent.links == 0 || new.name.count > Volume.maximumName {
            throw newParent.links == 0 ? .errno(Errno.noEntry) : new.absence
        }
        if noReplace && new.file != nil { throw .errno(Errno.exists) }
        let target = new.file
        if exchange, new.wantsDirectory, let target, !target.isDirectory { throw .errno(Errno.notDirectory) }
        if !moving.isDirectory, old.wantsDirectory || !exchange && new.wantsDirectory { throw .errno(Errno.notDirectory) }
        // A directory never moves below itself, nor is it replaced by what it holds.
        let changesParent = old.parent != new.parent
        if changesParent, moving.isDirectory, try isAncestor(old.inode, of: new.parent, tx) { throw .errno(Errno.invalid) }
        if changesParent, let target, target.isDirectory, try isAncestor(target.number, of: old.parent, tx) {
            throw .errno(exchange ? Errno.invalid : Errno.notEmpty)
        }
        if new.inode == old.inode { return Outcome(0) }
        let who = credentials(request)
        let oldParent = try requireParent(old, who)
        guard who.mayDelete(moving, from: oldParent) else { throw .errno(Errno.perm) }
        _ = try requireParent(new, who)
        if let target {
            guard who.mayDelete(target, from: newParent) else { throw .errno(Errno.perm) }
            if !exchange && moving.isDirectory != target.isDirectory {
                throw .errno(moving.isDirectory ? Errno.notDirectory : Errno.isDirectory)
            }
        }
        // A directory that changes its parent gets a new `..`: that is a write to it.
        if changesParent {
            if moving.isDirectory && !who.may(Access.write, moving) { throw .errno(Errno.access) }
            if exchange, let target, target.isDirectory, !who.may(Access.write, target) { throw .errno(Errno.access) }
        }
        if let target {
            if exchange { return try exchangeEntries(old, oldEntry, moving, new, target, tx) }
            if target.isDirectory && target.entries > 0 { throw .errno(Errno.notEmpty) }
            // People write a new file and rename it over the old one: the data goes out before the name changes.
            if progress.absorbed != .max, moving.isRegular, let core = core(moving.number, tx), core.flags & CoreInode.Flag.sharedMap != 0 {
                _ = try absorb(moving.number, progress, tx)
                return .more
            }
            if moving.isRegular && cache.dirtyLists.contains(moving.number) { throw .writeback(moving.number) }
        }
        return try move(old, oldEntry, moving.number, new, tx)
    }

    private func move(_ old: Resolution, _ oldEntry: DirectoryEntry, _ number: UInt64, _ new: Resolution, _ tx: Transaction) throws(Stop) -> Outcome {
        let moving = try inodeForWrite(number, tx)
        let source = try inodeForWrite(old.parent, tx)
        let destination = try inodeForWrite(new.parent, tx)
        if let newEntry = new.entry {
            let target = try inode(new.inode, tx)
            try changeEntry(newEntry, new.name, inode: number, type: moving.type, in: destination, tx)
            if target.isDirectory {
                destination.links -= min(destination.links, 1)
                try dropDirectory(target.number, tx)
            } else {
                try dropLink(target.number, tx)
            }
        } else {
            try addEntry(new.name, inode: number, type: moving.type, to: destination, tx)
        }
        try removeEntry(oldEntry, old.name, from: source, tx)
        if moving.isDirectory && old.parent != new.parent {
            moving.parent = new.parent
            source.links -= min(source.links, 1)
            destination.links += 1
        }
        moving.changeTime = now
        if core(number, tx) != nil { try coreForWrite(moving, tx).changeTime = now }
        try touch(source, tx)
        try touch(destination, tx)
        return Outcome(0)
    }

    private func exchangeEntries(
        _ old: Resolution, _ oldEntry: DirectoryEntry, _ moving: Inode, _ new: Resolution, _ target: Inode, _ tx: Transaction
    ) throws(Stop) -> Outcome {
        guard let newEntry = new.entry else { throw .errno(Errno.noEntry) }
        let source = try inodeForWrite(old.parent, tx)
        let destination = try inodeForWrite(new.parent, tx)
        try changeEntry(oldEntry, old.name, inode: target.number, type: target.type, in: source, tx)
        try changeEntry(newEntry, new.name, inode: moving.number, type: moving.type, in: destination, tx)
        for (inode, from, to, parent) in [(moving, source, destination, new.parent), (target, destination, source, old.parent)] {
            let writable = try inodeForWrite(inode.number, tx)
            writable.changeTime = now
            if core(inode.number, tx) != nil { try coreForWrite(writable, tx).changeTime = now }
            if inode.isDirectory && old.parent != new.parent {
                writable.parent = parent
                from.links -= min(from.links, 1)
                to.links += 1
            }
        }
        try touch(source, tx)
        try touch(destination, tx)
        return Outcome(0)
    }

    /// True where `ancestor` is `directory` or lies above it.
    private func isAncestor(_ ancestor: UInt64, of directory: UInt64, _ tx: Transaction) throws(Stop) -> Bool {
        var current = directory
        // A hostile volume may have a circle of parents; no honest one is deeper than this.
        for _ in 0..<1_000_000 {
            if current == ancestor { return true }
            if current == Superblock.rootInode { return false }
            current = try inode(current, tx).parent
        }
        throw damaged("directory \(directory) is not below the root")
    }
}
