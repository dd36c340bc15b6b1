/// A rule of the journal, of recovery or of `apply`, broken on purpose: what the tests' harnesses must find. `docs/RELIABILITY.md` lists the rules.
/// Invariant: nothing but a test sets one, and where a rule is looked at on the way of a request, the switch is asked only after the rule has said no.
package enum PlantedBug: String, Sendable, CaseIterable {
    case none
    /// A record goes out before the data that it points at has come home.
    case recordDoesNotWaitForData
    /// The data that a record points at is in the device's cache when the record goes out.
    case dataIsNotFlushed
    /// A record that no flush follows is written like any other block.
    case recordsAreNotForced
    /// The tail passes images of blocks that are dirty.
    case tailPassesDirtyBlocks
    /// The tail passes images of blocks whose home writes are not flushed.
    case tailPassesUnflushedWrites
    /// Content that was replaced before it came home does not hold the tail any more, though its successor is in no record.
    case replacedImagesAreForgotten
    /// Home writes are not flushed before the tail moves.
    case checkpointIsNotFlushed
    /// A block goes home before its records are durable.
    case homeBeforeRecord
    /// Records go over those that replay needs.
    case liveRecordsAreOverwritten
    /// What holds the tail of a full ring and has changed since waits for room in the ring.
    case fullRingWaitsForItself
    /// What goes home without its write-back brings bytes that the durable size does not cover.
    case unsyncedBytesGoBeyondTheEnd
    /// A newer tail counts as soon as blocks are home, before a record has carried it to the device.
    case newerTailCountsAtOnce
    /// The first change of a block since it was at home is logged without its image.
    case imagesAreNotLogged
    /// A frame under I/O is changed where it is.
    case framesChangeUnderWrites
    /// Freed blocks are given out before their record is durable.
    case freedBlocksAreReusedAtOnce
    /// Freed blocks are given out while a write to them is on its way.
    case freedBlocksAreReusedUnderWrites
    /// The device is told of freed blocks before their record is durable.
    case discardsBeforeDurable
    /// Blocks are given out while their discard is on its way.
    case discardedBlocksAreReusedAtOnce
    /// A write past the cache is not covered by the next flush.
    case directWritesAreNotFlushed
    /// A synchronous write past the cache ends before the record that makes its blocks the file's.
    case directWritesDoNotWaitForTheirFile
    /// Blocks are taken from a file while they are being written past the cache.
    case filesAreCutUnderDirectWrites
    /// Blocks whose data a live record holds are overwritten in place.
    case loggedDataIsOverwrittenInPlace
    /// The same for blocks that became unwritten extents.
    case retiredBlocksAreForgotten
    /// What a file has grown over is overwritten in place before the record with its new size is durable.
    case grownPagesAreWrittenInPlace
    /// Replay brings back blocks that were freed.
    case freesAreNotCollected
    /// A record is taken without its checksum.
    case checksumIsNotChecked
    /// A record need not name the checksum of the one before.
    case chainIsNotChecked
    /// A record that is missing below a durable one is the journal's end.
    case lostRecordIsTheEnd
    /// Records of another mount count.
    case otherMountsCount
    /// The shared memory changes before the record that says how is published.
    case appliesBeforePublishing
    /// The next server does not finish the record that was being applied.
    case adoptionSkipsTheRecord
    /// What the dead server had applied of it is applied again.
    case appliedStepsAreDoneAgain
    /// The memory of a mapped file does not follow what is written.
    case mirrorsAreForgotten
    /// fsync does not look for what programs have stored.
    case storesAreNotSynced
    /// A write of a part of a page forgets what a program has stored beside it.
    case writesForgetStores
}
