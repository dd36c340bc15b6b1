import Glibc

/// A controller on its way from whatever state it was found in to one that takes requests, and back there when it is in trouble.
///
/// Bringing it up is a sequence of steps, and none of them waits: `tend` looks whether the step has come to its end and begins the next. Opening
/// calls it until the controller is ready; after a reset the queues call it while they are polled, so that nobody is held up who needs
/// nothing of the device. (Base specification, "Controller Initialization", "Controller Level Reset", "Controller Shutdown".)
///
/// Trouble: a command that is not answered in time is aborted; one that is not answered then, a fatal status, or a bring-up that fails, resets the
/// controller, and what was under way is sent again, at most `NVMeQueue.attempts` times. A controller that has gone, or does not come back after
/// `resetsInARow`, is given up: every request ends with an errno.
///
/// Invariant: one admin command of each purpose is under way at most; its identifier is its purpose. One thread.
@safe package final class NVMeController {
    package struct Options: Sendable {
        /// A command that takes longer is aborted, and the controller reset when that does not help.
        package var commandTimeout: UInt64 = 10_000_000_000
        package init() {}
    }

    enum Phase: Equatable {
        /// Waits for CSTS.RDY to go.
        case disabling(deadline: UInt64)
        /// Waits for CSTS.RDY to come.
        case enabling(deadline: UInt64)
        /// Waits for the answer to an admin command.
        case asking(Step, deadline: UInt64)
        case ready
        /// Every request ends with this errno.
        case givenUp(Int32)
    }

    enum Step: Equatable {
        case identifyController, identifyNamespace, volatileCache, queueCount, doorbellBuffers
        /// Of the queue with this number: the completion queue first.
        case completionQueue(Int), submissionQueue(Int)
    }

    /// Identifiers of admin commands.
    private enum Purpose {
        static let step: UInt16 = 0
        static let event: UInt16 = 1
        static let abort: UInt16 = 2
        static let log: UInt16 = 3
    }

    private struct QueuePlace { weak var queue: NVMeQueue? }

    static let resetsInARow = 4
    private static let adminEntries = 16
    /// How often the status register is looked at, which costs a trip to the device.
    private static let lookInterval: UInt64 = 100_000_000

    let transport: any NVMeTransport
    let options: Options
    private(set) var capabilities: NVMeCapabilities
    private(set) var identity = NVMeIdentity()
    private(set) var namespace = NVMeNamespace()
    private(set) var hasVolatileCache = true
    private(set) var phase: Phase
    /// Queues that may be made.
    private(set) var queueLimit = 1
    /// What people should know: faults, resets, events; a line each, the last of many.
    private(set) var notes: [String] = []
    private(set) var resets = 0

    private let admin: NVMeRing
    private let page: DMAMemory
    private var shadows: (doorbells: DMAMemory, events: DMAMemory)?
    private var usesShadows = false
    private var awaitsEvent = false
    /// By queue number less one.
    private var rings: [NVMeRing] = []
    private var queues: [QueuePlace] = []
    private var wasReady = false
    private var resetsSinceReady = 0
    private var lastLook: UInt64 = 0
    /// The request that an abort under way is about, by queue and slot.
    private var aborting: (queue: Int, slot: Int)?
    private var failure = ""

    package init(_ transport: any NVMeTransport, options: Options = Options()) throws(DeviceError) {
        self.transport = transport
        self.options = options
        let low = transport.load32(NVMeRegister.capabilities)
        let high = transport.load32(NVMeRegister.capabilities + 4)
        let capabilities = NVMeCapabilities(bits: UInt64(high) << 32 | UInt64(low))
        self.capabilities = capabilities
        func refuse(_ message: String) -> DeviceError { DeviceError(device: transport.name, errno: ENODEV, message: message) }
        guard low != NVMeRegister.gone || high != NVMeRegister.gone else { throw refuse("the device does not answer; is it still plugged in?") }
        guard capabilities.hasNVMCommandSet else { throw refuse("this controller has no NVM command set; DashFS needs one for blocks") }
        guard capabilities.smallestPage == blockSize else {
            throw refuse("this controller's smallest page is \(capabilities.smallestPage) bytes; DashFS needs \(blockSize)")
        }
        admin = try NVMeRing(number: 0, entries: min(Self.adminEntries, capabilities.maximumEntries), transport: transport, capabilities: capabilities)
        page = try transport.allocate(bytes: blockSize)
        phase = .ready
        disable()
        while phase != .ready {
            if case .givenUp(let errno) = phase { throw DeviceError(device: transport.name, errno: errno, message: failure) }
            transport.pause()
            tend()
        }
    }

    // MARK: Bringing it up

    /// The first step of every beginning: whatever was under way is void when the controller says that it is not ready.
    private func disable() {
        aborting = nil
        transport.store32(NVMeRegister.configuration, 0)
        phase = .disabling(deadline: transport.now &+ capabilities.timeout)
    }

    /// Takes what the controller has to say and goes on with what is under way. Never waits.
    package func tend() {
        takeAdminCompletions()
        let now = transport.now
        switch phase {
        case .ready:
            guard now &- lastLook >= Self.lookInterval else { return }
            lastLook = now
            let status = status()
            if status.isGone { return giveUp(ENODEV, "the device has gone") }
            if status.isFatal || !status.isReady { return reset("the controller reports a fatal status") }
            for place in queues { place.queue?.lookAtDeadlines(now) }
        case .disabling(let deadline):
            let status = status()
            if status.isGone { return giveUp(ENODEV, "the device has gone") }
            if !status.isReady { return enable() }
            if now >= deadline { stuck("does not stop within the \(capabilities.timeout / 1_000_000) ms that it promises") }
        case .enabling(let deadline):
            let status = status()
            if status.isGone { return giveUp(ENODEV, "the device has gone") }
            if status.isFatal { return stuck("reports a fatal status when it is started") }
            if status.isReady { return ask(.identifyController) }
            if now >= deadline { stuck("does not start within the \(capabilities.timeout / 1_000_000) ms that it promises") }
        case .asking(let step, let deadline):
            if now >= deadline { stuck("does not answer \(step)") }
        case .givenUp: break
        }
    }

    private func status() -> NVMeStatus { NVMeStatus(bits: transport.load32(NVMeRegister.status)) }

    private func enable() {
        admin.clear()
        for ring in rings { ring.clear() }
        (usesShadows, awaitsEvent) = (false, false)
        store64(NVMeRegister.adminSubmissionQueue, admin.submissions.address)
        store64(NVMeRegister.adminCompletionQueue, admin.completions.address)
        transport.store32(NVMeRegister.adminQueueAttributes, UInt32(admin.entries - 1) << 16 | UInt32(admin.entries - 1))
        transport.store32(NVMeRegister.configuration, NVMeConfiguration.entrySizes | NVMeConfiguration.enable)
        phase = .enabling(deadline: transport.now &+ capabilities.timeout)
    }

    private func store64(_ register: Int, _ value: UInt64) {
        transport.store32(register, UInt32(truncatingIfNeeded: value))
        transport.store32(register + 4, UInt32(truncatingIfNeeded: value >> 32))
    }

    private func ask(_ step: Step) {
        var command: NVMeCommand
        switch step {
        case .identifyController:
            command = NVMeCommand(NVMeOpcode.identify)
            command.first = page.address
            command.word10 = 1
        case .identifyNamespace:
            command = NVMeCommand(NVMeOpcode.identify, namespace: 1)
            command.first = page.address
        case .volatileCache:
            command = NVMeCommand(NVMeOpcode.getFeatures)
            command.word10 = 6
        case .queueCount:
            command = NVMeCommand(NVMeOpcode.setFeatures)
            command.word10 = 7
            command.word11 = UInt32(Self.mostQueues - 1) << 16 | UInt32(Self.mostQueues - 1)
        case .doorbellBuffers:
            command = NVMeCommand(NVMeOpcode.doorbellBuffers)
            command.first = shadows?.doorbells.address ?? 0
            command.second = shadows?.events.address ?? 0
        case .completionQueue(let number):
            let ring = rings[number - 1]
            command = NVMeCommand(NVMeOpcode.createCompletionQueue)
            command.first = ring.completions.address
            command.word10 = UInt32(ring.entries - 1) << 16 | UInt32(number)
            // One piece of memory; vector 0, where there are interrupts.
            command.word11 = 1 | (transport.interruptDescriptor >= 0 ? 2 : 0)
        case .submissionQueue(let number):
            let ring = rings[number - 1]
            command = NVMeCommand(NVMeOpcode.createSubmissionQueue)
            command.first = ring.submissions.address
            command.word10 = UInt32(ring.entries - 1) << 16 | UInt32(number)
            command.word11 = UInt32(number) << 16 | 1
        }
        command.identifier = Purpose.step
        admin.append(command)
        admin.ring()
        phase = .asking(step, deadline: transport.now &+ options.commandTimeout)
    }

    private static let mostQueues = 64

    private func answered(_ step: Step, _ completion: NVMeCompletion) {
        guard completion.status == NVMeCompletion.success else {
            // An optional thing that is not to be had is done without.
            switch step {
            case .volatileCache: return ask(.queueCount)
            case .doorbellBuffers: return askForQueues(from: 1)
            default: return stuck("refuses \(step) (status 0x\(String(completion.status, radix: 16)))")
            }
        }
        switch step {
        case .identifyController:
            let found = unsafe NVMeIdentity(controller: page.pointer, smallestPage: capabilities.smallestPage)
            guard found.hasUsualEntries else { return giveUp(ENODEV, "the controller's queue entries have sizes that DashFS does not know") }
            if wasReady, (found.serial, found.model) != (identity.serial, identity.model) { return giveUp(ENODEV, "another device answers after a reset") }
            identity = found
            ask(.identifyNamespace)
        case .identifyNamespace:
            let (found, reason) = unsafe NVMeNamespace.judge(page.pointer, controller: identity)
            guard let found else { return giveUp(ENODEV, reason) }
            if wasReady, found.blocks < namespace.blocks || found.blockSize != namespace.blockSize {
                return giveUp(ENODEV, "namespace 1 has changed its size or format under the file system")
            }
            namespace = found
            if identity.hasVolatileCache { return ask(.volatileCache) }
            hasVolatileCache = false
            ask(.queueCount)
        case .volatileCache:
            hasVolatileCache = completion.result & 1 == 1
            ask(.queueCount)
        case .queueCount:
            queueLimit = min(Self.mostQueues, Int(completion.result & 0xFFFF) + 1, Int(completion.result >> 16) + 1)
            guard identity.hasDoorbellBuffers, prepareShadows() else { return askForQueues(from: 1) }
            ask(.doorbellBuffers)
        case .doorbellBuffers:
            if let shadows { for ring in rings { ring.useShadows(doorbells: shadows.doorbells, events: shadows.events) } }
            usesShadows = true
            askForQueues(from: 1)
        case .completionQueue(let number): ask(.submissionQueue(number))
        case .submissionQueue(let number): askForQueues(from: number + 1)
        }
    }

    private func prepareShadows() -> Bool {
        if shadows == nil, let doorbells = try? transport.allocate(bytes: blockSize), let events = try? transport.allocate(bytes: blockSize) {
            shadows = (doorbells, events)
        }
        guard let shadows else { return false }
        unsafe shadows.doorbells.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: blockSize)
        unsafe shadows.events.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: blockSize)
        return true
    }

    private func askForQueues(from number: Int) {
        if number <= rings.count { return ask(.completionQueue(number)) }
        phase = .ready
        lastLook = transport.now
        if !awaitsEvent { askForEvents() }
        wasReady = true
        for place in queues { place.queue?.send() }
    }

    // MARK: Queues

    /// A ring for one more queue, made by the controller before this returns.
    func takeRing(for queue: NVMeQueue, entries: Int) throws(DeviceError) -> NVMeRing {
        func refuse(_ errno: Int32, _ message: String) -> DeviceError { DeviceError(device: transport.name, errno: errno, message: message) }
        guard phase == .ready else { throw refuse(EIO, "the controller is not ready") }
        if let index = queues.firstIndex(where: { $0.queue == nil }), rings[index].entries >= entries {
            queues[index].queue = queue
            return rings[index]
        }
        guard rings.count < queueLimit else { throw refuse(EBUSY, "the controller has \(queueLimit) queues and all are in use") }
        let ring = try NVMeRing(
            number: rings.count + 1, entries: min(max(entries, 2), capabilities.maximumEntries), transport: transport, capabilities: capabilities)
        if usesShadows, let shadows { ring.useShadows(doorbells: shadows.doorbells, events: shadows.events) }
        rings.append(ring)
        queues.append(QueuePlace(queue: queue))
        ask(.completionQueue(ring.number))
        while phase != .ready {
            if case .givenUp(let errno) = phase { throw refuse(errno, failure) }
            transport.pause()
            tend()
        }
        return ring
    }

    func giveRingBack(_ ring: NVMeRing) { queues[ring.number - 1].queue = nil }

    // MARK: Trouble

    func note(_ text: String) {
        if notes.count == 100 { notes.removeFirst() }
        notes.append(text)
    }

    /// The controller is stopped and started again; what was under way is sent once more.
    func reset(_ reason: String) {
        note("\(reason): the controller is reset")
        resets += 1
        resetsSinceReady += 1
        guard resetsSinceReady <= Self.resetsInARow else { return giveUp(EIO, "\(reason), and resets do not help") }
        // Nothing of the old life is taken for an answer of the new one.
        for place in queues { place.queue?.takeBack() }
        if resetsSinceReady > 1 { _ = transport.resetFunction() }
        disable()
    }

    /// A bring-up that does not come to its end.
    private func stuck(_ what: String) {
        let reason = "the controller \(what)"
        if wasReady || resetsSinceReady > 0 { return reset(reason) }
        resetsSinceReady += 1
        // A controller that another driver left in the middle of something may need the whole function reset.
        guard transport.resetFunction() else { return giveUp(EIO, reason) }
        disable()
    }

    private func giveUp(_ errno: Int32, _ reason: String) {
        failure = reason
        note("\(reason): no request is taken any more")
        phase = .givenUp(errno)
        for place in queues { place.queue?.failAll(errno) }
    }

    /// A command has not been answered in time.
    /// - Returns: false where an abort cannot be sent now.
    func abort(queue: Int, slot: Int) -> Bool {
        guard phase == .ready, aborting == nil, admin.room > 0 else { return false }
        var command = NVMeCommand(NVMeOpcode.abort)
        command.identifier = Purpose.abort
        command.word10 = UInt32(slot) << 16 | UInt32(queue)
        admin.append(command)
        admin.ring()
        aborting = (queue, slot)
        return true
    }

    /// Requests are answered again.
    func succeeded() { resetsSinceReady = 0 }

    // MARK: Events

    private func askForEvents() {
        guard admin.room > 0 else { return }
        awaitsEvent = true
        var command = NVMeCommand(NVMeOpcode.asyncEvent)
        command.identifier = Purpose.event
        admin.append(command)
        admin.ring()
    }

    private func takeAdminCompletions() {
        if case .givenUp = phase { return }
        while let completion = admin.nextCompletion() {
            switch completion.identifier {
            case Purpose.step:
                if case .asking(let step, _) = phase { answered(step, completion) } else { note("the controller answers what nobody asked") }
            case Purpose.event: if completion.status == NVMeCompletion.success { event(completion.result) }
            case Purpose.abort: aborting = nil
            case Purpose.log: askForEvents()
            default: note("the controller answers a command that was not sent")
            }
            // A step may have begun anew.
            if case .disabling = phase { return }
            if case .givenUp = phase { return }
        }
        admin.giveBack()
    }

    /// An asynchronous event (base specification, "Asynchronous Event Request command"): its log page is read, which lets the next one come.
    private func event(_ result: UInt32) {
        let (kind, information, log) = (result & 7, (result >> 8) & 0xFF, (result >> 16) & 0xFF)
        switch kind {
        case 0: note("the controller reports an error of its own (\(information))")
        case 1: note("the device reports on its health (\(information)): `dashfs info` shows it")
        case 2: note("the controller reports a change (\(information))")
        default: note("the controller reports an event of kind \(kind) (\(information))")
        }
        guard admin.room > 0 else { return }
        var command = NVMeCommand(NVMeOpcode.getLogPage, namespace: 0xFFFF_FFFF)
        command.identifier = Purpose.log
        command.first = page.address
        command.word10 = (512 / 4 - 1) << 16 | log
        admin.append(command)
        admin.ring()
    }

    // MARK: The end

    /// An orderly shutdown: what the controller holds is durable afterwards. Waits for it as long as the controller says that it may take.
    package func close() {
        if case .givenUp = phase {} else {
            let configuration = transport.load32(NVMeRegister.configuration)
            transport.store32(NVMeRegister.configuration, configuration & ~NVMeConfiguration.shutdownMask | NVMeConfiguration.normalShutdown)
            let deadline = transport.now &+ identity.shutdownTime
            while true {
                let status = status()
                if status.isShutDown || status.isGone || transport.now >= deadline { break }
                transport.pause()
            }
        }
        phase = .givenUp(ENODEV)
        transport.close()
    }
}
