// execve(2) and execveat(2): the kernel runs the program, with an environment that hands on what is open (`Handover`).
//
// A program of the volume is copied into a sealed memfd and run from there (as fexecve does), and told which file it is (`OwnProgram`); of a script the interpreter is run, as the
// kernel would, also of a script of the kernel's whose interpreter is in the volume. Set-user-ID bits have no effect.
//
// Always true when the kernel is asked: no channel, description or scratch block is held, because a vfork child that becomes another program never comes back to give
// one up; texts are in the thread's block.

import CPreload
import CSystem

enum Execution {
    /// The result of `prepare` where the kernel can be asked: info0 is the memfd's descriptor, or, for a script, 0; info1 the length of the program's path at `programAt`.
    static let ready: Int64 = -5000
    private static let chainLimit: UInt32 = 5
    /// AT_EXECVE_CHECK (Linux 6.14): may it be run?
    private static let onlyCheck: UInt32 = 0x10000

    // The room for an exec, of DASHFS_EXEC_BYTES: the path, the program's own, a script's first line for each of a chain, one more that is only looked at, two arrays of arguments used in
    // turn, the environment.
    private static let programAt = 4096
    private static let headAt = 8192
    private static let headBytes = Script.headBytes
    private static let lineAt = 12288
    private static let argumentsAt = 16384
    private static let argumentsBytes = 56 << 10
    private static let variablesAt = 128 << 10

    static func isExec(_ number: SystemCallNumber) -> Bool { number == .execve || number == .execveat }

    /// The program's call. The result is an error's: else nobody is there to have one.
    static func answer(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ memory: ProgramMemory) -> Int64? {
        guard let block = unsafe ThreadBlock.claim() else { return nil }
        unsafe block.pointee.chain = 0
        unsafe block.pointee.name = UInt64(bitPattern: number == .execveat ? frame.argument1 : frame.argument0)
        if let result = PathCalls.answer(number, frame, memory) { return result }
        let result = kernel(number, frame, memory)
        Report.wasTheKernels(number)
        return result == -ErrorNumber.noEntry ? KernelLinks.retry(number, frame, memory) ?? result : result
    }

    /// Where a path that an escape leaves is put: it outlives every block that would have to be given up.
    static var pathRoom: UnsafeMutableRawPointer? { unsafe dashfs_thread_block().map { unsafe UnsafeMutableRawPointer(dashfs_block_exec($0)) } }

    /// The kernel's file.
    static func kernel(_ number: SystemCallNumber, _ call: SystemCallFrame, _ memory: ProgramMemory) -> Int64 {
        let isAt = number == .execveat
        // A search through PATH: what is not there needs no preparation.
        let search = isAt ? 0 : dashfs_raw_syscall3(SystemCallNumber.access.rawValue, call.argument0, 1, 0)
        guard search >= 0, let block = unsafe dashfs_thread_block() else { return raw(call, call.argument(isAt ? 3 : 2)) }
        var program = ProgramFile(number, call, memory)
        defer { program.close() }
        let chain = unsafe block.pointee.chain
        let room = unsafe UnsafeMutableRawPointer(dashfs_block_exec(block))
        if unsafe chain <= chainLimit && program.followScripts(room + headAt + Int(chain) * headBytes, room + lineAt) {
            // access(2) has said that of the others.
            let allowed = isAt ? dashfs_raw_syscall6(SystemCallNumber.faccessat2.rawValue, call.argument0, call.argument1, 1, call.argument4 & 0x1100, 0, 0) : 0
            if allowed < 0 { return allowed }
            return script(number, call, call.argument(isAt ? 2 : 1), call.argument(isAt ? 3 : 2), memory)
        }
        return run(program, number, call, memory)
    }

    private static func run(_ program: ProgramFile, _ number: SystemCallNumber, _ call: SystemCallFrame, _ memory: ProgramMemory) -> Int64 {
        let isAt = number == .execveat
        guard let block = unsafe dashfs_thread_block() else { return raw(call, call.argument(isAt ? 3 : 2)) }
        let room = unsafe UnsafeMutableRawPointer(dashfs_block_exec(block)) + variablesAt
        let preparation = unsafe Handover.prepare(
            variables: UInt64(bitPattern: call.argument(isAt ? 3 : 2)), program, room, Int(DASHFS_EXEC_BYTES) - variablesAt, memory)
        if preparation.error != 0 { return preparation.error }
        let result = raw(call, Int64(bitPattern: preparation.variables))
        preparation.undo()
        return result
    }

    private static func raw(_ call: SystemCallFrame, _ variables: Int64) -> Int64 {
        if call.number == SystemCallNumber.execve.rawValue { return Signals.call(call.number, call.argument0, call.argument1, variables) }
        return Signals.call(call.number, call.argument0, call.argument1, call.argument2, variables, call.argument4)
    }

    // MARK: A file of the volume

    /// Everything that needs the server: `ready`, or an errno, or an escape.
    static func prepare(_ number: SystemCallNumber, _ frame: SystemCallFrame, _ place: Place, _ channel: Channel) -> WireCompletion {
        guard let block = unsafe dashfs_thread_block() else { return WireCompletion(result: -ErrorNumber.noMemory) }
        let flags = number == .execveat ? UInt32(truncatingIfNeeded: frame.argument4) : 0
        guard flags & ~(PathCalls.emptyPath | PathCalls.symlinkNoFollow | onlyCheck) == 0 else { return WireCompletion(result: -ErrorNumber.invalid) }
        let allowed = channel.access(place, mode: 1, flags: flags & PathCalls.symlinkNoFollow)
        if allowed.result < 0 { return allowed }
        // To be copied it has to be readable as well.
        let opened = channel.open(
            place, flags: flags & PathCalls.symlinkNoFollow == 0 ? 0 : OpenFlags.noFollow, mode: place.path.count == 0 ? WireRequest.handleItself : 0)
        // Pipes and devices cannot be run, whatever opening them says.
        let noDevice: Int64 = -6
        if opened.result == noDevice { return WireCompletion(result: -13) }
        if opened.result < 0 { return opened }
        let handle = Int32(truncatingIfNeeded: opened.result)
        defer { _ = channel.close(handle, keepsLocks: true) }
        guard UInt32(truncatingIfNeeded: opened.info1) & 0o170000 == 0o100000 else { return WireCompletion(result: -13) }
        let chain = unsafe block.pointee.chain
        guard chain <= chainLimit else { return WireCompletion(result: -40) }
        let head = unsafe UnsafeMutableRawPointer(dashfs_block_exec(block)) + headAt + Int(chain) * headBytes
        let count = channel.readInPlace(handle, count: headBytes - 1, offset: 0)
        if count < 0 { return WireCompletion(result: count) }
        unsafe dashfs_copy(head, channel.dataArea, Int(count))
        unsafe head.storeBytes(of: 0, toByteOffset: Int(count), as: UInt8.self)
        if unsafe count >= 2 && Text.byte(head, 0) == 0x23 && Text.byte(head, 1) == 0x21 {
            var ready = WireCompletion(result: ready)
            ready.info0 = 0
            return ready
        }
        let path = unsafe path(handle, channel, UnsafeMutableRawPointer(dashfs_block_exec(block)) + programAt)
        var copied = copy(handle, channel, path)
        copied.info1 = UInt64(path.count)
        return copied
    }

    /// Where an open file is, with its zero, written to `target`, which has room for DASHFS_TEXT_CAPACITY bytes. Empty: nowhere that is known, or too deep.
    private static func path(_ handle: Int32, _ channel: Channel, _ target: UnsafeMutableRawPointer) -> PathBytes {
        let count = Int(unsafe VolumePath.of(handle, channel, target, Int(DASHFS_TEXT_CAPACITY) - 1))
        guard count > 0 else { return .none }
        unsafe target.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
        return unsafe PathBytes(target, count: count)
    }

    /// The file as a memfd that nobody can change, with its holes, or an errno.
    private static func copy(_ handle: Int32, _ channel: Channel, _ path: PathBytes) -> WireCompletion {
        let made = makeMemory(path)
        guard made >= 0 else { return WireCompletion(result: made) }
        var offset: Int64 = 0
        while true {
            let seekData: UInt32 = 3
            let data = channel.seek(handle, offset: offset, whence: seekData)
            if data > offset { offset = data }
            let isAtEnd = data == -6 /* ENXIO */
            let count = isAtEnd ? 0 : channel.readInPlace(handle, count: channel.dataCapacity, offset: offset)
            if count == 0 { break }
            let written = count < 0 ? count : unsafe dashfs_raw_syscall6(SystemCallNumber.pwrite64.rawValue, made, Int64(Int(bitPattern: channel.dataArea)), count, offset, 0, 0)
            guard written == count else {
                _ = dashfs_sys_close(Int32(truncatingIfNeeded: made))
                return WireCompletion(result: min(written, -1) == -1 ? -ErrorNumber.noMemory : written)
            }
            offset &+= count
        }
        let seekEnd: UInt32 = 2
        let size = channel.seek(handle, offset: 0, whence: seekEnd)
        if size > offset { _ = dashfs_raw_syscall3(SystemCallNumber.ftruncate.rawValue, made, size, 0) }
        let seals: Int64 = 15
        _ = dashfs_raw_syscall3(SystemCallNumber.fcntl.rawValue, made, 1033 /* F_ADD_SEALS */, seals)
        var ready = WireCompletion(result: ready)
        ready.info0 = UInt64(made)
        return ready
    }

    /// The kernel tells "/memfd:" and a memfd's name as the program's path, and ld.so takes $ORIGIN from that before any code of ours runs. So the name goes up again to the true path, of which at
    /// most 249 bytes have room: of a longer one only the directory, which is what counts; of a directory longer than that nothing.
    private static func makeMemory(_ path: PathBytes) -> Int64 {
        let plain: StaticString = "dashfs-program"
        let detour = OwnProgram.detour
        let count = min(path.count, OwnProgram.memoryNameLimit - detour.utf8CodeUnitCount)
        var directory = path.count
        var name = InlineArray<256, UInt8>(repeating: 0)
        return unsafe withUnsafeMutablePointer(to: &name) { name in
            let base = UnsafeMutableRawPointer(name)
            if let text = unsafe path.address {
                while directory > 0, unsafe Text.byte(text, directory - 1) != Text.slash { directory -= 1 }
                unsafe dashfs_copy(base, detour.utf8Start, detour.utf8CodeUnitCount)
                unsafe dashfs_copy(base + detour.utf8CodeUnitCount, text, count)
            }
            if directory >= count { unsafe dashfs_copy(base, plain.utf8Start, plain.utf8CodeUnitCount + 1) }
            let memfdCreate: Int64 = 319
            let address = Int64(Int(bitPattern: base))
            // Close-on-exec, sealable; executable has to be said from Linux 6.3 on.
            let made = dashfs_raw_syscall3(memfdCreate, address, 0x13, 0)
            return made == -ErrorNumber.invalid ? dashfs_raw_syscall3(memfdCreate, address, 3, 0) : made
        }
    }

    /// Runs what `prepare` has made ready.
    static func finish(_ number: SystemCallNumber, _ call: SystemCallFrame, _ prepared: WireCompletion, _ memory: ProgramMemory) -> Int64 {
        let isAt = number == .execveat
        let (arguments, variables) = (call.argument(isAt ? 2 : 1), call.argument(isAt ? 3 : 2))
        let check = isAt ? UInt32(truncatingIfNeeded: call.argument4) & onlyCheck : 0
        guard prepared.info0 != 0 else { return check != 0 ? 0 : script(number, call, arguments, variables, memory) }
        let empty: StaticString = ""
        var byDescriptor = call
        byDescriptor.number = SystemCallNumber.execveat.rawValue
        byDescriptor.argument0 = Int64(prepared.info0)
        unsafe byDescriptor.argument1 = Int64(Int(bitPattern: empty.utf8Start))
        byDescriptor.argument2 = arguments
        byDescriptor.argument3 = variables
        byDescriptor.argument4 = Int64(PathCalls.emptyPath | check)
        var program = ProgramFile()
        program.descriptor = Int32(truncatingIfNeeded: Int64(prepared.info0))
        if let block = unsafe dashfs_thread_block() {
            unsafe program.path = PathBytes(dashfs_block_exec(block) + programAt, count: Int(prepared.info1))
            let name = unsafe block.pointee.name
            let limit = Int(DASHFS_TEXT_CAPACITY)
            if let count = memory.stringLength(name, limit: limit), count < limit { unsafe program.name = PathBytes(UnsafeRawPointer(bitPattern: UInt(name)), count: count) }
        }
        defer { program.close() }
        return run(program, .execveat, byDescriptor, memory)
    }

    /// #! interpreter [argument]: the interpreter is run with that, the script's path and the call's arguments but the first (execve(2)).
    private static func script(
        _ number: SystemCallNumber, _ call: SystemCallFrame, _ arguments: Int64, _ variables: Int64, _ memory: ProgramMemory
    ) -> Int64 {
        guard let block = unsafe dashfs_thread_block() else { return -ErrorNumber.noMemory }
        let noExec: Int64 = -8
        let chain = unsafe block.pointee.chain
        unsafe block.pointee.chain = chain + 1
        let room = unsafe UnsafeMutableRawPointer(dashfs_block_exec(block))
        let head = unsafe room + headAt + Int(chain) * headBytes
        func isBlank(_ at: Int) -> Bool { unsafe Script.isBlank(Text.byte(head, at)) }
        func isEnd(_ at: Int) -> Bool { unsafe at >= headBytes - 1 || Text.byte(head, at) == 0x0a || Text.byte(head, at) == 0 }
        var at = 2
        while isBlank(at) { at += 1 }
        let interpreter = at
        while !isEnd(at), !isBlank(at) { at += 1 }
        guard at > interpreter, at < headBytes - 1 else { return noExec }
        var argument = at
        while isBlank(argument) { argument += 1 }
        var end = argument
        while !isEnd(end) { end += 1 }
        while end > argument, isBlank(end - 1) { end -= 1 }
        let hasArgument = end > argument
        unsafe head.storeBytes(of: 0, toByteOffset: at, as: UInt8.self)
        unsafe head.storeBytes(of: 0, toByteOffset: end, as: UInt8.self)

        let path = unsafe name(number, call, room)
        guard path != 0 else { return -ErrorNumber.noEntry }
        let array = unsafe room + argumentsAt + Int(chain & 1) * argumentsBytes
        var count = 0
        func append(_ address: UInt64) -> Bool {
            guard (count + 1) * 8 < argumentsBytes else { return false }
            unsafe array.storeBytes(of: address, toByteOffset: count * 8, as: UInt64.self)
            count += 1
            return true
        }
        _ = unsafe append(UInt64(UInt(bitPattern: head + interpreter)))
        if hasArgument { _ = unsafe append(UInt64(UInt(bitPattern: head + argument))) }
        _ = append(UInt64(bitPattern: path))
        var entry = UInt64(bitPattern: arguments)
        var isFirst = true
        while entry != 0 {
            guard memory.isReadable(entry, 8), let slot = unsafe UnsafePointer<UInt64>(bitPattern: UInt(entry)) else { return -14 }
            let string = unsafe slot.pointee
            if string == 0 { break }
            if !isFirst, !append(string) { return -7 }
            isFirst = false
            entry &+= 8
        }
        guard append(0) else { return -7 }
        var next = call
        next.number = SystemCallNumber.execve.rawValue
        unsafe next.argument0 = Int64(Int(bitPattern: head + interpreter))
        next.argument1 = Int64(Int(bitPattern: array))
        next.argument2 = variables
        return PathCalls.answer(.execve, next, memory) ?? kernel(.execve, next, memory)
    }

    /// The script's path as its interpreter is to open it; 0: it has none.
    private static func name(_ number: SystemCallNumber, _ call: SystemCallFrame, _ room: UnsafeMutableRawPointer) -> Int64 {
        guard number == .execveat, Int32(truncatingIfNeeded: call.argument0) != Int32(currentDirectory),
            let path = unsafe UnsafePointer<UInt8>(bitPattern: Int(call.argument1)), unsafe path.pointee != Text.slash
        else { return number == .execveat ? call.argument1 : call.argument0 }
        // /dev/fd/N for the file itself. A name below a directory has no such path here.
        guard unsafe path.pointee == 0 else { return 0 }
        let folder: StaticString = "/dev/fd/"
        unsafe dashfs_copy(room, folder.utf8Start, folder.utf8CodeUnitCount)
        let digits = unsafe Text.write(number: UInt64(call.argument0.magnitude), to: room + folder.utf8CodeUnitCount)
        unsafe room.storeBytes(of: 0, toByteOffset: folder.utf8CodeUnitCount + digits, as: UInt8.self)
        return Int64(Int(bitPattern: room))
    }
}
