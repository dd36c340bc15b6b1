/// What can be made to go wrong in a fake NVMe controller, and when. Invariant: the plans and the seed determine everything.
package struct FakeFault: Sendable {
    package enum Kind: Sendable, Equatable {
        /// Ends with this status (code and type, as in `NVMeCompletion.status`); a write may have reached the medium in part.
        case status(UInt16, doNotRetry: Bool = false)
        /// Is carried out and never answered; an abort does not find it.
        case lostCompletion
        /// Is answered, and once more some time later.
        case duplicateCompletion(after: UInt64)
        /// With its answer comes one for an identifier that is not in use.
        case unknownIdentifier
        /// Is answered so many nanoseconds later.
        case late(UInt64)
        /// Is not carried out until a reset.
        case stuck(Abort)
        /// CSTS.CFS; nothing is done any more.
        case fatal
        /// Every register reads as all ones from here on.
        case removal
        /// An asynchronous event comes with it: type, information, log page.
        case event(kind: UInt8, information: UInt8, log: UInt8)
        /// The namespace is so many logical blocks from here on, and an event says so.
        case shrink(blocks: UInt64)
        /// A write is answered well and goes nowhere: not a fault that a driver can notice, but one that a harness must.
        case lie
    }

    package enum Abort: Sendable, Equatable {
        /// Abort ends the stuck command; is answered, but does not end it; is stuck itself.
        case works, answered, stuck
    }

    package enum Target: Sendable { case admin, requests }

    package var kind: Kind
    package var target: Target
    /// Strikes the Nth command of its target that is fetched after it was planned, from 0.
    package var after: Int
    /// And all that follow.
    package var forever: Bool

    package init(_ kind: Kind, on target: Target = .requests, after: Int = 0, forever: Bool = false) {
        self.kind = kind
        self.target = target
        self.after = after
        self.forever = forever
    }
}

/// A planned fault with its count.
struct ArmedFakeFault {
    let fault: FakeFault
    private var seen = 0

    init(_ fault: FakeFault) { self.fault = fault }

    mutating func strikes(_ target: FakeFault.Target) -> Bool {
        guard fault.target == target else { return false }
        defer { seen += 1 }
        return fault.forever ? seen >= fault.after : seen == fault.after
    }
}
