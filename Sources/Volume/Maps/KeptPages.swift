/// Space for what programs may store into holes of a mapped file: kept when the map is made, so that ENOSPC comes there and not when it is too late.
///
/// Invariant: of the volume's reserved blocks, one is for each page marked in `MappedFile.kept`, and `keptNodes` are for the tree nodes of all of them. Whoever
/// gives such a page its first block uses what was kept for it (`useKeptPage`); what is taken out of the file again is kept anew.
extension Volume {
    /// Tree nodes that so many blocks may need, whoever takes them in which order, beside those that `nodesFor` counts for delayed data.
    func keptNodes(_ count: Int) -> Int { count == 0 ? 0 : 16 + count * 4 / max(2, min(configuration.treeFanout, Node.maximumSlots)) }

    /// Keeps a block for each page of [from, to) that has none kept yet; the caller knows that they are holes.
    func keepPages(_ mapped: MappedFile, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        var count = 0
        for page in from..<to where !mapped.isKept(page) { count += 1 }
        if count == 0 { return }
        let (before, after) = keptBeforeAndAfter(mapped, change: count, tx)
        let blocks = count + keptNodes(after) - keptNodes(before)
        try requireSpace(blocks, tx)
        tx.reserved += blocks
        tx.keptPages.append(KeptPages(inode: mapped.inode, from: from, to: to, isKept: true))
    }

    /// The file ends at page `end` from now on.
    func giveBackKeptPages(_ number: UInt64, from end: UInt64, _ tx: Transaction) {
        guard let mapped = mappedFiles[number], UInt64(mapped.kept.count) > end else { return }
        var count = 0
        for page in end..<UInt64(mapped.kept.count) where mapped.isKept(page) { count += 1 }
        if count == 0 { return }
        let (before, after) = keptBeforeAndAfter(mapped, change: -count, tx)
        tx.reserved -= count + keptNodes(before) - keptNodes(after)
        tx.keptPages.append(KeptPages(inode: number, from: end, to: UInt64(mapped.kept.count), isKept: false))
    }

    /// Pages [from, to) lose their blocks, and programs may store into them again.
    func keepPunchedPages(_ number: UInt64, from: UInt64, to: UInt64, _ tx: Transaction) throws(Stop) {
        guard let mapped = mappedFiles[number], mapped.isWritable, from < min(to, UInt64(mapped.sums.count)) else { return }
        try keepPages(mapped, from: from, to: min(to, UInt64(mapped.sums.count)), tx)
    }

    /// The page gets a block in this transaction: the one that was kept for it, if one was. Nodes that delayed data reserves besides are those that are kept for
    /// all pages: it is one tree. They may be counted twice for a while, and nobody else gets them meanwhile.
    func useKeptPage(_ number: UInt64, _ page: UInt64, _ tx: Transaction) -> Bool {
        guard let mapped = mappedFiles[number], mapped.isKept(page) else { return false }
        for number in tx.keptPages.indices {
            let pages = tx.keptPages[number]
            if pages.inode == mapped.inode && !pages.isKept && pages.from <= page && page < pages.to { return false }
        }
        let (before, after) = keptBeforeAndAfter(mapped, change: -1, tx)
        tx.reserved -= 1 + keptNodes(before) - keptNodes(after)
        tx.keptPages.append(KeptPages(inode: mapped.inode, from: page, to: page + 1, isKept: false))
        return true
    }

    /// How many pages are kept with what this transaction has changed so far, and then.
    private func keptBeforeAndAfter(_ mapped: MappedFile, change: Int, _ tx: Transaction) -> (Int, Int) {
        var count = mapped.keptCount
        for number in tx.keptPages.indices {
            let pages = tx.keptPages[number]
            guard pages.inode == mapped.inode else { continue }
            for page in pages.from..<pages.to where mapped.isKept(page) != pages.isKept { count += pages.isKept ? 1 : -1 }
        }
        return (count, count + change)
    }
}
