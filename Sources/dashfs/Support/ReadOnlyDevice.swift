// A device opened to look at it: shared with other readers, refused while a server has it.
import BlockDevice

struct ReadOnlyDevice {
    let device: FileDevice
    let queue: any DeviceQueue
    var capabilities: DeviceCapabilities { device.capabilities }

    init(_ text: String) throws(Failure) {
        let name = try Failure.catching { () throws(DeviceError) in try DeviceName.parse(text) }
        guard case .file(let path) = name else {
            throw Failure(.usage, "\(text): only a file or a block device holds a volume that can be looked at from outside")
        }
        var options = FileDevice.Options()
        options.readOnly = true
        options.lockWaitMilliseconds = 1000
        device = try Failure.catching { () throws(DeviceError) in try FileDevice.open(path, options: options) }
        let opened = device
        queue = try Failure.catching { () throws(DeviceError) in try opened.makeQueue(depth: 16) }
    }

    func close() { device.close() }
}
