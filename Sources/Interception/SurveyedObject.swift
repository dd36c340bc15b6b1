// One object with its call sites, and the table that says how they are rewritten (`SiteTableFormat`).

package struct SurveyedObject {
    package let kind: SiteTableFormat.Kind
    package let path: String
    package let identity: ObjectFile.Identity
    package let sites: [CallSite]

    /// The C library or its loader, of which everything has to be carried.
    package init(kind: SiteTableFormat.Kind, path: String) throws(InterceptionError) {
        let bytes = try Files.read(path)
        try self.init(kind: kind, kind == .other ? ObjectFile(program: path, bytes: bytes) : ObjectFile(path: path, bytes: bytes))
    }

    package init(kind: SiteTableFormat.Kind, _ object: ObjectFile) throws(InterceptionError) {
        self.kind = kind
        path = object.path
        identity = try object.identity()
        sites = try SiteFinder(object).sites()
    }

    /// A line for each call site: what it calls and how it is covered. For `dashfs doctor`.
    package var report: [String] {
        sites.map { "0x\(String($0.address, radix: 16)) \($0.place): \($0.callsText): \($0.coverage.text)" }
    }

    /// What of it cannot be carried.
    package var uncovered: [CallSite] {
        sites.filter { site -> Bool in
            if case .impossible = site.coverage { true } else { false }
        }
    }

    package var windows: [(window: CallSite.Window, call: Int32)] {
        sites.compactMap { site in
            guard case .rewritten(let window) = site.coverage else { return nil }
            let call = site.calls.numbers.count == 1 && !site.calls.mayBeOthers ? site.calls.numbers.first : nil
            return (window, Int32(truncatingIfNeeded: call ?? -1))
        }
    }

    package var redirectedCalls: [CallSite.RedirectedCall] {
        sites.flatMap { site -> [CallSite.RedirectedCall] in
            if case .throughCallers(let calls) = site.coverage { calls } else { [] }
        }
    }

    // MARK: The table

    package func table() throws(InterceptionError) -> [UInt8] {
        if kind != .other, let site = uncovered.first, case .impossible(let reason) = site.coverage {
            throw InterceptionError(.uncovered, path, "the call at 0x\(String(site.address, radix: 16)) (\(site.place)): \(reason)")
        }
        let (windows, calls) = (windows, redirectedCalls)
        guard windows.count <= SiteTableFormat.maximumSites, calls.count <= SiteTableFormat.maximumCalls else {
            throw InterceptionError(.unsupported, path, "has more system calls of its own than a table holds")
        }
        var body = identity.bytes + zeros(SiteTableFormat.identityCapacity - identity.bytes.count)
        body += little(UInt32(identity.bytes.count)) + zeros(4)
        for (window, call) in windows {
            body += little(try place(window.address)) + [UInt8(window.bytes.count), UInt8(window.before)]
            body += [window.fixups.first ?? SiteTableFormat.noFixup]
            body += [window.fixups.count > 1 ? window.fixups[1] : SiteTableFormat.noFixup]
            body += little(UInt32(bitPattern: call))
            body += window.bytes + zeros(SiteTableFormat.windowCapacity - window.bytes.count)
        }
        for call in calls { body += little(try place(call.address)) + little(try place(call.target)) }
        var table = little(SiteTableFormat.magic) + little(SiteTableFormat.version) + little(kind.rawValue)
        table += little(UInt32(windows.count)) + little(UInt32(calls.count))
        return table + little(SiteTable.digest(body[...])) + body
    }

    private func place(_ address: UInt64) throws(InterceptionError) -> UInt32 {
        guard let place = UInt32(exactly: address) else { throw InterceptionError(.unsupported, path, "is larger than 4 GiB") }
        return place
    }

    private func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
}

enum SiteTable {
    /// Whether a file is a table that was written to its end.
    static func isWhole(_ table: [UInt8]) -> Bool {
        guard table.count >= SiteTableFormat.headerSize, table.count % 8 == 0 else { return false }
        let expected = little(SiteTableFormat.magic) + little(SiteTableFormat.version)
        return table.starts(with: expected) && table[24..<32].elementsEqual(little(digest(table[32...])))
    }

    static func digest(_ body: ArraySlice<UInt8>, from seed: UInt64 = SiteTableFormat.digestSeed) -> UInt64 {
        var digest = seed
        var index = body.startIndex
        while index < body.endIndex {
            var word: UInt64 = 0
            for byte in 0..<min(8, body.endIndex - index) { word |= UInt64(body[index + byte]) << UInt64(8 * byte) }
            digest = SiteTableFormat.digest(digest, word: word)
            index += 8
        }
        return digest
    }
}

func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(8 * $0)) }
}

func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
