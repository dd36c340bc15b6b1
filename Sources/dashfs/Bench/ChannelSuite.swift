// `bench channel`: what a request costs that asks the file system for next to nothing, beside the least that two processes need to hand something
// over and back. Invariant: the partner of the ping-pong sleeps while the channel is measured, and the server while the ping-pong is.
import CSystem
import Client
import Glibc
import Wire

struct ChannelSuite {
    let rounds: Int
    private static let trips = 20_000
    private static let appends = 8192
    /// As many as the ring has slots.
    private static let underWay = 64

    func run() throws(Failure) -> [Comparison] {
        let pingPong = try HandOver()
        defer { pingPong.end() }
        let server = try PrivateServer(device: "memory:256M", options: ["--cache", "128M"])
        defer { _ = server.stop() }
        let ground = try LibraryGround(socket: server.socket)
        let opened = unsafe "/log".withCString { unsafe ground.open($0, O_CREAT | O_RDWR | O_APPEND) }
        guard opened >= 0 else { throw Failure(.system, "the volume takes no file: \(errorText(Int32(truncatingIfNeeded: -opened)))") }
        let log = Int32(truncatingIfNeeded: opened)
        func nulls(_ count: Int) throws(Failure) -> UInt64 {
            let begun = dashfs_clock_monotonic()
            var worst: Int64 = 0
            for _ in 0..<count { worst = min(worst, ground.channel.null()) }
            let taken = dashfs_clock_monotonic() - begun
            guard worst == 0 else { throw Failure(.system, "the server does not answer: \(errorText(Int32(truncatingIfNeeded: -worst)))") }
            return taken
        }
        _ = try (pingPong.batch(ChannelSuite.trips), nulls(ChannelSuite.trips), append(ground, log))
        var null: [(UInt64, UInt64)] = []
        var append: [(UInt64, UInt64)] = []
        for _ in 0..<rounds {
            try Interruption.check()
            null.append((try pingPong.batch(ChannelSuite.trips), try nulls(ChannelSuite.trips)))
            append.append((try pingPong.batch(ChannelSuite.appends, payload: true), try self.append(ground, log)))
        }
        return [
            Comparison("null request", through: "channel", beside: "ping-pong", batches: null, count: ChannelSuite.trips),
            Comparison("4 KiB append, 64 under way", through: "channel", beside: "ping-pong of 4 KiB", batches: append, count: ChannelSuite.appends),
        ]
    }

    /// Appends with the ring full: a new one as soon as the oldest is answered. The file is emptied before, outside the time.
    private func append(_ ground: LibraryGround, _ log: Int32) throws(Failure) -> UInt64 {
        let channel = ground.channel
        var worst = channel.truncate(log, size: 0)
        var tags = [UInt8](repeating: 0, count: ChannelSuite.underWay)
        let begun = dashfs_clock_monotonic()
        var submitted = 0
        var answered = 0
        while answered < ChannelSuite.appends {
            while submitted < ChannelSuite.appends, submitted - answered < ChannelSuite.underWay, let tag = channel.reserve() {
                var request = WireRequest(.write)
                request.handle = log
                request.tag = tag
                request.bufferOffset = Channel.dataOffset + UInt32(tag) * 4096
                request.bufferLength = 4096
                unsafe (channel.dataArea + Int(tag) * 4096).initializeMemory(as: UInt8.self, repeating: 0x5A, count: 4096)
                channel.submit(request)
                tags[submitted % ChannelSuite.underWay] = tag
                submitted += 1
            }
            channel.announce()
            worst = min(worst, channel.wait(tags[answered % ChannelSuite.underWay]).result)
            answered += 1
        }
        let taken = dashfs_clock_monotonic() - begun
        guard worst >= 0 else { throw Failure(.system, "an append failed: \(errorText(Int32(truncatingIfNeeded: -worst)))") }
        return taken
    }
}
