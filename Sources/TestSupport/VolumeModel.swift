/// What POSIX says a file system of one user (root) is: names, inodes, bytes. Simple enough to be obviously right, and
/// slow where that is simpler.
///
/// Invariants: a value; a copy is a snapshot (blocks and directories are shared until one side changes them). Node 1 is the root. A node
/// that nobody names and nobody has open is gone.
package struct VolumeModel {
    package enum Kind: UInt32 { case file = 0o100000, directory = 0o040000, link = 0o120000, fifo = 0o010000 }

    /// The bytes of a file: blocks of 4 KiB that were written; what is not there reads as zeros.
    package struct Content: Equatable {
        package var size = 0
        package var blocks: [Int: [UInt8]] = [:]
        package init() {}

        package static let zeros = [UInt8](repeating: 0, count: 4096)

        package mutating func write(_ bytes: [UInt8], at offset: Int) {
            var done = 0
            while done < bytes.count {
                let place = (offset + done) % 4096
                let count = min(4096 - place, bytes.count - done)
                var block = blocks[(offset + done) / 4096] ?? Content.zeros
                block.replaceSubrange(place..<place + count, with: bytes[done..<done + count])
                blocks[(offset + done) / 4096] = block
                done += count
            }
            if !bytes.isEmpty { size = max(size, offset + bytes.count) }
        }

        package func read(_ offset: Int, _ count: Int) -> [UInt8] {
            var bytes: [UInt8] = []
            var at = offset
            let end = min(offset + count, size)
            while at < end {
                let place = at % 4096
                let part = min(4096 - place, end - at)
                bytes += (blocks[at / 4096] ?? Content.zeros)[place..<place + part]
                at += part
            }
            return bytes
        }

        package mutating func zero(_ from: Int, _ to: Int) {
            for index in blocks.keys where index * 4096 < to && (index + 1) * 4096 > from {
                let (first, last) = (max(from, index * 4096), min(to, (index + 1) * 4096))
                if last - first == 4096 { blocks[index] = nil } else {
                    blocks[index]?.replaceSubrange(first % 4096..<first % 4096 + last - first, with: Content.zeros.prefix(last - first))
                }
            }
        }

        package mutating func resize(_ newSize: Int) {
            if newSize < size { zero(newSize, .max) }
            size = newSize
        }
    }

    package struct Node {
        package var kind: Kind
        package var mode: UInt32
        package var links: Int
        package var parent = 0
        package var entries: [String: Int] = [:]
        package var target = ""
        package var content = Content()
        package var attributes: [String: [UInt8]] = [:]
    }

    package struct Handle {
        package var node: Int
        package var offset = 0
        package var flags: UInt32
        package var readable: Bool { flags & 3 != 1 }
        package var writable: Bool { flags & 3 != 0 }
    }

    package var nodes: [Int: Node] = [1: Node(kind: .directory, mode: 0o755, links: 2, parent: 1)]
    package var handles: [Int: Handle] = [:]
    private var nextNode = 2
    package init() {}

    // MARK: Paths

    package enum Walk {
        /// Parent, last name ("" for the root), and the node if there is one.
        case found(parent: Int, name: String, node: Int?)
        case failed(Int64)
    }

    package func walk(_ path: String, follow: Bool) -> Walk {
        var components = path.split(separator: "/").map(String.init)
        var directory = 1
        var followed = 0
        while true {
            guard nodes[directory]?.kind == .directory else { return .failed(-20) }
            guard let name = components.first else { return .found(parent: directory, name: "", node: directory) }
            components.removeFirst()
            if name.utf8.count > 255 { return .failed(-36) }
            guard let next = nodes[directory]?.entries[name] else {
                return components.isEmpty ? .found(parent: directory, name: name, node: nil) : .failed(-2)
            }
            if let link = nodes[next], link.kind == .link, follow || !components.isEmpty {
                followed += 1
                if followed > 40 { return .failed(-40) }
                // DashFS's own limit: what is left of the path with what the links insert.
                if components.reduce(link.target.utf8.count, { $0 + $1.utf8.count + 1 }) > 4095 { return .failed(-36) }
                if link.target.hasPrefix("/") { directory = 1 }
                components = link.target.split(separator: "/").map(String.init) + components
                continue
            }
            if components.isEmpty { return .found(parent: directory, name: name, node: next) }
            directory = next
        }
    }

    private func existing(_ path: String, follow: Bool) -> (Int, Int64) {
        switch walk(path, follow: follow) {
        case .failed(let errno): (0, errno)
        case .found(_, _, let node): node.map { ($0, 0) } ?? (0, -2)
        }
    }

    /// Where a new name goes, or an errno.
    private func free(_ path: String) -> (parent: Int, name: String, errno: Int64) {
        switch walk(path, follow: false) {
        case .failed(let errno): (0, "", errno)
        case .found(let parent, let name, let node): node == nil ? (parent, name, 0) : (0, "", -17)
        }
    }

    private mutating func add(_ node: Node, to parent: Int, _ name: String) -> Int {
        let id = nextNode
        nextNode += 1
        nodes[id] = node
        nodes[parent]?.entries[name] = id
        if node.kind == .directory {
            nodes[id]?.parent = parent
            nodes[parent]?.links += 1
        }
        return id
    }

    private mutating func drop(_ id: Int) {
        guard let node = nodes[id], node.links == 0, !handles.values.contains(where: { $0.node == id }) else { return }
        nodes[id] = nil
    }

    // MARK: Names

    package mutating func open(_ path: String, flags: UInt32, mode: UInt32, as slot: Int) -> Int64 {
        let exclusive = flags & 0o300 == 0o300
        let id: Int
        switch walk(path, follow: !exclusive) {
        case .failed(let errno): return errno
        case .found(let parent, let name, let node):
            if let node {
                guard !exclusive else { return -17 }
                if nodes[node]?.kind == .directory && (flags & 3 != 0 || flags & 0o1100 != 0) { return -21 }
                if flags & 0o1000 != 0 && nodes[node]?.kind == .file { nodes[node]?.content = Content() }
                id = node
            } else {
                guard flags & 0o100 != 0 else { return -2 }
                id = add(Node(kind: .file, mode: mode & 0o7777, links: 1), to: parent, name)
            }
        }
        handles[slot] = Handle(node: id, flags: flags)
        return 0
    }

    package mutating func close(_ slot: Int) -> Int64 {
        guard let handle = handles.removeValue(forKey: slot) else { return -9 }
        drop(handle.node)
        return 0
    }

    package mutating func make(_ path: String, _ kind: Kind, mode: UInt32, target: String = "") -> Int64 {
        if kind == .link && target.isEmpty { return -2 }
        let place = free(path)
        guard place.errno == 0 else { return place.errno }
        let bits = kind == .link ? 0o777 : kind == .directory ? mode & 0o1777 : mode & 0o7777
        _ = add(Node(kind: kind, mode: bits, links: kind == .directory ? 2 : 1, target: target), to: place.parent, place.name)
        return 0
    }

    package mutating func link(_ path: String, _ newPath: String) -> Int64 {
        let (id, errno) = existing(path, follow: false)
        guard errno == 0 else { return errno }
        let place = free(newPath)
        guard place.errno == 0 else { return place.errno }
        guard nodes[id]?.kind != .directory else { return -1 }
        nodes[place.parent]?.entries[place.name] = id
        nodes[id]?.links += 1
        return 0
    }

    package mutating func unlink(_ path: String) -> Int64 {
        guard case .found(let parent, let name, let node) = walk(path, follow: false) else { return failure(path) }
        guard let node else { return -2 }
        guard nodes[node]?.kind != .directory else { return -21 }
        nodes[parent]?.entries[name] = nil
        nodes[node]?.links -= 1
        drop(node)
        return 0
    }

    package mutating func removeDirectory(_ path: String) -> Int64 {
        guard case .found(let parent, let name, let node) = walk(path, follow: false) else { return failure(path) }
        if name.isEmpty { return -16 }
        guard let node else { return -2 }
        guard nodes[node]?.kind == .directory else { return -20 }
        guard nodes[node]?.entries.isEmpty == true else { return -39 }
        nodes[parent]?.entries[name] = nil
        nodes[parent]?.links -= 1
        nodes[node]?.links = 0
        drop(node)
        return 0
    }

    private func failure(_ path: String) -> Int64 {
        if case .failed(let errno) = walk(path, follow: false) { return errno }
        return 0
    }

    private func isAncestor(_ ancestor: Int, of directory: Int) -> Bool {
        var current = directory
        while current != 1 {
            if current == ancestor { return true }
            current = nodes[current]?.parent ?? 1
        }
        return ancestor == 1
    }

    /// - Parameter flags: 1 no replacing, 2 exchange.
    package mutating func rename(_ path: String, _ newPath: String, flags: UInt32) -> Int64 {
        /// The path fails for its last name only.
        func endsTooLong(_ path: String) -> Bool {
            let long = path.split(separator: "/").map { $0.utf8.count > 255 }
            return long.last == true && !long.dropLast().contains(true) && failure(path) == -36
        }
        guard case .found(let source, let name, let moving) = walk(path, follow: false) else {
            // A last name that is too long is looked at when both directories have been found.
            if endsTooLong(path), case .failed(let errno) = walk(newPath, follow: false) { return errno }
            return failure(path)
        }
        // What is to be moved is looked for before the name that it would get.
        guard case .found(let destination, let newName, let target) = walk(newPath, follow: false) else {
            return moving == nil && endsTooLong(newPath) ? -2 : failure(newPath)
        }
        if name.isEmpty { return -16 }
        if newName.isEmpty { return flags == 1 ? -17 : -16 }
        guard let moving else { return -2 }
        if flags == 2 && target == nil { return -2 }
        if flags == 1 && target != nil { return -17 }
        let isDirectory = nodes[moving]?.kind == .directory
        if isDirectory && isAncestor(moving, of: destination) { return -22 }
        if let target, nodes[target]?.kind == .directory, isAncestor(target, of: source) { return flags == 2 ? -22 : -39 }
        if moving == target { return 0 }
        if flags == 2, let target {
            nodes[source]?.entries[name] = target
            nodes[destination]?.entries[newName] = moving
            for (id, from, to) in [(moving, source, destination), (target, destination, source)] where nodes[id]?.kind == .directory {
                nodes[id]?.parent = to
                nodes[from]?.links -= 1
                nodes[to]?.links += 1
            }
            return 0
        }
        if let target {
            let targetIsDirectory = nodes[target]?.kind == .directory
            if isDirectory && !targetIsDirectory { return -20 }
            if !isDirectory && targetIsDirectory { return -21 }
            if targetIsDirectory {
                guard nodes[target]?.entries.isEmpty == true else { return -39 }
                nodes[destination]?.links -= 1
                nodes[target]?.links = 0
            } else {
                nodes[target]?.links -= 1
            }
            nodes[destination]?.entries[newName] = nil
            drop(target)
        }
        nodes[source]?.entries[name] = nil
        nodes[destination]?.entries[newName] = moving
        if isDirectory {
            nodes[moving]?.parent = destination
            nodes[source]?.links -= 1
            nodes[destination]?.links += 1
        }
        return 0
    }

    // MARK: Attributes

    package mutating func changeMode(_ path: String, _ mode: UInt32) -> Int64 {
        let (id, errno) = existing(path, follow: true)
        guard errno == 0 else { return errno }
        nodes[id]?.mode = mode & 0o7777
        return 0
    }

    package mutating func truncate(_ path: String, _ size: Int) -> Int64 {
        let (id, errno) = existing(path, follow: true)
        guard errno == 0 else { return errno }
        if nodes[id]?.kind == .directory { return -21 }
        guard nodes[id]?.kind == .file else { return -22 }
        nodes[id]?.content.resize(size)
        return 0
    }

    package mutating func setAttribute(_ path: String, _ name: String, _ value: [UInt8]?) -> Int64 {
        let (id, errno) = existing(path, follow: true)
        guard errno == 0, let node = nodes[id] else { return errno }
        guard node.kind == .file || node.kind == .directory else { return -1 }
        if value == nil && node.attributes[name] == nil { return -61 }
        nodes[id]?.attributes[name] = value
        return 0
    }

    // MARK: Bytes

    private func file(_ slot: Int) -> (Handle, Content, Int64) {
        guard let handle = handles[slot], let node = nodes[handle.node] else { return (Handle(node: 0, flags: 0), Content(), -9) }
        return (handle, node.content, node.kind == .file ? 0 : node.kind == .directory ? -21 : -22)
    }

    /// - Parameter offset: -1: the handle's own.
    package mutating func write(_ slot: Int, _ bytes: [UInt8], at offset: Int) -> Int64 {
        let (handle, content, errno) = file(slot)
        if errno == -9 || !handle.writable { return -9 }
        guard errno == 0 else { return errno }
        let place = handle.flags & 0o2000 != 0 ? content.size : offset < 0 ? handle.offset : offset
        nodes[handle.node]?.content.write(bytes, at: place)
        if offset < 0 && !bytes.isEmpty { handles[slot]?.offset = place + bytes.count }
        return Int64(bytes.count)
    }

    package mutating func read(_ slot: Int, _ count: Int, at offset: Int) -> (Int64, [UInt8]) {
        let (handle, content, errno) = file(slot)
        if errno == -9 || !handle.readable { return (-9, []) }
        guard errno == 0 else { return (errno, []) }
        let place = offset < 0 ? handle.offset : offset
        let bytes = content.read(place, count)
        if offset < 0 { handles[slot]?.offset = place + bytes.count }
        return (Int64(bytes.count), bytes)
    }

    package mutating func truncate(slot: Int, _ size: Int) -> Int64 {
        let (handle, _, errno) = file(slot)
        if errno == -9 { return -9 }
        if !handle.writable || errno != 0 { return -22 }
        nodes[handle.node]?.content.resize(size)
        return 0
    }

    /// - Parameter mode: 0 allocate, 1 and keep the size, 3 punch a hole, 16 zero, 17 and keep the size.
    package mutating func allocate(_ slot: Int, mode: UInt32, _ offset: Int, _ count: Int) -> Int64 {
        let (handle, content, errno) = file(slot)
        if errno == -9 || !handle.writable { return -9 }
        if errno != 0 { return -19 }
        if mode & 18 != 0 { nodes[handle.node]?.content.zero(offset, offset + count) }
        if mode & 1 == 0 { nodes[handle.node]?.content.size = max(content.size, offset + count) }
        return 0
    }

    package mutating func copy(_ slot: Int, at offset: Int, to slot2: Int, at offset2: Int, _ count: Int) -> Int64 {
        let (from, source, errno) = file(slot)
        let (to, _, errno2) = file(slot2)
        if errno == -9 || errno2 == -9 { return -9 }
        if errno == -21 || errno2 == -21 { return -21 }
        if errno != 0 || errno2 != 0 { return -22 }
        if !from.readable || !to.writable || to.flags & 0o2000 != 0 { return -9 }
        let wanted = min(count, max(0, source.size - offset))
        if wanted == 0 { return 0 }
        if from.node == to.node && offset < offset2 + wanted && offset2 < offset + wanted { return -22 }
        nodes[to.node]?.content.write(source.read(offset, wanted), at: offset2)
        return Int64(wanted)
    }

    // MARK: The whole

    /// Every name with what `stat` says of it but sizes and times, sorted; hard links show which names are one file.
    package func signature() -> String {
        var lines: [String] = []
        var seen: [Int: Int] = [:]
        func visit(_ path: String, _ id: Int) {
            guard let node = nodes[id] else { return }
            let number = seen[id] ?? seen.count
            seen[id] = number
            lines.append(
                VolumeModel.line(
                    path, mode: node.kind.rawValue | node.mode, links: node.links, number: number, target: node.target,
                    attributes: node.attributes))
            for name in node.entries.keys.sorted() { if let child = node.entries[name] { visit(path == "/" ? "/" + name : path + "/" + name, child) } }
        }
        visit("/", 1)
        return lines.joined(separator: "\n")
    }

    package static func line(
        _ path: String, mode: UInt32, links: Int, number: Int, target: String, attributes: [String: [UInt8]]
    ) -> String {
        let list = attributes.keys.sorted().map { name in
            let value = attributes[name] ?? []
            return "\(name)=\(value.count):\(value.reduce(UInt32(17)) { $0 &* 31 &+ UInt32($1) })"
        }
        return "\(path) \(String(mode, radix: 8)) \(links) #\(number) \(target.prefix(60)):\(target.utf8.count) \(list.joined(separator: ","))"
    }

    /// Every path of a regular file, with its node.
    package func files() -> [(path: String, node: Int)] {
        var found: [(path: String, node: Int)] = []
        func visit(_ path: String, _ id: Int) {
            guard let node = nodes[id] else { return }
            if node.kind == .file { found.append((path, id)) }
            for name in node.entries.keys.sorted() { if let child = node.entries[name] { visit(path + "/" + name, child) } }
        }
        visit("", 1)
        return found
    }
}
