// What the library says when it cannot do its work: one line on standard error, written in one call, without libc.

import CPreload
import CSystem

/// Why the program's calls cannot be caught.
enum Problem {
    case noTable
    case unreadableTable(ProgramString)
    case damagedTable(ProgramString)
    case otherLibrary(ProgramString)
    case otherBytes(ProgramString)
    case tooManySites(ProgramString)
    case outOfReach
    case threadsRunning
    case writeProtected(errno: Int64)
    case partlyWritten(errno: Int64)
    case unknownMechanism(ProgramString)
    case noDispatch(errno: Int64)

    /// Nothing has been changed, so that another mechanism may do.
    var leavesChoice: Bool {
        switch self {
        case .noTable, .threadsRunning, .partlyWritten, .unknownMechanism, .noDispatch: false
        default: true
        }
    }

    /// The program ends.
    func report() { say(". DASHFS_UNPATCHED=1 runs it without DashFS\n") }

    /// It goes on, by the slower mechanism.
    func warn() { say(". Its calls are caught by signals instead, which costs some 3 us for each; `dashfs run --intercept=dispatch` does not say so, --intercept=rewrite refuses\n") }

    private func say(_ ending: StaticString) {
        var line = Line()
        line.append("dashfs: ")
        switch self {
        case .noTable:
            line.append("DASHFS_SITES is not set; start programs with `dashfs run`")
        case .unreadableTable(let path):
            line.append("cannot read the call-site table ")
            line.append(path)
            line.append("; start the program with `dashfs run`, which makes it")
        case .damagedTable(let path):
            line.append("the call-site table ")
            line.append(path)
            line.append(" is damaged; remove it and start the program with `dashfs run`")
        case .otherLibrary(let path):
            line.append("this program's C library is not among those that ")
            line.append(path)
            line.append(" has tables of; `dashfs run` makes them for the command that it starts")
        case .otherBytes(let path):
            line.append("the code of the C library differs from what ")
            line.append(path)
            line.append(" says; something else rewrites it (a debugger's breakpoint, another interceptor)")
        case .tooManySites(let path):
            line.append("the call-site table ")
            line.append(path)
            line.append(" has more sites than this library has slots")
        case .outOfReach:
            line.append("the C library is loaded more than 2 GiB away from libdashfs-preload.so")
        case .threadsRunning:
            line.append("threads are running already; libdashfs-preload.so has to be loaded when the program starts")
        case .writeProtected(let errno):
            line.append("this system does not let a process change its own code (error ")
            line.append(number: errno)
            line.append("); see `dashfs doctor`")
        case .partlyWritten(let errno):
            line.append("this system has let a process change a part of its own code only (error ")
            line.append(number: errno)
            line.append("); try `dashfs run --intercept=dispatch`")
        case .unknownMechanism(let value):
            line.append("DASHFS_INTERCEPT is rewrite, dispatch or auto, not ")
            line.append(value)
        case .noDispatch(let errno):
            line.append("this system has no syscall user dispatch (Linux 5.11; error ")
            line.append(number: errno)
            line.append("), so calls cannot be caught by signals; see `dashfs doctor`")
        }
        line.append(ending)
        line.write()
    }
}

/// A line under construction, in static memory: this runs once, on one thread.
struct Line {
    private var bytes = InlineArray<1024, UInt8>(repeating: 0)
    private var count = 0

    mutating func append(byte: UInt8) {
        guard count < 1024 else { return }
        bytes[count] = byte
        count += 1
    }
    mutating func append(_ text: StaticString) {
        for index in 0..<text.utf8CodeUnitCount { unsafe append(byte: text.utf8Start[index]) }
    }
    mutating func append(_ text: ProgramString) {
        for index in 0..<text.count { unsafe append(byte: UInt8(bitPattern: text.start[index])) }
    }
    mutating func append(number: Int64) {
        var digits = number.magnitude
        var divisor: UInt64 = 1
        while digits / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            append(byte: UInt8(truncatingIfNeeded: 0x30 + digits / divisor))
            digits %= divisor
            divisor /= 10
        }
    }
    func write() {
        unsafe withUnsafeBytes(of: bytes) { bytes in
            _ = dashfs_raw_syscall3(
                SystemCallNumber.write.rawValue, 2, Int64(Int(bitPattern: bytes.baseAddress)), Int64(count))
        }
    }
}

/// exit_group(2), without running anybody's clean-up: nothing has been set up.
func exitImmediately(_ status: Int64) {
    _ = dashfs_raw_syscall3(OwnCall.exit_group, status, 0, 0)
}
