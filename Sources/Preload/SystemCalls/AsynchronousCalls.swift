// io_submit(2) with files of ours, and io_uring_setup(2) where a program is to do without.
//
// A request on a file of ours is done at once, in its turn. Its event then comes from the kernel like every other, whoever looks for it and however (io_getevents(2), the
// ring in user memory, an eventfd): the request is submitted as a write to /dev/null of as many bytes as the result is, under the program's own address and
// with its own data. What failed is io_submit's error, as of requests that the kernel finds fault with at once; but for ENOSPC and EFAULT, which devices give too.

import CPreload
import CSystem

enum AsynchronousCalls {
    nonisolated(unsafe) private static var withoutRings = false
    /// Whether io_uring_setup(2) is to fail with ENOSYS: what is done through a ring never is a system call.
    static var ringsAreRefused: Bool { unsafe withoutRings }
    static func refuseRings() { unsafe withoutRings = true }

    private static let efault: Int64 = -14
    /// struct iocb: u64 data, u32 key, u32 RWF flags, u16 operation at 16, i16 priority, u32 descriptor at 20, u64 buffer, u64 bytes, i64 offset, u64,
    /// u32 flags, u32 eventfd.
    private static let size = 64
    private typealias Words = InlineArray<8, UInt64>
    private enum Operation {
        static let read: UInt64 = 0, write: UInt64 = 1, sync: UInt64 = 2, dataSync: UInt64 = 3, poll: UInt64 = 5, readVector: UInt64 = 7, writeVector: UInt64 = 8
    }

    static func submit(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let (context, count) = (frame.argument0, frame.argument1)
        // With more addresses than this the rest is another call's, as the kernel does with what does not fit its ring.
        let seen = Int(min(count, 4096))
        guard Descriptors.end > 0, seen > 0, memory.isReadable(UInt64(bitPattern: frame.argument2), seen * 8),
            let list = unsafe UnsafePointer<UInt64>(bitPattern: Int(frame.argument2))
        else { return nil }
        var isOurs = false
        for index in 0..<seen where unsafe isRequestOfOurs(list[index], memory) { isOurs = true }
        guard isOurs else { return nil }
        // Nothing is done for a context that there is not.
        let empty = dashfs_raw_syscall3(frame.number, context, 0, frame.argument2)
        if empty < 0 { return empty }
        var done = 0
        while done < seen {
            let result: Int64
            if unsafe isRequestOfOurs(list[done], memory) {
                result = unsafe perform(frame.number, context, list + done, memory)
            } else {
                var end = done + 1
                while end < seen, unsafe !isRequestOfOurs(list[end], memory) { end += 1 }
                result = unsafe dashfs_raw_syscall3(frame.number, context, Int64(end - done), Int64(Int(bitPattern: list + done)))
                if result >= 0, Int(result) < end - done { return Int64(done) + result }
            }
            if result < 0 { return done > 0 ? Int64(done) : result }
            done += Int(max(result, 1))
        }
        return Int64(done)
    }

    private static func isRequestOfOurs(_ address: UInt64, _ memory: ProgramMemory) -> Bool {
        guard memory.isReadable(address, size), let request = unsafe UnsafeRawPointer(bitPattern: UInt(address)) else { return false }
        return Descriptors.isFile(Int64(unsafe request.loadUnaligned(fromByteOffset: 20, as: Int32.self)))
    }

    /// Does one request and hands its result to the kernel. 1, or what io_submit says of it.
    private static func perform(_ number: Int64, _ context: Int64, _ slot: UnsafePointer<UInt64>, _ memory: ProgramMemory) -> Int64 {
        let address = unsafe slot.pointee
        var words = Words(repeating: 0)
        let isKnown = unsafe withUnsafeMutableBytes(of: &words) { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe memory.copyIn(base, from: address, count: size)
        }
        guard isKnown, memory.isWritable(address, size), let request = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) else { return efault }
        guard let file = Descriptors.pin(Int64(Int32(truncatingIfNeeded: words[2] >> 32))) else { return -ErrorNumber.badDescriptor }
        defer { file.release() }
        let result = result(of: words, file, memory)
        guard let stand = StandIn(for: result, words) else { return result }
        let closeOnExec: Int32 = 0o2000000
        let opened = unsafe dashfs_sys_open(
            UnsafeRawPointer(stand.path.utf8Start).assumingMemoryBound(to: CChar.self), (stand.operation == Operation.read ? 0 : 1) | closeOnExec, 0)
        guard opened >= 0 else { return -ErrorNumber.again }
        defer { _ = dashfs_sys_close(Int32(truncatingIfNeeded: opened)) }
        // The kernel copies a request before it looks at the next; afterwards it is the program's again, but for the key that the kernel writes.
        unsafe request.storeBytes(of: words[1] & 0xffff_ffff, toByteOffset: 8, as: UInt64.self)
        unsafe request.storeBytes(
            of: words[2] & 0xffff_0000 | stand.operation | UInt64(UInt32(truncatingIfNeeded: opened)) << 32, toByteOffset: 16, as: UInt64.self)
        unsafe request.storeBytes(of: stand.buffer, toByteOffset: 24, as: UInt64.self)
        unsafe request.storeBytes(of: stand.count, toByteOffset: 32, as: UInt64.self)
        unsafe request.storeBytes(of: 0, toByteOffset: 40, as: UInt64.self)
        let submitted = dashfs_raw_syscall3(number, context, 1, Int64(Int(bitPattern: slot)))
        unsafe request.storeBytes(of: UInt32(truncatingIfNeeded: words[1] >> 32), toByteOffset: 12, as: UInt32.self)
        for index in 2...5 { unsafe request.storeBytes(of: words[index], toByteOffset: index * 8, as: UInt64.self) }
        return submitted
    }

    /// What the kernel is to do instead of a request, so that its event has the request's result.
    private struct StandIn {
        let path: StaticString
        var operation = Operation.write
        var buffer: UInt64
        var count: UInt64

        /// nil: there is nothing that ends so.
        init?(for result: Int64, _ words: Words) {
            let (noSpace, badAddress): (Int64, Int64) = (-28, -14)
            let isTransfer = words[2] & 0xffff == Operation.read || words[2] & 0xffff == Operation.write
            (buffer, count) = (4096, UInt64(max(result, 1)))
            switch result {
            case 0...:
                path = "/dev/null"
                count = UInt64(result)
            case noSpace: path = "/dev/full"
            case badAddress where isTransfer:
                path = "/dev/zero"
                operation = Operation.read
                (buffer, count) = (words[3], words[4])
            default: return nil
            }
        }
    }

    private static func result(of words: Words, _ file: Description, _ memory: ProgramMemory) -> Int64 {
        let flags = UInt32(truncatingIfNeeded: words[1] >> 32)
        let (buffer, count) = (words[3], words[4])
        let offset = Int64(bitPattern: words[5])
        guard words[6] == 0, Int64(bitPattern: count) >= 0 else { return -ErrorNumber.invalid }
        guard let session = file.session else { return file.failure }
        if file.isPathOnly { return -ErrorNumber.badDescriptor }
        switch words[2] & 0xffff {
        case Operation.read, Operation.write, Operation.readVector, Operation.writeVector:
            guard !file.isDirectory else { return -ErrorNumber.invalid }
            if let problem = TransferFlags.problem(flags) { return problem }
            switch words[2] & 0xffff {
            case Operation.read: return Transfers.read(file, buffer, count, offset: offset, memory)
            case Operation.write: return Transfers.write(file, buffer, count, offset: offset, flags: flags & TransferFlags.ofWrites, memory)
            case Operation.readVector: return Transfers.readVector(file, buffer, Int64(count), offset: offset, memory)
            default: return Transfers.writeVector(file, buffer, Int64(count), offset: offset, flags: flags & TransferFlags.ofWrites, memory)
            }
        case Operation.sync, Operation.dataSync:
            guard buffer == 0, count == 0, offset == 0, flags == 0 else { return -ErrorNumber.invalid }
            guard let channel = session.acquire() else { return -ErrorNumber.io }
            defer { session.release(channel) }
            return channel.fsync(file.handle, dataOnly: words[2] & 0xffff == Operation.dataSync)
        // POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM; the kernel's events carry no result of 0 for it.
        case Operation.poll where buffer & 0x145 != 0: return Int64(buffer & 0x145)
        default: return -ErrorNumber.invalid
        }
    }
}
