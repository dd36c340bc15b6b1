// What is asked of a place, by path or by descriptor: names, attributes, extended attributes, space. One function, because the same call comes in
// many numbers and differs in where its arguments stand.
//
// The answer is the server's, an escape included; memory of the program is filled here.

import CPreload
import CSystem

enum AttributeCalls {
    private static var efault: WireCompletion { WireCompletion(result: -14) }
    private static var invalid: WireCompletion { WireCompletion(result: -ErrorNumber.invalid) }
    private static let noFollow: UInt32 = 0x100

    static func perform(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ memory: ProgramMemory
    ) -> WireCompletion {
        func word(_ value: Int64) -> UInt32 { UInt32(truncatingIfNeeded: value) }
        let second = UInt64(bitPattern: frame.argument1)
        let third = UInt64(bitPattern: frame.argument2)
        // A path that has led to a descriptor (/proc/self/fd/N) asks less of it than the descriptor's own calls do.
        let empty: UInt32 = place.path.count == 0 && number.interest == .always ? PathCalls.emptyPath : 0
        switch number {
        // Attributes.
        case .stat, .fstat: return status(channel, place, 0, second, memory)
        case .lstat: return status(channel, place, noFollow, second, memory)
        case .newfstatat:
            guard word(frame.argument3) & ~0x1900 == 0 else { return invalid }
            return status(channel, place, word(frame.argument3) & noFollow, third, memory)
        case .statx:
            guard word(frame.argument2) & ~0x7900 == 0, word(frame.argument2) & 0x6000 != 0x6000, frame.argument3 & 0x8000_0000 == 0 else { return invalid }
            var answer = FileStatus()
            let completion = answer.load(channel, place, flags: word(frame.argument2) & noFollow)
            guard completion.result >= 0 else { return completion }
            return WireCompletion(result: answer.storeExtended(UInt64(bitPattern: frame.argument4), memory))
        case .access: return channel.access(place, mode: word(frame.argument1), flags: 0)
        case .faccessat: return channel.access(place, mode: word(frame.argument2), flags: 0)
        case .faccessat2:
            guard word(frame.argument3) & ~0x1300 == 0 else { return invalid }
            return channel.access(place, mode: word(frame.argument2), flags: word(frame.argument3) & noFollow)
        case .chmod, .fchmod: return changeMode(channel, place, word(frame.argument1), empty)
        case .fchmodat: return changeMode(channel, place, word(frame.argument2), empty)
        case .fchmodat2:
            guard word(frame.argument3) & ~0x1100 == 0 else { return invalid }
            return changeMode(channel, place, word(frame.argument2), word(frame.argument3))
        case .chown, .fchown: return changeOwner(channel, place, word(frame.argument1), word(frame.argument2), empty)
        case .lchown: return changeOwner(channel, place, word(frame.argument1), word(frame.argument2), noFollow)
        case .fchownat:
            guard word(frame.argument4) & ~0x1100 == 0 else { return invalid }
            return changeOwner(channel, place, word(frame.argument2), word(frame.argument3), word(frame.argument4))
        case .truncate, .ftruncate:
            guard frame.argument1 >= 0 else { return invalid }
            let grown = FileSizeLimit.grow(channel, place, to: UInt64(frame.argument1))
            if grown < 0 { return WireCompletion(result: grown) }
            var request = WireRequest(.setattr)
            request.attributeMask = 8
            request.length = second
            return channel.setAttributes(place, &request)
        case .utimensat:
            guard word(frame.argument3) & ~0x1100 == 0 else { return invalid }
            return Times.set(channel, place, third, .nanoseconds, word(frame.argument3) & noFollow | (frame.argument1 == 0 ? 0 : empty), memory)
        case .utime: return Times.set(channel, place, second, .seconds, empty, memory)
        case .utimes: return Times.set(channel, place, second, .microseconds, empty, memory)
        case .futimesat: return Times.set(channel, place, third, .microseconds, empty, memory)
        case .statfs, .fstatfs: return Statistics.load(channel, place, second, memory)

        // Names.
        case .mkdir: return channel.mkdir(place, mode: word(frame.argument1) & 0o1777 | FileModeMask.value << 16)
        case .mkdirat: return channel.mkdir(place, mode: word(frame.argument2) & 0o1777 | FileModeMask.value << 16)
        case .mknod: return makeNode(channel, place, word(frame.argument1), third)
        case .mknodat: return makeNode(channel, place, word(frame.argument2), UInt64(bitPattern: frame.argument3))
        case .unlink: return channel.unlink(place)
        case .rmdir: return channel.rmdir(place)
        case .unlinkat:
            let removeDirectory: UInt32 = 0x200
            guard word(frame.argument2) & ~removeDirectory == 0 else { return invalid }
            return word(frame.argument2) == removeDirectory ? channel.rmdir(place) : channel.unlink(place)
        case .symlink, .symlinkat:
            guard let target = text(UInt64(bitPattern: frame.argument0), memory) else { return efault }
            if target.count > Layout.pathLimit { return WireCompletion(result: -ErrorNumber.nameTooLong) }
            if target.count == 0 { return WireCompletion(result: -ErrorNumber.noEntry) }
            return channel.symlink(target, at: place)
        case .readlink: return readLink(channel, place, second, frame.argument2, memory)
        case .readlinkat: return readLink(channel, place, third, frame.argument3, memory)

        // Not with files of this system: said by the errno, once it is known that the path exists.
        case .name_to_handle_at: return refuse(channel, place, ErrorNumber.notSupported)
        case .inotify_add_watch, .fanotify_mark: return refuse(channel, place, ErrorNumber.notSupported)
        case .chroot: return refuse(channel, place, 1)
        default: return ExtendedAttributes.perform(number, frame, channel, place, empty, memory)
        }
    }

    private static func status(_ channel: Channel, _ place: Place, _ flags: UInt32, _ address: UInt64, _ memory: ProgramMemory) -> WireCompletion {
        var answer = FileStatus()
        let completion = answer.load(channel, place, flags: flags)
        guard completion.result >= 0 else { return completion }
        return WireCompletion(result: answer.store(address, memory))
    }

    private static func changeMode(_ channel: Channel, _ place: Place, _ mode: UInt32, _ flags: UInt32) -> WireCompletion {
        var request = WireRequest(.setattr)
        request.attributeMask = 1
        request.mode = mode & 0o7777
        request.flags = flags
        return channel.setAttributes(place, &request)
    }

    private static func changeOwner(_ channel: Channel, _ place: Place, _ user: UInt32, _ group: UInt32, _ flags: UInt32) -> WireCompletion {
        var request = WireRequest(.setattr)
        request.attributeMask = 2 | 4
        request.attributeOwner = user
        request.attributeGroup = group
        request.flags = flags
        return channel.setAttributes(place, &request)
    }

    private static func makeNode(_ channel: Channel, _ place: Place, _ mode: UInt32, _ device: UInt64) -> WireCompletion {
        let type = mode & 0o170000
        if type == 0o040000 { return WireCompletion(result: -1) }  // EPERM, before the path is looked at
        // Without a type it is a regular file; the device's number is 32 bits in the call.
        let mode = (type == 0 ? 0o100000 : type) | mode & 0o7777 | FileModeMask.value << 16
        return channel.mknod(place, mode: mode, device: device & 0xffff_ffff)
    }

    private static func readLink(_ channel: Channel, _ place: Place, _ address: UInt64, _ capacity: Int64, _ memory: ProgramMemory) -> WireCompletion {
        let capacity = Int32(truncatingIfNeeded: capacity)
        guard capacity > 0 else { return invalid }
        guard let scratch = Scratch() else { return WireCompletion(result: -ErrorNumber.noMemory) }
        let completion = unsafe channel.readlink(place, into: scratch.base, capacity: Int(capacity))
        guard completion.result > 0 else { return completion }
        return unsafe memory.copyOut(scratch.base, to: address, count: min(Int(completion.result), Int(capacity))) ? completion : efault
    }

    /// An errno for what is not done with files of ours, once it is known that the path exists.
    static func refuse(_ channel: Channel, _ place: Place, _ number: Int64, _ flags: UInt32 = 0) -> WireCompletion {
        var answer = FileStatus()
        let completion = answer.load(channel, place, flags: flags)
        return completion.result < 0 ? completion : WireCompletion(result: -number)
    }

    /// A string of the program in place; one that is longer than any path has a length above `Layout.pathLimit`.
    static func text(_ address: UInt64, _ memory: ProgramMemory) -> PathBytes? {
        guard let length = memory.stringLength(address, limit: Int(DASHFS_TEXT_CAPACITY)) else { return nil }
        return unsafe PathBytes(UnsafeRawPointer(bitPattern: UInt(address)), count: length)
    }
}

/// utime(2), utimes(2), utimensat(2): two moments, access and modification.
enum Times {
    enum Unit { case seconds, microseconds, nanoseconds }

    static func set(
        _ channel: Channel, _ place: Place, _ address: UInt64, _ unit: Unit, _ flags: UInt32, _ memory: ProgramMemory
    ) -> WireCompletion {
        var request = WireRequest(.setattr)
        request.flags = flags
        if address == 0 {
            request.attributeMask = 64 | 128
            return channel.setAttributes(place, &request)
        }
        let size = unit == .seconds ? 16 : 32
        guard memory.isReadable(address, size), let words = unsafe UnsafePointer<Int64>(bitPattern: UInt(address)) else {
            return WireCompletion(result: -14)
        }
        if unit == .seconds {
            request.accessSeconds = unsafe words[0]
            request.modificationSeconds = unsafe words[1]
            request.attributeMask = 16 | 32
            return channel.setAttributes(place, &request)
        }
        let now: Int64 = 0x3fff_ffff, omit: Int64 = 0x3fff_fffe
        var fractions: (Int64, Int64) = unsafe (words[1], words[3])
        request.accessSeconds = unsafe words[0]
        request.modificationSeconds = unsafe words[2]
        if unit == .microseconds {
            guard fractions.0 >= 0, fractions.0 < 1_000_000, fractions.1 >= 0, fractions.1 < 1_000_000 else { return WireCompletion(result: -22) }
            fractions = (fractions.0 * 1000, fractions.1 * 1000)
        } else {
            guard isFraction(fractions.0) || fractions.0 == now || fractions.0 == omit,
                isFraction(fractions.1) || fractions.1 == now || fractions.1 == omit
            else { return AttributeCalls.refuse(channel, place, ErrorNumber.invalid, flags & 0x100) }  // the kernel looks at the path first
            if fractions.0 == omit, fractions.1 == omit { return WireCompletion(result: 0) }
        }
        request.attributeMask = (fractions.0 == now ? 64 : fractions.0 == omit ? 0 : 16) | (fractions.1 == now ? 128 : fractions.1 == omit ? 0 : 32)
        request.accessNanoseconds = isFraction(fractions.0) ? UInt32(fractions.0) : 0
        request.modificationNanoseconds = isFraction(fractions.1) ? UInt32(fractions.1) : 0
        return channel.setAttributes(place, &request)
    }

    private static func isFraction(_ value: Int64) -> Bool { value >= 0 && value < 1_000_000_000 }
}

/// The twelve calls of xattr(7). The four `*xattrat` of Linux 6.13 answer ENOSYS, as on an older kernel.
enum ExtendedAttributes {
    private static let noFollow: UInt32 = 0x100
    private static let valueLimit = 65536

    /// - Parameter empty: AT_EMPTY_PATH where a path has led to a descriptor.
    static func perform(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ empty: UInt32, _ memory: ProgramMemory
    ) -> WireCompletion {
        switch number {
        case .getxattr: return get(frame, channel, place, empty, memory)
        case .fgetxattr: return get(frame, channel, place, 0, memory)
        case .lgetxattr: return get(frame, channel, place, noFollow, memory)
        case .setxattr: return set(frame, channel, place, empty, memory)
        case .fsetxattr: return set(frame, channel, place, 0, memory)
        case .lsetxattr: return set(frame, channel, place, noFollow, memory)
        case .listxattr: return list(frame, channel, place, empty, memory)
        case .flistxattr: return list(frame, channel, place, 0, memory)
        case .llistxattr: return list(frame, channel, place, noFollow, memory)
        case .removexattr: return remove(frame, channel, place, empty, memory)
        case .fremovexattr: return remove(frame, channel, place, 0, memory)
        case .lremovexattr: return remove(frame, channel, place, noFollow, memory)
        default: return WireCompletion(result: -38)
        }
    }

    /// An attribute's name, 1...255 bytes; else ERANGE, as the kernel says.
    private static func name(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> (PathBytes, Int64) {
        guard let length = memory.stringLength(UInt64(bitPattern: frame.argument1), limit: 256) else { return (.none, -14) }
        guard length > 0, length < 256 else { return (.none, -ErrorNumber.range) }
        return unsafe (PathBytes(UnsafeRawPointer(bitPattern: Int(frame.argument1)), count: length), 0)
    }

    private static func get(_ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ flags: UInt32, _ memory: ProgramMemory) -> WireCompletion {
        let (name, error) = name(frame, memory)
        guard error == 0 else { return WireCompletion(result: error) }
        let capacity = Int(min(UInt64(bitPattern: frame.argument3), UInt64(valueLimit)))
        let completion = unsafe channel.getxattr(place, name: name, into: nil, capacity: capacity, flags: flags)
        return deliver(completion, capacity, channel, UInt64(bitPattern: frame.argument2), memory)
    }

    private static func list(_ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ flags: UInt32, _ memory: ProgramMemory) -> WireCompletion {
        let capacity = Int(min(UInt64(bitPattern: frame.argument2), UInt64(valueLimit)))
        let completion = unsafe channel.listxattr(place, into: nil, capacity: capacity, flags: flags)
        return deliver(completion, capacity, channel, UInt64(bitPattern: frame.argument1), memory)
    }

    private static func deliver(
        _ completion: WireCompletion, _ capacity: Int, _ channel: Channel, _ address: UInt64, _ memory: ProgramMemory
    ) -> WireCompletion {
        guard completion.result > 0, capacity > 0 else { return completion }
        let count = min(Int(completion.result), capacity)
        return unsafe memory.copyOut(channel.dataArea, to: address, count: count) ? completion : WireCompletion(result: -14)
    }

    private static func set(_ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ flags: UInt32, _ memory: ProgramMemory) -> WireCompletion {
        let wanted = UInt32(truncatingIfNeeded: frame.argument4)
        guard wanted & ~3 == 0 else { return WireCompletion(result: -ErrorNumber.invalid) }
        let (name, error) = name(frame, memory)
        guard error == 0 else { return WireCompletion(result: error) }
        guard UInt64(bitPattern: frame.argument3) <= UInt64(valueLimit) else { return WireCompletion(result: -7) }
        let count = Int(frame.argument3)
        let address = UInt64(bitPattern: frame.argument2)
        guard count == 0 || memory.isReadable(address, count) else { return WireCompletion(result: -14) }
        return unsafe channel.setxattr(
            place, name: name, value: UnsafeRawPointer(bitPattern: UInt(address)), count: count, flags: wanted | flags)
    }

    private static func remove(_ frame: SystemCallFrame, _ channel: Channel, _ place: Place, _ flags: UInt32, _ memory: ProgramMemory) -> WireCompletion {
        let (name, error) = name(frame, memory)
        guard error == 0 else { return WireCompletion(result: error) }
        return channel.removexattr(place, name: name, flags: flags)
    }
}
