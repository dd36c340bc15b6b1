/// How long one end looks for what it waits for before it sleeps. Both ends decide alike: the worker when no ring has a request, a client
/// when an answer is not there yet.
///
/// Sleeping costs a wake-up, 25–60 µs on a machine of its own and more than 100 µs in some virtual ones; so looking costs at most twice what the
/// better choice would have cost if it lasts about that long (`usual`). Where waits turn out shorter than `longest`, looking twice as long as
/// they took pays in latency what it costs in cycles, so fsync on a fast device, and a client that comes back within a millisecond, are
/// waited for awake; longer waits bring the budget back to `usual`, which is 1% of a core for a hundred of them a second.
///
/// Where somebody else wants the processor, looking takes it from the one who would make the awaited thing happen: see `slice`.
///
/// Invariant: all is decided from the cycles that are handed in; on one processor the budget is 0 and stays 0. In cycles, as of 3 GHz.
public struct SpinBudget: Sendable {
    /// Of a thread that shares its processor: 10 µs, what an answer takes that needs no device.
    public static let crowded: UInt64 = 30_000
    /// 100 µs.
    public static let usual: UInt64 = 300_000
    /// 1 ms.
    public static let longest: UInt64 = 3_000_000
    /// 400 µs: two looks that lie this far apart mean that another thread had a slice of the processor in between (the kernel's shortest is
    /// 700 µs). Interrupts, short kernel threads and the host's noise stay below.
    public static let slice: UInt64 = 1_200_000

    public private(set) var cycles: UInt64

    public init(processors: Int32) { cycles = processors > 1 ? SpinBudget.usual : 0 }

    /// What was waited for came after so many cycles, spent looking or asleep.
    @inline(__always)
    public mutating func ended(after waited: UInt64) {
        if waited <= cycles / 2 || cycles == 0 { return }
        if waited <= SpinBudget.longest {
            cycles = min(cycles * 2, SpinBudget.longest)
        } else if cycles > SpinBudget.usual {
            cycles = max(cycles / 2, SpinBudget.usual)
        }
    }

    /// Somebody else wants the processor.
    public mutating func crowd() {
        if cycles > 0 { cycles = max(cycles / 4, SpinBudget.crowded) }
    }
}
