// The harnesses themselves, on the kernel's file systems: two that must agree do, and a planted error is found. Only then is a verdict on DashFS worth
// anything.
import Foundation
import Testing

@Suite("The proving ground on the kernel's file systems", .serialized)
struct HarnessTests {
    func compare(_ here: Scratch, _ left: String, _ right: String, _ arguments: [String]) throws -> Outcome {
        try run(
            programs.appendingPathComponent("oracle/compare.py").path,
            ["--oracle", try here.oracle(), "--left", left, "--right", right] + arguments)
    }

    @Test(
        "tmpfs and ext4 print the same lines",
        .enabled(if: isRoot && kind(of: "/dev/shm") == "tmpfs" && kind(of: NSTemporaryDirectory()).hasPrefix("ext")),
        arguments: [["--mixed"], ["--mixed", "--processes"]])
    func tmpfsAndExt4(_ who: [String]) throws {
        try withScratch(inMemory: true) { memory in
            try withScratch { disk in
                // Names as long as each other, but for pairs of bytes: so are then the paths that are filled up.
                let isAlike = (memory.path.utf8.count - disk.path.utf8.count) % 2 == 0
                let right = try disk.directory(isAlike ? "on" : "odd")
                let outcome = try compare(
                    disk, "tmpfs:\(try memory.directory("in"))", "ext4:\(right)", ["--count", "\(20_000 * factor)"] + who)
                #expect(outcome.status == 0, "\(outcome.output)")
            }
        }
    }

    @Test(
        "The oracle finds a wrong bit in written data, a chmod that does nothing, offsets that a child does not share, a descriptor that exec loses, a lock that is not one, and a wrong store",
        arguments: [("byte", []), ("chmod", []), ("offset", ["--processes"]), ("exec", ["--processes"]), ("lock", ["--processes"]), ("store", ["--processes"])])
    func plantedInTheOracle(_ plant: String, _ who: [String]) throws {
        try withScratch(inMemory: true) { here in
            let left = "tmpfs:" + (try here.directory("one")), right = "tmpfs:" + (try here.directory("two"))
            let sound = try compare(here, left, right, ["--count", "10000"] + who)
            #expect(sound.status == 0, "\(sound.output)")
            let planted = try compare(here, left, right, ["--count", "10000", "--tries", "25", "--right-prefix", "env ORACLE_PLANT=\(plant)"] + who)
            #expect(planted.status == 1 && planted.output.contains("DIFFERENT: seed "), "\(planted.output)")
            #expect(planted.output.contains("operations show it"), "the difference was not cut down:\n\(planted.output)")
        }
    }

    @Test("Every program family passes on the kernel's file system")
    func families() throws {
        try withScratch(inMemory: true) { here in
            let outcome = try run(programs.appendingPathComponent("run-families").path, [here.path])
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }

    @Test(
        "A family finds a file system that is wrong in what it is about",
        arguments: [("byte", "coreutils"), ("times", "copy"), ("locks", "sqlite"), ("names", "find")])
    func plantedInAFamily(_ flaw: String, _ family: String) throws {
        try withScratch(inMemory: true) { here in
            let library = try here.compile("flawed.so", ["flawed.c"], ["-shared", "-fPIC", "-ldl"])
            let target = try here.directory("target")
            let outcome = try run(
                programs.appendingPathComponent("run-families").path,
                [target, "--only", family, "--", "env", "LD_PRELOAD=\(library)", "FLAW_AT=\(target)", "FLAW=\(flaw)"])
            #expect(outcome.status == 1 && outcome.output.contains("FAIL \(family)"), "\(outcome.output)")
        }
    }

    @Test("What holds after any interleaving of processes holds on the kernel; a counter raised without its lock is seen to lose increments")
    func storm() throws {
        try withScratch(inMemory: true) { here in
            let storm = try here.compile("storm", ["storm.c"])
            let sound = try run(storm, [try here.directory("sound")])
            #expect(sound.status == 0, "\(sound.output)")
            let planted = try run(storm, [try here.directory("planted"), "4", "2000"], environment: ["STORM_PLANT": "counter"])
            #expect(planted.status == 1 && planted.output.contains("WRONG: counter"), "\(planted.output)")
        }
    }

    @Test("The verifier of fsynced bytes accepts what is whole, and finds a lost block, a wrong byte, a lost file and a short journal")
    func durableWriter() throws {
        try withScratch { here in
            let writer = try here.compile("durable_writer", ["durable_writer.c"])
            let place = here.path + "/load", log = here.path + "/promises"
            func verify() throws -> Outcome { try run(writer, ["--verify", place, log]) }
            // Killed after so many promises, as the demonstration kills it.
            let script = "\(writer) \(place) \(log) 8 & w=$!; until [ \"$(cat \(log) 2>/dev/null | wc -l)\" -ge 300 ]; do sleep 0.01; done; kill -9 $w; wait $w 2>/dev/null; true"
            _ = try run("bash", ["-c", script])
            let whole = try verify()
            #expect(whole.status == 0, "\(whole.output)")
            for damage in [
                "printf x | dd of=\(place)/file3 bs=1 seek=5000 conv=notrunc status=none", "rm \(place)/file5", "truncate -s 100 \(place)/journal",
                "dd if=/dev/zero of=\(place)/file1 bs=4096 count=24 conv=notrunc status=none",
            ] {
                #expect(try run("sh", ["-c", "cp -a \(place) \(here.path)/kept && \(damage)"]).status == 0)
                let damaged = try verify()
                #expect(damaged.status == 1, "\(damage): \(damaged.output)")
                #expect(try run("sh", ["-c", "rm -rf \(place) && mv \(here.path)/kept \(place)"]).status == 0)
            }
        }
    }
}
