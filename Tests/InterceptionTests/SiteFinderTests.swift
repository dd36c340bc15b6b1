// The site finder against objdump's listing of this machine's C library, and on small objects made for each rule.

import Interception
import Testing

@Suite struct SiteFinderTests {
    @Test("Every syscall instruction that objdump sees is a site, and every file-related one is rewritten")
    func findsAll() throws {
        let workshop = try Workshop()
        for object in try SiteTableCache.surveySystem() {
            let listed = try workshop.disassemble(object.path)
            let syscalls = listed.indices.filter { listed[$0].text.hasPrefix("syscall") }
            #expect(object.sites.map(\.address) == syscalls.map { listed[$0].address })

            // An independent, simpler reading: the last `mov $n,%eax` before it, if nothing in between is a jump or call.
            let byAddress = Dictionary(uniqueKeysWithValues: object.sites.map { ($0.address, $0) })
            var recognised = 0
            for index in syscalls {
                guard let number = Self.plainNumber(listed, before: index), let site = byAddress[listed[index].address] else { continue }
                recognised += 1
                #expect(site.calls.numbers.contains(number), "\(site)")
                if SystemCallNumber(rawValue: number) != nil {
                    guard case .rewritten = site.coverage else {
                        Issue.record("\(site) is not rewritten")
                        continue
                    }
                }
            }
            #expect(recognised > syscalls.count / 2)
            for site in object.sites {
                if case .impossible(let reason) = site.coverage { Issue.record("\(site.place): \(reason)") }
            }
        }
    }

    private static func plainNumber(_ listed: [Listed], before index: Int) -> Int64? {
        for candidate in listed[max(0, index - 12)..<index].reversed() {
            let text = candidate.text
            if text.hasPrefix("j") || text.hasPrefix("call") || text.hasPrefix("ret") { return nil }
            if text.hasPrefix("xor    %eax,%eax") { return 0 }
            guard text.contains(",%eax") || text.contains(",%rax"), !text.hasPrefix("cmp"), !text.hasPrefix("test") else { continue }
            guard text.hasPrefix("mov    $0x") else { return nil }
            return Int64(text.dropFirst("mov    $0x".count).prefix { $0.isHexDigit }, radix: 16)
        }
        return nil
    }

    @Test("What need not be touched is left alone: futexes, signals, exit")
    func leavesOthersAlone() throws {
        // futex, rt_sigreturn, rt_sigprocmask, fork, exit, exit_group
        let others: Set<Int64> = [202, 15, 14, 57, 60, 231]
        var found: Set<Int64> = []
        for object in try SiteTableCache.surveySystem() {
            for site in object.sites where !site.calls.numbers.isDisjoint(with: others) && !site.calls.mayBeOthers {
                #expect(site.coverage == .leftAlone)
                found.formUnion(site.calls.numbers)
            }
        }
        #expect(found.isSuperset(of: [202, 15, 14, 60, 231]))
    }

    @Test("A window holds one syscall, is long enough for a jump, and nothing jumps into it")
    func windowsAreSound() throws {
        for path in try SiteTableCache.surveySystem().map(\.path) {
            let finder = try SiteFinder(readObject(path))
            var last: UInt64 = 0
            for site in finder.sites() {
                guard case .rewritten(let window) = site.coverage else { continue }
                #expect(window.address >= last)
                last = window.address + UInt64(window.bytes.count)
                #expect(window.bytes.count >= 5)
                #expect(Array(window.bytes[window.before..<window.before + 2]) == [0x0f, 0x05])
                #expect(window.address + UInt64(window.before) == site.address)
                for offset in 1..<window.bytes.count {
                    #expect(!finder.map.isTarget(window.address + UInt64(offset)))
                }
            }
        }
    }

    // MARK: One rule each, on code made for it

    private func sites(_ code: String, data: String = "") throws -> [CallSite] {
        let workshop = try Workshop()
        let source = ".text\n.globl f\n.type f,@function\nf:\n\(code)\n.size f,.-f\n.section .rodata\n\(data)\n"
        return try SiteFinder(workshop.assemble(source, "made")).sites()
    }

    private func window(_ site: CallSite?) -> CallSite.Window? {
        guard case .rewritten(let window) = site?.coverage else { return nil }
        return window
    }

    @Test("The number in front is displaced with the call")
    func displacesBefore() throws {
        let made = try sites("mov $2,%eax\nsyscall\ncmp $-4095,%rax\njae f\nret")
        #expect(made.count == 1)
        #expect(made.first?.calls == CodeMap.CallNumbers(numbers: [2]))
        #expect(window(made.first)?.before == 5)
        #expect(window(made.first)?.bytes.count == 7)
    }

    @Test("Where something jumps to the syscall itself, what follows is displaced")
    func displacesAfterAJumpTarget() throws {
        let made = try sites("test %rdi,%rdi\nmov $2,%eax\nje 1f\nmov $3,%eax\n1: syscall\ncmp $-4095,%rax\njae f\nret")
        #expect(made.first?.calls == CodeMap.CallNumbers(numbers: [2, 3]))
        #expect(window(made.first)?.before == 0)
        #expect(window(made.first)?.bytes.count == 8)
    }

    @Test("No room between a jump target and a jump is said to be impossible, not rewritten")
    func refusesWhatHasNoRoom() throws {
        let made = try sites("mov $2,%eax\ntest %rdi,%rdi\nje 1f\nnop\n1: syscall\nret")
        #expect(made.first?.coverage == .impossible(reason: "no room for a jump"))
    }

    @Test("An entry of a jump table is a jump target")
    func seesJumpTables() throws {
        let made = try sites(
            "lea table(%rip),%rdx\nmovslq (%rdx,%rdi,4),%rax\nadd %rdx,%rax\njmp *%rax\n1: mov $2,%eax\n2: syscall\nret",
            data: ".balign 4\ntable: .long 1b-table, 2b-table")
        #expect(made.first?.calls == CodeMap.CallNumbers(numbers: [2], mayBeOthers: true))
        #expect(made.first?.coverage == .impossible(reason: "no room for a jump"))
    }

    @Test("An address taken by lea is a jump target")
    func seesAddressesTaken() throws {
        let made = try sites("lea 1f(%rip),%rdx\nmov $2,%eax\njmp *%rdx\nmov $2,%eax\n1: syscall\nret")
        #expect(made.first?.coverage == .impossible(reason: "no room for a jump"))
    }

    @Test("Instructions that move the stack pointer stay where they are")
    func leavesTheStackPointerAlone() throws {
        let made = try sites("mov $2,%eax\nsub $24,%rsp\nsyscall\nadd $24,%rsp\nret")
        #expect(made.first?.coverage == .impossible(reason: "no room for a jump"))
    }

    @Test("Flags that are used across the call forbid rewriting")
    func seesFlagsUsed() throws {
        let made = try sites("cmp $1,%rdi\nmov $2,%eax\nsyscall\nmov %rax,%rdx\nje f\nret")
        #expect(made.first?.coverage == .impossible(reason: "flags are used across the call"))
    }

    @Test("A rip-relative operand in a window is noted for mending")
    func notesRipRelativeOperands() throws {
        let made = try sites("mov $2,%eax\nmov value(%rip),%edi\nsyscall\nret", data: "value: .long 7")
        #expect(window(made.first)?.fixups == [2])
        #expect(window(made.first)?.bytes.count == 8)
    }

    @Test("A number that comes from an argument may be any: the site is rewritten")
    func rewritesUnknownNumbers() throws {
        let made = try sites("mov %rdi,%rax\nmov %rsi,%rdi\nsyscall\nret")
        #expect(made.first?.calls.mayBeOthers == true)
        #expect(window(made.first) != nil)
    }

    @Test("A number that is kept in another register is followed there, through calls")
    func followsCopies() throws {
        let made = try sites("mov $202,%r12d\n1: call *%rdx\nmov %r12d,%eax\nsyscall\ncmp $-11,%eax\nje 1b\nret")
        #expect(made.first?.calls == CodeMap.CallNumbers(numbers: [202]))
        #expect(made.first?.coverage == .leftAlone)
    }

    @Test("A jump into the middle of an instruction is an error: the decoding has lost its step")
    func noticesLostStep() throws {
        #expect(throws: InterceptionError.self) { try sites("jmp f+7\nmovabs $0x1122334455667788,%rax\nret") }
    }

    @Test("Objects that are cut off anywhere, or have bytes changed, give an error and never a trap")
    func survivesDamage() throws {
        let workshop = try Workshop()
        let object = try workshop.assemble(".text\nmov $2,%eax\nsyscall\nret\n", "victim")
        for count in stride(from: 0, to: object.bytes.count, by: 61) {
            _ = try? SiteFinder(ObjectFile(path: "cut", bytes: Array(object.bytes[..<count]))).sites()
        }
        let seed: UInt64 = 7
        print("seed \(seed)")
        var state = seed
        for _ in 0..<2000 {
            var bytes = object.bytes
            for _ in 0..<4 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = UInt8(truncatingIfNeeded: state >> 20)
            }
            _ = try? SiteFinder(ObjectFile(path: "changed", bytes: bytes)).sites()
        }
    }
}
