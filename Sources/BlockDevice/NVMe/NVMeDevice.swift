import Glibc

/// An NVMe namespace that this process drives itself, with no kernel on the way of a request.
///
/// Invariant: what the device is and promises is what its controller said when it was opened; a reset after which it says something else that
/// matters gives the device up. All queues are used by one thread.
public final class NVMeDevice: BlockDevice {
    public let capabilities: DeviceCapabilities
    package let controller: NVMeController
    private var isOpen = true

    /// Longer requests are of no use to anybody here, and each slot's list of pages is as long as the longest.
    static let maximumTransfer = 1 << 20
    /// Of the error log, the newest that are shown.
    private static let errorEntries = 8

    /// Takes the controller over, resetting whatever it was in the middle of.
    package init(_ transport: any NVMeTransport, readOnly: Bool = false, options: NVMeController.Options = NVMeController.Options()) throws(DeviceError) {
        let controller = try NVMeController(transport, options: options)
        self.controller = controller
        let (identity, namespace) = (controller.identity, controller.namespace)
        var capabilities = DeviceCapabilities(blockCount: namespace.blocks / UInt64(blockSize / namespace.blockSize))
        capabilities.logicalBlockSize = namespace.blockSize
        capabilities.atomicWriteUnit = namespace.atomicUnit
        capabilities.volatileCache = controller.hasVolatileCache
        capabilities.supportsForceUnitAccess = !identity.ignoresForcedWrites
        capabilities.supportsDiscard = identity.hasDeallocate
        capabilities.supportsWriteZeroes = identity.hasWriteZeroes
        capabilities.readOnly = readOnly || namespace.isWriteProtected
        capabilities.memoryAlignment = blockSize
        capabilities.maximumTransfer = min(identity.maximumTransfer ?? Self.maximumTransfer, Self.maximumTransfer)
        capabilities.description = "\(transport.name), \(identity.model) (serial \(identity.serial), firmware \(identity.firmware)), driven from here"
        self.capabilities = capabilities
        guard capabilities.blockCount > 0 else {
            throw DeviceError(device: transport.name, errno: EINVAL, message: "namespace 1 is smaller than one block of \(blockSize) bytes")
        }
    }

    deinit { close() }

    public var warnings: [String] { controller.transport.warnings }

    public func condition() throws(DeviceError) -> [(name: String, text: String)] {
        let health = unsafe try controller.readLog(NVMeLog.health, bytes: NVMeHealth.bytes).withUnsafeBytes { unsafe $0.baseAddress.map { unsafe NVMeHealth($0) } }
        guard let health else { return [] }
        var rows = [
            ("health", health.warnings.isEmpty ? "good" : health.warnings.joined(separator: ", ")),
            ("wear", "\(health.used)% of its life used, \(health.spare)% spare (\(health.spareThreshold)% is too little), \(health.temperature) °C"),
            ("moved", "\(health.bytesRead) bytes read, \(health.bytesWritten) written, in \(health.powerOnHours) hours"),
            ("power", "\(health.powerCycles) times on, \(health.unsafeShutdowns) times off without a shutdown"),
            ("errors", "\(health.mediaErrors) of the medium, \(health.loggedErrors) in the log"),
        ]
        guard health.loggedErrors > 0 else { return rows }
        let count = min(controller.identity.errorLogEntries, Self.errorEntries)
        let log = try controller.readLog(NVMeLog.errors, bytes: count * NVMeErrorEntry.bytes)
        unsafe log.withUnsafeBytes { bytes in
            for number in 0..<count {
                guard let base = bytes.baseAddress, let entry = unsafe NVMeErrorEntry(base + number * NVMeErrorEntry.bytes) else { continue }
                rows.append(("error", "number \(entry.count): status 0x\(String(entry.status, radix: 16)), queue \(entry.queue), logical block \(entry.logicalBlock)"))
            }
        }
        return rows
    }

    public func makeQueue(depth: Int) throws(DeviceError) -> any DeviceQueue {
        try checkQueueDepth(depth, device: controller.transport.name)
        guard isOpen else { throw DeviceError(device: controller.transport.name, errno: EBADF, message: "the device has been closed") }
        return try NVMeQueue(controller, depth: depth, capabilities: capabilities)
    }

    public func close() {
        guard isOpen else { return }
        isOpen = false
        controller.close()
    }
}
