// What two processes need at least to hand something over and back: two words in shared memory, on cache lines of their own, each spun on by
// one side. The floor under every request of the channel. Invariant: the page is a memfd that both have mapped; a batch ends on both sides.
import CSystem
import Glibc

@safe struct PingPong {
    let descriptor: Int32
    private let page: UnsafeMutableRawPointer
    private static let there = 0
    private static let back = 128
    private static let payload = 4096
    private static let bytes = 8192

    init() throws(Failure) {
        let made = unsafe "dashfs-bench".withCString { unsafe dashfs_sys_memfd($0) }
        guard made >= 0, ftruncate(Int32(made), PingPong.bytes) == 0 else { throw Failure(.system, "no shared memory: \(errorText(errno))") }
        try self.init(descriptor: Int32(made))
    }

    init(descriptor: Int32) throws(Failure) {
        self.descriptor = descriptor
        let mapping = unsafe mmap(nil, PingPong.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else { throw Failure(.system, "no shared memory: \(errorText(errno))") }
        unsafe page = mapping
    }

    /// Trips there and back; with `payload`, 4 KiB are put in here and taken out there.
    func trips(_ count: Int, from first: UInt64, payload: Bool) -> UInt64 {
        let source = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
        defer { unsafe source.deallocate() }
        unsafe source.initializeMemory(as: UInt8.self, repeating: 0x5A, count: 4096)
        let begun = dashfs_clock_monotonic()
        for turn in 0..<UInt64(count) {
            if payload { unsafe dashfs_copy(page + PingPong.payload, source, 4096) }
            unsafe dashfs_store64_release(page + PingPong.there, first + turn)
            while unsafe dashfs_load64_acquire(page + PingPong.back) != first + turn { dashfs_pause() }
        }
        return dashfs_clock_monotonic() - begun
    }

    /// The other side: lines "FIRST COUNT 0|1" name the batches; each is answered when it is over.
    func echoAll() throws(Failure) {
        let target = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
        Terminal.output("ready")
        while let line = readLine() {
            let words = line.split(separator: " ").compactMap { UInt64($0) }
            guard words.count == 3 else { return }
            for turn in words[0]..<words[0] + words[1] {
                while unsafe dashfs_load64_acquire(page + PingPong.there) != turn { dashfs_pause() }
                if words[2] == 1 { unsafe dashfs_copy(target, page + PingPong.payload, 4096) }
                unsafe dashfs_store64_release(page + PingPong.back, turn)
            }
            Terminal.output("0")
        }
    }
}

/// Both sides of a ping-pong: this process, and one that echoes and sleeps between batches.
final class HandOver {
    private let page: PingPong
    private let partner: BenchWorker
    private var next: UInt64 = 1

    init() throws(Failure) {
        page = try PingPong()
        partner = try BenchWorker("ping-pong", ["--echo", "3"], environment: ProcessEnvironment(), inherited: page.descriptor)
        try partner.waitUntilReady()
    }

    /// Nanoseconds that so many trips took. One more comes before them: until it is back the partner is still waking up.
    func batch(_ trips: Int, payload: Bool = false) throws(Failure) -> UInt64 {
        partner.tell("\(next) \(trips + 1) \(payload ? 1 : 0)")
        _ = page.trips(1, from: next, payload: payload)
        let taken = page.trips(trips, from: next + 1, payload: payload)
        next += UInt64(trips) + 1
        _ = try partner.answer()
        return taken
    }

    func end() {
        partner.end()
        Glibc.close(page.descriptor)
    }
}
