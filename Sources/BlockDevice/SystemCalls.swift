/// What several drivers share about the kernel: errno as text, and the bounds of a queue.
import Glibc

/// "No such file or directory" for ENOENT.
package func errorText(_ number: Int32) -> String {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
        guard let start = buffer.baseAddress, unsafe strerror_r(number, start, buffer.count) == 0 else {
            return "error \(number)"
        }
        return unsafe String(cString: start)
    }
}

func checkQueueDepth(_ depth: Int, device: String) throws(DeviceError) {
    guard depth >= 1 && depth <= 4096 else {
        throw DeviceError(device: device, errno: EINVAL, message: "a queue holds 1 to 4096 requests, not \(depth)")
    }
}
