// Composes the 64 bytes that a rewritten call site jumps to. The layout is drawn in Sources/CPreload/stub.S, whose unwind
// information depends on every offset here.

import CPreload

enum Slots {
    static var size: Int { Int(DASHFS_SLOT_SIZE) }
    static var perPage: Int { 4096 / size }
    /// The last page of them stays unused: CodeWriter rehearses on it.
    static var pages: Int { Int(DASHFS_SLOT_COUNT) / perPage - 1 }
    static var unusedPage: UInt64 { address(pages * perPage) }
    static func address(_ index: Int) -> UInt64 { UInt64(dashfs_slots_address()) + UInt64(index * size) }
}

/// One slot while it is put together.
@safe struct SlotImage {
    private let bytes: UnsafeMutableRawPointer
    private let address: UInt64

    /// `bytes` has room for one slot and is full of int3; `address` is where the slot will be executed.
    init(_ bytes: UnsafeMutableRawPointer, at address: UInt64) {
        unsafe self.bytes = bytes
        self.address = address
    }

    /// False if a distance does not fit in 32 bits.
    mutating func compose(_ site: Site, at window: UInt64, in table: borrowing SiteTable) -> Bool {
        guard displace(site, 0..<site.before, to: 0, window, table) else { return false }
        padWithNops(from: site.before, to: 16)
        put(at: 16, [0x48, 0x8d, 0x64, 0x24, 0x80])  // lea -128(%rsp), %rsp
        put(at: 21, [0xe8])  // call
        guard putDistance(at: 22, to: UInt64(dashfs_stub_enter_address()), from: address &+ 26) else { return false }
        put(at: 26, [0x48, 0x8d, 0xa4, 0x24, 0x80, 0x00, 0x00, 0x00])  // lea 128(%rsp), %rsp
        put(at: 34, [0x72, 0x02])  // jc over the syscall
        put(at: 36, [0x0f, 0x05])  // syscall
        guard displace(site, site.before + 2..<site.length, to: 38, window, table) else { return false }
        padWithNops(from: 38 + site.length - site.before - 2, to: 54)
        put(at: 54, [0xff, 0x25, 0x04, 0x00, 0x00, 0x00])  // jmp *4(%rip)
        put64(at: 64, window &+ UInt64(site.length))
        put64(at: 72, window &+ UInt64(site.before + 2))
        return true
    }

    private mutating func set(_ offset: Int, _ byte: UInt8) {
        unsafe bytes.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
    }

    private mutating func put<let count: Int>(at offset: Int, _ code: InlineArray<count, UInt8>) {
        for index in 0..<count { set(offset + index, code[index]) }
    }

    private mutating func padWithNops(from start: Int, to end: Int) {
        var offset = start
        while end - offset >= 4 {
            put(at: offset, [0x0f, 0x1f, 0x40, 0x00])  // nopl 0(%rax)
            offset += 4
        }
        while offset < end {
            set(offset, 0x90)
            offset += 1
        }
    }

    private mutating func put32(at offset: Int, _ value: Int32) {
        unsafe bytes.storeBytes(of: value, toByteOffset: offset, as: Int32.self)
    }

    private mutating func put64(at offset: Int, _ value: UInt64) {
        unsafe bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }

    private mutating func putDistance(at offset: Int, to target: UInt64, from origin: UInt64) -> Bool {
        guard let distance = Int32(exactly: Int64(bitPattern: target &- origin)) else { return false }
        put32(at: offset, distance)
        return true
    }

    /// Copies part of the window; a rip-relative displacement in it grows by how far the instruction moved.
    private mutating func displace(
        _ site: Site, _ part: Range<Int>, to offset: Int, _ window: UInt64, _ table: borrowing SiteTable
    ) -> Bool {
        for index in part { set(offset + index - part.lowerBound, table.byte(of: site, index)) }
        let moved = Int64(bitPattern: address &+ UInt64(offset) &- (window &+ UInt64(part.lowerBound)))
        return fix(site.fixups.0, part, offset, moved) && fix(site.fixups.1, part, offset, moved)
    }

    private mutating func fix(_ fixup: UInt8, _ part: Range<Int>, _ offset: Int, _ moved: Int64) -> Bool {
        guard fixup != SiteTableFormat.noFixup, part.contains(Int(fixup)) else { return true }
        guard Int(fixup) + 4 <= part.upperBound else { return false }
        let position = offset + Int(fixup) - part.lowerBound
        let old = unsafe bytes.loadUnaligned(fromByteOffset: position, as: Int32.self)
        guard let new = Int32(exactly: Int64(old) &- moved) else { return false }
        put32(at: position, new)
        return true
    }
}
