import CSystem

#if !hasFeature(Embedded)
    import Wire
#endif

/// Open files that a session takes over, or that a bundle keeps (docs/PROTOCOL.md).
@safe public struct Inheritance {
    /// (0, 0): nothing.
    public var key: (UInt64, UInt64) = (0, 0)
    /// The first `Layout.handedLimit` count.
    public var handles: UnsafePointer<Int32>?
    public var count = 0

    public init() { unsafe handles = nil }
    public init(key: (UInt64, UInt64), handles: UnsafePointer<Int32>?, count: Int) {
        self.key = key
        unsafe self.handles = handles
        self.count = count
    }
}

/// A process's connection to a server: the control socket, the doorbell, and a pool of channels.
///
/// Invariants: a channel is used by one holder at a time, from `acquire` to `release`. Nothing allocates; no lock is held while user code runs;
/// `acquire` may be called in a signal handler (it then gets another channel than the code it interrupted). In a forked child `isCurrent` is false
/// and `acquire` gives nil: the child makes a session of its own.
///
/// A value of this type is a reference; `disconnect` ends what it refers to, after which no copy of it may be used.
@safe public struct Session: @unchecked Sendable {
    let state: UnsafeMutablePointer<SessionState>

    init(state: UnsafeMutablePointer<SessionState>) { unsafe self.state = unsafe state }

    var base: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(state) }

    /// Connects to the server that listens at `path` (a NUL is not needed) and opens the first channel.
    /// - Parameters:
    ///   - prefix: where the program sees the volume's root ("/dash"): absolute symbolic links below it stay inside; paths that leave the volume are
    ///     answered with `WireCompletion.escape`. Without one the volume's root is the root, as after chroot. At most 255 bytes.
    ///   - inheritance: what this session takes over from another, or from a bundle.
    ///   - descriptorFloor: the session's two descriptors get numbers from here on, out of a program's way.
    ///   - timeoutMilliseconds: how long the server may take to answer.
    /// - Throws: ENOENT/ECONNREFUSED: no server there. EACCES: the server refuses this user. EPROTO: it speaks another version. ETIMEDOUT.
    public static func connect(
        path: UnsafeRawPointer, length: Int, prefix: PathBytes = .none, inheritance: Inheritance = Inheritance(), descriptorFloor: Int32 = 3,
        timeoutMilliseconds: Int32 = 10_000
    ) throws(ErrorCode) -> Session {
        let socket = try unsafe beginConnecting(
            path: path, length: length, prefix: prefix, inheritance: inheritance, descriptorFloor: descriptorFloor,
            timeoutMilliseconds: timeoutMilliseconds)
        return try finishConnecting(socket: socket, descriptorFloor: descriptorFloor)
    }

    /// The first half of `connect`: says hello and does not wait. For harnesses that step client and server in one thread.
    public static func beginConnecting(
        path: UnsafeRawPointer, length: Int, prefix: PathBytes = .none, inheritance: Inheritance = Inheritance(), descriptorFloor: Int32 = 3,
        timeoutMilliseconds: Int32 = 10_000
    ) throws(ErrorCode) -> Int32 {
        guard prefix.count <= Layout.prefixLimit else { throw ErrorCode(result: -ErrorNumber.nameTooLong) }
        var hello = ControlMessage(ControlMessage.Kind.hello)
        hello.arenaBytes = UInt32(Layout.defaultArenaBytes)
        return try unsafe beginTalking(hello, prefix, inheritance, path, length, descriptorFloor, timeoutMilliseconds)
    }

    private static func beginTalking(
        _ message: ControlMessage, _ payload: PathBytes, _ inheritance: Inheritance, _ path: UnsafeRawPointer, _ length: Int, _ floor: Int32,
        _ timeoutMilliseconds: Int32
    ) throws(ErrorCode) -> Int32 {
        let low = dashfs_sys_seqpacket()
        guard low >= 0 else { throw ErrorCode(result: Int64(low)) }
        var socket = Int32(truncatingIfNeeded: low)
        if socket < floor {
            let high = dashfs_duplicate_above(socket, floor)
            if high >= 0 {
                _ = dashfs_sys_close(socket)
                socket = Int32(truncatingIfNeeded: high)
            }
        }
        _ = dashfs_socket_timeout(socket, timeoutMilliseconds)
        var result = unsafe dashfs_sys_connect_unix(socket, path.assumingMemoryBound(to: CChar.self), length)
        if result == 0 { result = Int(send(message, payload: payload, inheritance, socket: socket)) }
        guard result >= 0 else {
            _ = dashfs_sys_close(socket)
            throw ErrorCode(result: Int64(result))
        }
        return socket
    }

    /// Keeps open files of this session open for a process that does not exist yet, or is about to become another program: as long as a copy of the socket returned is open.
    /// It must be possible in a vfork child, whose memory is its parent's: nothing of the session is changed.
    /// - Parameters:
    ///   - handles: what is kept; its key is not looked at.
    ///   - describesItself: the answer stays in the socket, so that whoever gets a copy of it can have it from there (`describedFile`).
    /// - Returns: the socket (close-on-exec), and the key that a new session inherits by.
    public func makeBundle(
        of handles: Inheritance, path: UnsafeRawPointer, length: Int, descriptorFloor: Int32, describesItself: Bool = false,
        timeoutMilliseconds: Int32 = 10_000
    ) throws(ErrorCode) -> (socket: Int32, key: (UInt64, UInt64)) {
        guard isCurrent else { throw ErrorCode(result: -ErrorNumber.badDescriptor) }
        var mine = handles
        mine.key = key
        let socket = try unsafe Session.beginTalking(
            ControlMessage(ControlMessage.Kind.bundle), .none, mine, path, length, descriptorFloor, timeoutMilliseconds)
        do throws(ErrorCode) {
            let (answer, _) = try Session.receive(
                socket: socket, kind: ControlMessage.Kind.bundle, descriptors: 0, flags: describesItself ? Session.peek : 0)
            return (socket, answer.key)
        } catch {
            _ = dashfs_sys_close(socket)
            throw error
        }
    }

    /// The key and the handle of a bundle that describes itself; nil: the descriptor is nothing of the kind. What is in it stays there.
    public static func describedFile(_ descriptor: Int32) -> (key: (UInt64, UInt64), handle: Int32)? {
        guard dashfs_is_seqpacket(descriptor) else { return nil }
        do throws(ErrorCode) {
            let (answer, _) = try receive(socket: descriptor, kind: ControlMessage.Kind.bundle, descriptors: 0, flags: peek | Int32(dashfs_dont_wait))
            guard answer.handles == 1 else { return nil }
            return (answer.key, Int32(bitPattern: UInt32(truncatingIfNeeded: answer.inode)))
        } catch { return nil }
    }

    private static let peek: Int32 = 2

    /// Takes over one open file that a bundle keeps. Call it with all signals blocked.
    /// - Returns: 0, or a negated errno: EEXIST: it is this session's already; EACCES: no bundle has this key.
    public func take(_ handle: Int32, key: (UInt64, UInt64)) -> Int64 {
        lockControl()
        defer { unlockControl() }
        return unsafe withUnsafePointer(to: handle) { handle in
            let socket = unsafe state.pointee.socket
            let sent = unsafe Session.send(ControlMessage(ControlMessage.Kind.take), Inheritance(key: key, handles: handle, count: 1), socket: socket)
            if sent < 0 { return sent }
            do throws(ErrorCode) {
                _ = try Session.receive(socket: socket, kind: ControlMessage.Kind.take, descriptors: 0)
                return 0
            } catch { return -Int64(error.number) }
        }
    }

    /// The control socket is one caller's, from asking to answer.
    private func lockControl() { while unsafe !dashfs_swap32_if(base + SessionState.addLock, 0, 1) { dashfs_yield() } }
    private func unlockControl() { unsafe dashfs_store32_release(base + SessionState.addLock, 0) }

    /// What entitles to speak for this session; (0, 0) in forked children.
    public var key: (UInt64, UInt64) {
        let page = unsafe state.pointee.aliveWord
        return unsafe (dashfs_load64(page + SessionState.key), dashfs_load64(page + SessionState.key + 8))
    }

    /// The second half: takes the answer and maps the first channel. Closes the socket on failure.
    public static func finishConnecting(socket: Int32, descriptorFloor: Int32 = 3) throws(ErrorCode) -> Session {
        do throws(ErrorCode) {
            let (answer, descriptors) = try receive(socket: socket, kind: ControlMessage.Kind.hello, descriptors: 3)
            let session = try adopt(socket: socket, answer: answer, doorbell: descriptors.0, floor: descriptorFloor)
            do throws(ErrorCode) {
                _ = try session.map(answer: answer, requests: descriptors.1, completions: descriptors.2)
            } catch {
                session.forget()
                throw error
            }
            return session
        } catch {
            _ = dashfs_sys_close(socket)
            throw error
        }
    }

    /// The channel of the calling thread where it is free, else another, else a new one. Release it after the call.
    /// Where the server gives no more, one of those there are, when it is free. nil: this process is a forked child of the one that connected, or the server is gone.
    @inline(__always)
    public func acquire() -> Channel? {
        let hint = dashfs_thread_hint()
        guard isCurrent else { return nil }
        if unsafe hint < dashfs_load32(base + SessionState.channelCount), unsafe dashfs_swap32_if(block(hint), 0, 1) {
            return channel(hint)
        }
        return acquireAnother()
    }

    @inline(__always)
    public func release(_ channel: Channel) {
        unsafe dashfs_store32_release(UnsafeMutableRawPointer(channel.state) - ChannelState.offset, 0)
    }

    /// True in the process that connected (and its vfork children, which share its memory), false in forked ones.
    @inline(__always)
    public var isCurrent: Bool { unsafe dashfs_load32(state.pointee.aliveWord) == 1 }

    /// The server has gone, or has ended the session. A fork of such a process finds 0, as any.
    public var isOver: Bool { unsafe dashfs_load32(state.pointee.aliveWord) == 2 }
    func markOver() { if isCurrent { unsafe dashfs_store32(state.pointee.aliveWord, 2) } }

    /// True while the server has the session open.
    public var isOpen: Bool {
        guard isCurrent else { return false }
        let events = dashfs_sys_poll(unsafe state.pointee.socket, 0, 0)
        return events & Int(POLLHUP | POLLERR) == 0
    }

    public var identifier: UInt32 { unsafe state.pointee.session }
    /// How many of the handles that it was to inherit it has.
    public var inherited: Int { unsafe Int(state.pointee.inherited) }
    public var epoch: UInt64 { unsafe state.pointee.epoch }
    public var socket: Int32 { unsafe state.pointee.socket }
    public var doorbell: Int32 { unsafe state.pointee.doorbell }
    public var channelCount: Int { Int(unsafe dashfs_load32(base + SessionState.channelCount)) }

    /// Ends the session; the server closes what it had open. No channel may be held. In a forked child it lets go of the inherited
    /// descriptors only.
    public func disconnect() {
        if isCurrent {
            for index in 0..<UInt32(channelCount) {
                let state = unsafe channel(index).state.pointee
                unsafe _ = dashfs_sys_unmap(state.requests, Layout.requestSegmentBytes(arena: state.arenaBytes))
                unsafe _ = dashfs_sys_unmap(state.completions, Layout.completionSegmentBytes)
            }
        }
        let socket = unsafe state.pointee.socket
        forget()
        _ = dashfs_sys_close(socket)
    }

    /// Ends the session while other threads may be looking at it: it is not current any more, and what they hold of it stays mapped.
    public func retire() {
        markOver()
        _ = dashfs_sys_close(unsafe state.pointee.doorbell)
        _ = dashfs_sys_close(unsafe state.pointee.socket)
    }

    // MARK: Channels

    @inline(__always)
    func block(_ index: UInt32) -> UnsafeMutableRawPointer {
        unsafe base + SessionState.channels + Int(index) * SessionState.channelBytes
    }

    @inline(__always)
    func channel(_ index: UInt32) -> Channel {
        unsafe Channel(
            state: (block(index) + ChannelState.offset).assumingMemoryBound(to: ChannelState.self), session: state)
    }

    @inline(never)
    func acquireAnother() -> Channel? {
        while true {
            let count = unsafe dashfs_load32_acquire(base + SessionState.channelCount)
            for index in 0..<count where unsafe dashfs_swap32_if(block(index), 0, 1) {
                dashfs_set_thread_hint(index)
                return channel(index)
            }
            // A new one is made with every signal blocked, so that a handler in this thread never waits for the lock below it.
            let mask = dashfs_signals_block()
            defer { dashfs_signals_restore(mask) }
            guard unsafe dashfs_swap32_if(base + SessionState.addLock, 0, 1) else {
                dashfs_yield()
                continue
            }
            defer { unsafe dashfs_store32_release(base + SessionState.addLock, 0) }
            if unsafe count == SessionState.channelLimit || dashfs_load32(base + SessionState.isFull) != 0 {
                dashfs_yield()
                continue
            }
            do throws(ErrorCode) {
                let index = try addChannel()
                dashfs_set_thread_hint(index)
                return channel(index)
            } catch {
                // At a limit of the server's those that there are are taken in turns.
                guard count > 0, error.number == ErrorNumber.tooManyFiles || error.number == ErrorNumber.noMemory else { return nil }
                unsafe dashfs_store32(base + SessionState.isFull, 1)
            }
        }
    }

    /// Asks the server for one more channel and takes it at once. The caller holds `addLock`.
    func addChannel() throws(ErrorCode) -> UInt32 {
        let socket = unsafe state.pointee.socket
        var ask = ControlMessage(ControlMessage.Kind.addChannel)
        ask.arenaBytes = UInt32(Layout.defaultArenaBytes)
        let sent = Session.send(ask, socket: socket)
        guard sent >= 0 else { throw ErrorCode(result: sent) }
        let (answer, descriptors) = try Session.receive(socket: socket, kind: ControlMessage.Kind.addChannel, descriptors: 2)
        return try map(answer: answer, requests: descriptors.0, completions: descriptors.1)
    }

    /// A descriptor of the memory of a file that this session has just mapped, or a negated errno. Call it with all signals blocked.
    public func takeMap(inode: UInt64) -> Int64 {
        lockControl()
        defer { unlockControl() }
        var ask = ControlMessage(ControlMessage.Kind.map)
        ask.inode = inode
        let socket = unsafe state.pointee.socket
        let sent = Session.send(ask, socket: socket)
        if sent < 0 { return sent }
        do throws(ErrorCode) {
            while true {
                let (answer, descriptors) = try Session.receive(socket: socket, kind: ControlMessage.Kind.map, descriptors: 1)
                if answer.inode == inode { return Int64(descriptors.0) }
                // Of an earlier one, whose asking has been given up.
                _ = dashfs_sys_close(descriptors.0)
            }
        } catch {
            return -Int64(error.number)
        }
    }

    /// What the kernel has behind a socket or pipe that `Channel.access` has just found, an O_PATH descriptor; or a negated errno. Call it with all signals blocked.
    public func meetingPlace(inode: UInt64) -> Int64 { meet(inode, offering: -1) }

    /// Makes `descriptor` (O_PATH; it stays the caller's) what is behind it; 0 or a negated errno. Call it with all signals blocked.
    public func offerMeetingPlace(_ descriptor: Int32, inode: UInt64) -> Int64 { meet(inode, offering: descriptor) }

    private func meet(_ inode: UInt64, offering offered: Int32) -> Int64 {
        lockControl()
        defer { unlockControl() }
        var ask = ControlMessage(ControlMessage.Kind.meet)
        ask.inode = inode
        let socket = unsafe state.pointee.socket
        let sent = unsafe withUnsafeTemporaryAllocation(byteCount: ControlMessage.bytes, alignment: 8) { packet in
            guard let bytes = packet.baseAddress else { return -Int(ErrorNumber.invalid) }
            unsafe ask.store(packet)
            return unsafe withUnsafePointer(to: offered) { unsafe dashfs_send_packet(socket, bytes, packet.count, $0, offered >= 0 ? 1 : 0, 0) }
        }
        if sent < 0 { return Int64(sent) }
        do throws(ErrorCode) {
            let (answer, descriptors) = try Session.receive(socket: socket, kind: ControlMessage.Kind.meet, descriptors: offered >= 0 ? 0 : 1)
            guard answer.inode == inode else {
                if offered < 0 { _ = dashfs_sys_close(descriptors.0) }
                return -ErrorNumber.protocolMismatch
            }
            return offered >= 0 ? 0 : Int64(descriptors.0)
        } catch { return -Int64(error.number) }
    }

    /// Maps the two segments (the descriptors are closed in any case) and adds them as the next channel; the first one is free, others are the
    /// caller's.
    func map(answer: ControlMessage, requests: Int32, completions: Int32) throws(ErrorCode) -> UInt32 {
        defer {
            _ = dashfs_sys_close(requests)
            _ = dashfs_sys_close(completions)
        }
        let arenaBytes = Int(answer.arenaBytes)
        guard arenaBytes >= Layout.arenaMinimum, arenaBytes <= Layout.arenaMaximum else {
            throw ErrorCode(result: -ErrorNumber.protocolMismatch)
        }
        let requestBytes = Layout.requestSegmentBytes(arena: arenaBytes)
        let writable = Int32(dashfs_protection_read | dashfs_protection_write)
        let shared = Int32(dashfs_map_shared)
        let first = unsafe try Session.mapped(dashfs_sys_map(requests, requestBytes, writable, shared))
        let second: UnsafeMutableRawPointer
        do throws(ErrorCode) {
            unsafe second = unsafe try Session.mapped(
                dashfs_sys_map(completions, Layout.completionSegmentBytes, Int32(dashfs_protection_read), shared))
        } catch {
            unsafe _ = dashfs_sys_unmap(first, requestBytes)
            throw error
        }
        unsafe _ = dashfs_sys_advise(first, requestBytes, Int32(dashfs_advice_dontfork))
        unsafe _ = dashfs_sys_advise(second, Layout.completionSegmentBytes, Int32(dashfs_advice_dontfork))
        guard unsafe dashfs_load64(second + Layout.completionMagic) == Layout.magic,
            unsafe dashfs_load32(second + Layout.completionVersion) == UInt32(Layout.version)
        else {
            unsafe _ = dashfs_sys_unmap(first, requestBytes)
            unsafe _ = dashfs_sys_unmap(second, Layout.completionSegmentBytes)
            throw ErrorCode(result: -ErrorNumber.protocolMismatch)
        }
        let index = unsafe dashfs_load32(base + SessionState.channelCount)
        unsafe channel(index).state.initialize(
            to: ChannelState(
                requests: first, completions: second, arena: first + Layout.arena, arenaBytes: arenaBytes,
                spin: SpinBudget(processors: dashfs_processors())))
        unsafe dashfs_store32(block(index), index == 0 ? 0 : 1)
        // Pairs with the acquiring load in `acquireAnother`.
        unsafe dashfs_store32_release(base + SessionState.channelCount, index + 1)
        return index
    }

    static func mapped(_ address: Int) throws(ErrorCode) -> UnsafeMutableRawPointer {
        guard address > 0 || address < -4095, let pointer = unsafe UnsafeMutableRawPointer(bitPattern: address) else {
            throw ErrorCode(result: Int64(address))
        }
        return unsafe pointer
    }

    // MARK: Control socket

    static func send(_ message: ControlMessage, payload: PathBytes = .none, _ inheritance: Inheritance = Inheritance(), socket: Int32) -> Int64 {
        unsafe withUnsafeTemporaryAllocation(byteCount: ControlMessage.bytes + Layout.prefixLimit, alignment: 8) { packet in
            guard let bytes = packet.baseAddress, payload.count <= Layout.prefixLimit else { return -ErrorNumber.invalid }
            var message = message
            let count = min(inheritance.count, Layout.handedLimit)
            message.payloadBytes = UInt32(payload.count + count * 4)
            message.handles = UInt32(count)
            message.key = inheritance.key
            unsafe message.store(packet)
            if payload.count > 0, let source = unsafe payload.address { unsafe dashfs_copy(bytes + ControlMessage.bytes, source, payload.count) }
            return Int64(unsafe dashfs_send_two_parts(socket, bytes, ControlMessage.bytes + payload.count, inheritance.handles, count * 4))
        }
    }

    /// Takes one answer. On success exactly `descriptors` of the three are open, and the caller's.
    static func receive(
        socket: Int32, kind: UInt16, descriptors expected: Int32, flags: Int32 = 0
    ) throws(ErrorCode) -> (ControlMessage, (Int32, Int32, Int32)) {
        var handed = (Int32(-1), Int32(-1), Int32(-1), Int32(-1))
        var count: Int32 = 0
        var message: ControlMessage?
        let result = unsafe withUnsafeTemporaryAllocation(byteCount: ControlMessage.bytes, alignment: 8) { packet -> Int in
            guard let bytes = packet.baseAddress else { return -Int(ErrorNumber.invalid) }
            var received = -Int(ErrorNumber.interrupted)
            while received == -Int(ErrorNumber.interrupted) {
                received = unsafe withUnsafeMutablePointer(to: &handed) { pointer in
                    unsafe pointer.withMemoryRebound(to: Int32.self, capacity: 4) { list in
                        unsafe dashfs_receive_packet(socket, bytes, packet.count, list, &count, flags)
                    }
                }
            }
            if received == ControlMessage.bytes { message = unsafe ControlMessage(UnsafeRawBufferPointer(packet)) }
            return received
        }
        var failure: Int64 = 0
        if result < 0 {
            failure = Int64(result) == -ErrorNumber.again ? -ErrorNumber.timedOut : Int64(result)
        } else if let message {
            if message.version != Layout.version {
                failure = -ErrorNumber.protocolMismatch
            } else if message.status != 0 {
                failure = Int64(min(message.status, -1))
            } else if message.kind != kind || count != expected {
                failure = -ErrorNumber.protocolMismatch
            }
        } else {
            // An orderly end where an answer was due: the server closed the connection.
            failure = result == 0 ? -ErrorNumber.notConnected : -ErrorNumber.protocolMismatch
        }
        guard failure == 0, let message else {
            if count > 0 { _ = dashfs_sys_close(handed.0) }
            if count > 1 { _ = dashfs_sys_close(handed.1) }
            if count > 2 { _ = dashfs_sys_close(handed.2) }
            if count > 3 { _ = dashfs_sys_close(handed.3) }
            throw ErrorCode(result: failure)
        }
        return (message, (handed.0, handed.1, handed.2))
    }

    /// Makes the private memory of a session. Takes the doorbell over; leaves the socket to the caller on failure.
    static func adopt(socket: Int32, answer: ControlMessage, doorbell: Int32, floor: Int32) throws(ErrorCode) -> Session {
        var bell = doorbell
        if bell < floor {
            let high = dashfs_duplicate_above(bell, floor)
            if high >= 0 {
                _ = dashfs_sys_close(bell)
                bell = Int32(truncatingIfNeeded: high)
            }
        }
        let protection = Int32(dashfs_protection_read | dashfs_protection_write)
        let flags = Int32(dashfs_map_private | dashfs_map_anonymous)
        do throws(ErrorCode) {
            let memory = unsafe try mapped(dashfs_sys_map(-1, SessionState.bytes, protection, flags))
            do throws(ErrorCode) {
                let alive = unsafe try mapped(dashfs_sys_map(-1, 4096, protection, flags))
                unsafe _ = dashfs_sys_advise(alive, 4096, Int32(dashfs_advice_wipeonfork))
                unsafe dashfs_store32(alive, 1)
                unsafe dashfs_store64(alive + SessionState.key, answer.key.0)
                unsafe dashfs_store64(alive + SessionState.key + 8, answer.key.1)
                let state = unsafe memory.assumingMemoryBound(to: SessionState.self)
                unsafe state.initialize(
                    to: SessionState(
                        socket: socket, doorbell: bell, descriptorFloor: floor, session: answer.session,
                        epoch: answer.epoch, aliveWord: alive, inherited: answer.handles))
                // What is inherited may be locked by another process's call, and this one's close may release it.
                if answer.handles > 0 { unsafe dashfs_store32_release(memory + SessionState.hasLocked, 1) }
                return unsafe Session(state: state)
            } catch {
                unsafe _ = dashfs_sys_unmap(memory, SessionState.bytes)
                throw error
            }
        } catch {
            _ = dashfs_sys_close(bell)
            throw error
        }
    }

    /// Gives back everything but the socket and the segments.
    func forget() {
        _ = dashfs_sys_close(unsafe state.pointee.doorbell)
        unsafe _ = dashfs_sys_unmap(state.pointee.aliveWord, 4096)
        unsafe _ = dashfs_sys_unmap(base, SessionState.bytes)
    }
}
