// glibc 2.41's way to cancel a thread in a system call: the handler of the signal compares the interrupted address with a range of code around one `syscall`, in
// __syscall_cancel_arch(cancelhandling, number, six arguments). A thread in a slot would not be in that range, and wait for ever. So that function stays as it is, and the calls of it
// are redirected: calls of ours are answered before it, all others go through it.
//
// The function is hand-written (sysdeps/unix/sysv/linux/x86_64/syscall_cancel.S), so its bytes are known, and nothing else is accepted.

struct CancellableCall {
    let syscall: UInt64
    let calls: [CallSite.RedirectedCall]

    private static let beginning: [UInt8] = [0x8b, 0x07, 0xf6, 0x07, 0x08, 0x0f, 0x85]  // mov (%rdi),%eax; testb $8,(%rdi); jne ...
    private static let rest: [UInt8] = [
        0x49, 0x89, 0xfb, 0x48, 0x89, 0xf0, 0x48, 0x89, 0xd7, 0x48, 0x89, 0xce, 0x4c, 0x89, 0xc2, 0x4d, 0x89, 0xca,  // the arguments move up
        0x4c, 0x8b, 0x44, 0x24, 0x08, 0x4c, 0x8b, 0x4c, 0x24, 0x10, 0x4c, 0x89, 0x5c, 0x24, 0x08, 0x0f, 0x05, 0xc3,  // ...; syscall; ret
    ]

    /// nil where the object has no such function. An error where it has to have one, and it is not found or not reached by calls alone.
    static func find(in map: CodeMap) throws(InterceptionError) -> CancellableCall? {
        let object = map.object
        guard object.definedVersions().contains("GLIBC_2.41") else { return nil }
        for (index, entry) in map.entries.enumerated() where entry.instruction.isSyscall {
            // Twelve instructions stand before the syscall.
            guard index >= 12, let start = (index - 12...index).map({ map.entries[$0].address }).first(where: { isFunction(object, $0, entry.address) }) else { continue }
            let calls = map.entries.filter { $0.instruction.isCall && $0.branchTarget == start && $0.instruction.length == 5 }
            guard !calls.isEmpty, map.jumpSources(to: start).isEmpty else { break }
            return CancellableCall(syscall: entry.address, calls: calls.map { CallSite.RedirectedCall(address: $0.address, target: start) })
        }
        throw InterceptionError(.unsupported, object.path, "its way to cancel threads (__syscall_cancel_arch) is not the one of glibc 2.41")
    }

    private static func isFunction(_ object: ObjectFile, _ start: UInt64, _ syscall: UInt64) -> Bool {
        let distance = beginning.count + 4
        guard syscall == start &+ UInt64(distance + rest.count - 3), let offset = object.fileOffset(start), offset <= object.bytes.count - distance - rest.count else { return false }
        return object.bytes[offset...].starts(with: beginning) && object.bytes[(offset + distance)...].starts(with: rest)
    }
}
