/// A window on bytes of a frame, of a staged copy, or of a state table. All multi-byte fields are little-endian at named offsets.
///
/// Invariant: every access is inside the window; setters work only on staged copies (`writable`). Both are checked, always:
/// what a block says about itself has been validated when it was read, so a failing check here is a defect of ours, and a
/// stopped server is better than a damaged volume. A window is valid until its transaction ends.
@safe package struct Bytes {
    @usableFromInline let base: UnsafeMutableRawPointer
    package let count: Int
    package let writable: Bool

    @inline(__always) package init(_ base: UnsafeMutableRawPointer, count: Int, writable: Bool) {
        unsafe self.base = base
        self.count = count
        self.writable = writable
    }

    @inline(__always) private func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: T.Type) -> T {
        precondition(offset >= 0 && offset &+ MemoryLayout<T>.size <= count)
        return unsafe T(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    @inline(__always) private func store<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ value: T) {
        precondition(writable && offset >= 0 && offset &+ MemoryLayout<T>.size <= count)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    @inline(__always) package func u8(_ offset: Int) -> UInt8 { load(offset, UInt8.self) }
    @inline(__always) package func u16(_ offset: Int) -> UInt16 { load(offset, UInt16.self) }
    @inline(__always) package func u32(_ offset: Int) -> UInt32 { load(offset, UInt32.self) }
    @inline(__always) package func u64(_ offset: Int) -> UInt64 { load(offset, UInt64.self) }
    @inline(__always) package func i64(_ offset: Int) -> Int64 { load(offset, Int64.self) }
    @inline(__always) package func set(_ offset: Int, _ value: UInt8) { store(offset, value) }
    @inline(__always) package func set(_ offset: Int, _ value: UInt16) { store(offset, value) }
    @inline(__always) package func set(_ offset: Int, _ value: UInt32) { store(offset, value) }
    @inline(__always) package func set(_ offset: Int, _ value: UInt64) { store(offset, value) }
    @inline(__always) package func set(_ offset: Int, _ value: Int64) { store(offset, value) }

    @inline(__always) package func slice(_ offset: Int, _ length: Int) -> Bytes {
        precondition(offset >= 0 && length >= 0 && offset &+ length <= count)
        return unsafe Bytes(base + offset, count: length, writable: writable)
    }

    /// Overwrites [offset, offset + length) with bytes from `source`.
    @inline(__always) package func copy(_ offset: Int, from source: UnsafeRawPointer, _ length: Int) {
        precondition(writable && offset >= 0 && length >= 0 && offset &+ length <= count)
        unsafe (base + offset).copyMemory(from: source, byteCount: length)
    }

    @inline(__always) package func copy(_ offset: Int, from source: Bytes) {
        unsafe copy(offset, from: source.base, source.count)
    }

    /// Moves bytes inside the window; the ranges may overlap.
    @inline(__always) package func move(from: Int, to: Int, _ length: Int) {
        precondition(writable && from >= 0 && to >= 0 && length >= 0 && from &+ length <= count && to &+ length <= count)
        unsafe (base + to).copyMemory(from: base + from, byteCount: length)
    }

    @inline(__always) package func zero(_ offset: Int, _ length: Int) {
        precondition(writable && offset >= 0 && length >= 0 && offset &+ length <= count)
        unsafe (base + offset).initializeMemory(as: UInt8.self, repeating: 0, count: length)
    }

    @inline(__always) package func equals(_ offset: Int, _ other: UnsafeRawPointer, _ length: Int) -> Bool {
        precondition(offset >= 0 && length >= 0 && offset &+ length <= count)
        return unsafe dashfs_equal(base + offset, other, length)
    }

    /// For copying out. The pointer must not outlive the transaction.
    @inline(__always) package var pointer: UnsafeMutableRawPointer { unsafe base }
}

/// Byte-wise equality of two areas.
@inline(__always) func dashfs_equal(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer, _ length: Int) -> Bool {
    var offset = 0
    while offset &+ 8 <= length {
        if unsafe a.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != b.loadUnaligned(fromByteOffset: offset, as: UInt64.self) {
            return false
        }
        offset &+= 8
    }
    while offset < length {
        if unsafe a.load(fromByteOffset: offset, as: UInt8.self) != b.load(fromByteOffset: offset, as: UInt8.self) { return false }
        offset &+= 1
    }
    return true
}
