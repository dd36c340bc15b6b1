// What of a program and of the objects that it starts with would go past DashFS. For `dashfs explain`.
//
// Everything is told from the files. What a program loads while it runs (plug-ins, dlopen), or starts, is not seen here.

package struct Explanation {
    package struct Finding: Equatable {
        package let path: String
        /// Why its calls, or some of them, go past DashFS; nil: they are carried.
        package let past: String?
        package let text: String
    }

    package private(set) var findings: [Finding] = []
    package var isCarried: Bool { !findings.contains { $0.past != nil } }

    private mutating func add(_ path: String, _ text: String, past: String? = nil) {
        findings.append(Finding(path: path, past: past, text: text))
    }

    /// - Parameters:
    ///   - path: an ELF program, or a script of one.
    ///   - ignoresPreload: why the loader would not load what LD_PRELOAD names, for the program at a path: it is setuid, say. nil: it would.
    ///   - find: where a program is that a script names without a directory (`#!/usr/bin/env python3`).
    package init(
        program path: String, libraryPath: String?, ignoresPreload: (String) -> String?, find: (String) -> String?
    ) throws(InterceptionError) {
        var path = path
        // Scripts of scripts: Linux goes four deep (BINPRM_MAX_RECURSION), and env adds one each.
        for _ in 0..<8 {
            let bytes = try Files.read(path)
            guard bytes.starts(with: [0x23, 0x21]) else {
                try explain(ObjectFile(program: path, bytes: bytes), LibrarySearch(libraryPath: libraryPath), ignoresPreload)
                return
            }
            let line = String(decoding: bytes[2...].prefix(254).prefix { $0 != 0x0a }, as: UTF8.self)
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).map(String.init)
            guard let interpreter = words.first else { throw InterceptionError(.notAnObject, path, "a script without an interpreter") }
            add(path, "a script of \(words.joined(separator: " "))")
            path = interpreter
            if interpreter.hasSuffix("/env"), let name = words.dropFirst().first(where: { !$0.hasPrefix("-") && !$0.contains("=") }) {
                guard let found = find(name) else { throw InterceptionError(.notFound, interpreter, "there is no \(name) in PATH") }
                path = found
            }
        }
        throw InterceptionError(.notAnObject, path, "scripts of scripts without an end")
    }

    private mutating func explain(_ program: ObjectFile, _ search: LibrarySearch, _ ignoresPreload: (String) -> String?) throws(InterceptionError) {
        guard let interpreter = program.interpreter else {
            return add(program.path, "static", past: "it is static: nothing can be loaded into it")
        }
        guard interpreter.contains("/ld-linux-x86-64.so") else {
            return add(program.path, "loaded by \(interpreter)", past: "its C library is not glibc (\(interpreter))")
        }
        if let reason = ignoresPreload(program.path) {
            add(program.path, reason, past: "it is \(reason): the loader ignores LD_PRELOAD")
        }
        judge(program)
        let loader = try ObjectFile(program: interpreter, bytes: Files.read(interpreter))
        try judgeLibrary(loader, .loader)
        // Breadth first, as the loader does; an object is loaded once by each name.
        var seen: Set<String> = [String(interpreter[(interpreter.lastIndex(of: "/") ?? interpreter.startIndex)...].dropFirst())]
        var pending: [(object: ObjectFile, inherited: [String])] = [(program, [])]
        while !pending.isEmpty {
            let (object, inherited) = pending.removeFirst()
            for name in object.neededNames where seen.insert(name).inserted {
                guard let library = search.find(name, neededBy: object, inherited: inherited) else {
                    add(object.path, "needs \(name)", past: "\(name) is not found, so the program does not start")
                    continue
                }
                if name == "libc.so.6" { try judgeLibrary(library, .libc) } else { judge(library) }
                pending.append((library, inherited + object.searchPaths.inherited))
            }
        }
    }

    // MARK: Objects

    /// The C library or its loader, whose call sites are rewritten.
    private mutating func judgeLibrary(_ object: ObjectFile, _ kind: SurveyedObject.Kind) throws(InterceptionError) {
        let name = kind == .libc ? "the C library" : "the loader"
        let versions = object.definedVersions()
        if kind == .libc, !versions.contains("GLIBC_2.34") {
            return add(object.path, name, past: "glibc before 2.34 is not supported")
        }
        do throws(InterceptionError) {
            let surveyed = try SurveyedObject(kind: kind, path: object.path)
            for site in surveyed.sites {
                if case .impossible(let reason) = site.coverage { return add(object.path, name, past: "the call at \(site.place) cannot be carried: \(reason)") }
            }
            var isOwn = false
            for (other, path) in try SiteTable.systemObjects() where other == kind {
                isOwn = try ObjectFile(program: path, bytes: Files.read(path)).buildID == object.buildID
            }
            guard isOwn else { return add(object.path, name, past: "it is not the one that `dashfs run` itself uses, and prepares") }
            add(object.path, "\(name), \(surveyed.windows.count) calls carried")
        } catch {
            add(object.path, name, past: error.reason)
        }
    }

    /// Any other object: nobody rewrites the system calls that it makes by itself.
    private mutating func judge(_ object: ObjectFile) {
        let none = "no system calls of its own"
        guard object.mayHaveSystemCalls else { return add(object.path, none) }
        // A number, or nil: any.
        let calls: [Int64?]
        if let sites = try? SiteFinder(object).sites() {
            calls = sites.flatMap { Array($0.calls.numbers) + ($0.calls.mayBeOthers ? [nil] : []) }
        } else {
            calls = FunctionSurvey(object).sites.map(\.number)
        }
        let past = calls.filter { $0.map { SystemCallNumber(rawValue: $0) != nil } ?? true }
        if past.isEmpty { return add(object.path, calls.isEmpty ? none : "no system calls of its own that are about files") }
        var names = Set(past.compactMap { $0.flatMap { SystemCallNumber(rawValue: $0) } }.map { "\($0)" }).sorted()
        if past.contains(nil) { names.append("any") }
        add(object.path, "", past: "system calls of its own: \(names.joined(separator: ", "))")
    }
}
