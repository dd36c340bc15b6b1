// How the system calls of one object that a program starts with are carried: the one judgement that `dashfs explain` and `dashfs doctor --intercept` show, and that tables are made by.

package struct Coverage {
    /// Nil where its calls are carried; else what goes past, and why.
    package let past: String?
    package let text: String
    /// Every call site; nil where its code cannot be read from end to end.
    package let surveyed: SurveyedObject?

    package static func of(_ member: ProgramObjects.Member) -> Coverage {
        switch member.role {
        case .libc: of(system: member.object, .libc, "the C library")
        case .loader: of(system: member.object, .loader, "the loader")
        case .program, .library: of(member.object)
        }
    }

    private init(past: String?, _ text: String, _ surveyed: SurveyedObject? = nil) {
        self.past = past
        self.text = text
        self.surveyed = surveyed
    }

    /// The C library or its loader, of which everything has to be carried.
    private static func of(system object: ObjectFile, _ kind: SiteTableFormat.Kind, _ name: String) -> Coverage {
        if kind == .libc, !object.definedVersions().contains("GLIBC_2.34") {
            return Coverage(past: "glibc before 2.34 is not supported", name)
        }
        do throws(InterceptionError) {
            let surveyed = try SurveyedObject(kind: kind, object)
            if let site = surveyed.uncovered.first { return Coverage(past: "the call at \(site.place) cannot be carried: \(site.coverage.text)", name, surveyed) }
            return Coverage(past: nil, "\(name), \(surveyed.windows.count + surveyed.redirectedCalls.count) calls carried", surveyed)
        } catch {
            return Coverage(past: error.reason, name)
        }
    }

    /// Any other object: most have no system calls of their own.
    package static func of(_ object: ObjectFile) -> Coverage {
        let none = "no system calls of its own"
        guard object.mayHaveSystemCalls else { return Coverage(past: nil, none) }
        let survey = FunctionSurvey(object)
        if survey.sites.isEmpty, survey.isComplete { return Coverage(past: nil, none) }
        let reason: String
        do throws(InterceptionError) {
            let surveyed = try SurveyedObject(kind: .other, object)
            let uncovered = surveyed.uncovered
            if uncovered.isEmpty {
                let count = surveyed.windows.count
                let text = count > 0 ? "\(count) system calls of its own, carried" : surveyed.sites.isEmpty ? none : "no system calls of its own that are about files"
                return Coverage(past: nil, text, surveyed)
            }
            let calls = Set(uncovered.map { "\($0.callsText) at \($0.place)" }).sorted().joined(separator: "; ")
            return Coverage(past: "\(uncovered.count) of its own system calls cannot be rewritten: \(calls)", "", surveyed)
        } catch {
            reason = error.reason
        }
        let past = survey.sites.map(\.number).filter { $0.map { SystemCallNumber(rawValue: $0) != nil } ?? true }
        if past.isEmpty { return Coverage(past: nil, survey.sites.isEmpty ? none : "no system calls of its own that are about files") }
        var names = Set(past.compactMap { $0.flatMap { SystemCallNumber(rawValue: $0) } }.map { "\($0)" }).sorted()
        if past.contains(nil) { names.append("any") }
        return Coverage(past: "system calls of its own: \(names.joined(separator: ", ")) (\(reason))", "")
    }
}
