// What a device already holds, by the magic numbers that other systems leave there. Invariant: it only reads, at most the first 16 MiB and the
// last block; a device that cannot be read is reported, never taken for empty.
import BlockDevice
import Glibc

enum KnownContent {
    static let ownName = "DashFS volume"

    /// A magic number: what it means, where it is, its bytes.
    private static let magics: [(name: String, offset: UInt64, bytes: [UInt8])] = [
        // e2fsprogs lib/ext2fs/ext2_fs.h: s_magic at 0x38 of the superblock at 1024.
        ("ext2, ext3 or ext4 file system", 1024 + 0x38, [0x53, 0xEF]),
        ("XFS file system", 0, Array("XFSB".utf8)),
        ("Btrfs file system", 65536 + 0x40, Array("_BHRfS_M".utf8)),
        ("NTFS file system", 3, Array("NTFS    ".utf8)),
        ("exFAT file system", 3, Array("EXFAT   ".utf8)),
        ("FAT file system", 54, Array("FAT12   ".utf8)),
        ("FAT file system", 54, Array("FAT16   ".utf8)),
        ("FAT file system", 82, Array("FAT32   ".utf8)),
        ("swap space", 4096 - 10, Array("SWAPSPACE2".utf8)),
        ("swap space", 4096 - 10, Array("SWAP-SPACE".utf8)),
        ("LUKS encrypted volume", 0, Array("LUKS".utf8) + [0xBA, 0xBE]),
        ("LVM physical volume", 512 + 24, Array("LVM2 001".utf8)),
        ("LVM physical volume", 24, Array("LVM2 001".utf8)),
        ("ISO 9660 file system", 32769, Array("CD001".utf8)),
        ("squashfs file system", 0, Array("hsqs".utf8)),
        ("F2FS file system", 1024, [0x10, 0x20, 0xF5, 0xF2]),
        ("bcachefs file system", 4096 + 24, [0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA]),
        ("EROFS file system", 1024, [0xE2, 0xE1, 0xF5, 0xE0]),
        ("Linux RAID member", 4096, [0xFC, 0x4E, 0x2B, 0xA9]),
        ("Linux RAID member", 0, [0xFC, 0x4E, 0x2B, 0xA9]),
        ("bcache device", 4096 + 24, [0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA]),
        ("GPT partition table", 512, Array("EFI PART".utf8)),
        ("GPT partition table", 4096, Array("EFI PART".utf8)),
        (ownName, 0, Array("DSHF".utf8)),
    ]

    /// What is there, for people ("an ext4 file system" without the article), or nil.
    static func find(_ queue: any DeviceQueue, _ capabilities: DeviceCapabilities) throws(Failure) -> String? {
        let count = min(capabilities.blockCount, 64)
        let length = Int(count) * blockSize
        guard let memory = unsafe UnsafeMutableRawPointer(bitPattern: dashfsAllocate(length)) else {
            throw Failure(.system, "no memory to look at the device")
        }
        defer { unsafe free(memory) }
        let head = unsafe UnsafeMutableRawBufferPointer(start: memory, count: length)
        try unsafe read(queue, at: 0, head, capabilities)
        for magic in magics {
            let end = Int(magic.offset) + magic.bytes.count
            if end <= length, unsafe head[Int(magic.offset)..<end].elementsEqual(magic.bytes) { return magic.name }
        }
        if unsafe isPartitioned(head) { return "partition table" }
        // ZFS: an uberblock (0x00bab10c, either byte order) in the ring of the first label, 128 KiB in.
        for offset in stride(from: 128 << 10, to: length - 8, by: 1024) {
            let word = unsafe head.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            if word == 0x00BA_B10C || word.byteSwapped == 0x00BA_B10C { return "ZFS pool member" }
        }
        let last = unsafe UnsafeMutableRawBufferPointer(start: memory, count: blockSize)
        try unsafe read(queue, at: (capabilities.blockCount - 1) * UInt64(blockSize), last, capabilities)
        if unsafe last.prefix(4).elementsEqual("DSHF".utf8) { return "\(ownName) (its first superblock is damaged; `dashfs check` reads the second)" }
        return nil
    }

    private static func read(_ queue: any DeviceQueue, at offset: UInt64, _ memory: UnsafeMutableRawBufferPointer, _ capabilities: DeviceCapabilities) throws(Failure) {
        let error = unsafe queue.perform(.read, offset: offset, memory: memory)
        guard error == 0 else { throw Failure(.init(errno: error, otherwise: .inputOutput), "\(capabilities.description): cannot be read: \(errorText(error))") }
    }

    /// A boot record with its signature and at least one partition whose fields make sense.
    private static func isPartitioned(_ head: UnsafeMutableRawBufferPointer) -> Bool {
        guard unsafe head[510] == 0x55, unsafe head[511] == 0xAA else { return false }
        for entry in stride(from: 446, to: 510, by: 16) {
            let (status, type) = unsafe (head[entry], head[entry + 4])
            let sectors = unsafe head.loadUnaligned(fromByteOffset: entry + 12, as: UInt32.self)
            if (status == 0 || status == 0x80) && type != 0 && sectors != 0 { return true }
        }
        return false
    }

    /// Memory that direct I/O takes; an address, or 0.
    private static func dashfsAllocate(_ length: Int) -> Int {
        unsafe Int(bitPattern: aligned_alloc(blockSize, length))
    }
}
