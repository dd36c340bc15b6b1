// What a program that is about to be replaced by exec tells its successor, in the environment variable
//
//     DASHFS_INHERITED=<inode of the working directory, 0: the kernel's> <connection> <kind> <key> <key> <cut> <length> <length> <descriptors>:<working directory><program><name>
//
// all numbers decimal. The descriptors are <number>=<handle>=<mode>=<inode>, each followed by a comma; number 65536 is the working directory, and 65537 says
// that exec has closed one of several descriptors of this handle, and with it the process's record locks on the file. A handle of -1 is lost: every call on it fails
// with EBADF, as a placeholder it would mislead fstat(2) and its like. A handle of -2: it is the same file as the descriptor at the place of the mode, which comes before it. The connection keeps the handles open (`Legacy`); it is -1 where there are none. `cut` is 1 where the session has more
// open than is named: the successor then takes the rest over at once, so that what was close-on-exec is closed. The lengths are those of the texts behind the colon: the
// working directory, the new program's path if it is a file of the volume, and the path by which that was started.
//
// The successor reopens a working directory that has no handle by its path, and only if that still is the same inode. Also here: that what `dashfs run` has set survives a program
// that makes its environment anew, unless DASHFS_UNPATCHED is in it.

import CPreload
import CSystem

enum Handover {
    private static var name: StaticString { "DASHFS_INHERITED=" }
    /// In the list of descriptors.
    private static var directory: UInt64 { UInt64(DASHFS_DESCRIPTOR_LIMIT) }
    private static var closed: UInt64 { directory + 1 }
    private static var sameAsBefore: Int64 { -2 }

    // MARK: In the new program

    /// - Parameter early: only what ld.so's calls need is looked at, and all is left as it is for the program's own instance (`EarlyInstance`).
    static func take(_ environment: Environment, early: Bool) {
        guard let value = environment.value("DASHFS_INHERITED") else { return }
        let count = value.count
        let text = unsafe UnsafeMutableRawPointer(mutating: UnsafeRawPointer(value.start))
        var reader = unsafe Reader(text: UnsafeRawPointer(text), count: count)
        let head = (reader.number(), reader.number(), reader.number(), reader.number(), reader.number(), reader.number())
        let (directoryLength, programLength) = (Int(reader.number()), Int(reader.number()))
        let isLegacy = head.1 >= 0
        let list = reader
        var isAnyClosed = false
        while let number = reader.optionalNumber(), number <= Int64(closed) {
            let (handle, mode, inode) = (reader.number(), reader.number(), reader.number())
            if early { continue }
            if number == Int64(closed) {
                isAnyClosed = true
                continue
            }
            let isKnown = isLegacy && handle >= 0
            // What dup made are descriptors of one description, here as well: closing one of them closes nothing.
            let shared = handle == sameAsBefore ? Descriptors.pin(mode) : nil
            guard
                let description = shared
                    ?? Descriptors.make(
                        handle: Int32(truncatingIfNeeded: handle), mode: UInt32(truncatingIfNeeded: mode), inode: UInt64(bitPattern: inode),
                        generation: isKnown ? Connection.generation : 0)
            else { continue }
            if number == Int64(directory) { Descriptors.setDirectory(description) } else { Descriptors.install(description, at: number) }
        }
        reader.skip()
        guard directoryLength >= 0, programLength >= 0, reader.at <= count, directoryLength <= count - reader.at, programLength <= count - reader.at - directoryLength else { return }
        if head.0 != 0 { unsafe WorkingDirectory.inherit(PathBytes(UnsafeRawPointer(text) + reader.at, count: directoryLength), inode: UInt64(bitPattern: head.0)) }
        let program = reader.at + directoryLength
        let name = program + programLength
        unsafe OwnProgram.inherit(PathBytes(UnsafeRawPointer(text) + program, count: programLength), name: PathBytes(UnsafeRawPointer(text) + name, count: count - name))
        if isLegacy || programLength > 0 { Connection.expectServer() }
        if early { return }
        if isLegacy {
            let connection = Int32(truncatingIfNeeded: head.1)
            _ = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(connection), 2 /* F_SETFD */, 1)
            Legacy.set((UInt64(bitPattern: head.3), UInt64(bitPattern: head.4)), socket: connection, head.2 == 1 ? .session : .bundle)
        }
        if isLegacy, isAnyClosed { releaseClosed(list) }
        // The key is not for children to read.
        for index in 0..<count { unsafe text.storeBytes(of: 0x30, toByteOffset: index, as: UInt8.self) }
        if isLegacy, head.2 == 1 { RecordLocks.mayBeHeld() }
        if isLegacy, head.5 == 1 { _ = Connection.session() }
    }

    /// Where the handle has no other descriptor the server closes it, and releases the locks, by itself.
    private static func releaseClosed(_ list: Reader) {
        var reader = list
        guard let session = Connection.session().session else { return }
        while let number = reader.optionalNumber(), number <= Int64(closed) {
            let handle = Int32(truncatingIfNeeded: reader.number())
            _ = (reader.number(), reader.number())
            guard number == Int64(closed), let description = Descriptors.find(handle: handle) else { continue }
            RecordLocks.releaseAll(session, handle)
            description.release()
        }
    }

    /// Decimal numbers, each with one byte behind it.
    @safe private struct Reader {
        let text: UnsafeRawPointer
        let count: Int
        var at = 0

        init(text: UnsafeRawPointer, count: Int) {
            unsafe self.text = text
            self.count = count
        }

        mutating func optionalNumber() -> Int64? {
            let isNegative = unsafe at < count && Text.byte(text, at) == 0x2d
            let start = isNegative ? at + 1 : at
            guard start < count, let (value, digits) = unsafe Text.number(text + start, count - start) else { return nil }
            at = start + digits + 1
            let magnitude = Int64(bitPattern: value)
            return isNegative ? 0 &- magnitude : magnitude
        }
        mutating func number() -> Int64 { optionalNumber() ?? -1 }
        mutating func skip() { at += 1 }
    }

    // MARK: In the old one

    /// What has been made ready for an exec, to be undone if that fails.
    struct Preparation {
        /// The environment.
        var variables: UInt64 = 0
        var error: Int64 = 0
        /// A bundle's connection that was made for this exec; -1: none.
        fileprivate var bundle: Int32 = -1
        /// A connection that was close-on-exec before; -1: none.
        fileprivate var kept: Int32 = -1

        func undo() {
            if bundle >= 0 { _ = dashfs_sys_close(bundle) }
            if kept >= 0 { _ = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(kept), 2 /* F_SETFD */, 1) }
        }
    }

    /// - Parameters:
    ///   - program: what is run.
    ///   - room: memory that outlives the call, `size` bytes of it.
    static func prepare(variables: UInt64, _ program: ProgramFile, _ room: UnsafeMutableRawPointer, _ size: Int, _ memory: ProgramMemory) -> Preparation {
        var preparation = Preparation()
        var list = unsafe Variables(room, size)
        if let error = list.copy(variables, memory) {
            preparation.error = error
            return preparation
        }
        if list.wantsNothing {
            preparation.variables = variables
            return preparation
        }
        list.keepSettings()
        let isEarly = LoaderNeeds.mayReachVolume(program, list, memory)
        list.keepAuditors(withOurs: isEarly && Configuration.library.count > 0)
        compose(&list, program, &preparation)
        guard let address = list.finish() else {
            preparation.undo()
            preparation.error = -7
            return preparation
        }
        preparation.variables = address
        return preparation
    }

    fileprivate static func survivesExec(_ number: UInt32) -> Bool {
        let flags = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(number), 1 /* F_GETFD */, 0)
        return flags >= 0 && flags & 1 == 0
    }

    /// Adds our variable, if there is anything to say, and makes ready what keeps the files open meanwhile.
    private static func compose(_ list: inout Variables, _ program: ProgramFile, _ preparation: inout Preparation) {
        guard let scratch = Scratch(), let named = NamedDescriptions() else { return }
        let handles = unsafe scratch.base.assumingMemoryBound(to: Int32.self)
        let limit = Descriptors.filesLimit
        // What only maps keep open ends with them.
        var (count, isCut, isAny) = (0, Maps.mayKeepFiles, false)
        var survivors = unsafe Survivors(list.free)
        for number in 0...Descriptors.end {
            let isDirectory = number == Descriptors.end
            if isDirectory ? unsafe !WorkingDirectory.isOurs || ThreadBlock.directory != nil : !Descriptors.isFile(Int64(number)) { continue }
            guard let file = Descriptors.pin(entry: isDirectory ? Descriptors.directoryEntry : number) else { continue }
            defer { file.release() }
            let isKnown = file.generation == Connection.generation && count < limit
            guard isDirectory || survivesExec(number) else {
                isCut = isCut || isKnown
                // Whose handle nothing else has is closed by the server, with its locks.
                if isKnown, RecordLocks.used, !Connection.isBorrowed, file.isShared { survivors.add(closed, handle: Int64(file.handle), file.mode, file.inode) }
                continue
            }
            isAny = true
            if let first = named.first(number, file) {
                survivors.add(isDirectory ? directory : UInt64(number), handle: sameAsBefore, first, 0)
                continue
            }
            if isKnown {
                unsafe handles[count] = file.handle
                count += 1
            }
            survivors.add(isDirectory ? directory : UInt64(number), handle: isKnown ? Int64(file.handle) : -1, file.mode, file.inode)
        }
        var head = Head()
        if count > 0 || RecordLocks.used && !Connection.isBorrowed {
            head = unsafe keep(Inheritance(key: (0, 0), handles: handles, count: count), isCut: isCut, &preparation)
        }
        guard isAny || WorkingDirectory.isOurs || head.connection >= 0 || program.path.count > 0 else { return }
        head.inode = WorkingDirectory.isOurs ? WorkingDirectory.inode : 0
        list.add(name, survivors, head, WorkingDirectory.isOurs ? WorkingDirectory.text : .none, program)
    }

    /// Keeps open what is handed on until the successor asks for it.
    private static func keep(_ files: Inheritance, isCut: Bool, _ preparation: inout Preparation) -> Head {
        var head = Head()
        if Legacy.isThere, Connection.isBorrowed ? Legacy.kind == .bundle : !isCut {
            // Not taken over yet: it goes on as it is.
            (head.connection, head.kind, head.key) = (Int64(Legacy.socket), Legacy.kind.rawValue, Legacy.key)
            preparation.kept = Legacy.socket
        } else if Connection.isBorrowed {
            guard let session = Connection.existing, let made = Connection.makeBundle(of: files, session) else { return head }
            (head.connection, head.key) = (Int64(made.socket), made.key)
            preparation.bundle = made.socket
        } else {
            guard let session = Connection.sessionOfFiles() else { return head }
            (head.connection, head.kind, head.key) = (Int64(session.socket), Legacy.Kind.session.rawValue, session.key)
            head.isCut = isCut
            preparation.kept = session.socket
        }
        _ = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, head.connection, 2 /* F_SETFD */, 0)
        return head
    }

    /// The numbers at the beginning.
    struct Head {
        var inode: UInt64 = 0
        var connection: Int64 = -1
        var kind: UInt64 = 0
        var key: (UInt64, UInt64) = (0, 0)
        var isCut = false
    }
}

/// Which descriptions the list of descriptors has already: a bit for each, so that it costs the same however many there are.
private struct NamedDescriptions: ~Copyable {
    private let scratch: Scratch

    init?() {
        guard Int(DASHFS_DESCRIPTION_LIMIT) / 8 <= Scratch.bytes, let scratch = Scratch() else { return nil }
        let words = unsafe UnsafeMutableRawBufferPointer(start: scratch.base, count: Int(DASHFS_DESCRIPTION_LIMIT) / 8)
        unsafe words.initializeMemory(as: UInt64.self, repeating: 0)
        self.scratch = scratch
    }

    /// The first descriptor that survives of a description that has been named; else nil, and it is named from here on.
    func first(_ number: UInt32, _ file: Description) -> UInt32? {
        let word = unsafe scratch.base + Int(file.index / 8)
        let (bits, bit) = (unsafe word.load(as: UInt8.self), UInt8(1) << UInt8(truncatingIfNeeded: file.index % 8))
        unsafe word.storeBytes(of: bits | bit, as: UInt8.self)
        if bits & bit == 0 { return nil }
        for earlier in 0..<number where Descriptors.isFile(Int64(earlier), of: file) && Handover.survivesExec(earlier) { return earlier }
        return nil
    }
}

/// The list of descriptors as text, put together at the beginning of the room that is left, out of the way of the strings, which grow from its end.
@safe struct Survivors {
    private(set) var text: UnsafeMutableRawBufferPointer
    private(set) var count = 0
    private(set) var isWhole = true

    init(_ room: UnsafeMutableRawBufferPointer) {
        unsafe text = UnsafeMutableRawBufferPointer(rebasing: room[..<max(0, room.count / 2 - 13312)])
    }

    mutating func add(_ number: UInt64, handle: Int64, _ mode: UInt32, _ inode: UInt64) {
        guard let base = unsafe text.baseAddress, unsafe count + 80 < text.count else {
            isWhole = false
            return
        }
        func put(_ value: UInt64, _ end: UInt8, _ at: inout Int) {
            unsafe at += Text.write(number: value, to: base + at)
            unsafe base.storeBytes(of: end, toByteOffset: at, as: UInt8.self)
            at += 1
        }
        put(number, 0x3d, &count)
        if handle < 0 {
            unsafe base.storeBytes(of: 0x2d, toByteOffset: count, as: UInt8.self)
            count += 1
        }
        put(handle.magnitude, 0x3d, &count)
        put(UInt64(mode), 0x3d, &count)
        put(inode, 0x2c, &count)
    }
}
