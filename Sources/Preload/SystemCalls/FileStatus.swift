// The server's answers about a file's attributes and the volume's space, as the structures of the kernel's calls.

import CPreload
import CSystem

/// struct stat of x86-64, 144 bytes, as the server sends it: birth time in its spare words at 120 and 128.
struct FileStatus {
    private var words = InlineArray<18, UInt64>(repeating: 0)

    mutating func load(_ channel: Channel, _ place: Place, flags: UInt32) -> WireCompletion {
        unsafe withUnsafeMutableBytes(of: &words) { bytes in
            guard let base = bytes.baseAddress else { return WireCompletion(result: -ErrorNumber.io) }
            return unsafe channel.status(place, flags: flags, into: base)
        }
    }

    var inode: UInt64 { words[1] }
    var mode: UInt32 { UInt32(truncatingIfNeeded: words[3]) }
    var size: Int64 { Int64(bitPattern: words[6]) }

    /// stat(2). The spare words are zero there.
    mutating func store(_ address: UInt64, _ memory: ProgramMemory) -> Int64 {
        words[15] = 0
        words[16] = 0
        words[17] = 0
        return unsafe withUnsafeBytes(of: &words) { bytes in
            guard let base = bytes.baseAddress else { return -14 }
            return unsafe memory.copyOut(base, to: address, count: 144) ? 0 : -14
        }
    }

    /// statx(2): 256 bytes, offsets as in Linux include/uapi/linux/stat.h.
    func storeExtended(_ address: UInt64, _ memory: ProgramMemory) -> Int64 {
        var answer = InlineArray<32, UInt64>(repeating: 0)
        let basicAndBirth: UInt64 = 0xfff
        answer[0] = basicAndBirth | (words[7] & 0xffff_ffff) << 32  // mask, block size
        answer[2] = words[2] & 0xffff_ffff | (words[3] >> 32) << 32  // links, user
        answer[3] = words[4] & 0xffff_ffff | ((words[3] & 0xffff) << 32)  // group, mode
        answer[4] = words[1]
        answer[5] = words[6]
        answer[6] = words[8]
        func put(time source: Int, _ target: Int) {
            answer[target] = words[source]
            answer[target + 1] = words[source + 1] & 0xffff_ffff
        }
        put(time: 9, 8)  // access
        put(time: 15, 10)  // birth
        put(time: 13, 12)  // change
        put(time: 11, 14)  // modification
        answer[16] = FileStatus.device(words[5])
        answer[17] = FileStatus.device(words[0])
        return unsafe withUnsafeBytes(of: &answer) { bytes in
            guard let base = bytes.baseAddress else { return -14 }
            return unsafe memory.copyOut(base, to: address, count: 256) ? 0 : -14
        }
    }

    /// Major and minor number side by side, from how st_dev packs them.
    private static func device(_ number: UInt64) -> UInt64 {
        UInt64(dashfs_device_major(number)) | UInt64(dashfs_device_minor(number)) << 32
    }
}


enum Statistics {
    /// struct statfs of x86-64, 120 bytes. The numbers are the volume's, but the path has to exist.
    static func load(_ channel: Channel, _ place: Place, _ address: UInt64, _ memory: ProgramMemory) -> WireCompletion {
        var status = FileStatus()
        let exists = status.load(channel, place, flags: 0)
        guard exists.result >= 0 else { return exists }
        var words = InlineArray<15, UInt64>(repeating: 0)
        return unsafe withUnsafeMutableBytes(of: &words) { bytes in
            guard let base = bytes.baseAddress else { return WireCompletion(result: -14) }
            let answer = unsafe channel.statfs(place, into: base, capacity: 120)
            guard answer.result >= 0 else { return answer }
            return WireCompletion(result: unsafe memory.copyOut(base, to: address, count: 120) ? 0 : -14)
        }
    }
}

enum OpenFlags {
    static let create: UInt32 = 0o100
    static let directory: UInt32 = 0o200000
    static let noFollow: UInt32 = 0o400000
    static let closeOnExec: UInt32 = 0o2000000
    static let pathOnly: UInt32 = 0o10000000
    static let temporary: UInt32 = 0o20200000
    private static let largeFile: UInt32 = 0o100000
    private static let noTerminal: UInt32 = 0o400

    /// What F_GETFL shows of an open call's flags.
    static func asShown(_ flags: UInt32) -> Int64 {
        if flags & pathOnly != 0 { return Int64(flags & (pathOnly | directory | noFollow)) }
        return Int64(flags & ~(closeOnExec | noTerminal) | largeFile)
    }
}
