// The tables of this machine's objects, in a directory that programs are told of in DASHFS_SITES: each made once, and found by the object's identity.
//
// Always made: those of the C library and the loader that this very process runs on. Then those of all libraries that ldconfig(8) knows, again when it has run again; and of the
// command's own objects. A library that is none of these (a plug-in, say, in a directory of its own) has a table once it has been seen by `dashfs run --report`.
// Files come into being by rename, so concurrent runs are harmless. An object that changes has another identity.

import Glibc

package struct SiteTableCache {
    /// The environment variable by which the path of the directory travels to programs and their children.
    package static let environmentName = "DASHFS_SITES"

    package let directory: String

    package init(_ cacheDirectory: String) {
        directory = "\(cacheDirectory)/sites-\(String(SiteTableCache.selection, radix: 16))"
    }

    /// Other calls to catch, or another format: other tables.
    private static var selection: UInt64 {
        var digest = SiteTableFormat.digest(SiteTableFormat.digestSeed, word: UInt64(SiteTableFormat.version))
        for number in SystemCallNumber.allCases { digest = SiteTableFormat.digest(digest, word: UInt64(bitPattern: number.rawValue)) }
        return digest
    }

    package func path(_ identity: ObjectFile.Identity) -> String { "\(directory)/\(identity.text)" }

    // MARK: This machine's C library

    /// Makes the tables of this machine's C library and loader where they are not there: some tens of milliseconds. Throws if a site that matters cannot be rewritten.
    package func prepareSystem() throws(InterceptionError) {
        for (kind, path) in try SiteTableCache.systemObjects() {
            let object = try ObjectFile(path: path, bytes: Files.read(path))
            try makeTable(kind, object)
        }
    }

    /// Every call site of this machine's C library and loader, and how each is covered.
    package static func surveySystem() throws(InterceptionError) -> [SurveyedObject] {
        var objects: [SurveyedObject] = []
        for (kind, path) in try systemObjects() { objects.append(try SurveyedObject(kind: kind, path: path)) }
        return objects
    }

    /// The C library and loader that this very process runs on.
    static func systemObjects() throws(InterceptionError) -> [(SiteTableFormat.Kind, String)] {
        let maps = String(decoding: try Files.read("/proc/self/maps"), as: UTF8.self)
        var libc: String?
        var loader: String?
        for line in maps.split(separator: "\n") {
            guard let slash = line.firstIndex(of: "/") else { continue }
            let path = String(line[slash...])
            if path.hasSuffix("/libc.so.6") { libc = path }
            if path.contains("/\(Machine.loader)") { loader = path }
        }
        guard let libc, let loader else {
            throw InterceptionError(.notFound, "/proc/self/maps", "names no libc.so.6 and \(Machine.loader).2")
        }
        return [(.libc, libc), (.loader, loader)]
    }

    private func makeTable(_ kind: SiteTableFormat.Kind, _ object: ObjectFile) throws(InterceptionError) {
        let path = path(try object.identity())
        if Files.exists(path), let cached = try? Files.read(path), SiteTable.isWhole(cached) { return }
        try write(SurveyedObject(kind: kind, object))
    }

    private func write(_ object: SurveyedObject) throws(InterceptionError) {
        let table = try object.table()
        try Files.makeDirectory(directory)
        try Files.replace(path(object.identity), with: table)
    }

    // MARK: Libraries

    /// Makes the tables of all libraries that ldconfig(8) has listed. Nothing to do, and one look at a file, unless it has run since.
    package func prepareLibraries(cachePath: String = "/etc/ld.so.cache") {
        let done = "\(directory)/libraries-of"
        guard let now = Files.identity(cachePath), let cache = try? Files.read(cachePath) else { return }
        if let last = try? Files.read(done), last == Array(now.utf8) { return }
        // Where nothing can be kept, all would be looked at each time.
        guard (try? Files.makeDirectory(directory)) != nil, Files.isWritable(directory) else { return }
        var ledger = Ledger(directory)
        for path in Set(LibrarySearch.entries(cache).values.joined()).sorted() { examine(path, &ledger) }
        guard (try? ledger.save()) != nil else { return }
        try? Files.replace(done, with: Array(now.utf8))
    }

    /// Makes the tables of what a command starts with; where nothing has changed since the last time, it looks at each file's status only.
    ///
    /// Throws if the command's own C library cannot be carried; whatever else is wrong with the command shows when it is started.
    package func prepare(program: String, arguments: [String], libraryPath: String?, find: (String) -> String?) throws(InterceptionError) {
        var key = SiteTable.digest(Array("\(program)\0\(libraryPath ?? "")\0\(Files.identity("/etc/ld.so.cache") ?? "")".utf8)[...])
        if program.contains("/ld-linux") || program.contains("/ld.so") { key = SiteTable.digest(Array(arguments.joined(separator: "\0").utf8)[...], from: key) }
        let record = "\(directory)/program-\(String(key, radix: 16))"
        if let last = try? Files.read(record), isUnchanged(String(decoding: last, as: UTF8.self)) { return }
        guard let objects = try? ProgramObjects(program: program, arguments: arguments, libraryPath: libraryPath, find: find), objects.foreign == nil else { return }
        var ledger = Ledger(directory)
        var lines = objects.scripts.map(\.path)
        for member in objects.members {
            lines.append(member.object.path)
            switch member.role {
            case .libc: try makeTable(.libc, member.object)
            case .loader: try makeTable(.loader, member.object)
            case .program, .library: examine(member.object.path, &ledger)
            }
        }
        guard (try? Files.makeDirectory(directory)) != nil, (try? ledger.save()) != nil else { return }
        let text = lines.map { "\(Files.identity($0) ?? "") \($0)\n" }.joined()
        try? Files.replace(record, with: Array(text.utf8))
    }

    private func isUnchanged(_ record: String) -> Bool {
        !record.isEmpty && record.split(separator: "\n").allSatisfy { line in
            guard let blank = line.firstIndex(of: " ") else { return false }
            return Files.identity(String(line[line.index(after: blank)...])).map { $0[...] == line[..<blank] } ?? false
        }
    }

    /// What programs have met without a table: those of the paths that have system calls of their own about files, with what of them cannot be carried from now on either.
    package func learn(_ paths: [String]) -> [(path: String, past: String?)] {
        var ledger = Ledger(directory)
        var found: [(String, String?)] = []
        for path in Set(paths).sorted() {
            guard let bytes = try? Files.read(path), let object = try? ObjectFile(program: path, bytes: bytes), !isOwn(path) else { continue }
            let coverage = Coverage.of(object)
            guard coverage.past != nil || coverage.surveyed?.windows.isEmpty == false else { continue }
            examine(path, &ledger)
            found.append((path, coverage.past))
        }
        _ = try? ledger.save()
        return found
    }

    /// Makes an object's table if it has call sites about files. What of it cannot be rewritten stays as it is.
    private func examine(_ path: String, _ ledger: inout Ledger) {
        guard !isOwn(path), ledger.isNew(path) else { return }
        guard let bytes = try? Files.read(path), let object = try? ObjectFile(program: path, bytes: bytes) else { return }
        guard let surveyed = Coverage.of(object).surveyed, !surveyed.windows.isEmpty else { return }
        // The C library is made by its own kind, with all of its sites or none.
        if object.ownName == "libc.so.6" || object.ownName?.hasPrefix(Machine.loader) == true { return }
        try? write(surveyed)
    }

    /// The preloaded library's system calls are the program's, answered or not.
    private func isOwn(_ path: String) -> Bool { path.hasSuffix("/libdashfs-preload.so") }
}

/// Which files have been examined, by what stat(2) says of each: so that one that has no table is not read again.
private struct Ledger {
    private let path: String
    private var known: Set<String> = []
    private var added = false

    init(_ directory: String) {
        path = "\(directory)/examined"
        guard let content = try? Files.read(path) else { return }
        known = Set(String(decoding: content, as: UTF8.self).split(separator: "\n").map(String.init))
    }

    /// Whether it has to be examined; from then on it has been.
    mutating func isNew(_ file: String) -> Bool {
        guard let identity = Files.identity(file), known.insert(identity).inserted else { return false }
        added = true
        return true
    }

    func save() throws(InterceptionError) {
        if added { try Files.replace(path, with: Array(known.sorted().joined(separator: "\n").utf8)) }
    }
}
