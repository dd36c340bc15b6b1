import BlockDevice
import Glibc

extension FakeController {
    private enum Answer {
        static let invalidField: UInt16 = 0x02
        static let invalidNamespace: UInt16 = 0x0B
        static let invalidOpcode: UInt16 = 0x01
        static let aborted: UInt16 = 0x07
        static let queueDeleted: UInt16 = 0x08
        /// Command specific.
        static let invalidQueue: UInt16 = 0x101
        static let tooManyEvents: UInt16 = 0x105
    }

    // MARK: Events

    func takeEventRequest(_ command: NVMeCommand) {
        if eventRequests.count > configuration.eventLimit {
            violate("more than \(configuration.eventLimit + 1) requests for events")
            return post(0, command.identifier, Answer.tooManyEvents, 0)
        }
        eventRequests.append(command.identifier)
        tellEvents()
    }

    package func tell(kind: UInt8, information: UInt8, log: UInt8) {
        eventsToTell.append(UInt32(kind) | UInt32(information) << 8 | UInt32(log) << 16)
        tellEvents()
    }

    private func tellEvents() {
        while let index = eventsToTell.firstIndex(where: { !maskedEvents.contains($0 & 7) }), !eventRequests.isEmpty {
            let event = eventsToTell.remove(at: index)
            maskedEvents.insert(event & 7)
            post(0, eventRequests.removeFirst(), 0, event)
        }
    }

    // MARK: Commands

    /// - Returns: status and result; nil: no answer.
    func administer(_ pending: FakePending) -> (UInt16, UInt32)? {
        let command = pending.command
        switch command.opcode {
        case NVMeOpcode.identify: return identify(command)
        case NVMeOpcode.getFeatures:
            guard command.word10 & 0xFF == 6, configuration.hasVolatileCache else { return (Answer.invalidField, 0) }
            return (0, configuration.cacheIsOn ? 1 : 0)
        case NVMeOpcode.setFeatures: return setFeature(command)
        case NVMeOpcode.getLogPage: return getLog(command)
        case NVMeOpcode.createCompletionQueue: return createCompletionQueue(command)
        case NVMeOpcode.createSubmissionQueue: return createSubmissionQueue(command)
        case NVMeOpcode.deleteSubmissionQueue:
            let number = Int(command.word10 & 0xFFFF)
            guard number > 0, submissionQueues[number] != nil else { return refuse("submission queue \(number) is deleted, and there is none", Answer.invalidQueue) }
            for other in self.pending where other.queue == number { answer(other, Answer.queueDeleted) }
            self.pending.removeAll { $0.queue == number }
            unanswered = unanswered.filter { $0 >> 16 != UInt32(number) }
            submissionQueues[number] = nil
            return (0, 0)
        case NVMeOpcode.deleteCompletionQueue:
            let number = Int(command.word10 & 0xFFFF)
            guard number > 0, completionQueues[number] != nil else { return refuse("completion queue \(number) is deleted, and there is none", Answer.invalidQueue) }
            guard !submissionQueues.values.contains(where: { $0.completions == number }) else {
                return refuse("completion queue \(number) is deleted before its submission queue", 0x10C)
            }
            completionQueues[number] = nil
            return (0, 0)
        case NVMeOpcode.abort: return abort(command)
        case NVMeOpcode.doorbellBuffers:
            guard configuration.hasDoorbellBuffers else { return refuse("doorbell buffers are not offered", Answer.invalidOpcode) }
            for address in [command.first, command.second] { checkQueueMemory(address, Self.page, "page of doorbells") }
            shadows = (command.first, command.second)
            return (0, 0)
        default: return refuse("an admin command that a driver has no use for: \(command)", Answer.invalidOpcode)
        }
    }

    private func refuse(_ text: String, _ status: UInt16) -> (UInt16, UInt32) {
        violate(text)
        return (status, 0)
    }

    private func abort(_ command: NVMeCommand) -> (UInt16, UInt32)? {
        let (queue, identifier) = (Int(command.word10 & 0xFFFF), UInt16(command.word10 >> 16))
        if submissionQueues[queue] == nil { violate("an abort in queue \(queue), which there is not") }
        guard let index = pending.firstIndex(where: { $0.queue == queue && $0.command.identifier == identifier && !$0.isEcho }) else { return (0, 1) }
        if case .stuck(let abort) = pending[index].fault, abort != .works {
            if abort == .answered { return (0, 1) }
            unanswered.insert(UInt32(command.identifier))
            return nil
        }
        // It may have been all that kept its queue awake: once more before it goes to sleep.
        lookAtShadowTail(queue)
        hasUnfetched = true
        let aborted = pending.remove(at: index)
        abandon(aborted, mayBeWhole: false)
        answer(aborted, Answer.aborted)
        return (0, 0)
    }

    private func setFeature(_ command: NVMeCommand) -> (UInt16, UInt32) {
        switch command.word10 & 0xFF {
        case 6:
            guard configuration.hasVolatileCache else { return (Answer.invalidField, 0) }
            configuration.cacheIsOn = command.word11 & 1 == 1
            return (0, 0)
        case 11:
            if command.word11 & ~0x1FF != 0 { violate("notices are asked for that nobody takes: \(command.word11)") }
            return (0, 0)
        case 7:
            if submissionQueues.count > 1 || completionQueues.count > 1 { return refuse("the number of queues is set when there are queues", 0x0C) }
            let (submission, completion) = (Int(command.word11 & 0xFFFF), Int(command.word11 >> 16))
            if submission == 0xFFFF || completion == 0xFFFF { return refuse("65536 queues are asked for", Answer.invalidField) }
            let granted = (submission: min(submission + 1, configuration.queues), completion: min(completion + 1, configuration.queues))
            grantedQueues = granted
            return (0, UInt32(granted.completion - 1) << 16 | UInt32(granted.submission - 1))
        default: return (Answer.invalidField, 0)
        }
    }

    private func getLog(_ command: NVMeCommand) -> (UInt16, UInt32) {
        let bytes = (Int(command.word10 >> 16) + 1) * 4
        guard command.first % UInt64(Self.page) == 0, bytes <= Self.page, let memory = unsafe host(command.first, bytes) else {
            return refuse("a log page of \(bytes) bytes goes to memory that is not the driver's", Answer.invalidField)
        }
        unsafe FakeIdentity.log(command.word10 & 0xFF, configuration.health, at: memory, bytes: bytes)
        // Which kind of event the page belongs to.
        let kinds: [UInt32: UInt32] = [1: 0, 2: 1, 4: 2]
        if let kind = kinds[command.word10 & 0xFF], command.word10 >> 15 & 1 == 0 { maskedEvents.remove(kind) }
        tellEvents()
        return (0, 0)
    }

    // MARK: Queues

    private func createCompletionQueue(_ command: NVMeCommand) -> (UInt16, UInt32) {
        let (number, entries) = (Int(command.word10 & 0xFFFF), Int(command.word10 >> 16) + 1)
        guard let grantedQueues, number > 0, number <= grantedQueues.completion, completionQueues[number] == nil else {
            return refuse("completion queue \(number) is created: it is there, or was not granted", Answer.invalidQueue)
        }
        if entries < 2 || entries > configuration.maximumEntries { return refuse("completion queue \(number) has \(entries) entries", 0x102) }
        if command.word11 & 1 != 1 { violate("completion queue \(number) is not one piece of memory") }
        let interrupts = command.word11 & 2 != 0
        if interrupts && interruptDescriptor < 0 || command.word11 >> 16 != 0 { violate("completion queue \(number) has an interrupt that there is not") }
        completionQueues[number] = FakeCompletionQueue(address: command.first, entries: entries, interrupts: interrupts)
        checkCompletionQueue(number)
        return (0, 0)
    }

    private func createSubmissionQueue(_ command: NVMeCommand) -> (UInt16, UInt32) {
        let (number, entries) = (Int(command.word10 & 0xFFFF), Int(command.word10 >> 16) + 1)
        guard let grantedQueues, number > 0, number <= grantedQueues.submission, submissionQueues[number] == nil else {
            return refuse("submission queue \(number) is created: it is there, or was not granted", Answer.invalidQueue)
        }
        if entries < 2 || entries > configuration.maximumEntries { return refuse("submission queue \(number) has \(entries) entries", 0x102) }
        if command.word11 & 1 != 1 { violate("submission queue \(number) is not one piece of memory") }
        let completions = Int(command.word11 >> 16)
        guard completions > 0, completionQueues[completions] != nil else { return refuse("submission queue \(number) has no completion queue", 0x100) }
        checkQueueMemory(command.first, entries * NVMeCommand.size, "submission queue \(number)")
        submissionQueues[number] = FakeSubmissionQueue(address: command.first, entries: entries, completions: completions)
        return (0, 0)
    }

    // MARK: Identify

    private func identify(_ command: NVMeCommand) -> (UInt16, UInt32) {
        guard command.first % UInt64(Self.page) == 0, let memory = unsafe host(command.first, Self.page) else {
            return refuse("identify data go to memory that is not the driver's", Answer.invalidField)
        }
        unsafe memset(memory, 0, Self.page)
        switch command.word10 & 0xFF {
        case 1:
            unsafe FakeIdentity.controller(configuration, at: memory)
            toldTransfer = configuration.transferShift == 0 ? .max : Self.page << (configuration.pageShift + Int(configuration.transferShift))
        case 0:
            guard command.namespace == 1 else { return (Answer.invalidNamespace, 0) }
            unsafe FakeIdentity.namespace(configuration, blocks: namespaceBlocks, at: memory)
            toldBlocks = namespaceBlocks
        case 6:
            guard let limits = configuration.limits else { return (Answer.invalidField, 0) }
            unsafe memory.storeBytes(of: limits.zeroesShift, toByteOffset: 1, as: UInt8.self)
            unsafe memory.storeBytes(of: limits.deallocateBlocks.littleEndian, toByteOffset: 4, as: UInt32.self)
        default: return (Answer.invalidField, 0)
        }
        return (0, 0)
    }
}

/// Identify data structures (base specification, "Identify Controller"; NVM command set specification, "Identify Namespace"): 4096 zeroed bytes each.
package enum FakeIdentity {
    private static func put<T: FixedWidthInteger>(_ value: T, _ offset: Int, _ memory: UnsafeMutableRawPointer) {
        unsafe memory.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    private static func put(_ text: String, _ offset: Int, _ count: Int, _ memory: UnsafeMutableRawPointer) {
        let bytes = Array(text.utf8.prefix(count))
        for place in 0..<count { unsafe put(place < bytes.count ? bytes[place] : 0x20, offset + place, memory) }
    }

    package static func controller(_ configuration: FakeConfiguration, at memory: UnsafeMutableRawPointer) {
        unsafe put(configuration.serial, 4, 20, memory)
        unsafe put(configuration.model, 24, 40, memory)
        unsafe put(configuration.firmware, 64, 8, memory)
        unsafe put(configuration.transferShift, 77, memory)
        unsafe put(UInt16(1), 78, memory)
        unsafe put(UInt32(0x2_0000), 80, memory)
        unsafe put(UInt32(1 << 8), 92, memory)
        unsafe put(configuration.retryUnits, 128, memory)
        unsafe put(configuration.shutdownMicroseconds, 88, memory)
        unsafe put(UInt16(configuration.hasDoorbellBuffers ? 1 << 8 : 0), 256, memory)
        // Abort limit, event limit.
        unsafe put(UInt8(3), 258, memory)
        unsafe put(UInt8(configuration.eventLimit), 259, memory)
        unsafe put(UInt16(343), 266, memory)
        unsafe put(configuration.submissionEntrySizes, 512, memory)
        unsafe put(configuration.completionEntrySizes, 513, memory)
        unsafe put(UInt32(1), 516, memory)
        unsafe put(UInt16((configuration.hasDeallocate ? 1 << 2 : 0) | (configuration.hasWriteZeroes ? 1 << 3 : 0)), 520, memory)
        unsafe put(UInt8(configuration.hasVolatileCache ? 1 : 0), 525, memory)
        unsafe put(UInt16(configuration.atomicBlocks - 1), 526, memory)
        unsafe put(UInt16(configuration.atomicBlocks - 1), 528, memory)
    }

    /// The first bytes of a log page.
    package static func log(_ identifier: UInt32, _ health: FakeHealth, at memory: UnsafeMutableRawPointer, bytes: Int) {
        unsafe memset(memory, 0, bytes)
        switch identifier {
        case 1:
            for (number, error) in health.errors.enumerated() where (number + 1) * 64 <= bytes {
                unsafe put(error.count, number * 64, memory)
                unsafe put(error.status << 1, number * 64 + 12, memory)
                unsafe put(error.logicalBlock, number * 64 + 16, memory)
            }
        case 2 where bytes >= 512:
            unsafe put(health.warning, 0, memory)
            unsafe put(health.kelvin, 1, memory)
            for (offset, value) in [(3, 100), (4, 10), (5, 7)] as [(Int, UInt8)] { unsafe put(value, offset, memory) }
            for (offset, value) in [(32, 1000), (48, 2000), (112, 5), (128, 50), (144, 3), (160, health.mediaErrors), (176, UInt64(health.errors.count))] as [(Int, UInt64)] {
                unsafe put(value, offset, memory)
            }
        default: unsafe memset(memory, 0x1F, bytes)
        }
    }

    package static func namespace(_ configuration: FakeConfiguration, blocks: UInt64, at memory: UnsafeMutableRawPointer) {
        for offset in [0, 8, 16] { unsafe put(blocks, offset, memory) }
        // The second of two formats, so that who takes the first is found out.
        unsafe put(UInt8(1), 25, memory)
        unsafe put(UInt8(1), 26, memory)
        unsafe put(configuration.protection, 29, memory)
        if let atomic = configuration.namespaceAtomicBlocks {
            unsafe put(UInt8(2), 24, memory)
            unsafe put(UInt16(atomic - 1), 34, memory)
            unsafe put(UInt16(atomic - 1), 36, memory)
            unsafe put(UInt16(configuration.atomicOffset), 42, memory)
            unsafe put(UInt16(max(configuration.atomicBoundary - 1, 0)), 44, memory)
        }
        unsafe put(UInt8(configuration.isWriteProtected ? 1 : 0), 99, memory)
        unsafe put(UInt32(13) << 16 | 8, 128, memory)
        let shift = configuration.blockShift ?? UInt8(configuration.blockSize.trailingZeroBitCount)
        unsafe put(UInt32(shift) << 16 | UInt32(configuration.metadataBytes), 132, memory)
    }
}
