import CSystem
import Foundation
import Server
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// What a serving process has given up. Each is tried in a child of its own, because there is no way back.
@Suite(.serialized) struct ConfinementTests {
    /// Runs `body`, which allocates nothing, in a forked child; its result is the exit status.
    private func inChild(_ body: () -> Int32) -> Int32 {
        let child = Int32(dashfs_sys_call(57, 0, 0, 0, 0, 0, 0))
        if child == 0 {
            let code = body()
            while true { _ = dashfs_sys_call(231, Int(code), 0, 0, 0, 0, 0) }
        }
        var status: Int32 = 0
        while unsafe waitpid(child, &status, 0) < 0 {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : -(status & 0x7f)
    }

    @Test func everyCallThatIsNotListedFails() {
        let filter = SystemCallFilter()
        var listed = [Bool](repeating: false, count: 600)
        for rule in SystemCallFilter.serving { listed[rule.callNumber] = true }
        #expect(listed.filter { $0 }.count == SystemCallFilter.serving.count)
        let failed = inChild {
            _ = dashfs_forbid_new_privileges()
            guard filter.install() == 0 else { return 255 }
            // Nothing of these happens: the filter comes first, so that even exit and fork only fail. 335 and 336 are the kernel's own, for its probes: it lets
            // them past every filter, and they do nothing for anyone else.
            for number in 0..<600 where !listed[number] && number != 335 && number != 336 {
                if dashfs_sys_call(number, 0, 0, 0, 0, 0, 0) != -Int(EPERM) { return Int32(1 + number % 200) }
            }
            return 0
        }
        #expect(failed == 0)
    }

    @Test func whatIsListedWithAConditionIsHeldToIt() {
        let filter = SystemCallFilter()
        let outcome = inChild {
            _ = dashfs_forbid_new_privileges()
            guard filter.install() == 0 else { return 255 }
            let (read, write, execute) = (1, 2, 4)
            let flags = Int(dashfs_map_private | dashfs_map_anonymous)
            let memory = dashfs_sys_call(9, 0, 4096, read | write, flags, -1, 0)
            if memory < 4096 && memory > -4096 { return 1 }
            if dashfs_sys_call(9, 0, 4096, read | execute, flags, -1, 0) != -Int(EPERM) { return 2 }
            if dashfs_sys_call(10, memory, 4096, read, 0, 0, 0) != 0 { return 3 }
            if dashfs_sys_call(10, memory, 4096, read | execute, 0, 0, 0) != -Int(EPERM) { return 4 }
            // F_ADD_SEALS on no descriptor, F_SETOWN on one.
            if dashfs_sys_add_seals(-1, 1) != -Int(EBADF) { return 5 }
            if dashfs_sys_call(72, 2, 8, 1, 0, 0, 0) != -Int(EPERM) { return 6 }
            // BLKDISCARD on no descriptor, TIOCSTI on one.
            if dashfs_sys_call(16, -1, 0x1277, 0, 0, 0, 0) != -Int(EBADF) { return 7 }
            if dashfs_sys_call(16, 2, 0x5412, 0, 0, 0, 0) != -Int(EPERM) { return 8 }
            if unsafe dashfs_sys_open("/nowhere", O_RDONLY | O_CLOEXEC, 0) != -Int(EPERM) { return 9 }
            return 0
        }
        #expect(outcome == 0)
    }

    @Test func whereFilesAreOutOfReachMemoryMayBeOpenedAnewAndNothingMade() {
        let filter = SystemCallFilter(SystemCallFilter.serving + [SystemCallFilter.reopening])
        let outcome = inChild {
            _ = dashfs_forbid_new_privileges()
            guard filter.install() == 0 else { return 255 }
            for flags in [O_RDONLY | O_CLOEXEC, O_RDWR | O_CLOEXEC] where unsafe dashfs_sys_open("/nowhere/at/all", flags, 0) != -Int(ENOENT) { return 1 }
            for flags in [O_RDONLY, O_WRONLY | O_CLOEXEC, O_RDWR | O_CLOEXEC | O_CREAT, O_RDWR | O_CLOEXEC | O_TRUNC, O_RDONLY | O_CLOEXEC | O_DIRECTORY, O_CLOEXEC | 0o10000000] {
                if unsafe dashfs_sys_open("/nowhere/at/all", flags, 0o600) != -Int(EPERM) { return 2 }
            }
            return 0
        }
        #expect(outcome == 0)
    }

    @Test func aCallOfAnotherArchitectureEndsTheProcess() {
        // The list is of x86-64's numbers; by another table a number would mean another call. Shown by a filter that expects another machine.
        let filter = SystemCallFilter(architecture: 0x4000_0003)
        let outcome = inChild {
            _ = dashfs_forbid_new_privileges()
            guard filter.install() == 0 else { return 255 }
            _ = dashfs_sys_call(39, 0, 0, 0, 0, 0, 0)
            return 1
        }
        #expect(outcome == -SIGSYS)
    }

    @Test func filesAreOutOfReachByNameButForRemovingTheSocket() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("dashfs-test-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let names = ["socket", "other"].map { directory.appendingPathComponent($0).path }
        for name in names { try Data([1]).write(to: URL(fileURLWithPath: name)) }
        let paths = UnsafeMutablePointer<CChar>.allocate(capacity: 1000)
        defer { unsafe paths.deallocate() }
        unsafe _ = strcpy(paths, directory.path)
        unsafe _ = strcpy(paths + 300, names[0])
        unsafe _ = strcpy(paths + 600, names[1])
        let memory = unsafe Int32(dashfs_sys_memfd_unsealable("test"))
        defer { _ = dashfs_sys_close(memory) }
        unsafe _ = strcpy(paths + 900, "/proc/self/fd/\(memory)")
        let outcome = inChild {
            _ = dashfs_forbid_new_privileges()
            let result = unsafe dashfs_close_file_system(paths)
            if result == -Int(ENOSYS) || result == -Int(EOPNOTSUPP) { return 100 }
            if result != 0 { return 1 }
            if unsafe dashfs_sys_open(paths + 600, O_RDONLY, 0) != -Int(EACCES) { return 2 }
            if unsafe dashfs_sys_open(paths + 600, O_RDWR, 0) != -Int(EACCES) { return 3 }
            if unsafe dashfs_sys_open("/etc/passwd", O_RDONLY, 0) != -Int(EACCES) { return 4 }
            for flags in [O_RDONLY, O_RDWR] where unsafe dashfs_sys_open(paths + 900, flags, 0) < 0 { return 7 }
            if unsafe dashfs_sys_unlink("/proc/self/nothing") != -Int(ENOENT) { return 5 }
            return unsafe dashfs_sys_unlink(paths + 300) == 0 ? 0 : 6
        }
        #expect(outcome == 0 || outcome == 100, "this kernel has no Landlock, or it lets something through: \(outcome)")
        if outcome == 0 { #expect(!FileManager.default.fileExists(atPath: names[0])) }
        #expect(FileManager.default.fileExists(atPath: names[1]))
    }

    @Test func rootCanBecomeSomeoneElseForGood() {
        guard geteuid() == 0 else { return }
        let outcome = inChild {
            guard (try? Server.become(user: 65_534, group: 65_533)) != nil else { return 1 }
            if geteuid() != 65_534 || getegid() != 65_533 || getgroups(0, nil) != 0 { return 2 }
            // setresuid back to root.
            if dashfs_sys_call(117, 0, 0, 0, 0, 0, 0) != -Int(EPERM) { return 3 }
            return 0
        }
        #expect(outcome == 0)
    }
}
