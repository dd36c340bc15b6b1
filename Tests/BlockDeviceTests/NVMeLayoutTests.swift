/// Bytes as the NVMe specifications lay them out: commands, completions, identify data, lists of pages.
import BlockDevice
import Glibc
import TestSupport
import Testing

@Suite struct NVMeLayoutTests {
    @Test func aCommandIsSixtyFourBytesLittleEndian() {
        var command = NVMeCommand(NVMeOpcode.write, namespace: 0x0102_0304)
        command.identifier = 0xABCD
        command.first = 0x1122_3344_5566_7788
        command.second = 0x99AA_BBCC_DDEE_FF00
        (command.word10, command.word11, command.word12, command.word13) = (0x10, 0x2000_0000, 0x4000_0007, 0xFE)
        let bytes = AlignedBytes(count: 4096, repeating: 0xFF)
        unsafe command.store(at: bytes.buffer.baseAddress!)
        var expected: [UInt8] = [0x01, 0, 0xCD, 0xAB, 4, 3, 2, 1] + [UInt8](repeating: 0, count: 16)
        expected += [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99]
        expected += [0x10, 0, 0, 0, 0, 0, 0, 0x20, 7, 0, 0, 0x40, 0xFE, 0, 0, 0] + [UInt8](repeating: 0, count: 8)
        #expect(Array(bytes.array.prefix(64)) == expected)
        #expect(unsafe NVMeCommand(at: bytes.buffer.baseAddress!) == command)
    }

    @Test(arguments: [
        (0x00, 0), (0x02, EINVAL), (0x80, EINVAL), (0x81, ENOSPC), (0x20, EROFS), (0x182, EROFS), (0x0B, ENODEV), (0x281, EIO), (0x06, EIO), (0x07, EIO),
    ] as [(UInt16, Int32)])
    func statusesBecomeErrnos(_ status: UInt16, _ errno: Int32) {
        #expect(NVMeCompletion(result: 0, submissionHead: 0, identifier: 0, status: status, doNotRetry: false).error == errno)
    }

    private func identity(_ configure: (inout FakeConfiguration) -> Void) -> NVMeIdentity {
        var configuration = FakeConfiguration()
        configure(&configuration)
        let data = AlignedBytes(count: 4096)
        unsafe FakeIdentity.controller(configuration, at: data.buffer.baseAddress!)
        return unsafe NVMeIdentity(controller: data.buffer.baseAddress!, smallestPage: 4096)
    }

    private func judge(blocks: UInt64 = 1024, _ configure: (inout FakeConfiguration) -> Void) -> (namespace: NVMeNamespace?, reason: String) {
        var configuration = FakeConfiguration()
        configure(&configuration)
        let data = AlignedBytes(count: 4096)
        unsafe FakeIdentity.namespace(configuration, blocks: blocks, at: data.buffer.baseAddress!)
        return unsafe NVMeNamespace.judge(data.buffer.baseAddress!, controller: identity(configure))
    }

    @Test func identifyControllerIsRead() {
        let found = identity {
            $0.serial = "S-1 2  "
            $0.model = "A\u{7}B"
            $0.transferShift = 5
            $0.atomicBlocks = 8
            $0.shutdownMicroseconds = 8_000_000
            $0.hasDoorbellBuffers = true
            $0.hasWriteZeroes = false
        }
        #expect(found.serial == "S-1 2" && found.model == "A?B" && found.firmware == "1.0")
        #expect(found.maximumTransfer == 131072 && found.atomicBlocks == 8 && found.shutdownTime == 8_000_000_000)
        #expect(found.hasDoorbellBuffers && found.hasDeallocate && !found.hasWriteZeroes && found.hasVolatileCache && found.hasUsualEntries)
        #expect(identity { $0.transferShift = 0 }.maximumTransfer == nil)
        #expect(identity { $0.shutdownMicroseconds = .max }.shutdownTime == 60_000_000_000, "a shutdown is not waited for without end")
        #expect(identity { $0.transferShift = 255 }.maximumTransfer ?? 0 > 0, "nothing overflows")
        #expect(!identity { $0.submissionEntrySizes = 0x77 }.hasUsualEntries && !identity { $0.completionEntrySizes = 0x55 }.hasUsualEntries)
    }

    @Test func identifyNamespaceIsJudged() {
        let found = judge { $0.atomicBlocks = 3 }.namespace
        #expect(found?.blocks == 1024 && found?.blockSize == 512 && found?.atomicUnit == 1024)
        #expect(judge { $0.blockSize = 4096 }.namespace?.blockSize == 4096)
        #expect(judge { $0.isWriteProtected = true }.namespace?.isWriteProtected == true)
        #expect(judge { $0.namespaceAtomicBlocks = 32 }.namespace?.atomicUnit == 16384)
        // No write is atomic across a boundary, so only what divides both it and its offset is sure.
        func bounded(_ boundary: Int, _ offset: Int) -> Int? {
            judge {
                ($0.namespaceAtomicBlocks, $0.atomicBoundary, $0.atomicOffset) = (64, boundary, offset)
            }.namespace?.atomicUnit
        }
        #expect(bounded(16, 0) == 8192 && bounded(16, 4) == 2048 && bounded(12, 0) == 2048 && bounded(64, 1) == 512)
        #expect(judge(blocks: 0) { _ in }.reason.contains("not active"))
        #expect(judge { $0.metadataBytes = 8 }.reason.contains("8 bytes of metadata"))
        #expect(judge { $0.protection = 1 }.reason.contains("metadata"))
        #expect(judge { $0.blockShift = 10 }.reason.contains("2^10"))
        #expect(judge { $0.blockShift = 255 }.reason.contains("2^255"))
        #expect(judge(blocks: .max) { _ in }.reason.contains("impossible size"))
    }

    /// A list is read as the specification says: while more entries are to come than a page has, the last entry is the address of the next page.
    @Test(arguments: [1, 2, 3, 4, 511, 512, 513, 514, 515, 1023, 1024, 1025, 2000])
    func pagesAreListedAndListsAreChained(_ count: Int) {
        let room = NVMePages.listBytes(transfer: count * 4096)
        let list = AlignedBytes(count: room, repeating: 0xFF)
        let listAddress: UInt64 = 0x7000_0000
        var random = SeededRandom(seed: UInt64(count))
        let wanted = (0..<count).map { _ in UInt64(random.below(1 << 40)) << 12 }
        var pages = unsafe NVMePages(list: list.buffer.baseAddress!, listAddress: listAddress)
        for address in wanted { pages.append(address) }
        let (first, second) = pages.pointers
        #expect(first == wanted[0])
        if count <= 2 {
            #expect(second == (count == 2 ? wanted[1] : 0))
            return
        }
        #expect(second == listAddress)
        func entry(_ number: Int) -> UInt64 { unsafe list.buffer.loadUnaligned(fromByteOffset: number * 8, as: UInt64.self) }
        var (found, page, left) = ([first], 0, count - 1)
        while left > 512 {
            found += (0..<511).map { entry(page * 512 + $0) }
            #expect(entry(page * 512 + 511) == listAddress + UInt64(page + 1) * 4096)
            (page, left) = (page + 1, left - 511)
        }
        #expect(page * 4096 < room)
        found += (0..<left).map { entry(page * 512 + $0) }
        #expect(found == wanted)
    }

    @Test func capabilitiesAreTakenApart() {
        let capabilities = NVMeCapabilities(bits: 0x0000_0020_0000_0000 | 2 << 32 | 20 << 24 | 1023)
        #expect(capabilities.maximumEntries == 1024 && capabilities.timeout == 10_000_000_000 && capabilities.doorbellStride == 16)
        #expect(capabilities.hasNVMCommandSet && capabilities.smallestPage == 4096)
        #expect(capabilities.submissionDoorbell(0) == 0x1000 && capabilities.completionDoorbell(0) == 0x1010)
        #expect(capabilities.submissionDoorbell(3) == 0x1060 && capabilities.completionDoorbell(3) == 0x1070)
    }
}
