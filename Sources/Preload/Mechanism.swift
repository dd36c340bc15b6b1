// How the program's system calls are caught: its code is rewritten, or, where that cannot be, the kernel hands every call back (`Dispatch`).
//
// DASHFS_INTERCEPT says which: "rewrite", "dispatch", or "auto", which is the first where that can be, and else the second, with a warning. Calls that are not caught would reach the kernel with
// our paths, silently: so where neither can be, the program ends.

import CPreload

enum Mechanism {
    /// The result: why calls are not caught; nil: they are.
    /// - Parameter quietly: without a warning.
    static func start(_ environment: Environment, quietly: Bool = false, rewriting: () -> Problem?) -> Problem? {
        let choice = environment.value("DASHFS_INTERCEPT")
        let (mayRewrite, mayDispatch) = (choice.map { !$0.equals("dispatch") } ?? true, choice.map { !$0.equals("rewrite") } ?? true)
        if let choice, mayRewrite, mayDispatch, !choice.equals("auto") { return .unknownMechanism(choice) }
        if dashfs_threads_have_run() { return .threadsRunning }
        showInterest()
        var problem: Problem?
        if mayRewrite {
            problem = rewriting()
            guard let problem, mayDispatch, problem.leavesChoice else { return problem }
        }
        let failure = Dispatch.start()
        if failure != 0 { return problem ?? .noDispatch(errno: failure) }
        if !quietly { problem?.warn() }
        return nil
    }

    /// Tells the stub, or `Dispatch`, which calls the hook is for.
    private static func showInterest() {
        for value in 0..<Int64(DASHFS_NUMBER_LIMIT) {
            guard let number = SystemCallNumber(rawValue: value) else { continue }
            dashfs_set_number_class(UInt32(value), number.interest.rawValue)
        }
    }
}
