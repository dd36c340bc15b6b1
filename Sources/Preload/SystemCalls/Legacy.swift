// What a fork or an exec has left this process: open files that a session may take over, once.
//
// A descriptor keeps them open on the server until then: the connection of a bundle, made for a child before it existed, or after exec the
// connection of the session that the process had as another program. The key is what entitles to them.

import CPreload
import CSystem

enum Legacy {
    /// A bundle may be inherited from by a process and all its children; a session by its own process.
    enum Kind: UInt64 {
        case bundle = 0
        case session = 1
    }
    nonisolated(unsafe) private static var key0: UInt64 = 0
    nonisolated(unsafe) private static var key1: UInt64 = 0
    nonisolated(unsafe) private static var connection: Int32 = -1
    nonisolated(unsafe) private static var isSession = false

    /// (0, 0): there is none.
    static var key: (UInt64, UInt64) { unsafe (key0, key1) }
    static var isThere: Bool { unsafe connection >= 0 }
    static var socket: Int32 { unsafe connection }
    static var kind: Kind { unsafe isSession ? .session : .bundle }

    static func set(_ key: (UInt64, UInt64), socket: Int32, _ kind: Kind) {
        unsafe (key0, key1) = key
        unsafe connection = socket
        unsafe isSession = kind == .session
        Descriptors.reserve(socket)
    }

    /// A session has it now.
    static func spend() {
        guard isThere else { return }
        Descriptors.closeOwn(socket)
        unsafe (key0, key1) = (0, 0)
        unsafe connection = -1
    }
}
