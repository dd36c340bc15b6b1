// Counting for `dashfs run --report` (`ReportFormat`), on only where DASHFS_REPORT names the page: else each call costs one look at a word.
//
// Every file-related call is counted by who answered it, so every descriptor gets a hint. An exec is counted before it is made, because one that succeeds does not
// come back; the program that it starts counts itself when it is loaded. More execs than programs: some were loaded without this library.

import CPreload
import CSystem

enum Report {
    nonisolated(unsafe) private static var page: UInt = 0

    @inline(__always) static var isOn: Bool { unsafe page != 0 }

    static func start(_ environment: Environment) {
        guard let path = environment.value("DASHFS_REPORT") else { return }
        let (readAndWrite, closeOnExec): (Int32, Int32) = (2, 0o2000000)
        let opened = unsafe dashfs_sys_open(path.start, readAndWrite | closeOnExec, 0)
        guard opened >= 0 else { return }
        let protection = Int32(dashfs_protection_read | dashfs_protection_write)
        let mapped = dashfs_sys_map(Int32(truncatingIfNeeded: opened), ReportFormat.bytes, protection, Int32(dashfs_map_shared))
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: opened))
        guard mapped > 0, let base = unsafe UnsafeRawPointer(bitPattern: mapped), unsafe base.load(as: UInt64.self) == ReportFormat.magic else { return }
        for descriptor in 0..<UInt32(DASHFS_HINT_LIMIT) { dashfs_set_descriptor_hint(descriptor, 1) }
        unsafe page = UInt(bitPattern: mapped)
        add(1, at: ReportFormat.programsAt)
    }

    static func count(_ number: SystemCallNumber, answered: Bool) {
        add(1, at: (answered ? ReportFormat.answeredAt : ReportFormat.passedAt) + index(number))
    }

    /// A call that is made for the program, because its result has to be known here, is the kernel's all the same.
    static func wasTheKernels(_ number: SystemCallNumber) {
        guard isOn else { return }
        add(1, at: ReportFormat.passedAt + index(number))
        add(.max, at: ReportFormat.answeredAt + index(number))
    }

    /// Takes back what `count` is going to say.
    static func isNobodys(_ number: SystemCallNumber) {
        if isOn { add(.max, at: ReportFormat.answeredAt + index(number)) }
    }

    /// Before an exec with `entering`, and behind it where it has failed.
    static func execute(_ number: SystemCallNumber, entering: Bool) {
        guard isOn, number == .execve || number == .execveat else { return }
        add(entering ? 1 : .max, at: ReportFormat.execsAt)
    }

    // MARK: Objects

    /// An object whose own system calls are not carried, if it has the two bytes of such anywhere: `dashfs run` looks at it more closely in the end.
    static func noteIfUncovered(_ object: LoadedObject) {
        guard isOn, !object.code.isEmpty, mayCall(object.code), let name = unsafe object.name else { return }
        let text = unsafe ProgramString(name)
        if text.count == 0 { return noteLink("/proc/self/exe") }
        unsafe note(UnsafeRawPointer(text.start), text.count)
    }

    /// One that was mapped just now.
    static func noteIfUncovered(_ file: MappedFile) {
        guard isOn, mayCall(file.code) else { return }
        var link = InlineArray<40, UInt8>(repeating: 0)
        let beginning: StaticString = "/proc/self/fd/"
        let count = beginning.utf8CodeUnitCount
        for index in 0..<count { link[index] = unsafe beginning.utf8Start[index] }
        unsafe withUnsafeMutableBytes(of: &link) { link in
            guard let start = link.baseAddress else { return }
            _ = unsafe Text.write(number: UInt64(UInt32(truncatingIfNeeded: file.descriptor)), to: start + count)
            unsafe noteTarget(of: start)
        }
    }

    /// Whether the bytes of a `syscall` stand anywhere in code that can be read.
    private static func mayCall(_ code: Range<UInt64>) -> Bool {
        guard let bytes = unsafe UnsafePointer<UInt8>(bitPattern: UInt(code.lowerBound)) else { return false }
        for index in 0..<max(0, code.count - 1) where unsafe bytes[index] == 0x0f && bytes[index + 1] == 0x05 { return true }
        return false
    }

    private static func noteLink(_ path: StaticString) { unsafe noteTarget(of: UnsafeRawPointer(path.utf8Start)) }

    private static func noteTarget(of path: UnsafeRawPointer) {
        var target = InlineArray<256, UInt8>(repeating: 0)
        let count = unsafe withUnsafeMutableBytes(of: &target) { target in
            Int(dashfs_raw_syscall3(SystemCallNumber.readlink.rawValue, Int64(Int(bitPattern: path)), Int64(Int(bitPattern: target.baseAddress)), 255))
        }
        guard count > 0 else { return }
        unsafe withUnsafeBytes(of: &target) { target in
            if let start = target.baseAddress { unsafe note(start, count) }
        }
    }

    private static func note(_ path: UnsafeRawPointer, _ count: Int) {
        guard count < ReportFormat.pathBytes, unsafe path.load(as: UInt8.self) == Text.slash,
            let word = unsafe UnsafeMutablePointer<UInt64>(bitPattern: page &+ UInt(ReportFormat.objectsAt))
        else { return }
        // Most programs load the same objects.
        let known = Int(min(unsafe dashfs_load64(word), UInt64(ReportFormat.paths)))
        for index in 0..<known where unsafe isNoted(path, count, index) { return }
        let index = unsafe dashfs_take(word)
        guard index < UInt64(ReportFormat.paths), let target = unsafe UnsafeMutableRawPointer(bitPattern: place(Int(index))) else { return }
        unsafe dashfs_copy(target, path, count)
    }

    private static func place(_ index: Int) -> UInt { unsafe page &+ UInt(ReportFormat.pathsAt + index * ReportFormat.pathBytes) }

    private static func isNoted(_ path: UnsafeRawPointer, _ count: Int, _ index: Int) -> Bool {
        guard let noted = unsafe UnsafeRawPointer(bitPattern: place(index)) else { return false }
        return unsafe Text.equal(noted, path, count) && noted.load(fromByteOffset: count, as: UInt8.self) == 0
    }

    private static func index(_ number: SystemCallNumber) -> Int { Int(number.rawValue) % ReportFormat.numbers * 8 }

    private static func add(_ value: UInt64, at offset: Int) {
        guard let word = unsafe UnsafeMutablePointer<UInt64>(bitPattern: page &+ UInt(offset)) else { return }
        unsafe dashfs_add(word, value)
    }
}
