import CSystem
import Volume

#if canImport(Glibc)
    import Glibc
#endif

/// What the kernel has behind the volume's sockets and pipes: an O_PATH descriptor each, made by a client in a place of the kernel's and already without a name there, so that nobody reaches it
/// but through this table.
///
/// Invariants: every descriptor is O_PATH: nothing is ever read, opened or connected here, and closing it waits for nobody. What it leads to is the client's word, which concerns those alone
/// who may use the name; they look at it. A user's are bounded, the oldest go first, so that nobody takes the server's descriptors away from others.
struct MeetingPlaces {
    static let limit = 1024
    static let limitOfUser = 256

    private struct Place {
        let grant: MeetingGrant
        let user: UInt32
        let descriptor: Int32
    }
    private var places: [Place] = []

    var count: Int { places.count }

    private func index(_ grant: MeetingGrant) -> Int? {
        places.firstIndex { $0.grant.inode == grant.inode && $0.grant.generation == grant.generation && $0.grant.isSocket == grant.isSocket }
    }

    /// The descriptor, which stays the table's, or a negated errno.
    func find(_ grant: MeetingGrant) -> Int32 {
        guard grant.access & (grant.isSocket ? 2 : 6) != 0 else { return -EACCES }
        guard let index = index(grant) else { return -ENOENT }
        return places[index].descriptor
    }

    /// Takes the descriptor if the result is 0; else a negated errno. A socket's name belongs to who has bound it; a pipe is made by whoever opens it first.
    mutating func put(_ grant: MeetingGrant, user: UInt32, descriptor: Int32) -> Int32 {
        guard grant.isSocket ? grant.owns : grant.access & 6 != 0 else { return -EACCES }
        if !grant.isSocket, index(grant) != nil { return -EEXIST }
        guard dashfs_is_path_only(descriptor) else { return -EINVAL }
        // What the inode was before.
        remove { $0.grant.inode == grant.inode }
        if places.reduce(0, { $0 + ($1.user == user ? 1 : 0) }) >= MeetingPlaces.limitOfUser, let oldest = places.firstIndex(where: { $0.user == user }) {
            _ = dashfs_sys_close(places.remove(at: oldest).descriptor)
        }
        guard places.count < MeetingPlaces.limit else { return -ENOSPC }
        places.append(Place(grant: grant, user: user, descriptor: descriptor))
        return 0
    }

    mutating func closeAll() { remove { _ in true } }

    private mutating func remove(where isOne: (Place) -> Bool) {
        for place in places where isOne(place) { _ = dashfs_sys_close(place.descriptor) }
        places.removeAll(where: isOne)
    }
}
