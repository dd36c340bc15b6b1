import Client
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Why an operation failed: which operation, on which path, and the errno that POSIX gives it.
public struct FileError: Error, Sendable, CustomStringConvertible {
    /// An errno, by its POSIX name where it has a common one.
    public struct Code: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }

        public static let notPermitted = Code(rawValue: EPERM)
        public static let noSuchFile = Code(rawValue: ENOENT)
        public static let interrupted = Code(rawValue: EINTR)
        public static let ioError = Code(rawValue: EIO)
        public static let wouldBlock = Code(rawValue: EAGAIN)
        public static let outOfMemory = Code(rawValue: ENOMEM)
        public static let tableFull = Code(rawValue: ENFILE)
        public static let tooManyFiles = Code(rawValue: EMFILE)
        public static let fileTooLarge = Code(rawValue: EFBIG)
        public static let tooManyLinks = Code(rawValue: EMLINK)
        public static let range = Code(rawValue: ERANGE)
        public static let deadlock = Code(rawValue: EDEADLK)
        public static let noLocks = Code(rawValue: ENOLCK)
        public static let noData = Code(rawValue: ENXIO)
        public static let tooLarge = Code(rawValue: E2BIG)
        /// A structure on the volume is damaged; the server's log names it.
        public static let damaged = Code(rawValue: EUCLEAN)
        public static let timedOut = Code(rawValue: ETIMEDOUT)
        public static let notConnected = Code(rawValue: ENOTCONN)
        public static let badDescriptor = Code(rawValue: EBADF)
        public static let resourceBusy = Code(rawValue: EBUSY)
        public static let permissionDenied = Code(rawValue: EACCES)
        public static let fileExists = Code(rawValue: EEXIST)
        public static let crossesVolumes = Code(rawValue: EXDEV)
        public static let notDirectory = Code(rawValue: ENOTDIR)
        public static let isDirectory = Code(rawValue: EISDIR)
        public static let invalidArgument = Code(rawValue: EINVAL)
        public static let noSpace = Code(rawValue: ENOSPC)
        public static let readOnly = Code(rawValue: EROFS)
        public static let nameTooLong = Code(rawValue: ENAMETOOLONG)
        public static let notEmpty = Code(rawValue: ENOTEMPTY)
        public static let tooManySymbolicLinks = Code(rawValue: ELOOP)
        public static let noAttribute = Code(rawValue: ENODATA)
        public static let notSupported = Code(rawValue: EOPNOTSUPP)
        public static let refused = Code(rawValue: ECONNREFUSED)
        public static let versionMismatch = Code(rawValue: EPROTO)

        public var description: String {
            unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
                guard let base = buffer.baseAddress, unsafe strerror_r(rawValue, base, 256) == 0 else { return "error \(rawValue)" }
                return unsafe String(cString: base)
            }
        }
    }

    public let code: Code
    /// The POSIX name of the call.
    public let operation: String
    /// The path it was about, where it was about one.
    public let path: String?

    init(_ code: Code, _ operation: StaticString, _ path: String? = nil) {
        self.code = code
        self.operation = "\(operation)"
        self.path = path
    }

    init(result: Int64, _ operation: StaticString, _ path: String? = nil) {
        self.init(Code(rawValue: Int32(truncatingIfNeeded: 0 &- result)), operation, path)
    }

    public var description: String { path.map { "\(operation) \($0): \(code)" } ?? "\(operation): \(code)" }
}

/// What can name a file: a string, or the bytes of a name that is no UTF-8.
public protocol PathRepresentable {
    var pathBytes: [UInt8] { get }
}

extension String: PathRepresentable { public var pathBytes: [UInt8] { Array(utf8) } }
extension Substring: PathRepresentable { public var pathBytes: [UInt8] { Array(utf8) } }
extension [UInt8]: PathRepresentable { public var pathBytes: [UInt8] { self } }

extension PathRepresentable {
    var pathText: String { String(decoding: pathBytes, as: UTF8.self) }
}
