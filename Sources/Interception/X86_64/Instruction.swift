// One decoded x86-64 instruction: where its parts are, and the few things about its meaning that rewriting needs.
//
// Reference: Intel SDM volume 2, chapter 2 (formats) and appendix A (opcode maps). "May" is conservative: an instruction
// that is not known for certain to leave a register or the flags alone may change them.

package struct Instruction: Equatable {
    /// Which opcode table: one byte, 0F, 0F 38, 0F 3A; VEX and EVEX instructions use the same numbers.
    package enum Map: UInt8 { case primary = 0, secondary = 1, map38 = 2, map3A = 3, other = 4 }

    package var length: UInt8 = 0
    package var map: Map = .primary
    package var opcode: UInt8 = 0
    /// 0 where there is none (see `hasModRM`).
    package var modRM: UInt8 = 0
    package var hasModRM = false
    package var rex: UInt8 = 0
    package var isVector = false
    package var hasOperandSizePrefix = false
    package var hasLockPrefix = false
    /// Where the 32-bit rip-relative displacement stands, or 0.
    package var ripDisplacementOffset: UInt8 = 0
    /// Displacement if rip-relative, else the immediate (sign-extended; the low 32 bits of a 64-bit one), else 0.
    package var displacement: Int32 = 0
    package var immediate: Int32 = 0

    package init() {}

    var mod: UInt8 { modRM >> 6 }
    /// The register operand, with its REX extension.
    var reg: Register { Register(number: (modRM >> 3 & 7) | (rex & 4) << 1) }
    /// The extension of the opcode in groups.
    var group: UInt8 { modRM >> 3 & 7 }
    /// The register in the rm field; nil if it names memory.
    var rm: Register? { hasModRM && mod == 3 ? Register(number: (modRM & 7) | (rex & 1) << 3) : nil }
    /// The register in the opcode's low bits.
    var opcodeRegister: Register { Register(number: (opcode & 7) | (rex & 1) << 3) }
}

/// A general register by its number in encodings: rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 ... r15.
package struct Register: Equatable, Hashable {
    package let number: UInt8
    package init(number: UInt8) { self.number = number }

    static let rax = Register(number: 0)
    static let rsp = Register(number: 4)
    /// rbx, rbp, r12 ... r15 survive a call (System V ABI).
    var survivesCalls: Bool { number == 3 || number == 5 || number >= 12 }
}

extension Instruction {
    var isPlain: Bool { !isVector }

    package var isSyscall: Bool { isPlain && map == .secondary && opcode == 0x05 }

    /// A jump or call whose target stands in the instruction: jcc, jmp, call, loop, jrcxz, xbegin.
    package var isDirectBranch: Bool {
        guard isPlain else { return false }
        switch map {
        case .primary: return 0x70...0x7f ~= opcode || 0xe0...0xe3 ~= opcode || [0xe8, 0xe9, 0xeb].contains(opcode)
            || opcode == 0xc7 && modRM == 0xf8
        case .secondary: return 0x80...0x8f ~= opcode
        default: return false
        }
    }

    var isCall: Bool { isPlain && map == .primary && (opcode == 0xe8 || opcode == 0xff && (group == 2 || group == 3)) }
    var isIndirectJump: Bool { isPlain && map == .primary && opcode == 0xff && (group == 4 || group == 5) }
    var isReturn: Bool { isPlain && map == .primary && [0xc2, 0xc3, 0xca, 0xcb, 0xcf].contains(opcode) }
    var isUnconditionalJump: Bool {
        isPlain && map == .primary && (opcode == 0xe9 || opcode == 0xeb) || isIndirectJump
    }
    var isTrap: Bool {
        isPlain && (map == .primary && [0xcc, 0xcd, 0xf4, 0xf1].contains(opcode)
            || map == .secondary && [0x0b, 0xb9, 0xff, 0x07, 0x34, 0x35].contains(opcode))
    }

    /// Whether the instruction after it is reached by falling through.
    var fallsThrough: Bool { !isUnconditionalJump && !isReturn && !isTrap }

    /// Whether it does the same at another address: no jump, no stack pointer, no trap. (Rip-relative operands are mended.)
    package var isMovable: Bool {
        !isDirectBranch && !isCall && !isIndirectJump && !isReturn && !isTrap && !isSyscall && !usesStackImplicitly
            && !mayWrite(.rsp)
    }

    private var usesStackImplicitly: Bool {
        guard isPlain else { return false }
        switch map {
        case .primary:
            return 0x50...0x5f ~= opcode || [0x68, 0x6a, 0x8f, 0x9c, 0x9d, 0xc8, 0xc9].contains(opcode)
                || opcode == 0xff && group == 6
        case .secondary: return [0xa0, 0xa1, 0xa8, 0xa9].contains(opcode)
        default: return false
        }
    }

    /// `mov $constant, %register`, in all the ways compilers write it.
    func constant(of register: Register) -> Int64? {
        guard isPlain, map == .primary else { return nil }
        switch opcode {
        case 0xb8...0xbf where opcodeRegister == register && rex & 8 == 0: return Int64(UInt32(bitPattern: immediate))
        case 0xc7 where group == 0 && rm == register: return rex & 8 != 0 ? Int64(immediate) : Int64(UInt32(bitPattern: immediate))
        case 0x31, 0x33, 0x29, 0x2b: return reg == register && rm == register ? 0 : nil
        default: return nil
        }
    }

    /// `mov source, %register` between general registers.
    func copySource(to register: Register) -> Register? {
        guard isPlain, map == .primary else { return nil }
        if opcode == 0x89, rm == register { return reg }
        if opcode == 0x8b, reg == register { return rm }
        return nil
    }

    package func mayWrite(_ register: Register) -> Bool {
        if isVector { return map == .other || mayBeGeneralVectorResult }
        switch map {
        case .primary: return primaryMayWrite(register)
        case .secondary: return secondaryMayWrite(register)
        default: return true
        }
    }

    /// VEX instructions with a general register as result: BMI, moves and masks to general registers.
    private var mayBeGeneralVectorResult: Bool {
        switch map {
        case .secondary: return [0x2c, 0x2d, 0x50, 0x7e, 0x93, 0xc5, 0xd7].contains(opcode)
        case .map38: return opcode >= 0xf0
        default: return opcode == 0xf0 || 0x14...0x17 ~= opcode
        }
    }

    private func primaryMayWrite(_ register: Register) -> Bool {
        switch opcode {
        case 0x38...0x3d: return false  // cmp
        case 0x00...0x3f:
            switch opcode & 7 {
            case 0, 1: return rm == register
            case 2, 3: return reg == register
            default: return register == .rax
            }
        case 0x50...0x57, 0x68, 0x6a, 0x70...0x7f, 0x84, 0x85, 0x90, 0xa8, 0xa9, 0xe9, 0xeb: return false
        case 0x58...0x5f: return opcodeRegister == register
        case 0x63, 0x69, 0x6b, 0x8a, 0x8b, 0x8d: return reg == register
        case 0x80, 0x81, 0x83: return group != 7 && rm == register
        case 0x86, 0x87: return reg == register || rm == register
        case 0x88, 0x89, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0...0xd3: return rm == register
        case 0x98: return register == .rax
        case 0xb0...0xbf: return opcodeRegister == register || opcode < 0xb8 && rex == 0
        case 0xf6, 0xf7:
            if group < 2 { return false }
            return group < 4 ? rm == register : true
        case 0xfe: return rm == register
        case 0xff: return group < 2 ? rm == register : group != 6 && group != 4
        default: return true
        }
    }

    private func secondaryMayWrite(_ register: Register) -> Bool {
        switch opcode {
        case 0x10...0x17, 0x28...0x2b, 0x2e, 0x2f, 0x51...0x76, 0x7f, 0xc2, 0xc6, 0x80...0x8f, 0x0d, 0x18...0x1f, 0xa3:
            return opcode == 0x1e && modRM != 0xfa
        case 0xd0...0xfe: return opcode == 0xd7
        case 0x40...0x4f, 0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0xbc, 0xbd: return reg == register
        case 0x90...0x9f, 0xa4, 0xa5, 0xab, 0xac, 0xad, 0xb3, 0xba, 0xbb: return rm == register
        case 0xb0, 0xb1: return register == .rax || rm == register  // cmpxchg
        case 0xc0, 0xc1: return reg == register || rm == register  // xadd
        case 0xc8...0xcf: return opcodeRegister == register
        case 0x05: return register == .rax || register.number == 1 || register.number == 11
        default: return true
        }
    }

    // MARK: Flags

    /// What an instruction does with the arithmetic flags.
    enum FlagUse { case reads, overwrites, neither }

    var flagUse: FlagUse {
        guard isPlain else { return .neither }
        switch (map, opcode) {
        case (.primary, 0x10...0x1f), (.primary, 0x70...0x7f), (.primary, 0x9c), (.primary, 0x9f), (.primary, 0xf5),
            (.primary, 0xe0), (.primary, 0xe1), (.secondary, 0x40...0x4f), (.secondary, 0x80...0x9f):
            return .reads
        case (.primary, 0x80), (.primary, 0x81), (.primary, 0x83): return group == 2 || group == 3 ? .reads : .overwrites
        case (.primary, 0xd0...0xd3), (.primary, 0xc0), (.primary, 0xc1): return group == 2 || group == 3 ? .reads : .neither
        case (.primary, 0x00...0x3f) where opcode & 7 < 6: return .overwrites
        case (.primary, 0x84), (.primary, 0x85), (.primary, 0xa8), (.primary, 0xa9): return .overwrites
        case (.map38, 0xf6): return .reads  // adcx, adox
        default: return .neither
        }
    }
}
