// The objects that are loaded in this process. They are recognised by what they are (`ObjectIdentity`), never by name.

import CPreload

/// What a loaded object's program headers say.
@safe struct LoadedObject {
    var address: UInt64 = 0
    var name: UnsafePointer<CChar>?
    var buildID: UnsafeRawPointer?
    var buildIDCount = 0
    /// Its code in memory; empty where it lies in several pieces.
    var code: Range<UInt64> = 0..<0
    /// Between the first and the last byte of code in memory.
    var codeBounds: Range<UInt64> = 0..<0

    /// nil: it cannot be known.
    var identity: ObjectIdentity? {
        if let buildID = unsafe buildID { return unsafe ObjectIdentity(buildID: buildID, count: buildIDCount) }
        guard !code.isEmpty, let start = unsafe UnsafeRawPointer(bitPattern: UInt(code.lowerBound)) else { return nil }
        return unsafe ObjectIdentity(code: start, count: code.count)
    }
}

extension LoadedObject {
    init(_ object: dashfs_loaded_object) {
        address = unsafe object.address
        unsafe name = object.name
        guard let headers = unsafe object.headers else { return }
        var pieces = 0
        for index in 0..<Int(unsafe object.header_count) {
            let header = unsafe headers[index]
            let start = address &+ header.address
            if header.type == ElfHeader.load, header.flags & ElfHeader.executable != 0, header.file_size < 1 << 40 {
                pieces += 1
                code = start..<start &+ header.file_size
                codeBounds = pieces == 1 ? code : min(codeBounds.lowerBound, start)..<max(codeBounds.upperBound, start &+ header.file_size)
            } else if header.type == ElfHeader.note, unsafe buildID == nil, let notes = unsafe UnsafeRawPointer(bitPattern: UInt(start)) {
                if let (offset, length) = unsafe ElfHeader.buildID(in: notes, size: Int(header.memory_size)) {
                    unsafe buildID = notes + offset
                    buildIDCount = length
                }
            }
        }
        if pieces != 1 { code = 0..<0 }
    }

    /// ld.so or this library, which is at `address`: its file's first page is there, and that has the headers. elf(5), Elf64_Ehdr.
    init(headerAt address: UInt64) {
        guard let header = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else {
            self.init()
            return
        }
        let offset = unsafe Int(header.load(fromByteOffset: 32, as: UInt32.self))
        unsafe self.init(
            dashfs_loaded_object(
                address: address, name: nil, headers: (header + offset).assumingMemoryBound(to: dashfs_program_header.self),
                header_count: header.load(fromByteOffset: 56, as: UInt16.self)))
    }

    /// The objects that are loaded, in load order, with their numbers. Before any initialiser has run these are those of the program's start; ld.so and libc are
    /// always among them, because every program that is rewritten has them. It works then, too: it only walks ld.so's list.
    static func visit<Context: ~Copyable>(_ context: inout Context, _ body: @convention(c) (UnsafeMutablePointer<dashfs_loaded_object>, Int, UnsafeMutableRawPointer?) -> Int32) {
        unsafe withUnsafeMutablePointer(to: &context) { context in
            _ = unsafe dashfs_iterate_objects(body, context)
        }
    }
}

/// What is needed of the ELF format.
enum ElfHeader {
    static let load: UInt32 = 1
    static let note: UInt32 = 4
    static let executable: UInt32 = 1

    /// Where the build id is among an object's notes, and its length. A note: name size, descriptor size, type (u32 each), name, descriptor, both padded to 4 bytes.
    /// NT_GNU_BUILD_ID is 3.
    static func buildID(in notes: UnsafeRawPointer, size: Int) -> (offset: Int, count: Int)? {
        var offset = 0
        while offset + 12 <= size {
            let nameSize = Int(unsafe notes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            let length = Int(unsafe notes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
            let type = unsafe notes.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)
            let descriptor = offset + 12 + (nameSize + 3) / 4 * 4
            guard descriptor + length <= size else { return nil }
            let gnu: UInt32 = 0x0055_4e47
            if type == 3, nameSize == 4, length > 0, length <= 32, unsafe notes.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self) == gnu {
                return (descriptor, length)
            }
            offset = descriptor + (length + 3) / 4 * 4
        }
        return nil
    }
}
