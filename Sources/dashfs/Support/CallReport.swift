// The counts of `run --report`: shared memory in which the preloaded library of every program counts (`ReportFormat`). Invariant: the command's programs reach it through
// this process's descriptors, so it is there for as long as this process waits for the command, whatever they close.
import CSystem
import Glibc
import Interception

@safe final class CallReport {
    private let descriptor: Int32
    private let page: UnsafeMutableRawPointer
    let path: String

    init() throws(Failure) {
        let made = unsafe dashfs_sys_memfd("dashfs-report")
        guard made >= 0 else { throw Failure(.system, "no memory for --report: \(errorText(Int32(-made)))") }
        descriptor = Int32(made)
        _ = dashfs_sys_ftruncate(descriptor, Int64(ReportFormat.bytes))
        let mapped = dashfs_sys_map(
            descriptor, ReportFormat.bytes, Int32(dashfs_protection_read | dashfs_protection_write), Int32(dashfs_map_shared))
        guard mapped > 0, let memory = unsafe UnsafeMutableRawPointer(bitPattern: mapped) else {
            close(descriptor)
            throw Failure(.system, "no memory for --report: \(errorText(Int32(-mapped)))")
        }
        unsafe page = memory
        unsafe page.storeBytes(of: ReportFormat.magic, as: UInt64.self)
        path = "/proc/\(getpid())/fd/\(descriptor)"
    }

    deinit {
        _ = unsafe dashfs_sys_unmap(page, ReportFormat.bytes)
        close(descriptor)
    }

    private func word(_ offset: Int) -> UInt64 { unsafe dashfs_load64(page + offset) }

    /// Of the whole command: one line, one for each kind of call, and what went past.
    func show() {
        let calls = (0..<ReportFormat.numbers).map { (number: $0, answered: word(ReportFormat.answeredAt + $0 * 8), passed: word(ReportFormat.passedAt + $0 * 8)) }
            .filter { $0.answered != 0 || $0.passed != 0 }
        let (answered, passed) = (calls.reduce(0) { $0 &+ $1.answered }, calls.reduce(0) { $0 &+ $1.passed })
        let (programs, execs) = (word(ReportFormat.programsAt), word(ReportFormat.execsAt))
        Terminal.error("dashfs: \(answered) calls answered by DashFS, \(passed) by the kernel, in \(programs) programs")
        for call in calls.sorted(by: { ($0.answered, $0.passed) > ($1.answered, $1.passed) }) {
            let name = SystemCallNumber(rawValue: Int64(call.number)).map { "\($0)" } ?? "\(call.number)"
            Terminal.error("  \(pad(name, 20, left: false))\(pad("\(call.answered)", 12)) DashFS\(pad("\(call.passed)", 12)) kernel")
        }
        // The first program is started without an exec that anybody counts.
        let missed = Int64(bitPattern: execs &+ 1 &- programs)
        if missed > 0 { Terminal.error("dashfs: past DashFS: \(missed) programs ran without the library (static, setuid or another C library); see: dashfs explain") }
        for object in SiteTableCache(Places.cacheDirectory).learn(objects) {
            Terminal.error("dashfs: past DashFS: system calls that \(object.path) makes by itself; \(object.past ?? "from the next run on they are carried")")
        }
        let rings = word(ReportFormat.passedAt + Int(SystemCallNumber.io_uring_setup.rawValue) * 8)
        if rings > 0 { Terminal.error("dashfs: past DashFS: \(rings) io_uring rings, whose requests are no system calls; see: --no-io-uring") }
    }

    /// Objects with system calls of their own that were met without a table, as far as there was room to note them.
    private var objects: [String] {
        let count = min(Int(truncatingIfNeeded: word(ReportFormat.objectsAt)), ReportFormat.paths)
        return (0..<max(0, count)).compactMap { index in
            let start = ReportFormat.pathsAt + index * ReportFormat.pathBytes
            let bytes = (0..<ReportFormat.pathBytes).map { unsafe page.load(fromByteOffset: start + $0, as: UInt8.self) }
            // One that was never filled in is empty.
            return bytes[0] == 0 ? nil : String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private func pad(_ text: String, _ width: Int, left: Bool = true) -> String {
        let room = String(repeating: " ", count: max(0, width - text.utf8.count))
        return left ? room + text : text + room
    }
}
