/// What a device says of its own condition (base specification, "SMART / Health Information" log page): log page 02h, 512 bytes.
package struct NVMeHealth: Equatable, Sendable {
    /// What the device warns of; empty: nothing.
    package var warnings: [String]
    /// Degrees Celsius.
    package var temperature: Int
    /// Per cent; `used` of the device's life may pass 100.
    package var spare, spareThreshold, used: Int
    package var bytesRead, bytesWritten: UInt64
    package var powerCycles, powerOnHours, unsafeShutdowns, mediaErrors, loggedErrors: UInt64

    package static let bytes = 512

    package enum Warning {
        /// The bits of "critical warning" that there is a sentence for.
        package static let all: UInt32 = 0x1F
        static let texts = [
            "spare blocks run out", "the temperature is out of its range", "it has become unreliable", "it takes no more writes", "its volatile memory is not backed up",
        ]
    }

    package init(_ data: UnsafeRawPointer) {
        func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T { T(littleEndian: unsafe data.loadUnaligned(fromByteOffset: offset, as: type)) }
        /// Of 128 bits; what is more than 64 counts as the most.
        func long(_ offset: Int) -> UInt64 { number(offset + 8, UInt64.self) == 0 ? number(offset, UInt64.self) : .max }
        /// In units of 1,000 times 512 bytes.
        func bytes(_ offset: Int) -> UInt64 {
            let (product, overflow) = long(offset).multipliedReportingOverflow(by: 512_000)
            return overflow ? .max : product
        }
        let critical = number(0, UInt8.self)
        warnings = Warning.texts.indices.filter { critical >> UInt8($0) & 1 == 1 }.map { Warning.texts[$0] }
        temperature = Int(number(1, UInt16.self)) - 273
        (spare, spareThreshold, used) = (Int(number(3, UInt8.self)), Int(number(4, UInt8.self)), Int(number(5, UInt8.self)))
        (bytesRead, bytesWritten) = (bytes(32), bytes(48))
        (powerCycles, powerOnHours, unsafeShutdowns) = (long(112), long(128), long(144))
        (mediaErrors, loggedErrors) = (long(160), long(176))
    }

    package var summary: String { "\(temperature) °C, \(spare)% spare, \(used)% of its life used, \(mediaErrors) media errors" }
}

/// An entry of the error log (base specification, "Error Information" log page): log page 01h, 64 bytes each, the newest first.
package struct NVMeErrorEntry: Equatable, Sendable {
    /// Errors since the device was made, this one included.
    package var count: UInt64
    package var queue: UInt16
    package var status: UInt16
    package var logicalBlock: UInt64

    package static let bytes = 64

    /// nil: no entry.
    package init?(_ data: UnsafeRawPointer) {
        func number<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T { T(littleEndian: unsafe data.loadUnaligned(fromByteOffset: offset, as: type)) }
        count = number(0, UInt64.self)
        guard count > 0 else { return nil }
        queue = number(8, UInt16.self)
        status = number(12, UInt16.self) >> 1 & 0x7FF
        logicalBlock = number(16, UInt64.self)
    }
}
