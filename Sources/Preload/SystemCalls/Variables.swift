// An environment for exec, put together in memory of ours: pointers to the program's own strings, and a few strings that are ours.
//
//     pointers ->                free                <- strings
//
// The settings of `dashfs run` are added where they are missing: a program that makes its environment anew (env -i) would else start children for which the volume is not there.

import CPreload
import CSystem

@safe struct Variables {
    private let base: UnsafeMutableRawPointer
    private var pointers = 0
    private var strings: Int
    private var isFull = false
    private var hasPreload = false
    private var hasOurPreload = false
    private var preloadAddress: UInt64 = 0
    /// The program's own LD_AUDIT and GLIBC_TUNABLES; 0: not set.
    private var auditors: UInt64 = 0
    private var tunables: UInt64 = 0
    /// Its LD_PRELOAD and LD_LIBRARY_PATH, behind the equals sign; 0: not set.
    private(set) var preloads: UInt64 = 0
    private(set) var libraryPath: UInt64 = 0
    /// Bit n: the program has the nth of our settings itself.
    private var present: UInt32 = 0
    /// DASHFS_UNPATCHED is in it: the next program is to run without the library.
    private(set) var wantsNothing = false

    init(_ base: UnsafeMutableRawPointer, _ size: Int) {
        unsafe self.base = base
        strings = size
    }

    /// What is not used.
    var free: UnsafeMutableRawBufferPointer {
        let start = (pointers + 16) * 8
        return unsafe UnsafeMutableRawBufferPointer(start: base + min(start, strings), count: max(0, strings - start))
    }

    private mutating func append(_ address: UInt64) {
        guard (pointers + 16) * 8 < strings else {
            isFull = true
            return
        }
        unsafe base.storeBytes(of: address, toByteOffset: pointers * 8, as: UInt64.self)
        pointers += 1
    }

    /// The program's own array, without what an earlier exec had said. A negated errno where it cannot be read.
    mutating func copy(_ array: UInt64, _ memory: ProgramMemory) -> Int64? {
        var entry = array
        while entry != 0 {
            guard memory.isReadable(entry, 8), let slot = unsafe UnsafePointer<UInt64>(bitPattern: UInt(entry)) else { return -14 }
            let string = unsafe slot.pointee
            if string == 0 { break }
            look(string, memory)
            entry &+= 8
        }
        return isFull ? -7 : nil
    }

    private mutating func look(_ string: UInt64, _ memory: ProgramMemory) {
        if begins(string, "DASHFS_INHERITED=", memory) || begins(string, "DASHFS_EARLY=", memory) { return }
        if begins(string, "DASHFS_", memory) {
            if begins(string, "DASHFS_UNPATCHED=", memory) { wantsNothing = true }
            var found: UInt32 = 0
            forEachSetting { number, name, _ in if begins(string, name, memory) { found |= 1 << number } }
            present |= found
        }
        if begins(string, "LD_LIBRARY_PATH=", memory) { libraryPath = string &+ 16 }
        if begins(string, "LD_AUDIT=", memory), memory.stringLength(string, limit: Int(DASHFS_TEXT_CAPACITY)) ?? Int(DASHFS_TEXT_CAPACITY) < Int(DASHFS_TEXT_CAPACITY) {
            auditors = string
            return
        }
        if begins(string, "GLIBC_TUNABLES=", memory), memory.stringLength(string, limit: Int(DASHFS_TEXT_CAPACITY)) ?? Int(DASHFS_TEXT_CAPACITY) < Int(DASHFS_TEXT_CAPACITY) {
            tunables = string
            return
        }
        if begins(string, "LD_PRELOAD=", memory) {
            hasPreload = true
            let address = string &+ 11
            preloads = address
            if let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)), names(address, length) {
                hasOurPreload = true
            } else {
                preloadAddress = address
                return
            }
        }
        append(string)
    }

    private func begins(_ string: UInt64, _ name: StaticString, _ memory: ProgramMemory) -> Bool {
        unsafe begins(string, PathBytes(name.utf8Start, count: name.utf8CodeUnitCount), memory)
    }

    private func begins(_ string: UInt64, _ name: PathBytes, _ memory: ProgramMemory) -> Bool {
        guard let text = unsafe name.address else { return false }
        for index in 0..<name.count {
            let address = string &+ UInt64(index)
            guard index != 0 && address % 4096 != 0 || memory.isReadable(address, 1),
                let byte = unsafe UnsafePointer<UInt8>(bitPattern: UInt(address)), unsafe byte.pointee == Text.byte(text, index)
            else { return false }
        }
        return true
    }

    /// What `dashfs run` has set: a number, the name with its equals sign, the address of all of it.
    private func forEachSetting(_ body: (UInt32, PathBytes, UInt64) -> Void) {
        let settings = Configuration.settings
        guard let text = unsafe settings.address else { return }
        var at = 0
        var number: UInt32 = 0
        while at < settings.count, number < 32 {
            var name = at
            while name < settings.count, unsafe Text.byte(text, name) != 0x3d { name += 1 }
            unsafe body(number, PathBytes(text + at, count: name + 1 - at), UInt64(UInt(bitPattern: text + at)))
            while at < settings.count, unsafe Text.byte(text, at) != 0 { at += 1 }
            at += 1
            number += 1
        }
    }

    /// Whether the text at `address` has what LD_PRELOAD was when this program began.
    private func names(_ address: UInt64, _ length: Int) -> Bool {
        let ours = Configuration.preload
        guard let text = unsafe ours.address, let given = unsafe UnsafeRawPointer(bitPattern: UInt(address)), ours.count > 0, length >= ours.count else { return false }
        for start in 0...length - ours.count where unsafe Text.equal(given + start, text, ours.count) { return true }
        return false
    }

    /// Adds of `dashfs run`'s settings those that are missing.
    mutating func keepSettings() {
        if !hasOurPreload, Configuration.preload.count > 0 { addPreload() }
        let present = present
        var missing = InlineArray<32, UInt64>(repeating: 0)
        var count = 0
        forEachSetting { number, _, address in
            guard present & 1 << number == 0 else { return }
            missing[count] = address
            count += 1
        }
        for index in 0..<count { append(missing[index]) }
    }

    private mutating func addPreload() {
        let theirs = hasPreload ? Self.text(preloadAddress) : .none
        addList("LD_PRELOAD=", Configuration.preload, theirs)
    }

    /// What the program has of LD_AUDIT itself, and before it this library where it is needed (`EarlyInstance`): what others are looked for in may be in the volume, too.
    mutating func keepAuditors(withOurs: Bool) {
        if withOurs {
            addList("LD_AUDIT=", Configuration.library, auditors == 0 ? .none : Self.text(auditors &+ 9))
            let room = EarlyInstance.threadStorage
            unsafe addList("GLIBC_TUNABLES=", PathBytes(room.utf8Start, count: room.utf8CodeUnitCount), tunables == 0 ? .none : Self.text(tunables &+ 15))
        } else {
            if auditors != 0 { append(auditors) }
            if tunables != 0 { append(tunables) }
        }
    }

    /// What LD_PRELOAD or another variable of the program says, whose beginning has been read.
    private static func text(_ address: UInt64) -> PathBytes {
        guard let given = unsafe UnsafePointer<UInt8>(bitPattern: UInt(address)) else { return .none }
        var length = 0
        while unsafe given[length] != 0, length < Int(DASHFS_TEXT_CAPACITY) { length += 1 }
        return unsafe PathBytes(UnsafeRawPointer(given), count: length)
    }

    /// A variable of two texts with a colon between them.
    private mutating func addList(_ name: StaticString, _ first: PathBytes, _ second: PathBytes) {
        guard let at = unsafe take(name.utf8CodeUnitCount + first.count + second.count + 2) else { return }
        var length = 0
        unsafe write(PathBytes(name.utf8Start, count: name.utf8CodeUnitCount), at, &length)
        unsafe write(first, at, &length)
        if first.count > 0, second.count > 0 {
            unsafe at.storeBytes(of: 0x3a, toByteOffset: length, as: UInt8.self)
            length += 1
        }
        unsafe write(second, at, &length)
        unsafe at.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
    }

    /// The variable of `Handover`.
    mutating func add(_ name: StaticString, _ survivors: Survivors, _ head: Handover.Head, _ directory: PathBytes, _ program: ProgramFile) {
        guard survivors.isWhole, let at = unsafe take(name.utf8CodeUnitCount + 180 + survivors.count + directory.count + program.path.count + program.name.count + 2) else {
            isFull = true
            return
        }
        var length = 0
        unsafe write(PathBytes(name.utf8Start, count: name.utf8CodeUnitCount), at, &length)
        func put(_ value: UInt64, isNegative: Bool = false) {
            if isNegative {
                unsafe at.storeBytes(of: 0x2d, toByteOffset: length, as: UInt8.self)
                length += 1
            }
            unsafe length += Text.write(number: value, to: at + length)
            unsafe at.storeBytes(of: 0x20, toByteOffset: length, as: UInt8.self)
            length += 1
        }
        put(head.inode)
        put(head.connection.magnitude, isNegative: head.connection < 0)
        put(head.kind)
        put(head.key.0)
        put(head.key.1)
        put(head.isCut ? 1 : 0)
        put(UInt64(directory.count))
        put(UInt64(program.path.count))
        unsafe write(PathBytes(survivors.text.baseAddress.map { UnsafeRawPointer($0) }, count: survivors.count), at, &length)
        unsafe at.storeBytes(of: 0x3a, toByteOffset: length, as: UInt8.self)
        length += 1
        unsafe write(directory, at, &length)
        unsafe write(program.path, at, &length)
        unsafe write(program.name, at, &length)
        unsafe at.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
    }

    /// Room for a string, which becomes one of the variables.
    private mutating func take(_ count: Int) -> UnsafeMutableRawPointer? {
        guard strings - count > (pointers + 16) * 8 else {
            isFull = true
            return nil
        }
        strings -= count
        let place = unsafe base + strings
        append(UInt64(UInt(bitPattern: place)))
        return unsafe place
    }

    private func write(_ text: PathBytes, _ target: UnsafeMutableRawPointer, _ length: inout Int) {
        guard text.count > 0, let source = unsafe text.address else { return }
        unsafe dashfs_copy(target + length, source, text.count)
        length += text.count
    }

    /// The array's address; nil: it did not fit.
    mutating func finish() -> UInt64? {
        append(0)
        if isFull { return nil }
        return unsafe UInt64(UInt(bitPattern: base))
    }
}
