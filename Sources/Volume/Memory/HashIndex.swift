/// A private open-addressing index from a pair of words to a slot number; the pair itself stays where the slot is (a frame
/// header, an in-core inode), so an entry is 8 bytes: slot + 1 and 32 bits of the hash. At most half full.
@safe struct HashIndex {
    private let entries: UnsafeMutablePointer<UInt64>
    private let mask: Int

    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        unsafe entries = .allocate(capacity: size)
        unsafe entries.initialize(repeating: 0, count: size)
        mask = size - 1
    }

    @inline(__always) static func hash(_ a: UInt64, _ b: UInt64) -> UInt64 {
        var h = (a ^ 0x9E37_79B9_7F4A_7C15) &* 0xBF58_476D_1CE4_E5B9
        h ^= b &* 0x94D0_49BB_1331_11EB
        h ^= h >> 29
        h = h &* 0xD6E8_FEB8_6659_FD93
        return h ^ (h >> 32)
    }

    /// The slot for which `matches` says yes, or -1.
    @inline(__always) func find(_ hash: UInt64, _ matches: (Int) -> Bool) -> Int {
        var position = Int(truncatingIfNeeded: hash) & mask
        let tag = hash >> 32
        while true {
            let entry = unsafe entries[position]
            if entry == 0 { return -1 }
            if entry >> 32 == tag {
                let slot = Int(entry & 0xFFFF_FFFF) - 1
                if matches(slot) { return slot }
            }
            position = (position &+ 1) & mask
        }
    }

    func insert(_ hash: UInt64, slot: Int) {
        var position = Int(truncatingIfNeeded: hash) & mask
        while unsafe entries[position] != 0 { position = (position &+ 1) & mask }
        unsafe entries[position] = (hash >> 32) << 32 | UInt64(slot + 1)
    }

    /// Removes the entry of `slot` under `hash`; `rehash` tells the hash of any other slot (backward-shift deletion).
    func remove(_ hash: UInt64, slot: Int, rehash: (Int) -> UInt64) {
        var position = Int(truncatingIfNeeded: hash) & mask
        let wanted = (hash >> 32) << 32 | UInt64(slot + 1)
        while true {
            let entry = unsafe entries[position]
            if entry == 0 { return }
            if entry == wanted { break }
            position = (position &+ 1) & mask
        }
        var hole = position
        var next = (hole &+ 1) & mask
        while true {
            let entry = unsafe entries[next]
            if entry == 0 { break }
            let home = Int(truncatingIfNeeded: rehash(Int(entry & 0xFFFF_FFFF) - 1)) & mask
            if (next &- home) & mask >= (next &- hole) & mask {
                unsafe entries[hole] = entry
                hole = next
            }
            next = (next &+ 1) & mask
        }
        unsafe entries[hole] = 0
    }

    func removeAll() { unsafe entries.update(repeating: 0, count: mask + 1) }
    func free() { unsafe entries.deallocate() }
}
