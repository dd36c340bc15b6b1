import CSystem
import Glibc

/// Commands and completions as they lie in the queues (NVM Express base specification, "Common Command Format"; NVM command set
/// specification): 64 and 16 bytes, little-endian.
package enum NVMeOpcode {
    // Admin.
    package static let deleteSubmissionQueue: UInt8 = 0x00
    package static let createSubmissionQueue: UInt8 = 0x01
    package static let getLogPage: UInt8 = 0x02
    package static let deleteCompletionQueue: UInt8 = 0x04
    package static let createCompletionQueue: UInt8 = 0x05
    package static let identify: UInt8 = 0x06
    package static let abort: UInt8 = 0x08
    package static let setFeatures: UInt8 = 0x09
    package static let getFeatures: UInt8 = 0x0A
    package static let asyncEvent: UInt8 = 0x0C
    package static let doorbellBuffers: UInt8 = 0x7C
    // Of the NVM command set.
    package static let flush: UInt8 = 0x00
    package static let write: UInt8 = 0x01
    package static let read: UInt8 = 0x02
    package static let writeZeroes: UInt8 = 0x08
    package static let manageDataset: UInt8 = 0x09
}

package struct NVMeCommand: Equatable {
    package var opcode: UInt8
    package var identifier: UInt16 = 0
    package var namespace: UInt32 = 0
    package var first: UInt64 = 0
    package var second: UInt64 = 0
    package var word10: UInt32 = 0
    package var word11: UInt32 = 0
    package var word12: UInt32 = 0
    package var word13: UInt32 = 0

    package static let size = 64

    package init(_ opcode: UInt8, namespace: UInt32 = 0) {
        self.opcode = opcode
        self.namespace = namespace
    }

    /// As a controller reads it from a queue.
    package init(at memory: UnsafeRawPointer) {
        func word(_ number: Int) -> UInt32 { UInt32(littleEndian: unsafe memory.loadUnaligned(fromByteOffset: number * 4, as: UInt32.self)) }
        opcode = UInt8(truncatingIfNeeded: word(0))
        identifier = UInt16(truncatingIfNeeded: word(0) >> 16)
        namespace = word(1)
        first = UInt64(word(6)) | UInt64(word(7)) << 32
        second = UInt64(word(8)) | UInt64(word(9)) << 32
        word10 = word(10)
        word11 = word(11)
        word12 = word(12)
        word13 = word(13)
    }

    /// All 64 bytes.
    package func store(at memory: UnsafeMutableRawPointer) {
        func put(_ number: Int, _ value: UInt64) { unsafe memory.storeBytes(of: value.littleEndian, toByteOffset: number * 8, as: UInt64.self) }
        put(0, UInt64(opcode) | UInt64(identifier) << 16 | UInt64(namespace) << 32)
        put(1, 0)
        put(2, 0)
        put(3, first)
        put(4, second)
        put(5, UInt64(word10) | UInt64(word11) << 32)
        put(6, UInt64(word12) | UInt64(word13) << 32)
        put(7, 0)
    }
}

extension NVMeCommand {
    /// Get Log Page for the whole device: `bytes`, a multiple of four, to one page of memory.
    package static func log(_ identifier: UInt32, bytes: Int, to address: UInt64) -> NVMeCommand {
        var command = NVMeCommand(NVMeOpcode.getLogPage, namespace: 0xFFFF_FFFF)
        command.first = address
        command.word10 = UInt32(bytes / 4 - 1) << 16 | identifier
        return command
    }
}

/// Base specification, "Set Features command".
package enum NVMeFeature {
    package static let volatileCache: UInt32 = 0x06
    package static let queueCount: UInt32 = 0x07
    package static let events: UInt32 = 0x0B
}

/// Base specification, "Get Log Page command".
package enum NVMeLog {
    package static let errors: UInt32 = 0x01
    package static let health: UInt32 = 0x02
    package static let changedNamespaces: UInt32 = 0x04
}

package struct NVMeCompletion: Equatable {
    package var result: UInt32
    /// How far the controller has read the submission queue.
    package var submissionHead: UInt16
    package var identifier: UInt16
    /// Code and type, without the phase and the bits above.
    package var status: UInt16
    /// Which of the controller's delays comes before another try, from 1; 0: none.
    package var retryDelay: UInt8 = 0
    /// The controller says that trying again is of no use.
    package var doNotRetry: Bool

    package static let size = 16
    package static let success: UInt16 = 0

    package init(result: UInt32, submissionHead: UInt16, identifier: UInt16, status: UInt16, retryDelay: UInt8 = 0, doNotRetry: Bool) {
        self.result = result
        self.submissionHead = submissionHead
        self.identifier = identifier
        self.status = status
        self.retryDelay = retryDelay
        self.doNotRetry = doNotRetry
    }

    /// The errno of a request that ends with this status. Statuses: base specification, "Status Field".
    package var error: Int32 {
        switch status {
        case NVMeCompletion.success: 0
        case Status.invalidField, Status.rangeExceeded: EINVAL
        case Status.capacityExceeded: ENOSPC
        case Status.writeProtected, Status.namespaceWriteProtected: EROFS
        case Status.invalidNamespace: ENODEV
        default: EIO
        }
    }

    package enum Status {
        package static let invalidField: UInt16 = 0x02
        package static let internalError: UInt16 = 0x06
        package static let abortedByRequest: UInt16 = 0x07
        package static let abortedByDeletion: UInt16 = 0x08
        package static let invalidNamespace: UInt16 = 0x0B
        package static let namespaceWriteProtected: UInt16 = 0x20
        package static let interrupted: UInt16 = 0x21
        package static let transportError: UInt16 = 0x22
        package static let rangeExceeded: UInt16 = 0x80
        package static let capacityExceeded: UInt16 = 0x81
        package static let namespaceNotReady: UInt16 = 0x82
        package static let writeProtected: UInt16 = 0x182
        /// Status code type 3: the path to the namespace, not the namespace.
        package static let path: ClosedRange<UInt16> = 0x300...0x3FF
    }

    /// Worth another try: the command was taken back, or what stood in its way may pass.
    package var isTransient: Bool {
        switch status {
        case Status.abortedByRequest, Status.abortedByDeletion: true
        case Status.internalError, Status.interrupted, Status.transportError, Status.namespaceNotReady, Status.path: !doNotRetry
        default: false
        }
    }

    /// For people: type and code.
    package var statusText: String { "status 0x\(String(status, radix: 16))" }
}
