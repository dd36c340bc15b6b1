// What `doctor` looks at, one function each. Invariant: a result says what was found with its number, and where something is
// to be done, the command that does it.
import BlockDevice
import CSystem
import Glibc
import Interception

enum Examination {
    enum State: String, Encodable {
        case good, limits, stops

        var mark: String {
            switch self {
            case .good: "ok   "
            case .limits: "slow "
            case .stops: "STOP "
            }
        }
    }

    struct Result: Encodable {
        var name: String
        var state: State
        var text: String
        var remedy: String?

        init(_ name: String, _ state: State, _ text: String, _ remedy: String? = nil) {
            self.name = name
            self.state = state
            self.text = text
            self.remedy = remedy
        }
    }

    static func all(directory: String) -> [Result] {
        [
            kernel(), processors(), memory(), lockedMemory(), hugePages(), uring(), descriptors(), permissions(), directIO(directory), nvme(), socketPlace(), library(),
            codeWriting(), hardening(), siteTable(), dispatch(),
        ]
    }

    // MARK: The machine

    private static func kernel() -> Result {
        var name = utsname()
        guard unsafe uname(&name) == 0 else { return Result("kernel", .stops, "does not say its version") }
        let release = unsafe withUnsafeBytes(of: &name.release) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let parts = release.split(whereSeparator: { !$0.isNumber }).prefix(2).compactMap { Int($0) }
        let isOld = parts.count == 2 && (parts[0], parts[1]) < (6, 1)
        return Result("kernel", isOld ? .limits : .good, release, isOld ? "DashFS is tested on Linux 6.1 and newer" : nil)
    }

    private static func processors() -> Result {
        let count = Int(dashfs_processors())
        switch count {
        case 1:
            return Result(
                "processors", .limits, "1: every request costs two switches between program and server", "give this machine two, or serve with --wait always")
        case 2, 3: return Result("processors", .good, "\(count): enough for a server and one busy program; others take turns with them")
        default: return Result("processors", .good, "\(count)")
        }
    }

    private static func memory() -> Result {
        let lines = SmallFile.text("/proc/meminfo")?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("MemAvailable:") }
        guard let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap({ UInt64($0) }) else {
            return Result("memory", .limits, "/proc/meminfo does not say what is available")
        }
        let isShort = kibibytes < 1 << 20
        return Result(
            "memory", isShort ? .limits : .good, "\(Quantity.text(kibibytes << 10)) available",
            isShort ? "serve with a --cache of less than half of that; the default is 512M" : nil)
    }

    private static func lockedMemory() -> Result {
        let line = SmallFile.text("/proc/self/limits")?.split(separator: "\n").first { $0.hasPrefix("Max locked memory") }
        let limit = line?.split(separator: " ").dropFirst(3).first.flatMap { UInt64($0) }
        guard geteuid() != 0, let limit else { return Result("locked memory", .good, "no limit for this user") }
        let isEnough = limit >= 640 << 20
        return Result(
            "locked memory", isEnough ? .good : .limits,
            "\(Quantity.text(limit))\(isEnough ? "" : ": no more of the cache is registered with io_uring, which costs other transfers a little")",
            isEnough ? nil : "raise it: ulimit -l, or LimitMEMLOCK=infinity in the service's unit")
    }

    private static func hugePages() -> Result {
        let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
        guard let text = SmallFile.text(path), let open = text.firstIndex(of: "["), let close = text.firstIndex(of: "]") else {
            return Result("huge pages", .limits, "the kernel has none for shared memory", nil)
        }
        let mode = String(text[text.index(after: open)..<close])
        let isOn = ["always", "within_size", "advise", "force"].contains(mode)
        return Result(
            "huge pages", isOn ? .good : .limits, "shared memory: \(mode)\(isOn ? "" : ": the cache is in small pages")",
            isOn ? nil : "echo advise > \(path)")
    }

    private static func uring() -> Result {
        let refusal = dashfs_uring_refusal()
        if refusal == 0 { return Result("io_uring", .good, "allowed") }
        let disabled = SmallFile.text("/proc/sys/kernel/io_uring_disabled")?.first
        let remedy =
            disabled.map { $0 != "0" } ?? false ? "sysctl kernel.io_uring_disabled=0" : "allow the io_uring calls in the container's seccomp profile"
        return Result("io_uring", .limits, "refused (\(errorText(refusal))): plain system calls are used, which wait for the device", remedy)
    }

    private static func descriptors() -> Result {
        var limit = rlimit()
        _ = unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        // A session takes a socket, a pidfd and a doorbell.
        let isFew = limit.rlim_cur < 1024
        return Result(
            "descriptors", isFew ? .limits : .good, "\(limit.rlim_cur): about \(max(0, Int(min(limit.rlim_cur, 1 << 20)) - 64) / 3) programs at once",
            isFew ? "ulimit -n 65536" : nil)
    }

    private static func permissions() -> Result {
        if geteuid() == 0 { return Result("permissions", .good, "root: any device, and every user's programs are served with their own rights") }
        return Result(
            "permissions", .good, "user \(geteuid()): images of your own; a block device wants root, or its group (ls -l DEVICE; usermod -aG disk USER)")
    }

    private static func directIO(_ directory: String) -> Result {
        let path = "\(directory)/.dashfs-doctor-\(getpid())"
        do throws(DeviceError) {
            try FileDevice.create(path, size: 1 << 20)
            defer { unsafe _ = unlink(path) }
            let device = try FileDevice.open(path)
            defer { device.close() }
            let queue = try device.makeQueue(depth: 4)
            _ = queue.room
            let refused = device.warnings.first { $0.contains("direct I/O") }
            return Result(
                "direct I/O", refused == nil ? .good : .limits, refused ?? "works in \(Places.absolute(directory))",
                refused == nil ? nil : "put images on ext4, xfs or a block device")
        } catch {
            return Result("direct I/O", .limits, "cannot be tried in \(directory): \(errorText(error.errno))", "name a directory that you may write: --directory")
        }
    }

    /// Controllers that DashFS could drive itself, and whether something would keep them to their memory.
    private static func nvme() -> Result {
        let controllers = PCIFunction.controllers()
        if controllers.isEmpty { return Result("NVMe", .good, "no controller here; files, block devices and memory are served through the kernel") }
        let ours = controllers.filter { $0.driver == "vfio-pci" }.map(\.address)
        let count = "\(controllers.count) controller\(controllers.count == 1 ? "" : "s"), \(ours.isEmpty ? "none" : ours.joined(separator: ", ")) with vfio-pci"
        guard PCIFunction.hasIOMMU else {
            return Result("NVMe", .limits, "\(count); there is no IOMMU: DashFS drives none itself", PCIFunction.iommuRemedy)
        }
        return Result("NVMe", .good, "\(count); an IOMMU is there (dashfs device list, dashfs device bind)")
    }

    private static func socketPlace() -> Result {
        do throws(Failure) {
            let path = try Places.serverSocket()
            let directory = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            guard unsafe access(directory, W_OK) == 0 else {
                return Result("socket", .limits, "\(directory): \(errorText(errno))", "serve with --socket in a directory that you may write")
            }
            return Result("socket", .good, path)
        } catch {
            return Result("socket", .limits, error.message)
        }
    }

    // MARK: Interception

    private static func library() -> Result {
        do throws(Failure) {
            return Result("library", .good, try Places.preloadLibrary())
        } catch {
            return Result("library", .stops, error.message)
        }
    }

    private static func codeWriting() -> Result {
        let descriptor = unsafe open("/proc/self/mem", O_RDWR | O_CLOEXEC)
        if descriptor >= 0 {
            close(descriptor)
            return Result("code", .good, "programs may rewrite their own call sites")
        }
        return Result(
            "code", .limits, "/proc/self/mem cannot be written (\(errorText(errno))): call sites are made writable for a moment instead",
            "mount /proc in the container")
    }

    private static func hardening() -> Result {
        if SmallFile.text("/sys/fs/selinux/enforce")?.first == "1" {
            return Result(
                "hardening", .limits, "SELinux is enforcing: where it denies execmod and /proc/self/mem, calls are caught by signals, some 3 us each",
                "setsebool -P selinuxuser_execmod 1")
        }
        let seccomp = SmallFile.text("/proc/self/status")?.split(separator: "\n").first { $0.hasPrefix("Seccomp:") }
        if let mode = seccomp?.split(whereSeparator: { $0 == "\t" || $0 == " " }).last, mode != "0" {
            return Result("hardening", .good, "this shell runs under a seccomp filter; programs with a strict one of their own are killed at a call it does not list")
        }
        return Result("hardening", .good, "neither SELinux nor seccomp stands in the way")
    }

    private static func siteTable() -> Result {
        do throws(InterceptionError) {
            var rewritten = 0
            var total = 0
            for object in try SiteTableCache.surveySystem() {
                total += object.sites.count
                for site in object.sites {
                    switch site.coverage {
                    case .rewritten: rewritten += 1
                    case .leftAlone, .throughCallers: break
                    case .impossible(let reason):
                        return Result(
                            "call sites", withoutSites, "\(object.path) at 0x\(String(site.address, radix: 16)): \(reason)",
                            "report this C library (build \(object.identity.text)); the DashFS and C libraries work without interception")
                    }
                }
            }
            return Result("call sites", .good, "\(rewritten) of \(total) in the C library and its loader are about files, and all of them can be rewritten")
        } catch {
            return Result("call sites", withoutSites, error.description, "the DashFS and C libraries work without interception")
        }
    }

    private static var withoutSites: State { dashfs_dispatch_refusal() == 0 ? .limits : .stops }

    /// What is left where code cannot be rewritten.
    private static func dispatch() -> Result {
        let refusal = dashfs_dispatch_refusal()
        if refusal == 0 { return Result("dispatch", .good, "where code cannot be rewritten the kernel hands calls back by a signal, some 3 us each") }
        return Result(
            "dispatch", .limits, "no syscall user dispatch (\(errorText(refusal))): programs whose code cannot be rewritten end with status 126",
            "Linux 5.11 or newer, and no filter that refuses prctl(PR_SET_SYSCALL_USER_DISPATCH)")
    }
}

/// Files of /proc and /sys.
enum SmallFile {
    /// At most 64 KiB of it, or nil.
    static func text(_ path: String) -> String? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while bytes.count < 65536 {
            let count = unsafe read(descriptor, &piece, piece.count)
            guard count > 0 else { break }
            bytes.append(contentsOf: piece[0..<count])
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
