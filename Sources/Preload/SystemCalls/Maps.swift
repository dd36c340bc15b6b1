// mmap(2) of files of ours, and what is done to such memory.
//
// The kernel maps a memfd of the server's that is the file's content; from there on loads and stores, mprotect, fork and the end of a process are between it and the
// server, which sees who still holds the memfd. What has to be known here is only which file msync(2) is to make durable and mremap(2) is to have more of: the
// table says it for all memory that is a map of ours, and perhaps for some that was. Too much in it costs a request, too little is never there: a map for which there
// is no entry left is refused.
//
// The table is the process's memory: a forked child has it as it has the maps. Entries are taken and given back by one atomic word each.

import CPreload
import CSystem

enum Maps {
    /// No entry at or above it has been used.
    nonisolated(unsafe) private static var used: UInt32 = 0

    private static var pageMask: UInt64 { 4095 }

    @inline(__always)
    static func map(_ frame: SystemCallFrame) -> Int64? {
        let anonymous: Int64 = 0x20
        guard frame.argument3 & anonymous == 0, Descriptors.isFile(frame.argument4) || Descriptors.isOwn(frame.argument4) else { return nil }
        return mapFile(frame)
    }

    /// What is wrong with a call is found in the kernel's order, as far as it would cost a filled memory to let the kernel find it.
    @inline(never)
    private static func mapFile(_ frame: SystemCallFrame) -> Int64 {
        let (length, offset) = (UInt64(bitPattern: frame.argument1), UInt64(bitPattern: frame.argument5))
        let type = frame.argument3 & 0xf
        if offset & pageMask != 0 { return -ErrorNumber.invalid }
        guard let file = Descriptors.pin(frame.argument4) else { return -ErrorNumber.badDescriptor }
        defer { file.release() }
        guard let session = file.session, !file.isPathOnly else { return -ErrorNumber.badDescriptor }
        if length == 0 { return -ErrorNumber.invalid }
        if length > 1 << 47 { return -ErrorNumber.noMemory }
        let (end, overflow) = offset.addingReportingOverflow((length &+ pageMask) & ~pageMask)
        // EOVERFLOW
        if overflow || end > UInt64(Int64.max) { return -75 }
        guard type >= 1, type <= 3 else { return -ErrorNumber.invalid }
        let isShared = type != 2
        guard let entry = claim() else { return -ErrorNumber.noMemory }
        let write: Int64 = 2
        let flags: UInt32 = (isShared ? 1 : 0) | (frame.argument2 & write != 0 ? 2 : 0)
        guard let channel = session.acquire() else {
            giveBack(entry)
            return -ErrorNumber.io
        }
        let made = channel.map(file.handle, offset: Int64(offset), length: end - offset, flags: flags)
        session.release(channel)
        if made.result < 0 {
            giveBack(entry)
            return made.result
        }
        // No handler may jump away with the descriptor open.
        let mask = dashfs_signals_block()
        defer { dashfs_signals_restore(mask) }
        let memory = session.takeMap(inode: made.info0)
        guard memory >= 0 else {
            giveBack(entry)
            let isLimit = memory == -ErrorNumber.tooManyFiles || memory == -23 || memory == -ErrorNumber.noMemory || memory == -ErrorNumber.protocolMismatch
            return isLimit ? -ErrorNumber.noMemory : -ErrorNumber.io
        }
        let address = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, memory, frame.argument5)
        _ = dashfs_sys_close(Int32(truncatingIfNeeded: memory))
        ProgramMemory.mappingsHaveChanged()
        guard address > 0 || address < -4095 else {
            giveBack(entry)
            return address
        }
        fill(entry, start: UInt64(bitPattern: address), length: end - offset, inode: made.info0, offset: offset, isShared: isShared)
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
        guard unsafe used != 0, let found = find(UInt64(bitPattern: frame.argument0)) else { return nil }
        let (old, oldLength, newLength) = (
            UInt64(bitPattern: frame.argument0), UInt64(bitPattern: frame.argument1), UInt64(bitPattern: frame.argument2)
        )
        let map = unsafe dashfs_map_at(found).pointee
        let (inode, isShared) = (map.inode, map.is_shared != 0)
        let offset = map.offset &+ (old &- map.start)
        guard let entry = claim() else { return -ErrorNumber.noMemory }
        if newLength > oldLength, newLength <= 1 << 47 {
            let (session, error) = Connection.session()
            guard let session, let channel = session.acquire() else {
                giveBack(entry)
                return error < 0 ? error : -ErrorNumber.io
            }
            let result = channel.mapMore(inode: inode, offset: Int64(bitPattern: offset & ~(1 << 63)), length: newLength)
            session.release(channel)
            if result < 0 {
                giveBack(entry)
                return result
            }
        }
        let result = dashfs_raw_syscall6(
            frame.number, frame.argument0, frame.argument1, frame.argument2, frame.argument3, frame.argument4, 0)
        ProgramMemory.mappingsHaveChanged()
        guard result > 0 || result < -4095 else {
            giveBack(entry)
            return result
        }
        let keepsOld: Int64 = 4
        if frame.argument3 & keepsOld == 0 { forget(old, oldLength) }
        fill(entry, start: UInt64(bitPattern: result), length: (newLength &+ pageMask) & ~pageMask, inode: inode, offset: offset, isShared: isShared)
        return result
    }

    /// msync(2): the kernel looks at the range, then every file that is shared there is made durable.
    static func sync(_ frame: SystemCallFrame) -> Int64? {
        if unsafe used == 0 { return nil }
        let result = dashfs_raw_syscall3(frame.number, frame.argument0, frame.argument1, frame.argument2)
        let synchronous: Int64 = 4
        guard result == 0, frame.argument2 & synchronous != 0 else { return result }
        let start = UInt64(bitPattern: frame.argument0)
        let end = start &+ UInt64(bitPattern: frame.argument1)
        var last: UInt64 = 0
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2 else { continue }
            let map = unsafe row.pointee
            guard map.is_shared != 0, map.start < end, start < map.end, map.inode != last else { continue }
            last = map.inode
            let (session, error) = Connection.session()
            guard let session, let channel = session.acquire() else { return error < 0 ? -ErrorNumber.io : -ErrorNumber.io }
            let synced = channel.syncMap(inode: last)
            session.release(channel)
            if synced < 0 { return synced }
        }
        return 0
    }

    // MARK: The table

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

    private static func fill(_ index: UInt32, start: UInt64, length: UInt64, inode: UInt64, offset: UInt64, isShared: Bool) {
        let row = unsafe dashfs_map_at(index)
        unsafe row.pointee.start = start
        unsafe row.pointee.end = start &+ length
        unsafe row.pointee.inode = inode
        unsafe row.pointee.offset = offset
        unsafe row.pointee.is_shared = isShared ? 1 : 0
        unsafe dashfs_store32_release(dashfs_map_state(row), 2)
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

    /// The memory is not there any more. What loses its middle keeps its entry.
    private static func forget(_ start: UInt64, _ length: UInt64) {
        let end = start &+ ((length &+ pageMask) & ~pageMask)
        for index in 0..<(unsafe used) {
            let row = unsafe dashfs_map_at(index)
            guard unsafe dashfs_load32_acquire(dashfs_map_state(row)) == 2 else { continue }
            let map = unsafe row.pointee
            guard map.start < end, start < map.end else { continue }
            if start <= map.start && map.end <= end {
                giveBack(index)
            } else if start <= map.start {
                unsafe row.pointee.offset = map.offset &+ (end &- map.start)
                unsafe row.pointee.start = end
            } else if map.end <= end {
                unsafe row.pointee.end = start
            }
        }
    }
}
