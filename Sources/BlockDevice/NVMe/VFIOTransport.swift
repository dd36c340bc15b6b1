import CSystem
import Glibc

/// A controller in the hands of this process, by VFIO: its registers mapped, its way to memory through the IOMMU.
///
/// Invariants:
/// - the device reaches what `allocate` and `map` have named to it and nothing else; all of it is locked in memory. Without an IOMMU, which a caller has to
///   allow, it reaches everything, and is given the places of huge pages, which the kernel does not move; other memory is copied to and from there;
/// - the kernel lets one process at a time have the group, so nobody else drives the controller; when a process dies it takes the device back and resets
///   it, and a new owner waits for that;
/// - no call here but those that arm an interrupt, map or unmap memory or reset makes a system call.
@safe final class VFIOTransport: NVMeTransport {
    let name: String
    private let container: Int32
    private let group: Int32
    private let device: Int32
    private let registers: UnsafeMutableRawPointer
    let registerBytes: Int
    private let bell: Int32
    /// /proc/self/pagemap, where there is no IOMMU; else -1.
    private let pageMap: Int32
    /// Where the next memory lies for the device. Above 4 GiB: below there are windows that machines keep for themselves.
    private var nextAddress: UInt64 = 1 << 32
    /// What was unmapped, by its size: an address space has an end.
    private var freeAddresses: [Int: [UInt64]] = [:]
    private var pools: [DMAMemory] = []
    /// Bytes of the last pool that are in use.
    private var poolUsed = 0
    private var isOpen = true

    /// Rings, lists of pages and a bounce buffer or two; another pool is made where it is not enough.
    private static let poolBytes = 16 << 20
    private static let hugePage = 2 << 20
    /// A killed server's descriptors take a moment to go.
    private static let ownerWait: UInt64 = 5_000_000_000

    /// - Parameters:
    ///   - address: of the PCI function: `0000:01:00.0`.
    ///   - withoutIOMMU: a device with no IOMMU before it is taken as well.
    init(_ address: String, withoutIOMMU: Bool = false) throws(DeviceError) {
        let name = "nvme:\(address)"
        self.name = name
        func refuse(_ errno: Int32, _ message: String) -> DeviceError { DeviceError(device: name, errno: errno, message: message) }
        let place = try PCIFunction(address)
        try place.checkUsable(name)
        guard let number = place.group else { throw refuse(ENODEV, "the device has no IOMMU group: \(PCIFunction.iommuRemedy)") }
        let isFree = place.hasNoIOMMU
        if isFree && !withoutIOMMU {
            throw refuse(EPERM, "no IOMMU keeps this device to its memory: a fault of it destroys anything; \(PCIFunction.iommuRemedy), or risk it with --no-iommu")
        }
        let descriptors = try Descriptors()
        container = try descriptors.open("/dev/vfio/vfio", name, "load the module vfio-pci (modprobe vfio-pci)")
        guard dashfs_vfio_version(container) == 0 else { throw refuse(ENOTSUP, "this kernel's VFIO speaks another version") }
        let group = try descriptors.open("/dev/vfio/\(isFree ? "noiommu-" : "")\(number)", name, "bind the device: dashfs device bind \(address)", wait: Self.ownerWait)
        self.group = group
        guard dashfs_vfio_group_is_viable(group) == 1 else {
            throw refuse(EBUSY, "other devices of IOMMU group \(number) are the kernel's (ls /sys/kernel/iommu_groups/\(number)/devices): bind them to vfio-pci too")
        }
        var result = dashfs_vfio_join(group, container)
        guard result >= 0 else { throw refuse(Int32(-result), "IOMMU group \(number) cannot be joined: \(errorText(Int32(-result)))") }
        result = isFree ? dashfs_vfio_use_no_iommu(container) : dashfs_vfio_use_iommu(container)
        guard result >= 0 else { throw refuse(Int32(-result), "the IOMMU cannot be used: \(errorText(Int32(-result)))") }
        pageMap = isFree ? try descriptors.open("/proc/self/pagemap", name, "only root sees where memory is", flags: O_RDONLY) : -1
        result = unsafe address.withCString { unsafe dashfs_vfio_device(group, $0) }
        guard result >= 0 else { throw refuse(Int32(-result), "the device cannot be taken: \(errorText(Int32(-result)))") }
        device = Int32(result)
        descriptors.keep(device)
        guard Self.enableBusMaster(device) else { throw refuse(EIO, "the device's configuration space cannot be written") }
        var offset: UInt64 = 0
        var bytes: UInt64 = 0
        result = unsafe dashfs_vfio_region(device, 0, &offset, &bytes)
        guard result == 1, bytes >= 0x2000, bytes <= 1 << 30 else { throw refuse(ENODEV, "the controller's registers cannot be mapped") }
        let mapped = unsafe mmap(nil, Int(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, device, off_t(offset))
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw refuse(errno, "the controller's registers cannot be mapped: \(errorText(errno))")
        }
        unsafe registers = mapped
        registerBytes = Int(bytes)
        bell = dashfs_vfio_interrupts(device) > 0 ? Int32(dashfs_sys_eventfd()) : -1
        descriptors.release()
    }

    deinit { close() }

    /// PCI command register: memory space and bus master.
    private static func enableBusMaster(_ device: Int32) -> Bool {
        var offset: UInt64 = 0
        var bytes: UInt64 = 0
        var command: UInt16 = 0
        guard unsafe dashfs_vfio_region(device, 7, &offset, &bytes) >= 0, unsafe pread(device, &command, 2, off_t(offset) + 4) == 2 else { return false }
        command |= 6
        return unsafe pwrite(device, &command, 2, off_t(offset) + 4) == 2
    }

    var warnings: [String] {
        pageMap < 0 ? [] : ["\(name): no IOMMU keeps the device to its memory: a fault of it, or of this driver, destroys anything; and every transfer is copied"]
    }

    // MARK: Registers

    func load32(_ register: Int) -> UInt32 {
        guard register >= 0, register <= registerBytes - 4 else { return NVMeRegister.gone }
        return UInt32(littleEndian: unsafe dashfs_register_load32(registers + register))
    }

    func store32(_ register: Int, _ value: UInt32) {
        guard register >= 0, register <= registerBytes - 4 else { return }
        unsafe dashfs_register_store32(registers + register, value.littleEndian)
    }

    // MARK: Memory

    func allocate(bytes: Int) throws(DeviceError) -> DMAMemory {
        let size = (bytes + blockSize - 1) / blockSize * blockSize
        if size > (pools.last?.bytes ?? 0) - poolUsed {
            pools.append(try makePool(max(size, pageMap >= 0 ? Self.hugePage : Self.poolBytes)))
            poolUsed = 0
        }
        guard let pool = pools.last else { throw DeviceError(device: name, errno: ENOMEM, message: "no memory that the device can reach") }
        defer { poolUsed += size }
        return unsafe DMAMemory(pointer: pool.pointer + poolUsed, bytes: size, address: pool.address + UInt64(poolUsed))
    }

    private func makePool(_ bytes: Int) throws(DeviceError) -> DMAMemory {
        if pageMap >= 0 { return try makeHugePage(bytes) }
        let memory = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
            throw DeviceError(device: name, errno: errno, message: "no memory for \(ByteSize.format(UInt64(bytes))) of rings and lists: \(errorText(errno))")
        }
        _ = unsafe madvise(memory, bytes, MADV_HUGEPAGE)
        return unsafe DMAMemory(pointer: memory, bytes: bytes, address: try mapPages(UnsafeMutableRawBufferPointer(start: memory, count: bytes)))
    }

    /// One that stays where it is in memory, by its place there (Linux Documentation/admin-guide/mm/pagemap.rst).
    private func makeHugePage(_ bytes: Int) throws(DeviceError) -> DMAMemory {
        func refuse(_ errno: Int32, _ message: String) -> DeviceError { DeviceError(device: name, errno: errno, message: message) }
        guard bytes <= Self.hugePage else { throw refuse(EINVAL, "without an IOMMU no more than \(Self.hugePage) bytes lie together") }
        let memory = unsafe mmap(nil, Self.hugePage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0)
        guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
            throw refuse(errno, "no huge page of 2 MiB is free; without an IOMMU some are needed: echo 16 > /proc/sys/vm/nr_hugepages")
        }
        var entry: UInt64 = 0
        let number = UInt(bitPattern: memory) / UInt(blockSize)
        let isRead = unsafe pread(pageMap, &entry, 8, off_t(number * 8)) == 8
        let frame = entry & (1 << 55 - 1)
        guard isRead, entry >> 63 == 1, frame != 0 else {
            unsafe munmap(memory, Self.hugePage)
            throw refuse(EPERM, "where memory is, only root sees: without an IOMMU, run as root")
        }
        return unsafe DMAMemory(pointer: memory, bytes: Self.hugePage, address: frame * UInt64(blockSize))
    }

    func map(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) -> UInt64? {
        if pageMap >= 0 { return nil }
        return unsafe try mapPages(memory)
    }

    private func mapPages(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) -> UInt64 {
        guard let base = memory.baseAddress, memory.count > 0, memory.count % blockSize == 0 else {
            throw DeviceError(device: name, errno: EINVAL, message: "only whole pages can be mapped for a device")
        }
        let used = freeAddresses[memory.count]?.last
        let address = used ?? nextAddress
        let result = unsafe dashfs_vfio_map(container, base, address, UInt64(memory.count))
        guard result >= 0 else {
            let size = ByteSize.format(UInt64(memory.count))
            let hint = RegisteredMemory.limit(below: memory.count).map { "; only \(ByteSize.format($0)) may be locked: raise the limit (ulimit -l)" } ?? ""
            throw DeviceError(device: name, errno: Int32(-result), message: "\(size) of memory cannot be mapped for the device: \(errorText(Int32(-result)))\(hint)")
        }
        if used != nil {
            freeAddresses[memory.count]?.removeLast()
            return address
        }
        // A hole between two pieces: a transfer that runs over an end hits nothing.
        nextAddress += UInt64((memory.count + Self.hugePage - 1) / Self.hugePage * Self.hugePage + Self.hugePage)
        return address
    }

    func unmap(_ memory: DMAMemory) {
        guard dashfs_vfio_unmap(container, memory.address, UInt64(memory.bytes)) >= 0 else { return }
        freeAddresses[memory.bytes, default: []].append(memory.address)
    }

    func resetFunction() -> Bool { dashfs_vfio_reset(device) == 0 }

    // MARK: Sleep and time

    var interruptDescriptor: Int32 { bell }
    func armInterrupt() { if bell >= 0 { _ = dashfs_vfio_set_interrupt(device, bell) } }

    func disarmInterrupt() {
        guard bell >= 0 else { return }
        _ = dashfs_vfio_set_interrupt(device, -1)
        _ = dashfs_eventfd_take(bell)
    }

    var now: UInt64 { monotonicNanoseconds() }
    /// By a call that a confined server may make.
    func pause() { _ = dashfs_sys_poll(-1, 0, 1) }

    func close() {
        guard isOpen else { return }
        isOpen = false
        unsafe munmap(registers, registerBytes)
        for descriptor in [bell, device, group, container, pageMap] where descriptor >= 0 { _ = Glibc.close(descriptor) }
        // The device has been taken back: nothing reaches them any more.
        for pool in pools { unsafe munmap(pool.pointer, pool.bytes) }
    }
}

/// Descriptors that go again where the opening fails half-way.
private final class Descriptors {
    private var opened: [Int32] = []

    init() throws(DeviceError) {}

    deinit { for descriptor in opened { _ = Glibc.close(descriptor) } }

    func keep(_ descriptor: Int32) { opened.append(descriptor) }
    func release() { opened.removeAll() }

    func open(_ path: String, _ device: String, _ hint: String, wait: UInt64 = 0, flags: Int32 = O_RDWR) throws(DeviceError) -> Int32 {
        let deadline = monotonicNanoseconds() &+ wait
        while true {
            let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC)
            if descriptor >= 0 {
                opened.append(descriptor)
                return descriptor
            }
            let number = errno
            if number == EBUSY, monotonicNanoseconds() < deadline {
                usleep(20_000)
                continue
            }
            let message =
                switch number {
                case EBUSY: "another process has the device (\(path))"
                case EACCES, EPERM: "no permission for \(path): run as root, or give the user the file (chown USER \(path))"
                default: "\(path): \(errorText(number)); \(hint)"
                }
            throw DeviceError(device: device, errno: number, message: message)
        }
    }
}
