// What the built library is made of.

import Foundation
import Testing

@Suite struct PreloadLibraryTests {
    /// An instance in a namespace of its own must not make ld.so look for anything there.
    @Test("It needs no other library, and exports what ld.so asks auditors")
    func isSelfContained() throws {
        let workshop = try Workshop()
        let dynamic = try workshop.output(["readelf", "-dW", Workshop.library])
        #expect(!dynamic.contains("(NEEDED)"))
        #expect(dynamic.contains("INITFIRST"))
        #expect(!dynamic.contains("TEXTREL"))
        let exported = try workshop.output(["nm", "-D", "--defined-only", "--extern-only", Workshop.library])
        #expect(exported.split(separator: "\n").compactMap { $0.split(separator: " ").last } == ["la_activity", "la_objopen", "la_version"])
    }

    @Test("Of libc and ld.so it uses a closed list of symbols, all weak, none of them on the way of a call")
    func usesLittleOfLibc() throws {
        let workshop = try Workshop()
        let listing = try workshop.output(["nm", "-D", "--undefined-only", Workshop.library])
        let names = listing.split(separator: "\n").compactMap { line in
            line.split(separator: " ").last?.split(separator: "@").first.map(String.init)
        }
        // The first four: the constructor.
        let known: Set<String> = [
            "gnu_get_libc_version", "dl_iterate_phdr", "__libc_single_threaded", "_r_debug", "__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable",
            "_ITM_registerTMCloneTable",
        ]
        #expect(Set(names).subtracting(known).isEmpty)
        #expect(listing.split(separator: "\n").allSatisfy { $0.contains(" w ") }, "\(listing)")
    }

    @Test("No function of ours allocates, counts references or initialises globals lazily")
    func allocatesNothing() throws {
        let workshop = try Workshop()
        let listing = try workshop.output(["objdump", "-d", "--no-show-raw-insn", Workshop.library])
        let forbidden = [
            "<posix_memalign", "<free>", "<free@", "<arc4random_buf", "swift_once", "swift_slowAlloc", "swift_allocObject", "swift_retain", "swift_release",
        ]
        var function: Substring = ""
        for line in listing.split(separator: "\n") {
            if line.hasSuffix(">:") { function = line[(line.firstIndex(of: "<") ?? line.startIndex)...] }
            // Embedded Swift's runtime may call itself.
            guard line.contains("\tcall") || line.contains("\tjmp"), !function.hasPrefix("<swift_"), !function.hasPrefix("<_swift_"),
                !function.contains("@plt"), !function.hasPrefix("<$es")
            else { continue }
            for name in forbidden where line.contains(name) { Issue.record("\(function) \(line)") }
        }
    }

    @Test("It has no AVX instruction: legacy SSE leaves the upper parts of vector registers alone")
    func usesLegacyVectorsOnly() throws {
        let workshop = try Workshop()
        for line in try workshop.disassemble(Workshop.library) where line.text.hasPrefix("v") {
            #expect(["verr", "verw"].contains { line.text.hasPrefix($0) }, "\(line.text)")
        }
    }

    @Test("Every function has unwind information")
    func canBeUnwound() throws {
        let workshop = try Workshop()
        let frames = try workshop.output(["readelf", "--debug-dump=frames", Workshop.library])
        var ranges: [ClosedRange<UInt64>] = []
        for line in frames.split(separator: "\n") {
            guard let at = line.range(of: "pc=") else { continue }
            let bounds = line[at.upperBound...].split(separator: ".", omittingEmptySubsequences: true)
            guard bounds.count == 2, let low = UInt64(bounds[0], radix: 16), let high = UInt64(bounds[1], radix: 16) else { continue }
            ranges.append(low...high)
        }
        let symbols = try workshop.output(["nm", "--defined-only", Workshop.library])
        var functions = 0
        for line in symbols.split(separator: "\n") {
            let parts = line.split(separator: " ")
            guard parts.count == 3, parts[1] == "t", let address = UInt64(parts[0], radix: 16) else { continue }
            // What the C compiler's start files bring; and the end of signal handlers, which unwinders know by its bytes.
            if ["dashfs_dispatch_restorer", "_init", "_fini", "deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux", "frame_dummy"].contains(parts[2]) {
                continue
            }
            functions += 1
            #expect(ranges.contains { $0.contains(address) && $0.upperBound > address }, "\(parts[2])")
        }
        #expect(functions > 20)
    }
}
