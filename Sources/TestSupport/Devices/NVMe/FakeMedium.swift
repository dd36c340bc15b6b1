/// The content of a fake namespace, and what of it a power cut leaves.
///
/// Invariants: `image` is what reads find; what is in `cached` since the last flush may be lost, piece by piece, in a power cut (a piece is what
/// the device does not tear); `before` has the durable bytes of every sector that a cached piece covers. Nothing is remembered where
/// power cuts are not asked for.
import BlockDevice

@safe package final class FakeMedium {
    package let image: MemoryDevice
    private let tracksPowerCuts: Bool
    private static let sector = 512

    private struct Piece {
        var offset: Int
        var bytes: [UInt8]
        /// Forced to the medium: lands in any case.
        var isDurable: Bool
    }

    private var cached: [Piece] = []
    private var before: [Int: [UInt8]] = [:]

    package init(_ image: MemoryDevice, tracksPowerCuts: Bool) {
        self.image = image
        self.tracksPowerCuts = tracksPowerCuts
    }

    var bytes: Int { unsafe image.bytes.count }

    func pointer(_ offset: Int) -> UnsafeMutableRawPointer { unsafe image.bytes.baseAddress! + offset }

    /// A change of these bytes: `change` puts it into the image.
    /// - Parameter isCached: it may be lost until a flush.
    func write(_ range: Range<Int>, isCached: Bool, change: () -> Void) {
        // What does not go through the cache needs no memory, unless older bytes in the cache could land on top of it.
        guard tracksPowerCuts, isCached || !cached.isEmpty else { return change() }
        for sector in range.lowerBound / Self.sector..<(range.upperBound + Self.sector - 1) / Self.sector where before[sector] == nil {
            before[sector] = copy(sector * Self.sector..<(sector + 1) * Self.sector)
        }
        change()
        cached.append(Piece(offset: range.lowerBound, bytes: copy(range), isDurable: !isCached))
    }

    private func copy(_ range: Range<Int>) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: pointer(range.lowerBound), count: range.count))
    }

    func flush() {
        cached.removeAll(keepingCapacity: true)
        before.removeAll(keepingCapacity: true)
    }

    /// Takes the power away: of what was not flushed, any pieces are lost.
    package func cutPower(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for (sector, bytes) in before { put(bytes, at: sector * Self.sector) }
        for piece in cached where piece.isDurable || random.chance(0.5) { put(piece.bytes, at: piece.offset) }
        flush()
    }

    private func put(_ bytes: [UInt8], at offset: Int) {
        unsafe bytes.withUnsafeBytes { unsafe pointer(offset).copyMemory(from: $0.baseAddress!, byteCount: bytes.count) }
    }
}
