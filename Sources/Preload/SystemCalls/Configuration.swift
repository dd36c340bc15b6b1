// What `dashfs run` says through the environment: DASHFS_SOCKET (the server's socket; without it nothing is answered here),
// DASHFS_PREFIX (where programs see the volume; "/dash" if absent), DASHFS_NO_IO_URING (io_uring_setup is ENOSYS), DASHFS_REPORT (`Report`) and what an exec has handed over
// (`Handover`).
//
// Read once, by the constructor, into static memory: programs overwrite the strings of their environment.

import CPreload
import CSystem

enum Configuration {
    nonisolated(unsafe) private static var on = false
    nonisolated(unsafe) private static var prefixLength = 0
    /// Bytes of the prefix without its last component: what ".." at the volume's root means. "/dash": 0, so that "/etc" can follow.
    nonisolated(unsafe) private static var parentLength = 0
    nonisolated(unsafe) private static var components = 0
    nonisolated(unsafe) private static var socketLength = 0
    nonisolated(unsafe) private static var preloadLength = 0
    nonisolated(unsafe) private static var settingsLength = 0
    nonisolated(unsafe) private static var ownName: UnsafePointer<CChar>? = nil

    @inline(__always) static var isOn: Bool { unsafe on }
    /// Absolute, without a slash at its end, without empty components, "." and "..".
    @inline(__always) static var prefix: PathBytes { unsafe PathBytes(dashfs_prefix_text(), count: prefixLength) }
    static var prefixParent: PathBytes { unsafe PathBytes(dashfs_prefix_text(), count: parentLength) }
    static var prefixComponents: Int { unsafe components }
    /// LD_PRELOAD, and what `dashfs run` has set (NAME=value, each with its zero), as this program was started with them.
    static var preload: PathBytes { unsafe PathBytes(dashfs_preload_text(), count: preloadLength) }
    /// The path by which this library was loaded.
    static var library: PathBytes {
        guard let name = unsafe ownName else { return .none }
        return unsafe PathBytes(UnsafeRawPointer(name), count: ProgramString(name).count)
    }
    static var settings: PathBytes { unsafe PathBytes(dashfs_settings_text(), count: settingsLength) }
    static var socket: PathBytes { unsafe PathBytes(dashfs_socket_text(), count: socketLength) }

    /// How long a call waits for a server that has gone.
    static var timeoutMilliseconds: UInt64 { unsafe timeout }
    nonisolated(unsafe) private static var timeout: UInt64 = 30_000

    /// - Parameter early: for the instance that answers ld.so alone: nothing is used up, and nothing counted, that is the program's.
    static func start(_ environment: Environment, early: Bool = false) {
        guard let socket = environment.value("DASHFS_SOCKET"), socket.count > 0, socket.count < Int(DASHFS_TEXT_CAPACITY) else { return }
        unsafe dashfs_copy(dashfs_socket_text(), socket.start, socket.count)
        unsafe socketLength = socket.count
        if let prefix = environment.value("DASHFS_PREFIX"), prefix.count < Int(DASHFS_TEXT_CAPACITY) {
            unsafe setPrefix(UnsafeRawPointer(prefix.start), prefix.count)
        } else {
            let usual: StaticString = "/dash"
            unsafe setPrefix(usual.utf8Start, usual.utf8CodeUnitCount)
        }
        guard unsafe prefixLength > 1 else { return }
        if let value = environment.value("LD_PRELOAD"), value.count < Int(DASHFS_TEXT_CAPACITY) {
            unsafe dashfs_copy(dashfs_preload_text(), value.start, value.count)
            unsafe preloadLength = value.count
        }
        environment.forEach(named: "DASHFS_") { entry in
            // What an exec has handed over is said anew by each.
            if entry.begins(with: "DASHFS_INHERITED=") || entry.begins(with: "DASHFS_EARLY=") { return }
            guard unsafe settingsLength + entry.count < Int(DASHFS_SETTINGS_BYTES) else { return }
            unsafe dashfs_copy(dashfs_settings_text() + settingsLength, entry.start, entry.count + 1)
            unsafe settingsLength += entry.count + 1
        }
        if let value = environment.value("DASHFS_TIMEOUT"), let (seconds, digits) = unsafe Text.number(UnsafeRawPointer(value.start), value.count), digits == value.count {
            unsafe timeout = min(seconds, 1 << 32) * 1000
        }
        unsafe ownName = dashfs_own_name()
        unsafe on = true
        if environment.value("DASHFS_NO_IO_URING") != nil { AsynchronousCalls.refuseRings() }
        if !early { Report.start(environment) }
        Connection.start()
        Handover.take(environment, early: early)
        WorkingDirectory.noteKernelDirectory()
    }

    private static func setPrefix(_ text: UnsafeRawPointer, _ count: Int) {
        let target = unsafe UnsafeMutableRawPointer(dashfs_prefix_text())
        let length = unsafe Text.simplify(text, count, into: target)
        guard length > 1 else { return }
        unsafe prefixLength = length
        for index in 0..<length where unsafe target.load(fromByteOffset: index, as: UInt8.self) == Text.slash {
            unsafe parentLength = index
            unsafe components += 1
        }
    }
}

/// Work on path texts.
enum Text {
    static let slash: UInt8 = 0x2f
    static let dot: UInt8 = 0x2e

    @inline(__always)
    static func byte(_ text: UnsafeRawPointer, _ index: Int) -> UInt8 { unsafe text.load(fromByteOffset: index, as: UInt8.self) }

    /// How many bytes stand before the zero.
    static func length(_ text: UnsafeRawPointer) -> Int {
        var length = 0
        while unsafe byte(text, length) != 0 { length += 1 }
        return length
    }

    /// Writes the absolute path `text` without empty components, "." and "..", each ".." taking the name before it along.
    /// `target` has room for `count` bytes and one more. The length: "/" alone is 1; 0 if `text` is not absolute.
    static func simplify(_ text: UnsafeRawPointer, _ count: Int, into target: UnsafeMutableRawPointer) -> Int {
        guard count > 0, unsafe byte(text, 0) == slash else { return 0 }
        var length = 0
        var at = 0
        while at < count {
            while at < count, unsafe byte(text, at) == slash { at += 1 }
            let start = at
            while at < count, unsafe byte(text, at) != slash { at += 1 }
            let size = at - start
            if size == 0 || size == 1 && (unsafe byte(text, start)) == dot { continue }
            if unsafe size == 2 && byte(text, start) == dot && byte(text, start + 1) == dot {
                while length > 0 {
                    length -= 1
                    if unsafe byte(target, length) == slash { break }
                }
                continue
            }
            unsafe target.storeBytes(of: slash, toByteOffset: length, as: UInt8.self)
            unsafe dashfs_copy(target + length + 1, text + start, size)
            length += 1 + size
        }
        if length == 0 {
            unsafe target.storeBytes(of: slash, as: UInt8.self)
            return 1
        }
        return length
    }

    static func equal(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Bool {
        for index in 0..<count where unsafe byte(left, index) != byte(right, index) { return false }
        return true
    }

    /// Decimal digits at `target`; how many.
    static func write(number: UInt64, to target: UnsafeMutableRawPointer) -> Int {
        var divisor: UInt64 = 1
        while number / divisor >= 10 { divisor *= 10 }
        var rest = number
        var count = 0
        while divisor > 0 {
            unsafe target.storeBytes(of: UInt8(truncatingIfNeeded: 0x30 + rest / divisor), toByteOffset: count, as: UInt8.self)
            rest %= divisor
            divisor /= 10
            count += 1
        }
        return count
    }

    /// A decimal number at the start of `text` and how many digits it has; nil without a digit, or where it does not fit.
    static func number(_ text: UnsafeRawPointer, _ count: Int) -> (value: UInt64, digits: Int)? {
        var value: UInt64 = 0
        var digits = 0
        while digits < count, case let digit = unsafe byte(text, digits), digit >= 0x30, digit <= 0x39 {
            let (product, tooMuch) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow) = product.addingReportingOverflow(UInt64(digit - 0x30))
            if tooMuch || overflow { return nil }
            value = sum
            digits += 1
        }
        return digits == 0 ? nil : (value, digits)
    }
}
