// libdashfs-preload.so, loaded into other people's programs: rewrites the file-related system call sites of their C library
// so that they reach `dashfs_system_call`. See docs/INTERCEPTION.md.
//
// Runs once, before any other initialiser (`-z initfirst`), so on the only thread. Until it ends nothing of libc has been
// initialised: not `environ`, not malloc. It calls no function of libc but dl_iterate_phdr.
// (The other instance that some programs have runs it earlier still: `EarlyInstance`.)
// Either every site of the table is rewritten or none is; then calls are caught otherwise, or the program ends (`Mechanism`).

import CPreload
import CSystem

/// What ld.so passes to an initialiser: the argument count, the arguments, the environment.
typealias Strings = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?

@section(".init_array") @used
let constructor: @convention(c) (Int32, Strings, Strings) -> Void = unsafe start

private func start(_ count: Int32, _ arguments: Strings, _ variables: Strings) {
    dashfs_unwind_anchor()
    let environment = unsafe Environment(variables)
    if environment.value("DASHFS_UNPATCHED") != nil { return }
    ProgramMemory.start(stackTop: environment.address)
    if !dashfs_has_libc(), environment.value("LD_AUDIT") != nil {
        EarlyInstance.start(environment)
        return
    }
    Probe.start(environment)
    Configuration.start(environment)
    if let problem = Mechanism.start(environment, rewriting: { Patcher.rewriteCallSites(environment.value("DASHFS_SITES")) }) {
        problem.report()
        // Going on would send the program's calls on our paths to the kernel, silently.
        exitImmediately(126)
    }
    OwnProgram.announce(environment)
}
