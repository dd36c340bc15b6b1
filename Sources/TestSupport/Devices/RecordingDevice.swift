/// A device for tests: it remembers every change and flush, completes in a seeded order, and fails as planned.
///
/// Invariants: nothing happens before `kick`; data moves at the completion, so a read's buffer holds poison until then; the same
/// requests, plan and seed give the same completions and bytes. `violations` lists what a correct client never does.
/// One thread; several queues share one log. `CrashStates` makes the power cuts.
import BlockDevice
import CSystem
import Glibc

@safe package final class RecordingDevice: BlockDevice {
    /// How completions come.
    package struct Schedule: Sendable {
        /// Any kicked request may complete next; else they complete in the order of submission.
        package var shuffled = false
        /// Each request is held back for a random number of polls below this.
        package var maximumDelay = 0
        /// Changes from this offset on are held back for so many polls more.
        package var slowFrom = Int.max
        package var slowness = 0
        /// Changes from this offset on do not complete until it is set back.
        package var heldFrom = Int.max
        /// Reads of more than a block do not complete until it is set back.
        package var holdsLongReads = false
        package init(shuffled: Bool = false, maximumDelay: Int = 0) {
            self.shuffled = shuffled
            self.maximumDelay = maximumDelay
        }
    }

    package enum Violation: Sendable, Equatable {
        /// The memory of a write changed between its submission and its completion.
        case memoryChangedInFlight(tag: UInt64, offset: Int)
        /// A change was submitted on blocks where another was in flight: their order is anybody's guess.
        case overlappingChanges(tags: [UInt64], offset: Int)
    }

    package let capabilities: DeviceCapabilities
    package var schedule: Schedule
    package fileprivate(set) var log = DeviceLog()
    package fileprivate(set) var violations: [Violation] = []
    /// The content before the first recorded event.
    let initial: SharedImage
    /// What reads find now.
    package let current: MemoryDevice
    fileprivate var random: SeededRandom
    private var faults: [ArmedFault] = []
    fileprivate var inFlight: [PendingRequest] = []

    /// A device of zeros: tears at 512 bytes, has a volatile cache and no FUA, unless configured otherwise.
    package convenience init(
        size: Int, seed: UInt64, schedule: Schedule = Schedule(), configure: (inout DeviceCapabilities) -> Void = { _ in }
    ) {
        self.init(image: SharedImage(size: size), seed: seed, schedule: schedule, configure: configure)
    }

    /// Goes on from a copy of another device's content: a crash state, say, whose recovery is to be recorded.
    package convenience init(
        copying device: MemoryDevice, seed: UInt64, schedule: Schedule = Schedule(),
        configure: (inout DeviceCapabilities) -> Void = { _ in }
    ) {
        unsafe self.init(
            image: SharedImage(copying: UnsafeRawBufferPointer(device.bytes)), seed: seed, schedule: schedule,
            configure: configure)
    }

    private init(image: SharedImage, seed: UInt64, schedule: Schedule, configure: (inout DeviceCapabilities) -> Void) {
        self.initial = image
        self.schedule = schedule
        self.random = SeededRandom(seed: seed)
        self.current = image.privateDevice(description: "recording, seed \(seed)") { capabilities in
            capabilities.atomicWriteUnit = 512
            capabilities.volatileCache = true
            capabilities.supportsForceUnitAccess = false
            configure(&capabilities)
        }
        self.capabilities = current.capabilities
    }

    /// Adds a fault; its count starts now.
    package func plan(_ fault: DeviceFault) { faults.append(ArmedFault(fault)) }

    package func clearFaults() { faults.removeAll() }

    /// For each planned fault, the requests that it has counted.
    package var faultCounts: [Int] { faults.map(\.seen) }

    package func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue { RecordingQueue(device: self, depth: depth) }

    package func close() {}

    fileprivate func strike(_ operation: DeviceOperation, offset: UInt64, length: Int) -> DeviceFault.Kind? {
        var struck: DeviceFault.Kind?
        for index in faults.indices where faults[index].strikes(operation, offset: offset, length: length) {
            struck = struck ?? faults[index].fault.kind
        }
        return struck
    }

    fileprivate func submit(_ request: consuming PendingRequest, forceUnitAccess: Bool) {
        request.fault = strike(request.operation, offset: UInt64(request.offset), length: request.length)
        request.notBefore = random.below(schedule.maximumDelay) + (request.isChange && request.offset >= schedule.slowFrom ? random.below(schedule.slowness) : 0)
        switch request.operation {
        case .flush: request.record = log.submitFlush()
        case .read: request.poison()
        case .write, .discard, .writeZeroes:
            for other in inFlight
            where other.isChange && other.offset < request.offset + request.length
                && request.offset < other.offset + other.length
            {
                violations.append(.overlappingChanges(tags: [other.tag, request.tag], offset: request.offset))
            }
            if request.fault == .misdirectedWrite {
                request.offset = random.below((Int(capabilities.byteCount) - request.length) / blockSize + 1) * blockSize
            }
            request.checksum = request.memoryChecksum()
            request.record = unsafe request.segments.withUnsafeBufferPointer { segments in
                unsafe log.submit(
                    change: request.operation, offset: request.offset, length: request.length,
                    forceUnitAccess: forceUnitAccess, tag: request.tag, segments: segments)
            }
        }
        inFlight.append(request)
    }

    /// Does what the request asks, or what its fault makes of it.
    fileprivate func finish(_ request: PendingRequest) -> DeviceCompletion {
        var error: Int32 = 0
        if case .error(let number) = request.fault { error = number }
        switch request.operation {
        case .flush: log.complete(flush: request.record, error: error)
        case .read: if error == 0 { read(request) }
        case .write, .discard, .writeZeroes:
            if request.checksum != request.memoryChecksum() {
                violations.append(.memoryChangedInFlight(tag: request.tag, offset: request.offset))
            }
            var reached: [Bool]?
            if request.fault == .lostWrite {
                reached = [Bool](repeating: false, count: request.length / 512)
            } else if error != 0 {
                let pieces = capabilities.atomicPieces(offset: request.offset, length: request.length)
                reached = pieces.flatMap { [Bool](repeating: random.chance(0.5), count: $0.count) }
            }
            log.complete(change: request.record, error: error, reachedSectors: reached)
            unsafe log.apply(change: request.record, sectors: 0..<request.length / 512, to: current.bytes)
        }
        return DeviceCompletion(tag: request.tag, error: error)
    }

    private func read(_ request: PendingRequest) {
        if request.fault == .bitRot {
            let place = request.offset + random.below(request.length)
            unsafe current.bytes[place] ^= UInt8(1) << UInt8(random.below(8))
        }
        var place = request.offset
        for segment in request.segments {
            unsafe segment.address.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: current.bytes[place..<place + segment.length]).baseAddress!,
                byteCount: segment.length)
            place += segment.length
        }
        if request.fault == .staleRead { overwriteWithStale(request) }
    }

    /// Gives the reader each block as it was before the last change of it.
    private func overwriteWithStale(_ request: PendingRequest) {
        let finished = log.changes.indices.filter { log.changes[$0].completedAt != Int.max }
            .sorted { log.changes[$0].completedAt < log.changes[$1].completedAt }
        var old = [UInt8](repeating: 0, count: request.length)
        unsafe old.withUnsafeMutableBytes { old in
            for block in 0..<request.length / blockSize {
                let start = request.offset + block * blockSize
                let target = unsafe UnsafeMutableRawBufferPointer(rebasing: old[block * blockSize..<(block + 1) * blockSize])
                unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: initial.bytes[start..<start + blockSize]))
                let changes = finished.filter { log.changes[$0].blocks.contains(start / blockSize) }
                for change in changes.dropLast() {
                    let first = (start - log.changes[change].offset) / 512
                    for sector in 0..<blockSize / 512 where log.changes[change].reachedSectors?[first + sector] ?? true {
                        unsafe log.copy(
                            change: change, sectors: first + sector..<first + sector + 1,
                            into: UnsafeMutableRawBufferPointer(rebasing: target[sector * 512..<sector * 512 + 512]))
                    }
                }
            }
            var taken = 0
            for segment in request.segments {
                unsafe segment.address.copyMemory(from: old.baseAddress! + taken, byteCount: segment.length)
                taken += segment.length
            }
        }
    }
}

/// A request between `submit` and its completion.
struct PendingRequest {
    var operation: DeviceOperation
    var offset: Int
    var length: Int
    var tag: UInt64
    var segments: [DeviceSegment]
    var queue: ObjectIdentifier
    /// The request never reaches the device (malformed).
    var refused: Int32 = 0
    var kicked = false
    /// Polls to go.
    var notBefore = 0
    var fault: DeviceFault.Kind?
    /// Index of its change or flush in the log.
    var record = 0
    var checksum: UInt32 = 0

    var isChange: Bool { refused == 0 && operation != .read && operation != .flush }

    func memoryChecksum() -> UInt32 {
        var checksum: UInt32 = 0
        for segment in segments { unsafe checksum = dashfs_crc32c(checksum, segment.address, segment.length) }
        return checksum
    }

    /// So that a reader who does not wait for the completion finds out.
    func poison() {
        for segment in segments { unsafe memset(segment.address, 0xA5, segment.length) }
    }
}

final class RecordingQueue: DeviceQueue {
    private let device: RecordingDevice
    private let depth: Int
    private(set) var counters = DeviceCounters()
    private(set) var inFlight = 0

    init(device: RecordingDevice, depth: Int) {
        self.device = device
        self.depth = depth
    }

    var room: Int { depth - inFlight }

    func submit(
        _ operation: DeviceOperation, offset: UInt64, segments: UnsafeBufferPointer<DeviceSegment>, length: Int,
        forceUnitAccess: Bool, tag: UInt64
    ) -> Bool {
        guard inFlight < depth else { return false }
        inFlight += 1
        let error = unsafe device.capabilities.check(
            operation, offset: offset, segments: segments, length: length, forceUnitAccess: forceUnitAccess)
        var request = unsafe PendingRequest(
            operation: operation, offset: error == 0 && operation != .flush ? Int(offset) : 0,
            length: error == 0 && operation != .flush ? length : 0, tag: tag, segments: error == 0 ? Array(segments) : [],
            queue: ObjectIdentifier(self))
        request.refused = error
        if error == 0 {
            counters.count(operation, length: length)
            device.submit(request, forceUnitAccess: forceUnitAccess)
        } else {
            device.inFlight.append(request)
        }
        return true
    }

    func kick() {
        for index in device.inFlight.indices where device.inFlight[index].queue == ObjectIdentifier(self) {
            device.inFlight[index].kicked = true
        }
    }

    func nextCompletion() -> DeviceCompletion? {
        var ready: [Int] = []
        for index in device.inFlight.indices
        where device.inFlight[index].kicked && device.inFlight[index].queue == ObjectIdentifier(self) {
            if device.inFlight[index].isChange && device.inFlight[index].offset >= device.schedule.heldFrom { continue }
            if device.inFlight[index].operation == .read && device.inFlight[index].length > blockSize && device.schedule.holdsLongReads { continue }
            if device.inFlight[index].notBefore > 0 {
                device.inFlight[index].notBefore -= 1
            } else {
                ready.append(index)
            }
        }
        guard let first = ready.first else { return nil }
        let request = device.inFlight.remove(at: device.schedule.shuffled ? device.random.pick(ready) : first)
        inFlight -= 1
        return request.refused != 0 ? DeviceCompletion(tag: request.tag, error: request.refused) : device.finish(request)
    }

    func register(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) {}
    var wakeupDescriptor: Int32 { -1 }
    func armWakeup() {}
    func disarmWakeup() {}
}
