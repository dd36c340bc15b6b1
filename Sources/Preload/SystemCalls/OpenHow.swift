// openat2(2): its argument, judged as the kernel judges it, and what RESOLVE_* mean for paths that begin outside the volume. Inside, the server keeps to them.

import CPreload
import CSystem

/// struct open_how: u64 flags, mode, resolve.
struct OpenHow {
    var flags: UInt64 = 0
    var mode: UInt64 = 0
    var limits: UInt64 = 0
    /// What is wrong with it; 0: nothing.
    var error: Int64 = 0

    static let noLeaving: UInt64 = 1
    /// RESOLVE_NO_MAGICLINKS and RESOLVE_NO_SYMLINKS, which implies it.
    static let noMagicLinks: UInt64 = 6
    static let beneath: UInt64 = 8
    static let inRoot: UInt64 = 16
    static let cached: UInt64 = 32
    private static let known: UInt64 = 63
    private static let size: Int64 = 24
    /// Every flag of open(2); what others are is not asked.
    private static let openFlags: UInt64 = 0o37777703
    private static let pathFlags: UInt64 = 0o12600000

    init(_ frame: SystemCallFrame, _ memory: ProgramMemory) {
        guard frame.argument3 >= OpenHow.size else {
            error = -ErrorNumber.invalid
            return
        }
        let tooLong: Int64 = -7
        guard frame.argument3 <= 4096 else {
            error = tooLong
            return
        }
        guard memory.isReadable(UInt64(bitPattern: frame.argument2), Int(frame.argument3)), let how = unsafe UnsafeRawPointer(bitPattern: Int(frame.argument2))
        else {
            error = -14
            return
        }
        // What a later kernel may know has to be absent.
        for index in Int(OpenHow.size)..<Int(frame.argument3) where unsafe how.load(fromByteOffset: index, as: UInt8.self) != 0 { error = tooLong }
        unsafe flags = how.loadUnaligned(fromByteOffset: 0, as: UInt64.self)
        unsafe mode = how.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        unsafe limits = how.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        if error == 0, !isValid { error = -ErrorNumber.invalid }
        // That nothing has to be waited for cannot be told.
        if error == 0, limits & OpenHow.cached != 0 { error = -ErrorNumber.again }
    }

    private var isValid: Bool {
        if flags & ~OpenHow.openFlags != 0 || limits & ~OpenHow.known != 0 || limits & 24 == 24 { return false }
        let pathOnly = UInt64(OpenFlags.pathOnly)
        if flags & pathOnly != 0 { return flags & ~OpenHow.pathFlags == 0 && mode == 0 }
        let temporary = UInt64(OpenFlags.temporary)
        let creates = flags & UInt64(OpenFlags.create) != 0 || flags & temporary == temporary
        return creates ? mode & ~0o7777 == 0 : mode == 0
    }

    enum Preparation { case asItIs, kernel, answered(Int64) }

    /// Decides what the text of the path and the limits decide already. `asItIs`: the call, perhaps with another path, goes the way of every open.
    static func prepare(_ frame: inout SystemCallFrame, _ memory: ProgramMemory) -> Preparation {
        let how = OpenHow(frame, memory)
        // The kernel's own judgement comes later, where the path turns out to be its.
        guard how.error == 0, how.limits != 0, let text = unsafe UnsafeRawPointer(bitPattern: Int(frame.argument1)),
            memory.isReadable(UInt64(bitPattern: frame.argument1), 1)
        else { return .asItIs }
        let directory = Int64(Int32(truncatingIfNeeded: frame.argument0))
        let isOurs = directory == currentDirectory ? WorkingDirectory.isOurs : Descriptors.isFile(directory)
        guard unsafe Text.byte(text, 0) == Text.slash else {
            // The volume is a mount below the kernel's directory.
            guard !isOurs, how.limits & (noLeaving | beneath | inRoot) != 0 else { return .asItIs }
            return leadsToVolume(frame, memory) ? .answered(-18) : .kernel
        }
        if how.limits & (inRoot | beneath) != 0 {
            guard isOurs else { return .kernel }
            let length = memory.stringLength(UInt64(bitPattern: frame.argument1), limit: Int(DASHFS_TEXT_CAPACITY))
            if let length, length > Layout.pathLimit { return .answered(-ErrorNumber.nameTooLong) }
            if how.limits & beneath != 0 { return .answered(-18) }
            // "/" is the directory itself.
            while memory.isReadable(UInt64(bitPattern: frame.argument1 &+ 1), 1), let next = unsafe UnsafeRawPointer(bitPattern: Int(frame.argument1)),
                unsafe Text.byte(next, 0) == Text.slash
            {
                frame.argument1 &+= 1
            }
            let here: StaticString = "."
            if let rest = unsafe UnsafeRawPointer(bitPattern: Int(frame.argument1)), unsafe Text.byte(rest, 0) == 0 {
                frame.argument1 = unsafe Int64(Int(bitPattern: here.utf8Start))
            }
            return .asItIs
        }
        // From the kernel's root into another mount.
        return how.limits & noLeaving != 0 && leadsToVolume(frame, memory) ? .answered(-18) : .asItIs
    }

    private static func leadsToVolume(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Bool {
        let location = Location.find(frame.argument0, UInt64(bitPattern: frame.argument1), memory)
        defer { if location.kind == .ours { location.release() } }
        return location.kind == .ours
    }
}
