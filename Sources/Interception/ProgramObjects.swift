// What a program consists of when it starts: itself, its loader, and the libraries that these need. Told from the files alone: nothing is executed.
//
// A script is its interpreter; a loader that is run by hand (`ld.so --library-path DIR program`) is the program it is given.

package struct ProgramObjects {
    package enum Role { case program, loader, libc, library }

    package struct Member {
        package let role: Role
        package let object: ObjectFile
    }

    package private(set) var members: [Member] = []
    /// The scripts that led to it, each with the line that names its interpreter.
    package private(set) var scripts: [(path: String, line: String)] = []
    /// Libraries that are not found, and who needs them.
    package private(set) var missing: [(name: String, neededBy: String)] = []
    /// Why it is no program that libraries are loaded into, or not by glibc's loader.
    package private(set) var foreign: String?

    /// The program itself; nil only where it is none of ours to look at (`foreign` says why).
    package var program: ObjectFile? { members.first { $0.role == .program }?.object }

    /// - Parameters:
    ///   - arguments: those of the program: a loader takes its own from them.
    ///   - find: where a program is that a script names without a directory (`#!/usr/bin/env python3`).
    package init(program path: String, arguments: [String] = [], libraryPath: String?, find: (String) -> String?) throws(InterceptionError) {
        var path = path
        // Scripts of scripts: Linux goes four deep (BINPRM_MAX_RECURSION), and env adds one each.
        for _ in 0..<8 {
            let bytes = try Files.read(path)
            guard bytes.starts(with: [0x23, 0x21]) else {
                try start(ObjectFile(program: path, bytes: bytes), arguments, libraryPath, find)
                return
            }
            let line = String(decoding: bytes[2...].prefix(254).prefix { $0 != 0x0a }, as: UTF8.self)
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).map(String.init)
            guard let interpreter = words.first else { throw InterceptionError(.notAnObject, path, "a script without an interpreter") }
            scripts.append((path, words.joined(separator: " ")))
            path = interpreter
            if interpreter.hasSuffix("/env"), let name = words.dropFirst().first(where: { !$0.hasPrefix("-") && !$0.contains("=") }) {
                guard let found = find(name) else { throw InterceptionError(.notFound, interpreter, "there is no \(name) in PATH") }
                path = found
            }
        }
        throw InterceptionError(.notAnObject, path, "scripts of scripts without an end")
    }

    private mutating func start(_ object: ObjectFile, _ arguments: [String], _ libraryPath: String?, _ find: (String) -> String?) throws(InterceptionError) {
        if object.interpreter == nil, object.ownName?.hasPrefix(Machine.loader) == true {
            let own = LoaderArguments(arguments)
            guard let name = own.program, let path = name.contains("/") ? name : find(name) else {
                foreign = "a loader without a program"
                return
            }
            let program = try ObjectFile(program: path, bytes: Files.read(path))
            members.append(Member(role: .program, object: program))
            return walk(from: program, loader: object, LibrarySearch(libraryPath: own.libraryPath ?? libraryPath))
        }
        members.append(Member(role: .program, object: object))
        guard let interpreter = object.interpreter else { return foreign = "it is static: nothing can be loaded into it" }
        guard interpreter.contains("/\(Machine.loader)") else { return foreign = "its C library is not glibc (\(interpreter))" }
        walk(from: object, loader: try ObjectFile(program: interpreter, bytes: Files.read(interpreter)), LibrarySearch(libraryPath: libraryPath))
    }

    /// Breadth first, as the loader does; an object is loaded once by each name.
    private mutating func walk(from program: ObjectFile, loader: ObjectFile, _ search: LibrarySearch) {
        members.append(Member(role: .loader, object: loader))
        var seen: Set<String> = [loader.ownName ?? "\(Machine.loader).2"]
        var pending: [(object: ObjectFile, inherited: [String])] = [(program, [])]
        while !pending.isEmpty {
            let (object, inherited) = pending.removeFirst()
            for name in object.neededNames where seen.insert(name).inserted {
                guard let library = search.find(name, neededBy: object, inherited: inherited) else {
                    missing.append((name, object.path))
                    continue
                }
                members.append(Member(role: name == "libc.so.6" ? .libc : .library, object: library))
                pending.append((library, inherited + object.searchPaths.inherited))
            }
        }
    }
}

/// What glibc's loader takes from its command line: ld.so(8).
private struct LoaderArguments {
    private(set) var program: String?
    private(set) var libraryPath: String?

    init(_ arguments: [String]) {
        let withValue: Set<String> = ["--preload", "--audit", "--inhibit-rpath", "--glibc-hwcaps-prepend", "--glibc-hwcaps-mask", "--argv0"]
        var rest = arguments[...]
        while let word = rest.popFirst() {
            if word == "--library-path" {
                libraryPath = rest.popFirst()
            } else if withValue.contains(word) {
                _ = rest.popFirst()
            } else if !word.hasPrefix("--") {
                program = word
                return
            }
        }
    }
}
