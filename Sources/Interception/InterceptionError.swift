// Why a table of call sites cannot be made.

package struct InterceptionError: Error, CustomStringConvertible, Equatable {
    package enum Code: Equatable, Sendable {
        /// Not a 64-bit little-endian x86-64 shared object, or a damaged one.
        case notAnObject
        /// The code does not decode, or jumps go where no instruction begins.
        case undecodable
        /// A call site that has to be rewritten has no room for a jump.
        case uncovered
        /// A C library in which rewriting is known not to be enough.
        case unsupported
        /// The C library or its loader cannot be found.
        case notFound
        /// A file cannot be read or written.
        case file
    }

    package let code: Code
    package let file: String
    package let reason: String

    package init(_ code: Code, _ file: String, _ reason: String) {
        self.code = code
        self.file = file
        self.reason = reason
    }

    package var description: String { "\(file): \(reason)" }
}
