// `dashfs device`: NVMe controllers, and whose they are: the kernel's, or free for DashFS to drive. Invariant: what the kernel uses, or what holds a known
// file system, is not taken from it without --force.
import ArgumentParser
import BlockDevice

struct DeviceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "device",
        abstract: "List NVMe controllers, and hand them over to DashFS and back.",
        discussion: """
            A controller that DashFS drives itself, without the kernel, has to be with the kernel's vfio-pci, behind an IOMMU.

            EXAMPLES
              dashfs device list
              dashfs device bind 0000:01:00.0      then: dashfs serve nvme:0000:01:00.0
              dashfs device unbind 0000:01:00.0    it is the kernel's /dev/nvme… again
            """,
        subcommands: [List.self, Bind.self, Unbind.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Every NVMe controller: address, model, driver, IOMMU group and what it is used for.")

        @Flag(help: "One JSON object.")
        var json = false

        func run() throws {
            let controllers = PCIFunction.controllers().map(Controller.init)
            if json { return Terminal.output(try JSONText.encode(["controllers": controllers])) }
            guard !controllers.isEmpty else { return Terminal.output("There is no NVMe controller on this machine.") }
            var rows = [["address", "model", "serial", "driver", "IOMMU group", "disks", "used"]]
            for one in controllers {
                rows.append([
                    one.address, one.model, one.serial ?? "", one.driver ?? "none", one.iommuGroup ?? "none", one.disks.joined(separator: " "),
                    one.uses.joined(separator: "; "),
                ])
            }
            Terminal.output(Terminal.table(rows))
        }
    }

    struct Bind: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a controller from the kernel for DashFS to drive.")

        @Argument(help: "PCI address: 0000:01:00.0, as `dashfs device list` shows it.")
        var address: String

        @Flag(help: "Also where the kernel uses it, or it holds a file system of another kind.")
        var force = false

        func run() throws {
            let function = try DeviceCommand.controller(address)
            if !force {
                if let use = function.uses.first { throw Failure(.cannotCreate, "\(address): \(use); give it up first, or --force if that may break") }
                for disk in function.blockDevices {
                    if let content = try DeviceCommand.content(of: disk) {
                        throw Failure(.cannotCreate, "\(address): \(disk) holds something already (\(content)); give --force if DashFS may have it")
                    }
                }
            }
            try Failure.catching { () throws(DeviceError) in try function.bindToVFIO() }
            Terminal.output("\(address): ready; format it, or serve it, with: dashfs serve nvme:\(address)")
        }
    }

    struct Unbind: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Give a controller back to the kernel.")

        @Argument(help: "PCI address: 0000:01:00.0, as `dashfs device list` shows it.")
        var address: String

        func run() throws {
            let function = try DeviceCommand.controller(address)
            try Failure.catching { () throws(DeviceError) in try function.bindToKernel() }
            let disks = try DeviceCommand.controller(address).blockDevices
            Terminal.output("\(address): the kernel's again\(disks.isEmpty ? "" : ": /dev/\(disks.joined(separator: ", /dev/"))")")
        }
    }

    private static func controller(_ text: String) throws -> PCIFunction {
        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(text.hasPrefix("nvme:") ? text : "nvme:\(text)") }
        guard case .nvme(let address) = name else { throw Failure(.usage, "\(text): give a PCI address, such as 0000:01:00.0") }
        let function = try Failure.catching { () throws(DeviceError) in try PCIFunction(address) }
        guard function.isNVMe else { throw Failure(.usage, "\(address): this is not an NVMe controller; `dashfs device list` shows those there are") }
        return function
    }

    /// What a disk of the kernel's holds that is not a volume of ours.
    private static func content(of disk: String) throws(Failure) -> String? {
        var options = FileDevice.Options()
        options.readOnly = true
        let device = try Failure.catching { () throws(DeviceError) in try FileDevice.open("/dev/\(disk)", options: options) }
        defer { device.close() }
        let queue = try Failure.catching { () throws(DeviceError) in try device.makeQueue(depth: 4) }
        let found = try KnownContent.find(queue, device.capabilities)
        return found.flatMap { $0.hasPrefix(KnownContent.ownName) ? nil : $0 }
    }

    private struct Controller: Encodable {
        var address, model: String
        var serial, driver, iommuGroup: String?
        var disks, uses: [String]

        init(_ function: PCIFunction) {
            address = function.address
            let identity = function.kernelIdentity
            model = identity?.model ?? "\(Controller.hex(function.vendor)):\(Controller.hex(function.model))"
            serial = identity?.serial
            driver = function.driver
            iommuGroup = function.group
            disks = function.blockDevices
            uses = function.uses
        }

        private static func hex(_ value: UInt32) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
        }
    }
}
