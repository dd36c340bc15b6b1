import Glibc

/// What a controller says of itself and of its namespace (base specification, "Identify Controller data structure"; NVM command set, "Identify
/// Namespace data structure"), judged: what the driver cannot use is refused here, before anything is written.
package struct NVMeIdentity: Equatable, Sendable {
    package var serial = ""
    package var model = ""
    package var firmware = ""
    /// Largest transfer in bytes; nil: no limit of the controller's.
    package var maximumTransfer: Int?
    package var hasVolatileCache = false
    package var hasDeallocate = false
    package var hasWriteZeroes = false
    package var hasDoorbellBuffers = false
    /// Bytes that a power cut does not tear, by the controller's word for all of its namespaces, in logical blocks.
    package var atomicBlocks = 1
    /// Submission queue entries of 64 bytes and completion queue entries of 16 bytes are possible.
    package var hasUsualEntries = false
    package var namespaces: UInt32 = 0
    package var tellsNamespaceChanges = false
    /// Entries of the error log that the device keeps.
    package var errorLogEntries = 1
    /// What the controller wants to pass before another try, in nanoseconds: "Command Retry Delay Time".
    package var retryDelays: [UInt64] = [0, 0, 0]
    /// Bytes of one Write Zeroes, and logical blocks of one range to deallocate; nil: no limit that it tells.
    package var zeroesLimit: Int?
    package var deallocateLimit: Int?
    /// What an orderly shutdown may take, in nanoseconds.
    package var shutdownTime: UInt64 = 5_000_000_000

    /// QEMU's controller carries a forced write out as any other (its hw/nvme/ctrl.c, 7.2): a host that loses power may lose it.
    package var ignoresForcedWrites: Bool { model == "QEMU NVMe Ctrl" }

    package static let bytes = 4096

    package init() {}

    package init(controller data: UnsafeRawPointer, smallestPage: Int) {
        func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
            T(littleEndian: unsafe data.loadUnaligned(fromByteOffset: offset, as: type))
        }
        func text(_ offset: Int, _ count: Int) -> String {
            let bytes = (0..<count).map { unsafe data.load(fromByteOffset: offset + $0, as: UInt8.self) }
            // Printable ASCII by the specification; what is not is no matter for a terminal.
            return String(decoding: bytes.map { 0x20..<0x7F ~= $0 ? $0 : 0x3F }, as: UTF8.self).trimmedSpaces
        }
        serial = text(4, 20)
        model = text(24, 40)
        firmware = text(64, 8)
        let shift = number(77, UInt8.self)
        maximumTransfer = shift == 0 ? nil : smallestPage << min(Int(shift), 20)
        let shutdownMicroseconds = number(88, UInt32.self)
        if shutdownMicroseconds > 0 { shutdownTime = min(UInt64(shutdownMicroseconds) * 1000, 60_000_000_000) }
        tellsNamespaceChanges = number(92, UInt32.self) & 1 << 8 != 0
        retryDelays = [128, 130, 132].map { UInt64(number($0, UInt16.self)) * 100_000_000 }
        errorLogEntries = Int(number(262, UInt8.self)) + 1
        hasDoorbellBuffers = number(256, UInt16.self) & 1 << 8 != 0
        hasUsualEntries = number(512, UInt8.self) & 0xF <= 6 && number(513, UInt8.self) & 0xF <= 4
        namespaces = number(516, UInt32.self)
        let optional = number(520, UInt16.self)
        hasDeallocate = optional & 1 << 2 != 0
        hasWriteZeroes = optional & 1 << 3 != 0
        hasVolatileCache = number(525, UInt8.self) & 1 != 0
        atomicBlocks = Int(number(528, UInt16.self)) + 1
    }

    /// Identify Controller of the NVM command set (NVM command set specification, "I/O Command Set specific Identify Controller").
    package mutating func learnLimits(_ data: UnsafeRawPointer, smallestPage: Int) {
        let shift = unsafe data.load(fromByteOffset: 1, as: UInt8.self)
        zeroesLimit = shift == 0 ? nil : smallestPage << min(Int(shift), 20)
        let blocks = UInt32(littleEndian: unsafe data.load(fromByteOffset: 4, as: UInt32.self))
        deallocateLimit = blocks == 0 ? nil : Int(blocks)
    }

    /// Whoever relies on what `old` said may rely on this.
    package func keeps(_ old: NVMeIdentity) -> Bool {
        min(maximumTransfer ?? .max, NVMeDevice.maximumTransfer) >= min(old.maximumTransfer ?? .max, NVMeDevice.maximumTransfer)
            && (hasDeallocate || !old.hasDeallocate) && (hasWriteZeroes || !old.hasWriteZeroes)
    }
}

package struct NVMeNamespace: Equatable, Sendable {
    /// Logical blocks.
    package var blocks: UInt64 = 0
    /// Bytes of one: 512 or 4096.
    package var blockSize = 512
    /// Logical blocks that a power cut does not tear.
    package var atomicBlocks = 1
    package var isWriteProtected = false

    package init() {}

    /// - Returns: nil with a reason where the driver cannot use the namespace.
    package static func judge(_ data: UnsafeRawPointer, controller: NVMeIdentity) -> (namespace: NVMeNamespace?, reason: String) {
        func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
            T(littleEndian: unsafe data.loadUnaligned(fromByteOffset: offset, as: type))
        }
        var namespace = NVMeNamespace()
        namespace.blocks = number(0, UInt64.self)
        guard namespace.blocks > 0 else { return (nil, "namespace 1 is not active; make and attach one (nvme create-ns, nvme attach-ns)") }
        let features = number(24, UInt8.self)
        let chosen = number(26, UInt8.self)
        // Four bits, and two more where there are more than sixteen formats.
        let format = Int(chosen & 0xF) | Int((chosen >> 5) & 3) << 4
        guard format <= Int(number(25, UInt8.self)) else { return (nil, "namespace 1 names a block format that it does not list") }
        let entry = number(128 + format * 4, UInt32.self)
        let metadata = entry & 0xFFFF
        let shift = (entry >> 16) & 0xFF
        guard metadata == 0, number(29, UInt8.self) & 7 == 0 else {
            return (nil, "namespace 1 is formatted with \(metadata) bytes of metadata for each block; format it without (nvme format --lbaf)")
        }
        guard shift == 9 || shift == 12 else {
            return (nil, "namespace 1 has blocks of 2^\(shift) bytes; format it with 512 or 4096 (nvme format --lbaf)")
        }
        namespace.blockSize = 1 << Int(shift)
        guard namespace.blocks <= UInt64(Int64.max) / UInt64(namespace.blockSize) else { return (nil, "namespace 1 claims an impossible size") }
        namespace.atomicBlocks = controller.atomicBlocks
        // NSABP: the namespace has values of its own, and perhaps boundaries that no atomic write crosses.
        if features & 2 != 0 {
            namespace.atomicBlocks = max(namespace.atomicBlocks, Int(number(36, UInt16.self)) + 1)
            let boundary = Int(number(44, UInt16.self))
            let offset = Int(number(42, UInt16.self))
            if boundary != 0 {
                // A power of two that divides both: boundaries lie between writes of that size, never in one.
                let both = (boundary + 1) | offset
                namespace.atomicBlocks = min(namespace.atomicBlocks, both & -both)
            }
        }
        namespace.isWriteProtected = number(99, UInt8.self) & 1 != 0
        return (namespace, "")
    }

    /// Bytes: the largest power of two that a write, aligned to it, is never torn in.
    package var atomicUnit: Int {
        let bytes = atomicBlocks * blockSize
        return 1 << (Int.bitWidth - 1 - bytes.leadingZeroBitCount)
    }
}

extension String {
    fileprivate var trimmedSpaces: String {
        var text = Substring(self)
        while text.last == " " { text.removeLast() }
        while text.first == " " { text.removeFirst() }
        return String(text)
    }
}
