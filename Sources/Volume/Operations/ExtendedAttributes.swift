/// Extended attributes: name and value pairs in a chain of blocks of the inode.
///
/// The chain is one stream: u64 next block at offset 64 of each block, then 4024 bytes of stream. The stream: u32 total bytes, then per attribute u16 name
/// length, u32 value length, name, value. A change rewrites the stream (at most 64 KiB and so 17 blocks), in one transaction.
extension Volume {
    static let attributeLimit = 65_536
    static let attributeBlockBytes = BlockLayout.size - 72

    private func attributeStream(_ file: Inode, _ tx: Transaction) throws(Stop) -> [UInt8] {
        var stream: [UInt8] = []
        var block = file.attributeBlock
        var blocks = 0
        var total = 4
        while block != 0 && stream.count < total {
            guard geometry.isData(block), blocks <= Volume.attributeLimit / Volume.attributeBlockBytes + 1 else {
                throw damaged("attributes of inode \(file.number)")
            }
            let bytes = try tx.read(block, kind: BlockLayout.Kind.attributes)
            guard bytes.u64(BlockLayout.ownerAt) == file.number else { throw damaged("attribute block \(block) belongs elsewhere") }
            if blocks == 0 {
                total = Int(bytes.u32(72))
                guard total >= 4, total <= Volume.attributeLimit + 4 else { throw damaged("attributes of inode \(file.number)") }
            }
            let count = min(Volume.attributeBlockBytes, total - stream.count)
            unsafe stream.append(contentsOf: UnsafeRawBufferPointer(start: bytes.pointer + 72, count: count))
            block = bytes.u64(64)
            blocks += 1
        }
        guard file.attributeBlock == 0 || stream.count == total else { throw damaged("attributes of inode \(file.number)") }
        return Array(stream.dropFirst(4))
    }

    private struct Attribute {
        var name: [UInt8]
        var value: [UInt8]
    }

    private func attributes(_ file: Inode, _ tx: Transaction) throws(Stop) -> [Attribute] {
        let stream = try attributeStream(file, tx)
        var list: [Attribute] = []
        var at = 0
        while at < stream.count {
            guard at + 6 <= stream.count else { throw damaged("attributes of inode \(file.number)") }
            let nameLength = Int(stream[at]) | Int(stream[at + 1]) << 8
            let valueLength = Int(stream[at + 2]) | Int(stream[at + 3]) << 8 | Int(stream[at + 4]) << 16 | Int(stream[at + 5]) << 24
            guard at + 6 + nameLength + valueLength <= stream.count else { throw damaged("attributes of inode \(file.number)") }
            list.append(
                Attribute(
                    name: Array(stream[(at + 6)..<(at + 6 + nameLength)]),
                    value: Array(stream[(at + 6 + nameLength)..<(at + 6 + nameLength + valueLength)])))
            at += 6 + nameLength + valueLength
        }
        return list
    }

    private func store(_ list: [Attribute], in inode: Inode, _ tx: Transaction) throws(Stop) {
        var stream: [UInt8] = [0, 0, 0, 0]
        for attribute in list {
            let (name, value) = (attribute.name.count, attribute.value.count)
            stream += [UInt8(name & 0xFF), UInt8(name >> 8)]
            stream += [UInt8(value & 0xFF), UInt8(value >> 8 & 0xFF), UInt8(value >> 16 & 0xFF), UInt8(value >> 24)]
            stream += attribute.name
            stream += attribute.value
        }
        guard stream.count <= Volume.attributeLimit + 4 else { throw .errno(Errno.noSpace) }
        for byte in 0..<4 { stream[byte] = UInt8(stream.count >> (8 * byte) & 0xFF) }
        // New blocks first, so that no space means no change; then the old ones go.
        var first: UInt64 = 0
        let blocks = list.isEmpty ? 0 : (stream.count + Volume.attributeBlockBytes - 1) / Volume.attributeBlockBytes
        for number in stride(from: blocks - 1, through: 0, by: -1) {
            let block = try allocateMetadataBlock(goal: geometry.location(ofInode: inode.number).block, mayUseReserve: false, tx)
            let bytes = try tx.fresh(block, kind: BlockLayout.Kind.attributes, owner: inode.number)
            bytes.set(64, first)
            let from = number * Volume.attributeBlockBytes
            let count = min(Volume.attributeBlockBytes, stream.count - from)
            unsafe stream.withUnsafeBytes { unsafe bytes.copy(72, from: $0.baseAddress! + from, count) }
            first = block
        }
        try freeAttributes(inode, tx)
        inode.attributeBlock = first
        inode.blocks += UInt64(blocks)
        if inode.isDirectory { inode.size = inode.blocks * UInt64(BlockLayout.size) }
    }

    /// Frees the chain.
    func freeAttributes(_ inode: Inode, _ tx: Transaction) throws(Stop) {
        var block = inode.attributeBlock
        var count: UInt64 = 0
        while block != 0 {
            guard geometry.isData(block), count <= 20 else { throw damaged("attributes of inode \(inode.number)") }
            let next = try tx.read(block, kind: BlockLayout.Kind.attributes).u64(64)
            try release(Extent(index: 0, block: block, count: 1, unwritten: false), isMetadata: true, tx)
            block = next
            count += 1
        }
        inode.attributeBlock = 0
        inode.blocks -= min(inode.blocks, count)
    }

    /// `user.`: regular files and directories, by permission; `trusted.`, `security.`: root. Others: EOPNOTSUPP, to whom the file's permissions let ask.
    private func checkName(_ name: [UInt8], _ file: Inode, write: Bool, _ who: Credentials) throws(Stop) {
        guard let space = ["user.", "trusted.", "security.", "system."].first(where: { name.starts(with: $0.utf8) }) else {
            guard who.may(write ? Access.write : Access.read, file) else { throw .errno(Errno.access) }
            throw .errno(Errno.operationNotSupported)
        }
        switch space {
        case "user.":
            guard file.isRegular || file.isDirectory else { throw .errno(write ? Errno.perm : Errno.noData) }
            if file.isDirectory && file.mode & Mode.sticky != 0 && write && !who.owns(file) { throw .errno(Errno.perm) }
            guard who.may(write ? Access.write : Access.read, file) else { throw .errno(Errno.access) }
        case "trusted.": guard who.isPrivileged else { throw .errno(write ? Errno.perm : Errno.noData) }
        case "security.": guard who.isPrivileged || !write else { throw .errno(Errno.perm) }
        default: throw .errno(Errno.operationNotSupported)
        }
        if name.count == space.utf8.count { throw .errno(Errno.invalid) }
    }

    private func target(_ request: Request, _ tx: Transaction) throws(Stop) -> Inode {
        if let description = try meantDescription(request, tx) { return try inode(description.inode, tx) }
        return try resolveExisting(request, follow: request.flags & Volume.noFollow == 0, tx)
    }

    private func attributeName(_ request: Request) throws(Stop) -> [UInt8] {
        guard let name = unsafe request.path2, request.path2Length > 0 else { throw .errno(Errno.range) }
        guard request.path2Length <= 255 else { throw .errno(Errno.range) }
        return unsafe Array(UnsafeRawBufferPointer(start: name, count: request.path2Length))
    }

    private func answer(_ bytes: [UInt8], _ request: Request) throws(Stop) -> Outcome {
        if request.bufferLength == 0 { return Outcome(Int64(bytes.count)) }
        guard bytes.count <= request.bufferLength, let buffer = unsafe request.buffer else { throw .errno(Errno.range) }
        unsafe bytes.withUnsafeBytes { unsafe buffer.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(buffer), byteCount: bytes.count) }
        return Outcome(Int64(bytes.count))
    }

    func getExtendedAttribute(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let name = try attributeName(request)
        let file = try target(request, tx)
        try checkName(name, file, write: false, credentials(request))
        guard let found = try attributes(file, tx).first(where: { $0.name == name }) else { throw .errno(Errno.noData) }
        return try answer(found.value, request)
    }

    func setExtendedAttribute(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let name = try attributeName(request)
        let file = try target(request, tx)
        let flags = request.flags & ~(Volume.noFollow | Volume.emptyPath)
        guard flags & ~3 == 0 else { throw .errno(Errno.invalid) }
        guard request.bufferLength <= Volume.attributeLimit else { throw .errno(Errno.tooLong) }
        if isReadOnly { throw .errno(Errno.readOnly) }
        try checkName(name, file, write: true, credentials(request))
        var list = try attributes(file, tx)
        let position = list.firstIndex { $0.name == name }
        if flags & 1 != 0 && position != nil { throw .errno(Errno.exists) }
        if flags & 2 != 0 && position == nil { throw .errno(Errno.noData) }
        let value = unsafe request.buffer.map { unsafe Array(UnsafeRawBufferPointer(start: $0, count: request.bufferLength)) } ?? []
        if let position { list[position].value = value } else { list.append(Attribute(name: name, value: value)) }
        let inode = try inodeForWrite(file.number, tx)
        try store(list, in: inode, tx)
        inode.changeTime = now
        if core(inode.number, tx) != nil { try coreForWrite(inode, tx).changeTime = now }
        return Outcome(0)
    }

    func listExtendedAttributes(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let file = try target(request, tx)
        var bytes: [UInt8] = []
        for attribute in try attributes(file, tx) {
            if attribute.name.starts(with: "trusted.".utf8) && !credentials(request).isPrivileged { continue }
            bytes += attribute.name
            bytes.append(0)
        }
        return try answer(bytes, request)
    }

    func removeExtendedAttribute(_ request: Request, _ tx: Transaction) throws(Stop) -> Outcome {
        let name = try attributeName(request)
        let file = try target(request, tx)
        if isReadOnly { throw .errno(Errno.readOnly) }
        try checkName(name, file, write: true, credentials(request))
        var list = try attributes(file, tx)
        guard let position = list.firstIndex(where: { $0.name == name }) else { throw .errno(Errno.noData) }
        list.remove(at: position)
        let inode = try inodeForWrite(file.number, tx)
        try store(list, in: inode, tx)
        inode.changeTime = now
        if core(inode.number, tx) != nil { try coreForWrite(inode, tx).changeTime = now }
        return Outcome(0)
    }
}
