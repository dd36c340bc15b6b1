// A server of one's own, for `run --image` and `bench`: a child `dashfs serve` on a socket in a private directory. Invariant: it is ready
// when the initialiser returns, ends with this process whatever happens to it, and `stop` waits until its volume is on the device.
import CSystem
import Glibc

struct PrivateServer {
    let directory: PrivateDirectory
    let child: ChildProcess
    var socket: String { directory.path + "/socket" }

    init(device: String, options: [String] = []) throws(Failure) {
        directory = try PrivateDirectory()
        var pipe: [Int32] = [-1, -1]
        let made = unsafe dashfs_make_pipe(&pipe)
        guard made == 0 else {
            directory.remove([])
            throw Failure(.system, "no pipe: \(errorText(Int32(-made)))")
        }
        defer { close(pipe[0]) }
        do throws(Failure) {
            defer { close(pipe[1]) }
            child = try ChildProcess(
                [Places.executable, "serve", device, "--socket", directory.path + "/socket", "--end-with-parent"] + options,
                environment: ProcessEnvironment(), output: pipe[1], ownGroup: true)
        } catch {
            directory.remove([])
            throw error
        }
        guard PrivateServer.hasLine(pipe[0]) else {
            let status = child.wait()
            directory.remove(["socket"])
            throw Failure.told(exitCode: status == 0 ? Failure.Status.unavailable.rawValue : status)
        }
    }

    /// Waits for a line; false: the other end was closed before.
    private static func hasLine(_ descriptor: Int32) -> Bool {
        var byte: UInt8 = 0
        while true {
            let count = unsafe read(descriptor, &byte, 1)
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { return false }
            if byte == 0x0A { return true }
        }
    }

    /// Ends the server in order; its exit status.
    func stop() -> Int32 {
        child.send(SIGTERM)
        let status = child.wait()
        directory.remove(["socket"])
        return status
    }
}
