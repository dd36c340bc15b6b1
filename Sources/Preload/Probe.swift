// The interception's own test instrument, on only if DASHFS_PROBE is in the environment.
//
// Every file-related call then enters the hook, whatever its descriptor; the hook overwrites all registers that a function
// may overwrite, counts, and answers two calls itself: access("/dashfs-probe/present") succeeds, and
// readlink("/dashfs-probe/calls") gives the number of calls that have entered. DASHFS_PROBE=wrong plants a bug, for the tests
// to find: after lseek one register of the program is not as it was.

import CPreload
import CSystem

enum Probe {
    nonisolated(unsafe) private static var on = false
    nonisolated(unsafe) private static var plantsBug = false
    nonisolated(unsafe) private static var calls: UInt64 = 0

    static var isOn: Bool { unsafe on }

    static func start(_ environment: Environment) {
        guard let value = environment.value("DASHFS_PROBE") else { return }
        unsafe plantsBug = value.equals("wrong")
        for descriptor in 0..<UInt32(DASHFS_HINT_LIMIT) { dashfs_set_descriptor_hint(descriptor, 1) }
        unsafe on = true
    }

    static func answer(_ number: SystemCallNumber, _ frame: inout SystemCallFrame) -> Bool {
        unsafe dashfs_count(&calls)
        dashfs_scribble_registers()
        if unsafe plantsBug, number == .lseek { frame.argument2 ^= 1 }
        switch number {
        case .access where isPath(frame.argument0, "/dashfs-probe/present", frame):
            frame.result = 0
            return true
        case .faccessat where isPath(frame.argument1, "/dashfs-probe/present", frame):
            frame.result = 0
            return true
        case .readlink where isPath(frame.argument0, "/dashfs-probe/calls", frame):
            frame.result = writeCalls(to: frame.argument1, capacity: frame.argument2, frame)
            return true
        default:
            return false
        }
    }

    private static func isPath(_ address: Int64, _ path: StaticString, _ frame: SystemCallFrame) -> Bool {
        let address = UInt64(bitPattern: address)
        guard ProgramMemory(frame).stringLength(address, limit: 4096) == path.utf8CodeUnitCount,
            let text = unsafe UnsafePointer<UInt8>(bitPattern: UInt(address))
        else { return false }
        for index in 0..<path.utf8CodeUnitCount where unsafe text[index] != path.utf8Start[index] { return false }
        return true
    }

    private static func writeCalls(to address: Int64, capacity: Int64, _ frame: SystemCallFrame) -> Int64 {
        var digits = InlineArray<20, UInt8>(repeating: 0x30)
        var first = 20
        var rest = unsafe calls
        repeat {
            first -= 1
            digits[first] = UInt8(truncatingIfNeeded: 0x30 + rest % 10)
            rest /= 10
        } while rest > 0
        let count = min(20 - first, Int(clamping: capacity))
        let copied = unsafe withUnsafeBytes(of: digits) { bytes in
            guard let start = bytes.baseAddress else { return false }
            return unsafe ProgramMemory(frame).copyOut(
                start + first, to: UInt64(bitPattern: address), count: count)
        }
        let efault: Int64 = 14
        return copied ? Int64(count) : -efault
    }
}
