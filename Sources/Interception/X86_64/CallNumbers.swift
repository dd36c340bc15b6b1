// Which system call a `syscall` instruction makes: follows the constant in rax backwards, over every way that leads there.

extension CodeMap {
    /// What a site can call: the numbers that were found, and whether there may be others.
    package struct CallNumbers: Equatable {
        package var numbers: Set<Int64>
        package var mayBeOthers: Bool

        package init(numbers: Set<Int64> = [], mayBeOthers: Bool = false) {
            self.numbers = numbers
            self.mayBeOthers = mayBeOthers
        }
    }

    /// The numbers with which the `syscall` at `index` can be reached.
    package func callNumbers(at index: Int) -> CallNumbers {
        var result = CallNumbers()
        var pending: [Way] = []
        var seen: Set<Way> = []
        func follow(_ index: Int, _ register: Register) {
            let address = entries[index].address
            if isIndirectTarget(address) { result.mayBeOthers = true }
            if index > 0, entries[index - 1].end == address, entries[index - 1].instruction.fallsThrough {
                pending.append(Way(index: index - 1, register: register))
            }
            for jump in jumpSources(to: address) { pending.append(Way(index: jump.source, register: register)) }
        }
        follow(index, .rax)
        while let way = pending.popLast() {
            guard seen.insert(way).inserted else { continue }
            guard seen.count < 2000 else {
                result.mayBeOthers = true
                break
            }
            let instruction = entries[way.index].instruction
            if let number = instruction.constant(of: way.register) {
                result.numbers.insert(number)
            } else if let source = instruction.copySource(to: way.register) {
                follow(way.index, source)
            } else if instruction.isCall ? !way.register.survivesCalls : instruction.mayChange(way.register) {
                result.mayBeOthers = true
            } else {
                follow(way.index, way.register)
            }
        }
        return result
    }

    private struct Way: Hashable {
        let index: Int
        let register: Register
    }
}

extension Instruction {
    /// Jumps change nothing; everything else as it says.
    fileprivate func mayChange(_ register: Register) -> Bool {
        isDirectBranch ? opcode == 0xc7 || 0xe0...0xe2 ~= opcode && isPlain && map == .primary : mayWrite(register)
    }
}
