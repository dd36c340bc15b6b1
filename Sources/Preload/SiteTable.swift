// The table of one object's call sites as the library reads it: a mapped file, checked once, whole, before any of it is used.
// Layout: SiteTableFormat.swift.

import CPreload
import CSystem

/// One site: a window of instructions around a `syscall`, from the object's load address.
struct Site {
    var window: UInt64
    var length: Int
    /// Of the instructions before the syscall.
    var before: Int
    var fixups: (UInt8, UInt8)
    /// Where in the table the bytes are that the window must hold.
    var expected: Int
}

@safe struct SiteTable: ~Copyable {
    private let base: UnsafeRawPointer
    private let length: Int
    private(set) var kind = SiteTableFormat.Kind.other
    private(set) var sites = 0
    private(set) var calls = 0

    /// Nil if the file cannot be opened or mapped; `isWhole` says whether it is a table.
    init?(path: UnsafeRawPointer) {
        let closeOnExec: Int64 = 0o2000000
        let descriptor = dashfs_raw_syscall3(SystemCallNumber.open.rawValue, Int64(Int(bitPattern: path)), closeOnExec, 0)
        guard descriptor >= 0 else { return nil }
        defer { _ = dashfs_raw_syscall3(SystemCallNumber.close.rawValue, descriptor, 0, 0) }
        let fromEnd: Int64 = 2
        let length = dashfs_raw_syscall3(SystemCallNumber.lseek.rawValue, descriptor, 0, fromEnd)
        guard length > 0, length < 1 << 24 else { return nil }
        let readable: Int64 = 1
        let privateMapping: Int64 = 2
        let address = dashfs_raw_syscall6(
            SystemCallNumber.mmap.rawValue, 0, length, readable, privateMapping, descriptor, 0)
        guard address > 0, let base = unsafe UnsafeRawPointer(bitPattern: Int(address)) else { return nil }
        unsafe self.base = base
        self.length = Int(length)
    }

    deinit {
        _ = unsafe dashfs_raw_syscall3(
            SystemCallNumber.munmap.rawValue, Int64(Int(bitPattern: base)), Int64(length), 0)
    }

    private func load<T: BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
        unsafe base.loadUnaligned(fromByteOffset: offset, as: type)
    }

    /// Checks header, sizes, digest, that it is the object's, and every record; nothing else may be called before it has said true.
    mutating func isWhole(for identity: ObjectIdentity) -> Bool {
        guard length >= SiteTableFormat.headerSize, length % 8 == 0, load(0, as: UInt64.self) == SiteTableFormat.magic,
            load(8, as: UInt32.self) == SiteTableFormat.version, let kind = SiteTableFormat.Kind(rawValue: load(12, as: UInt32.self))
        else { return false }
        let (siteCount, callCount) = (load(16, as: UInt32.self), load(20, as: UInt32.self))
        guard siteCount <= SiteTableFormat.maximumSites, callCount <= SiteTableFormat.maximumCalls else { return false }
        self.kind = kind
        sites = Int(siteCount)
        calls = Int(callCount)
        guard length == SiteTableFormat.headerSize + sites * SiteTableFormat.siteSize + calls * SiteTableFormat.callSize else { return false }
        var digest = SiteTableFormat.digestSeed
        var offset = 32
        while offset < length {
            digest = SiteTableFormat.digest(digest, word: load(offset, as: UInt64.self))
            offset += 8
        }
        guard digest == load(24, as: UInt64.self), Int(load(64, as: UInt32.self)) == identity.count else { return false }
        for index in 0..<identity.count where load(32 + index, as: UInt8.self) != identity.bytes[index] { return false }
        var last: UInt64 = 0
        for index in 0..<sites {
            let site = site(index)
            let capacity = SiteTableFormat.displacedCapacity
            guard site.length <= SiteTableFormat.windowCapacity, site.length >= SiteTableFormat.jumpSize,
                site.before <= capacity, site.before + 2 <= site.length, site.length - site.before - 2 <= capacity,
                isValid(site.fixups.0, site.length), isValid(site.fixups.1, site.length)
            else { return false }
            guard site.window >= last else { return false }
            last = site.window + UInt64(site.length)
        }
        return true
    }

    private func isValid(_ fixup: UInt8, _ length: Int) -> Bool {
        fixup == SiteTableFormat.noFixup || Int(fixup) + 4 <= length
    }

    func site(_ index: Int) -> Site {
        let offset = SiteTableFormat.headerSize + index * SiteTableFormat.siteSize
        return Site(
            window: UInt64(load(offset, as: UInt32.self)), length: Int(load(offset + 4, as: UInt8.self)),
            before: Int(load(offset + 5, as: UInt8.self)),
            fixups: (load(offset + 6, as: UInt8.self), load(offset + 7, as: UInt8.self)), expected: offset + 12)
    }

    /// A call that is redirected: where it stands, and the function it calls.
    func call(_ index: Int) -> (address: UInt64, target: UInt64) {
        let offset = SiteTableFormat.headerSize + sites * SiteTableFormat.siteSize + index * SiteTableFormat.callSize
        return (UInt64(load(offset, as: UInt32.self)), UInt64(load(offset + 4, as: UInt32.self)))
    }

    /// Whether the code at `address` is what the site finder saw.
    func matches(_ site: Site, at address: UInt64) -> Bool {
        guard let code = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else { return false }
        for index in 0..<site.length {
            let byte = unsafe code.load(fromByteOffset: index, as: UInt8.self)
            if byte != load(site.expected + index, as: UInt8.self) { return false }
        }
        return true
    }

    func byte(of site: Site, _ index: Int) -> UInt8 { load(site.expected + index, as: UInt8.self) }
}
