// The kernel's side of a benchmark: what its file system is called, and how its files go away again.
import Glibc

enum Scratch {
    /// Removes a directory with everything in it.
    static func remove(_ path: String) {
        if let directory = unsafe opendir(path) {
            var names: [String] = []
            while let entry = unsafe readdir(directory) {
                let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                    unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
                }
                if name != "." && name != ".." { names.append(name) }
            }
            unsafe _ = closedir(directory)
            for name in names where unsafe unlink("\(path)/\(name)") != 0 { remove("\(path)/\(name)") }
        }
        unsafe _ = rmdir(path)
    }
}

enum FileSystemName {
    /// The type of the file system that holds a path, from /proc/self/mountinfo: of the mounts above it the longest.
    static func of(_ path: String) -> String {
        let absolute = Places.absolute(path)
        var best = ("", "kernel")
        for line in (SmallFile.text("/proc/self/mountinfo") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 6, let dash = fields.firstIndex(of: "-"), dash + 1 < fields.count else { continue }
            let mount = String(fields[4])
            let isAbove = mount == "/" || absolute == mount || absolute.hasPrefix(mount + "/")
            if isAbove && mount.utf8.count >= best.0.utf8.count { best = (mount, String(fields[dash + 1])) }
        }
        return best.1
    }
}
