/// Memory that most requests use, given to the kernel piece by piece as requests first name it.
///
/// Registering takes every page of a piece from the kernel at once: 512 MiB took 1.5 s, all of it before a server could say that it is ready, and
/// took the memory whether it was ever used or not. A piece is as long as a huge page. Invariant: a piece is named to the ring only once it is ready.
import Glibc

@safe struct RegisteredMemory {
    private let base: UnsafeMutableRawPointer
    private let length: Int
    private let pieceSize: Int
    private var states: [State]

    enum State { case unused, ready, refused }

    private static let hugePage = 2 << 20
    /// The kernel registers no more buffers than this for one ring.
    private static let maximumPieces = 1 << 14

    /// nil for none.
    init?(_ memory: UnsafeMutableRawBufferPointer) {
        guard let start = memory.baseAddress, memory.count > 0 else { return nil }
        unsafe base = start
        length = memory.count
        var size = Self.hugePage
        while (length - 1) / size >= Self.maximumPieces { size *= 2 }
        pieceSize = size
        states = [State](repeating: .unused, count: (length - 1) / size + 1)
    }

    var count: Int { states.count }

    /// The piece that holds all of `memory`, or nil.
    func piece(of memory: UnsafeMutableRawBufferPointer) -> Int? {
        guard let address = memory.baseAddress, unsafe address >= base, memory.count > 0 else { return nil }
        let offset = unsafe address - base
        guard offset < length, memory.count <= length - offset, offset / pieceSize == (offset + memory.count - 1) / pieceSize else { return nil }
        return offset / pieceSize
    }

    subscript(_ piece: Int) -> State {
        get { states[piece] }
        set { states[piece] = newValue }
    }

    func vector(_ piece: Int) -> iovec {
        let offset = piece * pieceSize
        return unsafe iovec(iov_base: base + offset, iov_len: min(pieceSize, length - offset))
    }

    /// How many bytes this process may lock, where that is less than `wanted`.
    static func limit(below wanted: Int) -> UInt64? {
        var limit = rlimit()
        guard geteuid() != 0, unsafe getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0, limit.rlim_cur < UInt64(wanted) else { return nil }
        return UInt64(limit.rlim_cur)
    }
}
