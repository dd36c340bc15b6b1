import Glibc

/// A PCI function as the kernel shows it in sysfs (Linux Documentation/ABI/testing/sysfs-bus-pci). Reading only.
package struct PCIFunction: Sendable {
    /// `0000:01:00.0`
    package let address: String
    /// Class, subclass and programming interface: 0x010802 is an NVMe controller.
    package let classCode: UInt32
    package let vendor: UInt32
    package let model: UInt32
    /// The kernel driver that has it, if any has.
    package let driver: String?
    /// Of the IOMMU; nil where there is none.
    package let group: String?

    package static let root = "/sys/bus/pci/devices"
    package static let nvmeClass: UInt32 = 0x01_08_02

    /// A group of VFIO's own making, where the kernel has been told to do without.
    package var hasNoIOMMU: Bool { group.map { unsafe access("/dev/vfio/noiommu-\($0)", F_OK) == 0 } ?? false }
    /// Whether the kernel uses one.
    package static var hasIOMMU: Bool { !names(in: "/sys/class/iommu").isEmpty }
    package static let iommuRemedy = "turn the IOMMU on in the firmware and for the kernel (intel_iommu=on or amd_iommu=on)"

    package var isNVMe: Bool { classCode == Self.nvmeClass }
    var directory: String { "\(Self.root)/\(address)" }

    package init(_ address: String) throws(DeviceError) {
        self.address = address
        let directory = "\(Self.root)/\(address)"
        guard let code = Self.number(directory + "/class") else {
            throw DeviceError(device: "nvme:\(address)", errno: ENODEV, message: "there is no PCI device at this address; `dashfs device list` shows those there are")
        }
        classCode = code
        vendor = Self.number(directory + "/vendor") ?? 0
        model = Self.number(directory + "/device") ?? 0
        driver = Self.linkName(directory + "/driver")
        group = Self.linkName(directory + "/iommu_group")
    }

    /// All NVMe controllers, in the order of their addresses.
    package static func controllers() -> [PCIFunction] {
        names(in: root).sorted().compactMap { try? PCIFunction($0) }.filter(\.isNVMe)
    }

    /// Block devices that the kernel's driver has made of it: `nvme0n1`. Of a controller that is one of several ways to a disk, the disk is its subsystem's,
    /// and what lies under the controller is hidden: it has no number.
    package var blockDevices: [String] {
        let controllers = Self.names(in: directory + "/nvme")
        let subsystems = Self.names(in: "/sys/class/nvme-subsystem").map { "/sys/class/nvme-subsystem/\($0)" }
            .filter { subsystem in controllers.contains { unsafe access("\(subsystem)/\($0)", F_OK) == 0 } }
        let places = controllers.map { "\(directory)/nvme/\($0)" } + subsystems
        return Set(places.flatMap(Self.names)).filter { unsafe access("/sys/class/block/\($0)/dev", F_OK) == 0 }.sorted()
    }

    /// - Throws: what it is, and what to do about it, where it is not an NVMe controller in VFIO's hands.
    func checkUsable(_ name: String) throws(DeviceError) {
        guard isNVMe else {
            throw DeviceError(device: name, errno: ENODEV, message: "this is not an NVMe controller (class 0x\(String(classCode, radix: 16))); `dashfs device list` shows those there are")
        }
        guard driver == "vfio-pci" else {
            let holder = driver.map { "is driven by the kernel (\($0))" } ?? "has no driver"
            throw DeviceError(device: name, errno: EBUSY, message: "the controller \(holder); hand it over first: dashfs device bind \(address)")
        }
    }

    // MARK: sysfs

    private static func number(_ path: String) -> UInt32? {
        guard let text = contents(path) else { return nil }
        let digits = text.hasPrefix("0x") ? text.dropFirst(2) : text[...]
        return UInt32(digits, radix: 16)
    }

    /// The first line of a small file.
    package static func contents(_ path: String) -> String? {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { Glibc.close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe read(file, &bytes, bytes.count)
        guard count >= 0 else { return nil }
        return String(decoding: bytes[..<count].prefix { $0 != 0x0A }, as: UTF8.self)
    }

    /// The last part of what a link leads to.
    private static func linkName(_ path: String) -> String? {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = unsafe readlink(path, &bytes, bytes.count)
        guard count > 0 else { return nil }
        let target = String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return target.split(separator: "/").last.map(String.init)
    }

    package static func names(in path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe _ = closedir(directory) }
        var found: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if !name.hasPrefix(".") { found.append(name) }
        }
        return found
    }
}
