import CSystem
import Glibc

/// Requests on their way through one pair of rings.
///
/// Invariants:
/// - a slot is free, waiting (accepted, not in the ring), resting (to be sent again after a while) or sent; its number, with the last of its turns, is its command's identifier, so an answer
///   to anything but what is under way, or a second answer, is told and ignored;
/// - as many requests as there are slots are in flight at most, those included whose completions have not been taken;
/// - a ring has more entries than there are slots, so it is never full;
/// - the device reaches memory that was registered, or a bounce buffer; nothing else is ever named to it;
/// - what was sent before a reset is sent again, at most `attempts` times in all. A write may so reach the medium twice; nobody has been told of it
///   before, and nobody else writes there meanwhile.
/// One thread.
@safe final class NVMeQueue: DeviceQueue {
    private enum State { case free, waiting, resting, sent, overdue }

    private struct Slot {
        var state = State.free
        var operation = DeviceOperation.flush
        var forceUnitAccess = false
        var attempts: UInt8 = 0
        var tag: UInt64 = 0
        var offset: UInt64 = 0
        var length = 0
        /// Of a write-zeroes or discard that one command cannot hold.
        var done = 0
        /// How often the slot has been sent, as far as an identifier has room for it.
        var turn: UInt16 = 0
        var first: UInt64 = 0
        var second: UInt64 = 0
        /// By when it is to be answered; of one that rests, when it is sent again.
        var deadline: UInt64 = 0
        var needsBounce = false
        /// Of `bounces`, while it is sent.
        var bounce = -1
        /// FFFFh is no identifier (base specification, "Common Command Format").
        static let turns: UInt16 = 15
    }

    static let attempts: UInt8 = 3
    /// Before another try, where the controller names no delay: a multiple of this for each try before.
    private static let rest: UInt64 = 20_000_000
    /// Requests in memory that the device does not reach, at once.
    private static let mostBounces = 8

    private let controller: NVMeController
    private let namespaceBlock: Int
    private let capabilities: DeviceCapabilities
    private let ring: NVMeRing
    /// `depth` of them: reached through a pointer, because nothing on a request's way counts references.
    private let slots: UnsafeMutablePointer<Slot>
    private let depth: Int
    private var free: [Int32]
    private var waiting: SlotBacklog
    /// Of requests that the device is not asked for: nobody sees them before the next kick.
    private var untold: CompletionBacklog
    private var finished: CompletionBacklog
    private(set) var counters = DeviceCounters()
    private(set) var inFlight = 0
    private var sent = 0
    private var resting = 0
    /// A page or more for each slot: its list of pages, or its range.
    private let lists: DMAMemory
    private let listBytes: Int
    private var registered: DMAMemory?
    /// Other memory that the device reaches, in the order of addresses.
    private var mapped: [DMAMemory] = []
    private var bounces: [DMAMemory] = []
    /// By slot: the caller's memory, where the device does not reach it.
    private var bounced: [[DeviceSegment]]
    private var freeBounces: [Int] = []
    private var emptyPolls: UInt32 = 0
    /// Much time may have passed since the last look at the controller.
    private var mayHaveSlept = false

    init(_ controller: NVMeController, depth: Int, capabilities: DeviceCapabilities) throws(DeviceError) {
        // A ring holds one less than its entries.
        let depth = min(depth, controller.capabilities.maximumEntries - 1)
        self.controller = controller
        self.capabilities = capabilities
        namespaceBlock = controller.namespace.blockSize
        self.depth = depth
        free = (0..<Int32(depth)).reversed()
        bounced = [[DeviceSegment]](repeating: [], count: depth)
        waiting = SlotBacklog(depth: depth)
        untold = CompletionBacklog(depth: depth)
        finished = CompletionBacklog(depth: depth)
        listBytes = NVMePages.listBytes(transfer: capabilities.maximumTransfer)
        lists = try controller.transport.allocate(bytes: listBytes * depth)
        ring = try controller.takeRing(entries: depth + 1)
        unsafe slots = .allocate(capacity: depth)
        unsafe slots.initialize(repeating: Slot(), count: depth)
        controller.give(ring, to: self)
    }

    /// Nothing is in flight any more: the controller may use the ring for another queue.
    deinit {
        controller.giveRingBack(ring)
        unsafe slots.deallocate()
    }

    var room: Int { depth - inFlight }
    var maximumTransfer: Int { capabilities.maximumTransfer }

    // MARK: Submission

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        guard inFlight < depth, let index = free.last.map(Int.init) else { return false }
        var error = unsafe capabilities.check(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess)
        if case .givenUp(let errno) = controller.phase { error = error == 0 ? errno : error }
        // What is written is durable already where there is no volatile cache.
        if error != 0 || operation == .flush && !capabilities.volatileCache {
            untold.append(DeviceCompletion(tag: tag, error: error))
            inFlight += 1
            return true
        }
        var slot = Slot()
        slot.turn = unsafe slots[index].turn
        slot.operation = operation
        slot.forceUnitAccess = forceUnitAccess
        slot.tag = tag
        slot.offset = offset
        slot.length = length
        if operation == .read || operation == .write {
            unsafe place(&slot, index, segments)
        }
        slot.state = .waiting
        free.removeLast()
        unsafe slots[index] = slot
        waiting.append(index)
        inFlight += 1
        counters.count(operation, length: length)
        return true
    }

    /// Tells the device where the memory is, or takes note that it does not reach it.
    private func place(_ slot: inout Slot, _ index: Int, _ segments: UnsafeBufferPointer<DeviceSegment>) {
        let list = unsafe lists.pointer + index * listBytes
        var pages = unsafe NVMePages(list: list, listAddress: lists.address + UInt64(index * listBytes))
        for unsafe segment in unsafe segments {
            guard segment.length % blockSize == 0, let address = address(of: segment) else {
                slot.needsBounce = true
                bounced[index] = unsafe Array(segments)
                return
            }
            for page in 0..<segment.length / blockSize { pages.append(address + UInt64(page * blockSize)) }
        }
        (slot.first, slot.second) = pages.pointers
    }

    /// The device's address of memory that it reaches.
    private func address(of segment: DeviceSegment) -> UInt64? {
        func address(in memory: DMAMemory) -> UInt64? {
            guard let offset = unsafe memory.offset(of: segment.address), segment.length <= memory.bytes - offset else { return nil }
            return memory.address + UInt64(offset)
        }
        if let registered, let address = address(in: registered) { return address }
        let behind = unsafe place(of: segment.address)
        return behind > 0 ? address(in: mapped[behind - 1]) : nil
    }

    /// How many pieces of mapped memory begin at or before an address.
    private func place(of address: UnsafeMutableRawPointer) -> Int {
        var (low, high) = (0, mapped.count)
        while low < high {
            let middle = (low + high) / 2
            if unsafe mapped[middle].pointer <= address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Gives a slot memory that the device reaches, with what is to be written in it. False where all of it is in use.
    private func bounce(_ index: Int) -> Bool {
        if freeBounces.isEmpty, bounces.count < Self.mostBounces, let memory = try? controller.transport.allocate(bytes: capabilities.maximumTransfer) {
            freeBounces.append(bounces.count)
            bounces.append(memory)
        }
        guard let number = freeBounces.popLast() else { return false }
        let memory = bounces[number]
        if unsafe slots[index].operation == .write {
            var at = 0
            for segment in bounced[index] {
                unsafe (memory.pointer + at).copyMemory(from: segment.address, byteCount: segment.length)
                at += segment.length
            }
        }
        var pages = unsafe NVMePages(list: lists.pointer + index * listBytes, listAddress: lists.address + UInt64(index * listBytes))
        for page in unsafe 0..<slots[index].length / blockSize { pages.append(memory.address + UInt64(page * blockSize)) }
        unsafe slots[index].bounce = number
        (unsafe slots[index].first, unsafe slots[index].second) = pages.pointers
        return true
    }

    /// One range of a Dataset Management command: attributes, blocks, first block.
    private func describeRange(offset: UInt64, length: Int, _ index: Int) {
        let range = unsafe lists.pointer + index * listBytes
        unsafe range.storeBytes(of: UInt64(length / namespaceBlock) << 32, as: UInt64.self)
        unsafe range.storeBytes(of: offset / UInt64(namespaceBlock), toByteOffset: 8, as: UInt64.self)
    }

    func kick() {
        while let completion = untold.popFirst() { finished.append(completion) }
        send()
    }

    /// Puts what waits in the ring, where the controller takes requests.
    func send() {
        guard waiting.count > 0, controller.phase == .ready else { return }
        let deadline = controller.transport.now &+ controller.options.commandTimeout
        while let index = waiting.first, ring.room > 0 {
            if unsafe slots[index].needsBounce, !bounce(index) {
                // The next one that is given back goes to it.
                if bounces.count > freeBounces.count { break }
                waiting.removeFirst()
                finish(index, EIO)
                continue
            }
            waiting.removeFirst()
            unsafe slots[index].turn = (slots[index].turn + 1) % Slot.turns
            ring.append(command(index))
            unsafe slots[index].state = .sent
            unsafe slots[index].deadline = deadline
            unsafe slots[index].attempts += 1
            sent += 1
        }
        ring.ring()
    }

    private func command(_ index: Int) -> NVMeCommand {
        let slot = unsafe slots[index]
        var command: NVMeCommand
        let block = (slot.offset + UInt64(slot.done)) / UInt64(namespaceBlock)
        switch slot.operation {
        case .flush: command = NVMeCommand(NVMeOpcode.flush, namespace: 1)
        case .discard:
            command = NVMeCommand(NVMeOpcode.manageDataset, namespace: 1)
            describeRange(offset: slot.offset + UInt64(slot.done), length: step(slot), index)
            command.first = lists.address + UInt64(index * listBytes)
            // One range; deallocate.
            command.word11 = 4
        case .read, .write, .writeZeroes:
            command = NVMeCommand(
                slot.operation == .read ? NVMeOpcode.read : slot.operation == .write ? NVMeOpcode.write : NVMeOpcode.writeZeroes, namespace: 1)
            command.first = slot.first
            command.second = slot.second
            command.word10 = UInt32(truncatingIfNeeded: block)
            command.word11 = UInt32(truncatingIfNeeded: block >> 32)
            command.word12 = UInt32(step(slot) / namespaceBlock - 1) | (slot.forceUnitAccess ? 1 << 30 : 0)
        }
        command.identifier = identifier(index)
        return command
    }

    /// No queue has more than 4096 slots.
    private func identifier(_ index: Int) -> UInt16 { unsafe UInt16(index) | slots[index].turn << 12 }

    /// Bytes of the slot's next command: the number of blocks has 16 bits, and 32 in a range to deallocate.
    private func step(_ slot: Slot) -> Int {
        let identity = controller.identity
        let limit =
            switch slot.operation {
            case .discard: min(identity.deallocateLimit ?? .max, Int(UInt32.max)) * namespaceBlock
            // One that tells no limit of its own may mean its limit for transfers.
            case .writeZeroes: min(identity.zeroesLimit ?? identity.maximumTransfer ?? .max, 65536 * namespaceBlock)
            case .read, .write, .flush: slot.length
            }
        return min(slot.length - slot.done, max(limit / blockSize * blockSize, blockSize))
    }

    // MARK: Completion

    func nextCompletion() -> DeviceCompletion? {
        while true {
            if let completion = finished.popFirst() {
                inFlight -= 1
                return completion
            }
            guard take() else { return nil }
        }
    }

    /// Takes answers from the ring; now and then lets the controller look after itself. False where nothing came.
    private func take() -> Bool {
        guard controller.phase == .ready else {
            controller.tend()
            return finished.count > 0
        }
        var taken = 0
        while taken < ring.entries, let completion = ring.nextCompletion() {
            taken += 1
            answered(completion)
        }
        if taken > 0 {
            ring.giveBack()
            if waiting.count > 0 { send() }
            return true
        }
        emptyPolls &+= 1
        if mayHaveSlept || emptyPolls % 1024 == 0 {
            mayHaveSlept = false
            controller.tend()
            if resting > 0 { wakeResting() }
        }
        return finished.count > 0
    }

    private func answered(_ completion: NVMeCompletion) {
        let index = Int(completion.identifier & 0xFFF)
        guard index < depth, unsafe slots[index].state == .sent || slots[index].state == .overdue, completion.identifier == identifier(index) else {
            return controller.note("the controller answers a request that is not under way (\(completion.identifier))")
        }
        sent -= 1
        if completion.status == NVMeCompletion.success {
            controller.succeeded()
            if unsafe slots[index].operation == .writeZeroes || slots[index].operation == .discard {
                unsafe slots[index].done += step(slots[index])
                if unsafe slots[index].done < slots[index].length {
                    unsafe slots[index].attempts = 0
                    return again(index)
                }
            }
            return finish(index, 0)
        }
        if completion.isTransient, unsafe slots[index].attempts < Self.attempts { return rest(index, completion) }
        controller.note("a request fails with \(completion.statusText)")
        finish(index, completion.error)
    }

    /// What stands in the way of a request may pass: it is sent again when the controller has had the time that it asks for, or a little.
    private func rest(_ index: Int, _ completion: NVMeCompletion) {
        if completion.status == NVMeCompletion.Status.abortedByRequest || completion.status == NVMeCompletion.Status.abortedByDeletion { return again(index) }
        let asked = completion.retryDelay > 0 ? controller.identity.retryDelays[Int(completion.retryDelay) - 1] : 0
        unsafe slots[index].state = .resting
        unsafe slots[index].deadline = controller.transport.now &+ (asked > 0 ? asked : Self.rest * UInt64(slots[index].attempts))
        releaseBounce(index)
        resting += 1
    }

    private func wakeResting() {
        let now = controller.transport.now
        for index in 0..<depth where unsafe slots[index].state == .resting && now >= slots[index].deadline {
            resting -= 1
            again(index)
        }
        send()
    }

    private func again(_ index: Int) {
        unsafe slots[index].state = .waiting
        releaseBounce(index)
        waiting.append(index)
    }

    /// Who waits holds none: those before it may need it.
    private func releaseBounce(_ index: Int) {
        guard unsafe slots[index].bounce >= 0 else { return }
        freeBounces.append(unsafe slots[index].bounce)
        unsafe slots[index].bounce = -1
    }

    private func finish(_ index: Int, _ error: Int32) {
        let slot = unsafe slots[index]
        if slot.bounce >= 0, slot.operation == .read, error == 0 {
            var at = 0
            for segment in bounced[index] {
                unsafe segment.address.copyMemory(from: bounces[slot.bounce].pointer + at, byteCount: segment.length)
                at += segment.length
            }
        }
        releaseBounce(index)
        unsafe slots[index].state = .free
        free.append(Int32(index))
        finished.append(DeviceCompletion(tag: slot.tag, error: error))
    }

    // MARK: Trouble

    /// Asks for the end of what has not been answered in time; resets the controller where that does not help.
    func lookAtDeadlines(_ now: UInt64) {
        guard sent > 0 else { return }
        for index in 0..<depth where unsafe slots[index].state == .sent || slots[index].state == .overdue {
            guard unsafe now >= slots[index].deadline else { continue }
            if unsafe slots[index].state == .sent, controller.abort(queue: ring.number, identifier: identifier(index)) {
                controller.note("request \(index) is not answered within \(controller.options.commandTimeout / 1_000_000) ms: it is aborted")
                unsafe slots[index].state = .overdue
                unsafe slots[index].deadline = now &+ controller.options.commandTimeout / 2
            } else if unsafe slots[index].state == .overdue {
                return controller.reset("an aborted request is not answered")
            }
        }
    }

    /// The controller forgets what was sent: it waits again, or fails where it has been sent too often.
    func takeBack() {
        for index in 0..<depth where unsafe slots[index].state == .sent || slots[index].state == .overdue {
            if unsafe slots[index].attempts >= Self.attempts { finish(index, EIO) } else { again(index) }
        }
        sent = 0
    }

    func failAll(_ errno: Int32) {
        while waiting.count > 0 { waiting.removeFirst() }
        for index in 0..<depth where unsafe slots[index].state != .free { finish(index, errno) }
        (sent, resting) = (0, 0)
    }

    // MARK: Memory and sleep

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {
        guard registered == nil, let base = memory.baseAddress else {
            throw DeviceError(device: controller.transport.name, errno: EINVAL, message: "memory can be registered once, and not none")
        }
        guard let address = unsafe try controller.transport.map(memory) else { return }
        registered = unsafe DMAMemory(pointer: base, bytes: memory.count, address: address)
    }

    func map(_ memory: UnsafeMutableRawBufferPointer) {
        guard let base = memory.baseAddress, let address = unsafe try? controller.transport.map(memory) else { return }
        unsafe mapped.insert(DMAMemory(pointer: base, bytes: memory.count, address: address), at: place(of: base))
    }

    func unmap(_ memory: UnsafeMutableRawBufferPointer) {
        guard let base = memory.baseAddress else { return }
        let behind = unsafe place(of: base)
        guard behind > 0, unsafe mapped[behind - 1].pointer == base else { return }
        controller.transport.unmap(mapped.remove(at: behind - 1))
    }

    var hasNotes: Bool { !controller.newNotes.isEmpty }
    func takeNotes() -> [String] { controller.takeNotes() }

    var wakeupDescriptor: Int32 { controller.transport.interruptDescriptor }
    func armWakeup() {
        mayHaveSlept = true
        controller.transport.armInterrupt()
    }
    func disarmWakeup() {
        mayHaveSlept = true
        controller.transport.disarmInterrupt()
    }

    /// While something is under way, the controller is looked at in time to abort it.
    var deadline: UInt64? {
        guard inFlight > 0 else { return nil }
        return controller.transport.now &+ 100_000_000
    }
}

/// The pages of a transfer as a command names them (base specification, "Physical Region Page Entry and List"): the first, and the second or a
/// list of the others, whose last entry leads on to the next page of the list where they are many.
@safe package struct NVMePages {
    private let list: UnsafeMutableRawPointer
    private let listAddress: UInt64
    private var count = 0
    private var first: UInt64 = 0
    private var second: UInt64 = 0
    /// Entries in the list, links included.
    private var listed = 0

    private static let entriesPerPage = blockSize / 8

    package init(list: UnsafeMutableRawPointer, listAddress: UInt64) {
        unsafe self.list = list
        self.listAddress = listAddress
    }

    /// Bytes that the list of a transfer of so many bytes may take.
    package static func listBytes(transfer: Int) -> Int {
        let entries = max(transfer / blockSize - 1, 1)
        return (entries + entriesPerPage - 2) / (entriesPerPage - 1) * blockSize
    }

    package mutating func append(_ address: UInt64) {
        count += 1
        if count == 1 {
            first = address
            return
        }
        if count == 2 { second = address }
        put(address)
    }

    private mutating func put(_ address: UInt64) {
        if listed > 0, listed % Self.entriesPerPage == 0 {
            // The page before is full: its last entry moves here and becomes the link.
            let last = unsafe list.load(fromByteOffset: (listed - 1) * 8, as: UInt64.self)
            unsafe list.storeBytes(of: (listAddress + UInt64(listed * 8)).littleEndian, toByteOffset: (listed - 1) * 8, as: UInt64.self)
            unsafe list.storeBytes(of: last, toByteOffset: listed * 8, as: UInt64.self)
            listed += 1
        }
        unsafe list.storeBytes(of: address.littleEndian, toByteOffset: listed * 8, as: UInt64.self)
        listed += 1
    }

    package var pointers: (UInt64, UInt64) { (first, count <= 1 ? 0 : count == 2 ? second : listAddress) }
}
