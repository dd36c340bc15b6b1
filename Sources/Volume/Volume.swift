import BlockDevice

/// The file system: one mounted volume on one device queue.
///
/// Deterministic: the same requests, completions, clock readings and seeds give the same bytes. One thread calls it; it never blocks and
/// never calls back. Where to start reading: `Engine/Engine.swift` (the life of a request), `Transaction/` (how anything
/// changes), `Journal/` (how it lasts), `Operations/` (what POSIX asks for).
@safe public final class Volume {
    public struct Configuration: Sendable {
        /// Cache frames of 4 KiB; at least 64.
        public var cacheFrames: Int = 131_072
        /// Rows of the state tables: in-core inodes, open descriptions, record locks.
        public var coreInodes = 65_536
        public var descriptions = 65_536
        public var locks = 16_384
        /// What one session may hold of them (EMFILE, ENOLCK): no client takes the tables from the others, and releasing all locks of one fits into a
        /// transaction.
        public var descriptionsPerSession = 16_384
        public var locksPerSession = 1_000
        /// Changes reach the device at most this long after they were acknowledged.
        public var commitIntervalNanoseconds: UInt64 = 5_000_000_000
        public var readOnly = false
        /// Makes the memory that a mapped file lives in; nil: files cannot be mapped.
        public var fileMemory: (@Sendable () -> (any FileMemory)?)?
        /// How many files may be mapped at once, and how many of their pages.
        public var mappedFiles = 4_096
        public var mappedPages = 1 << 20
        /// What the programs of one user may have of them; of root, all.
        public var mappedFilesPerUser = 2_048
        public var mappedPagesPerUser = 1 << 19
        /// A device that wants to know is told which blocks are free again.
        public var discard = true
        /// Blocks: shorter runs are not worth a request; 64 KiB, and one for tests that want many.
        package var smallestDiscard = 16
        /// Slots a tree node takes before it splits; less than what fits is for tests that want deep trees on small volumes.
        public var treeFanout = Node.maximumSlots
        /// Secret of this mount, from a good generator: forged journal records in file data do not know it.
        public var nonce: UInt64 = 0
        /// For tests of the tests.
        package var plantedBug = PlantedBug.none
        public init() {}
    }

    /// Something that the owner of the volume should know.
    public struct Note: Sendable, CustomStringConvertible {
        public enum Kind: Sendable {
            /// How it came up.
            case event
            /// Something is wrong, and the volume goes on.
            case problem
            /// It writes no more.
            case end
        }
        public var kind: Kind
        public var text: String
        public var description: String { text }
    }

    /// Wall clock handed in by the caller before `submit` and `poll`: nanoseconds since 1970 for timestamps, and a
    /// monotonic reading for intervals.
    public struct Clock: Sendable {
        public var wall: Int64
        public var monotonic: UInt64
        public init(wall: Int64, monotonic: UInt64) {
            self.wall = wall
            self.monotonic = monotonic
        }
    }

    public var clock = Clock(wall: 0, monotonic: 0)
    /// What went wrong inside, newest last: damaged blocks, failed writes. For the server's log.
    public private(set) var notes: [Note] = []
    private var told: Set<String> = []
    /// True from the first failure that makes writing a guess.
    public internal(set) var isReadOnly: Bool
    /// Why it is so; nil while it is not.
    public internal(set) var readOnlyReason: String?

    let configuration: Configuration
    let capabilities: DeviceCapabilities
    let queue: any DeviceQueue
    let geometry: Geometry
    var superblock: Superblock
    let region: Region
    let cache: Cache
    let transaction: Transaction

    // Space.
    let groups: UnsafeMutablePointer<GroupSummary>
    var freeBlocks = 0
    var freeInodes = 0
    var reservedBlocks = 0
    var pinnedBlocks = 0
    var systemReserve: Int
    var heldFrees: [(sequence: UInt64, start: UInt64, count: UInt64)] = []
    var discards: Discards

    // State tables.
    let coreIndex: HashIndex
    /// (description, session) → the row of its share.
    let shareIndex: HashIndex
    var corePool: SlotPool
    var descriptionPool: SlotPool
    var lockPool: SlotPool
    var sessions: [SessionState] = []
    var freeSessions: [Int] = []
    /// No description at or above this slot has been used.
    var descriptionHighWater = 0
    /// Inodes whose in-core attributes or data are newer than the durable ones, and since when.
    var dirtySince = NumberTable<UInt64>()
    /// The same in the order of time. Each inode of `dirtySince` has its entry here or a write-back task; entries that `dirtySince` does not
    /// know any more are skipped.
    var dirtyQueue: [(inode: UInt64, since: UInt64)] = []
    var dirtyQueueHead = 0

    // Journal and I/O.
    var journal: Journal
    var checkpoint = Checkpoint()
    var pendingIOs: [PendingIO] = []
    var freeIOs: [Int] = []
    var directPieces: [DirectPiece] = []
    var segments: [DeviceSegment] = []
    var pendingOrdered: [(block: UInt64, frames: [UInt32], sequence: UInt64)] = []
    var detachedImages: [DetachedImage] = []
    var newMetadataFrames = List<NewMetadataFrame>()
    var imageStamp: [UInt32]
    var retryFlush = false

    // Hints and scratch that operations use; losing them loses nothing.
    /// By description slot.
    let readAhead: UnsafeMutablePointer<ReadAhead>
    let names = NameCache()
    let pathBuffers = PathBuffers()
    var escapeLength = 0
    var escapeSecond = false
    /// Inodes whose write-back failed: how often, and with what.
    var writebackErrors: [UInt64: (generation: UInt32, errno: Int32)] = [:]

    // Maps. Private: the memory is gone with the process.
    var mappedFiles: [UInt64: MappedFile] = [:]
    /// By session.
    var meetings: [UInt32: [MeetingGrant]] = [:]
    /// When they are looked at again.
    var nextMapCheck: UInt64 = 0
    /// One page, for what is read from their memory.
    let mapBuffer: UnsafeMutableRawPointer
    let zeroSum: UInt64

    // Engine.
    var engine = Engine()
    var journalStarved = false
    var framesStarved = false
    var isShuttingDown = false
    /// Inodes whose doomed extents could not be removed: nobody waits for that before the next mount tries again.
    var unreclaimable: Set<UInt64> = []
    /// Inodes whose write-back failed while the volume was coming to its end: that end is not an orderly one.
    var abandoned: Set<UInt64> = []
    /// Completions were taken that `advance` has not seen the consequences of.
    var needsPoll = false
    var cleanShutdownDone = false
    /// Makes the block access of this number, in an attempt of an operation, a miss, once. For tests.
    package var forceMissAt = -1
    /// Block accesses of the last attempt that ended without a miss, while misses are being forced: what a test iterates over.
    package internal(set) var lastAccesses = 0

    /// Levels of the deepest trees that grew here, of directories and of extents: tests assert that they have had deep ones.
    package internal(set) var deepestDirectory = 0
    package internal(set) var deepestExtents = 0
    /// Blocks of journal written since the mount.
    package var journalBlocksWritten: UInt64 { journal.head }

    // Test hook of Apply.swift: `abortHook` is called between two stores.
    package var applySteps = 0
    package var abortAtStep = -1
    package var abortHook: (() -> Void)?

    /// How much memory `init` wants.
    public static func regionSize(_ configuration: Configuration, journalBlocks: UInt64) -> Int {
        layout(configuration, journalBlocks: journalBlocks).size
    }

    static func layout(_ configuration: Configuration, journalBlocks: UInt64) -> Region.Layout {
        Region.Layout(
            frames: max(64, configuration.cacheFrames), inodes: max(64, configuration.coreInodes), descriptions: max(64, configuration.descriptions),
            locks: max(64, configuration.locks), batch: Int(min(max(journalBlocks / 4, 32), UInt64(JournalLayout.maximumBlocks))) * BlockLayout.size)
    }

    /// A volume over memory of `regionSize` bytes, zeroed. `Volume.mount` is the way in.
    init(
        superblock: Superblock, queue: any DeviceQueue, capabilities: DeviceCapabilities, memory: UnsafeMutableRawPointer,
        configuration: Configuration
    ) {
        self.superblock = superblock
        self.queue = queue
        self.capabilities = capabilities
        self.configuration = configuration
        geometry = Geometry(superblock)
        let layout = Volume.layout(configuration, journalBlocks: superblock.journalBlocks)
        region = unsafe Region(memory, layout: layout)
        cache = Cache(region)
        unsafe transaction = Transaction(cache: cache, geometry: geometry, volume: superblock.uuid.0, state: region.state)
        unsafe groups = .allocate(capacity: geometry.groupCount)
        unsafe groups.initialize(repeating: GroupSummary(freeBlocks: 0, freeInodes: 0), count: geometry.groupCount)
        coreIndex = HashIndex(capacity: layout.inodes)
        shareIndex = HashIndex(capacity: layout.descriptions)
        corePool = SlotPool(capacity: layout.inodes)
        descriptionPool = SlotPool(capacity: layout.descriptions)
        lockPool = SlotPool(capacity: layout.locks)
        unsafe readAhead = .allocate(capacity: layout.descriptions)
        unsafe readAhead.initialize(repeating: ReadAhead(), count: layout.descriptions)
        unsafe mapBuffer = .allocate(byteCount: BlockLayout.size, alignment: BlockLayout.size)
        unsafe mapBuffer.initializeMemory(as: UInt8.self, repeating: 0, count: BlockLayout.size)
        zeroSum = unsafe PageSum.of(mapBuffer)
        imageStamp = Array(repeating: 0, count: layout.frames)
        journal = Journal(ring: superblock.journalBlocks, batchCapacity: min(layout.batch, capabilities.maximumTransfer), firstSequence: superblock.firstSequence)
        journal.bug = configuration.plantedBug
        discards = Discards(isOff: !configuration.discard || !capabilities.supportsDiscard)
        isReadOnly = configuration.readOnly || capabilities.readOnly
        readOnlyReason = capabilities.readOnly ? "the device is read-only" : configuration.readOnly ? "it was mounted so" : nil
        systemReserve = min(max(Int(superblock.blockCount / 200), 64), 8192)
    }

    deinit {
        for group in 0..<geometry.groupCount { unsafe groups[group].pinned?.deallocate() }
        unsafe groups.deallocate()
        unsafe readAhead.deallocate()
        unsafe mapBuffer.deallocate()
        coreIndex.free()
        shareIndex.free()
        corePool.free()
        descriptionPool.free()
        lockPool.free()
    }

    /// Each is said once, however often what it tells is met again.
    func note(_ text: String, _ kind: Note.Kind = .problem) {
        guard told.count < 1000 || kind == .end, told.insert(text).inserted else { return }
        notes.append(Note(kind: kind, text: text))
    }

    /// A structure on the volume is not what it must be: said once in the notes, EUCLEAN to the caller.
    func damaged(_ what: String) -> Stop {
        note("damaged: \(what)")
        return .errno(Errno.damaged)
    }

    /// Nothing more is written: going on would be guessing what the device holds.
    func stopWriting(_ reason: String) {
        if isReadOnly { return }
        note("read-only from now on: \(reason)", .end)
        isReadOnly = true
        readOnlyReason = reason
        failWriters()
    }

    public var hasNotes: Bool { !notes.isEmpty }

    public func takeNotes() -> [Note] {
        defer { notes.removeAll() }
        return notes
    }

    var now: Timestamp {
        let (seconds, nanoseconds) = clock.wall.quotientAndRemainder(dividingBy: 1_000_000_000)
        return nanoseconds < 0
            ? Timestamp(seconds: seconds - 1, nanoseconds: UInt32(nanoseconds + 1_000_000_000))
            : Timestamp(seconds: seconds, nanoseconds: UInt32(nanoseconds))
    }
}
