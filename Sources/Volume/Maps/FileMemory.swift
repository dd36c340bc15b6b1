/// The memory that programs map in place of a file: a memfd in the server, plain memory in tests.
///
/// Its content is the file's from byte 0 on, zeros to the end of the last page. Whoever holds it for writing may do anything with it at any moment, shrink it
/// too: nothing that is read from it is believed, and nothing here may fault for what others do.
public protocol FileMemory: AnyObject {
    /// False: the bytes may not be there.
    func write(_ source: UnsafeRawPointer, at offset: UInt64, count: Int) -> Bool
    /// How many bytes there were; the caller has the rest as zeros.
    func read(into target: UnsafeMutableRawPointer, at offset: UInt64, count: Int) -> Int
    /// Never makes it longer.
    func zero(at offset: UInt64, count: UInt64) -> Bool
    func resize(_ bytes: UInt64) -> Bool
    /// The first byte at or after `offset` that may be something else than zero; `.max`: there is none.
    func nextData(from offset: UInt64) -> UInt64
    /// Whether a program may still have it mapped, or open.
    var isHeldByOthers: Bool { get }
}

/// What tells whether a page has been changed since the volume last had it: 64 bits, never 0 or 1.
///
/// Four lanes, because each step waits for the one before it in its lane. A step is a bijection of the word for any state, so a change in one word always shows.
enum PageSum {
    /// Not in the memory.
    static let absent: UInt64 = 0
    /// In the memory, and not known.
    static let unknown: UInt64 = 1

    static func of(_ page: UnsafeRawPointer) -> UInt64 {
        let odd: UInt64 = 0x9E37_79B9_7F4A_7C15
        var lanes: (UInt64, UInt64, UInt64, UInt64) = (1, 2, 3, 4)
        var at = 0
        while at < BlockLayout.size {
            lanes.0 = step(lanes.0, unsafe page.loadUnaligned(fromByteOffset: at, as: UInt64.self), odd)
            lanes.1 = step(lanes.1, unsafe page.loadUnaligned(fromByteOffset: at &+ 8, as: UInt64.self), odd)
            lanes.2 = step(lanes.2, unsafe page.loadUnaligned(fromByteOffset: at &+ 16, as: UInt64.self), odd)
            lanes.3 = step(lanes.3, unsafe page.loadUnaligned(fromByteOffset: at &+ 24, as: UInt64.self), odd)
            at &+= 32
        }
        return step(step(step(lanes.0, lanes.1, odd), lanes.2, odd), lanes.3, odd) | 1 << 63
    }

    @inline(__always) private static func step(_ state: UInt64, _ word: UInt64, _ odd: UInt64) -> UInt64 {
        let mixed = (state ^ word) &* odd
        return mixed &<< 29 | mixed &>> 35
    }
}
