// Rewrites the call sites of the objects that the program starts with: checks everything, writes the slots, then activates the sites.
//
// Always true: a site is activated only after its slot is in place, and no site of an object is touched before all bytes of all its sites
// have been compared. Only one thread runs, so nobody stands in the middle of a window.
// The C library and ld.so have to be carried, or the program does not run. Any other object is carried as far as it can be.

import CPreload
import CSystem

enum Patcher {
    /// Nil when every site of the C library and its loader has been rewritten.
    static func rewriteCallSites(_ path: ProgramString?) -> Problem? {
        guard let path else { return .noTable }
        guard TableDirectory.start(path) else { return .unreadableTable(path) }
        var system = SystemObjects()
        unsafe LoadedObject.visit(&system) { object, _, system in
            if let system = unsafe system { unsafe system.assumingMemoryBound(to: SystemObjects.self).pointee.look(LoadedObject(object.pointee)) }
            return 0
        }
        if system.isDamaged { return .damagedTable(path) }
        guard system.areFound else { return TableDirectory.exists ? .otherLibrary(path) : .unreadableTable(path) }
        guard system.haveExpectedBytes else { return .otherBytes(path) }
        var others = OtherObjects(CodeWriter(rehearsingOn: Slots.unusedPage), settled: system.settled)
        guard others.writer.isUsable else { return .writeProtected(errno: others.writer.failure) }
        if let failure = system.rewrite(&others.writer) { return problem(failure, path, others.writer) }
        unsafe LoadedObject.visit(&others) { object, _, others in
            if let others = unsafe others { unsafe others.assumingMemoryBound(to: OtherObjects.self).pointee.rewrite(LoadedObject(object.pointee)) }
            return 0
        }
        return nil
    }

    /// ld.so alone, which is loaded at `address` (`EarlyInstance`): its sites are rewritten, or put back to what they were.
    static func changeLoader(at address: UInt64, _ path: ProgramString, restoring: Bool) -> Problem? {
        guard restoring || TableDirectory.start(path) else { return .unreadableTable(path) }
        let loaded = LoadedObject(headerAt: address)
        guard let identity = loaded.identity, var table = TableDirectory.table(identity) else {
            return TableDirectory.exists ? .otherLibrary(path) : .unreadableTable(path)
        }
        guard table.isWhole(for: identity), table.kind == .loader else { return .damagedTable(path) }
        var loader = RewrittenObject(table, at: loaded.address, code: loaded.codeBounds)
        var writer = CodeWriter(rehearsingOn: Slots.unusedPage)
        guard writer.isUsable else { return .writeProtected(errno: writer.failure) }
        if restoring { return loader.restore(&writer).flatMap { problem($0, path, writer) } }
        guard loader.hasExpectedBytes else { return .otherBytes(path) }
        return (loader.prepare(&writer) ?? loader.activate(&writer)).flatMap { problem($0, path, writer) }
    }

    private static func problem(_ failure: RewrittenObject.Failure, _ path: ProgramString, _ writer: borrowing CodeWriter) -> Problem {
        switch failure {
        case .noSlots: .tooManySites(path)
        case .outOfReach: .outOfReach
        case .notWritten: .partlyWritten(errno: writer.failure)
        }
    }
}

/// The C library and the loader, among the objects that are loaded.
private struct SystemObjects: ~Copyable {
    private var libc: RewrittenObject? = nil
    private var loader: RewrittenObject? = nil
    private(set) var isDamaged = false
    private(set) var haveExpectedBytes = true
    /// A bit for each of the first objects: it needs no second look.
    private(set) var settled: UInt64 = 0
    private var count: UInt64 = 0

    mutating func look(_ loaded: LoadedObject) {
        let bit: UInt64 = count < 64 ? 1 &<< count : 0
        count += 1
        // Both have build ids, and to know an object without one takes reading it.
        guard unsafe loaded.buildID != nil, let identity = loaded.identity else { return }
        guard var table = TableDirectory.table(identity) else {
            settled |= bit
            return Report.noteIfUncovered(loaded)
        }
        guard table.isWhole(for: identity) else { return isDamaged = true }
        let kind = table.kind
        if kind == .other { return }
        settled |= bit
        let object = RewrittenObject(table, at: loaded.address, code: loaded.codeBounds)
        if !object.hasExpectedBytes { haveExpectedBytes = false }
        if kind == .libc { libc = consume object } else { loader = consume object }
    }

    var areFound: Bool { libc != nil && loader != nil }

    mutating func rewrite(_ writer: inout CodeWriter) -> RewrittenObject.Failure? {
        if let failure = libc?.prepare(&writer) { return failure }
        if let failure = loader?.prepare(&writer) { return failure }
        if let failure = libc?.activate(&writer) { return failure }
        return loader?.activate(&writer)
    }
}

/// All others, one after the other.
private struct OtherObjects: ~Copyable {
    var writer: CodeWriter
    private let settled: UInt64
    private var count: UInt64 = 0

    init(_ writer: consuming CodeWriter, settled: UInt64) {
        self.writer = writer
        self.settled = settled
    }

    mutating func rewrite(_ loaded: LoadedObject) {
        defer { count += 1 }
        if count < 64, settled & (1 &<< count) != 0 { return }
        guard let identity = loaded.identity, var table = TableDirectory.table(identity), table.isWhole(for: identity) else {
            return Report.noteIfUncovered(loaded)
        }
        if table.kind != .other { return }
        var object = RewrittenObject(table, at: loaded.address, code: loaded.codeBounds)
        if object.hasExpectedBytes, object.prepare(&writer) == nil, object.activate(&writer) == nil { return }
        Report.noteIfUncovered(loaded)
    }
}
