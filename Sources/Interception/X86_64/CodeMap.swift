// The code of an object, decoded: where instructions begin, and which of them something jumps to.
//
// Jump targets are a superset: direct jumps and calls, addresses taken by `lea`, entries of jump tables, symbols, function
// starts, relocated addresses in data. A window of displaced instructions must have no target inside.

package struct CodeMap {
    package struct Entry {
        package let address: UInt64
        package let instruction: Instruction
        package var end: UInt64 { address &+ UInt64(instruction.length) }

        /// Where a direct branch goes.
        package var branchTarget: UInt64? {
            instruction.isDirectBranch ? end &+ UInt64(bitPattern: Int64(instruction.immediate)) : nil
        }
    }

    package let object: ObjectFile
    package private(set) var entries: [Entry] = []
    /// Targets of something else than a direct jump: whoever comes there may bring any register contents.
    private var indirectTargets: Set<UInt64> = []
    /// (target, index of the jump), sorted: direct jumps, calls left out.
    private var jumps: [(target: UInt64, source: Int)] = []
    private let code: [ObjectFile.Section]

    package init(_ object: ObjectFile) throws(InterceptionError) {
        self.object = object
        code = object.sections.filter(\.isCode).sorted { $0.address < $1.address }
        for section in code { try Self.decode(section, of: object, into: &entries) }
        stepOverPadding()
        noteDirectTargets()
        noteAddressesTaken()
        if !object.isPositionIndependent { noteAbsoluteAddresses() }
        for target in object.functionStarts() + object.relocatedAddresses() + object.functionSymbols().map(\.address) {
            note(indirect: target)
        }
        jumps.sort { $0 < $1 }
        try checkConsistency()
    }

    private static func decode(
        _ section: ObjectFile.Section, of object: ObjectFile, into entries: inout [Entry]
    ) throws(InterceptionError) {
        var offset = section.offset
        let end = section.offset + section.size
        let span = unsafe object.bytes.span.bytes
        while offset < end {
            let address = section.address &+ UInt64(offset - section.offset)
            guard let instruction = Decoder.decode(span, at: offset), offset + Int(instruction.length) <= end else {
                throw InterceptionError(.undecodable, object.path, "no instruction at 0x\(String(address, radix: 16))")
            }
            entries.append(Entry(address: address, instruction: instruction))
            offset += Int(instruction.length)
        }
    }

    /// Behind a call that does not return, glibc 2.41 has a few bytes of padding that are no instructions (____longjmp_chk). A jump to where code goes on, inside what they were
    /// taken for, shows it; the code is then read from there. Whatever else a jump into an instruction may mean, `checkConsistency` says.
    private mutating func stepOverPadding() {
        for entry in entries where !entry.instruction.isCall {
            guard let target = entry.branchTarget, let section = code.first(where: { $0.contains(target) }), index(of: target) == nil else { continue }
            var first = self.first(notBefore: target) - 1
            // Over a lock prefix.
            if first >= 0, entries[first].instruction.hasLockPrefix, entries[first].address &+ 1 == target { continue }
            while first > 0, target &- entries[first].address < 16, entries[first - 1].instruction.fallsThrough, !entries[first - 1].instruction.isCall { first -= 1 }
            guard first > 0, section.contains(entries[first].address), entries[first].address < target, target - entries[first].address < 16,
                entries[first - 1].end == entries[first].address
            else { continue }
            let padding = section.offset + Int(entries[first].address - section.address)..<section.offset + Int(target - section.address)
            if padding.contains(where: { object.bytes[$0] == 0x0f }) { continue }
            let read = read(from: target, in: section)
            guard let last = read.last, let next = index(of: last.end) else { continue }
            entries.replaceSubrange(first..<next, with: read)
        }
    }

    /// The instructions from an address to where they meet those that are known: after a few, as a rule.
    private func read(from start: UInt64, in section: ObjectFile.Section) -> [Entry] {
        var (read, position) = ([Entry](), start)
        let span = unsafe object.bytes.span.bytes
        while index(of: position) == nil, read.count < 64, section.contains(position) {
            guard let instruction = Decoder.decode(span, at: section.offset + Int(position - section.address)) else { break }
            read.append(Entry(address: position, instruction: instruction))
            position &+= UInt64(instruction.length)
        }
        return read
    }

    private func isCode(_ address: UInt64) -> Bool { code.contains { $0.contains(address) } }

    private mutating func note(indirect address: UInt64) {
        if isCode(address) { indirectTargets.insert(address) }
    }

    private mutating func noteDirectTargets() {
        for (index, entry) in entries.enumerated() {
            guard let target = entry.branchTarget else { continue }
            if entry.instruction.isCall {
                note(indirect: target)
            } else {
                jumps.append((target, index))
            }
        }
    }

    private mutating func noteAddressesTaken() {
        for entry in entries where entry.instruction.ripDisplacementOffset != 0 {
            let target = entry.end &+ UInt64(bitPattern: Int64(entry.instruction.displacement))
            if isCode(target) {
                note(indirect: target)
            } else {
                noteJumpTable(at: target)
            }
        }
    }

    /// A jump table holds distances from itself, 32 bits each. Where one ends nobody says, so everything is taken for one
    /// for as long as its entries point at instructions.
    private mutating func noteJumpTable(at table: UInt64) {
        guard let start = object.fileOffset(table) else { return }
        for index in 0..<4096 {
            let distance = Int64(Int32(bitPattern: object.word32(start + 4 * index)))
            let target = table &+ UInt64(bitPattern: distance)
            guard distance != 0, isCode(target), self.index(of: target) != nil else { return }
            indirectTargets.insert(target)
        }
    }

    /// Code at a fixed address is referred to by numbers that no relocation tells of: jump tables, pointers in data, operands.
    private mutating func noteAbsoluteAddresses() {
        for entry in entries where entry.instruction.immediate > 0 && !entry.instruction.isDirectBranch {
            note(indirect: UInt64(UInt32(bitPattern: entry.instruction.immediate)))
        }
        for section in object.sections where section.isLoaded && !section.isCode {
            for index in 0..<section.size / 8 { note(indirect: object.word64(section.offset + index * 8)) }
        }
    }

    /// If the decoding had lost its step, jumps would go between the instructions it saw.
    private func checkConsistency() throws(InterceptionError) {
        for jump in jumps where isCode(jump.target) && index(of: jump.target) == nil {
            // Jumping over a lock prefix is an old habit of glibc.
            if let locked = index(of: jump.target &- 1), entries[locked].instruction.hasLockPrefix { continue }
            throw InterceptionError(
                .undecodable, object.path, "a jump into the middle of an instruction, to 0x\(String(jump.target, radix: 16))")
        }
    }

    // MARK: Questions

    /// The instruction that begins at `address`.
    package func index(of address: UInt64) -> Int? {
        let position = first(notBefore: address)
        return position < entries.count && entries[position].address == address ? position : nil
    }

    private func first(notBefore address: UInt64) -> Int { lowerBound(entries.count) { entries[$0].address < address } }

    func isIndirectTarget(_ address: UInt64) -> Bool { indirectTargets.contains(address) }
    package func isTarget(_ address: UInt64) -> Bool { isIndirectTarget(address) || !jumpSources(to: address).isEmpty }

    func jumpSources(to address: UInt64) -> ArraySlice<(target: UInt64, source: Int)> {
        let first = lowerBound(jumps.count) { jumps[$0].target < address }
        var last = first
        while last < jumps.count, jumps[last].target == address { last += 1 }
        return jumps[first..<last]
    }

    private func lowerBound(_ count: Int, _ isBefore: (Int) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if isBefore(middle) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
