// mmap(2) of files of ours, and what is done to such memory.
//
// The kernel maps a memfd of the server's that is the file's content; from there on loads and stores, fork and the end of a process are between it and the
// server, which sees who still holds the memfd. A map that is not to be written gets a descriptor for reading, so that nobody has to look for stores; where mprotect(2) then
// wants to write, the same bytes are mapped anew in its place, by the open file that a map keeps open, as in the kernel.
//
// The table says for all memory that is a map of ours which file it is: for msync(2), mremap(2) and mprotect(2). An entry is given up when a call of the C
// library takes the memory away; one that is there too long costs a request. A map for which there is no entry left is refused. The table is the process's memory: a
// forked child has it as it has the maps. Entries are taken and given back by one atomic word each.

import CPreload
import CSystem

enum Maps {
    /// No entry at or above it has been used.
    nonisolated(unsafe) private static var used: UInt32 = 0

    private static var pageMask: UInt64 { 4095 }
    private static var write: Int64 { 2 }
    private static var fixed: Int64 { 0x10 }

    private static func failed(_ address: Int64) -> Bool { address < 0 && address >= -4095 }

    @inline(__always)
    static func map(_ frame: SystemCallFrame) -> Int64? {
        let anonymous: Int64 = 0x20
        if frame.argument3 & anonymous == 0, Descriptors.isFile(frame.argument4) || Descriptors.isOwn(frame.argument4) { return mapFile(frame) }
        if unsafe used == 0 || frame.argument3 & fixed == 0 { return nil }
        let address = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, frame.argument5)
        ProgramMemory.mappingsHaveChanged()
        if !failed(address) { forget(UInt64(bitPattern: address), UInt64(bitPattern: frame.argument1)) }
        return address
    }

    /// What is wrong with a call is found in the kernel's order, as far as it would cost a filled memory to let the kernel find it.
    @inline(never)
    private static func mapFile(_ frame: SystemCallFrame) -> Int64 {
        let (length, offset) = (UInt64(bitPattern: frame.argument1), UInt64(bitPattern: frame.argument5))
        let type = frame.argument3 & 0xf
        if offset & pageMask != 0 { return -ErrorNumber.invalid }
        guard let file = Descriptors.pin(frame.argument4) else { return -ErrorNumber.badDescriptor }
        defer { file.release() }
        guard let session = file.session else { return file.failure }
        if file.isPathOnly { return -ErrorNumber.badDescriptor }
        if length == 0 { return -ErrorNumber.invalid }
        if length > 1 << 47 { return -ErrorNumber.noMemory }
        let (end, overflow) = offset.addingReportingOverflow((length &+ pageMask) & ~pageMask)
        // EOVERFLOW
        if overflow || end > UInt64(Int64.max) { return -75 }
        guard type >= 1, type <= 3 else { return -ErrorNumber.invalid }
        let isShared = type != 2
        guard let entry = claim() else { return -ErrorNumber.noMemory }
        var row = dashfs_map()
        let address = mapMemory(file, session, isShared: isShared, offset: offset, length: end - offset, frame, &row)
        if failed(address) {
            giveBack(entry)
            return address
        }
        if frame.argument3 & fixed != 0 { forget(row.start, row.end &- row.start) }
        if file.retain() { row.description = file.index &+ 1 }
        fill(entry, row)
        return address
    }

    /// Has the server make the memory, and the kernel map it as `frame` says.
    private static func mapMemory(
        _ file: Description, _ session: Session, isShared: Bool, offset: UInt64, length: UInt64, _ frame: SystemCallFrame, _ row: inout dashfs_map
    ) -> Int64 {
        guard let channel = session.acquire() else { return -ErrorNumber.io }
        let flags: UInt32 = (isShared ? 1 : 0) | (frame.argument2 & write != 0 ? 2 : 0)
        let made = channel.map(file.handle, offset: Int64(bitPattern: offset), length: length, flags: flags)
        session.release(channel)
        if made.result < 0 { return made.result }
        // No handler may jump away with the descriptor open.
        let mask = dashfs_signals_block()
        defer { dashfs_signals_restore(mask) }
        let memory = session.takeMap(inode: made.info0)
        guard memory >= 0 else {
            let isLimit = memory == -ErrorNumber.tooManyFiles || memory == -23 || memory == -ErrorNumber.noMemory || memory == -ErrorNumber.protocolMismatch
            return isLimit ? -ErrorNumber.noMemory : -ErrorNumber.io
        }
        let address = dashfs_raw_syscall6(
            SystemCallNumber.mmap.rawValue, frame.argument0, frame.argument1, frame.argument2, frame.argument3, memory, Int64(bitPattern: offset))
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: memory))
        ProgramMemory.mappingsHaveChanged()
        row.start = UInt64(bitPattern: address)
        row.end = row.start &+ length
        row.inode = made.info0
        row.offset = offset
        row.is_shared = isShared ? 1 : 0
        row.is_written = isShared && frame.argument2 & write != 0 ? 1 : 0
        return address
    }

    @inline(__always)
    static func unmap(_ frame: SystemCallFrame) -> Int64? {
        if unsafe used == 0 { return nil }
        let result = dashfs_raw_syscall3(frame.number, frame.argument0, frame.argument1, 0)
        ProgramMemory.mappingsHaveChanged()
        if result == 0 { forget(UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1)) }
        return result
    }

    /// mremap(2): what is new of the file has to be in the memory before the program can see it.
    static func remap(_ frame: SystemCallFrame) -> Int64? {
        if unsafe used == 0 { return nil }
        let (old, oldLength, newLength) = (
            UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1), UInt64(bitPattern: frame.argument2)
        )
        guard let found = find(old) else { return remapOther(frame, old, oldLength, newLength) }
        var row = unsafe dashfs_map_at(found).pointee
        row.offset = row.offset &+ (old &- row.start)
        guard let entry = claim() else { return -ErrorNumber.noMemory }
        if newLength > oldLength, newLength <= 1 << 47 {
            let result = more(row, newLength)
            if result < 0 {
                giveBack(entry)
                return result
            }
        }
        // What the old entry keeps open may go with it.
        let file = row.description == 0 ? nil : Description(index: row.description &- 1)
        if let file, !file.retain() { row.description = 0 }
        let result = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, 0)
        ProgramMemory.mappingsHaveChanged()
        if failed(result) {
            if row.description != 0 { file?.release() }
            giveBack(entry)
            return result
        }
        // Where the old range was of several maps, the first of them ends where it ended.
        let isPart = row.end < old &+ oldLength
        let length = isPart ? min(newLength, row.end &- old) : newLength
        if frame.argument3 & keepsOld == 0 { forget(old, oldLength) }
        row.start = UInt64(bitPattern: result)
        row.end = row.start &+ ((length &+ pageMask) & ~pageMask)
        if frame.argument3 & moveFixed != 0 { forget(row.start, newLength) }
        fill(entry, row)
        return result
    }

    private static var moveFixed: Int64 { 2 }
    private static var keepsOld: Int64 { 4 }

    /// The range begins with memory that is not ours; what is of ours behind that, or where it goes, is so no more.
    @inline(never)
    private static func remapOther(_ frame: SystemCallFrame, _ old: UInt64, _ oldLength: UInt64, _ newLength: UInt64) -> Int64 {
        let result = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, 0)
        ProgramMemory.mappingsHaveChanged()
        if failed(result) { return result }
        let kept = (newLength &+ pageMask) & ~pageMask
        if frame.argument3 & moveFixed != 0 { forget(UInt64(bitPattern: result), newLength) }
        if UInt64(bitPattern: result) != old {
            if frame.argument3 & keepsOld == 0 { forget(old, oldLength) }
        } else if kept < oldLength {
            forget(old &+ kept, oldLength &- kept)
        }
        return result
    }

    private static func more(_ row: dashfs_map, _ length: UInt64) -> Int64 {
        let (session, error) = Connection.session()
        guard let session, let channel = session.acquire() else { return error < 0 ? error : -ErrorNumber.io }
        defer { session.release(channel) }
        return channel.changeMap(inode: row.inode, offset: Int64(bitPattern: row.offset & ~(1 << 63)), length: length, more: true)
    }

    /// mprotect(2), pkey_mprotect(2): shared maps that have not been for writing become so where the kernel says that they are not.
    static func protect(_ frame: SystemCallFrame) -> Int64? {
        if unsafe used == 0 { return nil }
        let start = UInt64(bitPattern: frame.argument0)
        let end = start &+ ((UInt64(bitPattern: frame.argument1) &+ pageMask) & ~pageMask)
        // The kernel goes from one map to the next and stops where it may not go on; so what lies behind that stays as it is.
        for _ in 0...(unsafe used) {
            let result = dashfs_raw_syscall6(frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, 0, 0)
            ProgramMemory.mappingsHaveChanged()
            guard result == -ErrorNumber.access, frame.argument2 & write != 0, let row = firstUnwritten(start, end) else { return result }
            let error = makeWritable(row, from: max(row.start, start), to: min(row.end, end), protection: frame.argument2)
            if error != 0 { return error }
        }
        return -ErrorNumber.access
    }

    /// The lowest of the shared maps in the range that are not for writing and could be.
    private static func firstUnwritten(_ start: UInt64, _ end: UInt64) -> dashfs_map? {
        var first: dashfs_map?
        for index in 0..<(unsafe used) {
            let place = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(place)) == 2 else { continue }
            let row = unsafe place.pointee
            guard row.is_shared != 0, row.is_written == 0, row.description != 0, row.start < end, start < row.end else { continue }
            if let known = first, known.start <= row.start { continue }
            first = row
        }
        return first
    }

    @inline(never)
    private static func makeWritable(_ row: dashfs_map, from: UInt64, to: UInt64, protection: Int64) -> Int64 {
        let file = Description(index: row.description &- 1)
        guard file.retain() else { return -ErrorNumber.access }
        defer { file.release() }
        guard let session = file.session else { return -ErrorNumber.access }
        guard let entry = claim() else { return -ErrorNumber.noMemory }
        var call = SystemCallFrame()
        call.argument0 = Int64(bitPattern: from)
        call.argument1 = Int64(bitPattern: to &- from)
        call.argument2 = protection
        call.argument3 = 1 | fixed
        var new = dashfs_map()
        let address = mapMemory(file, session, isShared: true, offset: row.offset &+ (from &- row.start), length: to &- from, call, &new)
        if failed(address) {
            giveBack(entry)
            let noSpace: Int64 = -28
            return address == noSpace ? -ErrorNumber.noMemory : address
        }
        if file.retain() { new.description = file.index &+ 1 }
        forget(from, to &- from)
        fill(entry, new)
        return 0
    }

    /// msync(2): the kernel looks at the range, then every file that is shared there is made durable.
    static func sync(_ frame: SystemCallFrame) -> Int64? {
        if unsafe used == 0 { return nil }
        let result = dashfs_raw_syscall3(frame.number, frame.argument0, frame.argument1, frame.argument2)
        let synchronous: Int64 = 4
        guard result == 0, frame.argument2 & synchronous != 0 else { return result }
        let start = UInt64(bitPattern: frame.argument0)
        let end = start &+ UInt64(bitPattern: frame.argument1)
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2 else { continue }
            let map = unsafe row.pointee
            guard map.is_shared != 0, map.start < end, start < map.end else { continue }
            guard let session = Connection.session().session, let channel = session.acquire() else { return -ErrorNumber.io }
            let (from, to) = (max(map.start, start), min(map.end, end))
            let synced = channel.syncMap(inode: map.inode, offset: Int64(bitPattern: map.offset &+ (from &- map.start)), length: to &- from)
            session.release(channel)
            if synced < 0 { return synced }
        }
        return 0
    }

    // MARK: The table

    /// Whether a map may be all that keeps a file open.
    static var mayKeepFiles: Bool { unsafe used != 0 }

    /// The open files that maps keep.
    static func addHandles(_ target: UnsafeMutablePointer<Int32>, _ count: inout Int, limit: Int) {
        var found = count
        let last = firstFile { file in
            guard found < limit else { return true }
            if file.generation == Connection.generation {
                unsafe target[found] = file.handle
                found += 1
            }
            return false
        }
        last?.release()
        count = found
    }

    /// The description of a handle that a map keeps, with a reference for the caller.
    static func find(handle: Int32) -> Description? { firstFile { $0.handle == handle && $0.generation == Connection.generation } }

    /// The first open file kept by a map that is wanted, with a reference for the caller. Each is held while it is looked at.
    private static func firstFile(_ isWanted: (Description) -> Bool) -> Description? {
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2, unsafe row.pointee.description != 0 else { continue }
            let file = unsafe Description(index: row.pointee.description &- 1)
            guard file.retain() else { continue }
            if isWanted(file) { return file }
            file.release()
        }
        return nil
    }

    private static func claim() -> UInt32? {
        for index in 0..<UInt32(DASHFS_MAP_LIMIT) {
            let state = unsafe dashfs_map_state(dashfs_map_at(index))
            guard unsafe dashfs_load32(state) == 0, unsafe dashfs_swap32_if(state, 0, 1) else { continue }
            while true {
                let old = unsafe dashfs_load32(&used)
                if unsafe old > index || dashfs_swap32_if(&used, old, index + 1) { break }
            }
            return index
        }
        return nil
    }

    private static func giveBack(_ index: UInt32) { unsafe dashfs_store32_release(dashfs_map_state(dashfs_map_at(index)), 0) }

    private static func fill(_ index: UInt32, _ row: dashfs_map) {
        let place = unsafe dashfs_map_at(index)
        unsafe place.pointee.start = row.start
        unsafe place.pointee.end = row.end
        unsafe place.pointee.inode = row.inode
        unsafe place.pointee.offset = row.offset
        unsafe place.pointee.is_shared = row.is_shared
        unsafe place.pointee.description = row.description
        unsafe place.pointee.is_written = row.is_written
        unsafe dashfs_store32_release(dashfs_map_state(place), 2)
    }

    /// The entry of the memory at `address`.
    private static func find(_ address: UInt64) -> UInt32? {
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2 else { continue }
            if unsafe row.pointee.start <= address && address < row.pointee.end { return index }
        }
        return nil
    }

    /// The memory is not there any more, or is something else.
    private static func forget(_ start: UInt64, _ length: UInt64) {
        let end = start &+ ((length &+ pageMask) & ~pageMask)
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2 else { continue }
            let map = unsafe row.pointee
            guard map.start < end, start < map.end else { continue }
            if map.is_written != 0 { tell(map, from: max(map.start, start), to: min(map.end, end)) }
            if start <= map.start && map.end <= end {
                guard unsafe dashfs_swap32_if(dashfs_map_state(row), 2, 1) else { continue }
                unsafe row.pointee.description = 0
                giveBack(index)
                if map.description != 0 { Description(index: map.description &- 1).release() }
            } else if start <= map.start {
                unsafe row.pointee.offset = map.offset &+ (end &- map.start)
                unsafe row.pointee.start = end
            } else if map.end <= end {
                unsafe row.pointee.end = start
            } else {
                unsafe split(row, map, start, end)
            }
        }
    }

    /// The server looks for what has been stored there now rather than later: the file's time is that of the munmap. A forked child that has no connection makes
    /// none for it.
    private static func tell(_ map: dashfs_map, from: UInt64, to: UInt64) {
        guard let session = Connection.existing, let channel = session.acquire() else { return }
        _ = channel.changeMap(inode: map.inode, offset: Int64(bitPattern: map.offset &+ (from &- map.start)), length: to &- from, more: false)
        session.release(channel)
    }

    /// What loses its middle becomes two. Where there is no entry for the second it stays one, and cannot become writable: nothing is mapped over what may lie between.
    private static func split(_ row: UnsafeMutablePointer<dashfs_map>, _ map: dashfs_map, _ start: UInt64, _ end: UInt64) {
        let file = map.description == 0 ? nil : Description(index: map.description &- 1)
        guard let entry = claim() else {
            unsafe row.pointee.description = 0
            file?.release()
            return
        }
        var rest = map
        rest.start = end
        rest.offset = map.offset &+ (end &- map.start)
        if let file, !file.retain() { rest.description = 0 }
        unsafe row.pointee.end = start
        fill(entry, rest)
    }
}
