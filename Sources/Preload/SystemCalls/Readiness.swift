// poll(2), select(2), their relatives and epoll_ctl(2), where files of ours are among the descriptors.
//
// A file is always ready for reading and writing. So a call that asks one of ours for that returns at once, and what the kernel has to say of the other
// descriptors is asked without waiting; where ours are asked for nothing that they have, the call waits for the kernel's alone. The program's own
// sets are never changed for the time of a wait, which a thread may leave by cancellation or a jump out of a signal handler.

import CPreload
import CSystem

enum Readiness {
    /// POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM.
    private static let always: UInt16 = 0x145
    private static let invalid: UInt16 = 0x20
    private static let efault: Int64 = -14
    private static let entrySize = 8

    private enum Kind { case kernel, file, lost }

    /// Whose a descriptor is. `lost`: POLLNVAL. One that was opened with O_PATH is that for the kernel as well.
    private static func kind(_ descriptor: Int32) -> Kind {
        guard descriptor >= 0 else { return .kernel }
        if Descriptors.isOwn(Int64(descriptor)) { return .lost }
        guard let file = Descriptors.pin(Int64(descriptor)) else { return .kernel }
        defer { file.release() }
        if file.isPathOnly { return .kernel }
        return file.session == nil ? .lost : .file
    }

    // MARK: poll

    /// What an entry (struct pollfd: i32 descriptor, u16 events, u16 answer) is to be answered; nil: the kernel tells.
    private static func answer(_ entry: UnsafeMutableRawPointer) -> UInt16? {
        switch kind(unsafe entry.loadUnaligned(as: Int32.self)) {
        case .kernel: nil
        case .lost: invalid
        case .file: unsafe entry.loadUnaligned(fromByteOffset: 4, as: UInt16.self) & always
        }
    }

    static func poll(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let count = Int(UInt32(truncatingIfNeeded: frame.argument1))
        // More than a process can have: the kernel says so.
        guard Descriptors.end > 0, count > 0, count <= 1 << 20, memory.isReadable(UInt64(bitPattern: frame.argument0), count * entrySize),
            let entries = unsafe UnsafeMutableRawPointer(bitPattern: Int(frame.argument0))
        else { return nil }
        var (isOurs, isReady) = (false, false)
        for index in 0..<count {
            guard let answer = unsafe answer(entries + index * entrySize) else { continue }
            isOurs = true
            if answer != 0 { isReady = true }
        }
        guard isOurs else { return nil }
        if isReady { return unsafe pollAtOnce(number, frame, entries, count, memory) }

        guard let room = Room(bytes: count * entrySize) else { return -ErrorNumber.noMemory }
        unsafe dashfs_copy(room.base, entries, count * entrySize)
        for index in 0..<count where unsafe answer(entries + index * entrySize) != nil {
            // A negative descriptor is passed over.
            unsafe room.base.storeBytes(of: Int32(-1), toByteOffset: index * entrySize, as: Int32.self)
        }
        let result = Signals.call(frame.number, room.address, frame.argument1, frame.argument2, frame.argument3, frame.argument4)
        guard result >= 0 else { return result }
        guard memory.isWritable(UInt64(bitPattern: frame.argument0), count * entrySize) else { return efault }
        for index in 0..<count {
            let shown = unsafe room.base.load(fromByteOffset: index * entrySize + 6, as: UInt16.self)
            unsafe entries.storeBytes(of: shown, toByteOffset: index * entrySize + 6, as: UInt16.self)
        }
        return result
    }

    /// The placeholders of ours answer POLLNVAL, so the kernel does not wait; what they answer is then put right.
    private static func pollAtOnce(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ entries: UnsafeMutableRawPointer, _ count: Int, _ memory: ProgramMemory
    ) -> Int64 {
        var zero: (Int64, Int64) = (0, 0)
        if number == .ppoll, let problem = problem(of: frame.argument2, unitsPerSecond: 1_000_000_000, memory) { return problem }
        let result = unsafe withUnsafeMutablePointer(to: &zero) { zero in
            dashfs_raw_syscall6(
                frame.number, frame.argument0, frame.argument1, number == .poll ? 0 : Int64(Int(bitPattern: zero)), frame.argument3, frame.argument4, 0)
        }
        guard result >= 0 else { return result }
        var ready: Int64 = 0
        for index in 0..<count {
            let entry = unsafe entries + index * entrySize
            if let answer = unsafe answer(entry) { unsafe entry.storeBytes(of: answer, toByteOffset: 6, as: UInt16.self) }
            if unsafe entry.loadUnaligned(fromByteOffset: 6, as: UInt16.self) != 0 { ready += 1 }
        }
        return ready
    }

    /// What the kernel finds wrong with a limit of two words: seconds, and `unitsPerSecond` of the second.
    private static func problem(of address: Int64, unitsPerSecond: Int64, _ memory: ProgramMemory) -> Int64? {
        if address == 0 { return nil }
        var limit: (Int64, Int64) = (0, 0)
        let isReadable = unsafe withUnsafeMutablePointer(to: &limit) { unsafe memory.copyIn($0, from: UInt64(bitPattern: address), count: 16) }
        guard isReadable else { return efault }
        // Of select(2) the second word may be more than a second.
        let isValid = limit.0 >= 0 && limit.1 >= 0 && (unitsPerSecond == 1_000_000 || limit.1 < unitsPerSecond)
        return isValid ? nil : -ErrorNumber.invalid
    }

    // MARK: select

    /// fd_sets are whole words of 64 descriptors here.
    private static let wordBits = 64

    private static func word(_ set: Int64, _ index: Int, _ memory: ProgramMemory) -> UInt64 {
        let address = set &+ Int64(index * 8)
        guard set != 0, memory.isReadable(UInt64(bitPattern: address), 8), let pointer = unsafe UnsafeRawPointer(bitPattern: Int(address)) else { return 0 }
        return unsafe pointer.loadUnaligned(as: UInt64.self)
    }

    static func select(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let asked = Int(Int32(truncatingIfNeeded: frame.argument0))
        guard Descriptors.end > 0, asked > 0 else { return nil }
        // What stands above the highest file of ours the kernel alone looks at.
        let words = (min(asked, Int(DASHFS_DESCRIPTOR_LIMIT)) + wordBits - 1) / wordBits
        let wordsOfOurs = min(words, (Int(Descriptors.end) + wordBits - 1) / wordBits)
        var (isOurs, isReady) = (false, false)
        for index in 0..<wordsOfOurs {
            let usable = mask(index, asked)
            let transfers = (word(frame.argument1, index, memory) | word(frame.argument2, index, memory)) & usable
            var left = transfers | word(frame.argument3, index, memory) & usable
            while left != 0 {
                let bit = left & (0 &- left)
                left ^= bit
                switch kind(Int32(index * wordBits + bit.trailingZeroBitCount)) {
                case .kernel: continue
                case .lost: return -ErrorNumber.badDescriptor
                case .file:
                    isOurs = true
                    if transfers & bit != 0 { isReady = true }
                }
            }
        }
        guard isOurs else { return nil }
        guard let room = Room(bytes: 3 * words * 8) else { return -ErrorNumber.noMemory }
        return unsafe select(number, frame, room.base, words, wordsOfOurs, asked, isReady, memory)
    }

    /// Asks the kernel of its own descriptors, in copies of the sets, and puts ours to what it answers.
    private static func select(
        _ number: SystemCallNumber, _ frame: SystemCallFrame, _ copies: UnsafeMutableRawPointer, _ words: Int, _ wordsOfOurs: Int, _ asked: Int,
        _ isReady: Bool, _ memory: ProgramMemory
    ) -> Int64 {
        let bytes = words * 8
        for set in 0..<3 {
            let address = frame.argument(set + 1)
            guard address == 0 || memory.isWritable(UInt64(bitPattern: address), bytes) else { return efault }
            for index in 0..<words {
                let value = word(address, index, memory)
                let ours = index < wordsOfOurs ? ours(value, index, asked) : 0
                unsafe copies.storeBytes(of: value & ~ours, toByteOffset: set * bytes + index * 8, as: UInt64.self)
            }
        }
        func copy(_ set: Int) -> Int64 { unsafe frame.argument(set + 1) == 0 ? 0 : Int64(Int(bitPattern: copies + set * bytes)) }
        var limit = frame.argument4
        // pselect6's set of signals is for the time of a wait.
        var signals = frame.argument5
        var zero: (Int64, Int64) = (0, 0)
        if isReady {
            if let problem = problem(of: limit, unitsPerSecond: number == .select ? 1_000_000 : 1_000_000_000, memory) { return problem }
            signals = 0
        }
        var result = unsafe withUnsafeMutablePointer(to: &zero) { zero in
            if isReady { limit = Int64(Int(bitPattern: zero)) }
            return Signals.call(frame.number, frame.argument0, copy(0), copy(1), copy(2), limit, signals)
        }
        if isReady, result == -ErrorNumber.interrupted {
            // Without waiting, and with nothing of the kernel's ready: its sets are as they were.
            result = 0
            for index in 0..<3 * words { unsafe copies.storeBytes(of: 0, toByteOffset: index * 8, as: UInt64.self) }
        }
        guard result >= 0 else { return result }
        for set in 0..<3 {
            let address = frame.argument(set + 1)
            guard let target = unsafe UnsafeMutableRawPointer(bitPattern: Int(address)) else { continue }
            for index in 0..<words {
                var value = unsafe copies.load(fromByteOffset: set * bytes + index * 8, as: UInt64.self)
                if isReady, set < 2, index < wordsOfOurs {
                    let ours = ours(word(address, index, memory), index, asked)
                    value |= ours
                    result += Int64(ours.nonzeroBitCount)
                }
                unsafe target.storeBytes(of: value, toByteOffset: index * 8, as: UInt64.self)
            }
        }
        return result
    }

    /// The bits of a set's word that are below the number of descriptors that the call asks about.
    private static func mask(_ index: Int, _ asked: Int) -> UInt64 {
        let left = asked - index * wordBits
        return left >= wordBits ? ~0 : (1 << UInt64(left)) &- 1
    }

    /// Which of a word's bits are files of ours.
    private static func ours(_ value: UInt64, _ index: Int, _ asked: Int) -> UInt64 {
        var (left, found) = (value & mask(index, asked), UInt64(0))
        while left != 0 {
            let bit = left & (0 &- left)
            left ^= bit
            if kind(Int32(index * wordBits + bit.trailingZeroBitCount)) == .file { found |= bit }
        }
        return found
    }

    // MARK: epoll

    /// epoll_ctl(2) knows no regular files and no directories: EPERM, whatever is to be done to them.
    static func controlEpoll(_ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        let (epoll, descriptor) = (Int32(truncatingIfNeeded: frame.argument0), Int32(truncatingIfNeeded: frame.argument2))
        let (kindOfEpoll, kind) = (kind(epoll), kind(descriptor))
        guard kindOfEpoll != .kernel || kind != .kernel else { return nil }
        let delete: Int64 = 2
        guard frame.argument1 == delete || memory.isReadable(UInt64(bitPattern: frame.argument3), 12) else { return efault }
        guard isOpen(epoll, kindOfEpoll), isOpen(descriptor, kind) else { return -ErrorNumber.badDescriptor }
        let notPermitted: Int64 = -1
        return kind == .file ? notPermitted : -ErrorNumber.invalid
    }

    private static func isOpen(_ descriptor: Int32, _ kind: Kind) -> Bool {
        guard kind == .kernel else { return kind == .file }
        let flags = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, Int64(descriptor), 3 /* F_GETFL */, 0)
        return flags >= 0 && UInt32(truncatingIfNeeded: flags) & OpenFlags.pathOnly == 0
    }
}
