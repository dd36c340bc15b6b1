// Calls that name files by paths: where each has its paths, and what becomes of a path that leads out of the volume.
//
// A path of the kernel's leaves the call as it is. A path of ours is asked of the server; if that answers with a text to be resolved outside
// (`WireCompletion.escape`), the text takes the path's place and the call starts again, 40 times at most, as a chain of symbolic links would.

import CPreload
import CSystem

/// Which arguments of a call are a path and the directory descriptor it starts from (nil: none, the working directory).
struct PathArguments {
    var directory: Int?
    var path: Int
    var secondDirectory: Int?
    var secondPath: Int?

    static func one(_ path: Int) -> PathArguments { PathArguments(directory: nil, path: path) }
    static func one(_ directory: Int, _ path: Int) -> PathArguments { PathArguments(directory: directory, path: path) }

    init(directory: Int?, path: Int, secondDirectory: Int? = nil, secondPath: Int? = nil) {
        self.directory = directory
        self.path = path
        self.secondDirectory = secondDirectory
        self.secondPath = secondPath
    }

    init?(_ number: SystemCallNumber) {
        switch number {
        case .open, .stat, .lstat, .access, .execve, .truncate, .chdir, .mkdir, .rmdir, .creat, .unlink, .readlink, .chmod,
            .chown, .lchown, .utime, .mknod, .statfs, .chroot, .setxattr, .lsetxattr, .getxattr, .lgetxattr, .listxattr,
            .llistxattr, .removexattr, .lremovexattr, .utimes:
            self = .one(0)
        case .openat, .mkdirat, .mknodat, .fchownat, .futimesat, .newfstatat, .unlinkat, .readlinkat, .fchmodat, .faccessat,
            .utimensat, .name_to_handle_at, .execveat, .statx, .openat2, .faccessat2, .fchmodat2, .setxattrat, .getxattrat,
            .listxattrat, .removexattrat:
            self = .one(0, 1)
        case .symlink, .inotify_add_watch: self = .one(1)
        case .symlinkat: self = .one(1, 2)
        case .fanotify_mark: self = .one(3, 4)
        case .rename, .link: self = PathArguments(directory: nil, path: 0, secondDirectory: nil, secondPath: 1)
        case .renameat, .renameat2, .linkat: self = PathArguments(directory: 0, path: 1, secondDirectory: 2, secondPath: 3)
        default: return nil
        }
    }
}

extension SystemCallFrame {
    func argument(_ index: Int) -> Int64 {
        switch index {
        case 0: argument0
        case 1: argument1
        case 2: argument2
        case 3: argument3
        case 4: argument4
        default: argument5
        }
    }

    mutating func setArgument(_ index: Int, _ value: Int64) {
        switch index {
        case 0: argument0 = value
        case 1: argument1 = value
        case 2: argument2 = value
        case 3: argument3 = value
        case 4: argument4 = value
        default: argument5 = value
        }
    }
}

enum PathCalls {
    private static let chainLimit = 40
    static let emptyPath: UInt32 = 0x1000
    static let symlinkNoFollow: UInt32 = 0x100

    /// The call's result, or nil: it takes no path, or none of ours.
    static func answer(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard let arguments = PathArguments(number) else { return nil }
        if number == .openat2 {
            var limited = frame
            switch OpenHow.prepare(&limited, memory) {
            case .answered(let result): return result
            case .kernel: return nil
            case .asItIs: return answer(number, limited, arguments, memory)
            }
        }
        return answer(number, frame, arguments, memory)
    }

    private static func answer(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ arguments: PathArguments, _ memory: ProgramMemory
    ) -> Int64? {
        if arguments.secondPath != nil {
            let result = answerTwo(number, frame, arguments, memory)
            return result == -ErrorNumber.io && Connection.isOver ? answerTwo(number, frame, arguments, memory) : result
        }
        if let result = withoutPath(number, frame, memory) { return result }
        let rules = rules(number, frame)
        let location = Location.find(
            directory(frame, arguments.directory), UInt64(bitPattern: frame.argument(arguments.path)), memory,
            allowsEmpty: rules.allowsEmpty, follows: rules.follows)
        switch location.kind {
        case .kernel: return nil
        case .error: return badArgument(number, frame, memory) ?? location.error
        case .ours: break
        }
        let result = answerOne(number, frame, arguments, location, memory)
        // The server has died under it: the next one is asked, as soon as there is one (`Connection`).
        return result == -ErrorNumber.io && Connection.isOver ? answer(number, frame, memory) : result
    }

    /// What the kernel finds wrong with a call's other arguments before it looks at the path.
    private static func badArgument(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        func flags(_ value: Int64, allowed: UInt32) -> Int64? {
            UInt32(truncatingIfNeeded: value) & ~allowed == 0 ? nil : -ErrorNumber.invalid
        }
        switch number {
        case .open: return openFlags(frame.argument1)
        case .openat: return openFlags(frame.argument2)
        case .openat2:
            let how = OpenHow(frame, memory)
            if how.error == 0 { return openFlags(Int64(bitPattern: how.flags)) }
            return how.error == -ErrorNumber.again ? nil : how.error
        case .unlinkat: return flags(frame.argument2, allowed: 0x200)
        case .access: return flags(frame.argument1, allowed: 7)
        case .faccessat: return flags(frame.argument2, allowed: 7)
        case .faccessat2: return flags(frame.argument2, allowed: 7) ?? flags(frame.argument3, allowed: 0x1300)
        case .newfstatat: return flags(frame.argument3, allowed: 0x1900)
        case .fchmodat2, .utimensat: return flags(frame.argument3, allowed: 0x1100)
        case .fchownat: return flags(frame.argument4, allowed: 0x1100)
        case .setxattr, .lsetxattr: return flags(frame.argument4, allowed: 3)
        case .mknod, .mknodat:
            let mode = number == .mknod ? frame.argument1 : frame.argument2
            return mode & 0o170000 == 0o040000 ? -1 : nil
        case .symlink, .symlinkat:
            guard let target = AttributeCalls.text(UInt64(bitPattern: frame.argument0), memory) else { return -14 }
            return target.count > Layout.pathLimit ? -ErrorNumber.nameTooLong : target.count == 0 ? -ErrorNumber.noEntry : nil
        default: return nil
        }
    }

    /// O_TMPFILE wants to write, and O_CREAT makes no directories.
    private static func openFlags(_ value: Int64) -> Int64? {
        let flags = UInt32(truncatingIfNeeded: value)
        let isTemporary = flags & OpenFlags.temporary == OpenFlags.temporary
        if isTemporary ? flags & 3 == 0 : flags & (OpenFlags.create | OpenFlags.directory) == OpenFlags.create | OpenFlags.directory,
            flags & OpenFlags.pathOnly == 0
        {
            return -ErrorNumber.invalid
        }
        return nil
    }

    private static func directory(_ frame: SystemCallFrame, _ index: Int?) -> Int64 {
        index.map { frame.argument($0) } ?? currentDirectory
    }

    /// utimensat(2) takes no path at all for futimens(3).
    private static func withoutPath(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard number == .utimensat || number == .futimesat, frame.argument1 == 0, Descriptors.isFile(frame.argument0) else { return nil }
        return onFile(frame.argument0) { channel, place, file in
            if file.isPathOnly { return WireCompletion(result: -ErrorNumber.badDescriptor) }
            return AttributeCalls.perform(number, frame, channel, place, memory)
        }
    }

    /// Whether an empty path means the descriptor, and whether a link at the end is followed (as far as that is known before the work).
    static func rules(_ number: SystemCallNumber, _ frame: SystemCallFrame) -> (allowsEmpty: Bool, follows: Bool) {
        func flags(_ value: Int64) -> (Bool, Bool) {
            let flags = UInt32(truncatingIfNeeded: value)
            return (flags & emptyPath != 0, flags & symlinkNoFollow == 0)
        }
        switch number {
        case .newfstatat, .faccessat2, .fchmodat2, .utimensat: return flags(frame.argument3)
        case .statx: return flags(frame.argument2)
        case .fchownat, .execveat, .name_to_handle_at: return flags(frame.argument4)
        case .setxattrat, .getxattrat, .listxattrat, .removexattrat: return flags(frame.argument2)
        case .readlinkat: return (true, false)
        case .open: return (false, UInt32(truncatingIfNeeded: frame.argument1) & OpenFlags.noFollow == 0)
        case .openat: return (false, UInt32(truncatingIfNeeded: frame.argument2) & OpenFlags.noFollow == 0)
        case .readlink, .lstat, .unlink, .unlinkat, .rmdir, .mkdir, .mkdirat, .symlink, .symlinkat, .mknod, .mknodat, .lchown, .lsetxattr,
            .lgetxattr, .llistxattr, .lremovexattr:
            return (false, false)
        default: return (false, true)
        }
    }

    @inline(__always)
    private static func answerOne(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ arguments: PathArguments, _ location: Location, _ memory: ProgramMemory
    ) -> Int64 {
        let completion = unsafe perform(number, frame, location, memory, nil)
        if completion.result == Execution.ready { return Execution.finish(number, frame, completion, memory) }
        if completion.result == NamedPipes.ready { return openPipe(completion, number, frame, memory) }
        if completion.result != WireCompletion.escape { return completion.result }
        return followOut(number, frame, arguments, memory)
    }

    @inline(never)
    private static func openPipe(_ prepared: WireCompletion, _ number: SystemCallNumber, _ call: SystemCallFrame, _ memory: ProgramMemory) -> Int64 {
        NamedPipes.open(prepared, Opening(number, call, memory)?.flags ?? 0)
    }

    /// Asks the server. `text` receives what an escape leaves to be resolved, 4096 bytes.
    private static func perform(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ location: Location, _ memory: ProgramMemory, _ text: UnsafeMutableRawPointer?
    ) -> WireCompletion {
        defer { location.release() }
        guard let session = location.session, let channel = session.acquire() else { return WireCompletion(result: -ErrorNumber.io) }
        defer { session.release(channel) }
        var completion: WireCompletion
        if number == .chdir {
            completion = WorkingDirectory.enter(location.place, from: location.description, session, channel)
        } else if let opening = Opening(number, frame, memory) {
            completion = open(opening, location, session, channel)
        } else if Execution.isExec(number) {
            completion = Execution.prepare(number, frame, location.place, channel)
        } else {
            completion = AttributeCalls.perform(number, frame, channel, location.place, memory)
        }
        if completion.result == WireCompletion.escape, let text = unsafe text {
            completion.info0 = UInt64(unsafe outside(channel.remainder(of: completion), text))
        }
        return completion
    }

    /// The text of an escape as an absolute path with its zero, at `target`; its length, 0 where it is too long.
    private static func outside(_ remainder: UnsafeRawBufferPointer, _ target: UnsafeMutableRawPointer) -> Int {
        guard remainder.count > 0, let start = remainder.baseAddress else { return 0 }
        var length = 0
        var skipped = 0
        if unsafe Text.byte(start, 0) != Text.slash {
            // "..", at the volume's root: the directory that the prefix is in.
            let parent = Configuration.prefixParent
            if let address = unsafe parent.address { unsafe dashfs_copy(target, address, parent.count) }
            length = parent.count
            skipped = min(2, remainder.count)
            if skipped == remainder.count, length == 0 {
                unsafe target.storeBytes(of: Text.slash, as: UInt8.self)
                length = 1
            }
        }
        let rest = remainder.count - skipped
        guard length + rest <= Layout.pathLimit else { return 0 }
        unsafe dashfs_copy(target + length, start + skipped, rest)
        unsafe target.storeBytes(of: 0, toByteOffset: length + rest, as: UInt8.self)
        return length + rest
    }

    @inline(never)
    private static func followOut(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ arguments: PathArguments, _ memory: ProgramMemory
    ) -> Int64 {
        var call = frame
        if Execution.isExec(number) {
            guard let room = unsafe Execution.pathRoom else { return -ErrorNumber.noMemory }
            let completion = unsafe walk(number, &call, arguments, memory, room)
            if completion.result == Execution.ready { return Execution.finish(number, call, completion, memory) }
            return completion.result == WireCompletion.escape ? Execution.kernel(number, call, memory) : completion.result
        }
        guard let scratch = Scratch() else { return -ErrorNumber.noMemory }
        let completion = unsafe walk(number, &call, arguments, memory, scratch.base)
        if completion.result == NamedPipes.ready { return openPipe(completion, number, call, memory) }
        return completion.result == WireCompletion.escape ? kernel(number, call) : completion.result
    }

    /// Follows texts that lead out, each taking the path's place in `call`, in `text`. An escape: what the call has become is the kernel's.
    private static func walk(
        _ number: SystemCallNumber, _ call: inout SystemCallFrame, _ arguments: PathArguments, _ memory: ProgramMemory, _ text: UnsafeMutableRawPointer
    ) -> WireCompletion {
        let address = UInt64(UInt(bitPattern: text))
        var location = Location.find(
            directory(call, arguments.directory), UInt64(bitPattern: call.argument(arguments.path)), memory, allowsEmpty: true)
        for _ in 0..<chainLimit {
            switch location.kind {
            case .kernel: return WireCompletion(result: WireCompletion.escape)
            case .error: return WireCompletion(result: location.error)
            case .ours: break
            }
            let completion = unsafe perform(number, call, location, memory, text)
            if completion.result != WireCompletion.escape { return completion }
            guard completion.info0 != 0 else { return WireCompletion(result: -ErrorNumber.nameTooLong) }
            call.setArgument(arguments.path, Int64(bitPattern: address))
            if let index = arguments.directory { call.setArgument(index, currentDirectory) }
            location = Location.find(currentDirectory, address, memory)
        }
        return WireCompletion(result: -40)
    }

    /// The call, as it has become, made by the kernel.
    private static func kernel(_ number: SystemCallNumber, _ call: SystemCallFrame) -> Int64 {
        let result = dashfs_raw_syscall6(
            call.number, call.argument0, call.argument1, call.argument2, call.argument3, call.argument4, call.argument5)
        if number == .chdir, result == 0 { WorkingDirectory.leave() }
        return result
    }

    // MARK: Two paths

    private static func answerTwo(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ arguments: PathArguments, _ memory: ProgramMemory
    ) -> Int64? {
        guard let secondPath = arguments.secondPath else { return nil }
        let flags = number == .linkat || number == .renameat2 ? UInt32(truncatingIfNeeded: frame.argument4) : 0
        let isLink = number == .link || number == .linkat
        var scratch: Optional<UnsafeMutableRawPointer> = nil
        var call = frame
        var block: UInt32?
        defer { if let block { unsafe dashfs_store32_release(dashfs_scratch_word(block), 0) } }
        for round in 0..<chainLimit {
            let old = Location.find(
                directory(call, arguments.directory), UInt64(bitPattern: call.argument(arguments.path)), memory,
                allowsEmpty: isLink && flags & emptyPath != 0, follows: isLink && flags & 0x400 != 0)
            let new = Location.find(
                directory(call, arguments.secondDirectory), UInt64(bitPattern: call.argument(secondPath)), memory, follows: false)
            if old.kind == .kernel, new.kind == .kernel { return round == 0 ? nil : kernel(number, call) }
            defer {
                old.release()
                new.release()
            }
            if isLink, flags & ~(emptyPath | 0x400) != 0 { return -ErrorNumber.invalid }
            // RENAME_EXCHANGE (2) goes with nothing else.
            if !isLink, flags & ~7 != 0 || flags & 2 != 0 && flags & 5 != 0 { return -ErrorNumber.invalid }
            if old.kind == .error { return old.error }
            guard old.kind == .ours, new.kind == .ours else {
                return Boundary.answer(number, call, old, new, isLink: isLink, memory)
            }
            guard old.isOfSession(new) else { return Boundary.crossing }
            guard let session = old.session, let channel = session.acquire() else { return -ErrorNumber.io }
            defer { session.release(channel) }
            let completion: WireCompletion
            if isLink {
                // Through /proc/self/fd a descriptor has become a place without a path.
                completion = channel.link(old.place, to: new.place, flags: old.place.path.count == 0 ? flags | emptyPath : flags)
            } else {
                completion = channel.rename(old.place, to: new.place, flags: flags)
            }
            if completion.result != WireCompletion.escape { return completion.result }
            if unsafe scratch == nil {
                guard let index = Scratch.claim() else { return -ErrorNumber.noMemory }
                block = index
                unsafe scratch = UnsafeMutableRawPointer(dashfs_scratch_block(index))
            }
            guard let base = unsafe scratch else { return -ErrorNumber.noMemory }
            let isSecond = completion.info1 == 1
            let target = unsafe base + (isSecond ? Int(DASHFS_TEXT_CAPACITY) : 0)
            guard unsafe outside(channel.remainder(of: completion), target) > 0 else { return -ErrorNumber.nameTooLong }
            call.setArgument(isSecond ? secondPath : arguments.path, Int64(Int(bitPattern: target)))
            if let index = isSecond ? arguments.secondDirectory : arguments.directory { call.setArgument(index, currentDirectory) }
        }
        return -40
    }

    // MARK: Opening

    private struct Opening {
        var flags: UInt32
        var mode: UInt32 = 0
        /// RESOLVE_*
        var limits: UInt64 = 0
        var error: Int64 = 0

        init?(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) {
            switch number {
            case .open:
                flags = UInt32(truncatingIfNeeded: frame.argument1)
                mode = UInt32(truncatingIfNeeded: frame.argument2)
            case .creat:
                flags = 0o1101
                mode = UInt32(truncatingIfNeeded: frame.argument1)
            case .openat:
                flags = UInt32(truncatingIfNeeded: frame.argument2)
                mode = UInt32(truncatingIfNeeded: frame.argument3)
            case .openat2:
                let how = OpenHow(frame, memory)
                flags = UInt32(truncatingIfNeeded: how.flags)
                mode = UInt32(truncatingIfNeeded: how.mode)
                limits = how.limits
                error = how.error
            default:
                return nil
            }
            let creates = flags & OpenFlags.create != 0 || flags & OpenFlags.temporary == OpenFlags.temporary
            mode = creates ? mode & 0o7777 | FileModeMask.value << 16 : 0
        }
    }

    @inline(__always)
    private static func open(_ opening: Opening, _ location: Location, _ session: Session, _ channel: Channel) -> WireCompletion {
        if opening.error != 0 { return WireCompletion(result: opening.error) }
        // A file of ours by /proc/self/fd/N.
        let isItself = location.place.path.count == 0
        if isItself, opening.limits & OpenHow.noMagicLinks != 0 { return WireCompletion(result: -40) }
        let mode = opening.mode | (isItself ? WireRequest.handleItself : 0)
        let opened = channel.open(location.place, flags: opening.flags & ~OpenFlags.closeOnExec, mode: mode, limits: opening.limits)
        guard opened.result >= 0 else { return opened }
        let type = opened.info1 & 0o170000
        if type == 0o010000 || type == 0o020000 || type == 0o060000, opening.flags & OpenFlags.pathOnly == 0 {
            // Devices are names here; nobody stands behind them.
            let handle = Int32(truncatingIfNeeded: opened.result)
            let pipe = type == 0o010000 ? NamedPipes.prepare(handle, opening.flags, session, channel) : WireCompletion(result: -6)
            _ = channel.close(handle)
            return pipe
        }
        return WireCompletion(
            result: DescriptorCalls.place(opened, flags: opening.flags, session, channel))
    }

    // MARK: Descriptors

    /// A call on a descriptor of ours. nil: it is not.
    @inline(__always)
    static func onFile(_ descriptor: Int64, _ body: (Channel, Place, Description) -> WireCompletion) -> Int64? {
        guard let file = Descriptors.pin(descriptor) else {
            return Descriptors.isOwn(descriptor) ? -ErrorNumber.badDescriptor : nil
        }
        defer { file.release() }
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        return body(channel, Place(handle: file.handle), file).result
    }
}

/// umask(2), which the server leaves to its clients.
enum FileModeMask {
    /// Above 0o777: not known yet.
    nonisolated(unsafe) private static var known: UInt32 = .max

    static var value: UInt32 {
        if unsafe known > 0o777 { unsafe known = ask() }
        return unsafe known
    }

    static func hasBecome(_ value: UInt32) { unsafe known = value & 0o777 }

    private static func ask() -> UInt32 { fromProc() ?? bySetting() }

    /// The line "Umask:<tab>0022" of /proc/self/status, which stands near the top.
    private static func fromProc() -> UInt32? {
        let path: StaticString = "/proc/self/status"
        guard let scratch = Scratch() else { return nil }
        let closeOnExec: Int32 = 0o2000000
        let opened = unsafe dashfs_sys_open(UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self), closeOnExec, 0)
        guard opened >= 0 else { return nil }
        let count = unsafe dashfs_sys_read(Int32(truncatingIfNeeded: opened), scratch.base, 4096)
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: opened))
        var at = 0
        while at + 11 <= count {
            if let rest = unsafe PathBytes(scratch.base + at, count: count - at).dropping("\nUmask:\t"), let digits = unsafe rest.address {
                var value: UInt32 = 0
                var index = 0
                while index < rest.count, case let digit = unsafe Text.byte(digits, index), digit >= 0x30, digit <= 0x37 {
                    value = value << 3 | UInt32(digit - 0x30)
                    index += 1
                }
                return value & 0o777
            }
            at += 1
        }
        return nil
    }

    /// Without /proc the only call that tells it changes it: for a moment, with signals blocked, it is the strictest.
    private static func bySetting() -> UInt32 {
        let mask = dashfs_signals_block()
        defer { dashfs_signals_restore(mask) }
        let umask = SystemCallNumber.umask.rawValue
        let present = dashfs_raw_syscall3(umask, 0o777, 0, 0)
        _ = dashfs_raw_syscall3(umask, present, 0, 0)
        return UInt32(truncatingIfNeeded: present) & 0o777
    }
}
