// Where a workload runs: the system calls of libc (the kernel's file system, or DashFS under the preload library: the same code), or the
// calls of FS Lib. Invariant: every call answers as the kernel does: a result, or a negated errno.
import CSystem
import Client
import Glibc
import Wire

protocol Ground {
    func makeDirectory(_ path: UnsafePointer<CChar>) -> Int64
    func open(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int64
    func close(_ file: Int32) -> Int64
    func read(_ file: Int32, into buffer: UnsafeMutableRawPointer, _ count: Int, at offset: Int64) -> Int64
    func write(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int, at offset: Int64) -> Int64
    /// At the file's own position.
    func append(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int) -> Int64
    func truncate(_ file: Int32, _ size: Int64) -> Int64
    func synchronize(_ file: Int32) -> Int64
    func status(_ path: UnsafePointer<CChar>) -> Int64
    func unlink(_ path: UnsafePointer<CChar>) -> Int64
    func rename(_ old: UnsafePointer<CChar>, to new: UnsafePointer<CChar>) -> Int64
    /// How many entries the directory has, all of them read.
    func entries(_ path: UnsafePointer<CChar>) -> Int64
}

struct SystemCallGround: Ground {
    @inline(__always) private func answer(_ result: Int) -> Int64 { result < 0 ? -Int64(errno) : Int64(result) }

    func makeDirectory(_ path: UnsafePointer<CChar>) -> Int64 { unsafe answer(Int(mkdir(path, 0o755))) }
    func open(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int64 { unsafe answer(Int(Glibc.open(path, flags | O_CLOEXEC, 0o644))) }
    func close(_ file: Int32) -> Int64 { answer(Int(Glibc.close(file))) }
    func read(_ file: Int32, into buffer: UnsafeMutableRawPointer, _ count: Int, at offset: Int64) -> Int64 {
        unsafe answer(pread(file, buffer, count, Int(offset)))
    }
    func write(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int, at offset: Int64) -> Int64 {
        unsafe answer(pwrite(file, buffer, count, Int(offset)))
    }
    func append(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int) -> Int64 { unsafe answer(Glibc.write(file, buffer, count)) }
    func truncate(_ file: Int32, _ size: Int64) -> Int64 { answer(Int(ftruncate(file, Int(size)))) }
    func synchronize(_ file: Int32) -> Int64 { answer(Int(fsync(file))) }
    func status(_ path: UnsafePointer<CChar>) -> Int64 {
        var status = stat()
        return unsafe answer(Int(stat(path, &status)))
    }
    func unlink(_ path: UnsafePointer<CChar>) -> Int64 { unsafe answer(Int(Glibc.unlink(path))) }
    func rename(_ old: UnsafePointer<CChar>, to new: UnsafePointer<CChar>) -> Int64 { unsafe answer(Int(Glibc.rename(old, new))) }
    func entries(_ path: UnsafePointer<CChar>) -> Int64 {
        guard let directory = unsafe opendir(path) else { return -Int64(errno) }
        defer { unsafe _ = closedir(directory) }
        var count: Int64 = 0
        while unsafe readdir(directory) != nil { count += 1 }
        return count
    }
}

@safe struct LibraryGround: Ground {
    let session: Session
    let channel: Channel
    /// For directory entries.
    private let list = UnsafeMutableRawPointer.allocate(byteCount: 65536, alignment: 8)

    init(socket: String) throws(Failure) {
        let text = Array(socket.utf8)
        let connected: Result<Session, ErrorCode> = unsafe text.withUnsafeBytes { path in
            do throws(ErrorCode) {
                guard let start = path.baseAddress else { throw ErrorCode(result: -Int64(EINVAL)) }
                return .success(try unsafe Session.connect(path: start, length: path.count))
            } catch {
                return .failure(error)
            }
        }
        switch connected {
        case .success(let session): self.session = session
        case .failure(let error): throw Failure(.unavailable, "\(socket): \(errorText(error.number))")
        }
        guard let channel = session.acquire() else { throw Failure(.unavailable, "\(socket): the server gives no channel") }
        self.channel = channel
    }

    private func place(_ path: UnsafePointer<CChar>) -> Place { unsafe Place(PathBytes(terminated: path)) }

    func makeDirectory(_ path: UnsafePointer<CChar>) -> Int64 { unsafe channel.mkdir(place(path), mode: 0o755).result }
    func open(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int64 {
        unsafe channel.open(place(path), flags: UInt32(bitPattern: flags), mode: 0o644).result
    }
    func close(_ file: Int32) -> Int64 { channel.closeSoon(file) }
    func read(_ file: Int32, into buffer: UnsafeMutableRawPointer, _ count: Int, at offset: Int64) -> Int64 {
        unsafe channel.read(file, into: buffer, count: count, offset: offset)
    }
    func write(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int, at offset: Int64) -> Int64 {
        unsafe channel.write(file, from: buffer, count: count, offset: offset)
    }
    func append(_ file: Int32, from buffer: UnsafeRawPointer, _ count: Int) -> Int64 { unsafe channel.write(file, from: buffer, count: count) }
    func truncate(_ file: Int32, _ size: Int64) -> Int64 { channel.truncate(file, size: size) }
    func synchronize(_ file: Int32) -> Int64 { channel.fsync(file) }
    func status(_ path: UnsafePointer<CChar>) -> Int64 { unsafe channel.status(place(path), flags: 0, into: list).result }
    func unlink(_ path: UnsafePointer<CChar>) -> Int64 { unsafe channel.unlink(place(path)).result }
    func rename(_ old: UnsafePointer<CChar>, to new: UnsafePointer<CChar>) -> Int64 {
        unsafe channel.rename(place(old), to: place(new), flags: 0).result
    }
    func entries(_ path: UnsafePointer<CChar>) -> Int64 {
        let file = unsafe open(path, 0o200000)
        if file < 0 { return file }
        let handle = Int32(truncatingIfNeeded: file)
        defer { _ = close(handle) }
        var count: Int64 = 0
        while true {
            let length = unsafe channel.readDirectory(handle, into: list, capacity: 65536)
            if length <= 0 { return length < 0 ? length : count }
            var at = 0
            while at < Int(length) {
                at += max(24, Int(unsafe list.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self)))
                count += 1
            }
        }
    }
}
