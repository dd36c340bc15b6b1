// How a command fails: one line that says what is wrong and what to do, and an exit code of sysexits(3).
import BlockDevice
import Glibc
import Interception
import Server
import Volume

struct Failure: Error {
    /// sysexits(3).
    enum Status: Int32 {
        case usage = 64
        case data = 65
        case noInput = 66
        case unavailable = 69
        case system = 71
        case cannotCreate = 73
        case inputOutput = 74
        case noPermission = 77

        /// What an errno means to the shell that asked.
        init(errno number: Int32, otherwise: Status = .system) {
            switch number {
            case ENOENT, ENOTDIR: self = .noInput
            case ENAMETOOLONG: self = .usage
            case EACCES, EPERM, EROFS: self = .noPermission
            case EBUSY, EADDRINUSE, ECONNREFUSED, ETIMEDOUT, ENOTSUP, EAGAIN: self = .unavailable
            case EIO, ENXIO, ENODEV: self = .inputOutput
            case EUCLEAN: self = .data
            case ENOSPC, EEXIST, EDQUOT: self = .cannotCreate
            default: self = otherwise
            }
        }
    }

    var exitCode: Int32
    var message: String

    init(_ status: Status, _ message: String) {
        exitCode = status.rawValue
        self.message = message
    }

    init(_ error: DeviceError) { self.init(Status(errno: error.errno, otherwise: .data), error.description) }
    init(_ error: VolumeError, device: String) {
        let hint = error.errno == ENOSPC && !error.message.contains(";") ? "; make room there, or choose a smaller --size" : ""
        self.init(Status(errno: error.errno, otherwise: .data), "\(device): \(error.message)\(hint)")
    }
    init(_ error: ServerError) { self.init(Status(errno: error.errno), error.message) }
    init(_ error: InterceptionError) { self.init(.unavailable, "\(error.description); `dashfs doctor` says more") }

    /// A program that cannot be looked at: 65 where it is none, 66 where it is not there.
    init(lookingAt error: InterceptionError) {
        switch error.code {
        case .notAnObject, .undecodable: self.init(.data, error.description)
        default: self.init(.noInput, error.description)
        }
    }

    /// What went wrong was said by the child that ended with this status.
    static func told(exitCode: Int32) -> Failure {
        var failure = Failure(.unavailable, "")
        failure.exitCode = exitCode
        return failure
    }

    func end() -> Never {
        if !message.isEmpty { Terminal.error("dashfs: \(message)") }
        exit(exitCode)
    }
}

extension Failure {
    /// A device's error as the command's.
    static func catching<T>(_ body: () throws(DeviceError) -> T) throws(Failure) -> T {
        do throws(DeviceError) { return try body() } catch { throw Failure(error) }
    }
}
