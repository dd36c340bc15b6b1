// `dashfs info`: what a device holds, from its superblock and group blocks. Invariant: read-only, and right beside other readers.
import ArgumentParser
import BlockDevice
import Volume

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Show what a volume is and how full.",
        discussion: """
            The device must not be served at the same time; ask a running server with `df /dash` under `dashfs run`.

            EXAMPLES
              dashfs info disk.img
              dashfs info /dev/nvme0n1p3 --json
            """)

    @Argument(help: "A formatted file or block device.", completion: .file())
    var device: String

    @Flag(help: "One JSON object, sizes in bytes.")
    var json = false

    func run() throws {
        let opened = try ReadOnlyDevice(device)
        defer { opened.close() }
        let summary: VolumeSummary
        do throws(VolumeError) {
            summary = try VolumeSummary(opened.queue, opened.capabilities)
        } catch {
            throw Failure(error, device: device)
        }
        if json { return Terminal.output(try JSONText.encode(InfoReport(summary, device: device))) }
        let report = InfoReport(summary, device: device)
        var rows = [
            ["device", opened.capabilities.description],
            ["uuid", report.uuid],
            ["version", "\(report.version)"],
            ["features", "compat \(hex(report.compatibleFeatures)), ro-compat \(hex(report.readOnlyCompatibleFeatures)), incompat \(hex(report.incompatibleFeatures))"],
            ["state", report.clean ? "clean" : "in use or not shut down in order: the next server recovers it"],
            ["size", "\(ByteSize.format(report.bytes)) (\(report.bytes / UInt64(blockSize)) blocks of 4K)"],
            ["free", "\(Quantity.text(report.freeBytes))\(report.clean ? "" : " before recovery")"],
            ["inodes", "\(report.inodes), \(report.freeInodes) free"],
            ["journal", ByteSize.format(report.journalBytes)],
            ["groups", "\(report.groups) of \(ByteSize.format(report.groupBytes))"],
            ["mounts", "\(report.epoch)"],
        ]
        if let damage = report.damage { rows.append(["damage", "\(damage); run: dashfs check \(device)"]) }
        Terminal.output(rows.map { "\($0[0])\(String(repeating: " ", count: 10 - $0[0].count))\($0[1])" }.joined(separator: "\n"))
    }

    private func hex(_ value: UInt64) -> String { "0x\(String(value, radix: 16))" }
}

private struct InfoReport: Encodable {
    var device, uuid: String
    var version: UInt32
    var clean: Bool
    var bytes, freeBytes, inodes, freeInodes, journalBytes, groups, groupBytes, epoch: UInt64
    var compatibleFeatures, readOnlyCompatibleFeatures, incompatibleFeatures: UInt64
    var damage: String?

    init(_ summary: VolumeSummary, device: String) {
        let block = UInt64(blockSize)
        self.device = device
        uuid = Volume.uuidText(summary.uuid)
        version = summary.version
        clean = summary.clean
        bytes = summary.blockCount * block
        freeBytes = summary.freeBlocks * block
        inodes = summary.inodeCount
        freeInodes = summary.freeInodes
        journalBytes = summary.journalBlocks * block
        groups = summary.groupCount
        groupBytes = summary.blocksPerGroup * block
        epoch = summary.epoch
        compatibleFeatures = summary.compatibleFeatures
        readOnlyCompatibleFeatures = summary.readOnlyCompatibleFeatures
        incompatibleFeatures = summary.incompatibleFeatures
        damage = summary.damage
    }
}

/// Sizes for people, to a tenth.
enum Quantity {
    static func text(_ bytes: UInt64) -> String {
        for (name, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] where bytes >> UInt64(shift) > 0 {
            let tenths = bytes / (UInt64(1) << UInt64(shift)) * 10 + bytes % (UInt64(1) << UInt64(shift)) * 10 >> UInt64(shift)
            return tenths % 10 == 0 ? "\(tenths / 10)\(name)" : "\(tenths / 10).\(tenths % 10)\(name)"
        }
        return "\(bytes)"
    }
}
