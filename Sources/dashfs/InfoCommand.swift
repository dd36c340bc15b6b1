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
              dashfs info nvme:0000:01:00.0        with the device's health and its log of errors
            """)

    @Argument(help: "A formatted file or block device.", completion: .file())
    var device: String

    @OptionGroup var driver: DriverArguments

    @Flag(help: "One JSON object, sizes in bytes.")
    var json = false

    func run() throws {
        let opened = try ReadOnlyDevice(device, driver)
        defer { opened.close() }
        let summary: VolumeSummary
        do throws(VolumeError) {
            summary = try VolumeSummary(opened.queue, opened.capabilities)
        } catch {
            throw Failure(error, device: device)
        }
        let opinion = try Failure.catching { () throws(DeviceError) in try opened.device.condition() }
        let report = InfoReport(summary, device: device, opened.capabilities, opinion)
        if json { return Terminal.output(try JSONText.encode(report)) }
        var rows = [
            ["device", opened.capabilities.description],
            ["sectors", "\(report.offers.sectorBytes) bytes; a write of \(report.offers.atomicWriteBytes) is whole or not there, \(report.offers.atomicWriteBytes < blockSize ? "so blocks are logged before they are overwritten" : "so no block is logged for that")"],
            ["cache", report.offers.volatileCache ? "volatile: every sync flushes it" : "none that a power cut empties: nothing is flushed"],
            ["discard", report.offers.discard ? "freed blocks are told to the device" : "not offered"],
            ["zeroes", report.offers.writeZeroes ? "without a transfer" : "as data"],
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
        rows += report.health.map { [$0.name, $0.text] }
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
    var offers: Offers
    var health: [Health]

    /// What the device is and promises, and the volume makes use of.
    struct Offers: Encodable {
        var sectorBytes, atomicWriteBytes, longestTransferBytes: Int
        var volatileCache, forceUnitAccess, discard, writeZeroes: Bool
    }
    struct Health: Encodable { var name, text: String }

    init(_ summary: VolumeSummary, device: String, _ capabilities: DeviceCapabilities, _ condition: [(name: String, text: String)]) {
        offers = Offers(
            sectorBytes: capabilities.logicalBlockSize, atomicWriteBytes: capabilities.atomicWriteUnit, longestTransferBytes: capabilities.maximumTransfer,
            volatileCache: capabilities.volatileCache, forceUnitAccess: capabilities.supportsForceUnitAccess, discard: capabilities.supportsDiscard,
            writeZeroes: capabilities.supportsWriteZeroes)
        health = condition.map { Health(name: $0.name, text: $0.text) }
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
