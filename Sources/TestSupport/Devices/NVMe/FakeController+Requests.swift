import BlockDevice
import Glibc

extension FakeController {
    private enum Answer {
        static let invalidOpcode: UInt16 = 0x01
        static let invalidField: UInt16 = 0x02
        static let invalidNamespace: UInt16 = 0x0B
        static let rangeExceeded: UInt16 = 0x80
        static let readOnly: UInt16 = 0x20
    }

    // MARK: Judging

    /// Holds a request against the specification and against what the driver was told, and finds its pages.
    func checkRequest(_ taken: inout FakePending) {
        let command = taken.command
        func refuse(_ text: String, _ status: UInt16) {
            violate("\(text): \(command)")
            taken.error = status
        }
        if command.namespace != 1 { return refuse("namespace \(command.namespace)", Answer.invalidNamespace) }
        switch command.opcode {
        case NVMeOpcode.flush:
            if command.first != 0 || command.second != 0 || command.word10 | command.word11 | command.word12 | command.word13 != 0 {
                refuse("a flush with something in it", Answer.invalidField)
            }
        case NVMeOpcode.read, NVMeOpcode.write:
            let (block, blocks) = range(command)
            if command.word12 & ~(1 << 30 | 0xFFFF) != 0 || command.word13 != 0 { return refuse("a transfer with unknown bits", Answer.invalidField) }
            let bytes = blocks * configuration.blockSize
            if bytes > toldTransfer { return refuse("a transfer beyond MDTS (\(toldTransfer))", Answer.invalidField) }
            guard checkRange(block, blocks, &taken) else { return }
            if let problem = findPages(command, bytes, &taken.pages) { return refuse(problem, Answer.invalidField) }
        case NVMeOpcode.writeZeroes:
            if !configuration.hasWriteZeroes { return refuse("write zeroes is not offered", Answer.invalidOpcode) }
            if command.first != 0 || command.second != 0 || command.word13 != 0 { return refuse("write zeroes with memory", Answer.invalidField) }
            let (block, blocks) = range(command)
            guard checkRange(block, blocks, &taken) else { return }
        case NVMeOpcode.manageDataset:
            if !configuration.hasDeallocate { return refuse("deallocation is not offered", Answer.invalidOpcode) }
            if command.word10 & 0xFF != 0 || command.word11 != 4 { return refuse("not one range to deallocate", Answer.invalidField) }
            if let problem = findPages(command, 16, &taken.pages) { return refuse(problem, Answer.invalidField) }
            let (block, blocks) = datasetRange(taken)
            guard checkRange(block, blocks, &taken) else { return }
        default: return refuse("an unknown request", Answer.invalidOpcode)
        }
        if configuration.isWriteProtected && command.opcode != NVMeOpcode.read && command.opcode != NVMeOpcode.flush { taken.error = Answer.readOnly }
    }

    private func range(_ command: NVMeCommand) -> (UInt64, Int) {
        (UInt64(command.word10) | UInt64(command.word11) << 32, Int(command.word12 & 0xFFFF) + 1)
    }

    private func datasetRange(_ taken: FakePending) -> (UInt64, Int) {
        guard let page = taken.pages.first else { return (0, 0) }
        return (load(page + 8), Int(load(page) >> 32))
    }

    private func checkRange(_ block: UInt64, _ blocks: Int, _ taken: inout FakePending) -> Bool {
        let (end, overflow) = block.addingReportingOverflow(UInt64(blocks))
        if blocks == 0 || overflow || end > toldBlocks { violate("blocks \(block)... (\(blocks)) of \(toldBlocks): \(taken.command)") }
        // A namespace that has become smaller is not the driver's mistake.
        if overflow || end > namespaceBlocks { taken.error = Answer.rangeExceeded }
        return taken.error == nil
    }

    /// The pages of a transfer (base specification, "Physical Region Page Entry and List"), all of them whole.
    /// - Returns: what is wrong with them.
    func findPages(_ command: NVMeCommand, _ bytes: Int, _ pages: inout [UInt64]) -> String? {
        let page = UInt64(Self.page)
        let count = (bytes + Self.page - 1) / Self.page
        func problem(_ address: UInt64, _ what: String) -> String? {
            if address % page != 0 { return "\(what) 0x\(String(address, radix: 16)) is not a page" }
            return unsafe host(address, Self.page) == nil ? "\(what) 0x\(String(address, radix: 16)) is not memory of the driver's" : nil
        }
        if let problem = problem(command.first, "the first page") { return problem }
        pages.reserveCapacity(count)
        pages.append(command.first)
        if count == 1 { return command.second == 0 ? nil : "a second page that is not needed" }
        if count == 2 {
            pages.append(command.second)
            return problem(command.second, "the second page")
        }
        var list = command.second
        if let problem = problem(list, "the list") { return problem }
        var place = 0
        while pages.count < count {
            let entry = load(list + UInt64(place * 8))
            // The last place of a page leads on where one page more is to come than this place holds.
            if place == Self.page / 8 - 1 && pages.count < count - 1 {
                if let problem = problem(entry, "the next page of the list") { return problem }
                (list, place) = (entry, 0)
                continue
            }
            if let problem = problem(entry, "page \(pages.count)") { return problem }
            pages.append(entry)
            place += 1
        }
        return nil
    }

    // MARK: Doing

    func carryOut(_ pending: FakePending) -> UInt16 {
        let command = pending.command
        let size = configuration.blockSize
        let isCached = configuration.hasVolatileCache && configuration.cacheIsOn && command.word12 >> 30 & 1 == 0
        switch command.opcode {
        case NVMeOpcode.flush: medium.flush()
        case NVMeOpcode.read:
            let (block, blocks) = range(command)
            guard block + UInt64(blocks) <= namespaceBlocks else { return Answer.rangeExceeded }
            read(pending)
        case NVMeOpcode.write:
            let (block, blocks) = range(command)
            guard block + UInt64(blocks) <= namespaceBlocks else { return Answer.rangeExceeded }
            if pending.fault != .lie { write(pending, 0..<blocks * size, isCached: isCached) }
        case NVMeOpcode.writeZeroes, NVMeOpcode.manageDataset:
            let (block, blocks) = command.opcode == NVMeOpcode.writeZeroes ? range(command) : datasetRange(pending)
            guard block + UInt64(blocks) <= namespaceBlocks else { return Answer.rangeExceeded }
            if command.opcode == NVMeOpcode.manageDataset { discardedBlocks += UInt64(blocks) }
            let offset = Int(block) * size
            // What a deallocated block reads as is the device's affair: something that nobody may rely on.
            fill(offset..<offset + blocks * size, command.opcode == NVMeOpcode.writeZeroes ? 0 : 0xD1, isCached: isCached)
        default: break
        }
        return 0
    }

    /// A command that does not come to its end: nothing of it has happened, or a part, or all.
    func abandon(_ pending: FakePending, mayBeWhole: Bool = true) {
        if pending.queue == 0 || pending.isEcho { return }
        let command = pending.command
        let size = configuration.blockSize
        let choice = random.below(3)
        switch command.opcode {
        case NVMeOpcode.read: if choice > 0 { read(pending) }
        case NVMeOpcode.write:
            let (block, blocks) = range(command)
            guard choice > 0, block + UInt64(blocks) <= namespaceBlocks else { return }
            for piece in pieces(offset: Int(block) * size, length: blocks * size) where choice == 2 && mayBeWhole || random.chance(0.5) {
                write(pending, piece, isCached: true)
            }
        case NVMeOpcode.writeZeroes, NVMeOpcode.manageDataset:
            let (block, blocks) = command.opcode == NVMeOpcode.writeZeroes ? range(command) : datasetRange(pending)
            guard choice > 0, block + UInt64(blocks) <= namespaceBlocks else { return }
            for piece in pieces(offset: Int(block) * size, length: blocks * size) where choice == 2 && mayBeWhole || random.chance(0.5) {
                let start = Int(block) * size
                fill(start + piece.lowerBound..<start + piece.upperBound, command.opcode == NVMeOpcode.writeZeroes ? 0 : 0xD1, isCached: true)
            }
        default: break
        }
    }

    /// In bytes of the change, what is not torn.
    private func pieces(offset: Int, length: Int) -> [Range<Int>] {
        var capabilities = DeviceCapabilities(blockCount: 0)
        capabilities.atomicWriteUnit = configuration.atomicUnit
        return capabilities.atomicPieces(offset: offset, length: length).map { $0.lowerBound * 512..<$0.upperBound * 512 }
    }

    private func read(_ pending: FakePending) {
        let (block, blocks) = range(pending.command)
        guard block + UInt64(blocks) <= namespaceBlocks else { return }
        unsafe move(pending, 0..<blocks * configuration.blockSize) { memory, offset, count in
            unsafe memory.copyMemory(from: medium.pointer(Int(block) * configuration.blockSize + offset), byteCount: count)
        }
    }

    private func write(_ pending: FakePending, _ bytes: Range<Int>, isCached: Bool) {
        let start = Int(range(pending.command).0) * configuration.blockSize
        // Piece by piece, as a device may lose it.
        for piece in pieces(offset: start, length: range(pending.command).1 * configuration.blockSize) where piece.overlaps(bytes) {
            let part = piece.clamped(to: bytes)
            medium.write(start + part.lowerBound..<start + part.upperBound, isCached: isCached) {
                unsafe move(pending, part) { memory, offset, count in
                    unsafe medium.pointer(start + offset).copyMemory(from: memory, byteCount: count)
                }
            }
        }
    }

    /// A namespace may be said to be larger than its medium, for the sake of large numbers.
    private func fill(_ range: Range<Int>, _ byte: UInt8, isCached: Bool) {
        let range = range.clamped(to: 0..<medium.bytes)
        guard !range.isEmpty else { return }
        medium.write(range, isCached: isCached) { unsafe memset(medium.pointer(range.lowerBound), Int32(byte), range.count) }
    }

    /// The pieces of memory of a part of a transfer.
    private func move(_ pending: FakePending, _ bytes: Range<Int>, _ body: (UnsafeMutableRawPointer, Int, Int) -> Void) {
        var at = bytes.lowerBound
        while at < bytes.upperBound {
            let inPage = at % Self.page
            let count = min(Self.page - inPage, bytes.upperBound - at)
            guard at / Self.page < pending.pages.count, let memory = unsafe host(pending.pages[at / Self.page] + UInt64(inPage), count) else { return }
            unsafe body(memory, at, count)
            at += count
        }
    }
}
