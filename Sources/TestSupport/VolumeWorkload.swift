/// Random operations, each done to a volume and to the model, results compared.
///
/// Invariant: a seed determines the operations; what the volume answers has a say only where space ends (a write may be shorter, anything
/// may be refused with ENOSPC, and then nothing has changed).
import BlockDevice
import Volume

package enum VolumeOperation: Sendable {
    case open(slot: Int, path: String, flags: UInt32, mode: UInt32)
    case close(slot: Int)
    case write(slot: Int, offset: Int, count: Int, seed: UInt64)
    case read(slot: Int, offset: Int, count: Int)
    case seekData(slot: Int, offset: Int, hole: Bool)
    case truncate(path: String, size: Int)
    case truncateOpen(slot: Int, size: Int)
    case allocate(slot: Int, mode: UInt32, offset: Int, count: Int)
    case copy(slot: Int, offset: Int, slot2: Int, offset2: Int, count: Int)
    case fsync(slot: Int, dataOnly: Bool)
    case sync
    case mkdir(path: String, mode: UInt32)
    case fifo(path: String, mode: UInt32)
    case symlink(target: String, path: String)
    case link(path: String, newPath: String)
    case unlink(path: String)
    case rmdir(path: String)
    case rename(path: String, newPath: String, flags: UInt32)
    case chmod(path: String, mode: UInt32)
    case setAttribute(path: String, name: String, count: Int, seed: UInt64)
    case removeAttribute(path: String, name: String)
    case stat(path: String, follow: Bool)
    case list(path: String)
    case map(slot: Int, write: Bool)
    case store(node: Int, offset: Int, count: Int, seed: UInt64)
    case load(node: Int, offset: Int, count: Int)
    case unmap(node: Int)
}

/// What a workload is made of: how large, how often synced.
package struct WorkloadShape: Sendable {
    package var names = ["a", "b", "c", "d", "e", "f"]
    package var depth = 3
    package var slots = 6
    package var largestWrite = 60_000
    package var largestFile = 400_000
    package var totalBytes = 6_000_000
    /// Of 100 operations.
    package var syncs = 4
    package var data = 50
    /// Of 100 operations: with maps of files.
    package var maps = 0
    /// Of 100 operations: whole pages zeroed where they are, or punched out.
    package var holes = 0
    /// Space may end with little in the files: something else holds the rest.
    package var spaceIsShort = false
    package init() {}

    /// Few names and much syncing: for crash states.
    package static var crash: WorkloadShape {
        var shape = WorkloadShape()
        shape.names = ["a", "b", "c", "d"]
        shape.depth = 2
        shape.slots = 4
        shape.largestWrite = 24_000
        shape.largestFile = 120_000
        shape.totalBytes = 1_000_000
        shape.syncs = 16
        shape.data = 50
        return shape
    }

    package var mapped: WorkloadShape {
        var shape = self
        shape.maps = 40
        return shape
    }

    package var holed: WorkloadShape {
        var shape = self
        shape.holes = 12
        return shape
    }

    /// More data than the small volume has room for.
    package static var full: WorkloadShape {
        var shape = WorkloadShape()
        shape.largestWrite = 500_000
        shape.largestFile = 4_000_000
        shape.totalBytes = 60_000_000
        shape.data = 60
        shape.spaceIsShort = true
        return shape
    }
}

package struct VolumeWorkload {
    package var model = VolumeModel()
    package var random: SeededRandom
    package let shape: WorkloadShape
    /// The volume's handle of each slot.
    package var handles: [Int: Int64] = [:]
    /// The memory of each mapped node, and whether it may be stored into. In the model a handle holds the node.
    package var maps: [Int: (memory: PlainFileMemory, isWritable: Bool)] = [:]
    package var refusals = 0
    private static func holder(_ node: Int) -> Int { 1_000_000 + node }
    package var maximumFile = 0

    package init(seed: UInt64, shape: WorkloadShape = WorkloadShape()) {
        random = SeededRandom(seed: seed)
        self.shape = shape
    }

    package static func bytes(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = SeededRandom(seed: seed)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            let word = random.next()
            for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
        }
        return Array(bytes.prefix(count))
    }

    // MARK: What comes next

    private mutating func name() -> String {
        random.chance(0.03) ? random.pick(shape.names) + String(repeating: "n", count: random.pick([100, 253, 254, 255])) : random.pick(shape.names)
    }

    private mutating func path() -> String {
        (0..<random.below(shape.depth) + 1).map { _ in name() }.reduce("") { $0 + "/" + $1 }
    }

    /// A path that exists, as far as there is one; else any.
    private mutating func known(_ wanted: VolumeModel.Kind? = nil) -> String {
        if random.chance(0.12) { return path() }
        var directory = 1
        var text = ""
        for _ in 0..<6 {
            guard let node = model.nodes[directory], let name = node.entries.isEmpty ? nil : random.pick(node.entries.keys.sorted()),
                let child = node.entries[name], let kind = model.nodes[child]?.kind
            else { break }
            text += "/" + name
            if kind == .directory && (wanted != .directory || random.chance(0.5)) { directory = child } else { break }
        }
        return text.isEmpty ? path() : text
    }

    /// A new name in a directory that exists.
    private mutating func new() -> String {
        if random.chance(0.1) { return path() }
        var directory = 1
        var text = ""
        for _ in 0..<shape.depth - 1 {
            let children = (model.nodes[directory]?.entries ?? [:]).filter { model.nodes[$0.value]?.kind == .directory }.keys.sorted()
            if children.isEmpty || random.chance(0.35) { break }
            let name = random.pick(children)
            text += "/" + name
            directory = model.nodes[directory]?.entries[name] ?? 1
        }
        return text + "/" + name()
    }

    private var usedBytes: Int { model.nodes.values.reduce(0) { $0 + $1.content.blocks.count * 4096 } }

    private mutating func extent(_ limit: Int) -> (Int, Int) {
        let offset: Int
        switch random.below(4) {
        case 0: offset = random.below(400)
        case 1: offset = random.below(shape.largestFile / 4096) * 4096
        default: offset = random.below(shape.largestFile)
        }
        let count: Int
        switch random.below(5) {
        case 0: count = random.below(300) + 1
        case 1, 2: count = random.below(6000) + 1
        case 3: count = 4096
        default: count = random.below(limit) + 1
        }
        return (offset, min(count, max(1, shape.largestFile - offset)))
    }

    private mutating func nextOfMaps() -> VolumeOperation? {
        if maps.isEmpty || random.chance(0.12) {
            guard let slot = openSlot() else { return nil }
            return .map(slot: slot, write: random.chance(0.8))
        }
        let node = random.pick(maps.keys.sorted())
        let (offset, count) = extent(shape.largestWrite / 3)
        switch random.below(10) {
        case 0: return .unmap(node: node)
        case 1..<4: return .load(node: node, offset: offset, count: count)
        default: return .store(node: node, offset: offset, count: count, seed: random.next())
        }
    }

    package mutating func next() -> VolumeOperation {
        if shape.maps > 0, random.below(100) < shape.maps, let operation = nextOfMaps() { return operation }
        if shape.holes > 0, random.below(100) < shape.holes, let slot = openSlot() {
            let offset = random.below(shape.largestFile / 4096) * 4096
            let count = random.pick([1, 4, 10, 24]) * 4096
            return .allocate(slot: slot, mode: random.pick([3, 17, 17, 16]), offset: offset, count: min(count, shape.largestFile - offset))
        }
        let kind = random.below(100)
        let slot = random.below(shape.slots)
        if kind < shape.syncs {
            switch random.below(6) {
            case 0: return .sync
            case 1: return .fsync(slot: openSlot() ?? slot, dataOnly: true)
            default: return .fsync(slot: openSlot() ?? slot, dataOnly: false)
            }
        }
        if kind < shape.syncs + shape.data {
            guard let slot = openSlot() else { return openSomething(slot) }
            let full = usedBytes > shape.totalBytes
            switch random.below(22) {
            case 0..<9:
                if full { return .truncateOpen(slot: slot, size: random.below(3000)) }
                let (offset, count) = extent(shape.largestWrite)
                return .write(slot: slot, offset: random.chance(0.25) ? -1 : offset, count: count, seed: random.next())
            case 9..<12:
                let (offset, count) = extent(shape.largestFile)
                return .read(slot: slot, offset: random.chance(0.25) ? -1 : offset, count: count)
            case 12:
                return .truncateOpen(slot: slot, size: random.chance(0.3) ? 0 : random.below(shape.largestFile))
            case 13: return .truncate(path: known(.file), size: random.chance(0.5) ? random.below(5000) : random.below(shape.largestFile))
            case 14..<17:
                let (offset, count) = extent(shape.largestWrite)
                return .allocate(slot: slot, mode: random.pick(full ? [3] : [0, 1, 3, 3, 16, 17]), offset: offset, count: count)
            case 17:
                let (offset, count) = extent(shape.largestWrite)
                return .copy(slot: slot, offset: offset, slot2: openSlot() ?? slot, offset2: random.below(shape.largestFile / 2), count: full ? 1 : count)
            case 18: return .seekData(slot: slot, offset: random.below(shape.largestFile), hole: random.chance(0.5))
            default:
                // Every other page: extents that nothing merges.
                if full { return .truncateOpen(slot: slot, size: random.below(30_000)) }
                return .write(slot: slot, offset: random.below(shape.largestFile / 8192) * 8192, count: 4096, seed: random.next())
            }
        }
        switch random.below(32) {
        case 0..<7: return openSomething(slot)
        case 7..<10: return .close(slot: slot)
        case 10..<13: return .mkdir(path: new(), mode: random.pick([0o755, 0o1777, 0o700]))
        case 13: return .fifo(path: new(), mode: 0o644)
        case 14, 15:
            let target = random.chance(0.2) ? "/" + String(repeating: "long/", count: random.pick([70, 500])) : random.chance(0.5) ? known() : name()
            return .symlink(target: target, path: new())
        case 16, 17: return .link(path: known(.file), newPath: new())
        case 18..<21: return .unlink(path: known(.file))
        case 21: return .rmdir(path: known(.directory))
        case 22..<27: return .rename(path: known(), newPath: random.chance(0.5) ? known() : new(), flags: random.pick([0, 0, 0, 1, 2]))
        case 27: return .chmod(path: known(), mode: UInt32(random.below(0o1000)))
        case 28:
            let count = random.chance(0.2) ? random.below(9000) : random.below(200)
            return .setAttribute(path: known(), name: "user." + name(), count: count, seed: random.next())
        case 29: return .removeAttribute(path: known(), name: "user." + name())
        case 30: return .stat(path: known(), follow: random.chance(0.5))
        default: return .list(path: known(.directory))
        }
    }

    private mutating func openSlot() -> Int? {
        let slots = model.handles.keys.filter { $0 < VolumeWorkload.holder(0) }.sorted()
        return slots.isEmpty ? nil : random.pick(slots)
    }

    private mutating func openSomething(_ slot: Int) -> VolumeOperation {
        if model.handles[slot] != nil { return .close(slot: slot) }
        let flags: UInt32 = random.pick([0o102, 0o102, 0o102, 0o302, 0o1102, 0o2102, 0, 2])
        return .open(slot: slot, path: random.chance(0.5) ? new() : known(.file), flags: flags, mode: random.pick([0o644, 0o600]))
    }

    // MARK: Doing it

    /// The operation on both sides. nil: the same results; else how they differ.
    package mutating func perform(_ operation: VolumeOperation, on volume: VolumeHarness) -> String? {
        let before = model
        let (result, bytes) = request(operation, volume)
        if result == -28 || result == -12 {
            // No space: the model stays as it was, and a later comparison shows that the volume did, too.
            refusals += 1
            model = before
            switch operation {
            case .fsync, .sync: return "\(operation): no space is told at write, not here"
            default: break
            }
            if case .write = operation, usedBytes < 100_000, !shape.spaceIsShort { return "\(operation): no space with \(usedBytes) bytes used" }
            return nil
        }
        let expected = apply(operation, result)
        maximumFile = max(maximumFile, model.nodes.values.map { $0.content.blocks.count }.max() ?? 0)
        if let want = expected.bytes, want != bytes, result >= 0 || expected.result < 0 {
            let first = zip(want, bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset
            return "\(operation): \(bytes.count) bytes, expected \(want.count); first difference at \(first.map(String.init) ?? "the end")"
        }
        if case .seekData(let slot, let offset, let hole) = operation { return checkSeek(slot, offset, hole, result) }
        return expected.result == result ? nil : "\(operation): result \(result), expected \(expected.result)"
    }

    /// What the model does. `result`: what the volume said, for short writes.
    private mutating func apply(_ operation: VolumeOperation, _ result: Int64) -> (result: Int64, bytes: [UInt8]?) {
        switch operation {
        case .open(let slot, let path, let flags, let mode):
            if model.handles[slot] != nil { return (result, nil) }
            return (model.open(path, flags: flags, mode: mode, as: slot), nil)
        case .close(let slot): return (model.close(slot), nil)
        case .write(let slot, let offset, let count, let seed):
            let bytes = VolumeWorkload.bytes(count, seed: seed)
            let isShort = result > 0 && result < count && (shape.spaceIsShort || usedBytes > 100_000)
            if isShort { refusals += 1 }
            return (model.write(slot, isShort ? Array(bytes.prefix(Int(result))) : bytes, at: offset), nil)
        case .read(let slot, let offset, let count):
            let (result, bytes) = model.read(slot, count, at: offset)
            return (result, bytes)
        case .seekData: return (result, nil)
        case .sync: return (0, nil)
        case .truncate(let path, let size): return (model.truncate(path, size), nil)
        case .truncateOpen(let slot, let size): return (model.truncate(slot: slot, size), nil)
        case .allocate(let slot, let mode, let offset, let count): return (model.allocate(slot, mode: mode, offset, count), nil)
        case .copy(let slot, let offset, let slot2, let offset2, let count):
            let isShort = result > 0 && result < count && (shape.spaceIsShort || usedBytes > 100_000)
            return (model.copy(slot, at: offset, to: slot2, at: offset2, isShort ? Int(result) : count), nil)
        case .fsync(let slot, _): return (model.handles[slot] == nil ? -9 : 0, nil)
        case .mkdir(let path, let mode): return (model.make(path, .directory, mode: mode), nil)
        case .fifo(let path, let mode): return (model.make(path, .fifo, mode: mode), nil)
        case .symlink(let target, let path): return (model.make(path, .link, mode: 0o777, target: target), nil)
        case .link(let path, let newPath): return (model.link(path, newPath), nil)
        case .unlink(let path): return (model.unlink(path), nil)
        case .rmdir(let path): return (model.removeDirectory(path), nil)
        case .rename(let path, let newPath, let flags): return (model.rename(path, newPath, flags: flags), nil)
        case .chmod(let path, let mode): return (model.changeMode(path, mode), nil)
        case .setAttribute(let path, let name, let count, let seed):
            return (name.utf8.count > 255 ? -34 : model.setAttribute(path, name, VolumeWorkload.bytes(count, seed: seed)), nil)
        case .removeAttribute(let path, let name):
            return (name.utf8.count > 255 ? -34 : model.setAttribute(path, name, nil), nil)
        case .stat(let path, let follow):
            guard case .found(_, _, let node) = model.walk(path, follow: follow) else {
                if case .failed(let errno) = model.walk(path, follow: follow) { return (errno, nil) }
                return (0, nil)
            }
            guard let node, let found = model.nodes[node] else { return (-2, nil) }
            let size = found.kind == .file ? found.content.size : found.kind == .link ? found.target.utf8.count : 0
            return (0, Array("\(found.kind.rawValue | found.mode) \(found.links) \(size)".utf8))
        case .map(let slot, let write):
            guard let handle = model.handles[slot] else { return (-9, nil) }
            if write && !handle.writable { return (-13, nil) }
            if model.nodes[handle.node]?.kind != .file { return (-19, nil) }
            if result == 0 { model.handles[VolumeWorkload.holder(handle.node)] = VolumeModel.Handle(node: handle.node, flags: 2) }
            return (0, nil)
        case .store(let node, let offset, let count, let seed):
            let size = model.nodes[node]?.content.size ?? 0
            let new = VolumeWorkload.bytes(max(0, min(count, size - offset)), seed: seed)
            if maps[node]?.isWritable == true { model.nodes[node]?.content.write(new, at: offset) }
            return (0, nil)
        case .load(let node, let offset, let count): return (0, model.nodes[node]?.content.read(offset, count) ?? [])
        case .unmap(let node): return (model.close(VolumeWorkload.holder(node)), nil)
        case .list(let path):
            guard case .found(_, _, let node?) = model.walk(path, follow: true), model.nodes[node]?.kind == .directory else { return (0, []) }
            return (0, Array((model.nodes[node]?.entries.keys.sorted() ?? []).joined(separator: "/").utf8))
        }
    }

    /// Data may be reported where there are only zeros, never the other way round.
    private func checkSeek(_ slot: Int, _ offset: Int, _ hole: Bool, _ result: Int64) -> String? {
        guard let handle = model.handles[slot], let node = model.nodes[handle.node], node.kind == .file else { return nil }
        if offset >= node.content.size { return result == -6 ? nil : "seek beyond the end: \(result)" }
        let end = result == -6 ? node.content.size : Int(result)
        if result < 0 && (result != -6 || hole) { return "seek: \(result)" }
        if !hole && node.content.read(offset, end - offset).contains(where: { $0 != 0 }) { return "seek: data before \(end) from \(offset)" }
        if hole && end > node.content.size { return "seek: a hole beyond the end" }
        return nil
    }

    /// The operation on the volume: result, and what it read. Also moves descriptors' offsets on the model's side for seeks.
    private mutating func request(_ operation: VolumeOperation, _ volume: VolumeHarness) -> (Int64, [UInt8]) {
        switch operation {
        case .open(let slot, let path, let flags, let mode):
            if handles[slot] != nil { return (0, []) }
            // Some read past the cache; the model knows no difference.
            let handle = volume.open(path, slot % 3 == 0 ? flags | 0o40000 : flags, mode: mode)
            if handle >= 0 { handles[slot] = handle }
            return (min(handle, 0), [])
        case .close(let slot): return (volume.close(handles.removeValue(forKey: slot) ?? -1), [])
        case .write(let slot, let offset, let count, let seed):
            return (volume.write(handles[slot] ?? -1, VolumeWorkload.bytes(count, seed: seed), at: Int64(offset)), [])
        case .read(let slot, let offset, let count):
            let answer = volume.read(handles[slot] ?? -1, count, at: Int64(offset))
            return (answer.result, answer.bytes)
        case .seekData(let slot, let offset, let hole):
            let own = model.handles[slot]?.offset ?? 0
            func seek(_ offset: Int, _ whence: UInt32) -> Int64 {
                volume.run(.seek) {
                    $0.handle = Int32(handles[slot] ?? -1)
                    $0.offset = Int64(offset)
                    $0.flags = whence
                }.result
            }
            let found = seek(offset, hole ? 4 : 3)
            if model.nodes[model.handles[slot]?.node ?? 0]?.kind == .file { _ = seek(own, 0) }
            return (found, [])
        case .truncate(let path, let size): return (volume.truncate(path, Int64(size)), [])
        case .truncateOpen(let slot, let size): return (volume.truncate(handle: handles[slot] ?? -1, Int64(size)), [])
        case .allocate(let slot, let mode, let offset, let count):
            return (volume.allocate(handles[slot] ?? -1, mode, Int64(offset), UInt64(count)), [])
        case .copy(let slot, let offset, let slot2, let offset2, let count):
            let (from, to) = (handles[slot] ?? -1, handles[slot2] ?? -1)
            return (
                volume.run(.copyRange) {
                    $0.handle = Int32(from)
                    $0.handle2 = Int32(to)
                    $0.offset = Int64(offset)
                    $0.offset2 = Int64(offset2)
                    $0.length = UInt64(count)
                }.result, []
            )
        case .fsync(let slot, let dataOnly): return (volume.fsync(handles[slot] ?? -1, dataOnly: dataOnly), [])
        case .sync: return (volume.run(.sync).result, [])
        case .mkdir(let path, let mode): return (volume.run(.mkdir, path) { $0.mode = mode }.result, [])
        case .fifo(let path, let mode): return (volume.run(.mknod, path) { $0.mode = mode | 0o010000 }.result, [])
        case .symlink(let target, let path): return (volume.run(.symlink, path, target).result, [])
        case .link(let path, let newPath): return (volume.run(.link, path, newPath).result, [])
        case .unlink(let path): return (volume.run(.unlink, path).result, [])
        case .rmdir(let path): return (volume.run(.rmdir, path).result, [])
        case .rename(let path, let newPath, let flags): return (volume.run(.rename, path, newPath) { $0.flags = flags }.result, [])
        case .chmod(let path, let mode):
            return (
                volume.run(.setattr, path) {
                    $0.attributes.mask = .mode
                    $0.attributes.mode = mode
                }.result, []
            )
        case .setAttribute(let path, let name, let count, let seed):
            return (volume.setAttribute(path, name, VolumeWorkload.bytes(count, seed: seed)), [])
        case .removeAttribute(let path, let name): return (volume.run(.removexattr, path, name).result, [])
        case .stat(let path, let follow):
            let (result, status) = volume.status(path, follow: follow)
            if result < 0 { return (result, []) }
            let size = status.mode & 0o170000 == 0o040000 ? 0 : status.size
            return (0, Array("\(status.mode) \(status.links) \(size)".utf8))
        case .map(let slot, let write):
            let (result, memory) = volume.map(handles[slot] ?? -1, write: write)
            if let memory, let handle = model.handles[slot] {
                maps[handle.node] = (memory, write || maps[handle.node]?.isWritable ?? false)
            }
            return (result, [])
        case .store(let node, let offset, let count, let seed):
            let size = model.nodes[node]?.content.size ?? 0
            let new = VolumeWorkload.bytes(max(0, min(count, size - offset)), seed: seed)
            if let map = maps[node], map.isWritable { map.memory.store(new, at: offset) }
            return (0, [])
        case .load(let node, let offset, let count):
            guard let memory = maps[node]?.memory, let size = model.nodes[node]?.content.size else { return (0, []) }
            let end = min(offset + count, size)
            return (0, offset < end ? Array(memory.bytes[offset..<min(end, memory.bytes.count)]) : [])
        case .unmap(let node):
            maps.removeValue(forKey: node)?.memory.isHeldByOthers = false
            return (0, [])
        case .list(let path):
            let names = volume.list(path).map { $0.name }.joined(separator: "/")
            // What the device or a damaged structure says; that there is no such directory, the model knows.
            return ([-5, -117].contains(volume.listError) ? volume.listError : 0, Array(names.utf8))
        }
    }

    /// After a remount nothing is open.
    package mutating func forgetHandles() {
        for map in maps.values { map.memory.isHeldByOthers = false }
        maps = [:]
        for slot in model.handles.keys { _ = model.close(slot) }
        handles = [:]
    }
}
