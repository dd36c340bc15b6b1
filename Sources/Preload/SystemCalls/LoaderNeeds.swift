// Whether ld.so may open files of the volume for a program before that has its constructor run: then the program gets an `EarlyInstance`, which costs it some 0.3 ms.
//
// Told from texts alone: LD_LIBRARY_PATH, LD_PRELOAD, and what the program's file says that it needs and where. One that may lead there counts; one that does not is never wrong, only
// slower. What is not looked at: what the needed libraries say that they need, and the paths in /etc/ld.so.cache.

import CPreload
import CSystem

/// What is about to be run.
@safe struct ProgramFile {
    /// By which it can be read; -1: it cannot.
    var descriptor: Int32 = -1
    /// Where in the volume it is, as the program sees it; empty: elsewhere.
    var path = PathBytes.none
    /// By what path it is started, if it is of the volume.
    var name = PathBytes.none
}

enum LoaderNeeds {
    private static let dollar: UInt8 = 0x24
    private static let colon: UInt8 = 0x3a

    /// - Parameter variables: the environment as far as it has been put together.
    static func mayReachVolume(_ program: ProgramFile, _ variables: borrowing Variables, _ memory: ProgramMemory) -> Bool {
        let isOurs = program.path.count > 0
        if any(of: string(variables.libraryPath, memory), kind: .searchPath, isOurs) { return true }
        if any(of: string(variables.preloads, memory), kind: .object, isOurs) || any(of: Configuration.preload, kind: .object, isOurs) { return true }
        guard program.descriptor >= 0, let room = unsafe variables.free.baseAddress, unsafe variables.free.count >= DynamicNames.roomBytes else { return false }
        return unsafe DynamicNames.contains(room, read: { unsafe dashfs_sys_pread(program.descriptor, $1, $2, Int64(bitPattern: $0)) }) { kind, text in
            unsafe any(of: PathBytes(text), kind: kind, isOurs)
        }
    }

    private static func string(_ address: UInt64, _ memory: ProgramMemory) -> PathBytes {
        let longest = 1 << 17  // MAX_ARG_STRLEN
        guard address != 0, let count = memory.stringLength(address, limit: longest) else { return .none }
        return unsafe PathBytes(UnsafeRawPointer(bitPattern: UInt(address)), count: count)
    }

    /// Any of the elements of a list: of directories, or of objects. ld.so(8) says what stands between them.
    private static func any(of list: PathBytes, kind: DynamicNames.Kind, _ isOurs: Bool) -> Bool {
        guard list.count > 0, let text = unsafe list.address else { return false }
        var at = 0
        while at <= list.count {
            let start = at
            var (hasDollar, hasSlash) = (false, false)
            while at < list.count, case let byte = unsafe Text.byte(text, at), byte != colon, byte != (kind == .object ? 0x20 : 0x3b) {
                hasDollar = hasDollar || byte == dollar
                hasSlash = hasSlash || byte == Text.slash
                at += 1
            }
            let element = unsafe PathBytes(text + start, count: at - start)
            at += 1
            // A name alone is looked for in directories that others name.
            if kind == .object, !hasSlash { continue }
            if hasDollar ? isOurs || Location.namesPrefix(element) : Location.mayLeadToVolume(element) { return true }
        }
        return false
    }
}

extension ProgramFile {
    /// O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY: it is only looked at, whatever it is.
    private static let flags: Int32 = 0o2000000 | 0o4000 | 0o400

    /// What a call of the kernel's names; close it.
    init(_ number: SystemCallNumber, _ call: SystemCallFrame, _ memory: ProgramMemory) {
        let openat = SystemCallNumber.openat.rawValue
        guard number == .execveat else {
            descriptor = Int32(truncatingIfNeeded: dashfs_raw_syscall6(openat, currentDirectory, call.argument0, Int64(Self.flags), 0, 0, 0))
            // The copy of a file of the volume: it stays that file.
            if OwnProgram.isLink(UInt64(bitPattern: call.argument0), memory), let link = unsafe UnsafeRawPointer(bitPattern: UInt(bitPattern: Int(call.argument0))) {
                path = OwnProgram.path
                unsafe name = PathBytes(link, count: Text.length(link))
            }
            return
        }
        let isItself = memory.stringLength(UInt64(bitPattern: call.argument1), limit: 1) == 0
        descriptor = Int32(
            truncatingIfNeeded: isItself
                ? dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, call.argument0, 1030 /* F_DUPFD_CLOEXEC */, 0)
                : dashfs_raw_syscall6(openat, call.argument0, call.argument1, Int64(Self.flags), 0, 0, 0))
    }

    func close() { if descriptor >= 0 { _ = dashfs_sys_close(descriptor) } }

    /// Goes on to the interpreter as long as the file is a script of the kernel's, as the kernel would. True: one is in the volume, which the kernel cannot do.
    /// - Parameters:
    ///   - head: gets the file's beginning, as it is.
    ///   - room: for the beginnings of the others.
    mutating func followScripts(_ head: UnsafeMutableRawPointer, _ room: UnsafeMutableRawPointer) -> Bool {
        guard descriptor >= 0, unsafe Script.readHead(descriptor, head) > 2, unsafe Script.isScript(head) else { return false }
        let chainLimit = 5
        for _ in 0..<chainLimit {
            guard let interpreter = unsafe Script.interpreter(descriptor, room) else { break }
            if unsafe Location.mayLeadToVolume(PathBytes(interpreter, count: Text.length(interpreter))) { return true }
            close()
            descriptor = Int32(truncatingIfNeeded: unsafe dashfs_sys_open(interpreter.assumingMemoryBound(to: CChar.self), Self.flags, 0))
        }
        return false
    }
}

/// A program that says by which other it is to be run: "#!interpreter [argument]".
enum Script {
    /// As much of the file as the kernel looks at.
    static let headBytes = 256

    /// The file's beginning, with a zero behind it, at `target`; how many bytes it has.
    static func readHead(_ descriptor: Int32, _ target: UnsafeMutableRawPointer) -> Int {
        let count = max(0, unsafe dashfs_sys_pread(descriptor, target, headBytes - 1, 0))
        unsafe target.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        return count
    }

    /// The interpreter's path, with its zero, in `room`; nil: it is no script.
    static func interpreter(_ descriptor: Int32, _ room: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        guard descriptor >= 0 else { return nil }
        let count = unsafe readHead(descriptor, room)
        guard count > 2, unsafe isScript(room) else { return nil }
        var start = 2
        while start < count, isBlank(unsafe Text.byte(room, start)) { start += 1 }
        var end = start
        while end < count, case let byte = unsafe Text.byte(room, end), !isBlank(byte), byte != 0x0a, byte != 0 { end += 1 }
        guard end > start else { return nil }
        unsafe room.storeBytes(of: 0, toByteOffset: end, as: UInt8.self)
        return unsafe room + start
    }

    static func isScript(_ head: UnsafeRawPointer) -> Bool { unsafe Text.byte(head, 0) == 0x23 && Text.byte(head, 1) == 0x21 }
    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
}
