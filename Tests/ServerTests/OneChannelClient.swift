import Client
import Testing
import Wire

/// A client with one session and one channel of it. What a suite asks of it beyond this it adds for itself.
struct OneChannelClient {
    let session: Session
    let channel: Channel

    init(_ served: ServedVolume) throws {
        session = try served.connect()
        channel = try #require(session.acquire())
    }

    func at<R>(_ name: String, _ body: (Place) -> R) -> R { unsafe Array(name.utf8).withUnsafeBytes { unsafe body(Place(PathBytes($0))) } }
    func unlink(_ name: String) -> Int64 { at(name) { channel.unlink($0).result } }

    func leave() {
        session.release(channel)
        session.disconnect()
    }
}
