// The table on disk and its cache.

import Foundation
import Interception
import Testing

@Suite struct SiteTableTests {
    @Test("The table is made once and found again")
    func isCached() throws {
        let workshop = try Workshop()
        let path = try workshop.siteTable()
        let made = try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int
        #expect(try workshop.siteTable() == path)
        let found = try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int
        #expect(made == found)
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(workshop.directory)/cache").count == 1)
    }

    @Test("A cached table that is cut off or damaged is made again", arguments: [0, 31, 500, -1])
    func isMadeAgain(_ kept: Int) throws {
        let workshop = try Workshop()
        let path = try workshop.siteTable()
        let good = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        #expect(SiteTable.isWhole(good))
        var bad = kept < 0 ? good : Array(good[..<kept])
        if kept < 0 { bad[good.count / 2] ^= 1 }
        #expect(!SiteTable.isWhole(bad))
        try Data(bad).write(to: URL(fileURLWithPath: path))
        _ = try workshop.siteTable()
        #expect(Array(try Data(contentsOf: URL(fileURLWithPath: path))) == good)
    }

    @Test("A site that cannot be rewritten is refused by name")
    func refusesUncovered() throws {
        let workshop = try Workshop()
        let object = try workshop.assemble(
            ".globl f\n.type f,@function\nf: mov $2,%eax\nje 1f\nnop\n1: syscall\nret\n.size f,.-f\n", "narrow")
        let surveyed = try SurveyedObject(kind: .libc, path: object.path)
        #expect {
            _ = try SiteTable.encode([surveyed])
        } throws: { error in
            guard let error = error as? InterceptionError else { return false }
            return error.code == .uncovered && error.description.contains("f+0x8")
        }
    }

    @Test("The report has a line for every site, with its calls by name")
    func reports() throws {
        let objects = try SiteTable.surveyThisMachine()
        for object in objects { #expect(object.report.count == object.sites.count) }
        let lines = objects.flatMap(\.report)
        #expect(lines.contains { $0.contains(": openat: rewritten, ") })
        #expect(lines.contains { $0.contains(": 202: left alone") })
    }

    @Test("A directory that cannot be made is an error that names it")
    func namesTheDirectory() {
        #expect {
            _ = try SiteTable.forThisMachine(cacheDirectory: "/proc/nowhere/cache")
        } throws: { error in
            String(describing: error).contains("/proc/nowhere")
        }
    }
}
