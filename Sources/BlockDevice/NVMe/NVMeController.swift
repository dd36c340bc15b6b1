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
/// Invariants: one admin command of each purpose is under way at most, and `underWay` says which; no request is answered while the controller may
/// still reach its memory: what was sent before a reset ends, or is sent again, when CSTS.RDY has gone. One thread.
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
        /// Waits for CSTS.RDY to go for the last time.
        case quitting(Int32, deadline: UInt64)
        /// Every request ends with this errno.
        case givenUp(Int32)
    }

    enum Step: Equatable {
        case identifyController, identifyLimits, identifyNamespace, volatileCache, events, queueCount, doorbellBuffers
        /// The namespace has changed while it is in use.
        case reviewNamespace
        /// Of a queue that is too short for who comes next.
        case deleteSubmissionQueue(Int), deleteCompletionQueue(Int)
        /// Of the queue with this number: the completion queue first.
        case completionQueue(Int), submissionQueue(Int)
    }

    /// Identifiers of the admin commands under way, by their purpose; 0: none. No two have the same, and none has that of one shortly before: a second
    /// answer is not taken for an answer to what came next.
    private struct UnderWay { var (step, event, abort, log, query): (UInt16, UInt16, UInt16, UInt16, UInt16) = (0, 0, 0, 0, 0) }

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
    /// Queues that may be made, and those that the controller has made once.
    private(set) var queueLimit = 1
    private var queuesMade = 0
    /// What people should know: faults, resets, events; a line each, the last of many.
    package private(set) var notes: [String] = []
    /// Those that nobody has taken yet.
    private(set) var newNotes: [String] = []
    package private(set) var resets = 0

    private let admin: NVMeRing
    private let page: DMAMemory
    /// Of a log page that somebody has asked for, and its status when it has come.
    private var (queryPage, queryStatus): (DMAMemory?, UInt16?)
    private var shadows: (doorbells: DMAMemory, events: DMAMemory)?
    private var usesShadows = false
    /// By queue number less one.
    private var rings: [NVMeRing] = []
    private var queues: [QueuePlace] = []
    private var wasReady = false
    private var resetsSinceReady = 0
    private var lastLook: UInt64 = 0
    /// An event has said that namespaces have changed.
    private var namespaceIsInDoubt = false
    /// The request that an abort under way is about, and until when that is to be answered.
    private var aborting: (queue: Int, identifier: UInt16, deadline: UInt64)?
    private var underWay = UnderWay()
    /// That `underWay.log` is about.
    private var logPage: UInt32 = 0
    private var lastIdentifier: UInt16 = 0
    private var failure = ""

    package init(_ transport: any NVMeTransport, options: Options = Options()) throws(DeviceError) {
        self.transport = transport
        self.options = options
        let low = transport.load32(NVMeRegister.capabilities)
        let high = transport.load32(NVMeRegister.capabilities + 4)
        let bits = UInt64(high) << 32 | UInt64(low)
        let capabilities = NVMeCapabilities(bits: bits, readyTimeouts: bits >> 59 & 1 == 1 ? transport.load32(NVMeRegister.readyTimeouts) : 0)
        self.capabilities = capabilities
        func refuse(_ message: String) -> DeviceError { DeviceError(device: transport.name, errno: ENODEV, message: message) }
        guard low != NVMeRegister.gone || high != NVMeRegister.gone else { throw refuse("the device does not answer; is it still plugged in?") }
        guard capabilities.hasNVMCommandSet else { throw refuse("this controller has no NVM command set; DashFS needs one for blocks") }
        guard capabilities.smallestPage == blockSize else {
            throw refuse("this controller's smallest page is \(capabilities.smallestPage) bytes; DashFS needs \(blockSize)")
        }
        guard capabilities.maximumEntries >= 2 else { throw refuse("this controller's queues have one entry; DashFS needs two") }
        guard capabilities.completionDoorbell(1) + 4 <= transport.registerBytes else { throw refuse("this controller's registers end before its doorbells") }
        // CAP.MQES is about the other queues.
        admin = try NVMeRing(number: 0, entries: Self.adminEntries, transport: transport, capabilities: capabilities)
        page = try transport.allocate(bytes: blockSize)
        phase = .ready
        disable()
        settle()
        if case .givenUp(let errno) = phase { throw DeviceError(device: transport.name, errno: errno, message: failure) }
    }

    /// Tends until the controller takes requests, or has been given up.
    private func settle() {
        while true {
            switch phase {
            case .ready, .givenUp: return
            case .disabling, .enabling, .asking, .quitting:
                transport.pause()
                tend()
            }
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
            if let aborting, now >= aborting.deadline { return reset("an abort is not answered") }
            for place in queues { place.queue?.lookAtDeadlines(now) }
        case .disabling(let deadline):
            let status = status()
            if status.isGone { return giveUp(ENODEV, "the device has gone") }
            if !status.isReady {
                // Nothing of the old life touches memory, or answers, any more.
                for place in queues { place.queue?.takeBack() }
                return enable()
            }
            if now >= deadline { stuck("does not stop within the \(capabilities.timeout / 1_000_000) ms that it promises") }
        case .enabling(let deadline):
            let status = status()
            if status.isGone { return giveUp(ENODEV, "the device has gone") }
            if status.isFatal { return stuck("reports a fatal status when it is started") }
            if status.isReady { return ask(.identifyController) }
            if now >= deadline { stuck("does not start within the \(capabilities.startTimeout / 1_000_000) ms that it promises") }
        case .asking(let step, let deadline):
            if now >= deadline { stuck("does not answer \(step)") }
        case .quitting(let errno, let deadline):
            let status = status()
            if status.isReady && !status.isGone {
                guard now >= deadline else { return }
                _ = transport.resetFunction()
            }
            end(errno)
        case .givenUp: break
        }
    }

    private func status() -> NVMeStatus { NVMeStatus(bits: transport.load32(NVMeRegister.status)) }

    private func enable() {
        admin.clear()
        for ring in rings { ring.clear() }
        usesShadows = false
        underWay = UnderWay()
        namespaceIsInDoubt = false
        store64(NVMeRegister.adminSubmissionQueue, admin.submissions.address)
        store64(NVMeRegister.adminCompletionQueue, admin.completions.address)
        transport.store32(NVMeRegister.adminQueueAttributes, UInt32(admin.entries - 1) << 16 | UInt32(admin.entries - 1))
        transport.store32(NVMeRegister.configuration, NVMeConfiguration.entrySizes | NVMeConfiguration.enable)
        phase = .enabling(deadline: transport.now &+ capabilities.startTimeout)
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
        case .identifyLimits:
            command = NVMeCommand(NVMeOpcode.identify)
            command.first = page.address
            command.word10 = 6
        case .identifyNamespace, .reviewNamespace:
            command = NVMeCommand(NVMeOpcode.identify, namespace: 1)
            command.first = page.address
        case .volatileCache:
            command = NVMeCommand(NVMeOpcode.getFeatures)
            command.word10 = NVMeFeature.volatileCache
        case .events:
            command = NVMeCommand(NVMeOpcode.setFeatures)
            command.word10 = NVMeFeature.events
            command.word11 = NVMeHealth.Warning.all | (identity.tellsNamespaceChanges ? 1 << 8 : 0)
        case .queueCount:
            command = NVMeCommand(NVMeOpcode.setFeatures)
            command.word10 = NVMeFeature.queueCount
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
        case .deleteSubmissionQueue(let number):
            command = NVMeCommand(NVMeOpcode.deleteSubmissionQueue)
            command.word10 = UInt32(number)
        case .deleteCompletionQueue(let number):
            command = NVMeCommand(NVMeOpcode.deleteCompletionQueue)
            command.word10 = UInt32(number)
        }
        underWay.step = send(&command)
        phase = .asking(step, deadline: transport.now &+ options.commandTimeout)
    }

    /// - Returns: its identifier.
    private func send(_ command: inout NVMeCommand) -> UInt16 {
        repeat { lastIdentifier = lastIdentifier == .max - 1 ? 1 : lastIdentifier + 1 } while lastIdentifier == underWay.event
        command.identifier = lastIdentifier
        admin.append(command)
        admin.ring()
        return lastIdentifier
    }

    private static let mostQueues = 64

    private func answered(_ step: Step, _ completion: NVMeCompletion) {
        guard completion.status == NVMeCompletion.success else {
            // An optional thing that is not to be had is done without.
            switch step {
            case .identifyLimits: return ask(.identifyNamespace)
            case .volatileCache: return learn(cacheIsOn: true)
            case .events: return ask(.queueCount)
            case .doorbellBuffers: return askForQueues()
            case .completionQueue(let number) where number > max(queuesMade, 1), .submissionQueue(let number) where number > max(queuesMade, 1):
                return forgetQueue(number, completion.statusText)
            default: return stuck("refuses \(step) (\(completion.statusText))")
            }
        }
        switch step {
        case .identifyController:
            let found = unsafe NVMeIdentity(controller: page.pointer, smallestPage: capabilities.smallestPage)
            guard found.hasUsualEntries else { return giveUp(ENODEV, "the controller's queue entries have sizes that DashFS does not know") }
            if wasReady, (found.serial, found.model) != (identity.serial, identity.model) { return giveUp(ENODEV, "another device answers after a reset") }
            if wasReady, !found.keeps(identity) { return giveUp(ENODEV, "after a reset the controller offers less than before") }
            identity = found
            ask(.identifyLimits)
        case .identifyLimits:
            unsafe identity.learnLimits(page.pointer, smallestPage: capabilities.smallestPage)
            ask(.identifyNamespace)
        case .identifyNamespace:
            guard takeNamespace() else { return }
            if identity.hasVolatileCache { return ask(.volatileCache) }
            learn(cacheIsOn: false)
        case .reviewNamespace: if takeNamespace() { begin() }
        case .volatileCache: learn(cacheIsOn: completion.result & 1 == 1)
        case .events: ask(.queueCount)
        case .queueCount:
            queueLimit = min(Self.mostQueues, Int(completion.result & 0xFFFF) + 1, Int(completion.result >> 16) + 1, doorbellsWithinReach)
            guard identity.hasDoorbellBuffers, prepareShadows() else { return askForQueues() }
            ask(.doorbellBuffers)
        case .doorbellBuffers:
            if let shadows { for ring in rings { ring.useShadows(doorbells: shadows.doorbells, events: shadows.events) } }
            usesShadows = true
            askForQueues()
        case .completionQueue(let number): ask(.submissionQueue(number))
        case .submissionQueue(let number):
            rings[number - 1].isMade = true
            queuesMade = max(queuesMade, number)
            askForQueues()
        case .deleteSubmissionQueue(let number): ask(.deleteCompletionQueue(number))
        case .deleteCompletionQueue(let number):
            if usesShadows, let shadows { rings[number - 1].useShadows(doorbells: shadows.doorbells, events: shadows.events) }
            askForQueues()
        }
    }

    /// Who was told that there is no cache does not flush.
    private func learn(cacheIsOn: Bool) {
        if wasReady, cacheIsOn, !hasVolatileCache { return giveUp(ENODEV, "after a reset the device has a volatile cache that it did not have before") }
        hasVolatileCache = cacheIsOn
        ask(.events)
    }

    /// Judges what the controller says of the namespace. False: it is of no use any more.
    private func takeNamespace() -> Bool {
        let (found, reason) = unsafe NVMeNamespace.judge(page.pointer, controller: identity)
        var problem = found == nil ? reason : nil
        if let found, wasReady {
            if found.blocks < namespace.blocks || found.blockSize != namespace.blockSize {
                problem = "namespace 1 has changed its size or format under the file system"
            } else if found.atomicUnit < namespace.atomicUnit {
                problem = "namespace 1 tears writes that it did not tear before"
            } else if found.isWriteProtected && !namespace.isWriteProtected {
                note("namespace 1 has become write-protected")
            }
        }
        guard let found, problem == nil else {
            giveUp(ENODEV, problem ?? reason)
            return false
        }
        namespace = found
        return true
    }

    /// Queues whose doorbells lie in the registers that are mapped.
    private var doorbellsWithinReach: Int { (transport.registerBytes - NVMeRegister.doorbells) / (2 * capabilities.doorbellStride) - 1 }

    private func prepareShadows() -> Bool {
        // Far apart as its doorbells may be, all of them have to be in one page.
        guard capabilities.completionDoorbell(queueLimit) + 4 - NVMeRegister.doorbells <= blockSize else { return false }
        if shadows == nil, let doorbells = try? transport.allocate(bytes: blockSize), let events = try? transport.allocate(bytes: blockSize) {
            shadows = (doorbells, events)
        }
        guard let shadows else { return false }
        unsafe shadows.doorbells.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: blockSize)
        unsafe shadows.events.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: blockSize)
        return true
    }

    private func askForQueues() {
        if let ring = rings.first(where: { !$0.isMade }) { return ask(.completionQueue(ring.number)) }
        begin()
    }

    /// Requests are taken, from now on or again.
    private func begin() {
        phase = .ready
        lastLook = transport.now
        if underWay.event == 0 && underWay.log == 0 { askForEvents() }
        wasReady = true
        for place in queues { place.queue?.send() }
    }

    // MARK: Queues

    /// A ring for one more queue, made by the controller before this returns; nobody has it before it is given away.
    func takeRing(entries: Int) throws(DeviceError) -> NVMeRing {
        func refuse(_ errno: Int32, _ message: String) -> DeviceError { DeviceError(device: transport.name, errno: errno, message: message) }
        guard phase == .ready else { throw refuse(EIO, "the controller is not ready") }
        let entries = min(max(entries, 2), capabilities.maximumEntries)
        if let index = queues.indices.first(where: { queues[$0].queue == nil && rings[$0].entries >= entries }) {
            return rings[index]
        }
        let ring: NVMeRing
        if rings.count < queueLimit {
            ring = try NVMeRing(number: rings.count + 1, entries: entries, transport: transport, capabilities: capabilities)
            if usesShadows, let shadows { ring.useShadows(doorbells: shadows.doorbells, events: shadows.events) }
            rings.append(ring)
            queues.append(QueuePlace())
            ask(.completionQueue(ring.number))
        } else if let index = queues.firstIndex(where: { $0.queue == nil }) {
            // Its last user asked for less.
            ring = try NVMeRing(number: index + 1, entries: entries, transport: transport, capabilities: capabilities)
            rings[index] = ring
            ask(.deleteSubmissionQueue(ring.number))
        } else {
            throw refuse(EBUSY, "the controller has \(queueLimit) queues and all are in use")
        }
        settle()
        if case .givenUp(let errno) = phase { throw refuse(errno, failure) }
        guard ring.isMade else { throw refuse(EBUSY, "the controller makes no more than \(queueLimit) queues: \(failure)") }
        return ring
    }

    /// The controller has granted a queue that it does not make: the others are as good as before.
    private func forgetQueue(_ number: Int, _ reason: String) {
        failure = "it refuses one with \(reason)"
        queueLimit = number - 1
        rings.removeLast()
        queues.removeLast()
        begin()
    }

    func give(_ ring: NVMeRing, to queue: NVMeQueue) { queues[ring.number - 1].queue = queue }
    func giveRingBack(_ ring: NVMeRing) { queues[ring.number - 1].queue = nil }

    // MARK: Trouble

    func note(_ text: String) {
        func append(to list: inout [String]) {
            if list.count == 100 { list.removeFirst() }
            list.append(text)
        }
        append(to: &notes)
        append(to: &newNotes)
    }

    func takeNotes() -> [String] {
        defer { newNotes.removeAll() }
        return newNotes
    }

    /// The controller is stopped and started again; what was under way is sent once more.
    func reset(_ reason: String) {
        note("\(reason): the controller is reset")
        resets += 1
        resetsSinceReady += 1
        guard resetsSinceReady <= Self.resetsInARow else { return giveUp(EIO, "\(reason), and resets do not help") }
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
        aborting = nil
        if status().isGone { return end(errno) }
        // It is stopped first: memory of requests that have been answered belongs to somebody else.
        transport.store32(NVMeRegister.configuration, 0)
        phase = .quitting(errno, deadline: transport.now &+ capabilities.timeout)
    }

    private func end(_ errno: Int32) {
        phase = .givenUp(errno)
        for place in queues { place.queue?.failAll(errno) }
    }

    /// A command has not been answered in time.
    /// - Returns: false where an abort cannot be sent now.
    func abort(queue: Int, identifier: UInt16) -> Bool {
        guard phase == .ready, aborting == nil, admin.room > 0 else { return false }
        var command = NVMeCommand(NVMeOpcode.abort)
        command.word10 = UInt32(identifier) << 16 | UInt32(queue)
        underWay.abort = send(&command)
        aborting = (queue, identifier, transport.now &+ options.commandTimeout / 2)
        return true
    }

    /// Requests are answered again.
    func succeeded() { resetsSinceReady = 0 }

    // MARK: Events

    private func askForEvents() {
        guard admin.room > 0 else { return }
        var command = NVMeCommand(NVMeOpcode.asyncEvent)
        underWay.event = send(&command)
    }

    private func takeAdminCompletions() {
        // A controller that answers without end is heard a little at a time.
        var heard = 0
        while isListening, heard < admin.entries, let completion = admin.nextCompletion() {
            heard += 1
            switch completion.identifier {
            case 0: note("the controller answers a command that was not sent")
            case underWay.step:
                underWay.step = 0
                if case .asking(let step, _) = phase { answered(step, completion) }
            case underWay.event:
                underWay.event = 0
                if completion.status == NVMeCompletion.success { event(completion.result) }
            case underWay.abort: (underWay.abort, aborting) = (0, nil)
            case underWay.log:
                underWay.log = 0
                logIsRead(completion)
            case underWay.query: (underWay.query, queryStatus) = (0, completion.status)
            default: note("the controller answers a command that was not sent")
            }
        }
        if isListening { admin.giveBack() }
    }

    /// A controller that is being stopped or started says nothing that counts, and hears no doorbell.
    private var isListening: Bool {
        switch phase {
        case .asking, .ready: true
        case .disabling, .enabling, .quitting, .givenUp: false
        }
    }

    /// An asynchronous event (base specification, "Asynchronous Event Request command"): its log page is read, which lets the next one come.
    private func event(_ result: UInt32) {
        let (kind, information, log) = (result & 7, (result >> 8) & 0xFF, (result >> 16) & 0xFF)
        switch (kind, information) {
        case (0, _): note("the controller reports an error of its own (\(information))")
        // Which, its log page says.
        case (1, _): break
        case (2, 0):
            note("the controller reports that its namespaces have changed")
            namespaceIsInDoubt = true
        case (2, _): note("the controller reports a change (\(information))")
        default: note("the controller reports an event of kind \(kind) (\(information))")
        }
        guard admin.room > 0 else { return }
        var command = NVMeCommand.log(log, bytes: NVMeHealth.bytes, to: page.address)
        underWay.log = send(&command)
        logPage = log
    }

    private func logIsRead(_ completion: NVMeCompletion) {
        if logPage == NVMeLog.health {
            let health = unsafe NVMeHealth(page.pointer)
            let says = completion.status != NVMeCompletion.success ? completion.statusText : health.warnings.isEmpty ? health.summary : health.warnings.joined(separator: ", ")
            note("the device reports on its health: \(says)")
        }
        askForEvents()
        if namespaceIsInDoubt, phase == .ready {
            namespaceIsInDoubt = false
            ask(.reviewNamespace)
        }
    }

    /// Reads a log page (base specification, "Get Log Page command") of `bytes`, at most a page of memory. Waits for it.
    func readLog(_ identifier: UInt32, bytes: Int) throws(DeviceError) -> [UInt8] {
        func refuse(_ message: String) -> DeviceError { DeviceError(device: transport.name, errno: EIO, message: message) }
        settle()
        guard phase == .ready, admin.room > 0 else { throw refuse("the controller does not answer") }
        if queryPage == nil { queryPage = try transport.allocate(bytes: blockSize) }
        guard let queryPage else { throw refuse("no memory for a log page") }
        unsafe queryPage.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: blockSize)
        var command = NVMeCommand.log(identifier, bytes: bytes, to: queryPage.address)
        queryStatus = nil
        underWay.query = send(&command)
        let deadline = transport.now &+ options.commandTimeout
        while queryStatus == nil {
            guard underWay.query != 0, transport.now < deadline else { throw refuse("log page \(identifier) is not answered") }
            transport.pause()
            tend()
        }
        guard queryStatus == NVMeCompletion.success else { throw refuse("the controller has no log page \(identifier)") }
        return unsafe Array(UnsafeRawBufferPointer(start: queryPage.pointer, count: bytes))
    }

    // MARK: The end

    /// An orderly shutdown: what the controller holds is durable afterwards. Waits for it as long as the controller says that it may take.
    package func close() {
        // One that is being reset comes to its end first, good or bad: what it has cached is to become durable.
        settle()
        if phase == .ready {
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
