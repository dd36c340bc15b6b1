import CSystem
import TestSupport
import Testing

@Suite("CRC-32C") struct ChecksumTests {
    /// Bit by bit, as RFC 3720 defines it.
    private func plain(_ seed: UInt32, _ bytes: ArraySlice<UInt8>) -> UInt32 {
        var crc = ~seed
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = (crc >> 1) ^ (crc & 1 == 1 ? 0x82F6_3B78 : 0) }
        }
        return ~crc
    }

    private func fast(_ seed: UInt32, _ bytes: ArraySlice<UInt8>) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe dashfs_crc32c(seed, $0.baseAddress ?? UnsafeRawPointer(bitPattern: 8)!, $0.count) }
    }

    @Test func theStandardsVectors() {
        #expect(fast(0, ArraySlice("123456789".utf8)) == 0xE306_9283)
        #expect(fast(0, ArraySlice(repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(fast(0, ArraySlice(repeating: 0xFF, count: 32)) == 0x62A8_AB43)
    }

    @Test("Lengths on both sides of what is summed in three parts, at any alignment") func lengths() {
        var random = SeededRandom(seed: 7)
        let bytes = (0..<13_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        for length in [0, 1, 7, 8, 9, 4072, 4079, 4080, 4081, 4092, 4096, 8159, 8160, 8161, 8192, 12_239, 12_240, 12_241, 12_900] {
            for start in [0, 1, 5, 8] {
                let seed = UInt32(truncatingIfNeeded: random.next())
                let slice = bytes[start..<start + length]
                #expect(fast(seed, slice) == plain(seed, slice), "\(length) bytes from \(start)")
            }
        }
    }
}
