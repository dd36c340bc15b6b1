/// Sizes as people write them. Invariant: what `format` prints, `parse` reads back to the same number.
public enum ByteSize {
    private static let suffixes: [(name: Character, shift: Int)] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)]

    /// Bytes of "4096", "64K", "512M", "1G", "8T" (powers of 1024; "KiB" and "KB" are read as "K"; case does not matter), or nil
    /// where the text is no size or passes 2^64.
    public static func parse(_ text: some StringProtocol) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, let number = UInt64(digits) else { return nil }
        var suffix = text.dropFirst(digits.count).uppercased()
        if suffix.isEmpty || suffix == "B" { return number }
        if suffix.hasSuffix("IB") {
            suffix.removeLast(2)
        } else if suffix.count == 2 && suffix.hasSuffix("B") {
            suffix.removeLast()
        }
        guard suffix.count == 1, let unit = suffixes.first(where: { suffix == String($0.name) }) else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: UInt64(1) << UInt64(unit.shift))
        return overflow ? nil : bytes
    }

    /// The shortest exact text: the largest unit that divides the number.
    public static func format(_ bytes: UInt64) -> String {
        for (name, shift) in suffixes.reversed() where bytes > 0 && bytes & ((UInt64(1) << UInt64(shift)) - 1) == 0 {
            return "\(bytes >> UInt64(shift))\(name)"
        }
        return "\(bytes)"
    }
}
