/// The operation record: what `apply` does to shared memory for one committed transaction, written before it is published.
///
///      0  u64 number            8 u32 batch buffer     12 u32 -
///     16  u64 batch from       24 u64 batch to         32 u64 entries in the batch after it
///     40  u64 journal sequence 48 u64 request token    56 i64 result
///     64  u64 bytes of actions
///    128  actions, each: u32 kind, u32 length (all of it, a multiple of 8), payload
enum RecordLayout {
    static let actionsAt = 128
    static let numberAt = 0
    static let batchAt = 8
    static let fromAt = 16
    static let toAt = 24
    static let entriesAt = 32
    static let sequenceAt = 40
    static let tokenAt = 48
    static let resultAt = 56
    static let lengthAt = 64

    enum Action {
        /// u64 offset in the state tables, then the row.
        static let state: UInt32 = 1
        /// u64 frame, owner, index, block, flags: the frame's content becomes that of (owner, index).
        static let publish: UInt32 = 2
        /// u64 frame, block, ordered: a data frame got its home, and is in the batch or on its way home.
        static let writeback: UInt32 = 3
        /// u64 owner, first, last: the cache forgets these.
        static let drop: UInt32 = 4
        /// u64 frame, block: a frame for a metadata block that is new, or whose present frame is being written. Before all other actions.
        static let metadataFrame: UInt32 = 5
    }
}

/// Appends actions to the record.
@safe struct RecordWriter {
    let record: Bytes
    var at = RecordLayout.actionsAt

    init(_ base: UnsafeMutableRawPointer) { unsafe record = Bytes(base, count: Region.Layout.record, writable: true) }

    static func room(_ payload: Int) -> Int { 8 + (payload + 7) & ~7 }

    mutating func words(_ kind: UInt32, _ a: UInt64, _ b: UInt64, _ c: UInt64 = 0, _ d: UInt64 = 0, _ e: UInt64 = 0) {
        record.set(at, kind)
        record.set(at + 4, UInt32(48))
        record.set(at + 8, a)
        record.set(at + 16, b)
        record.set(at + 24, c)
        record.set(at + 32, d)
        record.set(at + 40, e)
        at += 48
    }

    mutating func state(_ offset: Int, _ row: UnsafeRawPointer, _ length: Int) {
        record.set(at, RecordLayout.Action.state)
        record.set(at + 4, UInt32(16 + length))
        record.set(at + 8, UInt64(offset))
        unsafe record.copy(at + 16, from: row, length)
        at += 16 + length
    }
}
