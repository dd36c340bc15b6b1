/// Which inode a name in a directory leads to, for names that were looked up lately: a look-up that hits costs two cache lines instead of a walk
/// through the directory's tree.
///
/// Invariants: an entry repeats what the committed tree says. Only an attempt that has staged nothing fills it (what it read is committed); whatever
/// changes an entry of a directory forgets its name here at once, whether the attempt commits or not. Losing an entry loses nothing: one table of 64-byte
/// lines, one place for each name, no list of victims. It is private to the process and starts empty.
///
///     line:  0 u64 directory (0: empty)   8 u64 inode   16 u64 key   24 u8 length of the name   25 the name
@safe struct NameCache: ~Copyable {
    private static let lineSize = 64
    private static let nameAt = 25
    /// Longer names are not kept.
    private static let maximumName = lineSize - nameAt

    private let lines: UnsafeMutableRawPointer
    private let mask: Int

    /// - Parameter capacity: lines; a power of two.
    init(capacity: Int = 16_384) {
        unsafe lines = .allocate(byteCount: capacity * NameCache.lineSize, alignment: NameCache.lineSize)
        unsafe lines.initializeMemory(as: UInt8.self, repeating: 0, count: capacity * NameCache.lineSize)
        mask = capacity - 1
    }

    deinit { unsafe lines.deallocate() }

    /// The only line where the name can be. Names are the users' choice: who makes two of them meet in one line makes his own look-ups slow.
    @inline(__always) private func line(_ directory: UInt64, _ name: Name) -> UnsafeMutableRawPointer {
        var hash = directory &* 0x9E37_79B9_7F4A_7C15 ^ UInt64(truncatingIfNeeded: name.count)
        var at = 0
        while at &+ 8 <= name.count {
            hash = unsafe (hash ^ name.bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)) &* 0xD6E8_FEB8_6659_FD93
            hash ^= hash &>> 32
            at &+= 8
        }
        while at < name.count {
            hash = unsafe (hash ^ UInt64(name.bytes.load(fromByteOffset: at, as: UInt8.self))) &* 0xBF58_476D_1CE4_E5B9
            at &+= 1
        }
        return unsafe lines + (Int(truncatingIfNeeded: hash &>> 32) & mask) &* NameCache.lineSize
    }

    @inline(__always) private func holds(_ line: UnsafeMutableRawPointer, _ directory: UInt64, _ name: Name) -> Bool {
        unsafe line.load(as: UInt64.self) == directory && Int(line.load(fromByteOffset: 24, as: UInt8.self)) == name.count
            && dashfs_equal(line + NameCache.nameAt, name.bytes, name.count)
    }

    @inline(__always) func find(_ name: Name, in directory: UInt64) -> DirectoryEntry? {
        if name.count > NameCache.maximumName { return nil }
        let line = unsafe line(directory, name)
        guard unsafe holds(line, directory, name) else { return nil }
        return unsafe DirectoryEntry(inode: line.load(fromByteOffset: 8, as: UInt64.self), key: line.load(fromByteOffset: 16, as: UInt64.self))
    }

    func enter(_ name: Name, in directory: UInt64, _ entry: DirectoryEntry) {
        if name.count > NameCache.maximumName { return }
        let line = unsafe line(directory, name)
        unsafe line.storeBytes(of: directory, as: UInt64.self)
        unsafe line.storeBytes(of: entry.inode, toByteOffset: 8, as: UInt64.self)
        unsafe line.storeBytes(of: entry.key, toByteOffset: 16, as: UInt64.self)
        unsafe line.storeBytes(of: UInt8(name.count), toByteOffset: 24, as: UInt8.self)
        unsafe (line + NameCache.nameAt).copyMemory(from: name.bytes, byteCount: name.count)
    }

    func forget(_ name: Name, in directory: UInt64) {
        if name.count > NameCache.maximumName { return }
        let line = unsafe line(directory, name)
        if unsafe holds(line, directory, name) { unsafe line.storeBytes(of: 0, as: UInt64.self) }
    }
}
