// The operations that `bench micro` times, as a C program would write them. Invariant: what a batch makes it removes, outside the time that
// is taken; the loops allocate nothing.
import CSystem
import Glibc

/// One operation and how often a batch does it.
enum MicroOperation: String, CaseIterable, Encodable {
    case read, overwrite, append, stat, openClose, create, unlink, rename, readdir, durable

    var title: String {
        switch self {
        case .read: "4 KiB cached read"
        case .overwrite: "4 KiB overwrite"
        case .append: "4 KiB append"
        case .stat: "stat, 3 components"
        case .openClose: "open + close"
        case .create: "create"
        case .unlink: "unlink"
        case .rename: "rename"
        case .readdir: "readdir of 10,000"
        case .durable: "create + 4 KiB + fsync + close"
        }
    }

    var count: Int {
        switch self {
        case .read, .overwrite, .stat: 4000
        case .append, .openClose: 2000
        case .create, .unlink, .rename: 1000
        case .readdir: 1
        case .durable: 1000
        }
    }

    /// What the project asks of it, beside ext4.
    func goal(through: String) -> Goal? {
        if through == "library" { return self == .openClose ? .atMost(0.35) : nil }
        return switch self {
        case .read: .atMost(0.7)
        case .overwrite: .atMost(0.6)
        case .append: .atMost(0.4)
        case .stat: .atMost(0.5)
        case .openClose: .atMost(0.6)
        case .unlink, .rename: .atMost(0.3)
        case .create, .readdir, .durable: nil
        }
    }
}

/// What of a batch to do: all of it, or only the timed part, and what comes after it later.
enum BatchPart: String { case whole, timed, finish }

@safe struct Workload<G: Ground> {
    private static var nameBytes: Int { 256 }
    private static var pages: Int { 1024 }
    private static var entries: Int { 10_000 }

    private let ground: G
    private let names: UnsafeMutablePointer<CChar>
    private let buffer: UnsafeMutableRawPointer
    private let data: Int32
    private let log: Int32
    private let deep: UnsafeMutablePointer<CChar>
    private let many: UnsafeMutablePointer<CChar>

    struct Failed: Error {
        var what: String
        var number: Int32
    }

    private static func need(_ result: Int64, _ what: @autoclosure () -> String) throws(Failed) -> Int64 {
        if result < 0 { throw Failed(what: what(), number: Int32(truncatingIfNeeded: -result)) }
        return result
    }

    /// Makes the files that the operations use, below `root`, which is made too; only the directory that `durable` uses where that is wanted.
    init(_ ground: G, root: String, onlyDirectory: Bool) throws(Failed) {
        self.ground = ground
        func text(_ path: String) -> UnsafeMutablePointer<CChar> { unsafe strdup(path) }
        unsafe buffer = .allocate(byteCount: 4096, alignment: 4096)
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0x5A, count: 4096)
        for directory in [root, root + "/one", root + "/one/two", root + "/new", root + "/many"] {
            let path = unsafe text(directory)
            defer { unsafe free(path) }
            _ = try Workload.need(unsafe ground.makeDirectory(path), "mkdir \(directory)")
        }
        unsafe deep = text(root + "/one/two/file")
        unsafe many = text(root + "/many")
        unsafe names = .allocate(capacity: Workload.nameBytes * 1000)
        for number in 0..<1000 {
            var at = 0
            for byte in "\(root)/new/file\(number)".utf8.prefix(Workload.nameBytes - 1) {
                unsafe names[number * Workload.nameBytes + at] = CChar(bitPattern: byte)
                at += 1
            }
            unsafe names[number * Workload.nameBytes + at] = 0
        }
        if onlyDirectory {
            (data, log) = (-1, -1)
            return
        }
        let file = Int32(try Workload.need(unsafe ground.open(deep, O_CREAT | O_RDWR), "create"))
        _ = try Workload.need(ground.close(file), "close")
        let dataPath = unsafe text(root + "/data")
        let logPath = unsafe text(root + "/log")
        data = Int32(try Workload.need(unsafe ground.open(dataPath, O_CREAT | O_RDWR), "create"))
        log = Int32(try Workload.need(unsafe ground.open(logPath, O_CREAT | O_RDWR | O_APPEND), "create"))
        for page in 0..<Workload.pages { _ = try Workload.need(unsafe ground.write(data, from: buffer, 4096, at: Int64(page) * 4096), "write") }
        _ = try Workload.need(ground.synchronize(data), "fsync")
        for number in 0..<Workload.entries {
            let path = unsafe text("\(root)/many/entry\(number)")
            defer { unsafe free(path) }
            let file = Int32(try Workload.need(unsafe ground.open(path, O_CREAT | O_RDWR), "create"))
            _ = try Workload.need(ground.close(file), "close")
        }
    }

    private func name(_ number: Int) -> UnsafeMutablePointer<CChar> { unsafe names + number * Workload.nameBytes }

    /// Does the operation `count` times (at most 1000 where it makes files).
    /// - Returns: nanoseconds it took, preparation and clean-up left out.
    func run(_ operation: MicroOperation, count: Int, _ part: BatchPart) throws(Failed) -> UInt64 {
        var taken: UInt64 = 0
        if part != .finish {
            _ = try Workload.need(prepare(operation, count), "preparing \(operation.rawValue)")
            let begun = dashfs_clock_monotonic()
            let worst = perform(operation, count)
            taken = dashfs_clock_monotonic() - begun
            _ = try Workload.need(worst, operation.rawValue)
        }
        if part != .timed { _ = try Workload.need(cleanUp(operation, count), "after \(operation.rawValue)") }
        return taken
    }

    /// What the operation finds. Ends with some operations, so that neither side begins asleep or at a processor's lowest speed.
    private func prepare(_ operation: MicroOperation, _ count: Int) -> Int64 {
        switch operation {
        case .read, .overwrite, .stat, .openClose, .readdir: perform(operation, max(count / 16, 1))
        case .append: min(perform(operation, max(count / 16, 1)), ground.truncate(log, 0))
        case .unlink: makeFiles(min(count, 1000))
        case .rename: makeFiles(1)
        case .create, .durable: 0
        }
    }

    private func cleanUp(_ operation: MicroOperation, _ count: Int) -> Int64 {
        switch operation {
        case .create, .durable: removeFiles(min(count, 1000))
        case .rename: unsafe ground.unlink(name(count & 1))
        default: 0
        }
    }

    private func perform(_ operation: MicroOperation, _ count: Int) -> Int64 {
        var worst: Int64 = 0
        let files = min(count, 1000)
        switch operation {
        case .read:
            for turn in 0..<count { worst = unsafe min(worst, ground.read(data, into: buffer, 4096, at: page(turn))) }
        case .overwrite:
            for turn in 0..<count { worst = unsafe min(worst, ground.write(data, from: buffer, 4096, at: page(turn))) }
        case .append:
            for _ in 0..<count { worst = unsafe min(worst, ground.append(log, from: buffer, 4096)) }
        case .stat:
            for _ in 0..<count { worst = unsafe min(worst, ground.status(deep)) }
        case .openClose:
            for _ in 0..<count {
                let file = unsafe ground.open(deep, O_RDONLY)
                worst = min(worst, file, ground.close(Int32(truncatingIfNeeded: file)))
            }
        case .create: worst = makeFiles(files)
        case .unlink: worst = removeFiles(files)
        case .rename:
            for turn in 0..<count { worst = unsafe min(worst, ground.rename(name(turn & 1), to: name(turn & 1 ^ 1))) }
        case .readdir:
            for _ in 0..<count {
                let found = unsafe ground.entries(many)
                // `.` and `..` are told or not.
                worst = min(worst, found < Workload.entries ? -Int64(EIO) : 0)
            }
        case .durable:
            for number in 0..<files {
                let file = unsafe ground.open(name(number), O_CREAT | O_EXCL | O_WRONLY)
                let handle = Int32(truncatingIfNeeded: file)
                worst = unsafe min(worst, file, ground.append(handle, from: buffer, 4096), ground.synchronize(handle), ground.close(handle))
            }
        }
        return worst
    }

    /// Every page in turn, not one after the other.
    @inline(__always) private func page(_ turn: Int) -> Int64 { Int64((turn &* 389) & (Workload.pages - 1)) &* 4096 }

    private func makeFiles(_ count: Int) -> Int64 {
        var worst: Int64 = 0
        for number in 0..<count {
            let file = unsafe ground.open(name(number), O_CREAT | O_EXCL | O_WRONLY)
            worst = min(worst, file, ground.close(Int32(truncatingIfNeeded: file)))
        }
        return worst
    }

    private func removeFiles(_ count: Int) -> Int64 {
        var worst: Int64 = 0
        for number in 0..<count { worst = unsafe min(worst, ground.unlink(name(number))) }
        return worst
    }
}
