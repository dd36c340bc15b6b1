// The names by which a program says what ld.so is to load before it runs, and where to look: DT_NEEDED and its relatives, DT_RPATH, DT_RUNPATH. System V gABI, "Dynamic Section";
// elf(5).
//
// The file is somebody else's, and may change meanwhile: every number in it is checked before it is used, and it is read in pieces, never mapped. This file is part of the preloaded
// library as well, so it allocates nothing and uses nothing.

package enum DynamicNames {
    package enum Kind { case object, searchPath }

    /// What `contains` needs to work in.
    package static let roomBytes = 16384
    private static let (chunkAt, chunkBytes) = (4096, 4096)
    private static let (windowAt, windowBytes) = (8192, 8192)

    /// Whether one of the names is as `matches` says. False for what is no 64-bit little-endian ELF file, or a static one.
    /// - Parameters:
    ///   - room: `roomBytes` of memory.
    ///   - read: reads from the file at an offset so many bytes; how many it could.
    ///   - matches: gets a name's bytes: of a search path all of it, its directories separated by colons.
    package static func contains(
        _ room: UnsafeMutableRawPointer, read: (UInt64, UnsafeMutableRawPointer, Int) -> Int, _ matches: (Kind, UnsafeRawBufferPointer) -> Bool
    ) -> Bool {
        func word(_ offset: Int) -> UInt64 { unsafe room.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
        func half(_ offset: Int) -> Int { unsafe Int(room.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }
        // 0x7f "ELF", 64 bits, little-endian.
        guard case let head = unsafe read(0, room, chunkAt), head >= 64, word(0) & 0xffff_ffff_ffff == 0x0102_464c_457f, half(54) == 56 else { return false }
        let count = half(56)
        let bytes = count * 56
        guard bytes <= chunkAt else { return false }
        var headers = Int(clamping: word(32))
        if headers > head - bytes {
            guard unsafe read(word(32), room, bytes) == bytes else { return false }
            headers = 0
        }

        /// Where in the file the byte is that is loaded at an address.
        func fileOffset(_ address: UInt64) -> UInt64? {
            for index in 0..<count {
                let header = headers + index * 56
                let (offset, start, size) = (word(header + 8), word(header + 16), word(header + 32))
                if word(header) & 0xffff_ffff == 1 /* PT_LOAD */, address >= start, address - start < size { return offset &+ (address - start) }
            }
            return nil
        }

        var dynamic: (offset: UInt64, entries: Int)?
        for index in 0..<count where word(headers + index * 56) & 0xffff_ffff == 2 /* PT_DYNAMIC */ {
            dynamic = (word(headers + index * 56 + 8), Int(clamping: word(headers + index * 56 + 32) / 16))
        }
        guard let dynamic else { return false }
        // Nobody has so many; a file that says so would take for ever.
        let entries = min(dynamic.entries, 65536)
        var chunk = -1
        func entry(_ index: Int) -> (tag: UInt64, value: UInt64) {
            let perChunk = chunkBytes / 16
            if index / perChunk != chunk {
                chunk = index / perChunk
                let wanted = min(entries - chunk * perChunk, perChunk) * 16
                if unsafe read(dynamic.offset &+ UInt64(chunk * chunkBytes), room + chunkAt, wanted) != wanted { return (0, 0) }
            }
            let at = chunkAt + index % perChunk * 16
            return (word(at), word(at + 8))
        }

        var strings: UInt64?
        for index in 0..<entries {
            let (tag, value) = entry(index)
            if tag == 0 { break }
            if tag == 5 /* DT_STRTAB */ { strings = fileOffset(value) }
        }
        guard let strings else { return false }
        // What has been read of the strings.
        var window: (start: UInt64, count: Int) = (0, 0)
        func name(_ offset: UInt64) -> UnsafeRawBufferPointer {
            // What is there already may do; else a kilobyte, else all that there is room for.
            var size = 0
            while size <= windowBytes {
                if size > 0 { window = unsafe (offset, max(0, read(offset, room + windowAt, size))) }
                let isLast = size == windowBytes
                size = size == 0 ? 1024 : isLast ? .max : windowBytes
                guard offset >= window.start, offset - window.start < UInt64(window.count) else { continue }
                let start = Int(offset - window.start)
                var end = start
                while unsafe end < window.count && room.load(fromByteOffset: windowAt + end, as: UInt8.self) != 0 { end += 1 }
                if end < window.count || isLast {
                    return unsafe UnsafeRawBufferPointer(start: room + windowAt + start, count: end - start)
                }
            }
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
        for index in 0..<entries {
            let (tag, value) = entry(index)
            let kind: Kind
            switch tag {
            case 0: return false
            // DT_RPATH, DT_RUNPATH
            case 15, 29: kind = .searchPath
            // DT_NEEDED, DT_AUXILIARY, DT_FILTER
            case 1, 0x7fff_fffd, 0x7fff_ffff: kind = .object
            default: continue
            }
            if unsafe matches(kind, name(strings &+ value)) { return true }
        }
        return false
    }
}
