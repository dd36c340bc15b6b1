// The x86-64 instruction length decoder.
//
// Reads an instruction's parts in order: legacy prefixes, REX or VEX or EVEX, opcode, ModRM, SIB, displacement, immediate
// (Intel SDM volume 2, §2.1-2.7). It accepts every instruction that compilers and the C library's authors use; what is not
// defined in 64-bit mode is an error, never a guess. Checked in the tests against objdump's reading of the whole C library.

package enum Decoder {
    /// Nil if the bytes at `offset` are not an instruction.
    package static func decode(_ code: borrowing RawSpan, at offset: Int) -> Instruction? {
        var reader = Reader(position: offset, start: offset)
        return reader.instruction(code)
    }
}

private struct Reader {
    var position: Int
    let start: Int
    var instruction = Instruction()
    var addressSizePrefix = false

    mutating func byte(_ code: borrowing RawSpan) -> UInt8? {
        // No instruction is longer than 15 bytes.
        guard position < code.byteCount, position - start < 15 else { return nil }
        defer { position += 1 }
        return unsafe code.unsafeLoad(fromByteOffset: position, as: UInt8.self)
    }

    mutating func instruction(_ code: borrowing RawSpan) -> Instruction? {
        guard let opcode = prefixes(code) else { return nil }
        let immediate: Immediate?
        switch opcode {
        case 0xc4, 0xc5: immediate = vex(opcode, code)
        case 0x62: immediate = evex(code)
        case 0x0f: immediate = escaped(code)
        default: immediate = primary(opcode, code)
        }
        guard let immediate, operands(immediate, code) else { return nil }
        instruction.length = UInt8(position - start)
        return instruction
    }

    // MARK: Prefixes and opcode

    private mutating func prefixes(_ code: borrowing RawSpan) -> UInt8? {
        while let byte = byte(code) {
            switch byte {
            case 0x66: instruction.hasOperandSizePrefix = true
            case 0x67: addressSizePrefix = true
            case 0xf0: instruction.hasLockPrefix = true
            case 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65: break
            case 0x40...0x4f:
                // It counts only directly before the opcode.
                instruction.rex = byte
                continue
            default: return byte
            }
            instruction.rex = 0
        }
        return nil
    }

    private enum Immediate {
        case none, one, two, three, four
        /// 4 bytes, or 2 with an operand size prefix.
        case operandSize
        /// 4 bytes, or 2 with an operand size prefix, or 8 with REX.W.
        case fullOperandSize
        /// An address: 8 bytes, or 4 with an address size prefix.
        case address
        /// Group 3 (F6, F7): only `test` has one.
        case ifTest
    }

    private mutating func vex(_ first: UInt8, _ code: borrowing RawSpan) -> Immediate? {
        guard instruction.rex == 0, let payload = byte(code) else { return nil }
        instruction.isVector = true
        instruction.rex = (~payload & 0x80) >> 5
        var map: UInt8 = 1
        if first == 0xc4 {
            guard byte(code) != nil else { return nil }
            map = payload & 0x1f
            instruction.rex |= (~payload & 0x20) >> 5
        }
        return vectorOpcode(map, code)
    }

    private mutating func evex(_ code: borrowing RawSpan) -> Immediate? {
        guard instruction.rex == 0, let payload = byte(code), byte(code) != nil, byte(code) != nil else { return nil }
        instruction.isVector = true
        return vectorOpcode(payload & 7, code)
    }

    private mutating func vectorOpcode(_ map: UInt8, _ code: borrowing RawSpan) -> Immediate? {
        guard let opcode = byte(code) else { return nil }
        instruction.opcode = opcode
        instruction.hasModRM = true
        switch map {
        case 1:
            instruction.map = .secondary
            instruction.hasModRM = opcode != 0x77  // vzeroupper, vzeroall
            return hasSecondaryImmediate(opcode) ? .one : Immediate.none
        case 2:
            instruction.map = .map38
            return Immediate.none
        case 3:
            instruction.map = .map3A
            return .one
        case 5, 6:
            instruction.map = .other
            return Immediate.none
        default: return nil
        }
    }

    private func hasSecondaryImmediate(_ opcode: UInt8) -> Bool {
        0x70...0x73 ~= opcode || opcode == 0xc2 || 0xc4...0xc6 ~= opcode
    }

    private mutating func escaped(_ code: borrowing RawSpan) -> Immediate? {
        guard let opcode = byte(code) else { return nil }
        instruction.opcode = opcode
        instruction.hasModRM = true
        switch opcode {
        case 0x38, 0x3a:
            guard let third = byte(code) else { return nil }
            instruction.opcode = third
            instruction.map = opcode == 0x38 ? .map38 : .map3A
            return opcode == 0x38 ? Immediate.none : .one
        case 0x04, 0x0a, 0x0c, 0x24...0x27, 0x36, 0x39, 0x3b...0x3f, 0xa6, 0xa7: return nil
        default: break
        }
        instruction.map = .secondary
        switch opcode {
        case 0x05...0x09, 0x0b, 0x0e, 0x30...0x37, 0x77, 0xa0...0xa2, 0xa8...0xaa, 0xc8...0xcf:
            instruction.hasModRM = false
            return Immediate.none
        case 0x80...0x8f:
            instruction.hasModRM = false
            return .four
        case 0x0f, 0xa4, 0xac, 0xba: return .one
        default: return hasSecondaryImmediate(opcode) ? .one : Immediate.none
        }
    }

    private mutating func primary(_ opcode: UInt8, _ code: borrowing RawSpan) -> Immediate? {
        instruction.opcode = opcode
        switch opcode {
        case 0x00...0x3f:
            switch opcode & 7 {
            case 0...3:
                instruction.hasModRM = true
                return Immediate.none
            case 4: return .one
            case 5: return .operandSize
            default: return nil  // push and pop of segments, decimal adjustment: not in 64-bit mode
            }
        case 0x50...0x5f, 0x6c...0x6f, 0x90...0x99, 0x9b...0x9f, 0xa4...0xa7, 0xaa...0xaf, 0xc3, 0xc9, 0xcb, 0xcc, 0xcf,
            0xd7, 0xec...0xef, 0xf1, 0xf4, 0xf5, 0xf8...0xfd:
            return Immediate.none
        case 0x63, 0x84...0x8f, 0xd0...0xd3, 0xd8...0xdf, 0xfe, 0xff:
            instruction.hasModRM = true
            return Immediate.none
        case 0x68, 0xa9: return .operandSize
        case 0x69, 0x81, 0xc7:
            instruction.hasModRM = true
            return .operandSize
        case 0x6a, 0x70...0x7f, 0xa8, 0xb0...0xb7, 0xcd, 0xe0...0xe7, 0xeb: return .one
        case 0x6b, 0x80, 0x83, 0xc0, 0xc1, 0xc6:
            instruction.hasModRM = true
            return .one
        case 0xa0...0xa3: return .address
        case 0xb8...0xbf: return .fullOperandSize
        case 0xc2, 0xca: return .two
        case 0xc8: return .three
        case 0xe8, 0xe9: return .four
        case 0xf6, 0xf7:
            instruction.hasModRM = true
            return .ifTest
        default: return nil
        }
    }

    // MARK: Operands

    private mutating func operands(_ kind: Immediate, _ code: borrowing RawSpan) -> Bool {
        if instruction.hasModRM {
            guard let modRM = byte(code) else { return false }
            instruction.modRM = modRM
            guard memory(code) else { return false }
        }
        let size: Int
        switch kind {
        case .none: size = 0
        case .one: size = 1
        case .two: size = 2
        case .three: size = 3
        case .four: size = 4
        case .operandSize: size = instruction.hasOperandSizePrefix && instruction.rex & 8 == 0 ? 2 : 4
        case .fullOperandSize: size = instruction.rex & 8 != 0 ? 8 : instruction.hasOperandSizePrefix ? 2 : 4
        case .address: size = addressSizePrefix ? 4 : 8
        case .ifTest:
            if instruction.group > 1 {
                size = 0
            } else if instruction.opcode == 0xf6 {
                size = 1
            } else {
                size = instruction.hasOperandSizePrefix && instruction.rex & 8 == 0 ? 2 : 4
            }
        }
        guard let value = number(size, code) else { return false }
        instruction.immediate = value
        return true
    }

    private mutating func memory(_ code: borrowing RawSpan) -> Bool {
        let mod = instruction.mod
        let rm = instruction.modRM & 7
        // Moves to and from control and debug registers have no memory form.
        if mod == 3 || instruction.map == .secondary && !instruction.isVector && 0x20...0x23 ~= instruction.opcode {
            return true
        }
        var base = rm
        if rm == 4 {
            guard let sib = byte(code) else { return false }
            base = sib & 7
        }
        switch mod {
        case 0 where base == 5:
            let offset = position - start
            guard let value = number(4, code) else { return false }
            if rm == 5 {
                instruction.ripDisplacementOffset = UInt8(offset)
                instruction.displacement = value
            }
            return true
        case 1: return number(1, code) != nil
        case 2: return number(4, code) != nil
        default: return true
        }
    }

    /// A little-endian number of `size` bytes, sign-extended; of eight the low four.
    private mutating func number(_ size: Int, _ code: borrowing RawSpan) -> Int32? {
        var value: UInt32 = 0
        for index in 0..<size {
            guard let byte = byte(code) else { return nil }
            if index < 4 { value |= UInt32(byte) << UInt32(8 * index) }
        }
        switch size {
        case 1: return Int32(Int8(truncatingIfNeeded: value))
        case 2: return Int32(Int16(truncatingIfNeeded: value))
        default: return Int32(bitPattern: value)
        }
    }
}
