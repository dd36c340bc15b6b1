/// What one run of an operation has read and wants to change. Nothing outside it changes until `Volume.commit`; dropping it is
/// forgetting it.
///
/// Invariants:
/// - a *cell* is a byte range that structures agree on (an inode, a tree node, a bitmap word group, a state-table row): it is staged whole,
///   cells never overlap, so a staged copy always wins over the frame;
/// - every read goes through here, so an operation sees its own changes;
/// - frames that were read are stamped with this attempt's number and are not evicted before it ends;
/// - the operation names the blocks it lacks in `missing` before it stops.
///
/// One object, reused by every attempt; `begin` makes it empty.
@safe final class Transaction {
    struct StagedCell {
        var address: UInt64
        var memory: Int
        var length: Int32
        /// Frame under the cell; -1: a fresh block, -2: a state table.
        var frame: Int32
    }
    struct Missing {
        /// 0: metadata.
        var owner: UInt64
        var index: UInt64
        var block: UInt64
        var kind: UInt8
        /// Frames to read ahead from the same run, this one included.
        var run: Int
    }
    struct Extent { var start: UInt64, count: UInt64 }
    struct FreedExtent { var start: UInt64, count: UInt64, isMetadata: Bool }
    /// A frame whose content the operation has prepared and that becomes the content of (owner, index).
    struct Publication { var frame: Int, owner: UInt64, index: UInt64, block: UInt64, flags: UInt8 }
    /// An existing data frame that is put into the journal record (`ordered` false), or written home before it (true).
    struct Writeback { var frame: Int, block: UInt64, ordered: Bool }
    struct GrownFile { var inode: UInt64, page: UInt64 }
    struct Drop { var owner: UInt64, first: UInt64, last: UInt64 }
    struct Cursor { var group: Int, block: Int, inodeWord: Int }
    struct GivenLock {
        var slot: Int
        var session: Int
    }

    struct CoreSlot { var inode: UInt64, slot: Int }

    static let freshFrame: Int32 = -1
    static let stateFrame: Int32 = -2
    static let maximumCells = 2048
    static let tableSize = 4096
    static let memorySize = 4 << 20

    let cache: Cache
    let geometry: Geometry
    let volume: UInt64
    let state: UnsafeMutableRawPointer
    private let cells: UnsafeMutablePointer<StagedCell>
    private let table: UnsafeMutablePointer<UInt32>
    private let tableStamp: UnsafeMutablePointer<UInt32>
    private let memory: UnsafeMutableRawPointer
    private(set) var cellCount = 0
    private var memoryUsed = 0
    private(set) var freshCount = 0
    /// Number of this attempt; 0 is never used.
    private(set) var stamp: UInt32 = 0

    /// The first frames that this attempt read: what a parked request pins.
    static let maximumTouched = 32
    private let touchedFrames: UnsafeMutablePointer<Int32>
    private(set) var touchedCount = 0
    private(set) var missing = List<Missing>(capacity: 256)
    /// What the operation stops for in place of missing blocks.
    var directTransfer: Volume.DirectTransfer?
    private(set) var freed = List<FreedExtent>()
    /// Blocks that a file keeps and whose bytes do not count any more.
    var retired = List<Extent>()
    /// Files whose durable size grows out of the middle of a page.
    var grown = List<GrownFile>()
    var publications = List<Publication>(capacity: 64)
    var writebacks = List<Writeback>(capacity: 64)
    var drops = List<Drop>()
    /// What mapped files' memory gets when it has been committed; pages that came from there; pages that keep, or give up, a block for stores to come; the file whose maps
    /// have ended (0: none).
    var mirrors = List<Mirror>()
    var absorbed = List<AbsorbedPage>()
    var keptPages = List<KeptPages>()
    var unmapped: UInt64 = 0
    /// The content comes from the memory of a mapped file.
    var isAbsorbing = false
    /// Change of the volume's free blocks and inodes, and of the blocks promised to delayed data.
    var freeBlocks = 0
    var freeInodes = 0
    var reserved = 0
    /// Slots taken from and given back to the state tables.
    var takenCores = 0
    var takenDescriptions = 0
    var takenLocks = 0
    /// Where the next searches for space begin: group, block, word of the inode bitmap (-1: as it was).
    var cursors = List<Cursor>()
    var newCores = List<CoreSlot>()
    var givenCores = List<CoreSlot>()
    /// Inodes whose in-core attributes became newer than the durable ones, or no longer are.
    var dirtied = List<UInt64>()
    var cleaned = List<UInt64>()
    /// Inodes whose data is to be pushed out.
    var flushes = List<UInt64>()
    var givenDescriptions = List<Int>()
    /// Rows of locks, and the indexes of the sessions that they count for (-1: one that has gone).
    var givenLocks = List<GivenLock>()
    /// Rows of shares (`Sharing.swift`) that came and went, -1: none; the latter with its hash.
    var shared = -1
    var unshared = (slot: -1, hash: UInt64(0))
    /// Takes effect with the commit: inodes to reclaim, the inode whose lock waiters are woken (0: none).
    var reclaims = List<UInt64>()
    var unlockedInode: UInt64 = 0
    /// Index of the session whose descriptions and locks this transaction takes or gives back.
    var holder = 0
    var nextProgress = Progress()
    /// Tests count accesses and force misses with this: number of block accesses so far, and the one that misses (-1: none).
    var accesses = 0
    var forcedMiss = -1
    var isInternal = false
    /// Whose request it is.
    var session = SessionID(rawValue: 0)

    init(cache: Cache, geometry: Geometry, volume: UInt64, state: UnsafeMutableRawPointer) {
        self.cache = cache
        self.geometry = geometry
        self.volume = volume
        unsafe self.state = state
        unsafe cells = .allocate(capacity: Transaction.maximumCells)
        unsafe table = .allocate(capacity: Transaction.tableSize)
        unsafe tableStamp = .allocate(capacity: Transaction.tableSize)
        unsafe tableStamp.initialize(repeating: 0, count: Transaction.tableSize)
        unsafe table.initialize(repeating: 0, count: Transaction.tableSize)
        unsafe memory = .allocate(byteCount: Transaction.memorySize, alignment: 4096)
        unsafe touchedFrames = .allocate(capacity: Transaction.maximumTouched)
    }

    deinit {
        unsafe cells.deallocate()
        unsafe table.deallocate()
        unsafe tableStamp.deallocate()
        unsafe memory.deallocate()
        unsafe touchedFrames.deallocate()
    }

    func begin() {
        stamp &+= 1
        if stamp == 0 {
            // After 2^32 attempts old stamps could be taken for this one.
            stamp = 1
            unsafe tableStamp.update(repeating: 0, count: Transaction.tableSize)
        }
        cellCount = 0
        memoryUsed = 0
        freshCount = 0
        touchedCount = 0
        (freeBlocks, freeInodes, reserved) = (0, 0, 0)
        (takenCores, takenDescriptions, takenLocks) = (0, 0, 0)
        accesses = 0
        unlockedInode = 0
        (shared, unshared) = (-1, (-1, 0))
        missing.removeAll()
        directTransfer = nil
        freed.removeAll()
        retired.removeAll()
        grown.removeAll()
        publications.removeAll()
        writebacks.removeAll()
        drops.removeAll()
        mirrors.removeAll()
        absorbed.removeAll()
        keptPages.removeAll()
        unmapped = 0
        isAbsorbing = false
        cursors.removeAll()
        newCores.removeAll()
        givenCores.removeAll()
        givenDescriptions.removeAll()
        givenLocks.removeAll()
        dirtied.removeAll()
        cleaned.removeAll()
        flushes.removeAll()
        reclaims.removeAll()
    }

    /// Forgets everything staged. Frames prepared for publication go back.
    func drop() {
        for number in publications.indices { cache.release(publications[number].frame) }
        publications.removeAll()
    }

    /// True where committing would change nothing.
    var isEmpty: Bool {
        cellCount == 0 && publications.isEmpty && writebacks.isEmpty && drops.isEmpty && freed.isEmpty
    }

    /// Bytes of all staged cells.
    var stagedSize: Int { memoryUsed }

    /// Whose row `slot` was, of the rows that this transaction frees; 0: none of them.
    func givenCoreInode(slot: Int) -> UInt64 {
        for number in givenCores.indices where givenCores[number].slot == slot { return givenCores[number].inode }
        return 0
    }

    func staged(_ number: Int) -> StagedCell { unsafe cells[number] }
    func stagedPointer(_ number: Int) -> UnsafeMutableRawPointer { unsafe memory + cells[number].memory }

    // MARK: Staged cells

    @inline(__always) private func position(_ address: UInt64) -> Int {
        Int(truncatingIfNeeded: (address &* 0x9E37_79B9_7F4A_7C15) >> 52)
    }

    /// Number of the staged cell at this address, or -1.
    @inline(__always) private func find(_ address: UInt64) -> Int {
        if cellCount == 0 { return -1 }
        var position = position(address)
        while unsafe tableStamp[position] == stamp {
            let number = unsafe Int(table[position])
            if unsafe cells[number].address == address { return number }
            position = (position &+ 1) & (Transaction.tableSize - 1)
        }
        return -1
    }

    private func stage(_ address: UInt64, length: Int, frame: Int32) throws(Stop) -> Bytes {
        // The static bounds of operations keep them far below this; a hostile image cannot push them over it.
        guard cellCount < Transaction.maximumCells, memoryUsed + length <= Transaction.memorySize else { throw .errno(Errno.damaged) }
        var position = position(address)
        while unsafe tableStamp[position] == stamp { position = (position &+ 1) & (Transaction.tableSize - 1) }
        unsafe tableStamp[position] = stamp
        unsafe table[position] = UInt32(cellCount)
        unsafe cells[cellCount] = StagedCell(address: address, memory: memoryUsed, length: Int32(length), frame: frame)
        let bytes = unsafe Bytes(memory + memoryUsed, count: length, writable: true)
        cellCount += 1
        memoryUsed += (length + 15) & ~15
        return bytes
    }

    private func stagedBytes(_ number: Int) -> Bytes {
        unsafe Bytes(memory + cells[number].memory, count: Int(cells[number].length), writable: true)
    }

    @inline(__always) private func noteTouch(_ frame: Int) {
        guard cache.touch(frame, stamp: stamp), touchedCount < Transaction.maximumTouched else { return }
        unsafe touchedFrames[touchedCount] = Int32(truncatingIfNeeded: frame)
        touchedCount &+= 1
    }

    func touched(_ number: Int) -> Int { unsafe Int(touchedFrames[number]) }

    // MARK: Metadata blocks

    /// The frame of a metadata block, or a miss.
    @inline(__always) private func frame(_ block: UInt64, kind: UInt8) throws(Stop) -> Int {
        let frame = cache.find(0, block)
        if forcedMiss >= 0 {
            accesses += 1
            if accesses - 1 == forcedMiss { throw .missing }
        }
        if unsafe frame < 0 || cache.headers[frame].state == .filling {
            guard block < geometry.blockCount else { throw .errno(Errno.damaged) }
            missing.append(Missing(owner: 0, index: block, block: block, kind: kind, run: 1))
            throw .missing
        }
        noteTouch(frame)
        if unsafe cache.pointer(frame).load(fromByteOffset: BlockLayout.kindAt, as: UInt8.self) != kind { throw .errno(Errno.damaged) }
        return frame
    }

    /// [offset, offset + length) of a metadata block.
    @inline(__always) func read(_ block: UInt64, kind: UInt8, offset: Int = 0, length: Int = BlockLayout.size) throws(Stop) -> Bytes {
        let address = block &* UInt64(BlockLayout.size) &+ UInt64(offset)
        let number = find(address)
        if number >= 0 { return stagedBytes(number) }
        if freshCount > 0 && offset != 0 {
            let whole = find(block &* UInt64(BlockLayout.size))
            if whole >= 0 { return stagedBytes(whole).slice(offset, length) }
        }
        let frame = try frame(block, kind: kind)
        return unsafe Bytes(cache.pointer(frame) + offset, count: length, writable: false)
    }

    /// The same, to be changed.
    func write(_ block: UInt64, kind: UInt8, offset: Int = 0, length: Int = BlockLayout.size) throws(Stop) -> Bytes {
        let address = block &* UInt64(BlockLayout.size) &+ UInt64(offset)
        let number = find(address)
        if number >= 0 { return stagedBytes(number) }
        if freshCount > 0 && offset != 0 {
            let whole = find(block &* UInt64(BlockLayout.size))
            if whole >= 0 { return stagedBytes(whole).slice(offset, length) }
        }
        let frame = try frame(block, kind: kind)
        let bytes = try stage(address, length: length, frame: Int32(frame))
        unsafe bytes.copy(0, from: cache.pointer(frame) + offset, length)
        return bytes
    }

    /// A block that was just allocated, as a metadata block of zeros with its header.
    func fresh(_ block: UInt64, kind: UInt8, owner: UInt64) throws(Stop) -> Bytes {
        let bytes = try stage(block &* UInt64(BlockLayout.size), length: BlockLayout.size, frame: Transaction.freshFrame)
        bytes.zero(0, BlockLayout.size)
        BlockLayout.initialize(bytes, address: block, kind: kind, owner: owner, volume: volume)
        freshCount += 1
        return bytes
    }

    /// Blocks go back to the free space when the record of this change is durable.
    func free(_ start: UInt64, _ count: UInt64, isMetadata: Bool) {
        freed.append(FreedExtent(start: start, count: count, isMetadata: isMetadata))
    }

    // MARK: State tables

    @inline(__always) func readState(_ offset: Int, length: Int) -> Bytes {
        let number = find(StateAddress.bit | UInt64(offset))
        if number >= 0 { return stagedBytes(number) }
        return unsafe Bytes(state + offset, count: length, writable: false)
    }

    func writeState(_ offset: Int, length: Int) throws(Stop) -> Bytes {
        let address = StateAddress.bit | UInt64(offset)
        let number = find(address)
        if number >= 0 { return stagedBytes(number) }
        let bytes = try stage(address, length: length, frame: Transaction.stateFrame)
        unsafe bytes.copy(0, from: state + offset, length)
        return bytes
    }

    // MARK: File data

    /// The frame that holds block `index` of the file, valid for reading, or -1 where the cache has none.
    /// A fill under way is a miss.
    @inline(__always) func data(_ inode: UInt64, _ index: UInt64) throws(Stop) -> Int {
        if forcedMiss >= 0 {
            accesses += 1
            if accesses - 1 == forcedMiss { throw .missing }
        }
        let frame = cache.find(inode, index)
        if frame < 0 { return -1 }
        if unsafe cache.headers[frame].state == .filling {
            missing.append(Missing(owner: inode, index: index, block: 0, kind: 0, run: 1))
            throw .missing
        }
        noteTouch(frame)
        return frame
    }

    func miss(_ inode: UInt64, _ index: UInt64, block: UInt64, run: Int) {
        missing.append(Missing(owner: inode, index: index, block: block, kind: 0, run: run))
    }

    /// An empty frame to prepare content in; `publications` must get it before anything can throw.
    func newFrame() throws(Stop) -> Int {
        guard let frame = cache.allocate(stamp: stamp) else { throw .frames }
        return frame
    }
}
