/// What is known of some inodes or blocks, by their number: open addressing, at most half full. Keys are never 0.
///
/// Dictionary would do the same, but hashes with a keyed function (180 instructions an access) and allocates its nodes' storage anew as it comes and goes;
/// these numbers are the volume's own, so nobody outside chooses them to collide.
@safe struct NumberTable<Value: BitwiseCopyable>: ~Copyable {
    private var keys: UnsafeMutablePointer<UInt64>
    private var values: UnsafeMutablePointer<Value>
    private var mask: Int
    private(set) var count = 0

    init() {
        mask = 63
        unsafe keys = .allocate(capacity: mask + 1)
        unsafe keys.initialize(repeating: 0, count: mask + 1)
        unsafe values = .allocate(capacity: mask + 1)
    }

    deinit {
        unsafe keys.deallocate()
        unsafe values.deallocate()
    }

    @inline(__always) var isEmpty: Bool { count == 0 }

    /// The keys, ascending: the same order in every run.
    var sortedKeys: [UInt64] {
        var all: [UInt64] = []
        all.reserveCapacity(count)
        for place in 0...mask where unsafe keys[place] != 0 { unsafe all.append(keys[place]) }
        all.sort()
        return all
    }

    /// The lowest key above `bound`.
    func next(after bound: UInt64) -> UInt64? {
        var lowest: UInt64?
        for place in 0...mask {
            let key = unsafe keys[place]
            if key > bound && key < lowest ?? .max { lowest = key }
        }
        return lowest
    }

    @inline(__always) private func home(_ key: UInt64) -> Int { Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask }

    /// Where the key is, or the free place where it would go.
    @inline(__always) private func place(_ key: UInt64) -> Int {
        var place = home(key)
        while unsafe keys[place] != 0 && keys[place] != key { place = (place &+ 1) & mask }
        return place
    }

    @inline(__always) func contains(_ key: UInt64) -> Bool { unsafe count != 0 && keys[place(key)] == key }

    @inline(__always) subscript(key: UInt64) -> Value? {
        get {
            if count == 0 { return nil }
            let place = place(key)
            return unsafe keys[place] == key ? unsafe values[place] : nil
        }
        set {
            guard let newValue else {
                remove(key)
                return
            }
            var place = place(key)
            if unsafe keys[place] == 0 {
                if (count + 1) * 2 > mask {
                    grow()
                    place = self.place(key)
                }
                unsafe keys[place] = key
                count += 1
            }
            unsafe (values + place).initialize(to: newValue)
        }
    }

    private mutating func remove(_ key: UInt64) {
        if count == 0 { return }
        var hole = place(key)
        if unsafe keys[hole] == 0 { return }
        // What was pushed on by the one that goes moves back.
        var next = (hole &+ 1) & mask
        while unsafe keys[next] != 0 {
            if unsafe (next &- home(keys[next])) & mask >= (next &- hole) & mask {
                unsafe keys[hole] = keys[next]
                unsafe values[hole] = values[next]
                hole = next
            }
            next = (next &+ 1) & mask
        }
        unsafe keys[hole] = 0
        count -= 1
    }

    mutating func removeAll() {
        unsafe keys.update(repeating: 0, count: mask + 1)
        count = 0
    }

    @inline(never) private mutating func grow() {
        let (oldKeys, oldValues, oldSize) = unsafe (keys, values, mask + 1)
        mask = oldSize * 2 - 1
        unsafe keys = .allocate(capacity: mask + 1)
        unsafe keys.initialize(repeating: 0, count: mask + 1)
        unsafe values = .allocate(capacity: mask + 1)
        for old in 0..<oldSize where unsafe oldKeys[old] != 0 {
            let place = unsafe place(oldKeys[old])
            unsafe keys[place] = oldKeys[old]
            unsafe (values + place).initialize(to: oldValues[old])
        }
        unsafe oldKeys.deallocate()
        unsafe oldValues.deallocate()
    }
}
