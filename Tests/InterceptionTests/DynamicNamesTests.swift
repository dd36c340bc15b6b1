// The names in a program's dynamic section, as exec looks for them: against readelf, and in files that say what is not so.

import Foundation
import Interception
import Testing

@Suite struct DynamicNamesTests {
    /// All names that are offered, as "object NAME" and "path LIST".
    private func names(_ bytes: [UInt8]) -> [String] {
        var found: [String] = []
        let room = UnsafeMutableRawPointer.allocate(byteCount: DynamicNames.roomBytes, alignment: 16)
        defer { unsafe room.deallocate() }
        let isAny = unsafe DynamicNames.contains(
            room,
            read: { offset, target, count in
                guard let start = Int(exactly: offset), start < bytes.count else { return 0 }
                let part = bytes[start..<min(bytes.count, start + count)]
                unsafe part.withUnsafeBytes { unsafe target.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(target), byteCount: $0.count) }
                return part.count
            }
        ) { kind, text in
            found.append((kind == .object ? "object " : "path ") + (unsafe String(decoding: text, as: UTF8.self)))
            return false
        }
        #expect(!isAny)
        return found
    }

    private func expected(_ path: String, _ workshop: Workshop) throws -> [String] {
        try workshop.output(["readelf", "-dW", path]).split(separator: "\n").compactMap { line in
            guard let start = line.firstIndex(of: "["), let end = line.lastIndex(of: "]") else { return nil }
            let text = String(line[line.index(after: start)..<end])
            for kind in ["(NEEDED)", "(FILTER)", "(AUXILIARY)"] where line.contains(kind) { return "object " + text }
            return line.contains("(RPATH)") || line.contains("(RUNPATH)") ? "path " + text : nil
        }
    }

    @Test("They are those that readelf shows")
    func agreeWithReadelf() throws {
        let workshop = try Workshop()
        var files = ["/bin/bash", "/usr/bin/gcc", "/usr/bin/python3", CommandLine.arguments[0]].filter { FileManager.default.fileExists(atPath: $0) }
        let long = (0..<400).map { "/a/directory/of/many/\($0)" }.joined(separator: ":")
        for (index, options) in [
            ["-Wl,-rpath,/dash/lib"], ["-Wl,-rpath,$ORIGIN/../lib", "-no-pie"], ["-Wl,-rpath,\(long.prefix(8000))"],
            ["-Wl,-rpath,/x", "-Wl,--disable-new-dtags", "-Wl,-z,noseparate-code"], ["-static"], (0..<300).map { "\(workshop.directory)/many\($0).so" },
        ].enumerated() {
            for option in options where option.contains("/many") && option.hasSuffix(".so") {
                _ = try workshop.output(["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", option])
            }
            let source = try workshop.write(Array("int main(void) { return 0; }".utf8), to: "main.c")
            files.append("\(workshop.directory)/program\(index)")
            _ = try workshop.output(["gcc", source, "-o", "\(workshop.directory)/program\(index)", "-Wl,--no-as-needed"] + options)
        }
        for file in files {
            let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: file)))
            #expect(names(bytes) == (try expected(file, workshop)), "\(file)")
        }
        #expect(names(Array("#!/bin/sh\n".utf8)).isEmpty && names([]).isEmpty)
    }

    @Test("Files cut off anywhere and with random changes are looked at to an end")
    func survivesDamage() throws {
        let whole = Array(try Data(contentsOf: URL(fileURLWithPath: "/bin/true")))
        var random = SystemRandomNumberGenerator()
        let seed = random.next()
        var state = seed
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        print("seed \(seed)")
        for round in 0..<20_000 {
            var bytes = round % 4 == 0 ? Array(whole.prefix(next(whole.count))) : whole
            // Headers, where most of what is looked at is, and anywhere.
            for _ in 0..<1 + next(8) where !bytes.isEmpty {
                let place = next(2) == 0 ? next(min(bytes.count, 1024)) : next(bytes.count)
                bytes[place] = next(3) == 0 ? 0xff : UInt8(next(256))
            }
            _ = names(bytes)
        }
    }
}
