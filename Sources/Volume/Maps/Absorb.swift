/// What programs have stored into a mapped file becomes the volume's, as by write(2): no kernel interface tells of it, so pages are compared with their sums.
extension Volume {
    /// Pages that one step compares, and how many of the pages that nobody ever touched it passes.
    private static let compareStep = 256
    private static let passStep = 65_536

    /// One step. True: nothing is left of what there was in pages `range` when the pass began; `Progress.absorbed` says where it is.
    ///
    /// A page is copied once, and the copy is what is compared and written: a program may store into it meanwhile, and the next pass finds that.
    func absorb(_ number: UInt64, within range: Range<UInt64> = 0..<UInt64.max, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Bool {
        guard !isReadOnly, let mapped = mappedFiles[number], mapped.isWritable, !mapped.isBroken else {
            tx.nextProgress.absorbed = .max
            return true
        }
        try requireUntouched(number, tx)
        tx.isAbsorbing = true
        let buffer = unsafe mapBuffer
        let size = liveSize(try inode(number, tx), tx)
        let end = min(Volume.pages(size), UInt64(mapped.sums.count), range.upperBound)
        var page = max(progress.absorbed, range.lowerBound)
        var (compared, passed, taken) = (0, 0, 0)
        // Up to here the memory has never been touched.
        var untouched: UInt64 = 0
        while page < end && compared < Volume.compareStep && passed < Volume.passStep && taken < transferStep {
            let known = mapped.sums[Int(page)]
            if known == zeroSum, page * Volume.pageSize >= untouched { untouched = mapped.memory.nextData(from: page * Volume.pageSize) }
            if known == PageSum.absent || known == zeroSum && (page + 1) * Volume.pageSize <= untouched {
                passed += 1
                page += 1
                continue
            }
            let count = Int(min(Volume.pageSize, size - page * Volume.pageSize))
            let got = unsafe max(0, min(mapped.memory.read(into: buffer, at: page * Volume.pageSize, count: count), count))
            unsafe (buffer + got).initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size - got)
            let sum = unsafe PageSum.of(buffer)
            compared += 1
            mapped.compared += 1
            if sum != known {
                let root = Credentials(user: 0, group: 0)
                _ = unsafe try writeBytes(try inode(number, tx), offset: page * Volume.pageSize, from: buffer, count: UInt64(count), credentials: root, tx)
                tx.absorbed.append(AbsorbedPage(inode: number, page: page, sum: sum))
                taken += 1
            }
            page += 1
        }
        tx.nextProgress.absorbed = page >= end ? .max : page
        return page >= end
    }

    /// The pages that bytes [offset, offset + length) of a file lie in.
    static func pages(of request: Request) throws(Stop) -> Range<UInt64> {
        let (last, overflow) = UInt64(bitPattern: request.offset).addingReportingOverflow(request.length)
        guard request.offset >= 0, !overflow, last <= UInt64(Int64.max) else { throw .errno(Errno.invalid) }
        return UInt64(request.offset) / pageSize..<pages(last)
    }

    /// The steps that a request begins with that names an inode and bytes of it. nil: they are done.
    private func absorbNamed(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome? {
        let range = try Volume.pages(of: request)
        guard mappedFiles[request.argument] != nil else { return Outcome(0) }
        if progress.absorbed == .max { return nil }
        _ = try absorb(request.argument, within: range, progress, tx)
        return .more
    }

    /// munmap(2) of a map that was for writing: what was stored there is the file's from now on, and its time is that.
    func released(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        if let outcome = try absorbNamed(request, progress, tx) { return outcome }
        nextMapCheck = 0
        return Outcome(0)
    }

    /// msync(2) of a map of this inode, whose descriptor may have been closed long ago.
    func syncMap(_ request: Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        if let outcome = try absorbNamed(request, progress, tx) { return outcome }
        return try syncStep(request.argument, dataOnly: true, progress, tx)
    }

    /// The lowest mapped file at or after `number` that programs may have stored into.
    func nextStored(_ number: UInt64) -> UInt64? {
        var lowest: UInt64?
        for (inode, mapped) in mappedFiles where inode >= number && mapped.isWritable && inode < lowest ?? .max { lowest = inode }
        return lowest
    }
}
