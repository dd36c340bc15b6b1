// rename(2) and link(2) with one path in the volume and the other outside, or no path: EXDEV, unless something is wrong with either that the kernel
// would have said before. The kernel's side is asked by making the call with a path of /proc in place of ours, on yet another file system: it ends with
// EXDEV there, or with what is wrong.

import CPreload
import CSystem

enum Boundary {
    /// -EXDEV
    static let crossing: Int64 = -18
    private static let noFollow: UInt32 = 0x100

    static func answer(
        _ number: SystemCallNumber, _ call: SystemCallFrame, _ old: Location, _ new: Location, isLink: Bool, _ memory: ProgramMemory
    ) -> Int64 {
        let flags = number == .linkat || number == .renameat2 ? UInt32(truncatingIfNeeded: call.argument4) : 0
        let first: Int64
        if let session = old.session {
            first = isLink ? status(session, old.place, flags & 0x400 != 0 ? 0 : noFollow) : parent(session, old.place)
        } else {
            first = outside(number, call, oldIsOurs: false, isLink: isLink)
        }
        if first < 0, first != crossing { return first }
        if new.kind == .error { return new.error }
        guard let session = new.session else { return outside(number, call, oldIsOurs: true, isLink: isLink) }
        if isLink, status(session, new.place, noFollow) == 0 { return -17 }
        let second = parent(session, new.place)
        return second < 0 ? second : crossing
    }

    private static func outside(_ number: SystemCallNumber, _ call: SystemCallFrame, oldIsOurs: Bool, isLink: Bool) -> Int64 {
        let present: StaticString = "/proc/self/stat"
        let absent: StaticString = "/proc/self/dashfs"
        let substitute = unsafe Int64(Int(bitPattern: oldIsOurs || !isLink ? present.utf8Start : absent.utf8Start))
        var call = call
        switch number {
        case .rename, .link:
            if oldIsOurs { call.argument0 = substitute } else { call.argument1 = substitute }
        default:
            if oldIsOurs {
                call.argument0 = currentDirectory
                call.argument1 = substitute
            } else {
                call.argument2 = currentDirectory
                call.argument3 = substitute
            }
        }
        let result = dashfs_raw_syscall6(
            call.number, call.argument0, call.argument1, call.argument2, call.argument3, call.argument4, call.argument5)
        return result == 0 ? crossing : result
    }

    private static func status(_ session: Session, _ place: Place, _ flags: UInt32) -> Int64 {
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        var answer = FileStatus()
        let result = answer.load(channel, place, flags: flags).result
        return result == WireCompletion.escape ? crossing : min(result, 0)
    }

    /// 0 where the directory of the path's last name exists and lets the caller look for names.
    private static func parent(_ session: Session, _ place: Place) -> Int64 {
        guard let text = unsafe place.path.address else { return 0 }
        var count = place.path.count
        while count > 0, unsafe Text.byte(text, count - 1) == Text.slash { count -= 1 }
        while count > 0, unsafe Text.byte(text, count - 1) != Text.slash { count -= 1 }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        // With its slash, so that only a directory will do.
        let directory = unsafe Place(PathBytes(text, count: count), from: place.handle)
        let search: UInt32 = 1
        let result = channel.access(directory, mode: search, flags: 0).result
        return result == WireCompletion.escape ? crossing : min(result, 0)
    }
}
