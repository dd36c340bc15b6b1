/// Each rule of the journal, of recovery and of `apply` is broken in turn, and a harness must find it: so each rule is needed, and each harness looks.
import BlockDevice
import TestSupport
import Testing
import Volume

@Suite struct PlantedBugTests {
    /// What the harness for this rule finds with the bug, nil: nothing.
    private static func hunt(_ bug: PlantedBug) throws -> String? {
        switch bug {
        case .none: nil
        case .lostRecordIsTheEnd: try JournalTests.damagedRecord(bug)
        case .chainIsNotChecked: try JournalTests.replacedRecord(bug)
        case .otherMountsCount: try JournalTests.recordOfAnotherMount(bug)
        case .retiredBlocksAreForgotten: try JournalTests.smallWriteThenZeroedThenWritten(atomic: 512, bug)
        case .grownPagesAreWrittenInPlace: try HolesTests.grownThenOverwritten(direct: false, bug) == nil ? nil : HolesTests.grownThenOverwritten(direct: true, bug)
        case .loggedDataIsOverwrittenInPlace: try JournalTests.smallWriteAtHomeThenOverwrite(bug)
        case .liveRecordsAreOverwritten: try JournalTests.ringGoesRound(bug)
        case .newerTailCountsAtOnce: try JournalTests.largeRecordInAFullRing(bug)
        case .replacedImagesAreForgotten: try JournalTests.syncedWriteThenReplaced(bug)
        case .fullRingWaitsForItself: try JournalTests.fullRingMakesRoom(bug) == nil ? nil : JournalTests.fullRingMakesRoom(bug, unmounting: true)
        case .unsyncedBytesGoBeyondTheEnd: try JournalTests.cutsWhileAFullRingMakesRoom(bug)
        case .appliedStepsAreDoneAgain: try JournalTests.syncedWriteThenReplacedAndAdopted(bug)
        case .freedBlocksAreReusedUnderWrites: try JournalTests.freedUnderAWrite(bug, discards: false) == nil ? nil : JournalTests.freedUnderAWrite(bug, discards: true)
        case .discardedBlocksAreReusedAtOnce: try DiscardTests.writtenWhileBeingDiscarded(bug)
        case .directWritesDoNotWaitForTheirFile: try DirectWriteTests.synchronousBeforeItsFileIsDurable(bug)
        case .filesAreCutUnderDirectWrites: try DirectWriteTests.cutUnderAWrite(bug)
        case .mirrorsAreForgotten: try MappedFilesTests.mixture(1, bug: bug)
        case .storesAreNotSynced: try maps(bug)
        case .writesForgetStores: try MappedFilesTests.storeBesideAWrite(bug)
        case .discardsBeforeDurable, .recordsAreNotForced: try crash(bug, audits: false)
        case .appliesBeforePublishing, .adoptionSkipsTheRecord: try adopt(bug)
        default: try crash(bug)
        }
    }

    private static func crash(_ bug: PlantedBug, audits: Bool = true) throws -> String? {
        for seed in CrashTests.seeds {
            if let problem = try CrashTests.hunt(seed, states: 250, bug: bug, audits: audits) { return problem }
        }
        return nil
    }

    private static func maps(_ bug: PlantedBug) throws -> String? {
        for seed in 1...10 as ClosedRange<UInt64> {
            if let problem = try MappedFilesTests.cuts(seed, bug: bug) { return problem }
        }
        return nil
    }

    private static func adopt(_ bug: PlantedBug) throws -> String? {
        for seed in 1...4 as ClosedRange<UInt64> {
            if let problem = try AdoptTests.hunt(seed: seed, operations: 250, bug: bug).problem { return problem }
        }
        return nil
    }

    @Test(arguments: PlantedBug.allCases.filter { $0 != .none }) func everyBrokenRuleIsFound(bug: PlantedBug) throws {
        let found = try PlantedBugTests.hunt(bug)
        print("\(bug): \(found?.prefix(160) ?? "not found")")
        #expect(found != nil)
    }
}
