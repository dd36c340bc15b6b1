// Finds the system call sites of an object and plans how each is rewritten.
//
// Always true of a planned window: it holds exactly one `syscall`; it is at least as long as a jump; nothing jumps to
// between its first byte and its end; its other instructions do the same in another place and leave the stack pointer
// alone (so the unwind information at the syscall is right for all of them); nothing behind it reads flags from before.

package struct CallSite: Equatable {
    package enum Coverage: Equatable {
        /// Rewritten: the window's first address and length, and how many of its bytes stand before the syscall.
        case rewritten(Window)
        /// glibc 2.41 and later: untouched, and whoever calls its function is sent elsewhere first (`CancellableCall`).
        case throughCallers([RedirectedCall])
        /// None of its calls is about files.
        case leftAlone
        /// It has to be rewritten and cannot be.
        case impossible(reason: String)
    }

    /// A call instruction of five bytes, and the function it calls.
    package struct RedirectedCall: Equatable {
        package let address: UInt64
        package let target: UInt64
    }

    package struct Window: Equatable {
        package let address: UInt64
        package let bytes: [UInt8]
        package let before: Int
        /// Where rip-relative displacements stand in it; at most two.
        package let fixups: [UInt8]
    }

    /// Of the `syscall` instruction.
    package let address: UInt64
    /// The exported function it is in or behind, with the distance.
    package let place: String
    package let calls: CodeMap.CallNumbers
    package let coverage: Coverage
}

package struct SiteFinder {
    package let map: CodeMap
    private let symbols: [(address: UInt64, name: String)]
    private let cancellable: CancellableCall?

    package init(_ object: ObjectFile) throws(InterceptionError) {
        if object.hasTextRelocations { throw InterceptionError(.unsupported, object.path, "the loader changes its code (text relocations)") }
        map = try CodeMap(object)
        symbols = object.functionSymbols()
        cancellable = try CancellableCall.find(in: map)
    }

    /// All sites, in ascending order.
    package func sites() -> [CallSite] {
        var found: [CallSite] = []
        // No two windows share an instruction.
        var end: UInt64 = 0
        for index in map.entries.indices where map.entries[index].instruction.isSyscall {
            let site = site(index, windowsFrom: end)
            if case .rewritten(let window) = site.coverage { end = window.address &+ UInt64(window.bytes.count) }
            found.append(site)
        }
        return found
    }

    private func site(_ index: Int, windowsFrom limit: UInt64) -> CallSite {
        let address = map.entries[index].address
        let calls = map.callNumbers(at: index)
        let coverage: CallSite.Coverage
        if let cancellable, cancellable.syscall == address {
            coverage = .throughCallers(cancellable.calls)
        } else if !calls.mayBeOthers && !calls.numbers.contains(where: { SystemCallNumber(rawValue: $0) != nil }) {
            coverage = .leftAlone
        } else if flagsMayBeRead(after: index) {
            coverage = .impossible(reason: "flags are used across the call")
        } else if let window = window(around: index, from: limit) {
            coverage = .rewritten(window)
        } else {
            coverage = .impossible(reason: "no room for a jump")
        }
        return CallSite(address: address, place: place(address), calls: calls, coverage: coverage)
    }

    private func place(_ address: UInt64) -> String {
        guard let symbol = symbols.last(where: { $0.address <= address }) else { return "?" }
        return "\(symbol.name)+0x\(String(address - symbol.address, radix: 16))"
    }

    // MARK: Windows

    /// The shortest window that needs no instruction from behind the syscall, else the one that needs the fewest: what
    /// stands before can be displaced even under a thread that is waiting in the call.
    private func window(around index: Int, from limit: UInt64) -> CallSite.Window? {
        for after in 0...3 {
            for before in 0...4 {
                if let window = window(index - before...index + after, syscall: index), window.address >= limit { return window }
            }
        }
        return nil
    }

    private func window(_ range: ClosedRange<Int>, syscall: Int) -> CallSite.Window? {
        guard range.lowerBound >= 0, range.upperBound < map.entries.count else { return nil }
        let first = map.entries[range.lowerBound].address
        let length = map.entries[range.upperBound].end &- first
        let before = map.entries[syscall].address &- first
        let capacity = UInt64(SiteTableFormat.displacedCapacity)
        guard length >= UInt64(SiteTableFormat.jumpSize), length <= UInt64(SiteTableFormat.windowCapacity), before <= capacity,
            length - before - 2 <= capacity
        else { return nil }
        var fixups: [UInt8] = []
        for index in range {
            let entry = map.entries[index]
            let instruction = entry.instruction
            // Neighbours in the list may belong to different sections.
            if index > range.lowerBound, map.isTarget(entry.address) || map.entries[index - 1].end != entry.address { return nil }
            if index != syscall, !instruction.isMovable { return nil }
            if instruction.ripDisplacementOffset != 0 {
                // A program's slots are out of a displacement's reach.
                if map.object.isProgram { return nil }
                fixups.append(UInt8(entry.address &- first) + instruction.ripDisplacementOffset)
            }
        }
        guard fixups.count <= 2, let offset = map.object.fileOffset(first) else { return nil }
        return CallSite.Window(
            address: first, bytes: Array(map.object.bytes[offset..<offset + Int(length)]), before: Int(before), fixups: fixups)
    }

    // MARK: Flags

    /// Whether anything can read the arithmetic flags as they were at the syscall. Calls and returns do not pass flags on.
    private func flagsMayBeRead(after index: Int) -> Bool {
        var pending = [index + 1]
        var seen: Set<Int> = []
        while let next = pending.popLast() {
            guard next < map.entries.count, seen.insert(next).inserted else { continue }
            guard seen.count < 200 else { return true }
            let entry = map.entries[next]
            let instruction = entry.instruction
            if instruction.isCall || instruction.isReturn || instruction.isTrap { continue }
            switch instruction.flagUse {
            case .reads: return true
            case .overwrites: continue
            case .neither: break
            }
            if instruction.isIndirectJump { continue }
            if let target = entry.branchTarget {
                if let target = map.index(of: target) { pending.append(target) }
            }
            if instruction.fallsThrough { pending.append(next + 1) }
        }
        return false
    }
}

extension CallSite {
    /// What it calls, by name.
    package var callsText: String {
        let names = calls.numbers.sorted().map { number in SystemCallNumber(rawValue: number).map { "\($0)" } ?? String(number) }
        return (names + (calls.mayBeOthers ? ["any"] : [])).joined(separator: ", ")
    }
}

extension CallSite.Coverage {
    package var text: String {
        switch self {
        case .rewritten(let window): "rewritten, \(window.bytes.count) bytes"
        case .throughCallers(let calls): "left as it is for cancellation; \(calls.count == 1 ? "its one call is" : "its \(calls.count) calls are") redirected"
        case .leftAlone: "left alone, not about files"
        case .impossible(let reason): "cannot be rewritten: \(reason)"
        }
    }
}
