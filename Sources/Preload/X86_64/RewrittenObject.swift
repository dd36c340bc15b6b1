// One object whose sites are being rewritten: first its slots (`prepare`), then the sites (`activate`). Nothing of the object is changed before all its slots are in place.
//
// Its slots have whole pages of their own, because other threads may run in other objects' slots while these are written. Sites that are too far away for a jump to their
// slots (a program's own code) get a hop each, in memory near them: an indirect jump.

import CPreload
import CSystem

struct RewrittenObject: ~Copyable {
    enum Failure { case noSlots, outOfReach, notWritten }

    private let table: SiteTable
    private let address: UInt64
    /// Which of the table's sites, and of its calls.
    private let sites: Range<Int>
    private let calls: Range<Int>
    /// The first page of slots and how many; the page of slots for calls.
    private(set) var page = 0
    private(set) var pages = 0
    /// Nil: it has no redirected calls.
    private(set) var callPage: Int? = nil
    /// Where the hops are; 0: jumps reach.
    private var hops: UInt64 = 0

    private static var hopSize: Int { 16 }

    /// Those sites that lie in `code`, which is mapped.
    init(_ table: consuming SiteTable, at address: UInt64, code: Range<UInt64>) {
        self.address = address
        var (first, end) = (0, table.sites)
        while first < end, address &+ table.site(first).window < code.lowerBound { first += 1 }
        while end > first, address &+ table.site(end - 1).window &+ UInt64(table.site(end - 1).length) > code.upperBound { end -= 1 }
        sites = first..<end
        var (firstCall, endCall) = (0, table.calls)
        while firstCall < endCall, !code.contains(address &+ table.call(firstCall).address) { firstCall += 1 }
        while endCall > firstCall, !code.contains(address &+ table.call(endCall - 1).address &+ 4) { endCall -= 1 }
        calls = firstCall..<endCall
        self.table = table
    }

    var isEmpty: Bool { sites.isEmpty && calls.isEmpty }

    private func window(_ index: Int) -> UInt64 { address &+ table.site(index).window }

    /// Whether the code is what the site finder saw.
    var hasExpectedBytes: Bool {
        for index in sites where !table.matches(table.site(index), at: window(index)) { return false }
        for index in calls {
            let call = table.call(index)
            guard let code = unsafe UnsafeRawPointer(bitPattern: UInt(address &+ call.address)) else { return false }
            let distance = UInt32(truncatingIfNeeded: call.target &- call.address &- 5)
            if unsafe code.load(as: UInt8.self) != 0xe8 || code.loadUnaligned(fromByteOffset: 1, as: UInt32.self) != distance { return false }
        }
        return true
    }

    // MARK: Slots

    mutating func prepare(_ writer: inout CodeWriter) -> Failure? {
        pages = (sites.count + Slots.perPage - 1) / Slots.perPage
        guard let first = SlotPages.take(pages) else {
            pages = 0
            return .noSlots
        }
        page = first
        let failure = writeSlots(&writer) ?? writeHops(&writer) ?? writeCallSlots(&writer)
        if failure != nil { giveBack() }
        return failure
    }

    /// Nothing leads to its slots.
    mutating func giveBack() {
        SlotPages.giveBack(page, pages, callPage)
        pages = 0
        callPage = nil
    }

    private func slot(_ index: Int) -> UInt64 { Slots.address(page * Slots.perPage + index - sites.lowerBound) }

    private func writeSlots(_ writer: inout CodeWriter) -> Failure? {
        guard !sites.isEmpty else { return nil }
        let range = slot(sites.lowerBound)..<slot(sites.upperBound)
        guard writer.open(range) else { return .notWritten }
        // Some at a time: this may run on a small stack.
        var images = InlineArray<1024, UInt8>(repeating: 0xcc)
        let atOnce = 1024 / Slots.size
        var failure: Failure? = nil
        for index in sites where failure == nil {
            let offset = (index - sites.lowerBound) % atOnce * Slots.size
            let composed = unsafe withUnsafeMutablePointer(to: &images) { images in
                var image = unsafe SlotImage(UnsafeMutableRawPointer(images) + offset, at: slot(index))
                return image.compose(table.site(index), at: window(index), in: table)
            }
            if !composed {
                failure = .outOfReach
            } else if offset + Slots.size == 1024 || index == sites.upperBound - 1 {
                if !Self.write(&images, count: offset + Slots.size, at: slot(index) &- UInt64(offset), &writer) { failure = .notWritten }
            }
        }
        return writer.close(range) ? failure : .notWritten
    }

    private func distance(to target: UInt64, from end: UInt64) -> Int32? { Int32(exactly: Int64(bitPattern: target &- end)) }

    private func isInReach(_ window: UInt64) -> Bool {
        let (first, last) = (slot(sites.lowerBound), slot(sites.upperBound))
        return distance(to: first, from: window) != nil && distance(to: last, from: window) != nil
    }

    private mutating func writeHops(_ writer: inout CodeWriter) -> Failure? {
        guard let first = sites.first, let last = sites.last else { return nil }
        if isInReach(window(first)), isInReach(window(last) &+ 64) { return nil }
        let size = UInt64((sites.count * Self.hopSize + 4095) & ~4095)
        guard let memory = Self.mapNear(window(first), size) else { return .outOfReach }
        guard distance(to: memory, from: window(last) &+ 64) != nil, distance(to: memory &+ size, from: window(first)) != nil else { return .outOfReach }
        guard writer.open(memory..<memory &+ size) else { return .notWritten }
        for index in sites {
            // jmp *(%rip), and the address behind it.
            var hop = InlineArray<16, UInt8>(repeating: 0xcc)
            (hop[0], hop[1], hop[2], hop[3], hop[4], hop[5]) = (0xff, 0x25, 0, 0, 0, 0)
            for byte in 0..<8 { hop[6 + byte] = UInt8(truncatingIfNeeded: slot(index) &>> UInt64(8 * byte)) }
            let place = memory &+ UInt64((index - sites.lowerBound) * Self.hopSize)
            guard Self.write(&hop, count: Self.hopSize, at: place, &writer) else { return .notWritten }
        }
        guard writer.close(memory..<memory &+ size) else { return .notWritten }
        hops = memory
        return nil
    }

    /// Executable memory below an address and as near as it is free: above a program its heap grows.
    private static func mapNear(_ address: UInt64, _ size: UInt64) -> UInt64? {
        let (readExecute, privateAnonymous, fixedIfFree): (Int64, Int64, Int64) = (5, 0x22, 0x100000)
        var candidate = address & ~0xffff
        for _ in 0..<256 {
            guard candidate > 0x20000 &+ size else { return nil }
            candidate &-= 0x10000
            let mapped = dashfs_raw_syscall6(
                SystemCallNumber.mmap.rawValue, Int64(bitPattern: candidate), Int64(bitPattern: size), readExecute, privateAnonymous | fixedIfFree, -1, 0)
            if mapped == Int64(bitPattern: candidate) { return candidate }
            // A kernel before 4.17 takes the address for a hint.
            if mapped > 0 { _ = dashfs_raw_syscall3(SystemCallNumber.munmap.rawValue, mapped, Int64(bitPattern: size), 0) }
        }
        return nil
    }

    private mutating func writeCallSlots(_ writer: inout CodeWriter) -> Failure? {
        guard !calls.isEmpty else { return nil }
        guard let taken = SlotPages.takeCallPage() else { return .noSlots }
        callPage = taken
        let page = Self.callSlots(taken)
        let range = page..<page &+ 4096
        guard writer.open(range) else { return .notWritten }
        for index in calls {
            // movabs $function, %r11; jmp dashfs_cancellable_call
            var image = InlineArray<16, UInt8>(repeating: 0xcc)
            (image[0], image[1]) = (0x49, 0xbb)
            let place = page &+ UInt64((index - calls.lowerBound) * Int(DASHFS_CALL_SLOT_SIZE))
            let function = address &+ table.call(index).target
            for byte in 0..<8 { image[2 + byte] = UInt8(truncatingIfNeeded: function &>> UInt64(8 * byte)) }
            guard let jump = distance(to: UInt64(dashfs_cancellable_call_address()), from: place &+ 15) else { return .outOfReach }
            image[10] = 0xe9
            for byte in 0..<4 { image[11 + byte] = UInt8(truncatingIfNeeded: UInt32(bitPattern: jump) &>> UInt32(8 * byte)) }
            guard Self.write(&image, count: 16, at: place, &writer) else { return .notWritten }
        }
        return writer.close(range) ? nil : .notWritten
    }

    private static func callSlots(_ page: Int) -> UInt64 { UInt64(dashfs_call_slots_address()) + UInt64(page) * 4096 }

    // MARK: Sites

    mutating func activate(_ writer: inout CodeWriter) -> Failure? {
        guard let bounds else { return nil }
        guard writer.open(bounds) else { return .notWritten }
        let failure = activateSites(&writer) ?? activateCalls(&writer)
        return writer.close(bounds) ? failure : .notWritten
    }

    /// Everything that is changed in the object.
    private var bounds: Range<UInt64>? {
        var (start, end) = (UInt64.max, UInt64(0))
        if let first = sites.first, let last = sites.last {
            start = window(first)
            end = window(last) &+ UInt64(table.site(last).length)
        }
        for index in calls {
            start = min(start, address &+ table.call(index).address)
            end = max(end, address &+ table.call(index).address &+ 5)
        }
        return start < end ? start..<end : nil
    }

    /// Makes the sites what they were. The slots stay: somebody may be in one.
    func restore(_ writer: inout CodeWriter) -> Failure? {
        guard let bounds else { return nil }
        guard writer.open(bounds) else { return .notWritten }
        var failure: Failure? = nil
        var run = Run()
        for index in sites where failure == nil {
            let site = table.site(index)
            if !run.reaches(window(index), site.length) {
                if !run.write(&writer) { failure = .notWritten }
                run = Run(at: window(index))
            }
            run.append(originalOf: site, at: window(index), table)
        }
        if failure == nil, !run.write(&writer) { failure = .notWritten }
        return writer.close(bounds) ? failure : .notWritten
    }

    private func activateSites(_ writer: inout CodeWriter) -> Failure? {
        var run = Run()
        for index in sites {
            let (window, length) = (window(index), table.site(index).length)
            if !run.reaches(window, length) {
                guard run.write(&writer) else { return .notWritten }
                run = Run(at: window)
            }
            let target = hops == 0 ? slot(index) : hops &+ UInt64((index - sites.lowerBound) * Self.hopSize)
            guard run.append(jumpTo: target, at: window, length) else { return .outOfReach }
        }
        return run.write(&writer) ? nil : .notWritten
    }

    private func activateCalls(_ writer: inout CodeWriter) -> Failure? {
        guard let callPage else { return nil }
        for index in calls {
            let call = address &+ table.call(index).address
            guard let distance = distance(to: Self.callSlots(callPage) &+ UInt64((index - calls.lowerBound) * Int(DASHFS_CALL_SLOT_SIZE)), from: call &+ 5) else { return .outOfReach }
            var bytes = InlineArray<5, UInt8>(repeating: 0xe8)
            for byte in 0..<4 { bytes[1 + byte] = UInt8(truncatingIfNeeded: UInt32(bitPattern: distance) &>> UInt32(8 * byte)) }
            guard Self.write(&bytes, count: 5, at: call, &writer) else { return .notWritten }
        }
        return nil
    }

    fileprivate static func write<let capacity: Int>(
        _ bytes: inout InlineArray<capacity, UInt8>, count: Int, at address: UInt64, _ writer: inout CodeWriter
    ) -> Bool {
        unsafe withUnsafeMutablePointer(to: &bytes) { bytes in
            unsafe writer.write(UnsafeRawBufferPointer(start: bytes, count: count), at: address)
        }
    }
}

/// Which pages of slots are in use. Two at a time never ask: at the start there is one thread, later `LaterObjects` lets one in.
enum SlotPages {
    /// The first of `count` free pages in a row, taken from now on.
    static func take(_ count: Int) -> Int? {
        var first = 0
        while first + count <= Slots.pages {
            var free = 0
            while free < count, unsafe dashfs_slot_page(UInt32(first + free)).pointee == 0 { free += 1 }
            if free == count {
                for index in first..<first + count { unsafe dashfs_slot_page(UInt32(index)).pointee = 1 }
                return first
            }
            first += free + 1
        }
        return nil
    }

    static func giveBack(_ first: Int, _ count: Int, _ callPage: Int?) {
        for index in first..<first + count { unsafe dashfs_slot_page(UInt32(index)).pointee = 0 }
        if let callPage { unsafe dashfs_call_slot_page(UInt32(callPage)).pointee = 0 }
    }

    /// For redirected calls.
    static func takeCallPage() -> Int? {
        for index in 0..<Int(DASHFS_CALL_SLOT_PAGES) where unsafe dashfs_call_slot_page(UInt32(index)).pointee == 0 {
            unsafe dashfs_call_slot_page(UInt32(index)).pointee = 1
            return index
        }
        return nil
    }
}

/// Sites close to each other, with the code between them, which are written together: a write costs more than the bytes.
private struct Run {
    private var bytes = InlineArray<256, UInt8>(repeating: 0)
    private var count = 0
    private let start: UInt64

    init(at start: UInt64 = 0) { self.start = start }

    func reaches(_ window: UInt64, _ length: Int) -> Bool {
        count > 0 && window >= start &+ UInt64(count) && window &+ UInt64(length) &- start <= 256
    }

    /// False if the target is too far away for a jump. Bytes of the window behind the jump become int3.
    mutating func append(jumpTo target: UInt64, at window: UInt64, _ length: Int) -> Bool {
        let offset = keepCode(until: window)
        let distance = Int64(bitPattern: target &- (window &+ UInt64(SiteTableFormat.jumpSize)))
        guard let distance = Int32(exactly: distance) else { return false }
        let jump: UInt8 = 0xe9
        bytes[offset] = jump
        for byte in 0..<4 {
            bytes[offset + 1 + byte] = UInt8(truncatingIfNeeded: UInt32(bitPattern: distance) &>> UInt32(8 * byte))
        }
        for byte in SiteTableFormat.jumpSize..<length { bytes[offset + byte] = 0xcc }
        count = offset + length
        return true
    }

    mutating func append(originalOf site: Site, at window: UInt64, _ table: borrowing SiteTable) {
        let offset = keepCode(until: window)
        for byte in 0..<site.length { bytes[offset + byte] = table.byte(of: site, byte) }
        count = offset + site.length
    }

    /// Takes up the code that stands between the last site and this one.
    private mutating func keepCode(until window: UInt64) -> Int {
        let offset = Int(truncatingIfNeeded: window &- start)
        if let code = unsafe UnsafeRawPointer(bitPattern: UInt(start)) {
            while count < offset {
                bytes[count] = unsafe code.load(fromByteOffset: count, as: UInt8.self)
                count += 1
            }
        }
        return offset
    }

    mutating func write(_ writer: inout CodeWriter) -> Bool {
        count == 0 || RewrittenObject.write(&bytes, count: count, at: start, &writer)
    }
}
