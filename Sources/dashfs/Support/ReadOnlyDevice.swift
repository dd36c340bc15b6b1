// A device opened to look at it: files and block devices shared with other readers, refused while a server has it.
import BlockDevice

struct ReadOnlyDevice {
    let device: any BlockDevice
    let queue: any DeviceQueue
    var capabilities: DeviceCapabilities { device.capabilities }

    init(_ text: String, _ driver: DriverArguments) throws(Failure) {
        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(text) }
        if case .memory = name { throw Failure(.usage, "\(text): memory holds no volume that can be looked at from outside") }
        var options = FileDevice.Options()
        options.readOnly = true
        options.lockWaitMilliseconds = 1000
        device = try Failure.catching { () throws(DeviceError) in try name.open(options: options, withoutIOMMU: driver.withoutIOMMU) }
        let opened = device
        queue = try Failure.catching { () throws(DeviceError) in try opened.makeQueue(depth: 16) }
    }

    func close() { device.close() }
}
