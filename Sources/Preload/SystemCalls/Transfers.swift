// read(2), write(2) and their family on files of ours.
//
// Data passes through the channel's arena, at most its capacity at a time; each piece of the program's memory is checked before the file's
// offset moves for it, so a bad address ends a transfer where the kernel's would, with what was done before or EFAULT.

import CPreload
import CSystem

/// MAX_RW_COUNT of Linux.
private let transferLimit = 0x7fff_f000
private let efault: Int64 = -14

enum Transfers {
    /// `offset` nil: the description's own.
    static func read(_ file: Description, _ address: UInt64, _ count: UInt64, offset: Int64?, _ memory: ProgramMemory) -> Int64 {
        if let offset, offset < 0 { return -ErrorNumber.invalid }
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let total = Int(min(count, UInt64(transferLimit)))
        var done = 0
        repeat {
            let piece = min(total - done, channel.dataCapacity)
            let target = address &+ UInt64(done)
            guard piece == 0 || memory.isWritable(target, piece) else {
                return done > 0 ? Int64(done) : refusal(channel.readInPlace(file.handle, count: 0, offset: place(offset, 0)), efault)
            }
            let result = channel.readInPlace(file.handle, count: piece, offset: place(offset, done))
            if result <= 0 { return done > 0 ? Int64(done) : result }
            let size = min(Int(result), piece)
            if let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(target)) { unsafe dashfs_copy(target, channel.dataArea, size) }
            done += size
            if size < piece { break }
        } while done < total
        return Int64(done)
    }

    /// `flags`: RWF_DSYNC, RWF_SYNC, RWF_APPEND, RWF_NOAPPEND.
    static func write(
        _ file: Description, _ address: UInt64, _ count: UInt64, offset: Int64?, flags: UInt32 = 0, _ memory: ProgramMemory
    ) -> Int64 {
        if let offset, offset < 0 { return -ErrorNumber.invalid }
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let total = FileSizeLimit.room(Int(min(count, UInt64(transferLimit))), file, channel, offset: offset, flags: flags)
        if total < 0 { return Int64(total) }
        var done = 0
        repeat {
            let piece = min(total - done, channel.dataCapacity)
            guard unsafe memory.copyIn(channel.dataArea, from: address &+ UInt64(done), count: piece) else {
                return done > 0 ? Int64(done) : refusal(channel.writeInPlace(file.handle, count: 0, offset: place(offset, 0)), efault)
            }
            let result = channel.writeInPlace(file.handle, count: piece, offset: place(offset, done), flags: flags)
            if result <= 0 { return done > 0 ? Int64(done) : result }
            done += min(Int(result), piece)
            if result < piece { break }
        } while done < total
        return Int64(done)
    }

    /// What the file itself says about a transfer comes before what is wrong with its memory.
    private static func refusal(_ empty: Int64, _ number: Int64) -> Int64 { empty < 0 ? empty : number }

    @inline(__always)
    private static func place(_ offset: Int64?, _ done: Int) -> Int64 { offset.map { $0 &+ Int64(done) } ?? -1 }

    // MARK: Vectors

    /// A walk over the program's struct iovec array: 8 bytes of address, 8 of length.
    private struct Pieces {
        let vector: UInt64
        let count: Int
        var index = 0
        var used: UInt64 = 0

        func entry(_ index: Int) -> (address: UInt64, length: UInt64) {
            guard let words = unsafe UnsafePointer<UInt64>(bitPattern: UInt(vector &+ UInt64(index) * 16)) else { return (0, 0) }
            return unsafe (words[0], words[1])
        }

        /// The next at most `limit` bytes that lie together; nil at the end.
        mutating func next(_ limit: Int) -> (address: UInt64, count: Int)? {
            while index < count {
                let (address, length) = entry(index)
                if used < length {
                    let size = Int(min(length - used, UInt64(limit)))
                    defer { used += UInt64(size) }
                    return (address &+ used, size)
                }
                index += 1
                used = 0
            }
            return nil
        }
    }

    /// All lengths together, as the kernel bounds them; or a negated errno.
    private static func total(_ vector: UInt64, _ count: Int64, _ memory: ProgramMemory) -> Int64 {
        guard count >= 0, count <= 1024 else { return -ErrorNumber.invalid }
        if count == 0 { return 0 }
        guard memory.isReadable(vector, Int(count) * 16) else { return efault }
        let pieces = Pieces(vector: vector, count: Int(count))
        var sum: UInt64 = 0
        for index in 0..<Int(count) {
            let length = pieces.entry(index).length
            if length > UInt64(Int64.max) { return -ErrorNumber.invalid }
            sum = min(sum + length, UInt64(transferLimit))
        }
        return Int64(sum)
    }

    static func readVector(_ file: Description, _ vector: UInt64, _ count: Int64, offset: Int64?, _ memory: ProgramMemory) -> Int64 {
        if let offset, offset < 0 { return -ErrorNumber.invalid }
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        let sum = total(vector, count, memory)
        if sum < 0 {
            let empty = channel.readInPlace(file.handle, count: 0, offset: place(offset, 0))
            return empty == -ErrorNumber.badDescriptor ? empty : sum
        }
        var done = 0
        var checked = Pieces(vector: vector, count: Int(count))
        var pieces = checked
        repeat {
            let wanted = min(Int(sum) - done, channel.dataCapacity)
            var usable = 0
            while usable < wanted, let (address, size) = checked.next(wanted - usable) {
                guard memory.isWritable(address, size) else { break }
                usable += size
            }
            if usable == 0, wanted > 0 { return done > 0 ? Int64(done) : efault }
            let result = channel.readInPlace(file.handle, count: usable, offset: place(offset, done))
            // Nothing of a directory is nothing read: the kernel does not ask it.
            let isDirectory: Int64 = -21
            if sum == 0, result == isDirectory { return 0 }
            if result <= 0 { return done > 0 ? Int64(done) : result }
            let got = min(Int(result), usable)
            var scattered = 0
            while scattered < got, let (address, size) = pieces.next(got - scattered) {
                if let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) {
                    unsafe dashfs_copy(target, channel.dataArea + scattered, size)
                }
                scattered += size
            }
            done += got
            if got < wanted { break }
        } while done < Int(sum)
        return Int64(done)
    }

    /// What fits the arena is one request, so an append of several pieces is one append.
    static func writeVector(
        _ file: Description, _ vector: UInt64, _ count: Int64, offset: Int64?, flags: UInt32 = 0, _ memory: ProgramMemory
    ) -> Int64 {
        if let offset, offset < 0 { return -ErrorNumber.invalid }
        guard let session = file.session else { return file.failure }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        var sum = total(vector, count, memory)
        if sum > 0 {
            sum = Int64(FileSizeLimit.room(Int(sum), file, channel, offset: offset, flags: flags))
            if sum < 0 { return sum }
        }
        if sum < 0 { return refusal(channel.writeInPlace(file.handle, count: 0, offset: place(offset, 0)), sum) }
        var done = 0
        var pieces = Pieces(vector: vector, count: Int(count))
        repeat {
            let wanted = min(Int(sum) - done, channel.dataCapacity)
            var gathered = 0
            while gathered < wanted, let (address, size) = pieces.next(wanted - gathered) {
                guard unsafe memory.copyIn(channel.dataArea + gathered, from: address, count: size) else { break }
                gathered += size
            }
            if gathered == 0, wanted > 0 { return done > 0 ? Int64(done) : efault }
            let result = channel.writeInPlace(file.handle, count: gathered, offset: place(offset, done), flags: flags)
            if result <= 0 { return done > 0 ? Int64(done) : result }
            done += min(Int(result), gathered)
            if result < wanted { break }
        } while done < Int(sum)
        return Int64(done)
    }

    // MARK: From file to file

    /// copy_file_range(2). Between a file of ours and one of the kernel's: EXDEV, after which programs read and write.
    static func copyRange(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let ours = (Descriptors.isFile(frame.argument0), Descriptors.isFile(frame.argument2))
        guard ours.0 || ours.1 else { return nil }
        guard ours.0, ours.1 else {
            // The kernel's descriptor has to be open all the same.
            let other = ours.0 ? frame.argument2 : frame.argument0
            let isOpen = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, other, 3 /* F_GETFL */, 0) >= 0
            return isOpen ? -18 : -ErrorNumber.badDescriptor
        }
        guard let source = Descriptors.pin(frame.argument0) else { return -ErrorNumber.badDescriptor }
        defer { source.release() }
        guard let target = Descriptors.pin(frame.argument2) else { return -ErrorNumber.badDescriptor }
        defer { target.release() }
        guard let session = source.session, let other = target.session else { return source.failure }
        guard unsafe session.state == other.state else { return -18 }
        if source.isPathOnly || target.isPathOnly { return -ErrorNumber.badDescriptor }
        var offsets: (Int64, Int64) = (-1, -1)
        guard loadOffset(frame.argument1, &offsets.0, memory), loadOffset(frame.argument3, &offsets.1, memory) else { return efault }
        guard UInt32(truncatingIfNeeded: frame.argument5) == 0 else { return -ErrorNumber.invalid }
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        defer { session.release(channel) }
        if frame.argument1 != 0 && offsets.0 < 0 || frame.argument3 != 0 && offsets.1 < 0 {
            return refusal(channel.copyRange(from: source.handle, at: 0, to: target.handle, at: 0, length: 0), -ErrorNumber.invalid)
        }
        let room = FileSizeLimit.room(
            Int(min(UInt64(bitPattern: frame.argument4), UInt64(transferLimit))), target, channel, offset: frame.argument3 == 0 ? nil : offsets.1, flags: 0)
        if room < 0 { return Int64(room) }
        let length = UInt64(room)
        let result = channel.copyRange(from: source.handle, at: offsets.0, to: target.handle, at: offsets.1, length: length)
        if result > 0 {
            if frame.argument1 != 0 { unsafe UnsafeMutablePointer<Int64>(bitPattern: Int(frame.argument1))?.pointee = offsets.0 &+ result }
            if frame.argument3 != 0 { unsafe UnsafeMutablePointer<Int64>(bitPattern: Int(frame.argument3))?.pointee = offsets.1 &+ result }
        }
        return result
    }

    /// False: EFAULT. Checked for writing, because the moved offset goes back.
    static func loadOffset(_ address: Int64, _ offset: inout Int64, _ memory: ProgramMemory) -> Bool {
        if address == 0 { return true }
        guard memory.isWritable(UInt64(bitPattern: address), 8), let word = unsafe UnsafePointer<Int64>(bitPattern: Int(address)) else { return false }
        offset = unsafe word.pointee
        return true
    }
}
