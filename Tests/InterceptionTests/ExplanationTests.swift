// What `dashfs explain` stands on: what ELF files ask of their loader, and calls in code that no decoder reads to its end. The command itself is tested in ProgramTests.

import Foundation
import Interception
import Testing

@Suite struct ExplanationTests {
    private func content(_ path: String) throws -> [UInt8] { try Array(Data(contentsOf: URL(fileURLWithPath: path))) }

    /// Damaged as a table of sections, a dynamic section, unwind information and code may be.
    @Test("A damaged program, or a damaged cache of the loader's, gives an answer or an error and never a trap")
    func survivesDamage() throws {
        let program = try content("/bin/true")
        let cache = try content("/etc/ld.so.cache")
        #expect(!LibrarySearch.entries(cache).isEmpty)
        let seed: UInt64 = 11
        print("seed \(seed)")
        var state = seed
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        for round in 0..<1500 {
            var (bytes, entries) = (program, Array(cache.prefix(4096)))
            for _ in 0..<4 {
                // Headers and section table more often than the rest.
                let place = round % 3 == 0 ? random(64) : round % 3 == 1 ? bytes.count - 1 - random(2000) : random(bytes.count)
                bytes[place] = UInt8(truncatingIfNeeded: random(256))
                entries[random(round % 2 == 0 ? 64 : entries.count)] = UInt8(truncatingIfNeeded: random(256))
            }
            if round % 5 == 0 { bytes.removeLast(random(bytes.count)) }
            _ = LibrarySearch.entries(entries)
            guard let object = try? ObjectFile(program: "changed", bytes: bytes) else { continue }
            _ = (object.interpreter, object.neededNames, object.searchPaths, object.mayHaveSystemCalls, FunctionSurvey(object).sites.count)
        }
    }

    @Test("A survey by functions finds what a decoding from end to end finds")
    func agreesWithTheFinder() throws {
        for object in try SiteTableCache.surveySystem() {
            let surveyed = FunctionSurvey(try ObjectFile(program: object.path, bytes: content(object.path)))
            let byAddress = Dictionary(surveyed.sites.map { ($0.address, $0.number) }, uniquingKeysWith: { first, _ in first })
            let found = object.sites.filter { byAddress.keys.contains($0.address) }
            // A few stand in functions without unwind information.
            #expect(found.count * 100 >= object.sites.count * 95, "\(found.count) of \(object.sites.count)")
            for site in found {
                guard let number = byAddress[site.address] ?? nil else { continue }
                #expect(site.calls.numbers.contains(number), "\(site)")
            }
            let addresses = Set(object.sites.map(\.address))
            #expect(surveyed.sites.allSatisfy { addresses.contains($0.address) })
        }
    }
}
