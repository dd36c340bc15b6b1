// The table on disk and its cache.

import Foundation
import Interception
import Testing

@Suite struct SiteTableTests {
    private func number(of path: String) throws -> Int? { try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int }

    @Test("A table is made once and found again")
    func isCached() throws {
        let workshop = try Workshop()
        let made = try workshop.systemTables().map(number)
        #expect(made.count == 2 && !made.contains(nil))
        #expect(try workshop.systemTables().map(number) == made)
        #expect(try FileManager.default.contentsOfDirectory(atPath: workshop.tables().directory).count == 2)
    }

    @Test("A cached table that is cut off or damaged is made again", arguments: [0, 31, 500, -1])
    func isMadeAgain(_ kept: Int) throws {
        let workshop = try Workshop()
        let path = try workshop.systemTables()[0]
        let good = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        var bad = kept < 0 ? good : Array(good[..<kept])
        if kept < 0 { bad[good.count / 2] ^= 1 }
        try Data(bad).write(to: URL(fileURLWithPath: path))
        _ = try workshop.tables()
        #expect(Array(try Data(contentsOf: URL(fileURLWithPath: path))) == good)
    }

    @Test("A site of the C library that cannot be rewritten is refused by name; of another object it is left out")
    func refusesUncovered() throws {
        let workshop = try Workshop()
        let object = try workshop.assemble(
            ".globl f\n.type f,@function\nf: mov $2,%eax\nje 1f\nnop\n1: syscall\nret\n.size f,.-f\ng: mov $2,%eax\nsyscall\nret\n", "narrow")
        let surveyed = try SurveyedObject(kind: .libc, path: object.path)
        #expect {
            _ = try surveyed.table()
        } throws: { error in
            guard let error = error as? InterceptionError else { return false }
            return error.code == .uncovered && error.description.contains("f+0x8")
        }
        let other = try SurveyedObject(kind: .other, path: object.path)
        #expect(other.uncovered.count == 1 && other.windows.count == 1)
        #expect(try other.table().count == 72 + 40)
    }

    @Test("The report has a line for every site, with its calls by name")
    func reports() throws {
        let objects = try SiteTableCache.surveySystem()
        for object in objects { #expect(object.report.count == object.sites.count) }
        let lines = objects.flatMap(\.report)
        #expect(lines.contains { $0.contains(": openat: rewritten, ") })
        #expect(lines.contains { $0.contains(": 202: left alone") })
    }

    @Test("A directory that cannot be made is an error that names it")
    func namesTheDirectory() {
        #expect {
            try SiteTableCache("/proc/nowhere/cache").prepareSystem()
        } throws: { error in
            String(describing: error).contains("/proc/nowhere")
        }
    }
}
