import Client
import Wire

/// The same operations for tasks: they suspend instead of blocking a thread, and up to 64 are under way at once.
extension FileSystem {
    /// open(2).
    public func open(
        _ path: some PathRepresentable & Sendable, _ options: OpenOptions = .readOnly, permissions: UInt32 = 0o666
    ) async throws(FileError) -> File {
        var request = WireRequest(.open)
        request.flags = options.rawValue
        request.mode = permissions
        let answer = try await ask("open", request, path)
        return File(handle: Int32(truncatingIfNeeded: answer.completion.result), volume: self, options)
    }

    /// stat(2), or lstat(2) where symbolic links are not followed.
    public func status(
        of path: some PathRepresentable & Sendable, followingSymbolicLinks: Bool = true
    ) async throws(FileError) -> FileStatus {
        var request = WireRequest(.getattr)
        request.flags = followingSymbolicLinks ? 0 : 0x100
        let answer = try await ask("stat", request, path, answerBytes: FileStatus.bytes)
        guard answer.bytes.count == FileStatus.bytes else { throw FileError(.ioError, "stat", path.pathText) }
        return unsafe FileStatus(answer.bytes.span.bytes)
    }

    /// unlink(2).
    public func remove(_ path: some PathRepresentable & Sendable) async throws(FileError) {
        _ = try await ask("unlink", WireRequest(.unlink), path)
    }

    /// mkdir(2).
    public func createDirectory(_ path: some PathRepresentable & Sendable, permissions: UInt32 = 0o777) async throws(FileError) {
        var request = WireRequest(.mkdir)
        request.mode = permissions
        _ = try await ask("mkdir", request, path)
    }

    /// rename(2).
    public func rename(
        _ old: some PathRepresentable & Sendable, to new: some PathRepresentable & Sendable, _ options: RenameOptions = []
    ) async throws(FileError) {
        var request = WireRequest(.rename)
        request.flags = options.rawValue
        _ = try await ask("rename", request, old, second: try checked(new.pathBytes, "rename"))
    }

    /// sync(2) for this volume.
    public func synchronize() async throws(FileError) {
        let answer = await engine.ask(AsyncEngine.Question(request: WireRequest(.sync)))
        if answer.completion.result < 0 { throw FileError(result: answer.completion.result, "sync") }
    }

    private func ask(
        _ operation: StaticString, _ request: WireRequest, _ path: some PathRepresentable, second: [UInt8] = [], answerBytes: Int = 0
    ) async throws(FileError) -> AsyncEngine.Answer {
        var question = AsyncEngine.Question(request: request, path: try checked(path.pathBytes, operation), path2: second)
        question.answerBytes = answerBytes
        for _ in 0..<FileSystem.linkLimit {
            guard question.path.count <= Layout.pathLimit, question.path2.count <= Layout.pathLimit else {
                throw FileError(.nameTooLong, operation, path.pathText)
            }
            let answer = await engine.ask(question)
            if answer.completion.result == WireCompletion.escape {
                if answer.completion.info1 == 1 {
                    question.path2 = try inside(answer.bytes, operation, path)
                } else {
                    question.path = try inside(answer.bytes, operation, path)
                }
                continue
            }
            if answer.completion.result < 0 { throw FileError(result: answer.completion.result, operation, path.pathText) }
            return answer
        }
        throw FileError(.tooManySymbolicLinks, operation, path.pathText)
    }
}

extension File {
    /// At most `count` bytes from `offset`; fewer at the end of the file. All of its pieces are in the ring together.
    public func read(upTo count: Int, at offset: Int64) async throws(FileError) -> [UInt8] {
        guard count >= 0, offset >= 0 else { throw FileError(.invalidArgument, "pread") }
        var bytes: [UInt8] = []
        for answer in await volume.engine.askAll(pieces(.read, count, at: offset)) {
            if answer.completion.result < 0 { throw FileError(result: answer.completion.result, "pread") }
            bytes += answer.bytes
            if answer.bytes.count < AsyncEngine.sliceBytes { break }
        }
        return bytes
    }

    /// All of `bytes` at `offset`, or an error; then some of them may have been written. All pieces are in the ring together, one after the other where the file appends.
    public func write(_ bytes: [UInt8], at offset: Int64) async throws(FileError) {
        guard offset >= 0 else { throw FileError(.invalidArgument, "pwrite") }
        var questions = pieces(.write, bytes.count, at: offset)
        for (number, start) in stride(from: 0, to: bytes.count, by: AsyncEngine.sliceBytes).enumerated() {
            questions[number].payload = Array(bytes[start..<min(start + AsyncEngine.sliceBytes, bytes.count)])
        }
        if isAppending {
            for question in questions { try File.check(question, await volume.engine.ask(question)) }
        } else {
            for (question, answer) in zip(questions, await volume.engine.askAll(questions)) { try File.check(question, answer) }
        }
    }

    private static func check(_ question: AsyncEngine.Question, _ answer: AsyncEngine.Answer) throws(FileError) {
        if answer.completion.result < 0 { throw FileError(result: answer.completion.result, "pwrite") }
        // A short write is where space ended.
        if answer.completion.result < question.payload.count { throw FileError(.noSpace, "pwrite") }
    }

    private func pieces(_ opcode: WireOpcode, _ count: Int, at offset: Int64) -> [AsyncEngine.Question] {
        stride(from: 0, to: count, by: AsyncEngine.sliceBytes).map { start in
            var question = AsyncEngine.Question(request: WireRequest(opcode))
            question.request.handle = handle
            question.request.offset = offset &+ Int64(start)
            if opcode == .read { question.answerBytes = min(count - start, AsyncEngine.sliceBytes) }
            return question
        }
    }

    /// fsync(2), or fdatasync(2).
    public func synchronize(dataOnly: Bool = false) async throws(FileError) {
        var question = AsyncEngine.Question(request: WireRequest(.fsync))
        question.request.handle = handle
        question.request.flags = dataOnly ? 1 : 0
        let answer = await volume.engine.ask(question)
        if answer.completion.result < 0 { throw FileError(result: answer.completion.result, "fsync") }
    }
}
