// By what the preloaded library knows an object when it meets it in memory: the build id that its linker gave it, or where it has none, a digest of its code.

extension ObjectFile {
    package struct Identity: Equatable {
        package let bytes: [UInt8]
        package let isBuildID: Bool

        /// A file name.
        package var text: String { (isBuildID ? "" : "text-") + hexadecimal(bytes) }
    }

    package func identity() throws(InterceptionError) -> Identity {
        if !buildID.isEmpty { return Identity(bytes: buildID, isBuildID: true) }
        let segments = executableSegments
        guard segments.count == 1, let segment = segments.first else {
            throw InterceptionError(.unsupported, path, "has no build id, and its code lies in several segments")
        }
        let digest = SiteTable.digest(bytes[segment])
        return Identity(bytes: little(digest) + little(UInt64(segment.count)), isBuildID: false)
    }

    /// Where in the file the code is that the loader maps: PT_LOAD with PF_X.
    private var executableSegments: [Range<Int>] {
        guard let table = Int(exactly: word64(32)), word16(54) == 56 else { return [] }
        var found: [Range<Int>] = []
        for index in 0..<Int(word16(56)) {
            let (header, overflow) = table.addingReportingOverflow(index * 56)
            guard !overflow, word32(header) == 1, word32(header &+ 4) & 1 != 0, let offset = Int(exactly: word64(header &+ 8)),
                let size = Int(exactly: word64(header &+ 32)), offset <= bytes.count, size <= bytes.count - offset
            else { continue }
            found.append(offset..<offset + size)
        }
        return found
    }
}
