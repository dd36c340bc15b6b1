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
        program path: String, arguments: [String] = [], libraryPath: String?, ignoresPreload: (String) -> String?, find: (String) -> String?
    ) throws(InterceptionError) {
        let objects = try ProgramObjects(program: path, arguments: arguments, libraryPath: libraryPath, find: find)
        for script in objects.scripts { add(script.path, "a script of \(script.line)") }
        if let foreign = objects.foreign { add(objects.program?.path ?? path, "", past: foreign) }
        if objects.foreign == nil, let program = objects.program, let reason = ignoresPreload(program.path) {
            add(program.path, reason, past: "it is \(reason): the loader ignores LD_PRELOAD")
        }
        for member in objects.members where objects.foreign == nil {
            let coverage = Coverage.of(member)
            add(member.object.path, coverage.text, past: coverage.past)
        }
        for library in objects.missing { add(library.neededBy, "needs \(library.name)", past: "\(library.name) is not found, so the program does not start") }
    }
}
