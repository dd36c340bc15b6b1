/// Power cuts under a workload, judged by the durability contract (docs/DURABILITY.md).
///
/// Invariant: `steps` says for every operation at which event of the recording it began and was answered, and the model's state after it. What a
/// cut may leave is computed from that alone:
/// - names and attributes: those after some prefix of the operations that began before the cut, no shorter than the last sync that was
///   answered before it;
/// - each 4 KiB block of a file: whole, a content that it has had since the file's last answered sync (or, where a rename over another file is
///   in the tree, since that rename); zeros where that is a content it had, or where it was a hole.
import BlockDevice
import Volume

@safe package final class CrashRun {
    package struct Step {
        package var operation: VolumeOperation
        package var began: Int
        package var answered: Int
        package var model: VolumeModel
        /// The sync succeeded and covers this node; 0: all of them.
        package var synced: Int?
        /// A rename over another file: the data of this node went out first.
        package var replaced: Int?
    }

    package let recording: RecordingDevice
    package private(set) var steps: [Step] = []
    /// Model states by content version: for each node the steps at which its bytes changed.
    private var changes: [Int: [Int]] = [:]
    private var signatures: [Int: String] = [:]
    package let configuration: Volume.Configuration

    /// What becomes of a workload when an operation is answered as the model does not have it.
    package enum Mismatch {
        /// It is the volume's mistake.
        case throwing
        /// A device fails: the workload ends, and the operation has happened or not.
        case stopping
        /// A device lies: the rest runs, for its own sake.
        case goingOn
    }
    /// The first mismatch that did not throw.
    package private(set) var problem: String?
    /// The step whose operation was answered with an error: it has happened, or in part, or not.
    private var limbo: Int?
    /// What never came to its end.
    package private(set) var hung: String?

    /// Formats, mounts and runs `count` operations. Throws where the volume does not do what the model does.
    package convenience init(
        seed: UInt64, operations count: Int, configuration: Volume.Configuration, shape: WorkloadShape = .crash, slowHome: Bool = false,
        capabilities: @escaping (inout DeviceCapabilities) -> Void = { _ in }
    ) throws {
        let empty = try MemoryDevice(size: VolumeHarness.smallSize)
        try VolumeHarness.format(empty)
        var schedule = RecordingDevice.Schedule(shuffled: true, maximumDelay: 3)
        if slowHome {
            // The journal runs ahead of what goes home: its ring fills, and much is replaced or freed while it is being written.
            schedule.slowFrom = 257 * 4096
            schedule.slowness = 300
        }
        var left = count
        try self.init(
            RecordingDevice(copying: empty, seed: seed, schedule: schedule, configure: capabilities),
            VolumeWorkload(seed: seed, shape: shape), configuration: configuration
        ) {
            left -= 1
            return left < 0 ? nil : $0.next()
        }
    }

    /// Mounts a formatted device that holds what the workload's model says, and runs what `next` gives.
    package init(
        _ recording: RecordingDevice, _ start: VolumeWorkload, configuration: Volume.Configuration, mismatch: Mismatch = .throwing,
        mounted: () -> Void = {}, next: (inout VolumeWorkload) -> VolumeOperation?
    ) throws {
        self.recording = recording
        self.configuration = configuration
        let volume = try VolumeHarness(recording, configuration: configuration)
        if mismatch != .throwing { volume.mayHang = true }
        var workload = start
        steps.append(Step(operation: .sync, began: 0, answered: recording.log.events.count, model: workload.model))
        mounted()
        while let operation = next(&workload) {
            volume.monotonic += UInt64(workload.random.below(1_500_000_000))
            volume.wall += 1_000_000
            let before = workload.model
            let began = recording.log.events.count
            let found = workload.perform(operation, on: volume)
            if let found, mismatch == .throwing {
                throw VolumeError(errno: 5, "operation \(steps.count - 1): \(found); \(volume.volume.takeNotes())")
            }
            var step = Step(operation: operation, began: began, answered: found == nil ? recording.log.events.count : .max, model: workload.model)
            note(operation, before, &step)
            if found != nil && mismatch == .stopping {
                limbo = steps.count
                step.synced = nil
                // A name that an error was answered for has not changed; of bytes, any part may have.
                if workload.model.signature() != before.signature() {
                    workload.model = before
                    step.model = before
                }
            }
            for (id, node) in workload.model.nodes where node.kind == .file && before.nodes[id]?.content != node.content {
                changes[id, default: []].append(steps.count)
            }
            steps.append(step)
            problem = problem ?? found
            if found != nil && mismatch == .stopping { break }
            for _ in 0..<workload.random.below(4) { volume.volume.poll() }
        }
        if problem != nil && mismatch == .stopping {
            // Whoever is told of success now is told the truth.
            for (slot, handle) in workload.handles.sorted(by: { $0.key < $1.key }) {
                let began = recording.log.events.count
                guard volume.fsync(handle) == 0, let node = workload.model.handles[slot]?.node else { continue }
                steps.append(Step(
                    operation: .fsync(slot: slot, dataOnly: false), began: began, answered: recording.log.events.count, model: workload.model, synced: node))
            }
        }
        volume.settle(polls: 3)
        if volume.unanswered > 0 { hung = volume.unfinished }
        let notes = volume.volume.takeNotes()
        if !notes.isEmpty && mismatch == .throwing { throw VolumeError(errno: 5, "\(notes)") }
    }

    private func note(_ operation: VolumeOperation, _ before: VolumeModel, _ step: inout Step) {
        switch operation {
        case .sync: step.synced = 0
        case .fsync(let slot, _): step.synced = before.handles[slot]?.node
        case .rename(let path, let newPath, 0):
            guard case .found(_, _, let moving?) = before.walk(path, follow: false), case .found(_, _, let target?) = before.walk(newPath, follow: false),
                moving != target, before.nodes[moving]?.kind == .file, step.model.nodes[target]?.links != before.nodes[target]?.links
            else { return }
            step.replaced = moving
        default: break
        }
    }

    private func signature(_ step: Int) -> String {
        if let known = signatures[step] { return known }
        let text = steps[step].model.signature()
        signatures[step] = text
        return text
    }

    /// nil: the recovered volume is what the contract allows after this cut.
    package func judge(_ volume: VolumeHarness, cut: Int) -> String? {
        // Steps began in order: those before the cut.
        var last = 0
        while last + 1 < steps.count, steps[last + 1].began < cut { last += 1 }
        var first = 0
        for number in 1..<max(last + 1, 1) where steps[number].synced != nil && steps[number].answered <= cut { first = number }
        let (found, files) = volume.tree()
        let candidates = (first...last).filter { signature($0) == found }
        if candidates.isEmpty {
            return "names are those of no prefix in \(first)...\(last): against \(last): \(VolumeHarness.firstDifference(found, signature(last)))"
        }
        var problem = ""
        for prefix in candidates {
            guard let reason = judge(files, volume, prefix: prefix, last: last, cut: cut) else { return grow(files, volume) }
            problem = "after operations \(first)...\(last), names of \(prefix): \(reason)"
        }
        return problem
    }

    private func judge(_ files: [(path: String, size: Int)], _ volume: VolumeHarness, prefix: Int, last: Int, cut: Int) -> String? {
        for (file, (_, node)) in zip(files, steps[prefix].model.files()) {
            var base = 0
            for number in stride(from: last, through: 1, by: -1) {
                let step = steps[number]
                if let synced = step.synced, synced == 0 || synced == node, step.answered <= cut {
                    base = limbo.map { number > $0 ? $0 - 1 : number } ?? number
                    break
                }
                if step.replaced == node && number <= prefix {
                    base = number
                    break
                }
            }
            var contents = [steps[base].model.nodes[node]?.content ?? VolumeModel.Content()]
            for number in changes[node] ?? [] where number > base && number <= last {
                if let content = steps[number].model.nodes[node]?.content { contents.append(content) }
            }
            if let problem = judge(volume.content(file.path, file.size), file, contents) { return "\(problem) (synced by \(base))" }
        }
        return nil
    }

    /// nil: files that grow get zeros, whatever was beyond their end before.
    private func grow(_ files: [(path: String, size: Int)], _ volume: VolumeHarness) -> String? {
        var grown: Set<UInt64> = []
        for file in files where grown.insert(volume.status(file.path).status.inode).inserted {
            let size = (file.size / 4096 + 40) * 4096
            guard volume.truncate(file.path, Int64(size)) == 0 else { return "\(file.path) cannot grow" }
            if let place = volume.content(file.path, size).dropFirst(file.size).firstIndex(where: { $0 != 0 }) {
                return "\(file.path): grown from \(file.size) bytes, it has something at \(place)"
            }
        }
        return nil
    }

    /// `contents`: what the file has been since it was last synced, oldest first.
    private func judge(_ bytes: [UInt8], _ file: (path: String, size: Int), _ contents: [VolumeModel.Content]) -> String? {
        if bytes.count != file.size { return "\(file.path): \(bytes.count) bytes can be read of \(file.size)" }
        let sizes = contents.map { $0.size }
        let (smallest, largest) = (sizes.min() ?? 0, sizes.max() ?? 0)
        // The durable size grows with the blocks that are on their way.
        guard sizes.contains(file.size) || file.size > smallest && file.size < largest && file.size % 4096 == 0 else {
            return "\(file.path): size \(file.size), was \(sizes.suffix(6))"
        }
        for block in 0..<(file.size + 4095) / 4096 {
            let found = bytes[block * 4096..<min((block + 1) * 4096, bytes.count)]
            let matches = contents.contains { ($0.blocks[block] ?? VolumeModel.Content.zeros).prefix(found.count).elementsEqual(found) }
            if !matches {
                return "\(file.path): block \(block) of size \(file.size) holds what it never held in \(contents.count) versions "
                    + "(zeros: \(!found.contains { $0 != 0 }))"
            }
        }
        return nil
    }
}
