/// How people name devices on the command line. Invariant: the text alone decides which driver; nothing is opened by parsing.
import Glibc

public enum DeviceName: Sendable, Equatable, CustomStringConvertible {
    /// `memory:1G`: bytes.
    case memory(UInt64)
    /// A path: a regular file or a block device.
    case file(String)
    /// `nvme:0000:01:00.0`: the PCI address of a controller.
    case nvme(String)

    /// - Throws: `DeviceError` with EINVAL for what names no device.
    public static func parse(_ text: String) throws(DeviceError) -> DeviceName {
        if text.hasPrefix("memory:") {
            guard let size = ByteSize.parse(text.dropFirst(7)), size >= UInt64(blockSize) else {
                throw DeviceError(
                    device: text, errno: EINVAL, message: "give a size of at least \(blockSize) bytes, such as memory:1G")
            }
            return .memory(size)
        }
        if text.hasPrefix("nvme:") {
            let address = String(text.dropFirst(5))
            guard isPCIAddress(address) else {
                throw DeviceError(device: text, errno: EINVAL, message: "give a PCI address, such as nvme:0000:01:00.0")
            }
            return .nvme(address.lowercased())
        }
        guard !text.isEmpty, !text.utf8.contains(0) else {
            throw DeviceError(device: "\"\(text)\"", errno: EINVAL, message: "give a path, or memory:SIZE")
        }
        return .file(text)
    }

    /// Opens it with its driver.
    /// - Parameters:
    ///   - options: for files; a controller that is driven from here knows `readOnly` only.
    ///   - withoutIOMMU: a controller is taken even where no IOMMU keeps it to its memory.
    public func open(options: FileDevice.Options = FileDevice.Options(), withoutIOMMU: Bool = false) throws(DeviceError) -> any BlockDevice {
        switch self {
        case .memory(let size): return try MemoryDevice(size: size)
        case .file(let path): return try FileDevice.open(path, options: options)
        case .nvme(let address): return try NVMeDevice(VFIOTransport(address, withoutIOMMU: withoutIOMMU), readOnly: options.readOnly)
        }
    }

    public var description: String {
        switch self {
        case .memory(let size): "memory:\(ByteSize.format(size))"
        case .file(let path): path
        case .nvme(let address): "nvme:\(address)"
        }
    }

    /// dddd:bb:dd.f, in hexadecimal.
    private static func isPCIAddress(_ text: String) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let point = parts.last?.split(separator: ".", omittingEmptySubsequences: false), point.count == 2
        else { return false }
        return zip([parts[0], parts[1], point[0], point[1]], [4, 2, 2, 1]).allSatisfy { part, digits in
            part.count == digits && part.allSatisfy { $0.isASCII && $0.isHexDigit }
        }
    }
}
