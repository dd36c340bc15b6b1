// The directory of call-site tables that `dashfs run` names in DASHFS_SITES: a table is found under its object's identity in hexadecimal. Its path is kept in static memory,
// because programs overwrite their environment, and objects are loaded later too.

import CPreload
import CSystem

enum TableDirectory {
    nonisolated(unsafe) private static var length = 0

    /// False if the path is longer than there is room for.
    static func start(_ path: ProgramString) -> Bool {
        // A slash, "text-", 64 digits and a zero follow.
        guard path.count > 0, path.count + 80 < Int(DASHFS_SITES_CAPACITY) else { return false }
        unsafe dashfs_copy(dashfs_sites_text(), path.start, path.count)
        unsafe length = path.count
        return true
    }

    static var exists: Bool {
        let (pathOnly, directory, closeOnExec): (Int64, Int64, Int64) = (0o10000000, 0o200000, 0o2000000)
        let descriptor = unsafe dashfs_raw_syscall3(
            SystemCallNumber.open.rawValue, Int64(Int(bitPattern: dashfs_sites_text())), pathOnly | directory | closeOnExec, 0)
        if descriptor >= 0 { _ = dashfs_raw_syscall3(SystemCallNumber.close.rawValue, descriptor, 0, 0) }
        return descriptor >= 0
    }

    /// The table of an object, or nil where there is none. Nothing in it has been checked.
    @inline(never)
    static func table(_ identity: ObjectIdentity) -> SiteTable? {
        guard unsafe length > 0 else { return nil }
        var path = InlineArray<1024, UInt8>(repeating: 0)
        var count = 0
        func append(_ byte: UInt8) {
            path[count] = byte
            count += 1
        }
        let directory = unsafe length
        while count < directory { unsafe append(dashfs_sites_text()[count]) }
        append(Text.slash)
        if !identity.isBuildID {
            let text: StaticString = "text-"
            for index in 0..<text.utf8CodeUnitCount { unsafe append(text.utf8Start[index]) }
        }
        for index in 0..<identity.count {
            append(digit(identity.bytes[index] >> 4))
            append(digit(identity.bytes[index] & 15))
        }
        return unsafe withUnsafeBytes(of: &path) { path in
            guard let start = path.baseAddress else { return nil }
            return unsafe SiteTable(path: start)
        }
    }

    private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x57 + value }
}

/// By what an object is known: its build id, or a digest of its code and the length of that (Sources/Interception/ObjectFile+Identity.swift).
struct ObjectIdentity {
    private(set) var bytes = InlineArray<32, UInt8>(repeating: 0)
    private(set) var count = 0
    let isBuildID: Bool

    init(buildID: UnsafeRawPointer, count: Int) {
        isBuildID = true
        self.count = min(count, 32)
        for index in 0..<self.count { bytes[index] = unsafe buildID.load(fromByteOffset: index, as: UInt8.self) }
    }

    /// Of code that can be read.
    init(code: UnsafeRawPointer, count size: Int) {
        isBuildID = false
        var digest = SiteTableFormat.digestSeed
        var offset = 0
        while offset < size {
            var word: UInt64 = 0
            if size - offset >= 8 {
                word = unsafe code.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            } else {
                for byte in 0..<size - offset { word |= unsafe UInt64(code.load(fromByteOffset: offset + byte, as: UInt8.self)) &<< UInt64(8 * byte) }
            }
            digest = SiteTableFormat.digest(digest, word: word)
            offset += 8
        }
        append(digest)
        append(UInt64(size))
    }

    private mutating func append(_ word: UInt64) {
        for byte in 0..<8 {
            bytes[count] = UInt8(truncatingIfNeeded: word &>> UInt64(8 * byte))
            count += 1
        }
    }
}
