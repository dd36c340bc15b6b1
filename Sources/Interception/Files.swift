// The few file operations that the site table needs, each turned from -1 into an error that names the file.

import Glibc

enum Files {
    static func read(_ path: String) throws(InterceptionError) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(path, "cannot be opened") }
        defer { close(descriptor) }
        var content: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(path, "cannot be read") }
            if count == 0 { return content }
            content.append(contentsOf: chunk[0..<count])
        }
    }

    /// All or nothing, also beside others that do the same: a new file under another name, then rename(2).
    static func replace(_ path: String, with content: [UInt8]) throws(InterceptionError) {
        let temporary = "\(path).\(getpid())"
        let descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure(temporary, "cannot be made") }
        var written = 0
        while written < content.count {
            let count = unsafe content.withUnsafeBytes {
                unsafe write(descriptor, $0.baseAddress.map { unsafe $0 + written }, $0.count - written)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            written += count
        }
        let isWhole = written == content.count
        guard close(descriptor) == 0, isWhole, unsafe rename(temporary, path) == 0 else {
            let problem = failure(path, "cannot be written")
            unsafe unlink(temporary)
            throw problem
        }
    }

    /// With the directories above it.
    static func makeDirectory(_ path: String) throws(InterceptionError) {
        if unsafe mkdir(path, 0o755) == 0 || errno == EEXIST { return }
        if errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try makeDirectory(String(path[..<slash]))
            if unsafe mkdir(path, 0o755) == 0 || errno == EEXIST { return }
        }
        throw failure(path, "cannot be made")
    }

    /// The path without symbolic links, or as it is where there is nothing.
    static func real(_ path: String) -> String {
        guard let text = unsafe realpath(path, nil) else { return path }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }

    /// Another text where the file is another or has been changed; without a blank.
    static func identity(_ path: String) -> String? {
        var status = stat()
        guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return "\(status.st_dev):\(status.st_ino):\(status.st_size):\(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec):\(status.st_ctim.tv_sec)"
    }

    static func isWritable(_ path: String) -> Bool { unsafe access(path, W_OK) == 0 }

    static func exists(_ path: String) -> Bool { unsafe access(path, R_OK) == 0 }

    private static func failure(_ path: String, _ what: String) -> InterceptionError {
        InterceptionError(.file, path, "\(what): \(unsafe String(cString: strerror(errno)))")
    }
}
