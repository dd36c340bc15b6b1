import BlockDevice

/// What a fake controller claims to be, and how it behaves where the specification leaves it free.
package struct FakeConfiguration: Sendable {
    /// Bytes of a logical block.
    package var blockSize = 512
    /// Overrides the exponent that identify data give for it.
    package var blockShift: UInt8?
    /// Overrides what the medium's size gives.
    package var namespaceBlocks: UInt64?
    package var metadataBytes: UInt16 = 0
    package var protection: UInt8 = 0
    package var isWriteProtected = false
    /// MDTS: a power of two of pages; 0: no limit.
    package var transferShift: UInt8 = 5
    package var hasVolatileCache = true
    package var cacheIsOn = true
    package var hasDeallocate = true
    package var hasWriteZeroes = true
    package var hasDoorbellBuffers = false
    /// AWUPF + 1, NAWUPF + 1, NABSPF + 1 and NABO, in logical blocks.
    package var atomicBlocks = 1
    package var namespaceAtomicBlocks: Int?
    package var atomicBoundary = 0
    package var atomicOffset = 0
    /// CAP.
    package var maximumEntries = 1024
    package var strideShift = 0
    package var pageShift = 0
    package var timeoutUnits: UInt64 = 2
    package var hasNVMCommandSet = true
    /// CRTO.CRWMT; 0: there is no such register.
    package var readyUnits: UInt32 = 0
    package var registerBytes = 16384
    package var queues = 8
    /// AERL: one less than the asynchronous event requests that may be outstanding.
    package var eventLimit = 3
    package var submissionEntrySizes: UInt8 = 0x66
    package var completionEntrySizes: UInt8 = 0x44
    package var serial = "FAKE-0001"
    package var model = "Fake Controller"
    package var firmware = "1.0"
    /// CRDT1, in units of 100 ms.
    package var retryUnits: UInt16 = 0
    /// WZSL and DMRSL; nil: the data structure that tells them is not there.
    package var limits: (zeroesShift: UInt8, deallocateBlocks: UInt32)?
    package var health = FakeHealth()
    /// RTD3E.
    package var shutdownMicroseconds: UInt32 = 0
    package var canResetFunction = true
    package var hasInterrupt = false
    /// Off: as without an IOMMU, where only the driver's own memory can be reached.
    package var mapsMemory = true
    /// Nanoseconds until CSTS shows a start, a stop, a shutdown.
    package var startDelay: UInt64 = 2_000_000
    package var stopDelay: UInt64 = 1_000_000
    package var shutdownDelay: UInt64 = 3_000_000
    /// So many starts do not come to their end.
    package var deafStarts = 0
    /// So many stops do not.
    package var deafStops = 0
    /// Commands take up to so long each; and those that are ready end in any order.
    package var maximumDelay: UInt64 = 0
    package var isShuffled = false
    /// How far time moves at each look at it.
    package var lookStep: UInt64 = 1_000

    package init() {}

    /// Bytes, aligned to their size, that are never torn.
    package var atomicUnit: Int {
        var blocks = max(atomicBlocks, namespaceAtomicBlocks ?? 0)
        if atomicBoundary > 0 { blocks = 1 }
        let bytes = blocks * blockSize
        return 1 << (Int.bitWidth - 1 - bytes.leadingZeroBitCount)
    }
}

/// What the health page of a fake controller says.
package struct FakeHealth: Sendable {
    package var warning: UInt8 = 0
    package var kelvin: UInt16 = 310
    package var mediaErrors: UInt64 = 0
    package var errors: [(count: UInt64, status: UInt16, logicalBlock: UInt64)] = []
}
