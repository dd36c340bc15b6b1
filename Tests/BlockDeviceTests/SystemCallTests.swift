/// With a submission thread and registered memory, the number of system calls does not grow with the number of requests.
import BlockDevice
import Glibc
import Testing

@Suite struct SystemCallTests {
    @Test(.enabled(if: unsafe access("/usr/bin/strace", X_OK) == 0))
    func requestsCostNoSystemCalls() throws {
        let folder = try TemporaryFolder()
        let bench = try benchmarkExecutable()

        func calls(_ requests: Int) throws -> Int {
            let trace = folder.path + "/trace"
            let child = try ChildProcess([
                "/usr/bin/strace", "-f", "-c", "-U", "name,calls", "-o", trace, bench, "requests",
                folder.path + "/image", "\(requests)",
            ])
            #expect(child.readLine() == "\(requests) requests, 0 failed")
            child.wait()
            let file = unsafe fopen(trace, "r")
            defer { if let file = unsafe file { unsafe fclose(file) } }
            var line = [CChar](repeating: 0, count: 512)
            var total: Int?
            while let file = unsafe file, unsafe fgets(&line, 512, file) != nil {
                let words = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                    .split(whereSeparator: \.isWhitespace)
                if words.first == "total", words.count > 1 { total = Int(words[1]) }
            }
            return try #require(total, "strace said nothing")
        }
        let few = try calls(500)
        let many = try calls(20_000)
        print("system calls of 500 requests: \(few), of 20,000: \(many)")
        #expect(many < few + 200)
    }
}
