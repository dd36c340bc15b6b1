/// Names against inodes: links, types, parents, orphans, and that everything is reached from the root.
extension VolumeChecker {
    func checkNames() {
        checkOrphans()
        checkEnds()
        unsafe forEachInode { number, record in
            if unsafe record.pointee.type == UInt8(Mode.directory >> 12), unsafe record.pointee.names > 0, number != Superblock.rootInode {
                unsafe self.record(record.pointee.namedIn)?.pointee.subdirectories &+= 1
            }
        }
        unsafe forEachInode { number, record in unsafe checkNames(of: number, record.pointee) }
        unsafe forEachInode { number, record in
            if unsafe record.pointee.type == UInt8(Mode.directory >> 12) && record.pointee.color == 0 { climb(from: number) }
        }
    }

    private func forEachInode(_ body: (UInt64, UnsafeMutablePointer<CheckedGroup.Record>) -> Void) {
        for (number, group) in groups.enumerated() {
            for index in 0..<group.recordCount {
                guard let record = unsafe group.record(index), unsafe !record.pointee.isUnknown else { continue }
                unsafe body(UInt64(number) * UInt64(geometry.inodesPerGroup) + UInt64(index) + 1, record)
            }
        }
    }

    private func checkOrphans() {
        for (inode, kind) in orphans {
            guard inode > Superblock.rootInode, let record = unsafe record(inode), unsafe record.pointee.type != 0 || record.pointee.isUnknown else {
                if inode <= Superblock.rootInode || !groups[geometry.group(ofInode: inode)].isUnknown {
                    report(.error, .orphan, "the orphan table names inode \(inode), which is not in use", inode: Superblock.orphanInode)
                }
                continue
            }
            switch kind {
            case OrphanKind.unlinked: unsafe record.pointee.isOrphan = true
            case OrphanKind.range:
                if unsafe record.pointee.type != UInt8(Mode.regular >> 12) && !record.pointee.isUnknown {
                    report(.error, .orphan, "the orphan table has a range of inode \(inode), which is no regular file", inode: Superblock.orphanInode)
                }
            default: report(.error, .orphan, "the orphan table has an entry of kind \(kind) for inode \(inode)", inode: Superblock.orphanInode)
            }
        }
    }

    /// Blocks allocated ahead may lie beyond a file's size, if they are unwritten.
    private func checkEnds() {
        if orphansUnknown || beyondEnd.isEmpty { return }
        let doomed = Set(orphans.map(\.inode))
        for inode in beyondEnd where !doomed.contains(inode) {
            report(.error, .size, "written blocks lie beyond the end of the file", inode: inode)
        }
    }

    private func checkNames(of number: UInt64, _ record: CheckedGroup.Record) {
        if record.type == 0 {
            if record.names > 0 {
                report(.error, .danglingEntry, "\(record.names) names lead to inode \(number), which is not in use", inode: record.namedIn)
            }
            return
        }
        if number == Superblock.orphanInode {
            if record.links != 1 { report(.error, .linkCount, "the orphan table has \(record.links) links", inode: number) }
            return
        }
        if record.names > 0 && record.namedType != record.type {
            report(.error, .entryType, "its name says type \(record.namedType), the inode says \(record.type)", inode: number)
        }
        if record.isOrphan {
            if record.names > 0 || record.links > 0 {
                report(.error, .orphan, "is in the orphan table as nameless, and has \(record.names) names and \(record.links) links", inode: number)
            }
            return
        }
        if record.type == UInt8(Mode.directory >> 12) { return checkDirectoryNames(of: number, record) }
        if record.links == 0 {
            if !orphansUnknown { report(.error, .orphan, "has no links and is not in the orphan table", inode: number) }
        } else if record.names == 0 {
            if !namesUnknown { report(.error, .unreachable, "no name leads to it", inode: number) }
        } else if record.names > record.links || record.names < record.links && !namesUnknown {
            report(.error, .linkCount, "has \(record.names) names and says \(record.links)", inode: number)
        }
    }

    private func checkDirectoryNames(of number: UInt64, _ record: CheckedGroup.Record) {
        let isRoot = number == Superblock.rootInode
        let links = UInt64(record.subdirectories) + 2
        if !isRoot && record.names == 0 {
            if record.links == 0 {
                if !orphansUnknown { report(.error, .orphan, "has no links and is not in the orphan table", inode: number) }
            } else if !namesUnknown {
                report(.error, .unreachable, "no name leads to it", inode: number)
            }
            return
        }
        if record.names > 1 { report(.error, .parent, "the directory has \(record.names) names", inode: number) }
        let parent = isRoot ? Superblock.rootInode : record.namedIn
        if record.ownParent != parent {
            report(.error, .parent, "says that it lies in inode \(record.ownParent), and lies in inode \(parent)", inode: number)
        }
        if UInt64(record.links) < links || UInt64(record.links) > links && !namesUnknown {
            report(.error, .linkCount, "has \(record.subdirectories) subdirectories and \(record.links) links", inode: number)
        }
    }

    /// From a directory upwards by names, until something known: colours 1 while on the way, 2 when done.
    private func climb(from directory: UInt64) {
        var way: [UInt64] = []
        var current = directory
        while current != Superblock.rootInode, let record = unsafe record(current), unsafe record.pointee.color == 0, unsafe record.pointee.names > 0 {
            unsafe record.pointee.color = 1
            way.append(current)
            unsafe current = record.pointee.namedIn
        }
        if current != Superblock.rootInode, let record = unsafe record(current), unsafe record.pointee.color == 1, let first = way.firstIndex(of: current) {
            let circle = way[first...]
            report(
                .error, .cycle, "\(circle.count == 1 ? "the directory lies in itself" : "\(circle.count) directories lie in each other")",
                inode: circle.min() ?? current)
        }
        for number in way { unsafe record(number)?.pointee.color = 2 }
    }
}
