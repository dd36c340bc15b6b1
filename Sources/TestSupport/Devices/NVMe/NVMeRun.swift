/// A short seeded life of the NVMe driver on a fake controller in which things go wrong: random requests at the queue, held against a model.
///
/// What is asked of the driver, whatever the controller does:
/// - every request is answered once, in bounded time, with an errno or with success;
/// - a read that succeeds gives each 512-byte sector what was written there last; after a write that failed, that or what was there before;
/// - a power cut leaves each sector as it was at the last flush that succeeded, or as something written since;
/// - memory of a request that was answered is not touched any more;
/// - faults that a driver can make good are made good: where there are no others, no request fails;
/// - the controller sees no violation of the specification.
import BlockDevice
import Glibc

@safe package final class NVMeRun {
    package struct Result: Sendable {
        /// nil: as it should be.
        package var problem: String?
        package var requests = 0
        package var errors = 0
        package var resets = 0
        package var wasRefused = false
        package var wasCut = false
        package var nanoseconds: UInt64 = 0
        package var faults = ""
    }

    private struct Request {
        var operation: DeviceOperation
        var sectors: Range<Int>
        var serial: UInt32
        var forceUnitAccess: Bool
        /// Where each sector of it is in memory.
        var places: [Int]
        var expectsRefusal = false
        /// Of a flush: what was there, and how often it had changed.
        var before: [[UInt32]] = []
        var changes: [Int] = []
    }

    private static let blocks = 32
    private static let slotPages = 20
    private static let slots = 8
    private static let poison: UInt64 = 0xEEEE_EEEE_EEEE_EEEE

    /// Half of it is registered. Memory for any number of runs, one after the other.
    private let memory = AlignedBytes(count: 2 * slots * slotPages * 4096)
    private var random = SeededRandom(seed: 0)
    private var fake: FakeController
    private var device: SteppedDevice?
    private var queue: (any DeviceQueue)?
    private var requests: [Request?] = []
    private var poisoned: [[Int]] = []
    /// By sector: what it may hold, newest last; empty: anything.
    private var contents: [[UInt32]] = []
    private var durable: [[UInt32]] = []
    private var changes: [Int] = []
    private var serial: UInt32 = 0
    private var mayFail = false
    private var result = Result()
    /// A write in a hundred goes nowhere, and nobody says so: what the model must find.
    package var lies = false
    package var bug: MisbehavingTransport.Bug?

    package init() throws { fake = try FakeController(blocks: 1) }

    package func run(seed: UInt64) throws -> Result {
        random = SeededRandom(seed: seed)
        result = Result()
        (requests, poisoned) = ([Request?](repeating: nil, count: Self.slots), [[Int]](repeating: [], count: Self.slots))
        (contents, durable) = ([[UInt32]](repeating: [0], count: Self.blocks * 8), [[UInt32]](repeating: [0], count: Self.blocks * 8))
        (changes, serial, mayFail) = ([Int](repeating: 0, count: Self.blocks * 8), 0, false)
        let medium = FakeMedium(try MemoryDevice(size: UInt64(Self.blocks * blockSize)), tracksPowerCuts: true)
        fake = FakeController(medium, seed: random.next(), configuration: configuration())
        planFaults()
        var options = NVMeController.Options()
        options.commandTimeout = random.pick([500_000_000, 2_000_000_000, 10_000_000_000])
        do throws(DeviceError) {
            let device = try SteppedDevice(fake, through: bug.map { MisbehavingTransport(fake, $0) }, options: options)
            device.step = UInt64(random.pick([1_000_000, 5_000_000, 20_000_000]))
            self.device = device
            let queue = try device.makeQueue(depth: 1 + random.below(Self.slots))
            self.queue = queue
            if random.chance(0.8) {
                unsafe try queue.register(UnsafeMutableRawBufferPointer(rebasing: memory.buffer[0..<memory.count / 2]))
            }
        } catch {
            if !mayFail { result.problem = "the device is not opened: \(error)" }
            result.wasRefused = true
        }
        if queue != nil { live() }
        finish()
        result.nanoseconds = fake.clock
        result.faults += "notes: \(device?.warnings.suffix(8).joined(separator: " | ") ?? "")"
        if result.problem == nil, let violation = fake.violations.first { result.problem = "violation: \(violation)" }
        (queue, device) = (nil, nil)
        return result
    }

    // MARK: What goes wrong

    private func configuration() -> FakeConfiguration {
        var configuration = FakeConfiguration()
        configuration.blockSize = random.pick([512, 4096])
        configuration.transferShift = UInt8(random.pick([1, 3, 4]))
        configuration.hasVolatileCache = random.chance(0.8)
        configuration.cacheIsOn = random.chance(0.8)
        configuration.hasDoorbellBuffers = random.chance(0.4)
        configuration.maximumEntries = random.pick([2, 4, 9, 64])
        configuration.strideShift = random.pick([0, 0, 1, 2])
        configuration.atomicBlocks = random.pick([1, 8])
        configuration.isShuffled = random.chance(0.6)
        configuration.maximumDelay = random.pick([0, 0, 3_000_000, 40_000_000])
        configuration.canResetFunction = random.chance(0.7)
        configuration.queues = random.pick([1, 2, 8])
        return configuration
    }

    private func planFaults() {
        if lies { fake.plan(FakeFault(.lie, after: random.below(20), forever: true)) }
        if random.chance(0.1) { return }
        for _ in 0..<1 + random.below(2) {
            let after = random.below(40)
            let kinds: [(FakeFault.Kind, Bool)] = [
                (.status(random.pick([0x06, 0x07, 0x22, 0x80, 0x81, 0x82, 0x20, 0x182, 0x280, 0x281]), doNotRetry: random.chance(0.5)), true),
                (.lostCompletion, false), (.duplicateCompletion(after: UInt64(random.below(8_000))), false), (.unknownIdentifier, false),
                (.late(UInt64(random.below(20)) * 1_000_000_000), false),
                (.stuck(.works), false), (.stuck(.answered), false), (.stuck(.stuck), false), (.fatal, false),
                (.event(kind: UInt8(random.below(3)), information: 1, log: UInt8(random.pick([1, 2, 4]))), false),
                (random.chance(0.3) ? .removal : .shrink(blocks: UInt64(random.below(64))), true),
            ]
            let (kind, isFelt) = random.pick(kinds)
            let target: FakeFault.Target = random.chance(0.15) ? .admin : .requests
            let forever = random.chance(0.1)
            fake.plan(FakeFault(kind, on: target, after: target == .admin ? random.below(12) : after, forever: forever))
            if isFelt || forever || target == .admin { mayFail = true }
            result.faults += "\(kind) on \(target) \(after)\(forever ? " and on" : ""); "
        }
        if random.chance(0.05) {
            fake.configuration.deafStarts = random.pick([1, 6])
            mayFail = true
        }
        if random.chance(0.05) {
            fake.configuration.deafStops = random.pick([1, 6])
            mayFail = true
        }
        if random.chance(0.15) {
            let change = random.below(4)
            result.faults += "change \(change) at a reset; "
            // The first stop is that of the bring-up, of a controller that was not running: the second changes.
            fake.changeAtReset = { [weak fake] _ in
                fake?.changeAtReset = { configuration in
                    switch change {
                    case 0: configuration.serial = "ANOTHER"
                    case 1: configuration.transferShift = 1
                    case 2: (configuration.hasVolatileCache, configuration.cacheIsOn) = (true, true)
                    default: configuration.namespaceBlocks = 8
                    }
                }
            }
            mayFail = true
        }
    }

    // MARK: Requests

    private func live() {
        var left = 20 + random.below(40)
        var polls = 0
        while result.problem == nil, left > 0 || queue?.inFlight ?? 0 > 0 {
            guard let queue else { return }
            var batch = random.below(4)
            while batch > 0, left > 0, queue.room > 0, let slot = requests.firstIndex(where: { $0 == nil }) {
                batch -= 1
                if submit(slot) { left -= 1 }
            }
            queue.kick()
            for _ in 0..<1 + random.below(6) {
                guard let completion = queue.nextCompletion() else { continue }
                answered(completion)
            }
            if left == 0 || queue.room == 0 {
                // Nothing else to do: a few polls more for the price of one.
                for _ in 0..<64 where queue.inFlight > 0 { if let completion = queue.nextCompletion() { answered(completion) } }
            }
            polls += 1
            if let tag = (queue as? SteppedQueue)?.overdue { result.problem = "request \(tag) is never answered" }
            if polls > 1_000_000 { result.problem = "no end" }
        }
    }

    private func submit(_ slot: Int) -> Bool {
        guard let queue, let device else { return false }
        let kind = random.below(100)
        let most = min(16, device.capabilities.maximumTransfer / 4096)
        let count = 1 + random.below(most)
        let start = random.below(Self.blocks - count + 1)
        var request = Request(operation: .flush, sectors: start * 8..<(start + count) * 8, serial: 0, forceUnitAccess: false, places: [])
        switch kind {
        case 0..<38: request.operation = .read
        case 38..<78: request.operation = .write
        case 78..<88: request.sectors = 0..<0
        case 88..<94: request.operation = .writeZeroes
        default: request.operation = .discard
        }
        if kind % 33 == 32, request.operation != .flush {
            request.expectsRefusal = true
            request.sectors = Self.blocks * 8..<Self.blocks * 8 + 8
        }
        let isChange = request.operation != .read && request.operation != .flush
        for other in requests {
            guard let other, other.operation != .flush, other.sectors.overlaps(request.sectors) else { continue }
            if isChange || other.operation != .read { return false }
        }
        for place in poisoned[slot] where unsafe memory.buffer.load(fromByteOffset: place, as: UInt64.self) != Self.poison {
            result.problem = "memory of an answered request has changed"
        }
        var segments: [DeviceSegment] = []
        if request.operation == .read || request.operation == .write {
            (request.places, segments) = place(slot, blocks: request.sectors.count / 8)
        }
        if request.operation == .write {
            serial += 1
            request.serial = serial
            request.forceUnitAccess = random.chance(0.2)
            for (sector, place) in zip(request.sectors, request.places) { fill(place, Self.word(serial, sector)) }
        } else if request.operation == .read {
            for place in request.places { fill(place, Self.poison) }
        } else if request.operation == .flush {
            (request.before, request.changes) = (contents, changes)
        }
        if isChange { for sector in request.sectors where sector < changes.count { changes[sector] += 1 } }
        let accepted = unsafe segments.withUnsafeBufferPointer {
            unsafe queue.submit(
                request.operation, offset: UInt64(request.sectors.lowerBound * 512), segments: $0, length: request.sectors.count * 512,
                forceUnitAccess: request.forceUnitAccess, tag: UInt64(slot))
        }
        guard accepted else { return false }
        result.requests += 1
        poisoned[slot] = []
        requests[slot] = request
        return true
    }

    /// Memory for a request: registered or not, in one piece, in pages in any order, or in pieces that are no pages.
    private func place(_ slot: Int, blocks: Int) -> ([Int], [DeviceSegment]) {
        let base = (random.chance(0.8) ? 0 : memory.count / 2) + slot * Self.slotPages * 4096
        var pieces: [(Int, Int)] = []
        switch random.below(10) {
        case 0..<5: pieces = [(base, blocks * 4096)]
        case 5..<9:
            var pages = Array(0..<Self.slotPages)
            random.shuffle(&pages)
            pieces = (0..<blocks).map { (base + pages[$0] * 4096, 4096) }
        default:
            let first = 512 * (1 + random.below(7))
            pieces = [(base, first), (base + 4096, 4096 - first)]
            if blocks > 1 { pieces.append((base + 8192, (blocks - 1) * 4096)) }
        }
        let places = pieces.flatMap { piece in stride(from: piece.0, to: piece.0 + piece.1, by: 512) }
        return (places, pieces.map { unsafe DeviceSegment(address: memory.buffer.baseAddress! + $0.0, length: $0.1) })
    }

    private static func word(_ serial: UInt32, _ sector: Int) -> UInt64 { serial == 0 ? 0 : UInt64(serial) << 32 | UInt64(sector) }

    private func fill(_ place: Int, _ word: UInt64) {
        for offset in stride(from: place, to: place + 512, by: 8) { unsafe memory.buffer.storeBytes(of: word, toByteOffset: offset, as: UInt64.self) }
    }

    // MARK: Answers

    private func answered(_ completion: DeviceCompletion) {
        guard completion.tag < UInt64(Self.slots), let request = requests[Int(completion.tag)] else {
            result.problem = result.problem ?? "an answer for request \(completion.tag), which is not in flight"
            return
        }
        requests[Int(completion.tag)] = nil
        if request.expectsRefusal {
            if completion.error == 0 { result.problem = "a request outside the device succeeds" }
            return
        }
        if completion.error != 0 {
            result.errors += 1
            if !mayFail { result.problem = "\(request.operation) fails with \(completion.error), and nothing was wrong that cannot be made good" }
            if ![EIO, ENODEV, ENOSPC, EROFS, EINVAL].contains(completion.error) { result.problem = "\(request.operation) fails with \(completion.error)" }
        }
        switch request.operation {
        case .read: if completion.error == 0 { checkRead(request) }
        case .flush: if completion.error == 0 { flushed(request) }
        case .write, .writeZeroes, .discard: changed(request, completion.error)
        }
        poisoned[Int(completion.tag)] = request.places
        for place in request.places { unsafe memory.buffer.storeBytes(of: Self.poison, toByteOffset: place, as: UInt64.self) }
    }

    private func checkRead(_ request: Request) {
        for (sector, place) in zip(request.sectors, request.places) {
            if let problem = unsafe judge(memory.buffer.baseAddress! + place, sector, contents[sector]) {
                result.problem = result.problem ?? "a read finds \(problem)"
                return
            }
        }
    }

    private func judge(_ bytes: UnsafeRawPointer, _ sector: Int, _ allowed: [UInt32]) -> String? {
        if allowed.isEmpty { return nil }
        let first = unsafe bytes.load(as: UInt64.self)
        for offset in stride(from: 8, to: 512, by: 8) where unsafe bytes.load(fromByteOffset: offset, as: UInt64.self) != first {
            return "a torn sector \(sector)"
        }
        if allowed.contains(where: { Self.word($0, sector) == first }) { return nil }
        return "0x\(String(first, radix: 16)) in sector \(sector), which may hold \(allowed)"
    }

    private func changed(_ request: Request, _ error: Int32) {
        let isForced = request.forceUnitAccess || !(device?.capabilities.volatileCache ?? true)
        for sector in request.sectors {
            changes[sector] += 1
            if request.operation == .discard {
                (contents[sector], durable[sector]) = ([], [])
            } else if error != 0 {
                if !contents[sector].isEmpty { contents[sector].append(request.serial) }
                if !durable[sector].isEmpty { durable[sector].append(request.serial) }
            } else {
                contents[sector] = [request.serial]
                if isForced { durable[sector] = [request.serial] } else if !durable[sector].isEmpty { durable[sector].append(request.serial) }
            }
        }
    }

    private func flushed(_ request: Request) {
        for sector in durable.indices where changes[sector] == request.changes[sector] { durable[sector] = request.before[sector] }
    }

    // MARK: The end

    private func finish() {
        if result.problem == nil {
            for slot in poisoned.indices {
                for place in poisoned[slot] where unsafe memory.buffer.load(fromByteOffset: place, as: UInt64.self) != Self.poison {
                    result.problem = "memory of an answered request has changed"
                }
            }
        }
        queue = nil
        result.resets = device?.driver.controller.resets ?? 0
        let isOrderly = random.chance(0.5)
        if isOrderly { device?.close() }
        let isDurable = isOrderly && fake.wasShutDownAtClose
        if random.chance(0.5) {
            result.wasCut = true
            fake.medium.cutPower(seed: random.next())
        } else if !isDurable {
            return
        }
        for sector in contents.indices where result.problem == nil {
            if let problem = unsafe judge(fake.medium.pointer(sector * 512), sector, isDurable ? contents[sector] : durable[sector]) {
                result.problem = "after \(result.wasCut ? "a power cut" : "the end") there is \(problem)\(isDurable ? " after an orderly end" : "")"
            }
        }
    }
}
