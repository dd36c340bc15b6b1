import Testing
@Test func placeholderBlockDevice() { #expect(Bool(true)) }
