// The call sites of what a program starts with, for `dashfs doctor --intercept`. Invariant: files are read, and nothing is made or run.
import Interception

enum CallSites {
    struct Object {
        var path: String
        var identity = ""
        var summary: String
        var sites: [String] = []
        var carried = 0
        var leftAlone = 0
        var past = 0
    }

    /// Of this machine's C library and loader where there is no command.
    static func objects(of command: [String]) throws(Failure) -> [Object] {
        do throws(InterceptionError) {
            guard let name = command.first else { return try SiteTableCache.surveySystem().map(object) }
            guard let path = Places.program(name) else { throw InterceptionError(.notFound, name, "there is no such program in PATH") }
            let objects = try ProgramObjects(
                program: path, arguments: Array(command.dropFirst()), libraryPath: ProcessEnvironment()["LD_LIBRARY_PATH"], find: Places.program)
            var found = objects.scripts.map { Object(path: $0.path, summary: "a script of \($0.line)") }
            if let foreign = objects.foreign { return found + [Object(path: objects.program?.path ?? path, summary: "past: \(foreign)", past: 1)] }
            for member in objects.members { found.append(object(member)) }
            return found + objects.missing.map { Object(path: $0.neededBy, summary: "past: \($0.name) is not found, so the program does not start", past: 1) }
        } catch {
            throw Failure(lookingAt: error)
        }
    }

    private static func object(_ member: ProgramObjects.Member) -> Object {
        let coverage = Coverage.of(member)
        let path = member.object.path
        guard let surveyed = coverage.surveyed else {
            return Object(path: path, summary: coverage.past.map { "past: \($0)" } ?? coverage.text, past: coverage.past == nil ? 0 : 1)
        }
        return object(surveyed)
    }

    private static func object(_ surveyed: SurveyedObject) -> Object {
        let sites = surveyed.sites
        let past = surveyed.uncovered.count
        let alone = sites.count { $0.coverage == .leftAlone }
        return Object(
            path: surveyed.path, identity: surveyed.identity.text, summary: "\(sites.count) call sites", sites: surveyed.report, carried: sites.count - past - alone,
            leftAlone: alone, past: past)
    }
}
