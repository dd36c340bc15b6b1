import CSystem

/// A submission queue with its completion queue.
///
/// Invariants:
/// - the submission queue never holds more than one less than its entries: who submits asks `room`;
/// - a completion is read only when its phase bit says that it is new, and only after that bit;
/// - doorbells move forward only, and only by `ring` and `nextCompletion`; with shadow doorbells the register is written when the controller has
///   said that it looks no more (base specification, "Doorbell Buffer Config command").
@safe package final class NVMeRing {
    package let number: Int
    package let entries: Int
    package let submissions: DMAMemory
    package let completions: DMAMemory
    /// The controller has been told of it.
    package var isMade = false
    private let transport: any NVMeTransport
    private let capabilities: NVMeCapabilities
    private var tail = 0
    /// What the controller has been told of `tail`.
    private var rungTail = 0
    /// How far it has read, by its last completion.
    private var head = 0
    private var completionHead = 0
    private var phase: UInt32 = 1
    /// Completions taken whose places have not been given back, and the place of the first.
    private var unrungHeads = 0
    private var firstUnrung = 0
    /// Two pages, of shadow doorbells and of the controller's event indexes.
    private var shadows: (doorbells: DMAMemory, events: DMAMemory)?

    package init(number: Int, entries: Int, transport: any NVMeTransport, capabilities: NVMeCapabilities) throws(DeviceError) {
        self.number = number
        self.entries = entries
        self.transport = transport
        self.capabilities = capabilities
        submissions = try transport.allocate(bytes: entries * NVMeCommand.size)
        completions = try transport.allocate(bytes: entries * NVMeCompletion.size)
    }

    /// As before the first command: after the controller has been reset.
    package func clear() {
        (tail, rungTail, head, completionHead, phase) = (0, 0, 0, 0, 1)
        (unrungHeads, firstUnrung) = (0, 0)
        shadows = nil
        isMade = false
        unsafe completions.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: completions.bytes)
    }

    /// Before the controller makes the queue.
    package func useShadows(doorbells: DMAMemory, events: DMAMemory) {
        shadows = (doorbells, events)
        for register in [capabilities.submissionDoorbell(number), capabilities.completionDoorbell(number)] {
            unsafe dashfs_store32(doorbells.pointer + (register - NVMeRegister.doorbells), 0)
            unsafe dashfs_store32(events.pointer + (register - NVMeRegister.doorbells), 0)
        }
    }

    package var room: Int { (head - tail - 1 + entries) % entries }

    /// Puts a command in the queue; the controller sees it after `ring`. Requires `room`.
    package func append(_ command: NVMeCommand) {
        unsafe command.store(at: submissions.pointer + tail * NVMeCommand.size)
        tail = tail + 1 == entries ? 0 : tail + 1
    }

    package func ring() {
        guard tail != rungTail else { return }
        tell(capabilities.submissionDoorbell(number), UInt32(tail), before: UInt32(rungTail))
        rungTail = tail
    }

    package func nextCompletion() -> NVMeCompletion? {
        let entry = unsafe completions.pointer + completionHead * NVMeCompletion.size
        // The phase is in the last of four words: acquired, so that the others are not older.
        let last = UInt32(littleEndian: unsafe dashfs_load32_acquire(entry + 12))
        guard (last >> 16) & 1 == phase else { return nil }
        let place = UInt32(littleEndian: unsafe dashfs_load32(entry + 8))
        let completion = NVMeCompletion(
            result: UInt32(littleEndian: unsafe dashfs_load32(entry)), submissionHead: UInt16(truncatingIfNeeded: place),
            identifier: UInt16(truncatingIfNeeded: last), status: UInt16(truncatingIfNeeded: (last >> 17) & 0x7FF),
            retryDelay: UInt8(truncatingIfNeeded: (last >> 28) & 3), doNotRetry: last >> 31 == 1)
        let before = completionHead
        completionHead += 1
        if completionHead == entries {
            completionHead = 0
            phase ^= 1
        }
        // A head outside the queue is a lie; the old one only makes the queue look fuller.
        if Int(completion.submissionHead) < entries { head = Int(completion.submissionHead) }
        unrungHeads += 1
        if unrungHeads == 1 { firstUnrung = before }
        return completion
    }

    /// Gives the places of the completions taken since the last time back to the controller.
    package func giveBack() {
        guard unrungHeads > 0 else { return }
        tell(capabilities.completionDoorbell(number), UInt32(completionHead), before: UInt32(firstUnrung))
        unrungHeads = 0
    }

    private func tell(_ register: Int, _ value: UInt32, before old: UInt32) {
        guard let shadows else { return transport.store32(register, value) }
        let offset = register - NVMeRegister.doorbells
        unsafe dashfs_store32_release(shadows.doorbells.pointer + offset, value.littleEndian)
        // Stored before the event index is read: one of the two sides sees the other.
        dashfs_full_fence()
        let event = UInt16(truncatingIfNeeded: UInt32(littleEndian: unsafe dashfs_load32(shadows.events.pointer + offset)))
        let (new, before) = (UInt16(truncatingIfNeeded: value), UInt16(truncatingIfNeeded: old))
        if new &- event &- 1 < new &- before { transport.store32(register, value) }
    }
}
