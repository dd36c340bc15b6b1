import BlockDevice

/// The file system: one mounted volume on one device queue. Deterministic: the same requests, completions, clock readings and
/// seeds give the same bytes. One thread calls it; it never blocks and never calls back.
///
/// Life of a request: `submit` runs it; on a hit the completion comes back at once. On a miss it is parked, the reads are
/// issued, `poll` reruns it when they are there, and `nextCompletion` hands the outcome over.
public final class Volume {
    public struct Configuration: Sendable {
        /// Cache frames of 4 KiB.
        public var cacheFrames: Int = 131_072
        /// Changes reach the device at most this long after they were acknowledged.
        public var commitIntervalNanoseconds: UInt64 = 5_000_000_000
        public var readOnly = false
        public init() {}
    }

    /// Wall clock handed in by the caller before `submit` and `poll`: nanoseconds since 1970 for timestamps, and a
    /// monotonic reading for intervals.
    public struct Clock: Sendable {
        public var wall: Int64
        public var monotonic: UInt64
        public init(wall: Int64, monotonic: UInt64) {
            self.wall = wall
            self.monotonic = monotonic
        }
    }

    public var clock = Clock(wall: 0, monotonic: 0)

    public init() {}

    public func openSession(_ credentials: Credentials) -> SessionID? { SessionID(rawValue: 1) }

    /// Closes its descriptors, releases its locks, cancels what it has parked. The caller keeps the memory of parked requests
    /// until their completions (ECANCELED) have come.
    public func closeSession(_ session: SessionID) {}

    /// Runs the request. nil: parked; its completion will come from `nextCompletion`.
    public func submit(_ request: borrowing Request) -> Completion? {
        Completion(token: request.token, result: request.opcode == .null ? 0 : -38)
    }

    /// Takes device completions, reruns what they woke, advances write-back, commit and checkpoint.
    public func poll() {}

    /// The next finished request that had been parked.
    public func nextCompletion() -> Completion? { nil }

    /// A parked request ends with EINTR, soon, unless it has had an effect already. Unknown tokens are ignored.
    public func cancel(session: SessionID, token: UInt64) {}

    /// True where `poll` has something to do that no device completion announces.
    public var hasPendingWork: Bool { false }

    /// The monotonic time at which `poll` must be called at the latest, or nil.
    public var deadline: UInt64? { nil }

    /// Begins an orderly end: everything reaches the device. Poll until it is true.
    public func shutdown() -> Bool { true }
}
