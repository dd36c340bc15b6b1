import BlockDevice
import CSystem
import Glibc

struct FakeSubmissionQueue {
    let address: UInt64
    let entries: Int
    /// Number of the completion queue.
    let completions: Int
    var head = 0
    var tail = 0
    /// The head that the driver was told last: what it may count on.
    var toldHead = 0

    init(address: UInt64, entries: Int, completions: Int) {
        self.address = address
        self.entries = entries
        self.completions = completions
    }

    func distance(_ from: Int, _ to: Int) -> Int { (to - from + entries) % entries }
}

struct FakeCompletionQueue {
    let address: UInt64
    let entries: Int
    let interrupts: Bool
    /// Where the next completion goes, and how far the driver has read.
    var tail = 0
    var head = 0
    var phase: UInt32 = 1
    /// What finds no place.
    var backlog: [(identifier: UInt16, queue: Int, status: UInt16, result: UInt32)] = []

    init(address: UInt64, entries: Int, interrupts: Bool) {
        self.address = address
        self.entries = entries
        self.interrupts = interrupts
    }

    func distance(_ from: Int, _ to: Int) -> Int { (to - from + entries) % entries }
    var isFull: Bool { distance(head, tail) == entries - 1 }
}

/// A command between its fetch and its end.
struct FakePending {
    let queue: Int
    let command: NVMeCommand
    var due: UInt64
    /// Device addresses of its pages, in order.
    var pages: [UInt64] = []
    var fault: FakeFault.Kind?
    /// Decided when it was fetched.
    var error: UInt16?
    /// A second answer to what has been answered.
    var isEcho = false

    var key: UInt32 { UInt32(queue) << 16 | UInt32(command.identifier) }
}

extension FakeController {
    // MARK: Doorbells

    func ringDoorbell(_ register: Int, _ value: UInt32) {
        doorbellStores += 1
        let stride = 4 << configuration.strideShift
        let place = register - NVMeRegister.doorbells
        let (queue, isCompletion) = (place / stride / 2, place / stride % 2 == 1)
        let what = "\(isCompletion ? "completion" : "submission") doorbell \(queue) with \(value)"
        guard place % stride == 0 else { return violate("a store between doorbells, at \(place)") }
        guard isEnabled, isReady else { return violate("\(what) while the controller is not ready") }
        if let shadows, queue > 0, let stored = unsafe host(shadows.doorbells + UInt64(place), 4) {
            let shadow = UInt32(littleEndian: unsafe dashfs_load32(stored))
            if shadow != value { violate("\(what), and its shadow is \(shadow)") }
        }
        if isCompletion {
            moveHead(queue, Int(value), what)
        } else {
            moveTail(queue, Int(value), what)
        }
    }

    /// Takes a new tail. False where it is the old one.
    private func moveTail(_ number: Int, _ value: Int, _ what: String) {
        guard var queue = submissionQueues[number] else { return violate("\(what): there is no such queue") }
        guard value < queue.entries else { return violate("\(what): the queue has \(queue.entries) entries") }
        // A shadow that was seen before its doorbell came leaves nothing to move.
        if value == queue.tail && shadows != nil && number > 0 { return }
        let (old, new) = (queue.distance(queue.toldHead, queue.tail), queue.distance(queue.toldHead, value))
        guard new > old else { return violate("\(what): the tail was \(queue.tail) and the head that was told \(queue.toldHead): it moves back, not at all, or overruns") }
        queue.tail = value
        submissionQueues[number] = queue
        hasUnfetched = true
    }

    private func moveHead(_ number: Int, _ value: Int, _ what: String) {
        guard var queue = completionQueues[number] else { return violate("\(what): there is no such queue") }
        guard value < queue.entries else { return violate("\(what): the queue has \(queue.entries) entries") }
        if value == queue.head && shadows != nil && number > 0 { return }
        let moved = queue.distance(queue.head, value)
        guard moved > 0, moved <= queue.distance(queue.head, queue.tail) else {
            return violate("\(what): the head was \(queue.head), and what was posted ends at \(queue.tail)")
        }
        queue.head = value
        completionQueues[number] = queue
        letOutBacklog(number)
    }

    /// A queue is awake while it has something to do; then it looks at its shadow. One that sleeps hears doorbells only.
    private func isAwake(_ number: Int) -> Bool {
        guard let queue = submissionQueues[number] else { return false }
        return queue.tail != queue.head || pending.contains { $0.queue == number && $0.due != .max }
    }

    func lookAtShadowTail(_ number: Int) {
        guard let shadows, number > 0, let queue = submissionQueues[number] else { return }
        let offset = UInt64(2 * number * (4 << configuration.strideShift))
        guard let doorbell = unsafe host(shadows.doorbells + offset, 4) else { return violate("the shadow doorbells of queue \(number) are outside their page") }
        let value = Int(UInt32(littleEndian: unsafe dashfs_load32(doorbell)))
        if value != queue.tail { moveTail(number, value, "shadow submission doorbell \(number) with \(value)") }
    }

    /// Says which tail is to be told by a doorbell: the next one, when it goes to sleep; else one that was passed long ago.
    private func sayEvent(_ number: Int) {
        guard let shadows, number > 0, let queue = submissionQueues[number] else { return }
        let offset = UInt64(2 * number * (4 << configuration.strideShift))
        guard let event = unsafe host(shadows.events + offset, 4) else { return violate("the event indexes of queue \(number) are outside their page") }
        unsafe dashfs_store32(event, UInt32(isAwake(number) ? (queue.tail + queue.entries - 1) % queue.entries : queue.tail).littleEndian)
    }

    private func lookAtShadowHead(_ number: Int) {
        guard let shadows, number > 0, let queue = completionQueues[number] else { return }
        let offset = UInt64((2 * number + 1) * (4 << configuration.strideShift))
        guard let doorbell = unsafe host(shadows.doorbells + offset, 4), let event = unsafe host(shadows.events + offset, 4) else {
            return violate("the shadow doorbells of queue \(number) are outside their page")
        }
        let value = Int(UInt32(littleEndian: unsafe dashfs_load32(doorbell)))
        if value != queue.head { moveHead(number, value, "shadow completion doorbell \(number) with \(value)") }
        // Woken by the next move where the queue is full; else it needs no doorbell: the event is one that was passed long ago.
        let head = completionQueues[number]?.head ?? 0
        let isFull = completionQueues[number]?.isFull ?? false
        unsafe dashfs_store32(event, UInt32(isFull ? head : (head + queue.entries - 1) % queue.entries).littleEndian)
    }

    // MARK: Fetching

    func fetch() {
        hasUnfetched = false
        for number in submissionQueues.keys.sorted() {
            if isAwake(number) { lookAtShadowTail(number) }
            while let queue = submissionQueues[number], queue.head != queue.tail, isReady, isEnabled, !isFatal, !isGone {
                submissionQueues[number]?.head = (queue.head + 1) % queue.entries
                guard let entry = unsafe host(queue.address + UInt64(queue.head * NVMeCommand.size), NVMeCommand.size) else { continue }
                unsafe take(entry, number)
            }
            sayEvent(number)
        }
    }

    private func take(_ entry: UnsafeRawPointer, _ number: Int) {
        let command = unsafe NVMeCommand(at: entry)
        let reserved = [1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 56, 57, 58, 59, 60, 61, 62, 63]
        if reserved.contains(where: { unsafe entry.load(fromByteOffset: $0, as: UInt8.self) != 0 }) {
            violate("a command of queue \(number) with something in fields that are zero: \(command)")
        }
        var taken = FakePending(queue: number, command: command, due: clock + UInt64(random.below(Int(configuration.maximumDelay))))
        if pending.contains(where: { $0.key == taken.key && !$0.isEcho }) || unanswered.contains(taken.key)
            || number == 0 && eventRequests.contains(command.identifier)
        {
            violate("identifier \(command.identifier) is used twice in queue \(number)")
        }
        if number == 0 {
            adminFetched[command.opcode, default: 0] += 1
            if command.opcode == NVMeOpcode.asyncEvent { return takeEventRequest(command) }
        } else {
            commandsFetched[command.opcode, default: 0] += 1
            if shutdown.asked { violate("a request after the shutdown: \(command)") }
            checkRequest(&taken)
        }
        if taken.error == nil { taken.fault = strike(number == 0 ? .admin : .requests) }
        switch taken.fault {
        case .late(let time): taken.due = clock + time
        case .stuck: taken.due = .max
        case .fatal: isFatal = true
        case .removal: remove()
        case .event(let kind, let information, let log): tell(kind: kind, information: information, log: log)
        case .shrink(let blocks):
            namespaceBlocks = min(namespaceBlocks, blocks)
            configuration.namespaceBlocks = namespaceBlocks
            tell(kind: 2, information: 0, log: 4)
        default: break
        }
        pending.append(taken)
    }

    // MARK: Completing

    /// Ends what is due, in the order of its fetch or in any.
    func complete() {
        while isReady, isEnabled, !isFatal, !isGone {
            var index: Int?
            if configuration.isShuffled {
                let ready = pending.indices.filter { pending[$0].due <= clock }
                if !ready.isEmpty { index = random.pick(ready) }
            } else {
                index = pending.firstIndex { $0.due <= clock }
            }
            guard let index else { return }
            let command = pending.remove(at: index)
            end(command)
            // Once more before it may go to sleep.
            lookAtShadowTail(command.queue)
            if hasUnfetched { fetch() } else { sayEvent(command.queue) }
        }
    }

    private func end(_ command: FakePending) {
        if command.isEcho { return answer(command, command.error ?? 0) }
        var (status, result) = (command.error ?? 0, UInt32(0))
        if command.error == nil {
            if case .status(let code, let doNotRetry) = command.fault {
                status = code | (doNotRetry ? 1 << 14 : 0)
                if command.queue > 0 { abandon(command, mayBeWhole: false) }
            } else if command.queue == 0 {
                guard let (code, answer) = administer(command) else { return }
                (status, result) = (code, answer)
            } else {
                status = carryOut(command)
            }
        }
        switch command.fault {
        case .lostCompletion:
            unanswered.insert(command.key)
            return
        case .duplicateCompletion(let after):
            var echo = command
            echo.isEcho = true
            echo.error = status
            echo.due = clock + after
            pending.append(echo)
        case .unknownIdentifier:
            var identifier = command.command.identifier ^ 0x0FF0
            while pending.contains(where: { $0.queue == command.queue && $0.command.identifier == identifier }) { identifier ^= 0x5005 }
            post(command.queue, identifier, 0, 0)
        default: break
        }
        post(command.queue, command.command.identifier, status, result)
    }

    func answer(_ command: FakePending, _ status: UInt16) { post(command.queue, command.command.identifier, status, 0) }

    func post(_ number: Int, _ identifier: UInt16, _ status: UInt16, _ result: UInt32) {
        guard let target = submissionQueues[number]?.completions, completionQueues[target] != nil else { return }
        completionQueues[target]?.backlog.append((identifier, number, status, result))
        letOutBacklog(target)
    }

    private func letOutBacklog(_ number: Int) {
        while let queue = completionQueues[number], let next = queue.backlog.first {
            if queue.isFull {
                // Not every look is needed; this one is.
                lookAtShadowHead(number)
                return
            }
            guard let entry = unsafe host(queue.address + UInt64(queue.tail * NVMeCompletion.size), NVMeCompletion.size) else { return }
            completionQueues[number]?.backlog.removeFirst()
            let head = submissionQueues[next.queue]?.head ?? 0
            submissionQueues[next.queue]?.toldHead = head
            unsafe dashfs_store32(entry, next.result.littleEndian)
            unsafe dashfs_store32(entry + 4, 0)
            unsafe dashfs_store32(entry + 8, (UInt32(head) | UInt32(next.queue) << 16).littleEndian)
            unsafe dashfs_store32_release(entry + 12, (UInt32(next.identifier) | queue.phase << 16 | UInt32(next.status) << 17).littleEndian)
            completionQueues[number]?.tail = (queue.tail + 1) % queue.entries
            if queue.tail + 1 == queue.entries { completionQueues[number]?.phase ^= 1 }
            lookAtShadowHead(number)
            if queue.interrupts { interrupt() }
        }
    }

    // MARK: Memory of queues

    func checkQueueMemory(_ address: UInt64, _ bytes: Int, _ what: String) {
        if address % UInt64(Self.page) != 0 { violate("the \(what) does not begin with a page") }
        if unsafe host(address, bytes) == nil { violate("the \(what) is in memory that the device was not given") }
    }

    /// Phases of a new queue are zero, or the driver takes old completions for new ones.
    func checkCompletionQueue(_ number: Int) {
        guard let queue = completionQueues[number] else { return }
        checkQueueMemory(queue.address, queue.entries * NVMeCompletion.size, "completion queue \(number)")
        for entry in 0..<queue.entries where load(queue.address + UInt64(entry * NVMeCompletion.size) + 8) >> 48 & 1 != 0 {
            return violate("the memory of completion queue \(number) has phases of an earlier life")
        }
    }
}
