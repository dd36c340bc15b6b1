import Testing
@Test func placeholderVolume() { #expect(Bool(true)) }
