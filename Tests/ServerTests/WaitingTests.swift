import CSystem
import Client
import Foundation
import Server
import Testing
import Wire

/// Sleeping and waking on both sides.
@Suite(.serialized) struct WaitingTests {
    @Test(arguments: WaitMode.allCases)
    func noWakeUpIsLost(mode: WaitMode) throws {
        let seed: UInt64 = 4242
        print("seed \(seed), wait \(mode.rawValue)")
        let served = try ServedVolume { $0.wait = mode }
        let session = try served.connect()
        let done = DispatchSemaphore(value: 0)
        for worker in 0..<3 {
            Thread.detachNewThread {
                var random = SplitMix(state: seed &+ UInt64(worker))
                for _ in 0..<4000 {
                    // Pauses around the length of both sides' spins, so that their decisions to sleep meet in every way.
                    let longest = random.next() % 16 == 0 ? SpinBudget.longest * 3 / 2 : SpinBudget.crowded
                    let until = dashfs_cycles() &+ random.next() % longest
                    while dashfs_cycles() < until { dashfs_pause() }
                    guard let channel = session.acquire() else { Issue.record("no channel"); break }
                    if random.next() % 4 == 0 {
                        if !callTogether(channel, Int(random.next() % 64) + 1) { Issue.record("a batch failed") }
                    } else if channel.null() != 0 {
                        Issue.record("a null request failed")
                    }
                    session.release(channel)
                }
                done.signal()
            }
        }
        for _ in 0..<3 { done.wait() }
        session.disconnect()
        served.stop()
        print("worker slept \(served.server.snapshot.sleeps) times")
        if mode == .never { #expect(served.server.snapshot.sleeps == 0) }
    }

    // MARK: How long to look

    /// What a wait of so many cycles does to the budget, and whether it ended asleep.
    private func wait(_ cycles: UInt64, _ budget: inout SpinBudget) -> Bool {
        let slept = cycles >= budget.cycles
        budget.ended(after: cycles)
        return slept
    }

    @Test(arguments: [3_000, 150_000, 450_000, 900_000, 2_900_000] as [UInt64])
    func whoeverIsAwaitedForLessThanAMillisecondIsSoonAwaitedAwake(cycles: UInt64) {
        var budget = SpinBudget(processors: 2)
        // What came before is forgotten as soon.
        for _ in 0..<10 { _ = wait(SpinBudget.longest * 100, &budget) }
        let sleeps = (0..<100).filter { _ in wait(cycles, &budget) }.count
        #expect(sleeps <= 4)
    }

    @Test func longWaitsAreSleptThrough() {
        var budget = SpinBudget(processors: 2)
        for _ in 0..<100 { _ = wait(SpinBudget.longest / 2, &budget) }
        #expect(budget.cycles == SpinBudget.longest)
        // 20 ms at 3 GHz: half a percent of it is spent looking, once the budget has come down.
        var looked: UInt64 = 0
        for turn in 0..<100 {
            if turn >= 5 { looked += budget.cycles }
            #expect(wait(60_000_000, &budget))
        }
        #expect(looked * 200 <= 95 * 60_000_000)
    }

    @Test func whoSharesItsProcessorHardlyLooks() {
        var budget = SpinBudget(processors: 2)
        for _ in 0..<5 { budget.crowd() }
        #expect(budget.cycles == SpinBudget.crowded)
        _ = wait(SpinBudget.longest * 2, &budget)
        #expect(budget.cycles == SpinBudget.crowded, "what takes long says nothing about the others")
        // The others have gone.
        let sleeps = (0..<100).filter { _ in wait(SpinBudget.usual, &budget) }.count
        #expect(sleeps <= 6)
    }

    @Test func onOneProcessorNobodyLooks() {
        var budget = SpinBudget(processors: 1)
        for cycles in [0, 1000, SpinBudget.usual, SpinBudget.longest] {
            _ = wait(cycles, &budget)
            budget.crowd()
            #expect(budget.cycles == 0)
        }
    }

    @Test func moreChannelsThanArePolledAreAllServed() throws {
        let served = try ServedVolume()
        let session = try served.connect()
        // 100 channels held at once: 36 of them at least are dormant at any time.
        var held: [Channel] = []
        for _ in 0..<100 { held.append(try #require(session.acquire())) }
        #expect(session.channelCount == 100)
        var random = SplitMix(state: 5)
        for _ in 0..<3000 { #expect(held[Int(random.next() % 100)].null() == 0) }
        // All at once: more rings have a request than places to be looked at.
        for _ in 0..<300 {
            var tags: [UInt8] = []
            for channel in held {
                let tag = try #require(channel.reserve())
                var request = WireRequest(.null)
                request.tag = tag
                channel.submit(request)
                channel.announce()
                tags.append(tag)
            }
            for (channel, tag) in zip(held, tags) { #expect(channel.wait(tag).result == 0) }
        }
        for channel in held { session.release(channel) }
        session.disconnect()
    }

    /// How long it looks before it sleeps is bounded by its `SpinBudget` (above), so how often it wakes is all that an idle server costs.
    @Test(arguments: [WaitMode.adaptive, .always])
    func anIdleServerSleeps(mode: WaitMode) throws {
        let served = try ServedVolume { $0.wait = mode }
        let session = try served.connect()
        let channel = try #require(session.acquire())
        for _ in 0..<1000 { #expect(channel.null() == 0) }
        #expect(fallsAsleep(served))
        let before = served.server.slumber
        Thread.sleep(forTimeInterval: 1)
        #expect(fallsAsleep(served))
        // Nobody has asked anything: the same sleep, or a few more, where the volume had work of its own.
        let woken = (served.server.slumber - before) / 2
        #expect(woken < 5, "woken \(woken) times in a second")
        #expect(channel.null() == 0)
        session.release(channel)
        session.disconnect()
        served.stop()
    }

    /// Whether the worker sleeps, or comes to it; on a loaded machine that takes its time.
    private func fallsAsleep(_ served: ServedVolume) -> Bool {
        for _ in 0..<3000 where served.server.slumber % 2 == 0 { Thread.sleep(forTimeInterval: 0.01) }
        return served.server.slumber % 2 == 1
    }

    /// So many requests at once, awaited together.
    private func callTogether(_ channel: Channel, _ count: Int) -> Bool {
        var tags: [UInt8] = []
        for _ in 0..<count {
            guard let tag = channel.reserve() else { return false }
            var request = WireRequest(.null)
            request.tag = tag
            channel.submit(request)
            tags.append(tag)
        }
        channel.announce()
        let waiting = tags
        guard channel.waitUntil({ waiting.allSatisfy { channel.isComplete($0) } }) else { return false }
        return tags.allSatisfy { channel.take($0).result == 0 }
    }
}
