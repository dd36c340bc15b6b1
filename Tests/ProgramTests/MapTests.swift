// mmap of files of the volume, as unmodified programs see it: beside what Linux does, for root and others, and over the death of programs and of the server.
import Foundation
import Testing

@Suite("Maps of files", .serialized)
struct MapTests {
    @Test("The program of maps passes on the kernel's ext4, and finds stores of a wrong byte", .enabled(if: kind(of: NSTemporaryDirectory()).hasPrefix("ext")))
    func kernel() throws {
        try withScratch { here in
            let maps = try here.compile("maps", ["maps.c"])
            let sound = try run(maps, [try here.directory("sound"), "2000"])
            #expect(sound.status == 0, "\(sound.output)")
            let planted = try run(maps, [try here.directory("planted"), "2000"], environment: ["MAPS_PLANT": "1"])
            #expect(planted.status == 1 && planted.output.contains("WRONG: 2000 random changes"), "\(planted.output)")
        }
    }

    @Test("Stores, loads, sizes, protection, processes and refusals are Linux's", arguments: isRoot ? [0, 1000] : [Int(getuid())])
    func everything(_ user: Int) throws {
        try withScratch { here in
            let maps = try here.compile("maps", ["maps.c"])
            let script = """
                set -e
                chmod 755 '\(here.path)' '\(here.path)/built'
                SIZE=64M DASHFS='\(dashfs.path)' '\(programs.path)/on-dashfs' '\(here.path)/volume.img' bash -c '
                    mkdir -m 777 /dash/place
                    for seed in 1 2 3 4 5 6; do
                        \(user == Int(getuid()) ? "" : "setpriv --reuid \(user) --regid \(user) --clear-groups") \(maps) /dash/place \(1500 * factor) $seed || exit 1
                    done'
                """
            let outcome = try run("bash", ["-c", script])
            #expect(outcome.status == 0 && outcome.output.components(separatedBy: "PASS maps").count == 7, "\(outcome.output.suffix(3000))")
        }
    }

    /// Prints what it has made durable, or stored, and waits to be killed.
    private let storer = """
        import mmap, os, sys
        with open('/dash/file', 'w+b') as file:
            file.write(bytes(400000))
            file.flush()
            os.fsync(file.fileno())
            shared = mmap.mmap(file.fileno(), 0)
        for page in range(0, 90, 3):
            shared[page * 4096 + page] = page + 1
        if 'msync' in sys.argv: shared.flush()
        print('stored', flush=True)
        sys.stdin.read()
        """
    private let reader = """
        with open('/dash/file', 'rb') as file: content = file.read()
        assert len(content) == 400000
        for page in range(90): assert content[page * 4096 + page] == (page + 1 if page % 3 == 0 else 0), page
        """

    private func life(_ here: Scratch, _ argument: String, _ death: String) throws -> Outcome {
        try Data(storer.utf8).write(to: URL(fileURLWithPath: here.path + "/storer.py"))
        try Data(reader.utf8).write(to: URL(fileURLWithPath: here.path + "/reader.py"))
        let script = """
            set -e
            cd '\(here.path)'
            '\(dashfs.path)' format image --size 64M
            mkfifo ready input output
            '\(dashfs.path)' serve image --socket socket --cache 16M >ready &
            read -r line <ready
            server=${line##* }
            exec 7<>input 8<>output
            '\(dashfs.path)' run --socket socket -- python3 storer.py \(argument) <input >output &
            program=$!
            read -r line <&8
            test "$line" = stored
            \(death)
            '\(dashfs.path)' check image
            '\(dashfs.path)' run --image image -- python3 reader.py
            """
        return try run("bash", ["-c", script])
    }

    @Test("What msync has made durable outlives a server that is killed")
    func durable() throws {
        try withScratch { here in
            let outcome = try life(here, "msync", "kill -9 $server; wait $server || true; kill -9 $program; wait $program || true; '\(dashfs.path)' run --image image -- true")
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }

    @Test("What a killed program had stored is in the file, for others at once and on the device after an orderly end")
    func killed() throws {
        try withScratch { here in
            let outcome = try life(
                here, "", "kill -9 $program; wait $program || true; '\(dashfs.path)' run --socket socket -- python3 reader.py; kill $server; wait $server")
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }

    @Test("What is stored while the server ends is on the device as it was then")
    func ended() throws {
        try withScratch { here in
            let outcome = try life(here, "", "kill $server; wait $server; kill -9 $program; wait $program || true")
            #expect(outcome.status == 0, "\(outcome.output)")
        }
    }
}
