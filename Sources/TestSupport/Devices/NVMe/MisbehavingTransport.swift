/// A driver with a bug, as a controller sees it: what the driver does, changed on its way. For the proof that the fake controller and its harness
/// find such bugs. Invariant: exactly what `bug` says is changed.
import BlockDevice

package final class MisbehavingTransport: NVMeTransport {
    package enum Bug: CaseIterable, Sendable {
        /// A submission doorbell one further than what was written.
        case tailTooFar
        /// A submission doorbell that is told twice.
        case tailTwice
        /// A completion doorbell one further than what was taken.
        case headTooFar
        /// The doorbell of a queue that there is not.
        case wrongQueue
        /// Memory that begins 512 bytes later than the device is told.
        case misaligned
        /// An address that the device was not given.
        case elsewhere
        /// Enabled with entries of one byte.
        case entrySizes
        /// A completion queue's doorbell before the controller is ready.
        case early
        /// A read-only register is written.
        case status
        /// Doorbells are lost from the fortieth on: what was sent is not seen.
        case silence
    }

    private let fake: FakeController
    private let bug: Bug
    private var doorbells = 0

    package init(_ fake: FakeController, _ bug: Bug) {
        self.fake = fake
        self.bug = bug
    }

    package var name: String { fake.name }
    package var registerBytes: Int { fake.registerBytes }
    package func load32(_ register: Int) -> UInt32 { fake.load32(register) }

    package func store32(_ register: Int, _ value: UInt32) {
        if register == NVMeRegister.configuration, value & 1 == 1 {
            fake.store32(register, bug == .entrySizes ? value & 1 : value)
            if bug == .early { fake.store32(NVMeRegister.doorbells + 4, 1) }
            if bug == .status { fake.store32(NVMeRegister.status, 0) }
            return
        }
        guard register >= NVMeRegister.doorbells + 8 else { return fake.store32(register, value) }
        doorbells += 1
        let isCompletion = register >> 2 & 1 == 1
        switch bug {
        case .tailTooFar where doorbells == 10 || !isCompletion && doorbells > 10: fake.store32(register, isCompletion ? value : value + 1)
        case .tailTwice where !isCompletion && doorbells > 10:
            fake.store32(register, value)
            fake.store32(register, value)
        case .headTooFar where isCompletion && doorbells > 10: fake.store32(register, value + 1)
        case .wrongQueue where doorbells > 10: fake.store32(register + 16 * 8, value)
        case .silence where doorbells > 40: break
        default: fake.store32(register, value)
        }
    }

    package func allocate(bytes: Int) throws(DeviceError) -> DMAMemory {
        let memory = try fake.allocate(bytes: bytes)
        guard bug == .misaligned else { return memory }
        return unsafe DMAMemory(pointer: memory.pointer, bytes: memory.bytes, address: memory.address + 512)
    }

    package func map(_ memory: UnsafeMutableRawBufferPointer) throws(DeviceError) -> UInt64? {
        guard let address = unsafe try fake.map(memory) else { return nil }
        return bug == .elsewhere ? address + UInt64(memory.count) : address
    }

    package func unmap(_ memory: DMAMemory) { fake.unmap(memory) }
    package func resetFunction() -> Bool { fake.resetFunction() }
    package var interruptDescriptor: Int32 { fake.interruptDescriptor }
    package func armInterrupt() { fake.armInterrupt() }
    package func disarmInterrupt() { fake.disarmInterrupt() }
    package var now: UInt64 { fake.now }
    package func pause() { fake.pause() }
    package func close() { fake.close() }
}
