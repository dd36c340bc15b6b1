import Client
import Wire

/// How calls get a channel, and how paths that leave the volume come back to it.
extension FileSystem {
    /// Symbolic links out of and back into the volume that one call follows, as Linux limits them.
    static let linkLimit = 40

    func withChannel<Value>(_ operation: StaticString, _ body: (Channel) -> Value) throws(FileError) -> Value {
        guard let channel = session.acquire() else { throw FileError(.ioError, operation) }
        defer { session.release(channel) }
        return body(channel)
    }

    /// Runs an operation on a path; where it leaves the volume and comes back, runs it again on what remains.
    func onPath<Value>(
        _ operation: StaticString, _ path: some PathRepresentable, _ body: (Channel, Place) -> (WireCompletion, Value?)
    ) throws(FileError) -> Value {
        var bytes = try checked(path.pathBytes, operation)
        for _ in 0..<FileSystem.linkLimit {
            var rest: [UInt8]?
            let (completion, value) = try withChannel(operation) { channel in
                let (completion, value) = unsafe bytes.withUnsafeBytes { unsafe body(channel, Place(PathBytes($0))) }
                if completion.result == WireCompletion.escape { rest = unsafe Array(channel.remainder(of: completion)) }
                return (completion, value)
            }
            if let rest {
                bytes = try inside(rest, operation, path)
                continue
            }
            guard completion.result >= 0, let value else { throw FileError(result: completion.result, operation, path.pathText) }
            return value
        }
        throw FileError(.tooManySymbolicLinks, operation, path.pathText)
    }

    func onPaths(
        _ operation: StaticString, _ first: some PathRepresentable, _ second: some PathRepresentable,
        _ body: (Channel, Place, Place) -> WireCompletion
    ) throws(FileError) {
        var one = try checked(first.pathBytes, operation)
        var two = try checked(second.pathBytes, operation)
        for _ in 0..<FileSystem.linkLimit {
            var rest: [UInt8]?
            let completion = try withChannel(operation) { channel in
                let completion = unsafe one.withUnsafeBytes { one in
                    unsafe two.withUnsafeBytes { two in unsafe body(channel, Place(PathBytes(one)), Place(PathBytes(two))) }
                }
                if completion.result == WireCompletion.escape { rest = unsafe Array(channel.remainder(of: completion)) }
                return completion
            }
            if let rest {
                if completion.info1 == 1 {
                    two = try inside(rest, operation, second)
                } else {
                    one = try inside(rest, operation, first)
                }
                continue
            }
            if completion.result < 0 { throw FileError(result: completion.result, operation, "\(first.pathText) -> \(second.pathText)") }
            return
        }
        throw FileError(.tooManySymbolicLinks, operation, first.pathText)
    }

    func checked(_ bytes: [UInt8], _ operation: StaticString) throws(FileError) -> [UInt8] {
        if bytes.isEmpty { throw FileError(.noSuchFile, operation, "") }
        if bytes.contains(0) { throw FileError(.invalidArgument, operation, String(decoding: bytes, as: UTF8.self)) }
        return bytes
    }

    /// What remains of a path that left the volume by "..": above the root is the root. One that left by an absolute link stays outside.
    func inside(_ rest: [UInt8], _ operation: StaticString, _ path: some PathRepresentable) throws(FileError) -> [UInt8] {
        let slash = UInt8(ascii: "/"), dot = UInt8(ascii: ".")
        var rest = rest[...]
        if rest.first == slash { throw FileError(.crossesVolumes, operation, path.pathText) }
        while rest.starts(with: [dot, dot]), rest.count == 2 || rest[rest.startIndex + 2] == slash {
            rest = rest.dropFirst(2).drop { $0 == slash }
        }
        return rest.isEmpty ? [slash] : Array(rest)
    }
}
