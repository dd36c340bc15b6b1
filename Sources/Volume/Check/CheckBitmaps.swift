/// Claims against bitmaps: every block is used exactly once and marked so, or free and marked so; counters are what is free.
extension VolumeChecker {
    func checkBitmap(ofGroup number: Int) {
        let group = groups[number]
        let start = geometry.start(ofGroup: number)
        guard let block = readMetadata(start + 1, kind: BlockLayout.Kind.bitmap) else { return }
        var markedCount = 0
        var leaked = Run()
        var unmarked = Run()
        for word in 0..<CheckedGroup.words {
            let marked = block.u64(GroupLayout.blockBitmapAt + word * 8)
            let used = unsafe group.used[word]
            markedCount += marked.nonzeroBitCount
            if marked == used { continue }
            var difference = marked ^ used
            while difference != 0 {
                let bit = difference.trailingZeroBitCount
                difference &= difference - 1
                let address = start + UInt64(word * 64 + bit)
                if marked >> UInt64(bit) & 1 == 1 {
                    if !blocksUnknown, let run = leaked.add(address) { tellLeaked(run) }
                } else {
                    if let run = unmarked.add(address) { tellUnmarked(run) }
                }
            }
        }
        if leaked.count > 0 { tellLeaked(leaked) }
        if unmarked.count > 0 { tellUnmarked(unmarked) }
        if !group.isUnknown { checkCounters(number, group, start, markedFree: CheckedGroup.words * 64 - markedCount) }
    }

    /// Neighbouring blocks with the same defect are one finding.
    private struct Run {
        var first: UInt64 = 0
        var count: UInt64 = 0

        /// The run that has ended before this block, if any.
        mutating func add(_ block: UInt64) -> Run? {
            if count > 0 && block == first + count {
                count += 1
                return nil
            }
            let before = self
            (first, count) = (block, 1)
            return before.count > 0 ? before : nil
        }
    }

    private func tellLeaked(_ run: Run) {
        report(.warning, .leakedBlocks, "\(run.count) blocks from \(run.first) on are marked as used, and nothing uses them", block: run.first)
    }

    private func tellUnmarked(_ run: Run) {
        report(.error, .unmarkedBlocks, "\(run.count) blocks from \(run.first) on are in use and marked as free", block: run.first)
    }

    /// A counter that agrees with the bitmap is not wrong by itself where the bitmap is: that has been said.
    private func checkCounters(_ number: Int, _ group: CheckedGroup, _ start: UInt64, markedFree: Int) {
        let free = CheckedGroup.words * 64 - group.usedCount
        if !blocksUnknown && free != group.freeBlocks && markedFree != group.freeBlocks {
            report(.warning, .groupCounter, "group \(number) has \(free) free blocks and says \(group.freeBlocks)", block: start)
        }
        var inUse = 0
        for index in 0..<group.recordCount {
            guard let record = unsafe group.record(index) else { continue }
            if unsafe record.pointee.isUnknown { return }
            if unsafe record.pointee.type != 0 { inUse += 1 }
        }
        let freeInodes = geometry.inodesPerGroup - inUse
        if freeInodes != group.freeInodes {
            report(.warning, .groupCounter, "group \(number) has \(freeInodes) free inodes and says \(group.freeInodes)", block: start)
        }
    }
}
