// The table of call sites of this machine's C library and its loader: found once per build, cached, handed to programs by
// the path in DASHFS_SITES. Layout: SiteTableFormat.swift.

/// One object with its call sites.
package struct SurveyedObject {
    package enum Kind: UInt32 { case libc = 0, loader = 1 }

    package let kind: Kind
    package let path: String
    package let buildID: [UInt8]
    package let sites: [CallSite]

    package init(kind: Kind, path: String) throws(InterceptionError) {
        let object = try ObjectFile(path: path, bytes: Files.read(path))
        self.kind = kind
        self.path = path
        buildID = object.buildID
        sites = try SiteFinder(object).sites()
    }

    package var buildIDText: String { hexadecimal(buildID) }

    /// A line for each call site: what it calls and how it is covered. For `dashfs doctor`.
    package var report: [String] {
        sites.map { site in
            let numbers = site.calls.numbers.sorted().map { number in
                SystemCallNumber(rawValue: number).map { "\($0)" } ?? String(number)
            }
            let calls = (numbers + (site.calls.mayBeOthers ? ["any"] : [])).joined(separator: ", ")
            let coverage =
                switch site.coverage {
                case .rewritten(let window): "rewritten, \(window.bytes.count) bytes"
                case .leftAlone: "left alone"
                case .impossible(let reason): "cannot be rewritten: \(reason)"
                }
            return "0x\(String(site.address, radix: 16)) \(site.place): \(calls): \(coverage)"
        }
    }

    var windows: [(window: CallSite.Window, call: Int32)] {
        sites.compactMap { site in
            guard case .rewritten(let window) = site.coverage else { return nil }
            let call = site.calls.numbers.count == 1 && !site.calls.mayBeOthers ? site.calls.numbers.first : nil
            return (window, Int32(truncatingIfNeeded: call ?? -1))
        }
    }
}

package enum SiteTable {
    /// The environment variable by which the path of the table travels to programs and their children.
    package static let environmentName = "DASHFS_SITES"

    /// The path of the table for this machine's C library: found in `cacheDirectory`, or made there.
    /// Some tens of milliseconds when it has to be made, a few when not. Throws if a site that matters cannot be rewritten.
    package static func forThisMachine(cacheDirectory: String) throws(InterceptionError) -> String {
        let paths = try systemObjects()
        var identities: [String] = []
        for (_, path) in paths {
            identities.append(String(hexadecimal(try ObjectFile(path: path, bytes: Files.read(path)).buildID).prefix(16)))
        }
        let name = "sites-\(String(selectionDigest, radix: 16))-\(identities.joined(separator: "-"))"
        let path = "\(cacheDirectory)/\(name)"
        if Files.exists(path), let cached = try? Files.read(path), isWhole(cached) { return path }
        let table = try encode(surveyThisMachine())
        try Files.makeDirectory(cacheDirectory)
        try Files.replace(path, with: table)
        return path
    }

    /// Every call site of this machine's C library and loader, and how each is covered.
    package static func surveyThisMachine() throws(InterceptionError) -> [SurveyedObject] {
        var objects: [SurveyedObject] = []
        for (kind, path) in try systemObjects() { objects.append(try SurveyedObject(kind: kind, path: path)) }
        return objects
    }

    /// The C library and loader that this very process runs on.
    static func systemObjects() throws(InterceptionError) -> [(SurveyedObject.Kind, String)] {
        let maps = String(decoding: try Files.read("/proc/self/maps"), as: UTF8.self)
        var libc: String?
        var loader: String?
        for line in maps.split(separator: "\n") {
            guard let slash = line.firstIndex(of: "/") else { continue }
            let path = String(line[slash...])
            if path.hasSuffix("/libc.so.6") { libc = path }
            if path.contains("/ld-linux-x86-64.so") { loader = path }
        }
        guard let libc, let loader else {
            throw InterceptionError(.notFound, "/proc/self/maps", "names no libc.so.6 and ld-linux-x86-64.so.2")
        }
        return [(.libc, libc), (.loader, loader)]
    }

    /// Other calls to catch, or another format: another table.
    private static var selectionDigest: UInt64 {
        var digest = SiteTableFormat.digest(SiteTableFormat.digestSeed, word: UInt64(SiteTableFormat.version))
        for number in SystemCallNumber.allCases {
            digest = SiteTableFormat.digest(digest, word: UInt64(bitPattern: number.rawValue))
        }
        return digest
    }

    // MARK: Encoding

    package static func encode(_ objects: [SurveyedObject]) throws(InterceptionError) -> [UInt8] {
        var records: [UInt8] = []
        var sites: [UInt8] = []
        var count = 0
        for object in objects {
            for site in object.sites {
                if case .impossible(let reason) = site.coverage {
                    let address = String(site.address, radix: 16)
                    throw InterceptionError(.uncovered, object.path, "the call at 0x\(address) (\(site.place)): \(reason)")
                }
            }
            let windows = object.windows
            records += object.buildID + zeros(SiteTableFormat.buildIDCapacity - object.buildID.count)
            records += little(UInt32(object.buildID.count)) + little(UInt32(count)) + little(UInt32(windows.count))
            records += little(object.kind.rawValue)
            for (window, call) in windows {
                guard let address = UInt32(exactly: window.address) else {
                    throw InterceptionError(.unsupported, object.path, "is larger than 4 GiB")
                }
                sites += little(address) + [UInt8(window.bytes.count), UInt8(window.before)]
                sites += [window.fixups.first ?? SiteTableFormat.noFixup]
                sites += [window.fixups.count > 1 ? window.fixups[1] : SiteTableFormat.noFixup]
                sites += little(UInt32(bitPattern: call))
                sites += window.bytes + zeros(SiteTableFormat.windowCapacity - window.bytes.count)
            }
            count += windows.count
        }
        var table = little(SiteTableFormat.magic) + little(SiteTableFormat.version)
        table += little(UInt32(objects.count)) + little(UInt32(count)) + zeros(4)
        let body = records + sites
        return table + little(digest(body[...])) + body
    }

    /// Whether a cached file is a table that was written to its end.
    package static func isWhole(_ table: [UInt8]) -> Bool {
        guard table.count >= SiteTableFormat.headerSize, (table.count - SiteTableFormat.headerSize) % 8 == 0 else { return false }
        let expected = little(SiteTableFormat.magic) + little(SiteTableFormat.version)
        return table.starts(with: expected)
            && table[24..<32].elementsEqual(little(digest(table[SiteTableFormat.headerSize...])))
    }

    private static func digest(_ body: ArraySlice<UInt8>) -> UInt64 {
        var digest = SiteTableFormat.digestSeed
        var index = body.startIndex
        while index < body.endIndex {
            var word: UInt64 = 0
            for byte in 0..<8 { word |= UInt64(body[index + byte]) << UInt64(8 * byte) }
            digest = SiteTableFormat.digest(digest, word: word)
            index += 8
        }
        return digest
    }

    private static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

    private static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
    }
}

private func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
