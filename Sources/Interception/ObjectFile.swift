// An ELF shared object as the site finder needs it: sections, build id, symbols, relocations, function starts.
//
// The file is somebody else's: every offset and size in it is checked before it is used. Offsets: System V gABI, "Object
// Files"; elf(5).

package struct ObjectFile {
    package struct Section {
        package let name: String
        package let type: UInt32
        package let flags: UInt64
        package let address: UInt64
        package let offset: Int
        package let size: Int

        package var isCode: Bool { flags & 4 != 0 && type == 1 }
        package var isLoaded: Bool { flags & 2 != 0 && type != 8 }
        package func contains(_ candidate: UInt64) -> Bool { candidate >= address && candidate - address < UInt64(size) }
    }

    package let path: String
    package let bytes: [UInt8]
    package private(set) var sections: [Section] = []
    package private(set) var buildID: [UInt8] = []

    package init(path: String, bytes: [UInt8]) throws(InterceptionError) {
        try self.init(program: path, bytes: bytes)
        guard isPositionIndependent else { throw InterceptionError(.notAnObject, path, "not an \(Machine.name) shared object") }
        if buildID.isEmpty { throw InterceptionError(.notAnObject, path, "has no build id") }
    }

    /// An object that is only looked at: a program may have a fixed address, and no build id.
    package init(program path: String, bytes: [UInt8]) throws(InterceptionError) {
        self.path = path
        self.bytes = bytes
        let isELF64LittleEndian: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1]
        guard bytes.count >= 64, bytes.starts(with: isELF64LittleEndian), word16(16) == 2 || word16(16) == 3, word16(18) == Machine.elf else {
            throw InterceptionError(.notAnObject, path, "not an \(Machine.name) shared object or program")
        }
        try readSections()
        guard let note = section(".note.gnu.build-id"), note.size > 16, note.size - 16 <= SiteTableFormat.identityCapacity else { return }
        buildID = Array(bytes[note.offset + 16..<note.offset + note.size])
    }

    package var isPositionIndependent: Bool { word16(16) == 3 }

    private mutating func readSections() throws(InterceptionError) {
        let count = Int(word16(60))
        let table = word64(40)
        guard count > 0, word16(58) == 64, let start = Int(exactly: table), start <= bytes.count,
            (bytes.count - start) / 64 >= count
        else { throw InterceptionError(.notAnObject, path, "has no section table") }
        let nameSection = start + Int(word16(62)) * 64
        guard Int(word16(62)) < count, let nameOffset = Int(exactly: word64(nameSection + 24)) else {
            throw InterceptionError(.notAnObject, path, "has no section names")
        }
        for index in 0..<count {
            let header = start + index * 64
            let type = word32(header + 4)
            guard let offset = Int(exactly: word64(header + 24)), let size = Int(exactly: word64(header + 32)),
                type == 8 || offset <= bytes.count && size <= bytes.count - offset
            else { throw InterceptionError(.notAnObject, path, "section \(index) lies outside the file") }
            let (name, overflow) = nameOffset.addingReportingOverflow(Int(word32(header)))
            sections.append(
                Section(
                    name: overflow ? "" : string(name), type: type, flags: word64(header + 8), address: word64(header + 16),
                    offset: offset, size: size))
        }
    }

    // MARK: Numbers; 0 past the end

    func word16(_ offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: word(offset, 2)) }
    func word32(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: word(offset, 4)) }
    func word64(_ offset: Int) -> UInt64 { word(offset, 8) }

    private func word(_ offset: Int, _ size: Int) -> UInt64 {
        guard offset >= 0, offset <= bytes.count - size else { return 0 }
        var value: UInt64 = 0
        for index in 0..<size { value |= UInt64(bytes[offset + index]) << UInt64(8 * index) }
        return value
    }

    func string(_ offset: Int) -> String {
        guard offset >= 0, offset < bytes.count else { return "" }
        let end = bytes[offset...].firstIndex(of: 0) ?? bytes.endIndex
        return String(decoding: bytes[offset..<end], as: UTF8.self)
    }

    /// Where in the file the byte at `address` stands, if it is there.
    func fileOffset(_ address: UInt64) -> Int? {
        for section in sections where section.isLoaded && section.contains(address) {
            return section.offset + Int(address - section.address)
        }
        return nil
    }

    package func section(_ name: String) -> Section? { sections.first { $0.name == name } }

    // MARK: Addresses that something refers to

    /// Named code: symbol table entries of functions, by address.
    package func functionSymbols() -> [(address: UInt64, name: String)] {
        guard let symbols = section(".dynsym"), let names = section(".dynstr") else { return [] }
        var found: [(UInt64, String)] = []
        for index in 0..<symbols.size / 24 {
            let entry = symbols.offset + index * 24
            let type = word32(entry + 4) & 15  // st_info; 2 function, 10 indirect function
            guard type == 2 || type == 10, word64(entry + 8) != 0 else { continue }
            found.append((word64(entry + 8), string(names.offset + Int(word32(entry)))))
        }
        return found.sorted { $0 < $1 }
    }

    /// Addends of relative relocations: every address that the data of the object holds.
    func relocatedAddresses() -> [UInt64] {
        var found: [UInt64] = []
        for section in sections where section.type == 4 {
            for index in 0..<section.size / 24 {
                found.append(word64(section.offset + index * 24 + 16))
            }
        }
        // RELR: an address is 8 bytes of data that hold an address; odd words are bitmaps of 63 that follow.
        for section in sections where section.type == 19 {
            var next: UInt64 = 0
            for index in 0..<section.size / 8 {
                let entry = word64(section.offset + index * 8)
                if entry & 1 == 0 {
                    if let offset = fileOffset(entry) { found.append(word64(offset)) }
                    next = entry &+ 8
                } else {
                    for bit in 0..<63 where entry >> UInt64(bit + 1) & 1 != 0 {
                        if let offset = fileOffset(next &+ UInt64(bit * 8)) { found.append(word64(offset)) }
                    }
                    next = next &+ 63 * 8
                }
            }
        }
        return found
    }

    /// First addresses of all functions with unwind information, from .eh_frame_hdr's sorted table (LSB 5.0, §10.6.2).
    func functionStarts() -> [UInt64] {
        guard let header = section(".eh_frame_hdr"), header.size >= 12 else { return [] }
        // Version 1, pointer sdata4 pc-relative, count udata4, table sdata4 relative to the header: what linkers write.
        guard word32(header.offset) == 0x3b03_1b01 else { return [] }
        let count = min(Int(word32(header.offset + 8)), (header.size - 12) / 8)
        return (0..<count).map { index in
            let relative = Int32(bitPattern: word32(header.offset + 12 + index * 8))
            return header.address &+ UInt64(bitPattern: Int64(relative))
        }
    }

    /// The versions that the object defines, GLIBC_2.2.5 and later.
    func definedVersions() -> Set<String> {
        guard let definitions = section(".gnu.version_d"), let names = section(".dynstr") else { return [] }
        var found: Set<String> = []
        var offset = definitions.offset
        for _ in 0..<definitions.size / 20 {
            found.insert(string(names.offset + Int(word32(offset + Int(word32(offset + 12))))))
            let next = Int(word32(offset + 16))
            if next == 0 || offset + next >= definitions.offset + definitions.size { break }
            offset += next
        }
        return found
    }
}
