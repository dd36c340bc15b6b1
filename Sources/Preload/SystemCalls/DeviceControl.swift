// ioctl(2) on files of ours: what every file of the kernel's answers, whatever its file system. The rest is ENOTTY, as from a file system that has none of its own.

import CPreload
import CSystem

enum DeviceControl {
    private static let efault: Int64 = -14
    private static let notTerminal: Int64 = -25
    private static let blockSize: Int32 = 4096

    static func answer(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard let file = Descriptors.pin(frame.argument0) else {
            return Descriptors.isOwn(frame.argument0) ? -ErrorNumber.badDescriptor : nil
        }
        defer { file.release() }
        guard let session = file.session else { return file.failure }
        if file.isPathOnly { return -ErrorNumber.badDescriptor }
        let argument = UInt64(bitPattern: frame.argument2)
        switch UInt32(truncatingIfNeeded: frame.argument1) {
        case 0x5451, 0x5450:  // FIOCLEX, FIONCLEX, which a placeholder refuses
            let closeOnExec: Int64 = frame.argument1 & 1
            return dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, frame.argument0, 2, closeOnExec)
        case 0x5421: return setNonBlocking(file, session, argument, memory)  // FIONBIO
        case 0x5452: return wants(argument, memory).map { $0 ? notTerminal : 0 } ?? efault  // FIOASYNC
        case 0x541b where file.isRegular:  // FIONREAD
            return withSize(file, session) { size, channel in
                let offset = channel.seek(file.handle, offset: 0, whence: 1)
                return offset < 0 ? offset : store(Int32(truncatingIfNeeded: size &- offset), argument, memory)
            }
        case 0x5460 where file.isRegular || file.isDirectory:  // FIOQSIZE
            return withSize(file, session) { size, _ in store(size, argument, memory) }
        case 2: return store(blockSize, argument, memory)  // FIGETBSZ
        case 0x4004_9409, 0x4020_940d: return -ErrorNumber.notSupported  // FICLONE, FICLONERANGE
        default: return notTerminal
        }
    }

    private static func withSize(_ file: Description, _ session: Session, _ body: (Int64, Channel) -> Int64) -> Int64 {
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        var status = FileStatus()
        let answer = status.load(channel, Place(handle: file.handle), flags: 0)
        return answer.result < 0 ? answer.result : body(status.size, channel)
    }

    private static func setNonBlocking(_ file: Description, _ session: Session, _ argument: UInt64, _ memory: ProgramMemory) -> Int64 {
        guard let isOn = wants(argument, memory) else { return efault }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let flags = channel.statusFlags(file.handle, set: nil)
        if flags < 0 { return flags }
        let nonBlocking: UInt32 = 0o4000
        let old = UInt32(truncatingIfNeeded: flags)
        return channel.statusFlags(file.handle, set: isOn ? old | nonBlocking : old & ~nonBlocking)
    }

    /// The int that says on or off; nil: EFAULT.
    private static func wants(_ address: UInt64, _ memory: ProgramMemory) -> Bool? {
        var value: Int32 = 0
        let isReadable = unsafe withUnsafeMutablePointer(to: &value) { unsafe memory.copyIn($0, from: address, count: 4) }
        return isReadable ? value != 0 : nil
    }

    private static func store<T: FixedWidthInteger>(_ value: T, _ address: UInt64, _ memory: ProgramMemory) -> Int64 {
        unsafe withUnsafeBytes(of: value) { bytes in
            guard let base = bytes.baseAddress else { return efault }
            return unsafe memory.copyOut(base, to: address, count: bytes.count) ? 0 : efault
        }
    }
}
