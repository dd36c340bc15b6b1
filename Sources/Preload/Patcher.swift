// Rewrites the call sites of the table: checks everything, writes the slots, then activates the sites.
//
// Always true: a site is activated only after its slot is in place, and no site is touched before all bytes of all sites
// have been compared. Only one thread runs, so nobody stands in the middle of a window.

import CPreload
import CSystem

enum Patcher {
    /// Nil when every site of the table has been rewritten, or of ld.so alone, where that is loaded at `loader` (`EarlyInstance`).
    static func rewriteCallSites(_ path: ProgramString?, ofLoaderAt loader: UInt64? = nil) -> Problem? {
        guard let path else { return .noTable }
        if dashfs_threads_have_run() { return .threadsRunning }
        guard var table = SiteTable(path) else { return .unreadableTable(path) }
        guard table.isWhole() else { return .damagedTable(path) }
        guard table.sites <= Slots.capacity else { return .tooManySites(path) }

        var addresses = InlineArray<16, UInt64>(repeating: 0)
        let loaded = loader.map { LoadedObjects(loaderAt: $0) } ?? LoadedObjects()
        var isAnyFound = false
        for object in 0..<table.objects {
            guard let address = find(object, of: table, in: loaded) else {
                if loader != nil { continue }
                return .otherLibrary(path)
            }
            isAnyFound = true
            addresses[object] = address
            for index in table.siteRange(ofObject: object) {
                let site = table.site(index)
                guard table.matches(site, at: address &+ site.window) else { return .otherBytes(path) }
            }
        }

        guard isAnyFound else { return .otherLibrary(path) }

        for value in 0..<Int64(DASHFS_NUMBER_LIMIT) {
            guard let number = SystemCallNumber(rawValue: value) else { continue }
            dashfs_set_number_class(UInt32(value), number.interest.rawValue)
        }
        var writer = CodeWriter(rehearsingOn: Slots.unusedPage)
        guard writer.isUsable else { return .writeProtected(errno: writer.failure) }
        if let problem = writeSlots(table, addresses, &writer) { return problem }
        for object in 0..<table.objects where addresses[object] != 0 {
            if let problem = activate(object, of: table, at: addresses[object], &writer) { return problem }
        }
        return nil
    }

    /// Puts back what ld.so's code was before. Its slots stay.
    static func restoreLoader(_ path: ProgramString, at loader: UInt64) -> Problem? {
        guard var table = SiteTable(path), table.isWhole() else { return .unreadableTable(path) }
        let loaded = LoadedObjects(loaderAt: loader)
        var writer = CodeWriter(rehearsingOn: Slots.unusedPage)
        guard writer.isUsable else { return .writeProtected(errno: writer.failure) }
        for object in 0..<table.objects {
            guard let address = find(object, of: table, in: loaded) else { continue }
            if let problem = activate(object, of: table, at: address, undoing: true, &writer) { return problem }
        }
        return nil
    }

    private static func find(_ object: Int, of table: borrowing SiteTable, in loaded: LoadedObjects) -> UInt64? {
        for index in 0..<loaded.count {
            let candidate = loaded[index]
            if let identity = unsafe candidate.buildID,
                unsafe table.hasBuildID(object, identity, count: candidate.buildIDCount)
            {
                return candidate.address
            }
        }
        return nil
    }

    private static func writeSlots(
        _ table: borrowing SiteTable, _ addresses: InlineArray<16, UInt64>, _ writer: inout CodeWriter
    ) -> Problem? {
        let slots = Slots.address(0)..<Slots.address(table.sites)
        guard writer.open(slots) else { return .writeProtected(errno: writer.failure) }
        var page = InlineArray<4096, UInt8>(repeating: 0xcc)
        let perPage = 4096 / Slots.size
        for object in 0..<table.objects where addresses[object] != 0 {
            let range = table.siteRange(ofObject: object)
            for index in range {
                let site = table.site(index)
                let offset = index % perPage * Slots.size
                let composed = unsafe withUnsafeMutablePointer(to: &page) { page in
                    let bytes = unsafe UnsafeMutableRawPointer(page) + offset
                    var slot = unsafe SlotImage(bytes, at: Slots.address(index))
                    return slot.compose(site, at: addresses[object] &+ site.window, in: table)
                }
                guard composed else { return .outOfReach }
                if index % perPage == perPage - 1 || index == range.upperBound - 1 {
                    let start = Slots.address(index - index % perPage)
                    guard write(&page, count: offset + Slots.size, at: start, &writer) else {
                        return .writeProtected(errno: writer.failure)
                    }
                }
            }
        }
        return writer.close(slots) ? nil : .writeProtected(errno: writer.failure)
    }

    /// Makes the sites jumps, or what they were.
    private static func activate(
        _ object: Int, of table: borrowing SiteTable, at address: UInt64, undoing: Bool = false, _ writer: inout CodeWriter
    ) -> Problem? {
        var range = table.siteRange(ofObject: object)
        guard !range.isEmpty else { return nil }
        let last = table.site(range.upperBound - 1)
        let code = (address &+ table.site(range.lowerBound).window)..<(address &+ last.window &+ UInt64(last.length))
        guard writer.open(code) else { return .writeProtected(errno: writer.failure) }
        var run = Run()
        while !range.isEmpty {
            let site = table.site(range.lowerBound)
            let window = address &+ site.window
            if !run.reaches(window, site.length) {
                guard run.write(&writer) else { return .writeProtected(errno: writer.failure) }
                run = Run(at: window)
            }
            if undoing {
                run.append(originalOf: site, at: window, table)
            } else if !run.append(jumpTo: Slots.address(range.lowerBound), at: window, site.length) {
                return .outOfReach
            }
            range = range.dropFirst()
        }
        guard run.write(&writer), writer.close(code) else { return .writeProtected(errno: writer.failure) }
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

/// Sites close to each other, with the code between them, which are written together: a write costs more than the bytes.
private struct Run {
    private var bytes = InlineArray<256, UInt8>(repeating: 0)
    private var count = 0
    private let start: UInt64

    init(at start: UInt64 = 0) { self.start = start }

    func reaches(_ window: UInt64, _ length: Int) -> Bool {
        count > 0 && window >= start &+ UInt64(count) && window &+ UInt64(length) &- start <= 256
    }

    /// False if the slot is too far away for a jump. Bytes of the window behind the jump become int3.
    mutating func append(jumpTo slot: UInt64, at window: UInt64, _ length: Int) -> Bool {
        let offset = keepCode(until: window)
        let distance = Int64(bitPattern: slot &- (window &+ UInt64(SiteTableFormat.jumpSize)))
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
        count == 0 || Patcher.write(&bytes, count: count, at: start, &writer)
    }
}
