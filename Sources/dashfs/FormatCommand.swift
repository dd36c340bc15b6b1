// `dashfs format`: an empty volume on a file or device. Invariant: what is there already is never overwritten without --force.
import ArgumentParser
import BlockDevice
import Glibc
import Volume

struct FormatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "format",
        abstract: "Make an empty volume on a file, a block device or an NVMe controller.",
        discussion: """
            A file that does not exist is made, with --size. A device that holds a known file system, a partition table or the
            like is refused, unless --force says that its content may go.

            EXAMPLES
              dashfs format disk.img --size 1G
              dashfs format /dev/nvme0n1p3
              dashfs format nvme:0000:01:00.0
              dashfs format disk.img --force
            """)

    @Argument(help: "A file, a block device, or nvme:ADDRESS.", completion: .file())
    var device: String

    @Option(help: ArgumentHelp("Make the file, of this size (64M, 1G, 2T), where there is none yet.", valueName: "size"))
    var size: Size?

    @Flag(help: "Overwrite what the device holds.")
    var force = false

    @Option(help: ArgumentHelp("Size of the journal; 1/64 of the volume, 1M to 128M, where it is not given.", valueName: "size"))
    var journal: Size?

    @Option(help: ArgumentHelp("How many files and directories there can be; one per 16 KiB where it is not given.", valueName: "count"))
    var inodes: UInt64?

    @OptionGroup var driver: DriverArguments

    func run() throws {
        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(device) }
        var isNew = false
        switch name {
        case .memory: throw Failure(.usage, "\(device): only files and devices are formatted; `dashfs serve \(device)` formats memory itself")
        case .nvme: break
        case .file(let path):
            guard !Places.exists(path) else { break }
            guard let size else { throw Failure(.noInput, "\(path): there is no such file; make one by giving its --size, such as --size 1G") }
            try Failure.catching { () throws(DeviceError) in try FileDevice.create(path, size: size.bytes / UInt64(blockSize) * UInt64(blockSize)) }
            isNew = true
        }
        do {
            try format(name, isNew: isNew)
        } catch {
            // A file that this command made and could not finish is not left behind.
            if isNew { unsafe _ = unlink(device) }
            throw error
        }
    }

    private func format(_ name: DeviceName, isNew: Bool) throws {
        let opened = try Failure.catching { () throws(DeviceError) in try name.open(withoutIOMMU: driver.withoutIOMMU) }
        defer { opened.close() }
        if !isNew, let size, size.bytes / UInt64(blockSize) != opened.capabilities.blockCount {
            throw Failure(
                .usage,
                "\(device): is there already and has \(ByteSize.format(opened.capabilities.byteCount)); leave --size away, or remove the file first")
        }
        let queue = try Failure.catching { () throws(DeviceError) in try opened.makeQueue(depth: 8) }
        if !force && !isNew, let content = try KnownContent.find(queue, opened.capabilities) {
            throw Failure(.cannotCreate, "\(device): holds something already (\(content)); give --force if that may be destroyed")
        }
        var line = ProgressLine("formatting \(device)")
        do throws(VolumeError) {
            try Volume.formatFresh(queue, opened.capabilities, progress: { line.update($0) }) { options in
                if let journal { options.journalBlocks = journal.bytes / UInt64(blockSize) }
                if let inodes { options.inodes = inodes }
            }
        } catch {
            line.end()
            throw Failure(error, device: device)
        }
        line.end()
        Terminal.output("\(device): \(ByteSize.format(opened.capabilities.byteCount)), formatted; serve it with: dashfs serve \(device)")
    }
}
