import Client
import CSystem
import Foundation
import Server
import Testing
import Wire

@Suite struct RoundTripTests {
    @Test func aRequestIsAnsweredWithItsOwnTag() throws {
        let served = try ServedVolume()
        let session = try served.connect()
        let channel = try #require(session.acquire())
        for _ in 0..<1000 { #expect(channel.null() == 0) }
        #expect(channel.tagsUnderWay == 0)
        session.release(channel)
        session.disconnect()
        served.stop()
        #expect(served.server.snapshot.violations == 0)
    }

    @Test func clientAndServerCanBeSteppedInOneThread() throws {
        let served = try ServedVolume(running: false)
        let session = try served.connectStepping()
        let channel = try #require(session.acquire())
        let tag = try #require(channel.reserve())
        var request = WireRequest(.null)
        request.tag = tag
        channel.submit(request)
        #expect(!channel.isComplete(tag))
        #expect(served.server.step())
        #expect(channel.isComplete(tag))
        #expect(channel.take(tag).result == 0)
        session.release(channel)
        session.disconnect()
    }

    @Test func sixtyFourRequestsAreUnderWayAtOnceAndNoMore() throws {
        let served = try ServedVolume(running: false)
        let session = try served.connectStepping()
        let channel = try #require(session.acquire())
        for _ in 0..<10 {
            var tags: [UInt8] = []
            while let tag = channel.reserve() {
                var request = WireRequest(.null)
                request.tag = tag
                channel.submit(request)
                tags.append(tag)
            }
            #expect(tags.count == 64)
            #expect(channel.null() == -ErrorNumber.again)
            while served.server.step() {}
            for tag in tags.reversed() {
                #expect(channel.isComplete(tag))
                #expect(channel.take(tag).result == 0)
            }
        }
        session.release(channel)
        session.disconnect()
    }
}
