/// Power cuts: what a device may hold when the power goes at any moment of a recording.
///
/// The model (the protocol's promises and no more). At a cut, a change is *certain* when it completed and then a flush that was
/// submitted after that completed (or it was FUA, or there is no volatile cache). Every other submitted change is *possible*:
/// any subset of them is in the image, each whole or torn along the device's atomic pieces. What lands on the same block lands
/// in an order the device may choose: a change that completed before another was submitted comes first; changes
/// in flight at the cut may come anywhere between their submission and the cut. What was completed when a flush failed stays
/// possible for ever. A discarded block reads as a pattern nobody wrote.
///
/// Invariant: `base` holds exactly the certain changes of the first `position` events. Cuts are cheap in ascending order (a
/// mapping and the pages touched); going back starts again from the recording's first image.
import BlockDevice

@safe package final class CrashStates {
    private let recording: RecordingDevice
    private var base: SharedImage
    private var position = 0
    /// Changes submitted and not certain, in order of submission.
    private var possible: [Int] = []
    /// Changes that a failed flush has made uncertain for good.
    private var forsaken: Set<Int> = []
    /// Per block, when the certain change that it holds took its place in the order (an event index; -1: none).
    private var certainSince: [Int]
    /// Probability that a piece of a change in flight at the cut is neither old nor new but trash.
    package var trash = 0.0
    /// Off: whole changes are in or out. For finding out what tearing has to do with a finding.
    package var tearing = true
    /// The planted bug, off by default: a flush is believed to cover nothing. A correct client then seems to lose data, so a
    /// harness that turns this on and stays green does not look at its states.
    package var plantedForgetfulFlush = false

    package init(_ recording: RecordingDevice) {
        self.recording = recording
        self.base = recording.initial
        self.certainSince = [Int](repeating: -1, count: Int(recording.capabilities.blockCount))
    }

    /// Cuts are 0...cutCount: the number of events that have happened.
    package var cutCount: Int { recording.log.events.count }

    /// The changes that may or may not be in the states of a cut.
    package func possibleChanges(at cut: Int) -> [Int] {
        advance(to: cut)
        return possible
    }

    /// The state of a cut that has nothing but what is certain, and one change more, whole.
    package func state(at cut: Int, having change: Int) -> MemoryDevice {
        advance(to: cut)
        let device = base.privateDevice(description: "crash state, cut \(cut), with change \(change)") { $0 = recording.capabilities }
        unsafe land(change, sectors: 0..<recording.log.changes[change].length / 512, moment: cut, on: device.bytes)
        return device
    }

    /// One state of a cut, determined by the seed.
    package func state(at cut: Int, seed: UInt64) -> CrashState {
        advance(to: cut)
        var random = SeededRandom(seed: seed &* 0x1_0000_0001 ^ UInt64(cut))
        let device = base.privateDevice(description: "crash state, cut \(cut), seed \(seed)") {
            $0 = recording.capabilities
        }
        var landings = choose(&random).map { change in
            Landing(change: change, moment: moment(of: change, cut: cut, &random), pieces: [])
        }
        landings.sort { ($0.moment, $0.change) < ($1.moment, $1.change) }
        let tears = tearing && random.chance(0.6)
        for index in landings.indices {
            let change = recording.log.changes[landings[index].change]
            var pieces = recording.capabilities.atomicPieces(offset: change.offset, length: change.length)
            if tears && pieces.count > 1 && random.chance(0.4) {
                let density = random.pick([0.1, 0.5, 0.9])
                pieces = pieces.filter { _ in random.chance(density) }
            }
            landings[index].pieces = pieces
            for piece in pieces {
                unsafe land(landings[index].change, sectors: piece, moment: landings[index].moment, on: device.bytes)
                if change.completedAt >= cut && trash > 0 && random.chance(trash) {
                    let bytes = change.offset + piece.lowerBound * 512..<change.offset + piece.upperBound * 512
                    for place in bytes { unsafe device.bytes[place] = UInt8(truncatingIfNeeded: random.next()) }
                }
            }
        }
        return CrashState(device: device, cut: cut, seed: seed, possible: possible, landings: landings)
    }

    /// Which changes are in: none, all, one, all but one, or each by a coin of some bias.
    private func choose(_ random: inout SeededRandom) -> [Int] {
        guard !possible.isEmpty else { return [] }
        switch random.below(10) {
        case 0: return []
        case 1: return possible
        case 2: return [random.pick(possible)]
        case 3:
            let missing = random.pick(possible)
            return possible.filter { $0 != missing }
        default:
            let density = random.pick([0.1, 0.3, 0.5, 0.7, 0.9])
            return possible.filter { _ in random.chance(density) }
        }
    }

    private func moment(of change: Int, cut: Int, _ random: inout SeededRandom) -> Int {
        let change = recording.log.changes[change]
        return change.completedAt < cut ? change.completedAt : change.submittedAt + random.below(cut - change.submittedAt + 1)
    }

    /// Applies sectors of a possible change, but not over a certain change that came later.
    private func land(_ change: Int, sectors: Range<Int>, moment: Int, on image: UnsafeMutableRawBufferPointer) {
        let first = recording.log.changes[change].offset / 512
        var sector = sectors.lowerBound
        while sector < sectors.upperBound {
            let block = (first + sector) / (blockSize / 512)
            let end = min(sectors.upperBound, (block + 1) * (blockSize / 512) - first)
            if certainSince[block] <= moment {
                unsafe recording.log.apply(change: change, sectors: sector..<end, to: image)
            }
            sector = end
        }
    }

    private func advance(to cut: Int) {
        precondition(cut >= 0 && cut <= cutCount, "a cut is one of 0...\(cutCount)")
        if cut < position {
            base = recording.initial
            position = 0
            possible = []
            forsaken = []
            certainSince = [Int](repeating: -1, count: certainSince.count)
        }
        while position < cut {
            step(recording.log.events[position])
            position += 1
        }
    }

    private func step(_ event: DeviceEvent) {
        switch event {
        case .submitted(let change): possible.append(change)
        case .completed(let change):
            let record = recording.log.changes[change]
            guard record.error == 0, record.forceUnitAccess || !recording.capabilities.volatileCache else { return }
            makeCertain { $0 == change }
        case .flushSubmitted: break
        case .flushCompleted(let flush):
            let flush = recording.log.flushes[flush]
            if flush.error != 0 {
                for change in possible where recording.log.changes[change].completedAt < position { forsaken.insert(change) }
            } else if !plantedForgetfulFlush {
                makeCertain {
                    recording.log.changes[$0].completedAt < flush.submittedAt && !forsaken.contains($0)
                }
            }
        }
    }

    private func makeCertain(_ isCertain: (Int) -> Bool) {
        var certain = possible.filter(isCertain)
        guard !certain.isEmpty else { return }
        possible.removeAll(where: isCertain)
        certain.sort { recording.log.changes[$0].completedAt < recording.log.changes[$1].completedAt }
        // States that live on, and the recording, keep the image they were made from.
        if !isKnownUniquelyReferenced(&base) { base = base.clone() }
        for change in certain {
            let record = recording.log.changes[change]
            unsafe land(change, sectors: 0..<record.length / 512, moment: record.completedAt, on: base.bytes)
            for block in record.blocks { certainSince[block] = max(certainSince[block], record.completedAt) }
        }
    }
}

/// A possible change that is in a state.
package struct Landing: Sendable, Equatable {
    /// Index into the log's changes.
    package var change: Int
    /// Its place in the order, as an event index.
    package var moment: Int
    /// Which of its sectors are in.
    package var pieces: [Range<Int>]
}

package struct CrashState: CustomStringConvertible {
    /// The image, to be mounted; writing to it touches nothing else.
    package let device: MemoryDevice
    package let cut: Int
    package let seed: UInt64
    package let possible: [Int]
    package let landings: [Landing]

    package var description: String {
        let list = landings.map { "\($0.change)\($0.pieces.count == 1 ? "" : ":\($0.pieces.count)p")" }.joined(separator: " ")
        return "cut \(cut), seed \(seed): \(landings.count) of \(possible.count) possible changes [\(list)]"
    }
}
