/// What the NVMe driver needs of the PCI function it drives: registers, memory that the device can reach, one interrupt, time.
///
/// Two transports: `VFIOTransport` (a real controller), and the fake controller of the tests, which sees every move of the driver at this line.
/// Invariant: everything that a controller hands back is judged by the driver; a transport passes it on as it is. One thread.
package protocol NVMeTransport: AnyObject {
    /// The device as people name it: `nvme:0000:01:00.0`.
    var name: String { get }
    /// What is slower or less safe than it could be, a line each.
    var warnings: [String] { get }

    /// How far the registers of BAR 0 reach: doorbells beyond are out of reach.
    var registerBytes: Int { get }
    /// A register of BAR 0, 32 bits, little-endian; all ones where the device has gone.
    func load32(_ register: Int) -> UInt32
    /// What was stored in memory before is there for the device that sees this.
    func store32(_ register: Int, _ value: UInt32)

    /// Memory of the driver's own: whole pages, zeroed, one piece in the device's addresses. Lives until `close`.
    func allocate(bytes: Int) throws(DeviceError) -> DMAMemory

    /// Makes memory of the caller's reachable: whole pages; the address of its start in the device's addresses, where it is one piece. Until `close`.
    /// - Returns: nil where only memory of the driver's own can be reached.
    func map(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) -> UInt64?

    /// The device reaches it no more. Requires that it was mapped and that no request under way names it.
    func unmap(_ memory: DMAMemory)

    /// Resets the PCI function as far as the machine can. False where it cannot; the controller's own reset follows in any case.
    func resetFunction() -> Bool

    /// Polls readable when the controller has raised its interrupt since `armInterrupt`; -1 where there is none.
    var interruptDescriptor: Int32 { get }
    /// An interrupt that was pending when it is armed is raised.
    func armInterrupt()
    func disarmInterrupt()

    /// Monotonic nanoseconds.
    var now: UInt64 { get }
    /// Lets about a millisecond pass: while a controller is brought up or shut down.
    func pause()

    /// Gives the device up: no access after it.
    func close()
}

extension NVMeTransport {
    package var warnings: [String] { [] }
}

/// Memory that both ends reach. Lives as long as its transport is open.
@safe package struct DMAMemory {
    package let pointer: UnsafeMutableRawPointer
    package let bytes: Int
    /// Of its first byte, for the device.
    package let address: UInt64

    package init(pointer: UnsafeMutableRawPointer, bytes: Int, address: UInt64) {
        unsafe self.pointer = pointer
        self.bytes = bytes
        self.address = address
    }

    /// How far into it an address is; nil: outside.
    func offset(of address: UnsafeMutableRawPointer) -> Int? {
        guard unsafe address >= pointer, unsafe address - pointer < bytes else { return nil }
        return unsafe address - pointer
    }
}
