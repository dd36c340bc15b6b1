import CSystem

/// The block cache: frames, their index, what may be evicted, and which frames the journal's tail waits for.
///
/// Invariants: a frame is in the index exactly when its state is not `empty` and it is not detached; the free list holds the empty
/// ones; the checkpoint list holds, oldest image first, every frame whose `imageSequence` is not 0. Headers and contents are
/// shared memory; everything else here is private and rebuilt from the headers.
@safe final class Cache {
    static let none = UInt32.max

    struct Private {
        /// Attempt that touched the frame last: it is not evicted under a running operation.
        var stamp: UInt32 = 0
        var pins: UInt32 = 0
        /// Counts the contents the frame has had: a pin of an earlier one is no pin.
        var content: UInt32 = 0
        /// Second chances left of the clock.
        var reference: UInt8 = 0
        var checkpointPrevious = Cache.none
        var checkpointNext = Cache.none
        var inCheckpointList = false
        var writebackPrevious = Cache.none
        var writebackNext = Cache.none
        var inWritebackList = false
    }

    let headers: UnsafeMutablePointer<FrameHeader>
    let frames: UnsafeMutableRawPointer
    let count: Int
    private let privates: UnsafeMutablePointer<Private>
    private let index: HashIndex
    private var freeList: SlotPool
    private var hand = 0
    private(set) var checkpointHead = Cache.none
    private var checkpointTail = Cache.none
    /// Frames with data that needs write-back; the reason for back-pressure.
    private(set) var needingWriteback = 0
    private(set) var checkpointCount = 0
    var hits: UInt64 = 0
    var misses: UInt64 = 0

    init(_ region: Region) {
        unsafe headers = region.headers
        unsafe frames = region.frames
        count = region.layout.frames
        unsafe privates = .allocate(capacity: count)
        unsafe privates.initialize(repeating: Private(), count: count)
        index = HashIndex(capacity: count)
        freeList = SlotPool(capacity: count)
    }

    deinit {
        unsafe privates.deallocate()
        index.free()
        freeList.free()
    }

    // MARK: Lookup

    @inline(__always) func header(_ frame: Int) -> FrameHeader { unsafe headers[frame] }
    @inline(__always) func pointer(_ frame: Int) -> UnsafeMutableRawPointer { unsafe frames + frame &* BlockLayout.size }
    @inline(__always) func pins(_ frame: Int) -> UInt32 { unsafe privates[frame].pins }

    /// The frame of (owner, index), in any state but empty, or -1.
    @inline(__always) func find(_ owner: UInt64, _ index: UInt64) -> Int {
        let headers = unsafe self.headers
        return self.index.find(HashIndex.hash(owner, index)) { unsafe headers[$0].index == index && headers[$0].owner == owner }
    }

    /// Marks the frame as used by attempt `stamp`. True where it was not yet.
    @inline(__always) func touch(_ frame: Int, stamp: UInt32) -> Bool {
        let fresh = unsafe privates[frame].stamp != stamp
        if fresh {
            unsafe privates[frame].stamp = stamp
            if unsafe privates[frame].reference < 3 { unsafe privates[frame].reference += 1 }
        }
        return fresh
    }

    /// Keeps the frame's content from being evicted (not from being replaced or dropped). The answer is what `unpin` wants back.
    func pin(_ frame: Int) -> UInt32 {
        unsafe privates[frame].pins += 1
        return unsafe privates[frame].content
    }
    func unpin(_ frame: Int, _ content: UInt32) {
        if unsafe privates[frame].content == content && privates[frame].pins > 0 { unsafe privates[frame].pins -= 1 }
    }

    // MARK: Frames

    var freeFrames: Int { freeList.available }

    /// A frame that holds nothing and is in no list, or nil where nothing can be evicted. `stamp`: the running attempt.
    func allocate(stamp: UInt32) -> Int? {
        if let frame = freeList.candidate(0) {
            freeList.take(1)
            unsafe privates[frame].reference = 0
            return frame
        }
        var looked = 0
        while looked < count * 4 {
            looked += 1
            let frame = hand
            hand = hand + 1 == count ? 0 : hand + 1
            guard unsafe headers[frame].state == .clean && privates[frame].pins == 0 && privates[frame].stamp != stamp
                && headers[frame].imageSequence == 0
            else { continue }
            if unsafe privates[frame].reference > 0 {
                unsafe privates[frame].reference -= 1
                continue
            }
            unindex(frame)
            unsafe headers[frame] = .empty
            return frame
        }
        return nil
    }

    /// Gives an allocated or indexed frame back.
    func release(_ frame: Int) {
        setNeedsWriteback(frame, false)
        leaveCheckpoint(frame)
        if unsafe headers[frame].state != .empty {
            if unsafe headers[frame].flags & FrameFlag.detached == 0 { unindex(frame) }
            unsafe headers[frame] = .empty
        }
        unsafe privates[frame].pins = 0
        unsafe privates[frame].content &+= 1
        freeList.give(frame)
    }

    /// Publishes the frame under its header's key.
    /// The state is stored last: a header that a dying process left half-written is an empty one.
    func enter(_ frame: Int, _ header: FrameHeader) {
        enterDetached(frame, header)
        index.insert(HashIndex.hash(header.owner, header.index), slot: frame)
    }

    /// The same for one that is not in the index.
    @inline(__always) func enterDetached(_ frame: Int, _ header: FrameHeader) {
        var unfinished = header
        unfinished.state = .empty
        unsafe headers[frame] = unfinished
        dashfs_release_fence()
        unsafe headers[frame].state = header.state
    }

    /// Takes the frame out of the index: it is being written and has been replaced.
    func detach(_ frame: Int) {
        unindex(frame)
        unsafe headers[frame].flags |= FrameFlag.detached
    }

    private func unindex(_ frame: Int) {
        let headers = unsafe self.headers
        unsafe index.remove(HashIndex.hash(headers[frame].owner, headers[frame].index), slot: frame) {
            unsafe HashIndex.hash(headers[$0].owner, headers[$0].index)
        }
    }

    // MARK: Lists

    /// Remembers that replay needs record `sequence` until this frame is home; a frame that already waits for an older image keeps its place
    /// unless `renew` says that the newer image replaces it.
    func enterCheckpoint(_ frame: Int, sequence: UInt64, renew: Bool) {
        if unsafe privates[frame].inCheckpointList {
            if !renew { return }
            leaveCheckpoint(frame)
        }
        unsafe headers[frame].imageSequence = sequence
        unsafe privates[frame].inCheckpointList = true
        unsafe privates[frame].checkpointPrevious = checkpointTail
        unsafe privates[frame].checkpointNext = Cache.none
        if checkpointTail != Cache.none {
            unsafe privates[Int(checkpointTail)].checkpointNext = UInt32(frame)
        } else {
            checkpointHead = UInt32(frame)
        }
        checkpointTail = UInt32(frame)
        checkpointCount += 1
    }

    /// A new version of the same block takes the old frame's place in the list.
    func succeedInCheckpoint(_ new: Int, _ old: Int) {
        guard unsafe privates[old].inCheckpointList else { return }
        let (previous, next) = unsafe (privates[old].checkpointPrevious, privates[old].checkpointNext)
        unsafe privates[new].checkpointPrevious = previous
        unsafe privates[new].checkpointNext = next
        unsafe privates[new].inCheckpointList = true
        unsafe headers[new].imageSequence = headers[old].imageSequence
        if previous != Cache.none { unsafe privates[Int(previous)].checkpointNext = UInt32(new) } else { checkpointHead = UInt32(new) }
        if next != Cache.none { unsafe privates[Int(next)].checkpointPrevious = UInt32(new) } else { checkpointTail = UInt32(new) }
        unsafe privates[old].inCheckpointList = false
        unsafe headers[old].imageSequence = 0
    }

    func leaveCheckpoint(_ frame: Int) {
        guard unsafe privates[frame].inCheckpointList else { return }
        let (previous, next) = unsafe (privates[frame].checkpointPrevious, privates[frame].checkpointNext)
        if previous != Cache.none { unsafe privates[Int(previous)].checkpointNext = next } else { checkpointHead = next }
        if next != Cache.none { unsafe privates[Int(next)].checkpointPrevious = previous } else { checkpointTail = previous }
        unsafe privates[frame].inCheckpointList = false
        unsafe headers[frame].imageSequence = 0
        checkpointCount -= 1
    }

    func nextInCheckpoint(_ frame: UInt32) -> UInt32 { unsafe privates[Int(frame)].checkpointNext }

    /// An inode's frames that need write-back, in the order they became dirty.
    struct DirtyList {
        var head = Cache.none
        var tail = Cache.none
        var count = 0
        /// Lowest index that joined since a write-back pass last took its list.
        var lowestNew = UInt64.max
    }
    private(set) var dirtyLists = NumberTable<DirtyList>()

    func setNeedsWriteback(_ frame: Int, _ value: Bool) {
        let member = unsafe privates[frame].inWritebackList
        if value == member { return }
        let (owner, index) = unsafe (headers[frame].owner, headers[frame].index)
        var list = dirtyLists[owner] ?? DirtyList()
        if value {
            unsafe headers[frame].flags |= FrameFlag.needsWriteback
            unsafe privates[frame].inWritebackList = true
            unsafe privates[frame].writebackPrevious = list.tail
            unsafe privates[frame].writebackNext = Cache.none
            if list.tail != Cache.none { unsafe privates[Int(list.tail)].writebackNext = UInt32(frame) } else { list.head = UInt32(frame) }
            list.tail = UInt32(frame)
            list.count += 1
            list.lowestNew = min(list.lowestNew, index)
            needingWriteback += 1
            dirtyLists[owner] = list
        } else {
            let (previous, next) = unsafe (privates[frame].writebackPrevious, privates[frame].writebackNext)
            if previous != Cache.none { unsafe privates[Int(previous)].writebackNext = next } else { list.head = next }
            if next != Cache.none { unsafe privates[Int(next)].writebackPrevious = previous } else { list.tail = previous }
            unsafe headers[frame].flags &= ~FrameFlag.needsWriteback
            unsafe privates[frame].inWritebackList = false
            list.count -= 1
            needingWriteback -= 1
            dirtyLists[owner] = list.count == 0 ? nil : list
        }
    }

    /// Indexes of the inode's frames that need write-back, ascending; a new pass begins.
    func takeDirtyIndexes(_ inode: UInt64, into indexes: inout [UInt64]) {
        indexes.removeAll(keepingCapacity: true)
        guard let list = dirtyLists[inode] else { return }
        var frame = list.head
        while frame != Cache.none {
            unsafe indexes.append(headers[Int(frame)].index)
            frame = unsafe privates[Int(frame)].writebackNext
        }
        indexes.sort()
        dirtyLists[inode] = DirtyList(head: list.head, tail: list.tail, count: list.count)
    }

    /// Frames of the inode from `first` to `last` that hold a reservation.
    func reservedFrames(_ inode: UInt64, from first: UInt64, to last: UInt64) -> Int {
        guard let list = dirtyLists[inode] else { return 0 }
        var count = 0
        var frame = list.head
        while frame != Cache.none {
            let header = unsafe headers[Int(frame)]
            if header.index >= first && header.index <= last && header.flags & FrameFlag.reserved != 0 { count += 1 }
            frame = unsafe privates[Int(frame)].writebackNext
        }
        return count
    }

    /// The lowest index, at or after `index`, of the inode's frames that need write-back.
    func nextDirtyIndex(_ inode: UInt64, from index: UInt64) -> UInt64? {
        guard let list = dirtyLists[inode] else { return nil }
        var lowest: UInt64?
        var frame = list.head
        while frame != Cache.none {
            let candidate = unsafe headers[Int(frame)].index
            if candidate >= index && candidate < lowest ?? .max { lowest = candidate }
            frame = unsafe privates[Int(frame)].writebackNext
        }
        return lowest
    }

    // MARK: Rebuilding

    /// Builds the private structures from the headers. Fills under way are lost with the process that asked for them, and so are writes,
    /// whose frames are dirty again; data on its way to fresh blocks stays on its way, for its record waits for it.
    /// - Parameter kept: frames that a record names which is published and not applied: neither free nor used.
    func rebuild(keeping kept: Set<Int> = []) {
        index.removeAll()
        freeList.removeAll()
        unsafe privates.update(repeating: Private(), count: count)
        (checkpointHead, checkpointTail) = (Cache.none, Cache.none)
        dirtyLists.removeAll()
        (needingWriteback, checkpointCount, hand) = (0, 0, 0)
        var withImage: [(sequence: UInt64, frame: Int)] = []
        for frame in (0..<count).reversed() {
            let header = unsafe headers[frame]
            let isUsed = header.state != .empty && header.state != .filling
            if isUsed && header.flags & FrameFlag.detached != 0 && header.flags & FrameFlag.ordered != 0 { continue }
            if !isUsed || header.flags & FrameFlag.detached != 0 {
                if kept.contains(frame) { continue }
                unsafe headers[frame] = .empty
                freeList.give(frame)
                continue
            }
            index.insert(HashIndex.hash(header.owner, header.index), slot: frame)
            if header.state == .writing && header.flags & FrameFlag.ordered == 0 { unsafe headers[frame].state = .dirty }
            if header.owner != 0 && header.flags & FrameFlag.needsWriteback != 0 { setNeedsWriteback(frame, true) }
            // Neither waiting for write-back nor in the journal: it had just come home when the process died.
            if header.imageSequence == 0 && header.flags & (FrameFlag.needsWriteback | FrameFlag.ordered) == 0 {
                unsafe headers[frame].state = .clean
            }
            if header.imageSequence != 0 { withImage.append((header.imageSequence, frame)) }
        }
        withImage.sort { ($0.sequence, $0.frame) < ($1.sequence, $1.frame) }
        for entry in withImage { enterCheckpoint(entry.frame, sequence: entry.sequence, renew: false) }
    }
}
