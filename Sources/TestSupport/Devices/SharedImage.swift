/// The content of a device in a memfd, of which cheap private copies are made.
///
/// Invariant: while a copy lives, it keeps this object alive, and nobody writes here while copies live (`CrashStates` makes a
/// `clone` first): a private mapping shows later changes of the pages it has not yet touched itself.
import BlockDevice
import CSystem
import Glibc

@safe package final class SharedImage {
    package let bytes: UnsafeMutableRawBufferPointer
    private let descriptor: Int32

    /// Where another process finds it while this one lives.
    package var path: String { "/proc/\(getpid())/fd/\(descriptor)" }

    package init(size: Int) {
        descriptor = unsafe dashfs_device_memfd("dashfs-test-image")
        precondition(descriptor >= 0 && ftruncate(descriptor, size) == 0, "memfd of \(size) bytes: errno \(errno)")
        let mapping = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        precondition(unsafe mapping != MAP_FAILED, "mmap of \(size) bytes: errno \(errno)")
        unsafe bytes = UnsafeMutableRawBufferPointer(start: mapping, count: size)
    }

    /// The memory of another process's image.
    package static func map(_ path: String) -> MappedMemory {
        let file = unsafe open(path, O_RDWR)
        let size = Int(lseek(file, 0, SEEK_END))
        let mapping = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        precondition(unsafe file >= 0 && mapping != MAP_FAILED, "\(path): errno \(errno)")
        close(file)
        return unsafe MappedMemory(bytes: UnsafeMutableRawBufferPointer(start: mapping, count: size))
    }

    /// A copy of any memory of whole blocks; blocks of zeros stay holes.
    package convenience init(copying source: UnsafeRawBufferPointer) {
        self.init(size: source.count)
        guard let from = source.baseAddress, let to = unsafe bytes.baseAddress else { return }
        for offset in stride(from: 0, to: source.count, by: blockSize) where unsafe !isZero(from + offset) {
            unsafe (to + offset).copyMemory(from: from + offset, byteCount: blockSize)
        }
    }

    /// Copies what has been written; holes stay holes, and reading them here would fill them with pages.
    package func clone() -> SharedImage {
        let size = unsafe bytes.count
        let copy = SharedImage(size: size)
        let seekData: Int32 = 3
        let seekHole: Int32 = 4
        var place: off_t = 0
        while true {
            let start = lseek(descriptor, place, seekData)
            guard start >= 0, start < size else { return copy }
            let end = lseek(descriptor, start, seekHole)
            let range = Int(start)..<Int(end)
            unsafe UnsafeMutableRawBufferPointer(rebasing: copy.bytes[range]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[range]))
            place = end
        }
    }

    /// A device over a copy-on-write view: costs a mapping, and a page for each page written.
    package func privateDevice(description: String, configure: (inout DeviceCapabilities) -> Void) -> MemoryDevice {
        let size = unsafe bytes.count
        let mapping = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0)
        precondition(unsafe mapping != MAP_FAILED, "mmap of \(size) bytes: errno \(errno)")
        return unsafe MemoryDevice(
            mapping: UnsafeMutableRawBufferPointer(start: mapping, count: size), owner: self,
            description: description, configure: configure)
    }

    deinit {
        unsafe munmap(bytes.baseAddress, bytes.count)
        close(descriptor)
    }
}

/// Memory that another process shares, mapped until this one ends.
@safe package struct MappedMemory {
    package let bytes: UnsafeMutableRawBufferPointer
}

/// Whether a block of `blockSize` bytes, aligned to 8, is all zeros.
private func isZero(_ block: UnsafeRawPointer) -> Bool {
    for offset in stride(from: 0, to: blockSize, by: 64) {
        var any: UInt64 = 0
        for word in stride(from: offset, to: offset + 64, by: 8) { unsafe any |= block.load(fromByteOffset: word, as: UInt64.self) }
        if any != 0 { return false }
    }
    return true
}
