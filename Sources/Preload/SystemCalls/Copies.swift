// sendfile(2) and splice(2) with a file of ours at one end or at both: bounded copies through the channel's data area.
//
// A file's offset moves only by what has arrived at the other end. A pipe is given what it takes without waiting and is waited for only where nothing has
// been moved yet, as in the kernel: who fills a pipe and then empties it must not wait for himself.

import CPreload
import CSystem

enum Copies {
    private static let efault: Int64 = -14
    private static let transferLimit = 0x7fff_f000
    /// What one pass takes: a channel is held by whoever waits for a socket.
    private static let pieceLimit = 256 << 10
    /// Bytes that a pipe with a free buffer takes, whatever it holds already.
    private static let pipeBuffer = 4096

    // MARK: sendfile

    static func sendFile(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let (output, input) = (frame.argument0, frame.argument1)
        if Descriptors.isOwn(output) || Descriptors.isOwn(input) { return -ErrorNumber.badDescriptor }
        let (target, source) = (Descriptors.pin(output), Descriptors.pin(input))
        defer {
            target?.release()
            source?.release()
        }
        guard target != nil || source != nil else { return nil }
        var offset: Int64 = -1
        guard Transfers.loadOffset(frame.argument2, &offset, memory) else { return efault }
        let hasOffset = frame.argument2 != 0

        // What is wrong with the file that is read, then with the one that is written, then with their going together.
        var isSeekable = true
        if let source {
            if let problem = problem(source, reading: true) { return problem }
        } else {
            if let problem = problem(ofKernel: input, writing: false) { return problem }
            isSeekable = seek(input, 0, 1) >= 0
            if hasOffset, !isSeekable { return -29 }  // ESPIPE
        }
        if hasOffset, offset < 0 || frame.argument3 < 0 { return -ErrorNumber.invalid }
        if let target {
            if let problem = problem(target, reading: false) ?? refusesSplices(target) { return problem }
        } else if let problem = problem(ofKernel: output, writing: true) {
            return problem
        }
        guard isSeekable, frame.argument3 >= 0 else { return -ErrorNumber.invalid }
        let count = Int(min(frame.argument3, Int64(transferLimit)))

        var position = offset
        if !hasOffset { position = source.map { seek($0, 0, 1) } ?? seek(input, 0, 1) }
        if position < 0 { return position }
        let result: Int64
        if let source {
            if let target {
                result = copy(source, at: position, to: target, count)
            } else {
                let isPipe = pipeSize(output) > 0
                if !isPipe, isAppending(output) { return -ErrorNumber.invalid }
                result = give(source, at: position, to: output, count, waits: true)
            }
        } else if let target {
            result = take(input, at: position, into: target, count)
        } else {
            return nil
        }
        guard result > 0 else { return result }
        if hasOffset {
            unsafe UnsafeMutablePointer<Int64>(bitPattern: Int(frame.argument2))?.pointee = position &+ result
        } else if let source {
            _ = seek(source, position &+ result, 0)
        } else {
            _ = seek(input, position &+ result, 0)
        }
        return result
    }

    // MARK: splice

    static func splice(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let (input, output) = (frame.argument0, frame.argument2)
        let isOwn = Descriptors.isOwn(input) || Descriptors.isOwn(output)
        let (source, target) = (Descriptors.pin(input), Descriptors.pin(output))
        defer {
            source?.release()
            target?.release()
        }
        guard isOwn || source != nil || target != nil else { return nil }
        let count = Int(min(UInt64(bitPattern: frame.argument4), UInt64(transferLimit)))
        let flags = UInt32(truncatingIfNeeded: frame.argument5)
        if count == 0 { return 0 }
        if flags & ~15 != 0 { return -ErrorNumber.invalid }
        if isOwn { return -ErrorNumber.badDescriptor }
        let waits = flags & 2 == 0  // SPLICE_F_NONBLOCK
        if let source, target == nil {
            if let problem = problem(source, reading: true) ?? problem(ofKernel: output, writing: true) { return problem }
            guard pipeSize(output) > 0 else { return -ErrorNumber.invalid }
            if frame.argument3 != 0 { return -29 }
            return splice(frame.argument1, source, memory) { give(source, at: $0, to: output, count, waits: waits) }
        }
        if let target, source == nil {
            if let problem = problem(ofKernel: input, writing: false) ?? problem(target, reading: false) { return problem }
            guard pipeSize(input) > 0 else { return -ErrorNumber.invalid }
            if frame.argument1 != 0 { return -29 }
            if let problem = refusesSplices(target) { return problem }
            return splice(frame.argument3, target, memory) { drain(input, into: target, at: $0, count, waits: waits) }
        }
        // One of them has to be a pipe.
        if let source, let problem = problem(source, reading: true) { return problem }
        if let target, let problem = problem(target, reading: false) { return problem }
        return -ErrorNumber.invalid
    }

    /// With the offset at `address`, or with the file's own.
    private static func splice(_ address: Int64, _ file: Description, _ memory: ProgramMemory, _ body: (Int64) -> Int64) -> Int64 {
        var position: Int64 = 0
        guard Transfers.loadOffset(address, &position, memory) else { return efault }
        if address == 0 { position = seek(file, 0, 1) }
        if position < 0 { return address == 0 ? position : -ErrorNumber.invalid }
        let result = body(position)
        guard result > 0 else { return result }
        if address == 0 {
            _ = seek(file, position &+ result, 0)
        } else {
            unsafe UnsafeMutablePointer<Int64>(bitPattern: Int(address))?.pointee = position &+ result
        }
        return result
    }

    // MARK: Moving bytes

    /// From a file of ours to a descriptor of the kernel's.
    private static func give(_ file: Description, at start: Int64, to output: Int64, _ count: Int, waits: Bool) -> Int64 {
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let size = pipeSize(output)
        var done = 0
        while done < count {
            var piece = min(count - done, min(channel.dataCapacity, pieceLimit))
            if size > 0 {
                let room = room(inPipe: output, size)
                if room == 0, done > 0 || !waits { return done > 0 ? Int64(done) : -ErrorNumber.again }
                piece = min(piece, max(room, pipeBuffer))
            }
            let read = channel.readInPlace(file.handle, count: piece, offset: start &+ Int64(done))
            guard read > 0 else { return done > 0 ? Int64(done) : read }
            let got = min(Int(read), piece)
            if waits, size > 0 || dashfs_is_socket(Int32(truncatingIfNeeded: output)), !isNonBlocking(output), let interrupted = Signals.wait(for: Int16(POLLOUT), on: output) { return done > 0 ? Int64(done) : interrupted }
            let written = unsafe dashfs_sys_write(Int32(truncatingIfNeeded: output), channel.dataArea, got)
            guard written >= 0 else { return done > 0 ? Int64(done) : Int64(written) }
            done += written
            if written < got || got < piece { break }
        }
        return Int64(done)
    }

    /// What a pipe takes at once; 0 where a write would wait.
    private static func room(inPipe descriptor: Int64, _ size: Int) -> Int {
        var held: Int32 = 0
        let asked = unsafe withUnsafeMutablePointer(to: &held) {
            dashfs_raw_syscall3(SystemCallNumber.ioctl.rawValue, descriptor, 0x541b /* FIONREAD */, Int64(Int(bitPattern: $0)))
        }
        if asked >= 0, held == 0 { return size }
        return dashfs_sys_poll(Int32(truncatingIfNeeded: descriptor), Int16(POLLOUT), 0) == 0 ? 0 : pipeBuffer
    }

    /// From a seekable file of the kernel's to one of ours, at its own offset.
    private static func take(_ input: Int64, at start: Int64, into file: Description, _ count: Int) -> Int64 {
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        var done = 0
        while done < count {
            let piece = min(count - done, channel.dataCapacity)
            let read = unsafe dashfs_raw_syscall6(
                SystemCallNumber.pread64.rawValue, input, Int64(Int(bitPattern: channel.dataArea)), Int64(piece), start &+ Int64(done), 0, 0)
            guard read > 0 else { return done > 0 ? Int64(done) : read }
            let written = channel.writeInPlace(file.handle, count: Int(read))
            guard written > 0 else { return done > 0 ? Int64(done) : written }
            done += min(Int(written), Int(read))
            if written < read || read < piece { break }
        }
        return Int64(done)
    }

    /// What a pipe holds, at most one pass of it, waiting where it holds nothing. What the file refuses then is lost, as after read(2) and write(2).
    private static func drain(_ input: Int64, into file: Description, at offset: Int64, _ count: Int, waits: Bool) -> Int64 {
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        if !waits, dashfs_sys_poll(Int32(truncatingIfNeeded: input), Int16(POLLIN), 0) == 0 { return -ErrorNumber.again }
        if waits, !isNonBlocking(input), let interrupted = Signals.wait(for: Int16(POLLIN), on: input) { return interrupted }
        let read = Int64(unsafe dashfs_sys_read(Int32(truncatingIfNeeded: input), channel.dataArea, min(count, channel.dataCapacity)))
        guard read > 0 else { return read }
        return channel.writeInPlace(file.handle, count: Int(read), offset: offset)
    }

    /// Between two files of ours, which may belong to two sessions.
    private static func copy(_ source: Description, at start: Int64, to target: Description, _ count: Int) -> Int64 {
        guard let first = source.session, let second = target.session else { return source.failure }
        guard let reading = first.acquire() else { return -ErrorNumber.io }
        defer { first.release(reading) }
        guard let writing = second.acquire() else { return -ErrorNumber.io }
        defer { second.release(writing) }
        var done = 0
        while done < count {
            let piece = min(count - done, min(reading.dataCapacity, writing.dataCapacity))
            let read = reading.readInPlace(source.handle, count: piece, offset: start &+ Int64(done))
            guard read > 0 else { return done > 0 ? Int64(done) : read }
            let got = min(Int(read), piece)
            unsafe dashfs_copy(writing.dataArea, reading.dataArea, got)
            let written = writing.writeInPlace(target.handle, count: got)
            guard written > 0 else { return done > 0 ? Int64(done) : written }
            done += min(Int(written), got)
            if written < got || got < piece { break }
        }
        return Int64(done)
    }

    // MARK: What is wrong with an end

    /// Of a file of ours: a transfer of no bytes tells whether it may be read or written. A directory is nothing to splice.
    private static func problem(_ file: Description, reading: Bool) -> Int64? {
        guard let session = file.session else { return file.failure }
        if file.isPathOnly { return -ErrorNumber.badDescriptor }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let isDirectory: Int64 = -21
        let result = reading ? channel.readInPlace(file.handle, count: 0, offset: 0) : channel.writeInPlace(file.handle, count: 0, offset: 0)
        if result >= 0 { return nil }
        return result == isDirectory ? -ErrorNumber.invalid : result
    }

    /// O_APPEND does not go with a copy into a file.
    private static func refusesSplices(_ file: Description) -> Int64? {
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let flags = channel.statusFlags(file.handle, set: nil)
        if flags < 0 { return flags }
        return flags & appending != 0 ? -ErrorNumber.invalid : nil
    }

    private static let appending: Int64 = 0o2000

    private static func flags(_ descriptor: Int64) -> Int64 {
        dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, descriptor, 3 /* F_GETFL */, 0)
    }

    private static func problem(ofKernel descriptor: Int64, writing: Bool) -> Int64? {
        let flags = flags(descriptor)
        let isFit = flags >= 0 && UInt32(truncatingIfNeeded: flags) & OpenFlags.pathOnly == 0 && flags & 3 != (writing ? 0 : 1)
        return isFit ? nil : -ErrorNumber.badDescriptor
    }

    private static func isAppending(_ descriptor: Int64) -> Bool { flags(descriptor) & appending != 0 }
    private static func isNonBlocking(_ descriptor: Int64) -> Bool { flags(descriptor) & 0o4000 != 0 }

    /// 0: not a pipe.
    private static func pipeSize(_ descriptor: Int64) -> Int {
        Int(max(0, dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, descriptor, 1032 /* F_GETPIPE_SZ */, 0)))
    }

    private static func seek(_ descriptor: Int64, _ offset: Int64, _ whence: Int64) -> Int64 {
        dashfs_raw_syscall3(SystemCallNumber.lseek.rawValue, descriptor, offset, whence)
    }

    private static func seek(_ file: Description, _ offset: Int64, _ whence: UInt32) -> Int64 {
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        return channel.seek(file.handle, offset: offset, whence: whence)
    }
}
