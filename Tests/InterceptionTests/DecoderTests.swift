// The decoder against objdump, an implementation by others, over the code that it is for.

import Foundation
import Interception
import Testing

@Suite struct DecoderTests {
    static let objects: [String] = {
        // libm has FMA, AVX2 and AVX-512. (libcrypto keeps tables among its code, so a linear reading of it proves nothing.)
        let machine = (try? SiteTableCache.surveySystem().map(\.path)) ?? []
        let others = ["libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"].map { "/usr/lib/x86_64-linux-gnu/\($0)" }
        return machine + others.filter { FileManager.default.fileExists(atPath: $0) }
    }()

    @Test("Every instruction of the C library begins where objdump says", arguments: objects)
    func agreesWithObjdump(_ path: String) throws {
        let workshop = try Workshop()
        let listed = try workshop.disassemble(path)
        let theirs = Set(listed.filter { !$0.text.hasPrefix("(bad)") && !$0.text.hasPrefix(".byte") }.map(\.address))
        let object = try readObject(path)
        var ours: Set<UInt64> = []
        var undecodable = 0
        let span = unsafe object.bytes.span.bytes
        for section in object.sections where section.isCode {
            var offset = section.offset
            while offset < section.offset + section.size {
                let address = section.address + UInt64(offset - section.offset)
                ours.insert(address)
                guard let instruction = Decoder.decode(span, at: offset) else {
                    undecodable += 1
                    offset += 1
                    continue
                }
                offset += Int(instruction.length)
            }
        }
        #expect(theirs.count > 1000)
        let missed = theirs.subtracting(ours).sorted().prefix(10).map { String($0, radix: 16) }
        #expect(missed.isEmpty)
        // objdump takes fwait for a prefix of the next instruction.
        let afterWait = ours.subtracting(theirs).filter { address in
            guard let section = object.sections.first(where: { $0.isCode && $0.contains(address - 1) }) else { return true }
            return object.bytes[section.offset + Int(address - 1 - section.address)] != 0x9b
        }
        let extra = afterWait.sorted().prefix(10).map { String($0, radix: 16) }
        #expect(extra.isEmpty)
        #expect(undecodable == 0)
    }

    @Test("Random bytes never make it read past the end or return a length outside 1 ... 15", arguments: [UInt64(1), 2, 3])
    func survivesNoise(_ seed: UInt64) {
        print("seed \(seed)")
        var state = seed &* 0x9E37_79B9_7F4A_7C15
        var bytes: [UInt8] = []
        for _ in 0..<200_000 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            bytes.append(UInt8(truncatingIfNeeded: state >> 24))
        }
        let span = unsafe bytes.span.bytes
        var decoded = 0
        for offset in bytes.indices {
            guard let instruction = Decoder.decode(span, at: offset) else { continue }
            decoded += 1
            if !(1...15 ~= instruction.length) || offset + Int(instruction.length) > bytes.count {
                Issue.record("length \(instruction.length) at \(offset)")
            }
        }
        #expect(decoded > 100_000)
    }

    @Test("An instruction that is cut off is not an instruction")
    func refusesTruncation() {
        let move: [UInt8] = [0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8]  // movabs
        for count in 0..<move.count {
            let cut = Array(move[..<count])
            let instruction = unsafe Decoder.decode(cut.span.bytes, at: 0)
            #expect(instruction == nil)
        }
        let whole = unsafe Decoder.decode(move.span.bytes, at: 0)
        #expect(whole?.length == 10)
    }
}
