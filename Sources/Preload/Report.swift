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

    private static func index(_ number: SystemCallNumber) -> Int { Int(number.rawValue) % ReportFormat.numbers * 8 }

    private static func add(_ value: UInt64, at offset: Int) {
        guard let word = unsafe UnsafeMutablePointer<UInt64>(bitPattern: page &+ UInt(offset)) else { return }
        unsafe dashfs_add(word, value)
    }
}
