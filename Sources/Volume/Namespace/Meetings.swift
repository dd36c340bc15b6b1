/// Sockets and pipes that have a name here: which session may reach what the kernel has behind one (`Server/MeetingPlaces.swift`).
///
/// Always true: a grant says what `access` has found of one file, named for good by inode and generation, and never stands for another that gets its inode later. A session has the latest
/// few; they end with it.
public struct MeetingGrant: Sendable {
    public let inode: UInt64
    public let generation: UInt32
    public let isSocket: Bool
    /// Read 4, write 2: what was asked for, and granted.
    public let access: UInt32
    /// Whether the session may say what stands behind the name.
    public let owns: Bool
}

extension Volume {
    private static let grantsOfSession = 16

    /// The latest that `access` has granted the session of this file.
    public func meetingGrant(_ session: SessionID, inode: UInt64) -> MeetingGrant? { meetings[session.rawValue]?.last { $0.inode == inode } }

    func noteMeeting(_ file: Inode, _ request: Request, _ who: Credentials) {
        let isSocket = file.type == Mode.socket
        guard isSocket || file.type == Mode.fifo else { return }
        var grants = meetings[request.session.rawValue] ?? []
        grants.removeAll { $0.inode == file.number }
        if grants.count == Volume.grantsOfSession { grants.removeFirst() }
        grants.append(MeetingGrant(inode: file.number, generation: file.generation, isSocket: isSocket, access: request.mode & 6, owns: who.owns(file)))
        meetings[request.session.rawValue] = grants
    }
}
