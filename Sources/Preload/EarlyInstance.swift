// The library as an auditor of ld.so: what it is while ld.so opens the objects that a program starts with.
//
// Initialisers run when all of these have been loaded, ours too: too late where one of them lies on the volume. Auditors (LD_AUDIT, rtld-audit(7)) are loaded before any of them. So
// where that may be (`LoaderNeeds`) the library is named there as well, and is loaded twice: first as an auditor, then as LD_PRELOAD says. The first, in a namespace of its own, rewrites
// ld.so's call sites alone and answers its calls; when everything is loaded it puts ld.so's code back and lets go of the server, so that the second finds what it always does.
//
// The auditor's namespace has no libc, because the library needs none: that is how an instance knows that it is the auditor. (It must not need ld.so either: the search for it in that namespace
// would try the program's LD_LIBRARY_PATH, and ld.so remembers which directories are not there.) Nothing that an exec has handed over is used up by it, and nothing of it remains but memory
// that nobody uses, and `straighten`.

import CPreload
import CSystem

enum EarlyInstance {
    /// The table's path; null unless this is the auditor.
    nonisolated(unsafe) private static var table: UnsafePointer<CChar>? = nil
    /// Where ld.so is loaded, while its calls come here; else 0.
    nonisolated(unsafe) private static var loader: UInt64 = 0

    static var isAuditor: Bool { unsafe table != nil }

    /// What ld.so calls the program.
    nonisolated(unsafe) private static var program: UInt = 0
    nonisolated(unsafe) private static var variables: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = nil

    /// The constructor's part. Where the program was started by naming ld.so, the kernel does not know its address (AT_BASE), and it comes with `noteObject`.
    static func start(_ environment: Environment) {
        guard let path = environment.value("DASHFS_SITES") else { return }
        unsafe table = path.start
        unsafe variables = environment.entries
        Configuration.start(environment, early: true)
        if let address = environment.auxiliary(7 /* AT_BASE */), address != 0 { rewrite(at: address) }
    }

    private static func rewrite(at address: UInt64) {
        guard let path = unsafe table, unsafe loader == 0 else { return }
        unsafe loader = address
        let environment = unsafe Environment(variables)
        // The other instance says it.
        stop(on: Mechanism.start(environment, quietly: true, rewriting: { unsafe Patcher.changeLoader(at: address, ProgramString(path), restoring: false) }))
    }

    /// An object of the program's namespace. The first, before any is loaded, are the program, by whose cookie the namespace is known, and ld.so, which alone has a name.
    fileprivate static func noteObject(_ name: UnsafeMutablePointer<CChar>, at address: UInt64, _ cookie: UInt) {
        unsafe straighten(name)
        if unsafe program == 0 { unsafe program = cookie }
        if unsafe name.pointee != 0 && address != 0 { rewrite(at: address) }
    }

    /// Objects are about to be loaded or unloaded, or that is done: in the program's namespace, or, if it has auditors of its own, in one of theirs.
    fileprivate static func noteActivity(_ cookie: UInt, isOver: Bool) {
        guard unsafe program != 0 && cookie == program else { return }
        if isOver { end() } else { hideVariable() }
    }

    /// ld.so's own copy of the path of an object that was found by the $ORIGIN of a copied program (`Execution.makeMemory`): it becomes what it means. For as long as the process lives.
    private static func straighten(_ name: UnsafeMutablePointer<CChar>) {
        let detour: StaticString = "/memfd:/../"
        for index in 0..<detour.utf8CodeUnitCount where unsafe UInt8(bitPattern: name[index]) != detour.utf8Start[index] { return }
        let start = detour.utf8CodeUnitCount - 1
        var index = 0
        repeat {
            unsafe name[index] = name[index + start]
            index += 1
        } while unsafe name[index - 1] != 0
    }

    /// Where there are auditors ld.so lays out the threads' storage before it has opened what the program needs, so that what comes must fit into what it keeps for dlopen: 512 bytes, and
    /// librustc_driver alone has 24 KiB. This is room for all but odd programs, and little beside a thread's stack.
    static let threadStorage: StaticString = "glibc.rtld.optional_static_tls=65536"

    /// All auditors are loaded, and nothing else: LD_AUDIT and what `Variables.keepAuditors` has said of storage are not for the program, nor for its children.
    private static func hideVariable() {
        guard unsafe table != nil, let entries = unsafe variables else { return }
        unsafe variables = nil
        let environment = unsafe Environment(entries)
        environment.forEach(named: "LD_AUDIT=") { entry in
            var ours = 9
            while ours < entry.count, unsafe entry.start[ours] != 0x3a { ours += 1 }
            hide(entry, from: 9, to: ours)
        }
        environment.forEach(named: "GLIBC_TUNABLES=") { entry in
            let count = threadStorage.utf8CodeUnitCount
            guard entry.count >= 15 + count else { return }
            for index in 0..<count where unsafe UInt8(bitPattern: entry.start[15 + index]) != threadStorage.utf8Start[index] { return }
            hide(entry, from: 15, to: 15 + count)
        }
    }

    /// Our part of a variable's text goes; what stands behind it is the program's own. Where nothing does the variable gets a name that means nothing: to take it away would move the auxiliary
    /// vector away from the environment, where some look for it.
    private static func hide(_ entry: ProgramString, from start: Int, to end: Int) {
        let text = unsafe UnsafeMutablePointer(mutating: entry.start)
        let name: StaticString = "DASHFS_EARLY="
        let count = entry.count
        if end < count {
            for index in end + 1...count { unsafe text[start + index - end - 1] = text[index] }
        } else if count >= name.utf8CodeUnitCount {
            for index in 0..<count { unsafe text[index] = index < name.utf8CodeUnitCount ? CChar(bitPattern: name.utf8Start[index]) : 0x30 }
        }
    }

    /// All objects are loaded; the first initialiser is the other instance's.
    private static func end() {
        guard let path = unsafe table else { return }
        unsafe table = nil
        if Dispatch.isOn {
            Dispatch.stop()
        } else {
            unsafe stop(on: Patcher.changeLoader(at: loader, ProgramString(path), restoring: true))
        }
        Connection.end()
    }

    private static func stop(on problem: Problem?) {
        guard let problem else { return }
        problem.report()
        exitImmediately(126)
    }
}

/// What ld.so asks an auditor first: the version of the interface that it follows. 0: it is not one, and is unloaded.
@c public func la_version(_ version: UInt32) -> UInt32 { EarlyInstance.isAuditor ? version : 0 }

/// An object has been loaded. The result: no symbol of it is watched.
@c public func la_objopen(_ object: UnsafePointer<dashfs_link>, _ namespace: Int, _ cookie: UInt) -> UInt32 {
    let ofTheProgram = 0  // LM_ID_BASE
    if namespace == ofTheProgram, let name = unsafe object.pointee.name {
        unsafe EarlyInstance.noteObject(UnsafeMutablePointer(mutating: name), at: object.pointee.address, cookie)
    }
    return 0
}

/// ld.so has begun to load or unload objects in the namespace of the cookie's object, or (0) has done so.
@c public func la_activity(_ cookie: UInt, _ flag: UInt32) { EarlyInstance.noteActivity(cookie, isOver: flag == 0) }
