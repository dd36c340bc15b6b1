/// An NVMe controller in memory, for tests of the driver: it does what the driver asks, and holds every move against the specification.
///
/// Invariants:
/// - deterministic: configuration, faults, seed and the driver's moves determine everything. Time moves by `pause`, by `elapse`, and by a small step
///   at each look at it; what is due is done then, at doorbells, and at looks at the status;
/// - `violations` lists what a correct driver never does (NVM Express base specification 2.0, NVM command set 1.0); what was wrong is then left undone
///   or answered with an error, so that a test goes on;
/// - it reaches memory that it was given (`allocate`, `map`) and no other: addresses of the device's are no addresses of the process's;
/// - data moves when a command ends, not when it is fetched.
/// One thread. Registers and time are here, queues and doorbells in `FakeController+Queues`, commands in `FakeController+Admin` and `+Requests`.
import BlockDevice
import CSystem
import Glibc

@safe package final class FakeController: NVMeTransport {
    package let name = "nvme:fake"
    package var registerBytes: Int { configuration.registerBytes }
    package var configuration: FakeConfiguration
    package let medium: FakeMedium
    package internal(set) var violations: [String] = []
    /// What the driver did, for tests that count.
    package internal(set) var doorbellStores = 0
    package internal(set) var starts = 0
    package internal(set) var functionResets = 0
    package internal(set) var commandsFetched: [UInt8: Int] = [:]
    package internal(set) var discardedBlocks: UInt64 = 0
    package private(set) var maps = 0
    package private(set) var unmaps = 0
    /// Pages of the driver's own.
    package private(set) var allocatedPages = 0
    package internal(set) var adminFetched: [UInt8: Int] = [:]
    package private(set) var isClosed = false
    package private(set) var shutdownsAsked = 0
    /// The close came after the shutdown had come to its end.
    package private(set) var wasShutDownAtClose = false
    package private(set) var isGone = false
    /// Done once, at the next reset: a controller that is another one afterwards.
    package var changeAtReset: ((inout FakeConfiguration) -> Void)?

    var random: SeededRandom
    package internal(set) var clock: UInt64 = 1_000_000_000
    private var faults: [ArmedFakeFault] = []

    // Registers.
    private var control: UInt32 = 0
    private var adminAttributes: UInt32 = 0
    private var adminSubmissions: UInt64 = 0
    private var adminCompletions: UInt64 = 0
    private(set) var isReady = false
    var isFatal = false
    private(set) var shutdown: (asked: Bool, doneAt: UInt64) = (false, 0)
    /// When a start or a stop that is under way shows.
    private var changesAt: UInt64?
    var isEnabled: Bool { control & 1 == 1 }

    // Queues, by number; 0 is the admin queue.
    var submissionQueues: [Int: FakeSubmissionQueue] = [:]
    var completionQueues: [Int: FakeCompletionQueue] = [:]
    var pending: [FakePending] = []
    /// A tail has moved since the last fetch.
    var hasUnfetched = false
    /// Of commands that were carried out and will not be answered: queue and identifier.
    var unanswered: Set<UInt32> = []
    var eventRequests: [UInt16] = []
    var eventsToTell: [UInt32] = []
    /// Kinds that were told and whose log page has not been read.
    var maskedEvents: Set<UInt32> = []
    var grantedQueues: (submission: Int, completion: Int)?
    var shadows: (doorbells: UInt64, events: UInt64)?
    /// What the driver has been told since the last reset: it is held against that.
    var toldBlocks: UInt64 = 0
    var toldTransfer = Int.max
    package var namespaceBlocks: UInt64

    // Interrupt.
    package let interruptDescriptor: Int32
    private let interruptSource: Int32
    private var isArmed = false
    private var isPendingInterrupt = false

    // Memory.
    @safe private struct Region {
        let address: UInt64
        let pages: Int
        let pointer: UnsafeMutableRawPointer
        let isOwned: Bool
    }
    private var regions: [Region] = []
    private var nextAddress: UInt64 = 0x40_0000_0000
    static let page = 4096

    package init(_ medium: FakeMedium, seed: UInt64, configuration: FakeConfiguration = FakeConfiguration()) {
        self.medium = medium
        self.configuration = configuration
        random = SeededRandom(seed: seed)
        namespaceBlocks = configuration.namespaceBlocks ?? UInt64(medium.bytes / configuration.blockSize)
        var pipes: [Int32] = [-1, -1]
        if configuration.hasInterrupt { precondition(unsafe pipe(&pipes) == 0 && fcntl(pipes[0], F_SETFL, O_NONBLOCK) == 0, "no pipe") }
        (interruptDescriptor, interruptSource) = (pipes[0], pipes[1])
    }

    /// A medium of zeros.
    package convenience init(blocks: Int = 256, seed: UInt64 = 1, _ configure: (inout FakeConfiguration) -> Void = { _ in }) throws {
        var configuration = FakeConfiguration()
        configure(&configuration)
        self.init(FakeMedium(try MemoryDevice(size: UInt64(blocks * blockSize)), tracksPowerCuts: false), seed: seed, configuration: configuration)
    }

    deinit {
        for region in regions where region.isOwned { unsafe region.pointer.deallocate() }
        for descriptor in [interruptDescriptor, interruptSource] where descriptor >= 0 { Glibc.close(descriptor) }
    }

    package func plan(_ fault: FakeFault) { faults.append(ArmedFakeFault(fault)) }
    package func clearFaults() { faults.removeAll() }

    func strike(_ target: FakeFault.Target) -> FakeFault.Kind? {
        var struck: FakeFault.Kind?
        for index in faults.indices where faults[index].strikes(target) { struck = struck ?? faults[index].fault.kind }
        return struck
    }

    package func violate(_ text: String) {
        if violations.count < 20 { violations.append(text) }
    }

    package func remove() { isGone = true }
    package func failFatally() { isFatal = true }

    // MARK: Registers

    package func load32(_ register: Int) -> UInt32 {
        if isClosed { violate("register 0x\(String(register, radix: 16)) is read after the end") }
        if isGone { return NVMeRegister.gone }
        work()
        let capabilities = UInt64(configuration.maximumEntries - 1) | 1 << 16 | configuration.timeoutUnits << 24 | UInt64(configuration.strideShift) << 32
            | (configuration.readyUnits > 0 ? 1 << 59 : 0) | (configuration.hasNVMCommandSet ? 1 << 37 : 0) | UInt64(configuration.pageShift) << 48 | UInt64(configuration.pageShift) << 52
        switch register {
        case NVMeRegister.capabilities: return UInt32(truncatingIfNeeded: capabilities)
        case NVMeRegister.capabilities + 4: return UInt32(truncatingIfNeeded: capabilities >> 32)
        case NVMeRegister.version: return 0x2_0000
        case NVMeRegister.readyTimeouts where configuration.readyUnits > 0: return configuration.readyUnits
        case NVMeRegister.configuration: return control
        case NVMeRegister.status:
            let done: UInt32 = shutdown.asked ? (clock >= shutdown.doneAt ? 2 : 1) : 0
            return (isReady ? 1 : 0) | (isFatal ? 2 : 0) | done << 2
        case NVMeRegister.adminQueueAttributes: return adminAttributes
        default:
            violate("register 0x\(String(register, radix: 16)) is read")
            return 0
        }
    }

    package func store32(_ register: Int, _ value: UInt32) {
        if isClosed { violate("register 0x\(String(register, radix: 16)) is written after the end") }
        if isGone { return }
        work()
        func half(_ old: UInt64, high: Bool) -> UInt64 { high ? old & 0xFFFF_FFFF | UInt64(value) << 32 : old & ~0xFFFF_FFFF | UInt64(value) }
        switch register {
        case NVMeRegister.configuration: configure(value)
        case NVMeRegister.adminQueueAttributes, 0x28, 0x2C, 0x30, 0x34:
            if isEnabled || isReady { violate("an admin queue register is written while the controller is enabled") }
            switch register {
            case 0x28, 0x2C: adminSubmissions = half(adminSubmissions, high: register == 0x2C)
            case 0x30, 0x34: adminCompletions = half(adminCompletions, high: register == 0x34)
            default: adminAttributes = value
            }
        case NVMeRegister.doorbells...: ringDoorbell(register, value)
        default: violate("register 0x\(String(register, radix: 16)) is written, which cannot be")
        }
        work()
    }

    private func configure(_ value: UInt32) {
        let (was, enable) = (isEnabled, value & 1 == 1)
        let asked = value & NVMeConfiguration.shutdownMask
        if was && enable && (value ^ control) & 0x00FF_3FF0 != 0 { violate("CC is changed from \(control) to \(value) while the controller is enabled") }
        control = value
        if enable && !was { start() }
        if was && !enable { stop() }
        if asked != 0 && !shutdown.asked {
            shutdownsAsked += 1
            if !enable { violate("a shutdown is asked for while the controller is not enabled") }
            shutdown = (true, clock + configuration.shutdownDelay)
            medium.flush()
        }
    }

    private func start() {
        starts += 1
        if isReady { violate("the controller is enabled before it has stopped") }
        let (submissions, completions) = (Int(adminAttributes & 0xFFF) + 1, Int(adminAttributes >> 16 & 0xFFF) + 1)
        if control >> 16 & 0xF != 6 || control >> 20 & 0xF != 4 { violate("the controller is enabled with entry sizes \(control >> 16 & 0xF), \(control >> 20 & 0xF)") }
        if control >> 7 & 0xF != 0 || control >> 4 & 7 != 0 || control >> 11 & 7 != 0 { violate("the controller is enabled with CC \(control)") }
        if submissions < 2 || completions < 2 { violate("the admin queues have fewer than two entries") }
        submissionQueues = [0: FakeSubmissionQueue(address: adminSubmissions, entries: submissions, completions: 0)]
        completionQueues = [0: FakeCompletionQueue(address: adminCompletions, entries: completions, interrupts: true)]
        checkQueueMemory(adminSubmissions, submissions * NVMeCommand.size, "admin submission queue")
        checkCompletionQueue(0)
        shutdown = (false, 0)
        if configuration.deafStarts > 0 {
            configuration.deafStarts -= 1
            changesAt = .max
        } else {
            changesAt = clock + configuration.startDelay
        }
    }

    private func stop() {
        if configuration.deafStops > 0 {
            configuration.deafStops -= 1
            changesAt = .max
        } else {
            changesAt = isReady || changesAt != nil || isFatal ? clock + configuration.stopDelay : clock
        }
        // What it has said is void; what it is doing comes to an end, or does not, before CSTS.RDY goes.
        eventRequests = []
    }

    /// The controller says that it has stopped: nothing moves from here on.
    private func stopped() {
        for command in pending where command.queue > 0 && command.error == nil { abandon(command) }
        pending = []
        unanswered = []
        (eventRequests, eventsToTell, maskedEvents) = ([], [], [])
        (submissionQueues, completionQueues) = ([:], [:])
        (grantedQueues, shadows) = (nil, nil)
        (toldBlocks, toldTransfer) = (0, .max)
        (isReady, isFatal) = (false, false)
        if let change = changeAtReset {
            changeAtReset = nil
            change(&configuration)
            namespaceBlocks = configuration.namespaceBlocks ?? UInt64(medium.bytes / configuration.blockSize)
        }
    }

    // MARK: Time

    package var now: UInt64 {
        clock += configuration.lookStep
        work()
        return clock
    }

    package func pause() { elapse(1_000_000) }

    package func elapse(_ nanoseconds: UInt64) {
        clock += nanoseconds
        work()
    }

    /// Does what is due.
    package func work() {
        guard !isGone, !isClosed else { return }
        if let at = changesAt, clock >= at {
            changesAt = nil
            if isEnabled { isReady = true } else { stopped() }
        }
        guard isReady, isEnabled, !isFatal else { return }
        if hasUnfetched || shadows != nil && !pending.isEmpty { fetch() }
        if pending.contains(where: { $0.due <= clock }) { complete() }
    }

    package func resetFunction() -> Bool {
        functionResets += 1
        guard configuration.canResetFunction, !isGone else { return false }
        stopped()
        (control, changesAt, shutdown) = (0, nil, (false, 0))
        return true
    }

    package func close() {
        if isClosed { violate("the device is given up twice") }
        wasShutDownAtClose = shutdown.asked && clock >= shutdown.doneAt
        isClosed = true
    }

    // MARK: Interrupt

    package func armInterrupt() {
        isArmed = true
        if isPendingInterrupt { raise() }
    }

    package func disarmInterrupt() {
        isArmed = false
        var bytes = [UInt8](repeating: 0, count: 64)
        if interruptDescriptor >= 0 { while unsafe read(interruptDescriptor, &bytes, 64) > 0 {} }
    }

    func interrupt() {
        isPendingInterrupt = true
        if isArmed { raise() }
    }

    private func raise() {
        isPendingInterrupt = false
        var one: UInt8 = 1
        if interruptSource >= 0 { _ = unsafe write(interruptSource, &one, 1) }
    }

    // MARK: Memory

    package func allocate(bytes: Int) throws(DeviceError) -> DMAMemory {
        let pages = (bytes + Self.page - 1) / Self.page
        guard pages > 0, let pointer = unsafe aligned_alloc(Self.page, pages * Self.page) else {
            throw DeviceError(device: name, errno: ENOMEM, message: "no memory for \(bytes) bytes")
        }
        unsafe memset(pointer, 0, pages * Self.page)
        allocatedPages += pages
        let address = unsafe add(pointer, pages: pages, isOwned: true)
        return unsafe DMAMemory(pointer: pointer, bytes: pages * Self.page, address: address)
    }

    package func map(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) -> UInt64? {
        if !configuration.mapsMemory { return nil }
        guard let base = memory.baseAddress, UInt(bitPattern: base) % UInt(Self.page) == 0, memory.count % Self.page == 0, memory.count > 0 else {
            violate("memory that is not whole pages is mapped")
            throw DeviceError(device: name, errno: EINVAL, message: "memory for the device must be whole pages")
        }
        maps += 1
        return unsafe add(base, pages: memory.count / Self.page, isOwned: false)
    }

    package func unmap(_ memory: DMAMemory) {
        guard let index = regions.firstIndex(where: { $0.address == memory.address && !$0.isOwned }) else { return violate("memory is unmapped that was not mapped") }
        let range = memory.address..<memory.address + UInt64(memory.bytes)
        if pending.contains(where: { $0.pages.contains { range.contains($0) } }) { violate("memory is unmapped under a request") }
        regions.remove(at: index)
        unmaps += 1
    }

    private func add(_ pointer: UnsafeMutableRawPointer, pages: Int, isOwned: Bool) -> UInt64 {
        let address = nextAddress
        // A hole after each: what runs over an end is outside.
        nextAddress += UInt64((pages + 1) * Self.page)
        unsafe regions.append(Region(address: address, pages: pages, pointer: pointer, isOwned: isOwned))
        return address
    }

    /// Memory of the driver's by the device's address; nil where it was not given.
    func host(_ address: UInt64, _ count: Int) -> UnsafeMutableRawPointer? {
        var (low, high) = (0, regions.count)
        while low < high {
            let middle = (low + high) / 2
            if regions[middle].address <= address { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let region = regions[low - 1]
        let offset = address - region.address
        guard offset <= UInt64(region.pages * Self.page), count <= region.pages * Self.page - Int(offset) else { return nil }
        return unsafe region.pointer + Int(offset)
    }

    func load(_ address: UInt64) -> UInt64 {
        guard let memory = unsafe host(address, 8) else { return 0 }
        return UInt64(littleEndian: unsafe memory.loadUnaligned(as: UInt64.self))
    }
}
