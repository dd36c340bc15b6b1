import BlockDevice
import CSystem
import Logging
import Volume
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Connections, as the worker handles them between rounds: accept, hello, more channels, statistics, death.
///
/// Invariant: everything a peer sends is 64 bytes, a prefix and handles behind them, copied to private memory and checked here; a message that is none ends its connection. Nothing here waits.
/// One call takes a message of each connection and a few new connections at most, so that who floods the sockets does not keep the rings waiting.
extension Worker {
    static let acceptsPerCall = 8
    /// Statistics are made anew this often at most: asking for them costs the asker more than the server.
    static let statisticsInterval: UInt64 = 20_000_000

    func handleControl() {
        forEachControlEvent { data, events in
            switch EventTag.kind(data) {
            case EventTag.listener: acceptSome()
            case EventTag.signal, EventTag.stop: attention.stop()
            case EventTag.death:
                if let session = unsafe session(data) { unsafe endSession(session, reason: "the client process died") }
            case EventTag.socket:
                if let session = unsafe session(data) { unsafe receive(session, events: events) }
            default: break
            }
        }
        attention.clear()
    }

    private func forEachControlEvent(_ body: (_ data: UInt64, _ events: UInt32) -> Void) {
        unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 64) { list in
            guard let first = list.baseAddress else { return }
            let count = unsafe dashfs_sys_epoll_wait(control.events, first, 64, 0)
            guard count > 0 else { return }
            for position in 0..<count { unsafe body(dashfs_epoll_data(first + position), dashfs_epoll_events(first + position)) }
        }
    }

    /// Ends the sessions of processes that have died, and those that nobody holds any more, before somebody is told that they have a lock: who has waited for a process's end finds its locks
    /// free, as in the kernel. May be called in the middle of a round: nothing is accepted or received. True where one ended.
    @inline(never)
    func endWhoHasDied() -> Bool {
        var any = false
        forEachControlEvent { data, events in
            let kind = EventTag.kind(data)
            guard kind == EventTag.death || kind == EventTag.socket && events & UInt32(dashfs_epoll_hangup) != 0, let session = unsafe session(data) else { return }
            unsafe endSession(session, reason: "its process has died")
            any = true
        }
        return any
    }

    private func acceptSome() {
        for _ in 0..<Worker.acceptsPerCall {
            let accepted = control.accept()
            if accepted == -Int(EMFILE) || accepted == -Int(ENFILE) {
                complain("connection refused: no descriptor is left; raise the limit of open files (ulimit -n), or lower the number of sessions")
                return
            }
            if accepted < 0 { return }
            let socket = Int32(truncatingIfNeeded: accepted)
            guard let session = unsafe freeSession() else {
                complain("connection refused: \(sessionCapacity) sessions are open already")
                _ = dashfs_sys_close(socket)
                continue
            }
            var peer = dashfs_peer()
            guard unsafe dashfs_peer_credentials(socket, &peer) == 0 else {
                _ = dashfs_sys_close(socket)
                continue
            }
            unsafe session.pointee.phase = .greeting
            unsafe session.pointee.socket = socket
            unsafe session.pointee.process = peer.process
            unsafe session.pointee.user = peer.user
            unsafe session.pointee.pidfd = Int32(dashfs_peer_pidfd(socket, peer.process))
            unsafe session.pointee.refused = !configuration.admits(user: peer.user, groups: [peer.group] + (peerGroups(socket) ?? []))
            sessionCount += 1
            if unsafe session.pointee.pidfd < 0 {
                // It has died since, or nothing can tell when it does.
                unsafe endSession(session, reason: "no pidfd for the client")
                continue
            }
            let interest = UInt32(dashfs_epoll_in | dashfs_epoll_peer_closed)
            unsafe _ = dashfs_sys_epoll_add(control.events, socket, interest, EventTag.make(EventTag.socket, session.pointee))
            unsafe _ = dashfs_sys_epoll_add(
                control.events, session.pointee.pidfd, UInt32(dashfs_epoll_in), EventTag.make(EventTag.death, session.pointee))
        }
    }

    /// What others made happen, in the log: a few lines a second, however much it asks for, and how many were left out.
    func complain(_ text: String, metadata: Logger.Metadata = [:]) {
        let second = dashfs_clock_monotonic() / 1_000_000_000
        if second != complaintSecond {
            if complaintsLeftOut > 0 { logger.warning("\(complaintsLeftOut) more such lines were left out") }
            (complaintSecond, complaints, complaintsLeftOut) = (second, 0, 0)
        }
        complaints += 1
        if complaints <= 10 { logger.warning("\(text)", metadata: metadata) } else { complaintsLeftOut += 1 }
    }

    /// What the volume and the device have met, in the log, once each.
    func logNotes() {
        guard volume.hasNotes || queue?.hasNotes ?? false else { return }
        for note in queue?.takeNotes() ?? [] {
            statistics.deviceNotes &+= 1
            complain("the device: \(note)")
        }
        for note in volume.takeNotes() {
            switch note.kind {
            case .event: logger.notice("\(note)")
            case .problem: logger.warning("\(note)")
            case .end: logger.error("\(note); stop the server and run: dashfs check")
            }
            if note.kind != .event { statistics.problems &+= 1 }
        }
    }

    var statisticsText: String {
        logNotes()
        return statistics.json(
            epoch: epoch, sessions: sessionCount, channels: channelCount, arenaBytes: arenaBytes, rounds: round, sleeps: sleeps,
            isReadOnly: volume.isReadOnly, readOnlyReason: volume.readOnlyReason, maps: volume.mapOccupancy,
            device: queue?.counters ?? DeviceCounters())
    }

    private func freeSession() -> UnsafeMutablePointer<SessionEnd>? {
        for index in 0..<sessionCapacity where unsafe sessions[index].phase == .free { return unsafe sessions + index }
        return nil
    }

    /// Supplementary groups; nil where the kernel does not tell.
    private func peerGroups(_ socket: Int32) -> [UInt32]? {
        let capacity = 65536
        var count = 0
        let groups = unsafe [UInt32](unsafeUninitializedCapacity: capacity) { buffer, used in
            guard let base = buffer.baseAddress else { return }
            count = unsafe dashfs_peer_groups(socket, base, UInt32(capacity))
            used = max(0, count)
        }
        return count < 0 ? nil : groups
    }

    private func receive(_ session: UnsafeMutablePointer<SessionEnd>, events: UInt32) {
        var handed = (Int32(-1), Int32(-1), Int32(-1), Int32(-1))
        var descriptors: Int32 = 0
        var message: ControlMessage?
        var payload: [UInt8] = []
        let socket = unsafe session.pointee.socket
        let longest = ControlMessage.bytes + Layout.prefixLimit + Layout.handedLimit * 4
        let length = unsafe withUnsafeTemporaryAllocation(byteCount: longest, alignment: 8) { packet -> Int in
            guard let bytes = packet.baseAddress else { return 0 }
            let length = unsafe withUnsafeMutablePointer(to: &handed) { pointer in
                unsafe pointer.withMemoryRebound(to: Int32.self, capacity: 4) {
                    unsafe dashfs_receive_packet(socket, bytes, packet.count, $0, &descriptors, Int32(dashfs_dont_wait))
                }
            }
            if length >= ControlMessage.bytes {
                message = unsafe ControlMessage(UnsafeRawBufferPointer(packet))
                payload = unsafe Array(packet[ControlMessage.bytes..<length])
            }
            return length
        }
        // One may come with `meet`; what came otherwise is closed.
        var offered: Int32 = -1
        for (position, descriptor) in [handed.0, handed.1, handed.2, handed.3].enumerated() where position < Int(descriptors) {
            if position == 0, descriptors == 1, message?.kind == ControlMessage.Kind.meet { offered = descriptor } else { _ = dashfs_sys_close(descriptor) }
        }
        defer { if offered >= 0 { _ = dashfs_sys_close(offered) } }
        if Int64(length) == -ErrorNumber.again { return }
        if length <= 0 { return unsafe endSession(session, reason: "the client disconnected") }
        guard let message, descriptors == 0 || offered >= 0, let words = Words(message, payload) else {
            return unsafe endSession(session, reason: "a control packet that is not a message", hostile: true)
        }
        unsafe handle(message, words, session, &offered)
    }

    /// What follows a message's 64 bytes.
    private struct Words {
        var prefix: [UInt8]
        var handles: [Int32]

        /// nil: not of the form that the kind has.
        init?(_ message: ControlMessage, _ payload: [UInt8]) {
            let inherits = [ControlMessage.Kind.hello, ControlMessage.Kind.bundle, ControlMessage.Kind.take].contains(message.kind)
            guard Int(message.payloadBytes) == payload.count, inherits || payload.isEmpty, message.handles <= UInt32(Layout.handedLimit),
                Int(message.handles) * 4 <= payload.count, inherits || message.handles == 0
            else { return nil }
            let end = payload.count - Int(message.handles) * 4
            prefix = Array(payload[..<end])
            guard prefix.isEmpty || message.kind == ControlMessage.Kind.hello && prefix[0] == UInt8(ascii: "/") && !prefix.contains(0),
                prefix.count <= Layout.prefixLimit
            else { return nil }
            handles = stride(from: end, to: payload.count, by: 4).map { at in
                unsafe payload.withUnsafeBytes { unsafe $0.loadUnaligned(fromByteOffset: at, as: Int32.self) }
            }
        }
    }

    /// - Parameter offered: a descriptor that came with it, or -1; -1 once it has been taken.
    private func handle(_ message: ControlMessage, _ words: Words, _ session: UnsafeMutablePointer<SessionEnd>, _ offered: inout Int32) {
        var answer = ControlMessage(message.kind)
        answer.epoch = epoch
        answer.session = UInt32(bitPattern: unsafe session.pointee.index)
        guard message.version == Layout.version else {
            complain("connection refused: protocol version \(message.version), this server speaks \(Layout.version)")
            return unsafe refuse(session, &answer, -ErrorNumber.protocolMismatch, "another protocol version")
        }
        guard unsafe !session.pointee.refused else {
            statistics.sessionsRefused &+= 1
            complain("connection refused: user \(unsafe session.pointee.user) is not among the allowed (--allow-user, --allow-group)")
            return unsafe refuse(session, &answer, -ErrorNumber.access, "not allowed")
        }
        let phase = unsafe session.pointee.phase
        switch (message.kind, phase) {
        case (ControlMessage.Kind.hello, .greeting):
            unsafe open(session, message, words, &answer)
        case (ControlMessage.Kind.bundle, .greeting):
            unsafe makeBundle(session, message, words.handles, &answer)
        case (ControlMessage.Kind.addChannel, .open):
            unsafe offerChannel(session, message, &answer, doorbell: -1)
        case (ControlMessage.Kind.take, .open):
            unsafe take(session, message.key, words.handles, &answer)
        case (ControlMessage.Kind.map, .open):
            unsafe handOutMap(session, inode: message.inode, &answer)
        case (ControlMessage.Kind.meet, .open):
            unsafe meet(session, inode: message.inode, &offered, &answer)
        case (ControlMessage.Kind.statistics, _):
            let now = dashfs_clock_monotonic()
            if now &- statisticsTaken > Worker.statisticsInterval {
                statisticsTaken = now
                lastStatistics = Array(statisticsText.utf8.prefix(60_000))
            }
            answer.payloadBytes = UInt32(lastStatistics.count)
            unsafe send(session, answer, payload: lastStatistics, descriptors: [])
        default:
            unsafe endSession(session, reason: "control message \(message.kind) out of turn", hostile: true)
        }
    }

    /// Gives a connection its session of the volume and its key; false: it has been refused.
    private func establish(
        _ session: UnsafeMutablePointer<SessionEnd>, as phase: SessionEnd.Phase, prefix: [UInt8], _ answer: inout ControlMessage
    ) -> Bool {
        let socket = unsafe session.pointee.socket
        var peer = dashfs_peer()
        unsafe _ = dashfs_peer_credentials(socket, &peer)
        guard let groups = peerGroups(socket) else {
            unsafe refuse(session, &answer, -ErrorNumber.access, "the kernel does not tell the client's groups")
            return false
        }
        guard let key = unguessable() else {
            unsafe refuse(session, &answer, -ErrorNumber.io, "no random numbers")
            return false
        }
        let credentials = Credentials(user: peer.user, group: peer.group, groups: groups, process: peer.process)
        guard let identifier = volume.openSession(credentials, prefix: prefix) else {
            complain("connection refused: the volume has no room for another session")
            unsafe refuse(session, &answer, -ErrorNumber.tooManyFiles, "no room")
            return false
        }
        unsafe session.pointee.phase = phase
        unsafe session.pointee.volumeSession = identifier
        unsafe session.pointee.key = key
        answer.key = key
        return true
    }

    private func unguessable() -> (UInt64, UInt64)? {
        var key: (UInt64, UInt64) = (0, 0)
        let got = unsafe withUnsafeMutablePointer(to: &key) { unsafe dashfs_sys_random($0, 16) }
        return got == 16 && key != (0, 0) ? key : nil
    }

    /// The session or bundle that the key names.
    private func holder(_ key: (UInt64, UInt64)) -> UnsafeMutablePointer<SessionEnd>? {
        if key == (0, 0) { return nil }
        for index in 0..<sessionCapacity where unsafe sessions[index].key == key { return unsafe sessions + index }
        return nil
    }

    /// What a process is about to hand on, kept whatever becomes of it: see `ControlMessage.Kind.bundle`.
    private func makeBundle(
        _ session: UnsafeMutablePointer<SessionEnd>, _ message: ControlMessage, _ handles: [Int32], _ answer: inout ControlMessage
    ) {
        guard let giver = unsafe holder(message.key), unsafe giver.pointee.phase == .open else {
            return unsafe refuse(session, &answer, -ErrorNumber.access, "no session has this key")
        }
        guard unsafe establish(session, as: .holding, prefix: [], &answer) else { return }
        unsafe answer.handles = UInt32(volume.share(handles, of: giver.pointee.volumeSession, with: session.pointee.volumeSession))
        answer.inode = UInt64(UInt32(bitPattern: handles.first ?? -1))
        // Copies of this end outlive the process that made it.
        unsafe _ = dashfs_sys_epoll_remove(control.events, session.pointee.pidfd)
        unsafe _ = dashfs_sys_close(session.pointee.pidfd)
        unsafe session.pointee.pidfd = -1
        unsafe send(session, answer, payload: [], descriptors: [])
    }

    /// Hello's key: what it entitles to becomes the new session's.
    private func inherit(_ session: UnsafeMutablePointer<SessionEnd>, _ key: (UInt64, UInt64), _ handles: [Int32]) -> Int {
        guard let giver = unsafe holder(key), unsafe giver != session else { return 0 }
        let heir = unsafe session.pointee.volumeSession
        if unsafe giver.pointee.phase == .holding { return unsafe volume.share(handles, of: giver.pointee.volumeSession, with: heir) }
        let count = unsafe volume.succeed(giver.pointee.volumeSession, by: heir, keeping: handles)
        unsafe endSession(giver, reason: "another session took its place")
        return count
    }

    /// A file that another process has passed on becomes the session's as well: see `ControlMessage.Kind.take`.
    private func take(_ session: UnsafeMutablePointer<SessionEnd>, _ key: (UInt64, UInt64), _ handles: [Int32], _ answer: inout ControlMessage) {
        var result = -ErrorNumber.access
        if handles.count == 1, let giver = unsafe holder(key), unsafe giver.pointee.phase == .holding {
            result = unsafe volume.share(handles[0], of: giver.pointee.volumeSession, with: session.pointee.volumeSession)
        }
        answer.status = Int32(truncatingIfNeeded: result == 1 ? -ErrorNumber.exists : result)
        unsafe send(session, answer, payload: [], descriptors: [])
    }

    private func open(
        _ session: UnsafeMutablePointer<SessionEnd>, _ message: ControlMessage, _ words: Words, _ answer: inout ControlMessage
    ) {
        guard unsafe establish(session, as: .open, prefix: words.prefix, &answer) else { return }
        unsafe answer.handles = UInt32(inherit(session, message.key, words.handles))
        let doorbell = Int32(dashfs_sys_eventfd())
        unsafe session.pointee.doorbell = doorbell
        guard doorbell >= 0 else { return unsafe refuse(session, &answer, Int64(doorbell), "no eventfd") }
        // Edge-triggered: every ring is heard once, and nobody has to read the counter.
        unsafe _ = dashfs_sys_epoll_add(
            events, doorbell, UInt32(dashfs_epoll_in) | dashfs_epoll_edge(), EventTag.make(EventTag.doorbell, session.pointee))
        statistics.sessionsOpened &+= 1
        unsafe offerChannel(session, message, &answer, doorbell: doorbell)
    }

    /// Makes a channel and hands its segments over, after the doorbell where that is given.
    private func offerChannel(
        _ session: UnsafeMutablePointer<SessionEnd>, _ message: ControlMessage, _ answer: inout ControlMessage, doorbell: Int32
    ) {
        let wanted = Int(message.arenaBytes)
        guard wanted >= Layout.arenaMinimum, wanted <= Layout.arenaMaximum, wanted % 4096 == 0 else {
            return unsafe endSession(session, reason: "an arena of \(wanted) bytes", hostile: true)
        }
        do throws(ErrorCode) {
            var (end, requests, completions) = try unsafe addChannel(session, arenaBytes: wanted)
            answer.channel = UInt32(bitPattern: unsafe session.pointee.channelCount - 1)
            answer.arenaBytes = UInt32(wanted)
            _ = unsafe end
            let segments = [requests.descriptor, completions.descriptor]
            unsafe send(session, answer, payload: [], descriptors: doorbell >= 0 ? [doorbell] + segments : segments)
            requests.closeDescriptor()
            completions.closeDescriptor()
        } catch {
            complain("a channel was refused to process \(unsafe session.pointee.process): \(errorText(error.number))")
            answer.status = -error.number
            if doorbell >= 0 {
                unsafe refuse(session, &answer, Int64(answer.status), "no channel")
            } else {
                unsafe send(session, answer, payload: [], descriptors: [])
            }
        }
    }

    /// What the session has mapped by a request. Asking for anything else is answered, because a map may have gone with a device that failed.
    private func handOutMap(_ session: UnsafeMutablePointer<SessionEnd>, inode: UInt64, _ answer: inout ControlMessage) {
        answer.inode = inode
        var descriptor: Int32 = -1
        if let (memory, isWritable) = volume.takeMap(unsafe session.pointee.volumeSession, inode: inode), let memory = memory as? MapMemory {
            descriptor = memory.openForClient(isWritable: isWritable)
            if descriptor < 0 { answer.status = descriptor }
        } else {
            answer.status = Int32(truncatingIfNeeded: -ErrorNumber.noEntry)
        }
        unsafe send(session, answer, payload: [], descriptors: descriptor >= 0 ? [descriptor] : [])
        if descriptor >= 0 { _ = dashfs_sys_close(descriptor) }
    }

    /// Where those meet who use a socket or pipe of the volume: told, or, with a descriptor, made.
    private func meet(_ session: UnsafeMutablePointer<SessionEnd>, inode: UInt64, _ offered: inout Int32, _ answer: inout ControlMessage) {
        answer.inode = inode
        var descriptor: Int32 = -1
        if let grant = volume.meetingGrant(unsafe session.pointee.volumeSession, inode: inode) {
            if offered >= 0 {
                answer.status = unsafe meetingPlaces.put(grant, user: session.pointee.user, descriptor: offered)
                if answer.status == 0 { offered = -1 }
            } else {
                descriptor = meetingPlaces.find(grant)
                answer.status = min(descriptor, 0)
            }
        } else {
            answer.status = -EACCES
        }
        unsafe send(session, answer, payload: [], descriptors: descriptor >= 0 ? [descriptor] : [])
    }

    private func refuse(_ session: UnsafeMutablePointer<SessionEnd>, _ answer: inout ControlMessage, _ status: Int64, _ reason: String) {
        answer.status = Int32(truncatingIfNeeded: status)
        unsafe send(session, answer, payload: [], descriptors: [])
        unsafe endSession(session, reason: reason)
    }

    private func send(_ session: UnsafeMutablePointer<SessionEnd>, _ message: ControlMessage, payload: [UInt8], descriptors: [Int32]) {
        var packet = [UInt8](repeating: 0, count: ControlMessage.bytes)
        unsafe packet.withUnsafeMutableBytes { unsafe message.store($0) }
        packet += payload
        let socket = unsafe session.pointee.socket
        let sent = unsafe packet.withUnsafeBytes { bytes -> Int in
            unsafe descriptors.withUnsafeBufferPointer { list in
                guard let base = bytes.baseAddress else { return 0 }
                return unsafe dashfs_send_packet(
                    socket, base, bytes.count, list.baseAddress, Int32(list.count), Int32(dashfs_dont_wait))
            }
        }
        // A peer that does not take its answers ends itself, and nobody waits for it.
        if sent < 0 { unsafe endSession(session, reason: "its control socket takes nothing (errno \(-sent))") }
    }
}
