/// Registers of BAR 0 (NVM Express base specification, "Controller Properties") and their fields.
package enum NVMeRegister {
    /// 64 bits, read as two halves.
    package static let capabilities = 0x00
    package static let version = 0x08
    package static let configuration = 0x14
    package static let status = 0x1C
    package static let adminQueueAttributes = 0x24
    /// 64 bits each.
    package static let adminSubmissionQueue = 0x28
    package static let adminCompletionQueue = 0x30
    /// CRTO, where CAP says that it is there.
    package static let readyTimeouts = 0x68
    package static let doorbells = 0x1000
    /// What a device that has been removed reads as.
    package static let gone: UInt32 = 0xFFFF_FFFF
}

/// CAP.
package struct NVMeCapabilities: Equatable {
    package let bits: UInt64
    /// CRTO, or 0.
    package let readyTimeouts: UInt32
    package init(bits: UInt64, readyTimeouts: UInt32 = 0) {
        self.bits = bits
        self.readyTimeouts = readyTimeouts
    }

    /// Entries of the longest queue.
    package var maximumEntries: Int { Int(bits & 0xFFFF) + 1 }
    /// How long a change of CC.EN may take to show, in nanoseconds.
    package var timeout: UInt64 { max((bits >> 24) & 0xFF, 1) * 500_000_000 }
    /// The same for a start, which may take longer than CAP has room for.
    package var startTimeout: UInt64 { max(timeout, UInt64(readyTimeouts & 0xFFFF) * 500_000_000) }
    /// Bytes from one doorbell to the next.
    package var doorbellStride: Int { 4 << Int((bits >> 32) & 0xF) }
    package var hasNVMCommandSet: Bool { (bits >> 37) & 1 == 1 }
    /// Bytes.
    package var smallestPage: Int { 4096 << Int((bits >> 48) & 0xF) }

    package func submissionDoorbell(_ queue: Int) -> Int { NVMeRegister.doorbells + 2 * queue * doorbellStride }
    package func completionDoorbell(_ queue: Int) -> Int { NVMeRegister.doorbells + (2 * queue + 1) * doorbellStride }
}

/// CC.
package enum NVMeConfiguration {
    package static let enable: UInt32 = 1
    /// 4 KiB pages, NVM command set, round robin, entries of 64 and 16 bytes.
    package static let entrySizes: UInt32 = 6 << 16 | 4 << 20
    package static let normalShutdown: UInt32 = 1 << 14
    package static let shutdownMask: UInt32 = 3 << 14
}

/// CSTS.
package struct NVMeStatus {
    package let bits: UInt32
    package init(bits: UInt32) { self.bits = bits }
    package var isGone: Bool { bits == NVMeRegister.gone }
    package var isReady: Bool { bits & 1 == 1 }
    /// CFS: only a reset helps.
    package var isFatal: Bool { bits & 2 == 2 }
    package var isShutDown: Bool { (bits >> 2) & 3 == 2 }
}
