// Where the loader finds a shared object, in its order: DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache of ldconfig(8), the standard directories. ld.so(8).
// What it would load is told from the files alone: nothing is executed.

package struct LibrarySearch {
    private let environment: [String]
    private let cache: [String: [String]]

    /// - Parameter libraryPath: LD_LIBRARY_PATH.
    package init(libraryPath: String?, cachePath: String = "/etc/ld.so.cache") {
        environment = (libraryPath ?? "").split(whereSeparator: { $0 == ":" || $0 == ";" }).map(String.init)
        cache = (try? Files.read(cachePath)).map(LibrarySearch.entries) ?? [:]
    }

    /// - Parameter inherited: DT_RPATH of those that the object is needed by.
    package func find(_ name: String, neededBy object: ObjectFile, inherited: [String]) -> ObjectFile? {
        if name.contains("/") { return load(name) }
        let place = Files.real(object.path)
        let origin = String(place[..<(place.lastIndex(of: "/") ?? place.startIndex)])
        let paths = object.searchPaths
        let before = (paths.inherited + inherited).map { expand($0, origin) } + environment + paths.own.map { expand($0, origin) }
        for directory in before { if let found = load("\(directory)/\(name)") { return found } }
        for path in cache[name] ?? [] { if let found = load(path) { return found } }
        for directory in Machine.libraries { if let found = load("\(directory)/\(name)") { return found } }
        return nil
    }

    /// Objects of other machines are passed over, as the loader does.
    private func load(_ path: String) -> ObjectFile? {
        guard Files.exists(path), let bytes = try? Files.read(path) else { return nil }
        return try? ObjectFile(program: path, bytes: bytes)
    }

    private func expand(_ directory: String, _ origin: String) -> String {
        var text = directory
        for (name, value) in [("ORIGIN", origin), ("LIB", Machine.librarySuffix), ("PLATFORM", Machine.platform)] {
            for form in ["${\(name)}", "$\(name)"] {
                let parts = text.split(separator: form, omittingEmptySubsequences: false)
                if parts.count > 1 { text = parts.joined(separator: value) }
            }
        }
        return text
    }

    /// Paths of the 64-bit objects of each name, best first. glibc's sysdeps/generic/dl-cache.h: 20 bytes of magic, u32 entries, 24 bytes of which this needs nothing; an
    /// entry is i32 flags, u32 name, u32 path (from the start of the header), u32, u64 hardware.
    package static func entries(_ file: [UInt8]) -> [String: [String]] {
        let magic = Array("glibc-ld.so.cache1.1".utf8)
        // The old format may stand before it; its entries are 12 bytes, and the new one begins at a multiple of 8.
        var start = 0
        while start + 48 <= file.count, !file[start...].starts(with: magic) { start += 8 }
        guard start + 48 <= file.count else { return [:] }
        func word(_ offset: Int) -> Int {
            guard offset >= 0, offset <= file.count - 4 else { return 0 }
            return (0..<4).reduce(0) { $0 | Int(file[offset + $1]) << (8 * $1) }
        }
        func text(_ offset: Int) -> String {
            guard offset > 0, offset < file.count, let end = file[offset...].firstIndex(of: 0) else { return "" }
            return String(decoding: file[offset..<end], as: UTF8.self)
        }
        var plain: [String: [String]] = [:], special: [String: [String]] = [:]
        for index in 0..<min(word(start + 20), (file.count - start - 48) / 24) {
            let entry = start + 48 + index * 24
            guard word(entry) == Machine.cacheFlags else { continue }
            let (name, path) = (text(start + word(entry + 4)), text(start + word(entry + 8)))
            if word(entry + 16) == 0 && word(entry + 20) == 0 { plain[name, default: []].append(path) } else { special[name, default: []].append(path) }
        }
        // What is for some processors only differs in its instructions, hardly in its calls.
        return plain.merging(special) { $0 + $1 }
    }
}
