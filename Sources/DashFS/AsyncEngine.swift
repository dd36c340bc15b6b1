import CSystem
import Client
import Synchronization
import Wire

#if canImport(Glibc)
    import Glibc
#endif

/// Requests of tasks: many tasks put theirs in one ring, and one thread collects the answers and resumes them.
///
/// Invariants: ring and tags are touched under `state` only. Each tag owns a 64th of the data area (16 KiB by default), so no two requests share memory.
/// The thread is started by the first request; it sleeps on the channel while answers are due and on `signal` while none is. A tag is marked busy before its
/// request is published, and the thread looks at the busy tags after it has announced sleep: no answer is overlooked.
final class AsyncEngine: Sendable {
    /// What a task asks.
    struct Question: Sendable {
        var request: WireRequest
        var secondLine = false
        var path: [UInt8] = []
        var path2: [UInt8] = []
        var payload: [UInt8] = []
        /// Room for this many bytes of answer.
        var answerBytes = 0
    }

    struct Answer: Sendable {
        var completion: WireCompletion
        /// The answer's data, or what remains of an escaping path.
        var bytes: [UInt8] = []
    }

    @safe private struct Job: Sendable {
        var question: Question
        var continuation: UnsafeContinuation<Answer, Never>
    }

    private struct State: ~Copyable {
        var channel: Channel?
        var thread: pthread_t?
        var ended = false
        /// Bit n: tag n is somebody's.
        var busy: UInt64 = 0
        var jobs = [Job?](repeating: nil, count: 64)
        /// Those who found no free tag, in the order they came.
        var queue: [Job] = []
    }

    private let session: Session
    private let state = Mutex(State())
    private let signal = SignalWord()

    init(session: Session) { self.session = session }

    /// The longest payload or answer of one request.
    static let sliceBytes = Layout.dataAreaBytes / 64

    /// Sends one request and suspends until it is answered.
    func ask(_ question: Question) async -> Answer {
        unsafe await withUnsafeContinuation { continuation in
            let job = unsafe Job(question: question, continuation: continuation)
            let refused = state.withLock { state -> Bool in
                guard start(&state) else { return true }
                if !submit(job, &state) { state.queue.append(job) }
                return false
            }
            if refused {
                unsafe continuation.resume(returning: Answer(completion: WireCompletion(result: -ErrorNumber.io)))
            } else {
                signal.bump()
            }
        }
    }

    /// Sends all of them, as many at once as the ring takes, and suspends until all are answered; the answers in the order of the questions.
    func askAll(_ questions: [Question]) async -> [Answer] {
        if questions.count == 1 { return [await ask(questions[0])] }
        return await withTaskGroup(of: (Int, Answer).self) { group in
            for (number, question) in questions.enumerated() { group.addTask { (number, await self.ask(question)) } }
            var answers = [Answer?](repeating: nil, count: questions.count)
            for await (number, answer) in group { answers[number] = answer }
            return answers.compactMap { $0 }
        }
    }

    /// Requests in the ring that have not been answered.
    var underWay: Int { state.withLock { $0.busy.nonzeroBitCount } }

    /// Gets a channel and a thread at the first request.
    private func start(_ state: inout State) -> Bool {
        if state.ended { return false }
        if state.channel != nil { return true }
        guard let channel = session.acquire() else { return false }
        state.channel = channel
        var thread = pthread_t()
        let own = unsafe Unmanaged.passRetained(self)
        let result = unsafe pthread_create(
            &thread, nil,
            { context in
                guard let context = unsafe context else { return nil }
                unsafe Unmanaged<AsyncEngine>.fromOpaque(context).takeRetainedValue().collect()
                return nil
            }, own.toOpaque())
        guard result == 0 else {
            unsafe own.release()
            session.release(channel)
            state.channel = nil
            return false
        }
        state.thread = thread
        return true
    }

    /// Puts one request in the ring; false: no tag is free.
    private func submit(_ job: Job, _ state: inout State) -> Bool {
        guard let channel = state.channel, let tag = channel.reserve() else { return false }
        var request = job.question.request
        request.tag = tag
        let slice = Int(tag) * AsyncEngine.sliceBytes
        let room = min(max(job.question.payload.count, job.question.answerBytes), AsyncEngine.sliceBytes)
        if room > 0 {
            request.bufferOffset = Channel.dataOffset + UInt32(slice)
            request.bufferLength = UInt32(room)
            unsafe job.question.payload.withUnsafeBytes { bytes in
                if let base = bytes.baseAddress { unsafe dashfs_copy(channel.dataArea + slice, base, min(bytes.count, room)) }
            }
        }
        unsafe job.question.path.withUnsafeBytes { path in
            unsafe job.question.path2.withUnsafeBytes { path2 in
                unsafe channel.put(Place(PathBytes(path), from: request.handle), second: PathBytes(path2), into: &request)
            }
        }
        state.busy |= 1 << UInt64(tag)
        state.jobs[Int(tag)] = job
        channel.submit(request, secondLine: job.question.secondLine)
        channel.announce()
        return true
    }

    /// The collecting thread.
    private func collect() {
        while true {
            let seen = signal.value
            let (channel, busy, ended) = state.withLock { ($0.channel, $0.busy, $0.ended) }
            guard let channel, !ended else { return }
            if busy == 0 {
                signal.wait(while: seen)
                continue
            }
            let alive = channel.waitUntil { state.withLock { AsyncEngine.complete($0.busy, channel) != 0 } }
            for (job, answer) in state.withLock({ take(&$0, channel, alive: alive) }) {
                unsafe job.continuation.resume(returning: answer)
            }
        }
    }

    private static func complete(_ busy: UInt64, _ channel: Channel) -> UInt64 {
        var left = busy, done: UInt64 = 0
        while left != 0 {
            let tag = left.trailingZeroBitCount
            left &= left &- 1
            if channel.isComplete(UInt8(tag)) { done |= 1 << UInt64(tag) }
        }
        return done
    }

    /// Takes what is answered, and lets those who wait for a tag have theirs. Where the server is gone, everybody gets EIO.
    private func take(_ state: inout State, _ channel: Channel, alive: Bool) -> [(Job, Answer)] {
        var answers: [(Job, Answer)] = []
        var done = AsyncEngine.complete(state.busy, channel)
        while done != 0 {
            let tag = done.trailingZeroBitCount
            done &= done &- 1
            let completion = channel.take(UInt8(tag))
            guard let job = state.jobs[tag] else { continue }
            var bytes: [UInt8] = []
            if completion.result == WireCompletion.escape {
                bytes = unsafe Array(channel.remainder(of: completion))
            } else if job.question.answerBytes > 0, completion.result >= 0 {
                // Calls that fill a struct answer 0; those that count bytes answer how many.
                let fixed = job.question.request.opcode == WireOpcode.getattr.rawValue
                let count = fixed ? job.question.answerBytes : min(Int(completion.result), job.question.answerBytes)
                bytes = unsafe Array(UnsafeRawBufferPointer(start: channel.dataArea + tag * AsyncEngine.sliceBytes, count: count))
            }
            answers.append((job, Answer(completion: completion, bytes: bytes)))
            state.jobs[tag] = nil
            state.busy &= ~(1 << UInt64(tag))
        }
        if !alive {
            let gone = Answer(completion: WireCompletion(result: -ErrorNumber.io))
            for job in state.jobs.compactMap({ $0 }) + state.queue { answers.append((job, gone)) }
            state.jobs = [Job?](repeating: nil, count: 64)
            state.queue = []
            state.busy = 0
            state.ended = true
        }
        while let next = state.queue.first, submit(next, &state) { state.queue.removeFirst() }
        return answers
    }

    /// Stops the thread. Nobody may be waiting: tasks that ask hold their file system.
    func end() {
        let thread = state.withLock { state in
            state.ended = true
            return state.thread
        }
        signal.bump()
        if let thread { _ = pthread_join(thread, nil) }
    }
}

/// A counter that a thread can wait for.
@safe final class SignalWord: @unchecked Sendable {
    private let word: UnsafeMutablePointer<UInt32>

    init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: 0)
    }

    deinit { unsafe word.deallocate() }

    var value: UInt32 { unsafe dashfs_load32_acquire(word) }

    func bump() {
        var old = value
        while unsafe !dashfs_swap32_if(word, old, old &+ 1) { old = value }
        unsafe _ = dashfs_sys_futex_wake(word, Int32.max)
    }

    func wait(while old: UInt32) { unsafe _ = dashfs_sys_futex_wait(word, old, -1) }
}
