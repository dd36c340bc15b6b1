/// Opcode to function: the list of what the volume can do.
extension Volume {
    func dispatch(_ request: borrowing Request, _ progress: Progress, _ tx: Transaction) throws(Stop) -> Outcome {
        guard sessionIndex(request.session) != nil else { throw .errno(Errno.badDescriptor) }
        switch request.opcode {
        case .null: return Outcome(0)
        case .open: return try open(request, tx)
        case .close: return try close(request, tx)
        case .read: return try read(request, progress, tx)
        case .write: return try write(request, progress, tx)
        case .seek: return try seek(request, progress, tx)
        case .getattr: return try getAttributes(request, tx)
        case .setattr: return try setAttributes(request, tx)
        case .access: return try access(request, tx)
        case .mkdir: return try makeDirectory(request, tx)
        case .mknod: return try makeNode(request, tx)
        case .symlink: return try makeSymbolicLink(request, tx)
        case .readlink: return try readLink(request, tx)
        case .link: return try link(request, tx)
        case .unlink: return try unlink(request, tx)
        case .rmdir: return try removeDirectory(request, tx)
        case .rename: return try rename(request, progress, tx)
        case .fallocate: return try fallocate(request, progress, tx)
        case .fsync: return try sync(request, progress, tx)
        case .sync: return try syncAll(progress, tx)
        case .statfs: return try statistics(request)
        case .readdir: return try readDirectory(request, tx)
        case .getxattr: return try getExtendedAttribute(request, tx)
        case .setxattr: return try setExtendedAttribute(request, tx)
        case .listxattr: return try listExtendedAttributes(request, tx)
        case .removexattr: return try removeExtendedAttribute(request, tx)
        case .lock: return try lock(request, tx)
        case .flock: return try lockWhole(request, tx)
        case .setflags: return try setStatusFlags(request, tx)
        case .copyRange: return try copyRange(request, progress, tx)
        case .handlePath: return try handlePath(request, progress, tx)
        case .share: return try share(request, tx)
        case .bequeath: return try bequeath(request, tx)
        case .map: return try map(request, progress, tx)
        case .syncMap: return try syncMap(request, progress, tx)
        }
    }
}
