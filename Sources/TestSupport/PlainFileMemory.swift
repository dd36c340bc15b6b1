/// The memory of a mapped file as plain bytes: a test stores into it as a program would, shrinks it, and says whether somebody has it.
import Volume

@safe package final class PlainFileMemory: FileMemory, @unchecked Sendable {
    package var bytes: [UInt8] = []
    package var isHeldByOthers = false
    /// There is no memory any more.
    package var refuses = false

    package init() {}

    package static let make: @Sendable () -> (any FileMemory)? = { PlainFileMemory() }

    package func write(_ source: UnsafeRawPointer, at offset: UInt64, count: Int) -> Bool {
        if refuses { return false }
        let start = Int(offset)
        if bytes.count < start + count { bytes += [UInt8](repeating: 0, count: start + count - bytes.count) }
        unsafe bytes.replaceSubrange(start..<start + count, with: UnsafeRawBufferPointer(start: source, count: count))
        return true
    }

    package func read(into target: UnsafeMutableRawPointer, at offset: UInt64, count: Int) -> Int {
        let start = min(Int(offset), bytes.count)
        let got = min(count, bytes.count - start)
        for index in 0..<got { unsafe target.storeBytes(of: bytes[start + index], toByteOffset: index, as: UInt8.self) }
        return got
    }

    package func zero(at offset: UInt64, count: UInt64) -> Bool {
        if refuses { return false }
        let start = min(Int(offset), bytes.count)
        let end = min(start + Int(count), bytes.count)
        bytes.replaceSubrange(start..<end, with: [UInt8](repeating: 0, count: end - start))
        return true
    }

    package func resize(_ size: UInt64) -> Bool {
        if refuses && size > UInt64(bytes.count) { return false }
        if Int(size) < bytes.count { bytes.removeLast(bytes.count - Int(size)) } else { bytes += [UInt8](repeating: 0, count: Int(size) - bytes.count) }
        return true
    }

    package func nextData(from offset: UInt64) -> UInt64 {
        var place = Int(min(offset, UInt64(bytes.count)))
        while place < bytes.count && bytes[place] == 0 { place += 1 }
        return place < bytes.count ? UInt64(place) : .max
    }

    /// What a program does: as much as there is memory for.
    package func store(_ new: [UInt8], at offset: Int) {
        let end = min(offset + new.count, bytes.count)
        if offset < end { bytes.replaceSubrange(offset..<end, with: new.prefix(end - offset)) }
    }
}
