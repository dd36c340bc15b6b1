import Glibc

/// Which driver has a function, and giving it to another one (Linux Documentation/ABI/testing/sysfs-bus-pci: driver_override, drivers_probe).
extension PCIFunction {
    /// Gives it to vfio-pci. What the kernel had of it is gone for the kernel's programs at once.
    package func bindToVFIO() throws(DeviceError) {
        guard driver != "vfio-pci" else { return }
        guard group != nil || Self.contents("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y" else {
            throw failure(ENODEV, "there is no IOMMU group: \(Self.iommuRemedy)")
        }
        guard unsafe access("/sys/bus/pci/drivers/vfio-pci", F_OK) == 0 else { throw failure(ENODEV, "the kernel has no vfio-pci; load it: modprobe vfio-pci") }
        try move(to: "vfio-pci", override: "vfio-pci")
    }

    /// Gives it back to the kernel's own driver.
    package func bindToKernel() throws(DeviceError) {
        guard driver != "nvme" else { return }
        try move(to: "nvme", override: "")
    }

    private func move(to wanted: String, override: String) throws(DeviceError) {
        try write("\(directory)/driver_override", override + "\n")
        if driver != nil { try write("\(directory)/driver/unbind", address) }
        try write("/sys/bus/pci/drivers_probe", address)
        let now = try PCIFunction(address).driver
        guard now == wanted else {
            // Whoever had it may have it again.
            try? write("\(directory)/driver_override", "\n")
            if now == nil { try? write("/sys/bus/pci/drivers_probe", address) }
            throw failure(EIO, "the kernel has not given it to \(wanted) (it is with \(now ?? "no driver")); the kernel's log says why (dmesg)")
        }
    }

    private func write(_ path: String, _ text: String) throws(DeviceError) {
        let file = unsafe open(path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else {
            let number = errno
            throw failure(number, number == EACCES ? "only root can hand a device over (\(path))" : "\(path): \(errorText(number))")
        }
        defer { Glibc.close(file) }
        let bytes = Array(text.utf8)
        guard unsafe Glibc.write(file, bytes, bytes.count) == bytes.count else { throw failure(errno, "\(path): \(errorText(errno))") }
    }

    private func failure(_ number: Int32, _ message: String) -> DeviceError { DeviceError(device: "nvme:\(address)", errno: number, message: message) }

    /// What the kernel uses it for, one phrase each: mounted file systems, swap, and what is built on it.
    package var uses: [String] {
        let mounts = Self.lines("/proc/self/mountinfo").compactMap { line -> (number: String, place: String)? in
            let words = line.split(separator: " ")
            return words.count > 4 ? (String(words[2]), String(words[4])) : nil
        }
        let swaps = Self.lines("/proc/swaps").compactMap { $0.split(whereSeparator: { $0 == " " || $0 == "\t" }).first.map(String.init) }
        var found: [String] = []
        for disk in blockDevices {
            let parts = Self.names(in: "/sys/class/block/\(disk)").filter { unsafe access("/sys/class/block/\(disk)/\($0)/partition", F_OK) == 0 }.sorted()
            for part in [disk] + parts {
                if let number = Self.contents("/sys/class/block/\(part)/dev") {
                    found += mounts.filter { $0.number == number }.map { "\(part) is mounted on \($0.place)" }
                }
                if swaps.contains("/dev/\(part)") { found.append("\(part) is swap space") }
                found += Self.names(in: "/sys/class/block/\(part)/holders").map { "\(part) is part of \($0)" }
            }
        }
        return found
    }

    /// What the kernel's driver says of it, while it has it.
    package var kernelIdentity: (model: String, serial: String)? {
        guard let controller = Self.names(in: directory + "/nvme").first,
            let model = Self.contents("\(directory)/nvme/\(controller)/model"), let serial = Self.contents("\(directory)/nvme/\(controller)/serial")
        else { return nil }
        func trimmed(_ text: String) -> String { String(text.reversed().drop { $0 == " " }.reversed()) }
        return (trimmed(model), trimmed(serial))
    }

    private static func lines(_ path: String) -> [Substring] {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return [] }
        defer { Glibc.close(file) }
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = unsafe read(file, &piece, piece.count)
            guard count > 0 else { break }
            text += piece[..<count]
        }
        return String(decoding: text, as: UTF8.self).split(separator: "\n")
    }
}
