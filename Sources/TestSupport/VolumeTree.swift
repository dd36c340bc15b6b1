/// The whole tree of a mounted volume, read through requests: names and attributes as `VolumeModel.signature` writes them, and bytes.
import Volume

extension VolumeHarness {
    package func truncate(_ path: String, _ size: Int64) -> Int64 {
        run(.setattr, path) {
            $0.attributes.mask = .size
            $0.attributes.size = size
        }.result
    }

    package func truncate(handle: Int64, _ size: Int64) -> Int64 {
        run(.setattr) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.attributes.mask = .size
            $0.attributes.size = size
        }.result
    }

    package func allocate(_ handle: Int64, _ mode: UInt32, _ offset: Int64, _ count: UInt64) -> Int64 {
        run(.fallocate) {
            $0.handle = Int32(truncatingIfNeeded: handle)
            $0.flags = mode
            $0.offset = offset
            $0.length = count
        }.result
    }

    package func setAttribute(_ path: String, _ name: String, _ value: [UInt8], flags: UInt32 = 0) -> Int64 {
        var value = value
        return unsafe value.withUnsafeMutableBytes { raw in
            run(.setxattr, path, name) {
                $0.flags = flags
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = raw.count
            }.result
        }
    }

    private func fill(_ count: Int, _ opcode: Opcode, _ path: String, _ second: String?) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: count)
        let result = unsafe buffer.withUnsafeMutableBytes { raw in
            run(opcode, path, second) {
                $0.flags = 0x100
                unsafe $0.buffer = raw.baseAddress
                $0.bufferLength = raw.count
            }.result
        }
        return result < 0 ? nil : Array(buffer.prefix(Int(result)))
    }

    package func attribute(_ path: String, _ name: String) -> [UInt8]? { fill(65_536, .getxattr, path, name) }

    package func attributes(_ path: String) -> [String: [UInt8]] {
        var all: [String: [UInt8]] = [:]
        for name in (fill(65_536, .listxattr, path, nil) ?? []).split(separator: 0) {
            let text = String(decoding: name, as: UTF8.self)
            all[text] = attribute(path, text) ?? [0xBA, 0xD0]
        }
        return all
    }

    package func target(_ path: String) -> String { fill(4096, .readlink, path, nil).map { String(decoding: $0, as: UTF8.self) } ?? "?" }

    /// Every path with what `stat` says, as the model's signature; and where the regular files are, with their sizes.
    package func tree() -> (signature: String, files: [(path: String, size: Int)]) {
        var lines: [String] = []
        var files: [(path: String, size: Int)] = []
        var seen: [UInt64: Int] = [:]
        func visit(_ path: String) {
            let (result, status) = status(path, follow: false)
            guard result == 0 else {
                lines.append("\(path) stat \(result)")
                return
            }
            let number = seen[status.inode] ?? seen.count
            seen[status.inode] = number
            let isLink = status.mode & 0o170000 == 0o120000
            let mode = isLink ? status.mode | 0o777 : status.mode
            lines.append(
                VolumeModel.line(
                    path, mode: mode, links: Int(status.links), number: number, target: isLink ? target(path) : "",
                    attributes: isLink ? [:] : attributes(path)))
            if status.mode & 0o170000 == 0o100000 { files.append((path, Int(status.size))) }
            if status.mode & 0o170000 == 0o040000 {
                for entry in list(path) { visit(path == "/" ? "/" + entry.name : path + "/" + entry.name) }
            }
        }
        visit("/")
        return (lines.joined(separator: "\n"), files)
    }

    package func content(_ path: String, _ size: Int) -> [UInt8] {
        // Past the cache, where that has not got it.
        let handle = open(path, 0o40000)
        guard handle >= 0 else { return [] }
        defer { _ = close(handle) }
        return read(handle, size + 1, at: 0).bytes
    }

    /// nil where tree and bytes are the model's.
    package func difference(from model: VolumeModel) -> String? {
        let (signature, files) = tree()
        let expected = model.signature()
        if signature != expected { return VolumeHarness.firstDifference(signature, expected) }
        for (file, (_, node)) in zip(files, model.files()) {
            let content = model.nodes[node]?.content ?? VolumeModel.Content()
            if file.size != content.size { return "\(file.path): size \(file.size), expected \(content.size)" }
            let (bytes, want) = (self.content(file.path, file.size), content.read(0, content.size))
            if bytes != want {
                let first = zip(want, bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? min(want.count, bytes.count)
                return "\(file.path): \(bytes.count) bytes differ from \(want.count) at \(first) (block \(first / 4096))"
            }
        }
        return nil
    }

    package static func firstDifference(_ found: String, _ expected: String) -> String {
        let (a, b) = (found.split(separator: "\n"), expected.split(separator: "\n"))
        for (left, right) in zip(a, b) where left != right { return "found \(left.prefix(200)), expected \(right.prefix(200))" }
        return "found \(a.count) names, expected \(b.count); one more: \((a.count > b.count ? a[b.count] : b[a.count]).prefix(200))"
    }
}
