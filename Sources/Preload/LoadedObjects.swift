// Where the objects of a table are loaded in this process. They are recognised by their build ids, never by name.

import CPreload

/// A loaded object's address and build id.
@safe struct LoadedObject {
    var address: UInt64 = 0
    var buildID: UnsafeRawPointer?
    var buildIDCount = 0
}

/// The objects that were loaded before any initialiser ran: those of the program's start, in load order.
@safe struct LoadedObjects {
    private(set) var count = 0
    private var objects = InlineArray<256, LoadedObject>(repeating: LoadedObject())

    init() {
        // It works before libc is initialised: it only walks ld.so's list.
        unsafe withUnsafeMutablePointer(to: &self) { list in
            _ = unsafe dashfs_iterate_objects(
                { object, _, list in
                    if let list = unsafe list {
                        unsafe list.assumingMemoryBound(to: LoadedObjects.self).pointee.note(object.pointee)
                    }
                    return 0
                }, list)
        }
    }

    /// ld.so alone, which is at `address`: its file's first page is there, and that has the headers. elf(5), Elf64_Ehdr.
    init(loaderAt address: UInt64) {
        guard let header = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else { return }
        let offset = unsafe Int(header.load(fromByteOffset: 32, as: UInt32.self))
        unsafe note(
            dashfs_loaded_object(
                address: address, name: nil, headers: (header + offset).assumingMemoryBound(to: dashfs_program_header.self),
                header_count: header.load(fromByteOffset: 56, as: UInt16.self)))
    }

    subscript(_ index: Int) -> LoadedObject { objects[index] }

    private mutating func note(_ object: dashfs_loaded_object) {
        guard count < 256, let headers = unsafe object.headers else { return }
        for index in 0..<Int(unsafe object.header_count) {
            let header = unsafe headers[index]
            let note: UInt32 = 4  // PT_NOTE
            guard header.type == note else { continue }
            let start = unsafe UInt(object.address) &+ UInt(header.address)
            guard let notes = unsafe UnsafeRawPointer(bitPattern: start) else { continue }
            if let (bytes, length) = unsafe Self.buildID(in: notes, size: Int(header.memory_size)) {
                objects[count] = unsafe LoadedObject(
                    address: object.address, buildID: bytes, buildIDCount: length)
                count += 1
                return
            }
        }
    }

    /// A note: name size, descriptor size, type (u32 each), name, descriptor, both padded to 4 bytes. NT_GNU_BUILD_ID is 3.
    private static func buildID(in notes: UnsafeRawPointer, size: Int) -> (UnsafeRawPointer, Int)? {
        var offset = 0
        while offset + 12 <= size {
            let nameSize = Int(unsafe notes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            let length = Int(unsafe notes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
            let type = unsafe notes.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)
            let descriptor = offset + 12 + (nameSize + 3) / 4 * 4
            guard descriptor + length <= size else { return nil }
            let gnu: UInt32 = 0x0055_4e47
            if type == 3, nameSize == 4, unsafe notes.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self) == gnu {
                return unsafe (notes + descriptor, length)
            }
            offset = descriptor + (length + 3) / 4 * 4
        }
        return nil
    }
}
