/// What one operation costs in instructions: client and worker stepped in one thread, so that no waiting is counted.
///
///     valgrind --tool=callgrind dashfs-instructions OPERATION COUNT
///
/// The slope between two counts is the cost of one operation (`make instructions` prints the table).
///
///     dashfs-instructions OPERATION COUNT --device nvme:0000:00:04.0 --mark
///
/// on a device, which is formatted, in an emulator that counts between marks (`csystem_count.h`): from the beginning of each operation to its end, but not
/// while the device has it. Nothing looks for its answer meanwhile.
import BlockDevice
import CSystem
import Client
import Foundation
import Logging
import Server
import TestSupport
import Volume
import Wire

extension DeviceQueue {
    /// By the device's interrupt, where it has one; it has been armed.
    fileprivate func sleepUntilAnswered() {
        guard wakeupDescriptor >= 0 else { return _ = usleep(5000) }
        var wait = pollfd(fd: wakeupDescriptor, events: Int16(POLLIN), revents: 0)
        unsafe _ = poll(&wait, 1, 1000)
        _ = dashfs_eventfd_take(wakeupDescriptor)
    }
}

/// Everything is local to one function: globals of a main file would be the main actor's, and asking for it costs more than some of the operations.
func measure() throws {
    var arguments = CommandLine.arguments
    let marks = arguments.last == "--mark"
    if marks { arguments.removeLast() }
    let device = try arguments.firstIndex(of: "--device").map { try DeviceName.parse(arguments[$0 + 1]).open() }
    let operation = arguments.count > 1 ? arguments[1] : "read"
    let count = arguments.count > 2 ? Int(arguments[2]) ?? 1000 : 1000

    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-instructions-\(getpid())")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    if let device { try MemoryVolume.format(device) }
    let memory = try MemoryVolume(size: 512 << 20, cacheFrames: device == nil ? 32_768 : 4096, device: device, registered: device != nil)
    let socketPath = directory.appendingPathComponent("socket").path
    var configuration = ServerConfiguration(socketPath: socketPath)
    configuration.logger = Logger(label: "instructions") { _ in SwiftLogNoOpLogHandler() }
    let server = try Server(volume: memory.volume, queue: memory.queue, configuration: configuration)
    let socket = try unsafe socketPath.withCString { try unsafe Session.beginConnecting(path: $0, length: socketPath.utf8.count) }
    server.step(control: true)
    server.step(control: true)
    let session = try Session.finishConnecting(socket: socket)
    guard let channel = session.acquire() else { fatalError("no channel") }

    var counting = false
    /// One request, the worker stepped until it is answered.
    func call(_ request: inout WireRequest, at place: Place, second: PathBytes? = nil, secondLine: Bool = false) -> Int64 {
        guard let tag = channel.reserve() else { fatalError("no tag") }
        request.tag = tag
        channel.put(place, second: second, into: &request)
        channel.submit(request, secondLine: secondLine)
        while !channel.isComplete(tag) {
            server.step()
            if counting, memory.queue.inFlight > 0, !channel.isComplete(tag) {
                dashfs_count_off()
                memory.queue.sleepUntilAnswered()
                dashfs_count_on()
            }
        }
        return channel.take(tag).result
    }

    func withPath(_ text: String, _ body: (Place) -> Int64) -> Int64 {
        unsafe text.withCString { body(Place(unsafe PathBytes(terminated: $0))) }
    }

    let paths = (0..<1000).map { "/a/b/file\($0)" }
    for name in ["/a", "/a/b"] { _ = withPath(name) { var r = WireRequest(.mkdir); r.mode = 0o755; return call(&r, at: $0) } }
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 7, count: 1 << 20)

    func open(_ path: String, _ flags: UInt32) -> Int32 {
        Int32(withPath(path) { var r = WireRequest(.open); r.flags = flags; r.mode = 0o644; return call(&r, at: $0) })
    }
    func transfer(_ opcode: WireOpcode, _ handle: Int32, _ offset: Int64, _ length: Int) -> Int64 {
        var request = WireRequest(opcode)
        request.offset = offset
        request.bufferOffset = Channel.dataOffset
        request.bufferLength = UInt32(length)
        if opcode == .write { unsafe channel.dataArea.copyMemory(from: buffer, byteCount: length) }
        let result = call(&request, at: Place(handle: handle))
        if opcode == .read { unsafe buffer.copyMemory(from: channel.dataArea, byteCount: length) }
        return result
    }
    func simple(_ opcode: WireOpcode, _ handle: Int32) -> Int64 {
        var request = WireRequest(opcode)
        return call(&request, at: Place(handle: handle), secondLine: opcode == .close)
    }

    let file = open("/a/b/data", 0o102)
    for block in 0..<64 { _ = transfer(.write, file, Int64(block) * 4096, 4096) }
    _ = simple(.fsync, file)

    var failures = 0
    func expect(_ result: Int64) {
        if result < 0 && failures == 0 { print("first failure:", result, server.snapshot.parked, memory.volume.takeNotes()) }
        if result < 0 { failures += 1 }
    }
    func times(_ body: (Int) -> Int64) {
        // An emulator may be done before the file's clock has ticked: each read would then set the time of access.
        if marks {
            usleep(20_000)
            memory.queue.armWakeup()
        }
        for n in 0..<count {
            counting = marks
            if marks { dashfs_count_on() }
            let result = body(n)
            if marks { dashfs_count_off() }
            counting = false
            expect(result)
        }
    }
    let before = memory.queue.counters
    switch operation {
    case "null": times { _ in simple(.null, WireRequest.rootHandle) }
    case "read": times { transfer(.read, file, Int64($0 & 63) * 4096, 4096) }
    case "overwrite": times { transfer(.write, file, Int64($0 & 63) * 4096, 4096) }
    case "durable":
        // O_DIRECT and O_DSYNC, over blocks that lie where they belong.
        let written = open("/a/b/durable", 0o102)
        for block in 0..<1024 { _ = transfer(.write, written, Int64(block) * 4096, 4096) }
        _ = simple(.fsync, written)
        let durable = open("/a/b/durable", 0o50002)
        times { transfer(.write, durable, Int64($0 & 1023) * 4096, 4096) }
    case "append": times { transfer(.write, file, Int64($0 + 64) * 4096, 4096) }
    case "stat":
        times { _ in
            withPath("/a/b/data") {
                var r = WireRequest(.getattr)
                r.bufferOffset = Channel.dataOffset
                r.bufferLength = 144
                return call(&r, at: $0)
            }
        }
    case "open": times { _ in simple(.close, open("/a/b/data", 0)) }
    case "create": times { simple(.close, open(paths[$0], 0o102)) }
    case "createsync":
        times {
            let handle = open(paths[$0], 0o102)
            let written = transfer(.write, handle, 0, 4096)
            let synced = simple(.fsync, handle)
            return min(written, synced, simple(.close, handle))
        }
    case "unlink", "rename":
        for n in 0..<count { _ = simple(.close, open(paths[n], 0o102)) }
        if operation == "unlink" {
            times { withPath(paths[$0]) { var r = WireRequest(.unlink); return call(&r, at: $0) } }
        } else {
            times { n in
                unsafe "/a/b/other".withCString { to in
                    withPath(paths[n]) { var r = WireRequest(.rename); return call(&r, at: $0, second: unsafe PathBytes(terminated: to)) }
                }
            }
        }
    default: fatalError("unknown operation \(operation)")
    }
    if marks { dashfs_count_report() }
    let asked = memory.queue.counters
    print("device writes \(asked.writes - before.writes), flushes \(asked.flushes - before.flushes), bytes \(asked.bytesWritten - before.bytesWritten)")
    print("\(operation) \(count) failures \(failures)")
}

try measure()
exit(0)
