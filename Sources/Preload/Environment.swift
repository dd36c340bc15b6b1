// The environment as ld.so hands it to an initialiser: libc's `environ` is still null then.

import CPreload

@safe struct Environment {
    let entries: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?

    init(_ entries: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) { unsafe self.entries = entries }

    /// Near the top of the main thread's stack.
    var address: UInt64 { unsafe UInt64(UInt(bitPattern: entries)) }

    /// The value of `name`, which lives as long as the process.
    func value(_ name: StaticString) -> ProgramString? {
        guard var entry = unsafe entries else { return nil }
        while let text = unsafe entry.pointee {
            var index = 0
            while index < name.utf8CodeUnitCount, unsafe UInt8(bitPattern: text[index]) == name.utf8Start[index] { index += 1 }
            if index == name.utf8CodeUnitCount, unsafe text[index] == 0x3d {
                return unsafe ProgramString(text + index + 1)
            }
            unsafe entry += 1
        }
        return nil
    }
}

extension Environment {
    /// The auxiliary vector, which follows the environment on a program's first stack: pairs of words, to (0, 0). Null if there is none.
    var auxiliaryVector: UnsafeMutablePointer<UInt64>? {
        guard var entry = unsafe entries else { return nil }
        while unsafe entry.pointee != nil { unsafe entry += 1 }
        return unsafe UnsafeMutableRawPointer(entry + 1).assumingMemoryBound(to: UInt64.self)
    }

    /// A value of the auxiliary vector, getauxval(3).
    func auxiliary(_ type: UInt64) -> UInt64? {
        guard var entry = unsafe auxiliaryVector else { return nil }
        while unsafe entry[0] != 0 {
            if unsafe entry[0] == type { return unsafe entry[1] }
            unsafe entry += 2
        }
        return nil
    }

    /// The entries whose names begin so, with their values.
    func forEach(named beginning: StaticString, _ body: (ProgramString) -> Void) {
        guard var entry = unsafe entries else { return }
        while let text = unsafe entry.pointee {
            let string = unsafe ProgramString(text)
            if string.begins(with: beginning) { body(string) }
            unsafe entry += 1
        }
    }
}

/// A string that ends in a zero byte and is never freed.
@safe struct ProgramString {
    let start: UnsafePointer<CChar>

    init(_ start: UnsafePointer<CChar>) { unsafe self.start = start }

    var address: Int64 { unsafe Int64(Int(bitPattern: start)) }
    var count: Int {
        var count = 0
        while unsafe start[count] != 0 { count += 1 }
        return count
    }

    func begins(with text: StaticString) -> Bool {
        for index in 0..<text.utf8CodeUnitCount where unsafe UInt8(bitPattern: start[index]) != text.utf8Start[index] { return false }
        return true
    }

    func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count where unsafe UInt8(bitPattern: start[index]) != text.utf8Start[index] { return false }
        return true
    }
}
