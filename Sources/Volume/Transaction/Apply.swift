import CSystem

/// The one place that changes frames, headers and state tables: `apply` of a published operation record.
///
/// Idempotent: doing any prefix of it, dying, rebuilding the private structures from the headers and doing all of it again
/// gives the same memory. It reads nothing but the record, the batch and the frames.
extension Volume {
    func applyPublished() {
        let head = unsafe Bytes(region.record, count: Region.Layout.record, writable: false)
        let sequence = head.u64(RecordLayout.sequenceAt)
        // Frames that the batch's entries will find come first in the record.
        let rest = applyMetadataFrames(head)
        applyBatch(head, sequence)
        applyActions(head, sequence, from: rest)
        let batch = head.u32(RecordLayout.batchAt)
        region.store(batch == 0 ? .batchLength0 : .batchLength1, head.u64(RecordLayout.toAt))
        step()
        region.store(batch == 0 ? .batchEntries0 : .batchEntries1, head.u64(RecordLayout.entriesAt))
        step()
        dashfs_release_fence()
        region.store(.applied, head.u64(RecordLayout.numberAt))
        step()
    }

    /// Between any two stores of `apply` a test may end the process here.
    @inline(__always) private func step() {
        applySteps &+= 1
        if applySteps == abortAtStep { abortHook?() }
    }

    private func actionsEnd(_ head: Bytes) -> Int { RecordLayout.actionsAt + Int(head.u64(RecordLayout.lengthAt)) }

    /// Where the other actions begin.
    private func applyMetadataFrames(_ head: Bytes) -> Int {
        var at = RecordLayout.actionsAt
        let end = actionsEnd(head)
        while at < end, head.u32(at) == RecordLayout.Action.metadataFrame {
            applyMetadataFrame(Int(head.u64(at + 8)), head.u64(at + 16))
            at += Int(head.u32(at + 4))
        }
        return at
    }

    private func applyActions(_ head: Bytes, _ sequence: UInt64, from start: Int) {
        var at = start
        let end = actionsEnd(head)
        while at < end {
            let length = Int(head.u32(at + 4))
            switch head.u32(at) {
            case RecordLayout.Action.state:
                let offset = Int(head.u64(at + 8))
                unsafe (region.state + offset).copyMemory(from: head.pointer + at + 16, byteCount: length - 16)
                step()
            case RecordLayout.Action.publish:
                applyPublish(
                    frame: Int(head.u64(at + 8)), owner: head.u64(at + 16), index: head.u64(at + 24), block: head.u64(at + 32),
                    flags: UInt8(truncatingIfNeeded: head.u64(at + 40)))
            case RecordLayout.Action.writeback:
                applyWriteback(frame: Int(head.u64(at + 8)), block: head.u64(at + 16), ordered: head.u64(at + 24) == 1, sequence)
            case RecordLayout.Action.drop: applyDrop(owner: head.u64(at + 8), first: head.u64(at + 16), last: head.u64(at + 24))
            default: break
            }
            at += length
        }
    }

    /// A frame for a metadata block that has none, or a copy for one that is being written.
    private func applyMetadataFrame(_ frame: Int, _ block: UInt64) {
        let present = cache.find(0, block)
        if present == frame { return }
        var header = FrameHeader.empty
        header.index = block
        header.block = block
        header.state = .dirty
        if present >= 0 {
            unsafe cache.pointer(frame).copyMemory(from: cache.pointer(present), byteCount: BlockLayout.size)
            step()
            detachWriting(present)
        }
        step()
        cache.enter(frame, header)
        step()
    }

    private func applyBatch(_ head: Bytes, _ sequence: UInt64) {
        let from = Int(head.u64(RecordLayout.fromAt))
        let to = Int(head.u64(RecordLayout.toAt))
        let base = unsafe region.batch(Int(head.u32(RecordLayout.batchAt))) + JournalLayout.headerSize
        var at = from
        while at < to {
            let word = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: at, as: UInt64.self))
            let address = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self))
            let (kind, flags, length) = (UInt8(truncatingIfNeeded: word), UInt8(truncatingIfNeeded: word >> 8), Int(word >> 32))
            at += JournalLayout.entryHeaderSize
            switch kind {
            case JournalLayout.Kind.image:
                let frame = cache.find(0, address)
                if frame >= 0 {
                    if flags == JournalLayout.freshFlag { unsafe cache.pointer(frame).copyMemory(from: base + at, byteCount: BlockLayout.size) }
                    changed(frame, sequence)
                }
                at += BlockLayout.size
            case JournalLayout.Kind.delta:
                let frame = cache.find(0, address / UInt64(BlockLayout.size))
                if frame >= 0 {
                    unsafe (cache.pointer(frame) + Int(address % UInt64(BlockLayout.size))).copyMemory(from: base + at, byteCount: length)
                    changed(frame, sequence)
                }
                at += (length + 7) & ~7
            case JournalLayout.Kind.free:
                if flags == JournalLayout.metadataFlag {
                    for block in address..<address + UInt64(length) { forget(cache.find(0, block)) }
                }
            default: at += BlockLayout.size
            }
            step()
        }
    }

    /// A metadata frame differs from its home from this record on.
    private func changed(_ frame: Int, _ sequence: UInt64) {
        unsafe cache.headers[frame].lastSequence = sequence
        cache.enterCheckpoint(frame, sequence: sequence, renew: false)
        unsafe cache.headers[frame].state = .dirty
    }

    private func applyPublish(frame: Int, owner: UInt64, index: UInt64, block: UInt64, flags: UInt8) {
        let present = cache.find(owner, index)
        if present == frame && journal.bug != .appliedStepsAreDoneAgain { return }
        var header = FrameHeader.empty
        header.owner = owner
        header.index = index
        header.block = block
        header.state = .dirty
        header.flags = flags | FrameFlag.needsWriteback
        if present >= 0 {
            // The journal's image of the old content stays needed until the new content is in the journal or at home. Both words are in
            // the new frame's header before the old frame goes: whoever finishes this after a death finds them there.
            let old = cache.header(present)
            unsafe cache.headers[frame].lastSequence = old.lastSequence
            if old.imageSequence == 0 || journal.bug != .replacedImagesAreForgotten { cache.succeedInCheckpoint(frame, present) }
            step()
            if old.state == .writing { detachWriting(present) } else { cache.release(present) }
            step()
        }
        header.lastSequence = cache.header(frame).lastSequence
        header.imageSequence = cache.header(frame).imageSequence
        cache.enter(frame, header)
        step()
        cache.setNeedsWriteback(frame, true)
        step()
    }

    private func applyWriteback(frame: Int, block: UInt64, ordered: Bool, _ sequence: UInt64) {
        unsafe cache.headers[frame].block = block
        unsafe cache.headers[frame].lastSequence = sequence
        cache.setNeedsWriteback(frame, false)
        unsafe cache.headers[frame].flags &= ~FrameFlag.reserved
        if ordered {
            unsafe cache.headers[frame].flags |= FrameFlag.ordered
        } else {
            cache.enterCheckpoint(frame, sequence: sequence, renew: true)
        }
        step()
    }

    private func applyDrop(owner: UInt64, first: UInt64, last: UInt64) {
        if last - first < UInt64(cache.count) {
            var index = first
            while index <= last {
                forget(cache.find(owner, index))
                index += 1
            }
        } else {
            for frame in 0..<cache.count {
                let header = cache.header(frame)
                if header.state != .empty && header.flags & FrameFlag.detached == 0 && header.owner == owner && header.index >= first
                    && header.index <= last
                {
                    forget(frame)
                }
            }
        }
        step()
    }

    /// The content of a frame is of no use to anyone any more.
    private func forget(_ frame: Int) {
        guard frame >= 0 else { return }
        switch cache.header(frame).state {
        case .writing:
            cache.leaveCheckpoint(frame)
            cache.setNeedsWriteback(frame, false)
            detachWriting(frame)
        case .filling:
            // The fill's completion finds it detached and frees it.
            cache.detach(frame)
        default:
            cache.release(frame)
        }
    }

    /// Takes a frame that is on its way home out of the index; its completion frees it.
    private func detachWriting(_ frame: Int) {
        let header = cache.header(frame)
        detachedImages.append(DetachedImage(frame: frame, block: header.block, sequence: header.imageSequence == 0 ? .max : header.imageSequence))
        cache.setNeedsWriteback(frame, false)
        cache.leaveCheckpoint(frame)
        cache.detach(frame)
    }
}
