// Keeps a small table of fixed records on a DashFS volume: many writes in the ring at once, one synchronization, a lock against a second writer, and
// a read back.
//
//     dashfs serve memory:1G --socket /tmp/dashfs.sock &
//     swift run -c release example-records /tmp/dashfs.sock /table
import DashFS
import Glibc

let recordBytes = 512
let recordCount = 200

func record(_ number: Int) -> [UInt8] {
    (0..<recordBytes).map { UInt8(truncatingIfNeeded: number &* 7 &+ $0) }
}

/// Fills the table: 64 requests under way together, until all are answered.
func fill(_ volume: FileSystem, _ file: borrowing File) throws(FileError) {
    var batch = try volume.batch()
    var number = 0
    while number < recordCount {
        var tickets: [Batch.Ticket] = []
        while tickets.count < 64, number < recordCount {
            tickets.append(unsafe try batch.write(record(number).span.bytes, to: file, at: Int64(number * recordBytes)))
            number += 1
        }
        batch.run()
        for ticket in tickets { try batch.result(of: ticket) }
        batch.reset()
    }
}

func run(_ socket: String, _ path: String) async throws(FileError) {
    let volume = try FileSystem.connect(socket: socket)
    let file = try await volume.open(path, [.readWrite, .create], permissions: 0o600)
    try file.lock(.exclusive, waiting: false)
    try file.allocate(0..<Int64(recordBytes * recordCount))
    try fill(volume, file)
    // Everything acknowledged so far, and the file's name, survive a power cut from here on.
    try await file.synchronize()
    let bytes = try await file.read(upTo: recordBytes * recordCount, at: 0)
    for number in 0..<recordCount where Array(bytes[(number * recordBytes)..<((number + 1) * recordBytes)]) != record(number) {
        print("record \(number) differs")
        return
    }
    try volume.setExtendedAttribute("user.records", to: Array("\(recordCount)".utf8), of: path)
    try file.unlock()
    try file.close()
    print("\(recordCount) records written, synchronized and compared")
}

guard CommandLine.arguments.count == 3 else {
    print("usage: example-records SOCKET PATH")
    exit(64)
}
do {
    try await run(CommandLine.arguments[1], CommandLine.arguments[2])
} catch {
    print("\(error)")
}
