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

    /// Takes the controller over, resetting whatever it was in the middle of.
    package init(_ transport: any NVMeTransport, options: NVMeController.Options = NVMeController.Options()) throws(DeviceError) {
        let controller = try NVMeController(transport, options: options)
        self.controller = controller
        let (identity, namespace) = (controller.identity, controller.namespace)
        var capabilities = DeviceCapabilities(blockCount: namespace.blocks / UInt64(blockSize / namespace.blockSize))
        capabilities.logicalBlockSize = namespace.blockSize
        capabilities.atomicWriteUnit = namespace.atomicUnit
        capabilities.volatileCache = controller.hasVolatileCache
        capabilities.supportsForceUnitAccess = true
        capabilities.supportsDiscard = identity.hasDeallocate
        capabilities.supportsWriteZeroes = identity.hasWriteZeroes
        capabilities.readOnly = namespace.isWriteProtected
        capabilities.memoryAlignment = blockSize
        capabilities.maximumTransfer = min(identity.maximumTransfer ?? Self.maximumTransfer, Self.maximumTransfer)
        capabilities.description = "\(transport.name), \(identity.model) (serial \(identity.serial), firmware \(identity.firmware)), driven from here"
        self.capabilities = capabilities
        guard capabilities.blockCount > 0 else {
            throw DeviceError(device: transport.name, errno: EINVAL, message: "namespace 1 is smaller than one block of \(blockSize) bytes")
        }
    }

    deinit { close() }

    public var warnings: [String] { controller.notes }

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
