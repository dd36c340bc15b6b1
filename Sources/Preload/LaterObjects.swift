// Objects that are loaded while the program runs: their call sites are rewritten when their code is mapped, before anything of it can run.
//
// ld.so's own mmap(2) calls arrive in the hook like all others. Whatever is mapped privately and executable from an ELF file with a table is rewritten, whoever maps it and
// however often (dlmopen's second C library as well). Only one thread at a time does that, and it waits for nobody: where another is at it, or anything is
// wrong, the object stays as it is, as one without a table does.
// Everything read from the file or from memory may be anything: it is checked before it is used.

import CPreload
import CSystem

enum LaterObjects {
    /// No entry at or above it has been used.
    nonisolated(unsafe) private static var used: UInt32 = 0

    private static var executable: Int64 { 4 }
    private static var readable: Int64 { 1 }

    /// After mmap(2) or munmap(2).
    @inline(__always)
    static func mapsHaveChanged(_ number: SystemCallNumber, _ frame: SystemCallFrame) {
        // What the early instance sees is the other one's to rewrite; where calls are handed back nothing is.
        if EarlyInstance.isAuditor || Dispatch.isOn { return }
        if number == .mmap {
            wasMapped(frame, frame.result)
        } else if frame.result == 0 {
            wasUnmapped(UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1))
        }
    }

    @inline(__always)
    private static func wasMapped(_ frame: SystemCallFrame, _ result: Int64) {
        let (typeBits, privateMap, anonymous): (Int64, Int64, Int64) = (0xf, 2, 0x20)
        if frame.argument2 & executable == 0 || frame.argument3 & (typeBits | anonymous) != privateMap { return }
        if result > 0 || result < -4095 { rewrite(frame, UInt64(bitPattern: result)) }
    }

    @inline(never)
    private static func rewrite(_ frame: SystemCallFrame, _ start: UInt64) {
        guard frame.argument2 & readable != 0, let file = MappedFile(frame, start) else { return }
        guard enter() else { return Report.noteIfUncovered(file) }
        defer { leave() }
        guard let identity = file.identity, var table = TableDirectory.table(identity), table.isWhole(for: identity) else {
            return Report.noteIfUncovered(file)
        }
        var object = RewrittenObject(table, at: file.address, code: file.code)
        guard !object.isEmpty else { return }
        let memory = ProgramMemory(frame)
        var writer = CodeWriter(rehearsingOn: Slots.unusedPage)
        guard memory.isReadable(file.code.lowerBound, file.code.count), object.hasExpectedBytes, writer.isUsable, object.prepare(&writer) == nil else {
            return Report.noteIfUncovered(file)
        }
        if object.activate(&writer) != nil { Report.noteIfUncovered(file) }
        ProgramMemory.mappingsHaveChanged()
        remember(file.code, object.page, object.pages, object.callPage)
    }

    // MARK: One at a time

    /// By process number, so that a child that was forked meanwhile does not wait for a thread that it has not.
    private static func enter() -> Bool {
        let process = UInt32(truncatingIfNeeded: dashfs_raw_syscall3(OwnCall.getpid, 0, 0, 0))
        let owner = unsafe dashfs_load32(dashfs_later_owner_word())
        if owner == process { return false }
        return unsafe dashfs_swap32_if(dashfs_later_owner_word(), owner, process)
    }

    private static func leave() { unsafe dashfs_store32_release(dashfs_later_owner_word(), 0) }

    // MARK: Slots are used again

    private static func remember(_ code: Range<UInt64>, _ page: Int, _ pages: Int, _ callPage: Int?) {
        for index in 0..<UInt32(DASHFS_LATER_OBJECTS) where unsafe dashfs_later_object_at(index).pointee.end == 0 {
            unsafe dashfs_later_object_at(index).pointee = dashfs_later_object(
                start: code.lowerBound, end: code.upperBound, page: UInt32(page), pages: UInt32(pages), call_page: UInt32((callPage ?? -1) + 1),
                unused: 0)
            unsafe used = max(used, index + 1)
            return
        }
        // No room: its slots are its own for ever.
    }

    /// Whoever was in a slot of what is gone has nowhere to go back to.
    private static func wasUnmapped(_ start: UInt64, _ count: UInt64) {
        if unsafe used == 0 { return }
        let (end, overflow) = start.addingReportingOverflow(count)
        if overflow { return }
        for index in unsafe 0..<used {
            let object = unsafe dashfs_later_object_at(index).pointee
            guard object.end != 0, object.start >= start, object.end <= end else { continue }
            guard enter() else { return }
            unsafe dashfs_later_object_at(index).pointee.end = 0
            SlotPages.giveBack(Int(object.page), Int(object.pages), object.call_page == 0 ? nil : Int(object.call_page) - 1)
            leave()
        }
    }
}

/// The executable part of an ELF file that has just been mapped.
struct MappedFile {
    /// The object's load address.
    private(set) var address: UInt64 = 0
    /// In memory.
    private(set) var code: Range<UInt64> = 0..<0
    private(set) var identity: ObjectIdentity?
    let descriptor: Int64

    /// nil: it is none.
    init?(_ frame: SystemCallFrame, _ start: UInt64) {
        descriptor = frame.argument4
        let (offset, length) = (UInt64(bitPattern: frame.argument5), UInt64(bitPattern: frame.argument1))
        guard let scratch = Scratch(), unsafe Self.read(frame, scratch.base, 2048, at: 0) >= 64 else { return nil }
        let header = unsafe UnsafeRawPointer(scratch.base)
        func word16(_ at: Int) -> UInt16 { unsafe header.loadUnaligned(fromByteOffset: at, as: UInt16.self) }
        func word32(_ at: Int) -> UInt32 { unsafe header.loadUnaligned(fromByteOffset: at, as: UInt32.self) }
        func word64(_ at: Int) -> UInt64 { unsafe header.loadUnaligned(fromByteOffset: at, as: UInt64.self) }
        let elf64Little: UInt64 = 0x0102_464c_457f
        guard word64(0) & 0xffff_ffff_ffff == elf64Little, word16(18) == ElfHeader.machine, word16(54) == 56 else { return nil }
        let (table, count) = (word64(32), Int(word16(56)))
        guard table <= 1024, Int(table) + count * 56 <= 2048 else { return nil }
        var (notes, notesSize) = (UInt64(0), 0)
        var pieces = 0
        for index in 0..<count {
            let at = Int(table) + index * 56
            if word32(at) == ElfHeader.note, notesSize == 0 {
                // The build id's note is small, and where others stand before it they are, too.
                (notes, notesSize) = (word64(at + 8), Int(min(word64(at + 32), 1024)))
                let place = unsafe scratch.base + 4096
                let found = unsafe Self.read(frame, place, notesSize, at: notes)
                if found > 0, let (offset, length) = unsafe ElfHeader.buildID(in: place, size: min(found, notesSize)) {
                    identity = unsafe ObjectIdentity(buildID: place + offset, count: length)
                } else {
                    notesSize = 0
                }
            }
            guard word32(at) == ElfHeader.load, word32(at + 4) & ElfHeader.executable != 0 else { continue }
            pieces += 1
            let (fileOffset, virtual, size) = (word64(at + 8), word64(at + 16), word64(at + 32))
            guard fileOffset & ~4095 == offset, size <= length, fileOffset &- offset &+ size <= length, virtual & 4095 == fileOffset & 4095 else { continue }
            address = start &- (virtual & ~4095)
            code = start &+ (fileOffset &- offset)..<start &+ (fileOffset &- offset) &+ size
        }
        guard !code.isEmpty else { return nil }
        if identity == nil, pieces == 1, ProgramMemory(frame).isReadable(code.lowerBound, code.count),
            let bytes = unsafe UnsafeRawPointer(bitPattern: UInt(code.lowerBound))
        {
            identity = unsafe ObjectIdentity(code: bytes, count: code.count)
        }
    }

    /// How many bytes were read; negative: an error. The file may be one of ours.
    private static func read(_ frame: SystemCallFrame, _ target: UnsafeMutableRawPointer, _ count: Int, at offset: UInt64) -> Int {
        let address = UInt64(UInt(bitPattern: target))
        if let file = Descriptors.pin(frame.argument4) {
            defer { file.release() }
            return Int(Transfers.read(file, address, UInt64(count), offset: Int64(bitPattern: offset), ProgramMemory(frame)))
        }
        return Int(
            dashfs_raw_syscall6(
                SystemCallNumber.pread64.rawValue, frame.argument4, Int64(Int(bitPattern: target)), Int64(count), Int64(bitPattern: offset), 0, 0))
    }
}
