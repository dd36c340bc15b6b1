// Which objects have tables, and when they are made.

import Foundation
import Interception
import Testing

@Suite struct TableCacheTests {
    /// ldconfig(8)'s cache of one library and a program that is none.
    private func loaderCache(_ paths: [String]) -> [UInt8] {
        func little(_ value: Int, _ bytes: Int) -> [UInt8] { (0..<bytes).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let texts = paths.map { Array((($0 as NSString).lastPathComponent).utf8) + [0] + Array($0.utf8) + [0] }
        let start = 48 + 24 * paths.count
        var (entries, strings) = ([UInt8](), [UInt8]())
        for text in texts {
            let name = start + strings.count
            entries += little(0x303, 4) + little(name, 4) + little(name + (text.firstIndex(of: 0) ?? 0) + 1, 4) + little(0, 12)
            strings += text
        }
        return Array("glibc-ld.so.cache1.1".utf8) + little(paths.count, 4) + little(strings.count, 4) + [UInt8](repeating: 0, count: 20) + entries + strings
    }

    private func files(_ cache: SiteTableCache) throws -> Set<String> { Set(try FileManager.default.contentsOfDirectory(atPath: cache.directory)) }

    @Test("Libraries that ldconfig lists have tables if they call by themselves, made once, and again for one that has changed")
    func librariesOfTheMachine() throws {
        let workshop = try Workshop()
        let calling = try workshop.assemble(".globl f\n.type f,@function\nf: mov $2,%eax\nsyscall\nret\n.size f,.-f\n", "calling.so")
        let silent = try workshop.assemble(".globl g\n.type g,@function\ng: mov $2,%eax\nret\n.size g,.-g\n", "silent.so")
        let waiting = try workshop.assemble(".globl h\n.type h,@function\nh: mov $202,%eax\nsyscall\nret\n.size h,.-h\n", "waiting.so")
        let list = try workshop.write(loaderCache([calling.path, silent.path, waiting.path, "/none"]), to: "ld.so.cache")
        let cache = SiteTableCache("\(workshop.directory)/cache")
        cache.prepareLibraries(cachePath: list)
        let made = try files(cache)
        let table = try calling.identity().text
        let others = [try silent.identity().text, try waiting.identity().text]
        #expect(made.contains(table) && made.isDisjoint(with: others))
        // Nothing is looked at again while ldconfig has not run.
        try FileManager.default.removeItem(atPath: cache.path(calling.identity()))
        cache.prepareLibraries(cachePath: list)
        #expect(try !files(cache).contains(table))
        let changed = try workshop.assemble(".globl f\n.type f,@function\nf: mov $3,%eax\nsyscall\nret\n.size f,.-f\n", "calling.so")
        _ = try workshop.write(loaderCache([calling.path, silent.path]), to: "ld.so.cache")
        cache.prepareLibraries(cachePath: list)
        let newer = try changed.identity().text
        #expect(newer != table)
        #expect(try files(cache).contains(newer))
    }

    @Test("What a command starts with is looked at when one of its files has changed, and only then")
    func objectsOfACommand() throws {
        let workshop = try Workshop()
        let cache = try workshop.tables()
        let program = try workshop.compile("own_calls", ["-O2"])
        func identity() throws -> String { try ObjectFile(program: program, bytes: Array(Data(contentsOf: URL(fileURLWithPath: program)))).identity().text }
        func prepare() throws { try cache.prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil }) }
        try prepare()
        let first = try identity()
        #expect(try files(cache).contains(first))
        try FileManager.default.removeItem(atPath: "\(cache.directory)/\(first)")
        try prepare()
        #expect(try !files(cache).contains(first))
        _ = try workshop.compile("own_calls", ["-O1"])
        try prepare()
        let second = try identity()
        #expect(second != first)
        #expect(try files(cache).contains(second))
    }

    @Test("A directory that cannot be written to costs nothing, and a damaged record of what was looked at is made anew")
    func survivesDamage() throws {
        let workshop = try Workshop()
        SiteTableCache("/proc/nowhere").prepareLibraries()
        let cache = try workshop.tables()
        let program = try workshop.compile("own_calls", ["-O2"])
        func prepare() throws { try cache.prepare(program: program, arguments: [], libraryPath: nil, find: { _ in nil }) }
        try prepare()
        for name in try files(cache) where name.hasPrefix("program-") || name == "examined" {
            let path = "\(cache.directory)/\(name)"
            for damage in [[], [0x0a, 0x0a], [0x20], [0xff, 0x20, 0x2f, 0x0a], Array("1:2 /none\n".utf8)] as [[UInt8]] {
                try Data(damage).write(to: URL(fileURLWithPath: path))
                try prepare()
            }
        }
        try prepare()
        #expect(try workshop.run([program], workshop.preloaded()).output.hasPrefix("own 4"))
    }
}
