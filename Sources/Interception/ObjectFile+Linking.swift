// What an ELF file asks of its loader: gABI, "Dynamic Linking". As everywhere in `ObjectFile`, nothing in the file is trusted.

extension ObjectFile {
    /// The loader that the kernel starts for it; nil: none, so it is static, or no program.
    package var interpreter: String? {
        guard let section = section(".interp"), section.type == 1 else { return nil }
        return string(section.offset)
    }

    /// What it needs at its start, in order: DT_NEEDED.
    package var neededNames: [String] { dynamicStrings(1) }

    /// Where it wants that to be looked for. DT_RPATH counts only without DT_RUNPATH, and is for what its needs need as well.
    package var searchPaths: (own: [String], inherited: [String]) {
        let own = dynamicStrings(29)
        return own.isEmpty ? ([], split(dynamicStrings(15))) : (split(own), [])
    }

    /// Its own name, for those that need it: DT_SONAME.
    package var ownName: String? { dynamicStrings(14).first }

    /// A program is loaded far away from the libraries. (Some libraries name an interpreter too: they can be run.)
    package var isProgram: Bool { interpreter != nil && ownName == nil }

    /// Whether the loader changes the code before it runs: DT_TEXTREL, or DF_TEXTREL in DT_FLAGS.
    package var hasTextRelocations: Bool { dynamicValue(22) != nil || (dynamicValue(30) ?? 0) & 4 != 0 }

    private func dynamicValue(_ tag: UInt64) -> UInt64? {
        guard let dynamic = sections.first(where: { $0.type == 6 }) else { return nil }
        for index in 0..<dynamic.size / 16 where word64(dynamic.offset + index * 16) == tag { return word64(dynamic.offset + index * 16 + 8) }
        return nil
    }

    private func split(_ lists: [String]) -> [String] { lists.flatMap { $0.split(separator: ":").map(String.init) } }

    private func dynamicStrings(_ tag: UInt64) -> [String] {
        guard let dynamic = sections.first(where: { $0.type == 6 }), let names = section(".dynstr") else { return [] }
        var found: [String] = []
        for index in 0..<dynamic.size / 16 {
            let entry = dynamic.offset + index * 16
            if word64(entry) == 0 { break }
            guard word64(entry) == tag, let offset = Int(exactly: word64(entry + 8)), offset < names.size else { continue }
            found.append(string(names.offset + offset))
        }
        return found
    }
}
