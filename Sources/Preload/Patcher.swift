// Rewrites the call sites of the table: checks everything, writes the slots, then activates the sites.
//
// Always true: a site is activated only after its slot is in place, and no site is touched before all bytes of all sites
// have been compared. Only one thread runs, so nobody stands in the middle of a window.

import CPreload
import CSystem

enum Patcher {
    /// Nil when every site of the table has been rewritten.
    static func rewriteCallSites(_ environment: Environment) -> Problem? {
        guard let path = environment.value("DASHFS_SITES") else { return .noTable }
        if threadsAreRunning() { return .threadsRunning }
        guard var table = SiteTable(path) else { return .unreadableTable(path) }
        guard table.isWhole() else { return .damagedTable(path) }
        guard table.sites <= Slots.capacity else { return .tooManySites(path) }

        var addresses = InlineArray<16, UInt64>(repeating: 0)
        let loaded = LoadedObjects()
        for object in 0..<table.objects {
            guard let address = find(object, of: table, in: loaded) else { return .otherLibrary(path) }
            addresses[object] = address
            for index in table.siteRange(ofObject: object) {
                let site = table.site(index)
                guard table.matches(site, at: address &+ site.window) else { return .otherBytes(path) }
            }
        }

        for value in 0..<Int64(DASHFS_NUMBER_LIMIT) {
            guard let number = SystemCallNumber(rawValue: value) else { continue }
            dashfs_set_number_class(UInt32(value), number.interest.rawValue)
        }
        var writer = CodeWriter()
        if let problem = writeSlots(table, addresses, &writer) { return problem }
        return activate(table, addresses, &writer)
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

    /// /proc/self/task has a link for each thread beside its own two (proc(5)). Without /proc the answer is no.
    private static func threadsAreRunning() -> Bool {
        let path: StaticString = "/proc/self/task"
        var status = InlineArray<18, UInt64>(repeating: 0)  // struct stat, 144 bytes; st_nlink is its third word
        let result = unsafe withUnsafeMutablePointer(to: &status) { status in
            unsafe dashfs_raw_syscall3(
                SystemCallNumber.stat.rawValue, Int64(Int(bitPattern: path.utf8Start)), Int64(Int(bitPattern: status)), 0)
        }
        return result == 0 && status[2] > 3
    }

    private static func writeSlots(
        _ table: borrowing SiteTable, _ addresses: InlineArray<16, UInt64>, _ writer: inout CodeWriter
    ) -> Problem? {
        var page = InlineArray<4096, UInt8>(repeating: 0xcc)
        let perPage = 4096 / Slots.size
        for object in 0..<table.objects {
            for index in table.siteRange(ofObject: object) {
                let site = table.site(index)
                guard
                    let image = SlotImage(
                        at: Slots.address(index), for: site, at: addresses[object] &+ site.window, in: table)
                else { return .outOfReach }
                let offset = index % perPage * Slots.size
                for byte in 0..<Slots.size { page[offset + byte] = image.bytes[byte] }
                if index % perPage == perPage - 1 || index == table.sites - 1 {
                    let written = unsafe withUnsafeBytes(of: page) { bytes in
                        unsafe writer.write(
                            UnsafeRawBufferPointer(rebasing: bytes[0..<offset + Slots.size]),
                            at: Slots.address(index - index % perPage))
                    }
                    guard written else { return .writeProtected(errno: writer.failure) }
                }
            }
        }
        return nil
    }

    /// Neighbouring sites are written together: a write costs more than the bytes between them.
    private static func activate(
        _ table: borrowing SiteTable, _ addresses: InlineArray<16, UInt64>, _ writer: inout CodeWriter
    ) -> Problem? {
        var run = InlineArray<4096, UInt8>(repeating: 0)
        for object in 0..<table.objects {
            var range = table.siteRange(ofObject: object)
            while !range.isEmpty {
                let first = addresses[object] &+ table.site(range.lowerBound).window
                var count = 0
                while !range.isEmpty {
                    let site = table.site(range.lowerBound)
                    let window = addresses[object] &+ site.window
                    let offset = Int(truncatingIfNeeded: window &- first)
                    guard offset >= count, offset + site.length <= 4096 else { break }
                    if let code = unsafe UnsafeRawPointer(bitPattern: UInt(first)) {
                        while count < offset {
                            run[count] = unsafe code.load(fromByteOffset: count, as: UInt8.self)
                            count += 1
                        }
                    }
                    let distance = Int64(bitPattern: Slots.address(range.lowerBound) &- (window &+ 5))
                    guard let distance = Int32(exactly: distance) else { return .outOfReach }
                    run[offset] = 0xe9
                    for byte in 0..<4 {
                        run[offset + 1 + byte] = UInt8(
                            truncatingIfNeeded: UInt32(bitPattern: distance) &>> UInt32(8 * byte))
                    }
                    for byte in SiteTableFormat.jumpSize..<site.length { run[offset + byte] = 0xcc }
                    count = offset + site.length
                    range = range.dropFirst()
                }
                guard count > 0 else { return .outOfReach }
                let written = unsafe withUnsafeBytes(of: run) { bytes in
                    unsafe writer.write(UnsafeRawBufferPointer(rebasing: bytes[0..<count]), at: first)
                }
                guard written else { return .writeProtected(errno: writer.failure) }
            }
        }
        return nil
    }
}
