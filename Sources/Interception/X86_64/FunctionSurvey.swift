// System call instructions of an object that cannot be decoded from end to end, because tables stand between its functions (hand-written assembly): only what lies inside
// functions with unwind information is read, each from its beginning. Code without unwind information is not seen.

package struct FunctionSurvey {
    package struct Site {
        package let address: UInt64
        /// nil: it cannot be told, or the function cannot be read up to it.
        package let number: Int64?
    }

    package private(set) var sites: [Site] = []
    /// False where two bytes that could be a call stand outside all functions with unwind information.
    package private(set) var isComplete = true

    package init(_ object: ObjectFile) {
        let functions = object.functionRanges()
        let span = unsafe object.bytes.span.bytes
        for section in object.sections where section.isCode {
            for offset in object.systemCallBytes(in: section) {
                let address = section.address &+ UInt64(offset - section.offset)
                guard let function = FunctionSurvey.last(functions, notAfter: address), address - function.start < function.length,
                    section.contains(function.start)
                else {
                    isComplete = false
                    continue
                }
                let begin = section.offset + Int(function.start - section.address)
                let targets = FunctionSurvey.jumpTargets(object, begin..<min(begin + Int(function.length), section.offset + section.size))
                var (at, number) = (begin, Int64?.none)
                var isReadable = true
                while at < offset {
                    guard let instruction = Decoder.decode(span, at: at) else {
                        isReadable = false
                        break
                    }
                    at += Int(instruction.length)
                    if let constant = instruction.constant(of: .rax) {
                        number = constant
                    } else if instruction.isCall || instruction.isDirectBranch || instruction.mayWrite(.rax) {
                        number = nil
                    }
                    // Whoever jumps here brings another.
                    if targets.contains(at) { number = nil }
                }
                if !isReadable { sites.append(Site(address: address, number: nil)) }
                if isReadable, at == offset { sites.append(Site(address: address, number: number)) }
            }
        }
    }

    /// Where in the file the jumps of a function lead.
    private static func jumpTargets(_ object: ObjectFile, _ function: Range<Int>) -> Set<Int> {
        let span = unsafe object.bytes.span.bytes
        var targets: Set<Int> = []
        var at = function.lowerBound
        while at < function.upperBound, let instruction = Decoder.decode(span, at: at) {
            at += Int(instruction.length)
            if instruction.isDirectBranch { targets.insert(at &+ Int(instruction.immediate)) }
        }
        return targets
    }

    private static func last(_ functions: [(start: UInt64, length: UInt64)], notAfter address: UInt64) -> (start: UInt64, length: UInt64)? {
        var (low, high) = (0, functions.count)
        while low < high {
            let middle = (low + high) / 2
            if functions[middle].start <= address { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? functions[low - 1] : nil
    }
}

extension ObjectFile {
    /// Functions with unwind information and their lengths, by address: of the entries that .eh_frame_hdr lists, as linkers encode them (LSB 5.0, §10.6).
    func functionRanges() -> [(start: UInt64, length: UInt64)] {
        guard let header = section(".eh_frame_hdr"), header.size >= 12, word32(header.offset) == 0x3b03_1b01 else { return [] }
        let count = min(Int(word32(header.offset + 8)), (header.size - 12) / 8)
        return (0..<count).compactMap { index in
            let (start, entry) = (relative(header, 12 + index * 8), relative(header, 16 + index * 8))
            // An entry is u32 length, u32 distance of its common part, i32 beginning, u32 length of the function.
            guard let offset = fileOffset(entry) else { return nil }
            return (start, UInt64(word32(offset + 12)))
        }.sorted { $0.start < $1.start }
    }

    private func relative(_ section: Section, _ offset: Int) -> UInt64 {
        section.address &+ UInt64(bitPattern: Int64(Int32(bitPattern: word32(section.offset + offset))))
    }

    /// Where in the file the bytes of a `syscall` stand in a section, if only by chance.
    func systemCallBytes(in section: Section) -> [Int] {
        guard section.size > 1 else { return [] }
        let (first, second) = Machine.systemCall
        return unsafe bytes.withUnsafeBytes { all in
            var found: [Int] = []
            for offset in section.offset..<section.offset + section.size - 1 where unsafe all[offset] == first && all[offset + 1] == second { found.append(offset) }
            return found
        }
    }

    /// Whether the two bytes of a `syscall` instruction stand anywhere in its code, if only by chance: reading all instructions takes a thousand times as long.
    package var mayHaveSystemCalls: Bool { sections.contains { $0.isCode && !systemCallBytes(in: $0).isEmpty } }
}
